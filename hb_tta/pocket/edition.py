"""Which world a family of weights knows: the one place that says so.

The world grew under the families: the third knows fillings, grounds that lean towards a neighbour,
and more questions. Whatever draws scenes or questions takes an edition, and draws by default what
the bundled weights know, so a scene or a question of an older edition stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hb_tta.errors import UserError
from hb_tta.families import FAMILY_FILE, family_file, pocket_folder

PLAIN = "plain"
FILLINGS = (PLAIN, "striped", "hollow")


@dataclass(frozen=True)
class Edition:
    """A world that some weights were trained on.

    Attributes:
        fillings: what a group may be filled with; no caption names it.
        lean: how far a ground may lean towards its neighbour, in [0, 0.5).
        categories: of the questions.
        relation_always: whether every description of two groups names their relation.
    """

    fillings: tuple[str, ...]
    lean: float
    categories: tuple[str, ...]
    relation_always: bool


MME_CATEGORIES = ("existence", "count", "position", "color", "scene")
SECOND = Edition((PLAIN,), 0.0, MME_CATEGORIES, relation_always=False)
THIRD = Edition(FILLINGS, 0.46, (*MME_CATEGORIES, "style", "reasoning"), relation_always=True)

EDITIONS = {"second": SECOND, "third": THIRD}


def edition_in(folder: Path) -> Edition:
    """What the weights of a family's folder know, by its ``family.json``.

    Raises:
        UserError: it names no edition.
    """
    named = family_file(folder).get("edition")
    if not isinstance(named, str) or named not in EDITIONS:
        raise UserError(
            f"'edition' in {str(folder / FAMILY_FILE)!r} is {named!r}: write one of "
            f"{', '.join(EDITIONS)}"
        )
    return EDITIONS[named]


BUNDLED = edition_in(pocket_folder())
"""What the weights of the family ``pocket`` know. It changes with them."""
