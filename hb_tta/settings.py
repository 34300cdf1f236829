"""Which views: one value, spelled in one way at every door.

    ViewSettings("hummingbird", {"lora": None}, n=8)                           # Python
    hb-tta augment IMAGE --method hummingbird -n 8 --lora none                 # our commands
    lmms-eval … --augment hummingbird --augment_args n=8,lora=none             # key=value,…
    … --augment_args '{"n": 8, "lora": null}'      … --augment_args @views.json

``ViewSettings.parse`` reads what a person wrote, ``augmenter()`` makes what they asked for, and
``to_json()`` writes it down. A field of ``ViewSettings`` is an option at all of these doors: a new
one is a line there, and its meaning. A method's own settings are the fields of its spec.

Importing this module imports no torch.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from os import PathLike, fspath
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from hb_tta import spelling
from hb_tta.augment import OFFERED, Augmenter
from hb_tta.describe import DescriberSpec
from hb_tta.describe.drafts import Drafting
from hb_tta.device import DTYPES
from hb_tta.errors import UserError, meant, shown
from hb_tta.families import Family, get_family, list_families
from hb_tta.generators import DEFAULT, Default, get_method, list_methods
from hb_tta.generators.fields import ALIASES, Setting, method_settings
from hb_tta.generators.settings import family_defaults, full_settings, used_settings
from hb_tta.presets import PRESETS, UNSAID, at_harness, preset_values
from hb_tta.spelling import ARGS, Unfit
from hb_tta.store import Store, TieredStore, content_key
from hb_tta.views.encode import PNG, UNKNOWN, read_format
from hb_tta.views.judges import NONE, read_judge
from hb_tta.views.seeds import FIXED, SEEDS
from hb_tta.views.select import check_candidates, read_min_score
from hb_tta.weights import Weights

# ── The fields ───────────────────────────────────────────────────────────────────────────────────


class Option(NamedTuple):
    """How a field of ``ViewSettings`` is read and spelled.

    Attributes:
        default: of the field.
        read: text or JSON → the value; ``Unfit`` where it is none.
        flag, metavar, help: of our commands; without a metavar the flag takes no value.
        also: another name that means the same, in no help.
        running: no view depends on it: it is in no key and no JSON.
        in_spec: the augmenter's spec stands for it in the digest.
        neutral: the value where neither the person nor the preset says one.
        answering: it is about who answers: harnesses have it, and no view depends on it.
    """

    default: Any
    read: Callable[[Any], Any]
    flag: str
    metavar: str | None
    help: str
    also: str | None = None
    running: bool = False
    in_spec: bool = False
    neutral: Any = None
    answering: bool = False

    @property
    def decides_views(self) -> bool:
        """Whether the digest has to name it."""
        return not (self.running or self.in_spec or self.answering)

    def unsaid(self, value: Any) -> bool:
        """Whether a value says nothing, and something else decides."""
        return value is self.default and (value is None or value is DEFAULT)


def _describer(value: Any) -> Any:
    """A folder or hub id, "none", or the JSON of a ``DescriberSpec``."""
    if value is None or value == "none":
        return None
    if not isinstance(value, Mapping):
        return spelling.named(value)
    try:
        return DescriberSpec(**{**value, "mllm": _weights(value["mllm"])})
    except (KeyError, TypeError):
        names = ", ".join(one.name for one in fields(DescriberSpec))
        raise Unfit(f"is no describer: give a folder, a hub id, or its {names}") from None


def _preset(value: Any) -> str:
    if not isinstance(value, str) or value not in PRESETS:
        raise Unfit(f"is not known: choose from {', '.join(PRESETS)}")
    return value


def _count(value: Any) -> int | None:
    """A number of candidates; none stands for as many as are shown."""
    return None if value is None or value == "none" else spelling.views(value)


def _seeds(value: Any) -> str:
    if value not in SEEDS:
        raise Unfit(f"is not known: choose from {', '.join(SEEDS)}")
    return value


def _format(value: Any) -> str:
    try:
        return read_format(value)
    except UserError:
        raise Unfit(UNKNOWN) from None


def _drafts(value: Any) -> Drafting:
    try:
        return Drafting.parse(value)
    except ValueError as error:
        raise Unfit(str(error)) from None


def _option(default: Any, *rest: Any, **more: Any) -> Any:
    return field(default=default, metadata={"option": Option(default, *rest, **more)})


_FAMILY = (
    "the models: sdxl, for photographs, wants a GPU and downloads its weights; pocket, bundled, "
    "knows the pocket world alone (default: sdxl)"
)
_SEED = "of the first view; view i uses SEED + i (default: 0)"
_CANDIDATES = "images that are generated, of which the judge's best N are shown (default: -n's)"
_JUDGE = (
    "who says how well a candidate shows its description: a reward (fine_grained or itm, global or "
    "itc, clip_text, …) or vqa_yes, an MLLM's yes; NAME:DIR|ID for other weights than the family's "
    "(default: none)"
)
_MIN_SCORE = (
    "no view is shown below that score: a number, or real, real-0.1, real+0.1 to start from the "
    "real image's own (default: none)"
)
_SEEDS = (
    "fixed: the same for every question; by_context: each question's own, which the description "
    "and the image decide (default: fixed)"
)
_DRAFTS = (
    "drafts of each description, of which the one nearest to all is told: 5, or with words behind "
    "it that say more, as in 5+sampled+leave_out (default: 1)"
)
_DESCRIBER = "the MLLM that writes the descriptions (default: the family's)"
_PRESET = (
    "what decides where nothing is said: paper (views for every question, their plain mean) or "
    "safe (views only where the model is not sure without them, and checked)"
)
_GATE = "views only where the model's probability of its plain answer is below P; none: everywhere"
_SHARE = "views for the least sure share S of all questions: for curves over a whole, known set"
_DTYPE = f"numbers to compute with, {', '.join(DTYPES)} (default: what suits the device)"
_BATCH = "views made at once (default: what suits the device)"
_OFFLOAD = "keep on the GPU only what works just now: slower, for small GPUs"
_DETERMINISTIC = (
    "make each view by itself, on one thread, so that its bytes never differ: slower; otherwise "
    "views may differ by rounding with what they are made beside"
)
_FORMAT = (
    "of the views' files: png, webp (the same pixels in less room) or webp:QUALITY, 1 to 100 "
    "(default: png)"
)
_DEVICE = "where the models run, such as cpu or cuda:1 (default: a GPU if any)"
_STORE = "where views are kept (default: $HB_TTA_STORE or ~/.cache/hb_tta/store)"


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
    family: str | Family = _option(
        "sdxl", spelling.named, "--family", "NAME", _FAMILY, in_spec=True
    )
    n: int = _option(
        4, spelling.views, "-n", "N", "generated views of an image (default: 4)", also="views"
    )
    seed: int = _option(0, spelling.whole, "--seed", "SEED", _SEED)
    candidates: int | None = _option(
        DEFAULT, _count, "--candidates", "N", _CANDIDATES, in_spec=True
    )
    judge: str = _option(DEFAULT, read_judge, "--judge", "NAME", _JUDGE, in_spec=True, neutral=NONE)
    min_score: float | str | None = _option(
        DEFAULT, read_min_score, "--min-score", "SCORE", _MIN_SCORE, in_spec=True
    )
    seeds: str = _option(DEFAULT, _seeds, "--seeds", "HOW", _SEEDS, in_spec=True, neutral=FIXED)
    drafts: int | str | Drafting = _option(
        Drafting(), _drafts, "--drafts", "N", _DRAFTS, in_spec=True
    )
    preset: str = _option(UNSAID, _preset, "--preset", "NAME", _PRESET, answering=True)
    gate: float | None = _option(
        DEFAULT, spelling.probability, "--gate", "P", _GATE, answering=True
    )
    gate_share: float | None = _option(
        None, spelling.probability, "--gate-share", "S", _SHARE, answering=True
    )
    describer: str | PathLike[str] | Weights | DescriberSpec | Default | None = _option(
        DEFAULT, _describer, "--describer", "DIR|ID", _DESCRIBER, in_spec=True, neutral=DEFAULT
    )
    dtype: str | None = _option(None, spelling.dtype, "--dtype", "NAME", _DTYPE, in_spec=True)
    batch_size: int | None = _option(
        None, spelling.positive, "--batch-size", "N", _BATCH, running=True
    )
    cpu_offload: bool = _option(
        False, spelling.yes_or_no, "--cpu-offload", None, _OFFLOAD, running=True
    )
    deterministic: bool = _option(
        False, spelling.yes_or_no, "--deterministic", None, _DETERMINISTIC, in_spec=True
    )
    format: str = _option(PNG, _format, "--format", "NAME", _FORMAT, in_spec=True)
    device: str | None = _option(None, spelling.device, "--device", "DEVICE", _DEVICE, running=True)
    store: Store | TieredStore | str | PathLike[str] | bool | None = _option(
        None, spelling.named, "--store", "DIR", _STORE, running=True
    )

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
        own = {name: _of_json(name, value) for name, value in self.settings.items()}
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
                    object.__setattr__(self, name, by_preset.get(name, option.neutral))

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
                raise UserError(_unknown(key, method, [*OPTIONS, *known, *beside]))
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
        return {"method": self.method, **_plain({**said, "family": family.name, **self.settings})}

    def digest(self, spec: Mapping[str, Any]) -> str:
        """16 hex digits, the same where the views are the same.

        Args:
            spec: of the augmenter that these settings make: it names weights by their content.
        """
        told = [n for n, option in OPTIONS.items() if option.decides_views]
        shown = {name: getattr(self, name) for name in told}
        return content_key({"spec": spec, **_plain(shown)})[:16]

    # ── Made ──

    def augmenter(
        self,
        *,
        store: Store | TieredStore | None = None,
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


_JUDGED = ("judge", "candidates", "min_score")

OPTIONS: dict[str, Option] = {
    one.name: one.metadata["option"] for one in fields(ViewSettings) if "option" in one.metadata
}
"""The fields that are options at every door, by name."""

FLAGS: dict[str, tuple[str, Callable[[str], Any], str, str]] = {
    "lora": ("--lora", str, "DIR|ID", "a LoRA, or 'none' for the untuned generator"),
    "num_inference_steps": ("--steps", int, "N", "denoising steps"),
    "guidance_scale": ("--guidance", float, "SCALE", "guidance scale"),
    "base": ("--base", str, "DIR|ID", "the generator's pipeline"),
}
"""Of ``OFFERED`` those with a flag of their own: flag, type, metavar, help."""

SYNONYMS = {**ALIASES, **{one.also: name for name, one in OPTIONS.items() if one.also}}


def own_settings(method: str) -> dict[str, Setting]:
    """A method's own settings by name: its spec's fields but for ``dtype``, which all have.

    Raises:
        UserError: one of them has the name of an option.
    """
    found = method_settings(get_method(method))
    found.pop("dtype", None)
    for name in found:
        if name in OPTIONS or name in SYNONYMS:
            raise UserError(
                f"{method} has a setting of its own named {name!r}, which means something else for "
                "every method: rename it in its package"
            )
    return found


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


def options_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Every option's value, for what goes on without a method.

    Raises:
        UserError: one is not of its kind.
    """
    return {name: read_option(name, asked.get(name, one.default)) for name, one in OPTIONS.items()}


