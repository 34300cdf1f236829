"""Faithful, different images of an image, and the answers of a frozen model over all of them.

The public names load on first use, so that ``import hb_tta`` imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hb_tta.context import DescribedContext, MultimodalContext
from hb_tta.errors import UserError

if TYPE_CHECKING:
    from hb_tta.augment import Augmentation, Augmenter
    from hb_tta.mumu import Mumu
    from hb_tta.tta.answer import Answer, answer

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Augmentation",
    "Augmenter",
    "DescribedContext",
    "Mumu",
    "MultimodalContext",
    "UserError",
    "__version__",
    "answer",
]

_LAZY = {
    "Answer": "hb_tta.tta.answer",
    "Augmentation": "hb_tta.augment",
    "Augmenter": "hb_tta.augment",
    "Mumu": "hb_tta.mumu",
    "answer": "hb_tta.tta.answer",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
