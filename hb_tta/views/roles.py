"""What a person names for an augmenter's roles, as specs: names, folders, hub ids.

Imports no torch, and loads nothing.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from hb_tta.describe import DescriberSpec
from hb_tta.describe.drafts import Drafting
from hb_tta.errors import UserError
from hb_tta.families import Family
from hb_tta.generators import Default
from hb_tta.views.familiar import FamiliarSpec
from hb_tta.views.judges import JudgeSpec
from hb_tta.weights import Weights, as_weights

if TYPE_CHECKING:
    from hb_tta.generators import GeneratorSpec

Source = str | PathLike[str] | Weights


def familiar_spec(
    family: Family, spec: GeneratorSpec, describer: DescriberSpec | None
) -> FamiliarSpec | None:
    """What knows the family's images, where a model of the family is to see them."""
    own = {family.roles.get(role) for role in ("generator", "mllm")} - {None}
    used = {getattr(spec, name) for name in spec.roles} | {describer and describer.mllm}
    if "statistics" not in family.roles or own.isdisjoint(used):
        return None
    return FamiliarSpec(family.roles["statistics"], family.weights("image_encoder"))


def describer_spec(
    describer: Source | DescriberSpec | Default | None, family: Family, dtype: str
) -> DescriberSpec | None:
    if describer is None or isinstance(describer, DescriberSpec):
        return describer
    if isinstance(describer, Default):
        return DescriberSpec(family.weights("mllm"), dtype=dtype)
    return DescriberSpec(as_weights(describer), dtype=dtype)


def judge_spec(judge: str | JudgeSpec | None, family: Family, dtype: str) -> JudgeSpec | None:
    if judge is None or isinstance(judge, JudgeSpec):
        return judge
    return JudgeSpec.from_family(judge, family, dtype=dtype)


def drafting_of(drafts: int | str | Drafting) -> Drafting:
    try:
        return Drafting.parse(drafts)
    except ValueError as error:
        raise UserError(f"drafts={drafts!r} {error}") from None
