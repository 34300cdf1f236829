"""Stage ``card``: measures every figure and writes the family's model card, CARD.md.

Nothing in the card is written by hand: aims and definitions stand here, figures come from
``measure``, times from the logs of the stages, sizes from the weights.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from hb_tta.disk import write_aside
from hb_tta.metrics import Interval, bootstrap_interval
from hb_tta.pocket.captions import ATTRIBUTES, FORMS
from hb_tta.report.cells import Cell, Table, written
from hb_tta.report.renderers import markdown
from hb_tta.training.pocket_family.curves import draw_curves, stage_logs
from hb_tta.training.pocket_family.edits import SWAPS
from hb_tta.training.pocket_family.evaluate import FIVE
from hb_tta.training.pocket_family.evaluate_views import UNASKED
from hb_tta.training.pocket_family.measure import MEASURES, chosen_guidance, measured, missing
from hb_tta.training.pocket_family.mllm_lessons import CATEGORIES
from hb_tta.training.pocket_family.reasons import reasons
from hb_tta.training.pocket_family.run import DEV_SEED, SEALED_SEED, TRAIN_SEED, RecipeRun
from hb_tta.training.pocket_family.sheets import draw_sheets

READ = ("scene", "shape", "colour", "count", "filling", "relation")
MAX_MEGABYTES = 45


@dataclass(frozen=True)
class Row:
    """A line of the card's table: a figure beside its aim, in the unit that is printed."""

    what: str
    aim: str
    interval: Interval
    met: bool
    unit: str = "%"

    def cells(self) -> list[str]:
        """The line's cells."""
        figure = written(Cell.of(self.interval, kind="number", unit=self.unit))
        return [self.what, self.aim, figure, str(self.interval.n), "yes" if self.met else "**no**"]


def write_card(run: RecipeRun) -> None:
    """Measure, draw and write: CARD.md, curves.png and contact sheets, in ``run.work / "card"``."""
    folder = run.work / "card"
    folder.mkdir(parents=True, exist_ok=True)
    write_aside(folder / "CARD.md", card_text(run).encode())
    draw_curves(run, folder / "curves.png")
    draw_sheets(run, folder)


def card_text(run: RecipeRun) -> str:
    """The card in Markdown; figures of models that the run has not made yet are left out."""
    top = _TOP.format(train=TRAIN_SEED, dev=DEV_SEED, sealed=SEALED_SEED)
    found = list(rows(run))
    aims = _table(["what", "aim", "figure", "n", "met"], [row.cells() for row in found])
    sections = [top, aims]
    if run.scale < 1:
        sections.append(f"Of every measure {run.scale:.0%} of its samples were taken.")
    if why := reasons(row.what for row in found if not row.met):
        sections.append(f"What is known of the misses:\n\n{why}")
    if lacking := missing(run, *MEASURES):
        sections.append(f"**Not there yet, and not measured: {', '.join(lacking)}.**")
    sections += [section(run) for needed, section in _SECTIONS.items() if not missing(run, *needed)]
    return "\n\n".join([*sections, _models(run), _stages(run), _BOTTOM]) + "\n"


def rows(run: RecipeRun) -> Iterator[Row]:
    """Every aim with its figure, as far as the models are there."""
    for needed, part in _AIMS.items():
        if not missing(run, *needed):
            yield from part(run)


def _reader_aims(run: RecipeRun) -> Iterator[Row]:
    for name in READ:
        rendered = measured(run, "reader_rendered")[name]
        yield at_least(f"reader: {name}, rendered scenes", rendered, 98)


def _vae_aims(run: RecipeRun) -> Iterator[Row]:
    for name in READ:
        trips = measured(run, "reader_round_trips")[name]
        yield at_least(f"reader: {name}, VAE round trips", trips, 97)
    psnr = bootstrap_interval(measured(run, "vae")["psnr"])
    yield Row("VAE: round trips", "28", psnr, psnr.estimate >= 28, "dB")


