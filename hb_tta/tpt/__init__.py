"""Combining views of a CLIP: test-time prompt tuning, batched, and what needs no tuning.

    encoders.py   any CLIP as one interface        prompt_learners.py  context vectors → features
    filters.py    which views are trusted          tuner.py      TPT on unlabelled images
    views.py      crops and generated views        few_shot.py   tuning on a task's supports
    models.py     CLIPs by name or folder          evaluate.py   a whole task, with intervals
    table.py      results as a table, as a page    results.py    the file that has them
    tda.py        a stream of images, with a cache of the confident ones

The public names load on first use: tables of results need no torch.

What needs no tuning, on the same features, is the rules of classes in hb_tta/tta/rules.py and
hb_tta/tta/mta.py.

Shapes: B images (or tasks), V views, C classes, N context tokens, M class tokens, L tokens of a
prompt, W width of the text tower, D dimensions of a feature, S supports, Q queries, K chosen views.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hb_tta.tpt.few_shot import FewShotTuner, FewShotTuning
    from hb_tta.tpt.filters import FILTERS, select_views
    from hb_tta.tpt.tda import TDA
    from hb_tta.tpt.tuner import PromptTuner, Tuning

__all__ = [
    "FILTERS",
    "TDA",
    "FewShotTuner",
    "FewShotTuning",
    "PromptTuner",
    "Tuning",
    "select_views",
]

_LAZY = {
    "FILTERS": "hb_tta.tpt.filters",
    "TDA": "hb_tta.tpt.tda",
    "FewShotTuner": "hb_tta.tpt.few_shot",
    "FewShotTuning": "hb_tta.tpt.few_shot",
    "PromptTuner": "hb_tta.tpt.tuner",
    "Tuning": "hb_tta.tpt.tuner",
    "select_views": "hb_tta.tpt.filters",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
