"""Pictures made of a whole image, which a prompt may hold beside its crops.

Canny edges by OpenCV; depth and sketch (MUMU's other two) by the same table, where somebody adds
them. A kind whose library is missing is skipped, with a sentence.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from hb_tta.errors import HbTtaWarning, UserError, choose_from

LOW, HIGH = 100, 200  # of Canny's hysteresis; the customary values


class Kind(NamedTuple):
    """A kind of picture of a whole image.

    Attributes:
        word: that follows it in the prompt.
        make: from an RGB image to one of the same size.
        needs: the library, and how to get it.
    """

    word: str
    make: Callable[[Image.Image], Image.Image]
    needs: tuple[str, str]


def canny(image: Image.Image) -> Image.Image:
    """White edges on black."""
    import cv2

    edges = cv2.Canny(np.asarray(image.convert("L")), LOW, HIGH)
    return Image.fromarray(edges).convert("RGB")


KINDS: dict[str, Kind] = {
    "canny": Kind("edges", canny, ("cv2", "pip install opencv-python-headless")),
}
"""By name. Depth and sketch join here."""


def available(names: Sequence[str]) -> Mapping[str, Kind]:
    """The named kinds whose libraries are installed.

    Raises:
        UserError: there is no such kind.
    """
    kinds = {}
    for name in names:
        if name not in KINDS:
            raise UserError(
                f"there is no picture of a whole image {name!r}{choose_from(name, KINDS)}"
            )
        library, remedy = KINDS[name].needs
        if importlib.util.find_spec(library) is None:
            warnings.warn(
                f"{name} is left out: it needs {library} ({remedy})", HbTtaWarning, stacklevel=2
            )
            continue
        kinds[name] = KINDS[name]
    return kinds