def _generator_aims(run: RecipeRun) -> Iterator[Row]:
    captions, embedding = measured(run, "captions"), measured(run, "embedding")
    agree = captions["agree_average"]
    yield at_least("reader: same verdicts as the strict reader, generated images", agree, 90)
    for name, aim in zip(FIVE, (99, 97, 95, 88, 95), strict=True):
        yield at_least(f"generator, from true captions: {name}", captions[name], aim)
    for name, aim in (("scene", 80), ("colour", 60)):
        yield at_least(f"generator, from the embedding alone: {name}", embedding[name], aim)
    yield _held_out(captions["average"], measured(run, "captions_held_out")["average"])


def _form_aims(run: RecipeRun) -> Iterator[Row]:
    seen, held_out = measured(run, "forms"), measured(run, "forms_held_out")
    yield at_least("generator, full captions: all that is named is right", seen["full/all"], 88)
    for form in FORMS:
        if f"{form}/asked" not in seen:
            continue
        what = f"generator, what is asked is kept, form {form}"
        yield at_least(what, seen[f"{form}/asked"], 97)
        yield at_least(f"{what}, held-out combinations", held_out[f"{form}/asked"], 95)
    yield at_least(
        "generator, the filling from the embedding (chance: 33)", seen["relation/filling"], 70
    )


def _mllm_aims(run: RecipeRun, role: str = "mllm", name: str = "MLLM") -> Iterator[Row]:
    mllm = measured(run, role)
    for category in CATEGORIES:
        yield between(f"{name}: {category}", mllm[f"{category}/accuracy"], 75, 88, images=2)
    for category in CATEGORIES:
        blind = percent(mllm[f"{category}/blind"], 2)
        yield Row(f"{name}, blind: {category}", "≤ 55", blind, blind.estimate <= 55)
    for category in CATEGORIES:
        kept = mllm[f"{category}/description, ordinary"]
        what = f"{name}'s descriptions, ordinary pictures: {category} is in it and right"
        yield at_least(what, kept, 90, images=2)


def _second_mllm_aims(run: RecipeRun) -> Iterator[Row]:
    yield from _mllm_aims(run, "mllm_two", "second MLLM")


def _evaluator_aims(run: RecipeRun) -> Iterator[Row]:
    for name in (*ATTRIBUTES, *SWAPS):
        right = measured(run, "evaluator")[name]
        swapped = ", swapped" if name in SWAPS else ""
        yield at_least(f"evaluator, one-edit wrong captions: {name}{swapped}", right, 85)


def _clip_aims(run: RecipeRun) -> Iterator[Row]:
    zero_shot = measured(run, "clip")["colour and shape"]
    yield between("CLIP, zero-shot on single objects: colour and shape", zero_shot, 60, 95)


def at_least(what: str, values: np.ndarray, aim: float, *, images: int = 1) -> Row:
    """A share in percent that should reach its aim; ``images``: samples in a row of one image."""
    interval = percent(values, images)
    return Row(what, f"{aim:g}", interval, interval.estimate >= aim)


def between(what: str, values: np.ndarray, low: float, high: float, *, images: int = 1) -> Row:
    """A share in percent that should be neither too low nor too high."""
    interval = percent(values, images)
    return Row(what, f"{low:g}–{high:g}", interval, low <= interval.estimate <= high)


def percent(values: np.ndarray, images: int = 1) -> Interval:
    """The mean of 0/1 values in percent, resampled by images."""
    groups = None if images == 1 else np.arange(len(values)) // images
    return bootstrap_interval(100 * values, groups=groups)