def read_option(name: str, value: Any) -> Any:
    """The value of an option, out of text or JSON.

    Raises:
        UserError: it is none.
    """
    option = OPTIONS[name]
    if option.unsaid(value):
        return value
    try:
        return option.read(value)
    except Unfit as error:
        raise UserError(f"{name}={shown(value)} {error}") from None


def _unknown(key: str, method: str, choices: list[str]) -> str:
    close = meant(key, [*choices, *SYNONYMS])
    hint = f", did you mean {SYNONYMS.get(close, close)}=?" if close else ":"
    return f"{key}= in {ARGS} is not known to {method}{hint} choose from {', '.join(choices)}"


# ── Plain JSON and back ──────────────────────────────────────────────────────────────────────────


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _json(value) for name, value in values.items()}


def _json(value: Any) -> Any:
    if isinstance(value, Drafting):
        return str(value)
    if isinstance(value, DescriberSpec):
        return {**asdict(value), "mllm": _json(value.mllm)}
    if isinstance(value, Weights):
        said = {name: it for name, it in asdict(value).items() if it is not None}
        return value.location if len(said) == 1 else said
    return fspath(value) if isinstance(value, PathLike) else value


def _of_json(name: str, value: Any) -> Any:
    """A value of a method's own setting: of what is no plain value, weights alone can be told."""
    try:
        return _weights(value) if isinstance(value, Mapping) else value
    except Unfit as error:
        raise UserError(f"{name}={shown(value)} {error}") from None


