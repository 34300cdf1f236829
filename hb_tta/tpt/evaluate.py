"""A whole task: features, tuning and scores, chunk by chunk, each chunk kept when it is done.

What a chunk gives is an entry of the store, so a run that was stopped resumes, and a sweep over the
tuner's settings encodes nothing again. Labels are read when everything has been answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hb_tta.datasets import Classification, FewShot, HoiImage, HoiTask
from hb_tta.errors import UserError
from hb_tta.metrics import bootstrap_interval, expected_calibration_error, paired_test
from hb_tta.progress import progress as told
from hb_tta.shards import Shard
from hb_tta.store.features import cached_tensors
from hb_tta.tpt.few_shot import STEPS, FewShotTuner
from hb_tta.tpt.filters import check_shares, get_filter
from hb_tta.tpt.gated import classified, few_shot, shown
from hb_tta.tpt.prompt_learners import check_prompt
from hb_tta.tpt.tda import ORDERS, SELECTION, Stream
from hb_tta.tpt.tuner import LEARNING_RATE, PROMPT, PromptTuner, check_optimisation
from hb_tta.tpt.views import ViewFeatures, ViewRequest
from hb_tta.tta.combine import rules_for
from hb_tta.tta.rule import CLASSES

FORMAT = 3
"""Counts the changes of what a chunk's answers mean."""

FIRST = ("zero-shot", "tpt")
"""Methods that are told before all others."""

IMAGES_PER_CHUNK = 32
TASKS_PER_CHUNK = 8

Answer = Callable[[Sequence[Any]], Mapping[str, Tensor]]
"""A chunk of samples → probabilities by method, from the store or tuned now and kept."""


@dataclass(frozen=True)
class TptSettings:
    """Settings of ``PromptTuner`` and ``FewShotTuner``; ``steps`` None is each one's own.

    ``gate``: see ``hb_tta.tpt.gated``.

    Raises:
        UserError: one is out of range.
    """

    prompt: str = PROMPT
    filter: str = "tpt"
    selection: float | None = None
    generated_selection: float | None = None
    steps: int | None = None
    lr: float = LEARNING_RATE
    backend: str = "auto"
    batch_size: int | None = None
    support_views: bool = True
    query_views: bool = True
    gate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        get_filter(self.filter)
        check_shares(self.selection, self.generated_selection)
        check_optimisation(1 if self.steps is None else self.steps, self.lr)

    def deciding(self, *names: str) -> dict[str, Any]:
        """Those settings as plain JSON, for a key."""
        values = asdict(self)
        return {name: values[name] for name in names}


