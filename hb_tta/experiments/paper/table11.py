"""Table 11: a ResNet that is trained on few-shot relations with each method's views.

Bongard-HOI's CNN baseline, as far as its paper tells it: a network sees a task's positive and
negative supports and a query, and says whether the query shows the relation. Every row has the same
network, the same start, the same tasks and as many iterations; it differs in what stands in an
image's place, drawn anew each time: itself, or one of its views.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hb_tta.datasets.files import listing_digest
from hb_tta.datasets.samples import HoiImage, HoiTask
from hb_tta.experiments.gains import gains_of
from hb_tta.experiments.methods import REAL, TUNED, Arm, cost_of_views, methods_of
from hb_tta.experiments.numbers import TABLE_11 as NUMBERS
from hb_tta.experiments.numbers import paper_note
from hb_tta.experiments.paper.lora import (
    Training,
    by_own_lora,
    cost_of,
    own_trainings,
    trainings_of,
    untrained,
)
from hb_tta.experiments.paper.tuning import load
from hb_tta.experiments.plan import PlannedRun, kept
from hb_tta.experiments.reproduction import (
    Cost,
    Experiment,
    Finding,
    Needs,
    Options,
    Results,
    Shown,
)
from hb_tta.images import load_image, pixel_digest
from hb_tta.metrics import PairedTest, bootstrap_interval, paired_test
from hb_tta.reading import user_path
from hb_tta.report.cells import Cell, Comparison, Table, could_have_shown
from hb_tta.report.parts import SHOWN, SHOWN_NOTE
from hb_tta.store import content_key

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "A ResNet trained on relations with each method's views"
SEEDS, ITERATIONS, BATCH, RATE = (0, 1), 250, 8, 1e-3
SIDES = {"tiny": 32, "resnet50": 224}  # pixels that each backbone sees
TRAINED_ON, QUICK_TRAINED_ON = 40, 6  # tasks
TESTED_ON, QUICK_TESTED_ON = 100, 10  # of each split


def _arms(options: Options) -> list[Arm]:
    return by_own_lora(_training(), options)


def _training() -> Training:
    return Training("relations LoRA", "relations")


def _trainings(options: Options) -> list[Training]:
    return own_trainings(_training(), options)


def needs(options: Options) -> Needs:
    """Views of the training tasks' images."""
    methods = methods_of(options)
    images = _tasks(options) * 14
    minutes = (1 + len(methods)) * _minutes(options)
    arms = [Arm(name, name) for name in methods]
    cost = cost_of_views(arms, images, options.views or 1, options) + Cost(minutes=minutes)
    cost += cost_of(_trainings(options), options)
    return Needs(methods=tuple(methods), data=("relations",), cost=cost)


def _minutes(options: Options) -> float:
    """Of a row's networks, on one core."""
    return (1 if options.quick else len(SEEDS)) * _iterations(options) * 0.004


def plan(options: Options) -> Iterator[PlannedRun]:
    """The benchmark's LoRA where it may be trained, and a network a row."""
    yield from trainings_of(_trainings(options), options)
    for arm in _arms(options):
        yield PlannedRun(
            arm.label,
            lambda arm=arm: _row(arm, options),  # type: ignore[misc]
            _seconds(arm, options),
            arm.method or "",
        )


def _seconds(arm: Arm, options: Options) -> float:
    """Its views and networks; the real images' networks are another row's."""
    alone = replace(options, methods=(arm.method,) if arm.method else (), train=False)
    cost = needs(alone).cost
    return replace(cost, minutes=cost.minutes - (_minutes(options) if arm.method else 0)).forecast(
        options
    )


def _row(arm: Arm, options: Options) -> dict[str, list[float]]:
    """Split → of each query, two a task, the share of networks that were right."""
    tasks = training_tasks(options)
    settings = arm.views(options, options.views or 1)
    decided_by: dict[str, Any] = {
        "entry": "resnet",
        "format": 1,
        "backbone": options.benchmark("backbone"),
        "iterations": _iterations(options),
        "seeds": len(SEEDS[:1] if options.quick else SEEDS),
        "tasks": content_key({"tasks": [_digests(task) for task in tasks]}),
        "tested": [options.split, _tested(options)],
        "views": None if settings is None else settings.augmenter(task="hoi").spec,
        "n": options.views or 1,
        "seed": options.seed,
    }
    if data := options.data.get(options.benchmark("relations")):
        decided_by["data"] = listing_digest(user_path(data))
    path = options.folder / "resnet" / f"{content_key(decided_by)[:16]}.json"
    return kept(path, decided_by, lambda: _trained_and_tested(arm, tasks, options))


