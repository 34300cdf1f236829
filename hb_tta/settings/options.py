"""The options: how each field of ``ViewSettings`` is read, and spelled at every door.

A new one is an entry of ``OPTIONS``, a field in value.py, and its meaning where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from hb_tta import spelling
from hb_tta.describe import DescriberSpec
from hb_tta.describe.drafts import Drafting
from hb_tta.device import DTYPES
from hb_tta.errors import UserError, shown
from hb_tta.generators import DEFAULT
from hb_tta.presets import PRESETS, UNSAID
from hb_tta.settings.plain import read_weights
from hb_tta.spelling import Unfit
from hb_tta.views.encode import PNG, UNKNOWN, read_format
from hb_tta.views.judges import NONE, read_judge
from hb_tta.views.seeds import FIXED, SEEDS
from hb_tta.views.select import read_min_score


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
        return DescriberSpec(**{**value, "mllm": read_weights(value["mllm"])})
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


# ── What help says of them ───────────────────────────────────────────────────────────────────────

_FAMILY = (
    "the models: sdxl, for photographs, wants a GPU and downloads its weights; pocket, bundled, "
    "knows the pocket world alone; or a folder with a family.json (default: sdxl)"
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
_DEVICE = "where the models run, such as cpu or cuda:1 (default: a GPU if any)"
_FORMAT = (
    "of the views' files: png, webp (the same pixels in less room) or webp:QUALITY, 1 to 100 "
    "(default: png)"
)
_STORE = (
    "where views are kept: a folder, or an address such as s3://bucket/views "
    "(default: $HB_TTA_STORE or ~/.cache/hb_tta/store)"
)


OPTIONS: dict[str, Option] = {
    "family": Option("sdxl", spelling.named, "--family", "NAME", _FAMILY, in_spec=True),
    "n": Option(
        4, spelling.views, "-n", "N", "generated views of an image (default: 4)", also="views"
    ),
    "seed": Option(0, spelling.whole, "--seed", "SEED", _SEED),
    "candidates": Option(DEFAULT, _count, "--candidates", "N", _CANDIDATES, in_spec=True),
    "judge": Option(DEFAULT, read_judge, "--judge", "NAME", _JUDGE, in_spec=True, neutral=NONE),
    "min_score": Option(DEFAULT, read_min_score, "--min-score", "SCORE", _MIN_SCORE, in_spec=True),
    "seeds": Option(DEFAULT, _seeds, "--seeds", "HOW", _SEEDS, in_spec=True, neutral=FIXED),
    "drafts": Option(DEFAULT, _drafts, "--drafts", "N", _DRAFTS, in_spec=True, neutral=Drafting()),
    "preset": Option(UNSAID, _preset, "--preset", "NAME", _PRESET, answering=True),
    "gate": Option(DEFAULT, spelling.probability, "--gate", "P", _GATE, answering=True),
    "gate_share": Option(None, spelling.probability, "--gate-share", "S", _SHARE, answering=True),
    "describer": Option(
        DEFAULT, _describer, "--describer", "DIR|ID", _DESCRIBER, in_spec=True, neutral=DEFAULT
    ),
    "dtype": Option(None, spelling.dtype, "--dtype", "NAME", _DTYPE, in_spec=True),
    "batch_size": Option(None, spelling.positive, "--batch-size", "N", _BATCH, running=True),
    "cpu_offload": Option(False, spelling.yes_or_no, "--cpu-offload", None, _OFFLOAD, running=True),
    "deterministic": Option(
        False, spelling.yes_or_no, "--deterministic", None, _DETERMINISTIC, in_spec=True
    ),
    "format": Option(PNG, _format, "--format", "NAME", _FORMAT, in_spec=True),
    "device": Option(None, spelling.device, "--device", "DEVICE", _DEVICE, running=True),
    "store": Option(None, spelling.named, "--store", "DIR", _STORE, running=True),
}
"""The fields of ``ViewSettings`` that are options at every door, by name."""


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
