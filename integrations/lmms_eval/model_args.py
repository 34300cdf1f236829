"""Our part of lmms-eval's ``model_args``, and the backend's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hb_tta.settings.augmented import AugmentSettings
from hb_tta.shards import Shard

_PREFIX = "hb_"


def model_args(settings: AugmentSettings, shard: Shard | None = None) -> str:
    """What ``--model_args`` needs: lmms-eval keys its response cache by it, and prints it.

    ``hb_spec``, the digest, stands for everything; beside it is what people want to read. Texts are
    left to the digest, for they may hold commas. Parts of a run have files of their own.
    """
    views = settings.views
    told: dict[str, Any] = {"augment": views.method, "family": views.to_json()["family"]}
    told |= {"n": settings.n, "seed": views.seed, "preset": views.preset, "gate": views.gate}
    told |= asdict(settings.combining)
    numbers = {name: it for name, it in views.settings.items() if isinstance(it, int | float)}
    told = {**numbers, **told, "spec": settings.digest}
    if shard is not None:
        told["shard"] = shard
    return ",".join(f"{_PREFIX}{key}={value}" for key, value in sorted(told.items()))


def without_ours(model_args: str) -> tuple[str, dict[str, str]]:
    """A backend's own arguments, and ours without their prefix."""
    from lmms_eval.utils import _smart_comma_split

    own, ours = [], {}
    for part in _smart_comma_split(model_args.strip()) if model_args.strip() else ():
        if part.startswith(_PREFIX):
            key, _, value = part.removeprefix(_PREFIX).partition("=")
            ours[key] = value
        else:
            own.append(part)
    return ",".join(own), ours
