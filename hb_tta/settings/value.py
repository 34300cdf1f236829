"""``ViewSettings``: the value itself, what it is written down as, and the augmenter it asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from os import PathLike
from types import MappingProxyType
from typing import Any, Self, TypeAlias

from hb_tta.augment import OFFERED, Augmenter
from hb_tta.describe import DescriberSpec
from hb_tta.describe.drafts import Drafting
from hb_tta.errors import UserError
from hb_tta.families import Family, get_family
from hb_tta.generators import DEFAULT, Default, get_method
from hb_tta.generators.settings import full_settings, used_settings
from hb_tta.presets import preset_values
from hb_tta.settings.asked import by_name, own_settings, unknown
from hb_tta.settings.options import OPTIONS, read_option
from hb_tta.settings.plain import of_json, plain
from hb_tta.store import MemoryStore, Store, TieredStore, content_key
from hb_tta.views.judges import NONE
from hb_tta.views.select import check_candidates
from hb_tta.weights import Weights

Describer: TypeAlias = str | PathLike[str] | Weights | DescriberSpec | Default | None

_JUDGED = ("judge", "candidates", "min_score", "drafts")


@dataclass(frozen=True)
class ViewSettings:
    """Everything that decides which views a question gets, and how they are made.

    Attributes:
        method: a name of ``list_methods()``.
        settings: the method's own, by the names of its spec's fields (``method_settings``).
        family: which models fill the roles; in Python a ``Family``, too.
        n: views shown beside the real image, at least 1.
        seed: view ``i`` uses ``seed + i``; at least 0.
        candidates, judge, min_score: how views are chosen among generated images, see
            ``Augmenter.from_pretrained``; ``None`` and "none": all are shown.
        seeds: "fixed" or "by_context".
        drafts: of a description; in Python a number, a text or a ``Drafting``.
        describer: who writes the descriptions: a folder, a hub id or a ``DescriberSpec``;
            ``DEFAULT``: the family's; ``None``: nobody.
        preset: of ``hb_tta.presets``; it says what the person does not.
        gate: views are shown to whoever answers only where the probability of its plain answer
            is below it (``hb_tta.tta.gate``); ``None``: everywhere. Harnesses and ``answer`` read
            it; an ``Augmenter`` makes what it is asked for.
        gate_share: in its place, the share of all questions that get views, the least sure ones.
        dtype: of describer and generator; ``None``: float32 on a CPU, bfloat16 on a GPU.
        batch_size, cpu_offload, device, store: see ``Augmenter``. No view depends on them, up to
            rounding.
        deterministic: nor in their last bit; see ``Augmenter``.
        format: of the views' files; a lossy one changes pixels. See ``Augmenter``.

    Raises:
        UserError: a name is unknown, or a value is not of its kind.
    """

    method: str = "hummingbird"
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    family: str | Family = OPTIONS["family"].default
    n: int = OPTIONS["n"].default
    seed: int = OPTIONS["seed"].default
    candidates: int | None = OPTIONS["candidates"].default
    judge: str = OPTIONS["judge"].default
    min_score: float | str | None = OPTIONS["min_score"].default
    seeds: str = OPTIONS["seeds"].default
    drafts: int | str | Drafting = OPTIONS["drafts"].default
    preset: str = OPTIONS["preset"].default
    gate: float | None = OPTIONS["gate"].default
    gate_share: float | None = OPTIONS["gate_share"].default
    describer: Describer = OPTIONS["describer"].default
    dtype: str | None = OPTIONS["dtype"].default
    batch_size: int | None = OPTIONS["batch_size"].default
    cpu_offload: bool = OPTIONS["cpu_offload"].default
    deterministic: bool = OPTIONS["deterministic"].default
    format: str = OPTIONS["format"].default
    device: str | None = OPTIONS["device"].default
    store: Store | TieredStore | str | PathLike[str] | bool | None = OPTIONS["store"].default

    def __post_init__(self) -> None:
        for name in OPTIONS:
            object.__setattr__(self, name, read_option(name, getattr(self, name)))
        self._fill_in()
        if self.gate is not None and self.gate_share is not None:
            raise UserError(
                f"gate={self.gate} and gate_share={self.gate_share} both say which questions get "
                "views: leave one out"
            )
        check_candidates(self.candidates, self.n, judged=self.judge != NONE)
        if not 0 <= self.seed <= 2**63 - (self.candidates or self.n):
            raise UserError(f"seed={self.seed} is out of range: use 0 to 2**63 - n")
        own = {name: of_json(name, value) for name, value in self.settings.items()}
        read = full_settings(get_method(self.method), own)
        object.__setattr__(self, "settings", MappingProxyType(read))
        get_family(self.family)

    def _fill_in(self) -> None:
        """What the person left unsaid, by the preset, or as it is without one."""
        by_preset = preset_values(self.preset)
        if self.gate_share is not None:
            by_preset.pop("gate", None)
        unjudged = not get_method(self.method).needs_description
        if unjudged or self.judge not in (DEFAULT, by_preset.get("judge")):
            for name in _JUDGED:  # which holds for that judge alone
                by_preset.pop(name, None)
        for name, option in OPTIONS.items():
            if option.default is DEFAULT and option.neutral is not DEFAULT:
                if getattr(self, name) is DEFAULT:
                    value = by_preset.get(name, option.neutral)
                    object.__setattr__(self, name, read_option(name, value))

    # ── Read ──

    @classmethod
    def parse(cls, method: str, given: str | Mapping[str, Any] = "") -> Self:
        """What a person wrote behind ``--augment_args``, or a mapping of the same keys.

        Args:
            method: a name of ``list_methods()``.
            given: ``key=value,…``, a JSON object, ``@file.json`` that holds one, or a mapping.

        Raises:
            UserError: a key is unknown or stands twice, or a value is not of its kind.
        """
        return cls.of(method, by_name(given))

    @classmethod
    def of(cls, method: str, asked: Mapping[str, Any], *, beside: Collection[str] = ()) -> Self:
        """The settings of a method among what was asked for.

        Args:
            method: a name of ``list_methods()``.
            asked: from ``by_name`` or ``by_arguments``.
            beside: keys that the caller reads itself: they are among the choices that are told.

        Raises:
            UserError: a key is unknown, or a value is not of its kind. A setting that other
                methods have and this one ignores gives a warning.
        """
        known = own_settings(method)
        for key in asked:
            if key not in OPTIONS and key not in known and key not in OFFERED:
                raise UserError(unknown(key, method, [*OPTIONS, *known, *beside]))
        rest = {key: value for key, value in asked.items() if key not in OPTIONS}
        options = {key: value for key, value in asked.items() if key in OPTIONS}
        return cls(method, used_settings(get_method(method), rest), **options)

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Self:
        """What ``to_json`` wrote."""
        return cls.parse(written["method"], {k: v for k, v in written.items() if k != "method"})

    # ── Written down ──

    def to_json(self) -> dict[str, Any]:
        """Plain JSON of all that decides the views: the method, and what ``parse`` takes.

        Raises:
            UserError: a role of the family is filled otherwise, which its name does not tell.
        """
        family = get_family(self.family)
        if family != get_family(family.name):
            raise UserError(
                f"a family like {family.name!r} but with other weights has no name: name the "
                "weights themselves, by base, image_encoder, lora and describer"
            )
        kept = {name: getattr(self, name) for name, one in OPTIONS.items() if not one.running}
        said = {name: value for name, value in kept.items() if not OPTIONS[name].unsaid(value)}
        return {"method": self.method, **plain({**said, "family": family.name, **self.settings})}

    def digest(self, spec: Mapping[str, Any]) -> str:
        """16 hex digits, the same where the views are the same.

        Args:
            spec: of the augmenter that these settings make: it names weights by their content.
        """
        told = [n for n, option in OPTIONS.items() if option.decides_views]
        shown = {name: getattr(self, name) for name in told}
        return content_key({"spec": spec, **plain(shown)})[:16]

    # ── Made ──

    def augmenter(
        self,
        *,
        store: Store | TieredStore | MemoryStore | None = None,
        device: str | None = None,
        task: str = "vqa",
        keep_loaded: bool | None = None,
    ) -> Augmenter:
        """What makes these views: ``augmenter.augment(contexts, settings.n, settings.seed)``.

        Args:
            store: an open one in place of the settings'.
            device: where the models run if the settings do not say it.
            task, keep_loaded: see ``Augmenter``.

        Raises:
            UserError: weights are missing, or a setting is out of range.
        """
        return Augmenter.from_pretrained(
            self.method,
            family=self.family,
            describer=self.describer,
            candidates=self.candidates,
            judge=self.judge,
            min_score=self.min_score,
            seeds=self.seeds,
            drafts=self.drafts,
            dtype=self.dtype,
            device=self.device or device,
            batch_size=self.batch_size,
            cpu_offload=self.cpu_offload,
            deterministic=self.deterministic,
            format=self.format,
            store=self.store if store is None else store,
            task=task,
            keep_loaded=keep_loaded,
            **self.settings,
        )
