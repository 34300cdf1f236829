"""Tables 4 and 9 and figure 15: how far views lie from their reference and from each other, FID."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hb_tta.datasets.questions import CATEGORIES, YesNoQuestion
from hb_tta.experiments.asking import first_of_each_image, questions_key
from hb_tta.experiments.methods import (
    LABELS,
    TUNED,
    UNTUNED,
    Arm,
    arms_of,
    cost_of_views,
    identity,
    make_views,
    methods_of,
    questions_of,
    views_of,
)
from hb_tta.experiments.numbers import TABLE_4 as NUMBERS_4
from hb_tta.experiments.numbers import TABLE_9 as NUMBERS_9
from hb_tta.experiments.numbers import paper_note
from hb_tta.experiments.paper import fine_tuned
from hb_tta.experiments.paper.lora import Training, cost_of, trainings_of
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import (
    Cost,
    Drawing,
    Experiment,
    Finding,
    Needs,
    Options,
    Results,
    Shown,
)
from hb_tta.metrics import bootstrap_interval, diversity, paired_test
from hb_tta.report.cells import NOTHING, Cell, Column, Table, could_have_shown
from hb_tta.report.drawing import boxes
from hb_tta.report.parts import SHOWN, SHOWN_NOTE

SEEDS, QUICK_SEEDS = 20, 4
COUNTS, QUICK_COUNTS = tuple(range(10, 101, 10)), (2, 4, 6, 8)
MARGIN = 0.05
"""Of a distance: what is nearer to it is the same."""
ENOUGH = 1000
"""Images below which a Fréchet distance is mostly its own bias."""
_AT_ONCE = 64

Features = dict[str, NDArray[np.float64]]
"""``reference`` (N, D) and ``views`` (N, V, D)."""


def images_of(options: Options, limit: int) -> list[YesNoQuestion]:
    """A question an image, the categories after each other."""
    return first_of_each_image(questions_of(options, CATEGORIES, limit))


def arms(options: Options) -> list[Arm]:
    """A row a method, Hummingbird without its LoRA and with it."""
    its = [
        [arm] if arm.label != TUNED else fine_tuned.before_and_after(options)
        for arm in arms_of(options)
    ]
    return [arm for some in its for arm in some]


def trainings(options: Options) -> list[Training]:
    """What Hummingbird's row takes beforehand, where it is among the methods."""
    return fine_tuned.trainings(options) if _is_asked(options) else []


def _about_lora(options: Options) -> list[str]:
    return fine_tuned.explained(options) if _is_asked(options) else []


def _lacking(options: Options) -> list[str]:
    return fine_tuned.lacking(options) if _is_asked(options) else []


def _is_asked(options: Options) -> bool:
    return "hummingbird" in methods_of(options)


def of_arms(results: Results, options: Options) -> dict[str, Features]:
    """The results of arms alone, by label."""
    return {arm.label: results[arm.label] for arm in arms(options) if arm.label in results}


def features_of(arm: Arm, questions: Sequence[YesNoQuestion], options: Options, n: int) -> Features:
    """CLIP's features, unnormalised as table 4's scale wants them; kept in the store."""
    from hb_tta.store import open_store
    from hb_tta.store.features import cached_tensors

    request = {
        "entry": "spread",
        "format": 1,
        "clip": options.family.weights("clip").fingerprint(),
        "views": identity(arm, options, n),
        "questions": questions_key(questions),
    }
    made = cached_tensors(
        open_store(options.store), request, lambda: _encoded(arm, questions, options, n)
    )
    return {name: tensor.double().numpy() for name, tensor in made.items()}