def _held_out(seen: np.ndarray, unseen: np.ndarray) -> Row:
    """How much worse the generator is on combinations that no training scene contains."""
    tagged = np.concatenate([100 * seen, -100 * unseen - 1000])  # tells the two after resampling

    def gap(values: np.ndarray) -> float:
        mine, other = values[values >= 0], -values[values < 0] - 1000
        return float(mine.mean() - other.mean()) if len(mine) and len(other) else 0.0

    interval = bootstrap_interval(tagged, statistic=gap, resamples=2000)
    what = "generator: the five averaged, seen minus held-out combinations"
    return Row(what, "≤ 5", interval, interval.estimate <= 5, "points")


def _diversity(run: RecipeRun) -> Iterator[Row]:
    figures = measured(run, "diversity")
    for name in UNASKED:
        # A caption none of whose pictures shows a thing has no spread, and is left out.
        known = np.isfinite(figures[name])
        drawn, world = figures[name][known], figures[f"world_{name}"][known]
        interval = _ratio(drawn, world) if known.any() else Interval(0.0, 0.0, 0.0, 0)
        what = f"generator, between seeds: spread of {name}, of the world's"
        yield Row(what, "80–120", interval, 80 <= interval.estimate <= 120)


def _ratio(drawn: np.ndarray, world: np.ndarray) -> Interval:
    """The mean of the first in percent of the mean of the second; captions are resampled."""

    def ratio(rows: np.ndarray) -> float:
        picked = rows.astype(int)
        return 100 * float(drawn[picked].mean() / world[picked].mean())

    return bootstrap_interval(np.arange(len(drawn)), statistic=ratio, resamples=2000)


