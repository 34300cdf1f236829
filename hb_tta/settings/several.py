"""Settings of several methods out of one request, and what not everybody can be asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hb_tta.augment import OFFERED
from hb_tta.errors import UserError
from hb_tta.presets import at_harness
from hb_tta.settings.asked import own_settings
from hb_tta.settings.options import OPTIONS
from hb_tta.settings.value import ViewSettings
from hb_tta.spelling import ARGS


def each(
    methods: Iterable[str], asked: Mapping[str, Any], *, harness: str | None = None
) -> dict[str, ViewSettings]:
    """The settings of several methods: what some of them have alone goes to those.

    Args:
        methods: names.
        asked: for.
        harness: whom it asks, ``WORDS`` or ``CLASSES`` of ``hb_tta.presets``: each method has its
            preset there.

    Raises:
        UserError: see ``ViewSettings.of``.
    """
    own = {method: own_settings(method) for method in methods}
    anybodys = {name for its in own.values() for name in its}
    for name in asked:
        if not own and name not in OPTIONS and name not in OFFERED:
            raise UserError(f"{name}= in {ARGS} is a method's, and none is named: leave it out")
    found = {}
    for method, its in own.items():
        said = {k: v for k, v in asked.items() if k in its or k not in anybodys}
        filled = said if harness is None else at_harness(method, said, harness)
        found[method] = ViewSettings.of(method, filled)
    return found


def refuse_gate(asked: Mapping[str, Any]) -> None:
    """For what makes views and asks nobody about them.

    Raises:
        UserError: a gate is asked for.
    """
    for name in ("gate", "gate_share"):
        if asked.get(name) is not None:
            raise UserError(
                f"{name}={asked[name]} needs a model that answers, and here views are made for "
                "everything: leave it out, or evaluate with lmms-eval, hb-tta tpt or hb_tta.answer"
            )


def refuse_share(asked: Mapping[str, Any]) -> None:
    """For what is given questions part by part.

    Raises:
        UserError: the share of all questions is asked for.
    """
    if asked.get("gate_share") is not None:
        raise UserError(
            f"gate_share={asked['gate_share']} needs all questions in one place, and here they "
            "come in parts: use gate=P, which looks at one question"
        )