def training_tasks(options: Options) -> list[HoiTask]:
    """Of the benchmark's training set."""
    from hb_tta.datasets.tasks import load_training_tasks

    name = options.benchmark("relations")
    return load_training_tasks(name, data=options.data.get(name), limit=_tasks(options))


def _tasks(options: Options) -> int:
    return QUICK_TRAINED_ON if options.quick else TRAINED_ON


def _tested(options: Options) -> int:
    return options.number(TESTED_ON, QUICK_TESTED_ON)


def _iterations(options: Options) -> int:
    return 20 if options.quick else ITERATIONS


def _digests(task: HoiTask) -> list[Any]:
    images = (*task.supports, *task.queries)
    return [[pixel_digest(load_image(one.image)), one.label] for one in images]


def _images(task: HoiTask) -> list[HoiImage]:
    return [*task.supports, *task.queries]


# ── The network ──────────────────────────────────────────────────────────────────────────────────


def _trained_and_tested(
    arm: Arm, tasks: Sequence[HoiTask], options: Options
) -> dict[str, list[float]]:
    import numpy as np

    shown = _shown(arm, tasks, options)
    labels = [[one.label for one in _images(task)] for task in tasks]
    tests = load("relations", options, _tested(options))
    prepared = {
        test.name: [
            (
                _pixels([one.image for one in _images(task)], options),
                [i.label for i in _images(task)],
            )
            for task in test.tasks
        ]
        for test in tests
    }
    found: dict[str, list[Any]] = {name: [] for name in prepared}
    for seed in SEEDS[:1] if options.quick else SEEDS:
        network = train(shown, labels, options, seed)
        for name, its in prepared.items():
            found[name].append([right for one in its for right in _rights(network, *one)])
    return {name: np.mean(its, axis=0).tolist() for name, its in found.items()}


def _shown(arm: Arm, tasks: Sequence[HoiTask], options: Options) -> list[list[Tensor]]:
    """Of each task, of each image: itself and its views, uint8 (1 + V, 3, H, W)."""
    images = [one for task in tasks for one in _images(task)]
    settings = arm.views(options, options.views or 1)
    views: list[list[Any]] = [[] for _ in images]
    if settings is not None:
        from hb_tta.context import MultimodalContext
        from hb_tta.tpt.evaluate import support_request

        requests = [support_request(one) for one in images]
        contexts = [MultimodalContext(i.image, i.guidance, i.task) for i in requests]  # type: ignore[arg-type]
        augmenter = settings.augmenter(task="hoi")
        made = augmenter.augment(contexts, settings.n, options.seed)
        views = [its.views for its in made]
        augmenter.unload()
    rows = iter(
        [_pixels([one.image, *its], options) for one, its in zip(images, views, strict=True)]
    )
    return [[next(rows) for _ in _images(task)] for task in tasks]


def _pixels(images: Sequence[Any], options: Options) -> Tensor:
    """uint8 (N, 3, S, S)."""
    import torch
    from torchvision.transforms.functional import pil_to_tensor

    side = SIDES[options.benchmark("backbone")]
    return torch.stack([pil_to_tensor(load_image(one).resize((side, side))) for one in images])


def network_of(name: str) -> Any:
    """A backbone without its last layer, and what reads supports and a query."""
    import torch
    from torch import nn
    from torchvision.models import resnet50
    from torchvision.models.resnet import BasicBlock, ResNet

    backbone = ResNet(BasicBlock, [1, 1, 1, 1]) if name == "tiny" else resnet50(weights=None)
    width = backbone.fc.in_features
    backbone.fc = nn.Identity()

    class Baseline(nn.Module):
        """Logits (Q,) that queries show the relation."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.head = nn.Sequential(nn.Linear(3 * width, 128), nn.ReLU(), nn.Linear(128, 1))

        def forward(self, pixels_N: Tensor, positive_N: Tensor, query_N: Tensor) -> Tensor:
            features = self.backbone((pixels_N.float() / 255 - 0.5) / 0.25)
            queries, supports = features[query_N], features[~query_N]
            of_supports = positive_N[~query_N]
            sides = [supports[of_supports].mean(0), supports[~of_supports].mean(0)]
            rows = [torch.cat([*sides, query]) for query in queries]
            return self.head(torch.stack(rows))[:, 0]

    return Baseline()


def train(
    shown: Sequence[Sequence[Tensor]],
    labels: Sequence[Sequence[int]],
    options: Options,
    seed: int,
) -> Any:
    """A network after its iterations; start, tasks and draws follow from the seed alone."""
    import torch
    import torch.nn.functional as F

    from hb_tta.device import default_device

    device = options.device or default_device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = network_of(options.benchmark("backbone")).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(_iterations(options)):
        loss = torch.zeros((), device=device)
        for place in torch.randint(len(shown), (BATCH,), generator=draw).tolist():
            # Drawn whatever there is to draw from, so that every row sees the same tasks.
            picks = torch.rand(len(shown[place]), generator=draw)
            pixels = torch.stack(
                [its[int(pick * len(its))] for its, pick in zip(shown[place], picks, strict=True)]
            )
            target, query = _sides(labels[place])
            logits = network(pixels.to(device), target.to(device), query.to(device))
            loss = loss + F.binary_cross_entropy_with_logits(
                logits, target[query].float().to(device)
            )
        optimizer.zero_grad()
        (loss / BATCH).backward()
        optimizer.step()
    return network.eval()


def _sides(labels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which images are positive, and which are the queries: the last two."""
    import torch

    query = torch.zeros(len(labels), dtype=torch.bool)
    query[-2:] = True
    return torch.tensor(labels) == 0, query


