"""Which world a family of weights knows: the one place that says so.

The world grew under the families: the third knows fillings, grounds that lean towards a neighbour,
and more questions. Whatever draws scenes or questions takes an edition, and draws by default what
the bundled weights know, so a scene or a question of an older edition stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass

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

BUNDLED = SECOND
"""What the weights in ``hb_tta/pocket/weights`` know. It changes with them."""
