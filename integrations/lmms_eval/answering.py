"""Which way to answer a run takes.

What a backend gives decides which ways there are: logits, where transformers generates in this
process (from_logits.py); log-probabilities of prompts, where an engine says them (scoring.py); or
texts alone (from_texts.py). None takes another's place: what cannot be done is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hb_tta.errors import UserError
from hb_tta.integrations.lmms_eval.from_logits import Joint, Likelihoods
from hb_tta.integrations.lmms_eval.from_texts import Rescores, Texts, Votes
from hb_tta.integrations.lmms_eval.way import Way
from hb_tta.integrations.scores import holds_model
from hb_tta.settings.augmented import CONCAT, DESCRIBE, RESCORE, VOTE, AugmentSettings


def way_for(backend: Any, settings: AugmentSettings) -> Way:
    """The way to generate answers that the settings ask for."""
    ways: dict[str, Callable[[Any, AugmentSettings], Way]] = {VOTE: Votes, RESCORE: Rescores}
    if settings.combining.combine == CONCAT and not holds_model(backend):
        return Texts(backend, settings)
    return ways.get(settings.combining.combine, Joint)(backend, settings)


def way_of_likelihoods(settings: AugmentSettings) -> Way:
    """The way to compare choices.

    Raises:
        UserError: the settings' rule has no meaning for likelihoods.
    """
    if settings.combining.combine not in ("mean", DESCRIBE, CONCAT):
        raise UserError(
            f"combine={settings.combining.combine} has no meaning for multiple-choice tasks that "
            "compare likelihoods: use combine=mean"
        )
    return Likelihoods(settings)