def _table(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    return markdown(Table(header, [list(map(str, line)) for line in lines]))


def _cell(values: np.ndarray, images: int = 1) -> str:
    return written(Cell.of(percent(values, images), kind="number"))


PARTS = ("held-out", "worn", "ordinary")


def _questions(run: RecipeRun, role: str = "mllm", title: str = "The MLLM") -> str:
    mllm = measured(run, role)
    shown = ("accuracy", "single_word", "blind", "blank", *(f"accuracy, {p}" for p in PARTS))
    lines = []
    for category in CATEGORIES:
        words = mllm.get(f"{category}/text alone")
        lines.append(
            [
                category,
                *(_cell(mllm[f"{category}/{name}"], 2) for name in shown),
                "" if words is None else _cell(words, 2),
                f"{100 * mllm[f'best_blind/{category}'][0]:.1f}",
            ]
        )
    header = [
        *("pocket_mme", "accuracy", "one word", "blind", "blank", *PARTS),
        *("words alone", "best blind"),
    ]
    return "\n\n".join([f"## {title} beside its baselines", _BLIND, _table(header, lines)])


def _second_questions(run: RecipeRun) -> str:
    return _questions(run, "mllm_two", "The second MLLM")


def _forms(run: RecipeRun) -> str:
    sources = {"": measured(run, "forms"), ", held-out": measured(run, "forms_held_out")}
    names = ("all", "asked", "filling", *FIVE)
    lines = [
        [f"{form}{where}", *(_found(figures, f"{form}/{name}") for name in names)]
        for where, figures in sources.items()
        for form in (*FORMS, "embedding alone")
    ]
    return "\n\n".join(
        ["## The generator by form of caption", _BY_FORM, _table(["form", *names], lines)]
    )


def _found(figures: dict[str, np.ndarray], name: str) -> str:
    return _cell(figures[name]) if name in figures else ""


def _drawn(run: RecipeRun) -> str:
    captions = measured(run, "captions")
    sources = {
        "caption alone": captions,
        "caption and embedding": measured(run, "captions_and_embedding"),
        "embedding alone": measured(run, "embedding"),
        "caption alone, held-out combinations": measured(run, "captions_held_out"),
    }
    names = (*FIVE, "bound")
    lines = [
        [how, judge, *(_cell(figures[prefix + name]) for name in names)]
        for how, figures in sources.items()
        for judge, prefix in (("reader", ""), ("strict", "strict_"))
    ]
    shuffled = [_cell(captions[f"shuffled_{name}"]) for name in names]
    lines.append(["caption alone, of another scene", "reader", *shuffled])
    agree = ", ".join(f"{name} {_cell(captions[f'agree_{name}'])}" for name in FIVE)
    text = (
        f"The two readers give the same verdict on: {agree}; they see exactly the same things in "
        f"{_cell(captions['agree_reading'])} % of the pictures."
    )
    table = _table(["drawn from", "judge", *names], lines)
    return "\n\n".join(["## The generator beside its baselines", _DRAWN, table, text])


def _readers(run: RecipeRun) -> str:
    sources = {
        "rendered": measured(run, "reader_rendered"),
        "rendered, held-out combinations": measured(run, "reader_held_out"),
        "VAE round trips": measured(run, "reader_round_trips"),
    }
    lines = [
        [what, judge, *(_cell(figures[prefix + name]) for name in READ)]
        for what, figures in sources.items()
        for judge, prefix in (("reader", ""), ("strict", "strict_"))
    ]
    return "\n\n".join(["## The two readers", _READ, _table(["scenes", "judge", *READ], lines)])


def _views(run: RecipeRun) -> str:
    described, recorded = measured(run, "views"), measured(run, "views_of_records")
    lines = [
        [
            category,
            _cell(described[f"{category}/kept"], 2),
            _cell(described[f"{category}/chance"], 2),
            _cell(recorded[f"{category}/kept"], 2),
            len(described[f"{category}/kept"]) // 2,
        ]
        for category in CATEGORIES
    ]
    header = [
        "category",
        "kept, %",
        "by chance, %",
        "kept, description from the record, %",
        "images",
    ]
    return "\n\n".join(["## What a view keeps", _KEPT, _table(header, lines)])


def _guidance(run: RecipeRun) -> str:
    figures = measured(run, "guidance")
    scales = list(dict.fromkeys(name.split("/")[0] for name in figures))
    lines = [[s, *(_cell(figures[f"{s}/{name}"]) for name in (*FIVE, "average"))] for s in scales]
    text = f"On the dev seed, from captions alone; {chosen_guidance(run):g} was chosen."
    return "\n\n".join(["## Guidance", text, _table(["scale", *FIVE, "average"], lines)])


def _models(run: RecipeRun) -> str:
    lines, parameters, size = [], 0, 0
    for folder in sorted({path.parent for path in run.weights.rglob("*.safetensors")}):
        files = list(folder.glob("*.safetensors"))
        count, bytes_ = sum(map(_parameters, files)), sum(f.stat().st_size for f in files)
        lines.append([f"`{folder.relative_to(run.weights)}`", f"{count:,}", f"{bytes_ / 1e6:.2f}"])
        parameters, size = parameters + count, size + bytes_
    lines.append(["together", f"{parameters:,}", f"{size / 1e6:.2f} (aim: ≤ {MAX_MEGABYTES})"])
    return "\n\n".join(["## Models", _table(["folder", "parameters", "MB"], lines)])


def _parameters(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return sum(int(np.prod(file.get_slice(key).get_shape())) for key in file.keys())


def _stages(run: RecipeRun) -> str:
    logs = stage_logs(run)
    lines = [
        [stage, f"{log[-1]['step']:.0f}", f"{log[-1]['seconds'] / 60:.1f}"]
        for stage, log in logs.items()
    ]
    total = sum(log[-1]["seconds"] for log in logs.values()) / 60
    lines.append(["together", "", f"{total:.1f}"])
    header = ["stage", "steps", "minutes (wall, several stages at once on the machine)"]
    seed = f" Seed {run.seed}."
    return "\n\n".join(
        [
            "## Training",
            f"Measured on {hardware(run)}.{seed} Stages whose logs are here, wherever they were "
            "trained (docs/LOG.md says where), on the dev seed against time:",
            "![accuracy against time](curves.png)",
            _table(header, lines),
        ]
    )


def hardware(run: RecipeRun) -> str:
    """The machine in words."""
    if run.device.startswith("cuda"):
        return torch.cuda.get_device_name(run.device)
    names = {
        line.split(":", 1)[1].strip()
        for line in _read("/proc/cpuinfo").splitlines()
        if line.startswith("model name")
    }
    name = ", ".join(sorted(names)) or platform.processor() or platform.machine()
    return f"a CPU ({name}), {torch.get_num_threads()} torch thread a stage"


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


_AIMS: dict[tuple[str, ...], Callable[[RecipeRun], Iterator[Row]]] = {
    ("reader_rendered",): _reader_aims,
    ("reader_round_trips", "vae"): _vae_aims,
    ("captions", "embedding", "captions_held_out"): _generator_aims,
    ("forms", "forms_held_out"): _form_aims,
    ("mllm",): _mllm_aims,
    ("mllm_two",): _second_mllm_aims,
    ("evaluator",): _evaluator_aims,
    ("clip",): _clip_aims,
    ("diversity",): _diversity,
}
_SECTIONS: dict[tuple[str, ...], Callable[[RecipeRun], str]] = {
    ("reader_rendered", "reader_round_trips"): _readers,
    ("forms", "forms_held_out"): _forms,
    ("mllm",): _questions,
    ("mllm_two",): _second_questions,
    ("captions", "captions_and_embedding", "embedding", "captions_held_out"): _drawn,
    ("views", "views_of_records"): _views,
    ("guidance",): _guidance,
}

_TOP = """# The pocket family

Tiny models of the ordinary classes, trained from nothing on a procedural world of coloured shapes
(64×64 pixels), so that all of hb-tta runs and is measured on a laptop. This card is written by the
recipe:

```
python -m hb_tta.training.pocket_family --stage all
```

Scenes come from streams of seeds: {train} for training, {dev} for every choice, {sealed} for the
figures below. What answers and describes has never seen the combinations that are held out; what
draws and what judges has seen them all. Percentages are followed by their 95 % bootstrap interval;
*n* counts what was resampled.

## Aims"""

_BLIND = """The MLLM's answers, in percent. *Accuracy*: MME's wording; *one word*: another usual
suffix; *blind*: the same model with another scene's picture; *blank*: with a grey one; *best
blind*: what a model could reach that knows every question's usual answer and sees nothing.
*Held-out*, *worn*, *ordinary*: accuracy by part; *words alone*: the true caption in place of the
picture."""

_BY_FORM = """Drawn from captions in every form that is written, with the reference's embedding;
judged by the reader, in percent. *All*: everything that the caption names is right. *Asked*: the
questions that it decides are answered of the picture as of the reference. *Filling*: no caption
names it; of pictures that show the right shapes."""

_READ = """In percent of the scenes: the background; the shapes; they with their colours; they with
their numbers; the relation, and none that excludes it. The strict reader is untrained: palette,
connected components, templates."""

_DRAWN = """The generator's pictures, in percent. *Scene*: the background is the named one. *Colour*
and *existence*: every named colour, every named shape is there. *Count*: of every named colour and
shape together there are as many as named. *Position*: the named relation holds between the named
groups. *Bound*: every named shape is there in its named colour."""

_KEPT = """`Augmenter` gives a view of an image and a question, with the MLLM's own description.
*Kept*: the reader's answer to the question is the same for the view as for the reference; a
question that cannot be answered of the view is not kept. *By chance*: the same, of the view of
another reference."""

_BOTTOM = """## Contact sheets

Frames are green where the reader reads what was asked for, red where not.

![the world](world.png)
![worn pictures](worn.png)
![VAE round trips](round_trips.png)
![one caption, 16 seeds](seeds.png)
![16 captions](captions.png)

## Limits

The family is a test bed: it knows four shapes, five colours, four backgrounds, three fillings, at
most four equal things, and the words for them but for the fillings, which no caption names.
Directions are judged by whether they hold, since a generated picture may hold two (left of and
above). Figures come from one training run with one seed."""