def _rights(network: Any, pixels: Tensor, labels: Sequence[int]) -> list[float]:
    import torch

    device = next(network.parameters()).device
    positive, query = _sides(labels)
    with torch.no_grad():
        logits = network(pixels.to(device), positive.to(device), query.to(device)).cpu()
    return ((logits > 0) == positive[query]).float().tolist()


# ── The table ────────────────────────────────────────────────────────────────────────────────────


def show(results: Results, options: Options) -> Shown:
    """A row a method, a column a split."""
    rows_of = {a.label: results[a.label] for a in _arms(options) if a.label in results}
    if REAL not in rows_of:
        return Shown()
    rows: list[list[Cell | str]] = []
    for label, its in rows_of.items():
        rows.append([label, *_cells(label, its, rows_of[REAL])])
    splits = list(rows_of[REAL])
    notes = [
        f"Ours: {options.family.name}, backbone {options.benchmark('backbone')}, "
        f"{_tasks(options)} training tasks, {_iterations(options)} iterations of {BATCH}, "
        f"{_tested(options)} tasks a split; 95 % intervals over tasks of one set of trainings, the "
        f"difference from {REAL!r} and its p-value. {SHOWN_NOTE}"
    ]
    table = Table(["", *splits, "average", SHOWN], rows, f"Table 11. {TITLE}", notes)
    missing = untrained(_trainings(options), options) if TUNED in rows_of else []
    base = rows_of[REAL]
    gains = [(label, _test(its, base)) for label, its in rows_of.items() if its is not base]
    drawings = gains_of("Table 11, average", {"": gains})
    return Shown([table], (), drawings, _findings(rows_of), missing=missing)


def _cells(
    label: str, its: Mapping[str, list[float]], base: Mapping[str, list[float]]
) -> list[Cell | str]:
    found: list[Cell | str] = []
    for column, split in enumerate(its):
        test = None if its is base else _test({split: its[split]}, {split: base[split]})
        found.append(_cell(its[split], test, paper_note(NUMBERS, label, column)))
    test = None if its is base else _test(its, base)
    every = [value for values in its.values() for value in values]
    found.append(_cell(every, test, paper_note(NUMBERS, label, len(its))))
    return [*found, "" if test is None else could_have_shown(test)]


def _cell(values: Sequence[float], test: PairedTest | None, note: str) -> Cell:
    groups = [n // 2 for n in range(len(values))]
    told = None if test is None else Comparison.of(test, REAL)
    return Cell.of(bootstrap_interval(values, groups=groups), told, note=note)


def _test(its: Mapping[str, list[float]], base: Mapping[str, list[float]]) -> PairedTest:
    ours = [value for values in its.values() for value in values]
    before = [value for split in its for value in base[split]]
    return paired_test(ours, before, groups=[n // 2 for n in range(len(ours))])


def _findings(rows: Mapping[str, Mapping[str, list[float]]]) -> list[Finding]:
    if TUNED not in rows:
        return []
    tests = [
        (f"against {label}", _test(rows[TUNED], its))
        for label, its in rows.items()
        if label != TUNED
    ]
    claim = "table 11: a network trained with Hummingbird's views is the best"
    return [Finding(claim, tests, about="trained")]


EXPERIMENT = Experiment("table11", TITLE, "Hummingbird, table 11", needs, plan, show)