def _weights(value: Any) -> Weights:
    if not isinstance(value, Mapping):
        return Weights(fspath(value))
    known = value.keys() <= _WEIGHTS and "location" in value
    if not known or not all(it is None or isinstance(it, str) for it in value.values()):
        raise Unfit(f"names no weights: write an object of {', '.join(_WEIGHTS)}, all texts")
    return Weights(**value)


_WEIGHTS = {field.name: None for field in fields(Weights)}.keys()


# ── What was asked for: proper names → values ────────────────────────────────────────────────────


_LONGEST_NAME = 100  # characters


def by_name(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """What stands behind ``--augment_args``.

    Raises:
        UserError: it cannot be read, or a key stands twice.
    """
    found: dict[str, Any] = {}
    for key, value in given.items() if isinstance(given, Mapping) else spelling.pairs(given):
        if len(key) > _LONGEST_NAME:
            raise UserError(f"{shown(key)} in {ARGS} is no name of a setting")
        name = SYNONYMS.get(key, key)
        if name in found:
            raise UserError(f"{key}= stands twice in {ARGS}: leave one out")
        found[name] = value
    return found


def by_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the options of ``add_arguments`` were given.

    Raises:
        UserError: a setting stands twice, or ``--augment_args`` cannot be read.
    """
    flags = {
        place.removeprefix(_DEST): value
        for place, value in vars(arguments).items()
        if place.startswith(_DEST) and value is not None
    }
    named = by_name(flags.pop("args", ""))
    for name in named:
        if name in flags:
            raise UserError(f"{name} stands in {ARGS} and as an option of its own: leave one out")
    return {**named, **flags}


# ── The command line ─────────────────────────────────────────────────────────────────────────────

_ARGS = (
    "any setting by name, the method's own too (`hb-tta list` has them): key=value,…, a JSON "
    "object, or @file.json"
)
_DEST = "view_"  # before an option's name in a parser's namespace, apart from the command's own


def add_arguments(
    parser: argparse._ActionsContainer,
    *names: str,
    flags: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Flags for options, and ``--augment_args`` for all of them; ``by_arguments`` reads both.

    Args:
        names: the options, and names of ``FLAGS``, that get a flag; none: all of them but for
            those about who answers.
        flags: name → its flag, where the usual one means something else in this command.
    """
    for name, one in OPTIONS.items():
        if name in names or not (names or one.answering):
            _add_option(parser, name, flags.get(name, one.flag))
    for name, (flag, kind, metavar, help) in FLAGS.items():
        if name in names or not names:
            flag, help = flags.get(name, flag), f"{help} (default: the family's)"
            parser.add_argument(flag, dest=_DEST + name, type=kind, metavar=metavar, help=help)
    parser.add_argument(ARGS, dest=f"{_DEST}args", metavar="KEY=VALUE,…", help=_ARGS)
    parser.add_argument(ARGS.replace("_", "-"), dest=f"{_DEST}args", help=argparse.SUPPRESS)


def _add_option(parser: argparse._ActionsContainer, name: str, flag: str) -> None:
    option, dest = OPTIONS[name], _DEST + name
    if option.metavar is None:
        parser.add_argument(flag, dest=dest, action="store_true", default=None, help=option.help)
        return
    reads: dict[str, Any] = {
        "dest": dest,
        "type": spelling.argument(option.read),
        "metavar": option.metavar,
    }
    parser.add_argument(flag, help=option.help, **reads)
    if option.also:
        parser.add_argument(f"--{option.also}", help=argparse.SUPPRESS, **reads)


def settings_table(width: int = 90) -> str:
    """Each method's own settings with their defaults, for help texts."""
    lines = []
    for method in list_methods():
        try:
            told = "; ".join(spelled(method, one) for one in own_settings(method).values())
        except UserError as error:  # another package's, which does not import
            told = str(error)
        text = f"{method}: {told or 'none'}"
        lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ")
    return "\n".join([f"settings of the methods, by name in {ARGS}:", *lines])


def spelled(method: str, setting: Setting) -> str:
    """``name=default``, other families' defaults, and its short name where it has one."""
    told = [] if setting.alias is None else [f"or {setting.alias}="]
    if setting.role is not None:
        told.append("the family's")
    for name in list_families():
        values = family_defaults(get_method(method), get_family(name))
        if values.get(setting.name, setting.default) != setting.default:
            told.append(f"{name}: {values[setting.name]}")
    unsaid = setting.default is DEFAULT or setting.default is MISSING
    value = "" if unsaid else str(setting.default).lower()
    return f"{setting.name}={value}" + (f" ({', '.join(told)})" if told else "")