def _encoded(arm: Arm, questions: Sequence[YesNoQuestion], options: Options, n: int) -> Any:
    import torch

    from hb_tta.experiments.features import ClipFeatures
    from hb_tta.images import load_image

    make_views(arm, questions, options, n)
    encode = ClipFeatures.of_family(options.family, options.device).of
    references, generated = [], []
    pairs = zip(questions, views_of(arm, questions, options, n), strict=True)
    while some := list(islice(pairs, max(1, _AT_ONCE // n))):
        references.append(encode([load_image(one.picture()) for one, _ in some]))
        views = encode([view for _, made in some if made is not None for view in made.views])
        generated.append(views.reshape(len(some), -1, views.shape[-1]))
    found = {"reference": np.concatenate(references), "views": np.concatenate(generated)}
    return {name: torch.from_numpy(its) for name, its in found.items()}


# ── Table 4 ──────────────────────────────────────────────────────────────────────────────────────


def each(options: Options) -> int:
    """Images a category, of table 4 and of figure 1 (g), which is drawn from it."""
    return options.number(12, 4)


def _seeds(options: Options) -> int:
    return options.views or (QUICK_SEEDS if options.quick else SEEDS)


def _needs_4(options: Options) -> Needs:
    images = 5 * each(options)
    cost = cost_of_views(arms(options), images, _seeds(options), options)
    cost += cost_of(trainings(options), options)
    return Needs(
        roles=("clip",), methods=tuple(methods_of(options)), data=("questions",), cost=cost
    )


def _plan_4(options: Options) -> Iterator[PlannedRun]:
    yield from trainings_of(trainings(options), options)
    yield from distances_of_arms(options)


def distances_of_arms(options: Options) -> Iterator[PlannedRun]:
    """A run an arm: its views' features."""
    questions, n = images_of(options, each(options)), _seeds(options)
    for arm in arms(options):
        yield PlannedRun(
            arm.label,
            lambda arm=arm: features_of(arm, questions, options, n),  # type: ignore[misc]
            cost_of_views([arm], len(questions), n, options).forecast(options),
            arm.method or "",
        )


def _show_4(results: Results, options: Options) -> Shown:
    spreads = {label: distances(found) for label, found in of_arms(results, options).items()}
    ours = spreads.get(TUNED)
    rows: list[list[Cell | str]] = []
    for label, its in spreads.items():
        cells: list[Cell | str] = [label]
        for column, values in enumerate(its):
            cells += _spread_cells(label, values, None if ours is None else ours[column], column)
        rows.append(cells)
    names = ("Reference (real) vs generated", "Among generated")
    columns: list[Column | str] = ["", *(Column(c, g) for g in names for c in ("distance", SHOWN))]
    notes = [
        f"Ours: {options.family.name}'s CLIP, {5 * each(options)} images, "
        f"{_seeds(options)} seeds; Euclidean distance of unnormalised image features; 95 % "
        f"intervals over images, the difference from {TUNED} and its p-value. {SHOWN_NOTE}",
        *_about_lora(options),
    ]
    title = "Table 4. Distance of CLIP features: from the reference, and among the views"
    return Shown(
        [Table(columns, rows, title, notes)],
        findings=_second_to(spreads),
        missing=_lacking(options),
    )


def distances(found: Features) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """A mean distance an image: from its reference, and among its views (None of a single one)."""
    from hb_tta.metrics import diversity_from_reference

    among = diversity(found["views"]) if found["views"].shape[1] > 1 else None
    return diversity_from_reference(found["reference"], found["views"]), among


def _spread_cells(label: str, values: Any, ours: Any, column: int) -> list[Cell | str]:
    if values is None:
        return [NOTHING, ""]
    from hb_tta.report.cells import Comparison

    test = None if ours is None or label == TUNED else paired_test(values, ours)
    told = None if test is None else Comparison.of(test, TUNED)
    cell = Cell.of(
        bootstrap_interval(values), told, kind="fine", note=paper_note(NUMBERS_4, label, column)
    )
    return [cell, "" if test is None else could_have_shown(test, "fine")]


def _second_to(spreads: dict[str, Any]) -> list[Finding]:
    """That Hummingbird is second in diversity to I2T2I alone."""
    if TUNED not in spreads:
        return []
    first, found = LABELS["i2t2i"], []
    for column, name in enumerate(("from the reference", "among views")):
        ours = spreads[TUNED][column]
        if ours is None:
            continue
        tests = [
            (f"{TUNED} − {label}", paired_test(ours, its[column]))
            for label, its in spreads.items()
            if label not in (TUNED, UNTUNED, first) and its[column] is not None
        ]
        if first in spreads:
            tests.append((f"{first} − {TUNED}", paired_test(spreads[first][column], ours)))
        reason = f"{first} and another method have to be among the methods"
        its = tests if first in spreads and len(tests) > 1 else []
        claim = f"Hummingbird is second in diversity to I2T2I alone, {name}"
        found.append(Finding(claim, its, reason, kind="step", about="second"))
    return found


TABLE_4 = Experiment(
    "table4",
    "Diversity: distance of features, from the reference and among views",
    "Hummingbird, table 4",
    _needs_4,
    _plan_4,
    _show_4,
)

# ── Table 9 ──────────────────────────────────────────────────────────────────────────────────────


def _needs_9(options: Options) -> Needs:
    cost = cost_of_views(arms(options), 5 * options.number(200, 10), 1, options)
    cost += cost_of(trainings(options), options)
    return Needs(
        roles=("clip",),
        methods=tuple(methods_of(options)),
        data=("questions",),
        cost=cost,
        also={"torchmetrics": "pip install 'hb-tta[reproduce]'"},
    )


def _plan_9(options: Options) -> Iterator[PlannedRun]:
    yield from trainings_of(trainings(options), options)
    questions = images_of(options, options.number(200, 10))
    for arm in arms(options):
        yield PlannedRun(
            arm.label,
            lambda arm=arm: features_of(arm, questions, options, 1),  # type: ignore[misc]
            cost_of_views([arm], len(questions), 1, options).forecast(options),
            arm.method or "",
        )


def _show_9(results: Results, options: Options) -> Shown:
    from hb_tta.experiments.distance import fid, kid

    rows: list[list[Cell | str]] = []
    results, count = of_arms(results, options), 0
    for label, found in results.items():
        real, views = found["reference"], found["views"][:, 0]
        count = len(real)
        note = paper_note(NUMBERS_9, label, 0)
        rows.append(
            [
                label,
                Cell.of(fid(real, views), kind="fine", note=note, lower_is_better=True),
                Cell.of(kid(real, views), kind="fine", lower_is_better=True),
            ]
        )
    few = f" {count} images are few: below {ENOUGH} FID is mostly bias." if count < ENOUGH else ""
    notes = [
        f"Ours: of {options.family.name}'s CLIP features, {count} images and a view of each; the "
        f"paper's are of Inception's, and not to be compared. Lower is nearer.{few}",
        *_about_lora(options),
    ]
    title = "Table 9. Fréchet and kernel distance of views from real images"
    table = Table(["", "FID", "KID"], rows, title, notes)
    return Shown([table], findings=_misleads(results), missing=_lacking(options))


def _misleads(results: Results) -> list[Finding]:
    """That methods of a lower FID have it because they stay near: they are less diverse."""
    from hb_tta.experiments.distance import fid_difference

    if TUNED not in results:
        return []
    ours, tests = results[TUNED], []
    far, _ = distances(ours)
    for label in (LABELS["randaugment"], LABELS["image_translation"]):
        if label not in results:
            continue
        theirs = results[label]["views"][:, 0]
        nearer = fid_difference(ours["reference"], ours["views"][:, 0], theirs)
        tests.append((f"FID: {TUNED} − {label}", nearer))
        other, _ = distances(results[label])
        tests.append((f"distance from the reference: {TUNED} − {label}", paired_test(far, other)))
    claim = "FID misleads: what has a lower one than Hummingbird is less diverse"
    return [Finding(claim, tests, "neither method is there", kind="step", about="fid")]


TABLE_9 = Experiment(
    "table9",
    "FID and KID of views, on the family's CLIP features",
    "Hummingbird, table 9",
    _needs_9,
    _plan_9,
    _show_9,
)

# ── Figure 15 ────────────────────────────────────────────────────────────────────────────────────


def _counts(options: Options) -> tuple[int, ...]:
    return QUICK_COUNTS if options.quick else COUNTS


def _needs_15(options: Options) -> Needs:
    cost = Cost(views=5 * options.number(4, 1) * _counts(options)[-1])
    return Needs(roles=("clip",), methods=("hummingbird",), data=("questions",), cost=cost)


def _plan_15(options: Options) -> list[PlannedRun]:
    questions, most = images_of(options, options.number(4, 1)), _counts(options)[-1]
    arm = Arm(TUNED, "hummingbird")
    return [
        PlannedRun(
            TUNED,
            lambda: features_of(arm, questions, options, most),
            Cost(views=len(questions) * most).forecast(options),
            "hummingbird",
        )
    ]


def _show_15(results: Results, options: Options) -> Shown:
    from hb_tta.metrics import diversity_by_seeds

    if TUNED not in results:
        return Shown(missing=[f"{TUNED} was left out"])
    by_count = diversity_by_seeds(results[TUNED]["views"], _counts(options))
    base = 20 if 20 in by_count else max(by_count)
    rows: list[list[Cell | str]] = []
    for count, values in by_count.items():
        test = paired_test(values, by_count[base])
        cell = Cell.of(bootstrap_interval(values), kind="fine")
        difference = "" if count == base else Cell.difference(test, str(base), kind="step")
        rows.append([str(count), cell, difference, could_have_shown(test, "fine")])
    title = "Figure 15. Distance among views by the number of seeds"
    table = Table(["seeds", "distance", f"from that of {base}", SHOWN], rows, title)
    findings = [_enough(by_count)]
    svg = boxes({str(c): v.tolist() for c, v in by_count.items()}, "seeds", "mean L2 distance")
    return Shown([table], drawings=[Drawing(title, svg)], findings=findings)


def _enough(by_count: dict[int, NDArray[np.float64]]) -> Finding:
    """That the diversity over 20 seeds is that over the most, to a twentieth."""
    most = max(by_count)
    claim = f"20 seeds suffice: the distance among them is that among 100 to {MARGIN:.0%}"
    if SEEDS not in by_count or most == SEEDS:
        return Finding(claim, reason=f"a run of {most} seeds cannot say it", about="seeds")
    few, many = by_count[SEEDS], by_count[most]
    room = MARGIN * float(many.mean())
    tests = [
        (f"{room:.2f} + that of {most} − that of {SEEDS}", paired_test(many + room, few)),
        (f"{room:.2f} + that of {SEEDS} − that of {most}", paired_test(few + room, many)),
    ]
    return Finding(claim, tests, kind="step", about="seeds")


FIGURE_15 = Experiment(
    "figure15",
    "Diversity over 10 to 100 seeds",
    "Hummingbird, figure 15",
    _needs_15,
    _plan_15,
    _show_15,
)
