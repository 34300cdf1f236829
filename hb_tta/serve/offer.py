"""What the server does to a question, and what of it a client may have otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from hb_tta.errors import UserError, choose_from
from hb_tta.serve.limits import Limits
from hb_tta.serve.refusal import Refused
from hb_tta.settings import by_name, refuse_share
from hb_tta.settings.augmented import AT_ONCE, AugmentSettings
from hb_tta.spelling import ARGS

OVERRIDES = (
    *("n", "seed", "candidates", "min_score", "gate", "seeds"),
    *("combine", "real_weight", "share", "alpha", "paraphrases"),
)
"""Settings that a client may say: none of them loads a model or names a file."""

PLAIN = "none"
"""In place of a method: the model is served as it is."""

_BOUNDED = {"n": "views", "candidates": "candidates", "paraphrases": "paraphrases"}


class Offer:
    """The server's own settings, and those that clients ask for.

    Attributes:
        settings: of a question of which its client says nothing; None: no views are shown.

    Args:
        method: of the views, or ``PLAIN``.
        asked: what the person who serves said of them, by name (``hb_tta.settings.by_name``).
        limits: what clients may ask for at most.
        device: of the views, where nothing is said.
        combines: how the backend can combine views, the usual way first.

    Raises:
        UserError: as of ``AugmentSettings.parse``.
    """

    def __init__(
        self,
        method: str,
        asked: Mapping[str, Any],
        limits: Limits,
        combines: Sequence[str],
        device: str | None = None,
    ) -> None:
        refuse_share(asked)
        if AT_ONCE in asked:
            raise UserError(f"{AT_ONCE}= in {ARGS} is a harness's: use --limits batch=N here")
        self._method, self._limits = method, limits
        self._asked = {"combine": combines[0], **asked}
        self._device, self._combines = device, combines
        if method == PLAIN and asked:
            raise UserError(f"{', '.join(asked)} in {ARGS} is about views: --augment none has none")
        self.settings = None if method == PLAIN else self._possible(self._asked)
        self._varied = lru_cache(maxsize=256)(self._parse)

    def of(self, given: Mapping[str, Any]) -> AugmentSettings | None:
        """The settings of a question.

        Args:
            given: some of ``OVERRIDES``, as ``ViewSettings.parse`` reads them.

        Raises:
            Refused: another setting is among them, a value is none, or more than is allowed.
        """
        if not given:
            return self.settings
        if self.settings is None:
            raise Refused(400, f"hb_tta: {', '.join(given)}: this server shows no views")
        try:
            return self._varied(json.dumps(given, sort_keys=True))
        except UserError as error:
            raise Refused(400, f"hb_tta: {error}") from None

    def _parse(self, given: str) -> AugmentSettings:
        said = by_name(json.loads(given))
        for name in said:
            if name not in OVERRIDES:
                raise UserError(f"{name} is not a client's to say{choose_from(name, OVERRIDES)}")
        settings = self._possible({**self._asked, **said})
        assert self.settings is not None
        for name, limit in _BOUNDED.items():
            most = max(getattr(self._limits, limit), _number(self.settings, name))
            if _number(settings, name) > most:
                raise UserError(f"{name}={_number(settings, name)} is too many: use up to {most}")
        return settings

    def _possible(self, asked: Mapping[str, Any]) -> AugmentSettings:
        settings = AugmentSettings.parse(self._method, asked, self._device)
        rule = settings.combining.combine
        if rule not in self._combines:
            raise UserError(
                f"combine={rule} is not to be had of this model: use combine="
                f"{' or '.join(self._combines)}"
            )
        return settings


def _number(settings: AugmentSettings, name: str) -> int:
    holder = settings.combining if name == "paraphrases" else settings.views
    return getattr(holder, name) or 0