def evaluate_classification(
    task: Classification,
    views: ViewFeatures,
    settings: TptSettings,
    *,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Scores of prompt tuning, and of what needs no tuning, on one task.

    Returns:
        JSON: ``methods`` by name ("zero-shot", "tpt", then the other rules of classes, "tda"), each
        with its accuracy, interval, ECE, the paired test against zero-shot, and 0/1 a sample. Of
        "tda", which depends on the images' order, all is the mean over some orders; ``orders`` has
        the accuracy in each.
    """
    tuner, decided_by = _classifier(task, views, settings)
    answer = _classifying(tuner, decided_by, views, settings)
    chances = _in_chunks(answer, task.images, IMAGES_PER_CHUNK, task.name, progress)
    streams = {"tda": _streams(tuner, views, task, settings, decided_by)}
    labels = np.array([label for _, label in task.images])
    return _result(task.name, task.total, views, settings, chances, labels, streams=streams)


def answer_part(
    task: Classification | FewShot,
    views: ViewFeatures,
    settings: TptSettings,
    shard: Shard,
    *,
    progress: bool | None = None,
) -> int:
    """Have the store hold one part's answers; how many samples it has. Whole chunks stay together.

    Nothing is scored: ``evaluate_classification`` or ``evaluate_few_shot`` finds what all parts
    answered.
    """
    if isinstance(task, FewShot):
        answer, size = _comparing(task, views, settings), TASKS_PER_CHUNK
        chunks = [chunk for same in _alike(task) for chunk in _chunked(same, size)]
    else:
        answer = _classifying(*_classifier(task, views, settings), views, settings)
        chunks = _chunked(task.images, IMAGES_PER_CHUNK)
    mine = list(shard.part(chunks))
    with told(task.name, "sample", sum(map(len, mine)), shown=progress is not False) as bar:
        for chunk in mine:
            answer(chunk)
            bar.update(len(chunk))
    return sum(map(len, mine))


def _classifier(
    task: Classification, views: ViewFeatures, settings: TptSettings
) -> tuple[PromptTuner, dict[str, Any]]:
    """The tuner of a task's classes, and what decides its answers beside the images."""
    _check_sample_count(task.name, len(task.images))
    tuner = PromptTuner(
        views.clip.encoder,
        None,
        task.class_names,
        prompt=settings.prompt,
        selection=settings.selection,
        generated_selection=settings.generated_selection,
        filter=settings.filter,
        steps=settings.steps or 1,
        lr=settings.lr,
        backend=settings.backend,
        batch_size=settings.batch_size,
    )
    decided_by = {
        "classes": list(task.class_names),
        "combiners": list(rules_for(CLASSES)),
        "backend": tuner.backend,
        **settings.deciding("prompt", "filter", "selection", "generated_selection", "steps", "lr"),
        **gate_of(views, settings),
    }
    return tuner, decided_by


def _classifying(
    tuner: PromptTuner, decided_by: Mapping[str, Any], views: ViewFeatures, settings: TptSettings
) -> Answer:
    """Answers images of a task."""

    def answer(chunk: Sequence[Any]) -> dict[str, Tensor]:
        requests = [ViewRequest(image) for image, _ in chunk]
        request = _chunk_request("classification", views.request(requests), decided_by)
        return cached_tensors(
            views.store, request, lambda: classified(tuner, views, requests, settings.gate)
        )

    return answer


def _streams(
    tuner: PromptTuner,
    views: ViewFeatures,
    task: Classification,
    settings: TptSettings,
    decided_by: Mapping[str, Any],
) -> list[np.ndarray]:
    """The images' probabilities (N, C) by TDA, in one order after the other.

    The features are there: the answers before it came from them. An entry's key names every image
    in its place and the order's seed: part of a task is another stream.
    """
    requests = [ViewRequest(image) for image, _ in task.images]
    chunks = _chunked(requests, IMAGES_PER_CHUNK)
    named = [views.request(chunk) for chunk in chunks]
    selection = SELECTION if settings.selection is None else settings.selection

    def features() -> list[Tensor]:
        return [its for chunk in chunks for its in shown(tuner, views, chunk, settings.gate)]

    def answered(stream: Stream) -> np.ndarray:
        own = {**decided_by, "stream": stream.to_json()}
        request = _chunk_request("stream", named, own)

        def make() -> dict[str, Tensor]:
            scale = float(tuner.encoder.logit_scale)
            return {"chances": stream.chances(tuner.text_CD.cpu(), scale, features())}

        return cached_tensors(views.store, request, make)["chances"].numpy()

    return [answered(Stream(seed, selection)) for seed in ORDERS]


def evaluate_few_shot(
    task: FewShot, views: ViewFeatures, settings: TptSettings, *, progress: bool | None = None
) -> dict[str, Any]:
    """Scores of few-shot prompt tuning on one split, and of its supports' mean features.

    A query's views see what the supports tell, agent and object, and nothing of the query.

    Returns:
        JSON as of ``evaluate_classification``, with the methods "tpt" and "prototypes".
    """
    answer = _comparing(task, views, settings)
    chances: dict[str, list[np.ndarray]] = {}
    for same in _alike(task):
        found = _in_chunks(answer, same, TASKS_PER_CHUNK, task.name, progress)
        for name, values in found.items():
            chances.setdefault(name, []).append(values.reshape(-1, 2))
    ordered = sorted(task.tasks, key=_shape)
    labels = np.array([query.label for one in ordered for query in one.queries])
    groups = np.array([place for place, one in enumerate(ordered) for _ in one.queries])
    joined = {name: np.concatenate(parts) for name, parts in chances.items()}
    return _result(task.name, task.total, views, settings, joined, labels, groups)


def _alike(task: FewShot) -> list[list[HoiTask]]:
    """The tasks by their numbers of supports and queries, which go through the tuner together."""
    return [
        [one for one in task.tasks if _shape(one) == shape]
        for shape in sorted({_shape(one) for one in task.tasks})
    ]


def _shape(task: HoiTask) -> tuple[int, int]:
    return len(task.supports), len(task.queries)


def _comparing(task: FewShot, views: ViewFeatures, settings: TptSettings) -> Answer:
    """Answers tasks that all have the same numbers of supports and queries."""
    _check_sample_count(task.name, len(task.tasks))
    tuner = FewShotTuner(
        views.clip.encoder,
        prompt=settings.prompt,
        steps=settings.steps or STEPS,
        lr=settings.lr,
        seed=settings.seed,
        backend=settings.backend,
        batch_size=settings.batch_size,
    )
    decided_by = {
        "backend": tuner.backend,
        **settings.deciding("prompt", "steps", "lr", "seed"),
        **gate_of(views, settings),
    }

    views_of_supports = views if settings.support_views else views.real_only()
    views_of_queries = views if settings.query_views else views.real_only()

    def answer(chunk: Sequence[HoiTask]) -> dict[str, Tensor]:
        supports = [support_request(image) for one in chunk for image in one.supports]
        queries = [r for one in chunk for r in query_requests(one)]
        labels = torch.tensor([[image.label for image in one.supports] for one in chunk])
        asked = [views_of_supports.request(supports), views_of_queries.request(queries)]
        request = _chunk_request("few-shot", asked, decided_by)
        request["labels"] = labels.tolist()  # of the supports

        def tuned(of_supports: ViewFeatures, of_queries: ViewFeatures, some: Sequence[int]):
            supports = [support_request(i) for place in some for i in chunk[place].supports]
            queries = [r for place in some for r in query_requests(chunk[place])]
            supports_BSVD = of_supports.features(supports).unflatten(0, (len(some), -1))
            queries_BQVD = of_queries.features(queries).unflatten(0, (len(some), -1))
            return _few_shot_answers(tuner, supports_BSVD, queries_BQVD, labels[list(some)])

        def make() -> dict[str, Tensor]:
            views = views_of_supports, views_of_queries
            return few_shot(tuned, *views, len(chunk), settings.gate)

        return cached_tensors(views.store, request, make)

    return answer


def gate_of(views: ViewFeatures, settings: TptSettings) -> dict[str, Any]:
    """The gate's part of a key: without one, and without generated views, there is none."""
    return {} if settings.gate is None or not views.generated else {"gate": settings.gate}


def support_request(image: HoiImage) -> ViewRequest:
    """A support and its annotation, which is an input of the task."""
    return ViewRequest(image.image, _interaction(image.agent, image.action, image.object), "hoi")


def query_requests(task: HoiTask) -> list[ViewRequest]:
    """The queries, with what the positive supports tell of agent and object."""
    told = Counter((image.agent, image.object) for image in task.supports if image.label == 0)
    agent, thing = told.most_common(1)[0][0]
    return [ViewRequest(query.image, _interaction(agent, thing), "hoi") for query in task.queries]


def _interaction(*parts: str) -> str:
    """What the annotation has of it; an image of no action has none to tell."""
    return " | ".join(part for part in parts if part)


def _few_shot_answers(
    tuner: FewShotTuner,
    supports_BSVD: Tensor,
    queries_BQVD: Tensor,
    labels_BS: Tensor,
) -> dict[str, Tensor]:
    labels = labels_BS[..., None].expand(supports_BSVD.shape[:3]).flatten(1)
    supports = supports_BSVD.flatten(1, 2)
    logits = tuner.tune(supports, labels, queries_BQVD).logits_BQC.cpu()
    return {
        "tpt": logits.softmax(-1),
        "prototypes": _prototypes(supports, labels, queries_BQVD, tuner),
    }


def _prototypes(
    supports_BSD: Tensor, labels_BS: Tensor, queries_BQVD: Tensor, tuner: FewShotTuner
) -> Tensor:
    """Probabilities (B, Q, 2) by the supports' mean features (Snell et al. 2017), no tuning."""
    classes = torch.nn.functional.one_hot(labels_BS, 2).to(supports_BSD)
    means = torch.nn.functional.normalize(classes.transpose(1, 2) @ supports_BSD, dim=-1)
    cosines = (queries_BQVD @ means[:, None].transpose(-1, -2)).mean(2)
    return (tuner.encoder.logit_scale.cpu() * cosines).softmax(-1)


def _chunk_request(kind: str, features: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "entry": f"{kind} answers",
        "format": FORMAT,
        "features": features,
        "settings": dict(settings),
    }


def _check_sample_count(name: str, number: int) -> None:
    if not number:
        raise UserError(f"task {name} has no samples: use --limit 1 or more, and whole data")


def _chunked(samples: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def _in_chunks(
    answer: Answer,
    samples: Sequence[Any],
    size: int,
    name: str,
    progress: bool | None,
) -> dict[str, np.ndarray]:
    """The answers of all samples, by method."""
    parts: dict[str, list[np.ndarray]] = {}
    with told(name, "sample", len(samples), shown=progress is not False) as bar:
        for chunk in _chunked(samples, size):
            for method, values in answer(chunk).items():
                parts.setdefault(method, []).append(values.numpy())
            bar.update(len(chunk))
    return {method: np.concatenate(values) for method, values in parts.items()}


def _result(
    name: str,
    total: int,
    views: ViewFeatures,
    settings: TptSettings,
    chances: Mapping[str, np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    streams: Mapping[str, list[np.ndarray]] = MappingProxyType({}),
) -> dict[str, Any]:
    order = dict.fromkeys([*FIRST, *rules_for(CLASSES), *chances])
    found = {name: [chances[name]] for name in order if name in chances} | dict(streams)
    # In each of its orders; most methods know none.
    rights = {
        name: np.stack([(its.argmax(-1) == labels).astype(int) for its in parts])
        for name, parts in found.items()
    }
    scores = {n: its[0] if len(its) == 1 else its.mean(0) for n, its in rights.items()}
    base = "zero-shot" if "zero-shot" in scores else None
    methods = {}
    for method, right in scores.items():
        sure = np.concatenate([its.max(-1) for its in found[method]])
        entry: dict[str, Any] = {
            "accuracy": asdict(bootstrap_interval(right, groups=groups)),
            "ece": expected_calibration_error(
                sure.astype(np.float64).clip(0, 1), rights[method].flatten()
            ),
        }
        if len(rights[method]) > 1:
            entry["orders"] = rights[method].mean(1).tolist()
        if base and method != base:
            test = paired_test(right, scores[base], groups=groups)
            entry["gain over zero-shot"] = asdict(test)
        methods[method] = entry | {"scores": right.tolist()}
    number = len(labels) if groups is None else int(groups.max()) + 1
    return {
        "task": name,
        "samples": number,
        "of": total,
        "subset": number < total,
        "views": views.views,
        "crops": views.crops,
        "generated": views.generated,
        "methods": methods,
        "settings": asdict(settings),
        "clip": views.clip.identity,
    }
