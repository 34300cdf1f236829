"""What ``--augment NAME`` and ``--augment_args key=value,…`` mean."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hb_tta.errors import UserError
from hb_tta.generators import list_methods
from hb_tta.store import content_key
from hb_tta.tta.combine import RULES, Combiner

if TYPE_CHECKING:
    from hb_tta.augment import Augmenter

VOTE = "vote"
"""Combines the answers' texts instead of their logits: for backends that only give texts."""

_PREFIX = "hb_"


@dataclass(frozen=True)
class AugmentSettings:
    """The augmentation of a run.

    Attributes:
        method: a name of ``hb-tta list``.
        views: generated images beside the real one, for each image of a question.
        family: the models, ``sdxl`` or ``pocket``.
        seed: of the first generated view.
        lora, describer: a folder or hub id in place of the family's; "none" for no LoRA.
        steps, guidance: of the generator, None: the family's.
        combine: a rule of ``hb_tta.tta.combine``, or "vote".
        real_weight, share: of the rule.
        store: the folder of generated views.
        device: where the generator runs; decided by the command line, not by a key.
    """

    method: str
    views: int = 4
    family: str = "sdxl"
    seed: int = 0
    lora: str | None = None
    steps: int | None = None
    guidance: float | None = None
    describer: str | None = None
    combine: str = "mean"
    real_weight: float = 1.0
    share: float = 0.5
    store: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.method not in list_methods():
            raise UserError(
                f"--augment {self.method}: there is no such method, choose from "
                f"{', '.join(list_methods())}"
            )
        if self.views < 1:
            raise UserError(f"views={self.views} in --augment_args: use 1 or more")
        if self.combine == VOTE:
            Combiner("mean", self.real_weight)
        elif self.combine not in RULES:
            raise UserError(
                f"combine={self.combine} in --augment_args: choose from {', '.join([*RULES, VOTE])}"
            )
        else:
            Combiner(self.combine, self.real_weight, self.share)

    @classmethod
    def parse(cls, method: str, arguments: str, device: str | None = None) -> AugmentSettings:
        """From the flags' values.

        Raises:
            UserError: a key is unknown or given twice, or a value is not of its kind.
        """
        found: dict[str, Any] = {}
        for item in filter(None, (part.strip() for part in arguments.split(","))):
            key, is_there, value = item.partition("=")
            if not is_there:
                raise UserError(f"--augment_args {item!r}: write key=value, separated by commas")
            if key not in KEYS:
                raise UserError(f"{key}= in --augment_args: choose from {', '.join(KEYS)}")
            if key in found:
                raise UserError(f"{key}= stands twice in --augment_args: leave one out")
            found[key] = _converted(key, value)
        return cls(method, **found, device=device)

    @property
    def combiner(self) -> Combiner:
        """The rule; of a vote the weights alone count."""
        rule = "mean" if self.combine == VOTE else self.combine
        return Combiner(rule, self.real_weight, self.share)

    @cached_property
    def augmenter(self) -> Augmenter:
        """Loads no model yet.

        Raises:
            UserError: weights are missing.
        """
        from hb_tta.augment import Augmenter

        replaced: dict[str, Any] = {}
        if self.lora is not None:
            replaced["lora"] = None if self.lora == "none" else self.lora
        if self.describer is not None:
            replaced["describer"] = self.describer
        return Augmenter.from_pretrained(
            self.method,
            family=self.family,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            store=self.store,
            device=self.device,
            **replaced,
        )

    @cached_property
    def spec_hash(self) -> str:
        """Names the content of all that decides a view: weights, settings, prompts."""
        describer = self.augmenter.describer_spec
        return content_key(
            {
                "generator": self.augmenter.generator_spec.to_json(),
                "describer": describer and describer.to_json(),
            }
        )[:16]

    def model_args(self) -> str:
        """For ``--model_args``: lmms-eval keys its response cache by them, and prints them."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        named["augment"] = named.pop("method")
        for place in ("store", "device"):  # no answer depends on them
            del named[place]
        named["spec"] = self.spec_hash
        given = ((key, value) for key, value in named.items() if value is not None)
        return ",".join(f"{_PREFIX}{key}={value}" for key, value in sorted(given))


KEYS = tuple(f.name for f in fields(AugmentSettings) if f.name not in ("method", "device"))
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("views", "seed", "steps"), int),
    **dict.fromkeys(("guidance", "real_weight", "share"), float),
}


def _converted(key: str, value: str) -> Any:
    kind = _KINDS.get(key, str)
    try:
        return kind(value)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise UserError(f"{key}={value} in --augment_args: give {wanted}") from None


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
