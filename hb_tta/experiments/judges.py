"""How well each judge of views tells faithful ones from others, by what is asked.

    python -m hb_tta.experiments.judges --out DIR [--split dev|sealed] [--images 20]

Views are made as a user gets them, from descriptions by the question's template; faithful is what
the reader says (fidelity.py). *AUC*: the chance that a faithful view has a higher score than
another one. *Kept*: at ``min_score=real``, precision is the share of faithful views among those
that are kept, recall the share of the faithful that is kept. *Best*: faithful among the best one of
each question's candidates. Everything is kept in DIR; the same command again does what is missing.

    python -m hb_tta.experiments.judges supports --out DIR

measures on few-shot tasks how often a support's view shows the support's relation. A second table
says what other values of ``min_score`` keep; there each question or support is a unit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hb_tta.augment import Augmentation, Augmenter
from hb_tta.context import MultimodalContext
from hb_tta.experiments.fidelity import FAMILY, Asked, reader
from hb_tta.experiments.plan import PlannedRun, carry_out, kept, write_tables
from hb_tta.families import get_family
from hb_tta.metrics import Interval, bootstrap_interval, roc_auc
from hb_tta.pocket import hoi
from hb_tta.pocket.edition import BUNDLED
from hb_tta.pocket.tasks import SPLITS
from hb_tta.report.cells import NOTHING, Cell, Table
from hb_tta.tpt.evaluate import support_request
from hb_tta.views.select import threshold

JUDGES = ("fine_grained", "global", "clip_text", "vqa_yes")
ALL = "all"
RESAMPLES = 1000
Rows = dict[str, list[list[float]]]
"""By "score", "real" and "faithful": a question's candidates each; "real" the same for all."""


def main(argv: list[str] | None = None) -> None:
    """Measures what is missing, and prints the table."""
    options = _options(argv)
    torch.set_num_threads(options.threads)
    text = ""
    for results in carry_out(plan(options)):
        tables = [TABLES[options.what](results, options), bars_table(results)]
        text = write_tables(options.out / f"{options.what}.{options.split}.md", tables)
    print(text)


def plan(options: argparse.Namespace) -> Iterator[PlannedRun]:
    """A run a judge."""
    measure = MEASURES[options.what]
    for judge in options.judges:
        yield PlannedRun(judge, lambda judge=judge: _kept(judge, measure, options))  # type: ignore[misc]


def _kept(judge: str, measure: Callable[..., Any], options: argparse.Namespace) -> Any:
    augmenter = Augmenter.from_pretrained(
        "hummingbird", family=FAMILY, store=options.out / "store", judge=judge
    )
    of_tasks = options.what == "supports"
    decided_by = {
        "images": options.images,
        "views": options.views,
        **({"every": options.every, "variants": options.variants} if of_tasks else {}),
        "spec": augmenter.spec,
        "reader": get_family(FAMILY).weights("reader").fingerprint(),
    }
    path = options.out / f"{options.what}.{judge}.{options.split}.json"
    return kept(path, decided_by, lambda: measure(augmenter, options))


# ── Questions ────────────────────────────────────────────────────────────────────────────────────


def of_questions(augmenter: Augmenter, options: argparse.Namespace) -> dict[str, Rows]:
    """Category → scores and faithfulness of every question's candidates."""
    found = {}
    for category in BUNDLED.categories:
        asked = Asked.of(category, options.split, options.images)
        made = augmenter.augment(asked.contexts, n=options.views)
        faithful = asked.faithful([its.views for its in made])
        found[category] = _rows(made, [its.tolist() for its in faithful])
    return found


def _rows(made: Sequence[Augmentation], faithful: Sequence[list[float]]) -> Rows:
    scores = [its.scores or [] for its in made]
    real = [[its.real_score or 0.0] * len(its.keys) for its in made]
    return {"score": scores, "real": real, "faithful": list(faithful)}


def questions_table(results: dict[str, dict[str, Rows]], options: argparse.Namespace) -> Table:
    """A row a judge and a category."""
    title = (
        f"Judges of views: {options.images} images a category, two questions each, "
        f"{options.views} candidates a question; intervals over images."
    )
    rows = [
        [judge, category, *_figures(its)]
        for judge, found in results.items()
        for category, its in [*found.items(), (ALL, _joined(found.values()))]
    ]
    return Table(
        ["judge", "asked about", "faithful, %", "AUC", "precision, %", "recall, %", "best, %"],
        rows,
        title,
        heads=2,
    )


def _joined(parts: Any) -> Rows:
    every = list(parts)
    return {name: [row for part in every for row in part[name]] for name in every[0]}


def _figures(rows: Rows, *, images_of: int = 2) -> list[Cell | str]:
    """What one row of the table says; ``images_of``: questions in a row of one image."""
    score, real, right = (np.array(rows[name]) for name in ("score", "real", "faithful"))
    unit = np.arange(len(score)) // images_of
    units = np.repeat(unit, score.shape[1])
    s, r, t = score.ravel(), real.ravel(), right.ravel()
    kept = s >= r
    best = right[np.arange(len(right)), score.argmax(1)]  # the first of equals, as in ``choose``
    return [
        _share(t, units),
        _cell(lambda i: roc_auc(s[i], t[i]), units, kind="fine"),
        _cell(lambda i: _ratio(t[i] * kept[i], kept[i]), units),
        _cell(lambda i: _ratio(t[i] * kept[i], t[i]), units),
        _share(best, unit),
    ]


def _share(values: np.ndarray, units: np.ndarray) -> Cell:
    return Cell.of(bootstrap_interval(values, groups=units))


def _cell(
    statistic: Callable[[np.ndarray], float], units: np.ndarray, *, kind: str = "percent"
) -> Cell | str:
    """A statistic of observations by their places; "–" where the data do not give it."""
    whole = statistic(np.arange(len(units)))
    if np.isnan(whole):
        return NOTHING
    found: Interval = bootstrap_interval(
        np.arange(len(units)),
        groups=units,
        # A resample without examples of both kinds says nothing new.
        statistic=lambda places: np.nan_to_num(statistic(places.astype(int)), nan=whole),
        resamples=RESAMPLES,
    )
    return Cell.of(found, kind=kind)


def _ratio(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else float("nan")


# ── Supports ─────────────────────────────────────────────────────────────────────────────────────


def of_supports(augmenter: Augmenter, options: argparse.Namespace) -> dict[str, Rows]:
    """Variant → scores of every support's candidates, and whether each shows its relation."""
    found = {}
    for variant in options.variants:
        tasks = hoi.pocket_hoi(variant, options.split, options.images)
        supports = [(one, task.object) for task in tasks for one in task.supports[:: options.every]]
        contexts = [_support(one, shape) for one, shape in supports]
        made = augmenter.augment(contexts, n=options.views)
        shown = [
            [float(_shows(reading, one.action, shape)) for reading in reader().read(its.views)]
            for (one, shape), its in zip(supports, made, strict=True)
        ]
        found[variant] = _rows(made, shown)
    return found


def _support(sample: hoi.HoiSample, shape: str) -> MultimodalContext:
    from hb_tta.datasets import HoiImage

    image = HoiImage(sample.image, sample.label, hoi.AGENT, sample.action, shape)
    request = support_request(image)
    return MultimodalContext(sample.image, request.guidance, request.task)


def _shows(reading: Any, action: str, shape: str) -> bool:
    first, second = (reading.find(shape=name) for name in (hoi.AGENT, shape))
    return reading.holds(first, action, second)


def supports_table(results: dict[str, dict[str, Rows]], options: argparse.Namespace) -> Table:
    """A row a judge and a variant of the tasks."""
    title = (
        f"Judges of few-shot supports' views: {options.images} tasks a variant, "
        f"{options.views} candidates a support; *faithful*: it shows the support's relation; "
        "intervals over supports."
    )
    rows = [
        [judge, variant, *_figures(its, images_of=1)]
        for judge, found in results.items()
        for variant, its in [*found.items(), (ALL, _joined(found.values()))]
    ]
    return Table(
        ["judge", "supports", "faithful, %", "AUC", "precision, %", "recall, %", "best, %"],
        rows,
        title,
        heads=2,
    )


# ── Bars ─────────────────────────────────────────────────────────────────────────────────────────

BARS: dict[str, tuple[float | str, ...]] = {"fine_grained": ("real", "real-1", "real-2", 0, 2, 4)}
"""Judge → values of ``min_score`` that are compared, on its own scale."""


def bars_table(results: dict[str, dict[str, Rows]]) -> Table:
    """What each ``min_score`` keeps, of all questions or supports."""
    rows: list[list[Cell | str]] = [
        [judge, str(bar), *_kept_by(_joined(found.values()), bar)]
        for judge, found in results.items()
        for bar in BARS.get(judge, ())
    ]
    return Table(["judge", "min_score", "kept, %", "precision, %", "recall, %"], rows, heads=2)


def _kept_by(rows: Rows, bar: float | str) -> list[Cell | str]:
    score, real, right = (np.array(rows[name]) for name in ("score", "real", "faithful"))
    units = np.repeat(np.arange(len(score)), score.shape[1])
    least = np.array([threshold(bar, one) for one in real.ravel()])
    kept, t = score.ravel() >= least, right.ravel()
    return [
        _share(kept.astype(float), units),
        _cell(lambda i: _ratio(t[i] * kept[i], kept[i]), units),
        _cell(lambda i: _ratio(t[i] * kept[i], t[i]), units),
    ]


MEASURES = {"questions": of_questions, "supports": of_supports}
TABLES = {"questions": questions_table, "supports": supports_table}


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", nargs="?", choices=MEASURES, default="questions")
    parser.add_argument("--out", type=Path, required=True, help="a folder; the same again goes on")
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--images", type=int, default=20, help="a category; tasks a variant")
    parser.add_argument("--views", type=int, default=4, help="candidates")
    parser.add_argument("--every", type=int, default=1, help="of a task's supports, each such one")
    parser.add_argument(
        "--variants", nargs="+", choices=hoi.VARIANTS, default=list(hoi.VARIANTS), help="of tasks"
    )
    parser.add_argument("--judges", nargs="+", default=JUDGES)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
