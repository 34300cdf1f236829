"""What the tests of the lmms-eval plugin share: methods of their own, and runs in this process."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL.Image import Image
from PIL.Image import new as new_image

from hb_tta.errors import HbTtaWarning
from hb_tta.generators import GeneratorSpec
from hb_tta.integrations.lmms_eval import prepare
from hb_tta.integrations.lmms_eval.command_line import TASKS
from hb_tta.pocket.tasks import CATEGORIES
from hb_tta.tta.rule import WORDS, Views, rule

QUESTIONS = 2 * len(CATEGORIES)
"""Of one image a category."""

METHODS = {
    name: f"lmms_eval_runs:{cls}"
    for name, cls in {
        "same": "SameSpec",
        "worded": "WordedSpec",
        "warning": "WarningSpec",
        "failing": "FailingSpec",
        "drawing": "DrawingSpec",
    }.items()
}


@rule(WORDS)
def broken_rule(views: Views) -> Any:
    raise ValueError("broken")


@dataclass(frozen=True)
class SameSpec(GeneratorSpec):
    """Views that are the image itself: nothing that is combined may change an answer."""

    method: ClassVar[str] = "same"
    needs_description: ClassVar[bool] = False

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method}

    def load(self, device: str | None = None, **_: Any) -> Any:
        return self

    @property
    def spec(self) -> Any:
        return self

    def generate(self, contexts: Sequence[Any], seeds: Sequence[Any], **_: Any) -> list[list[Any]]:
        return [[context.image for _ in its] for context, its in zip(contexts, seeds, strict=True)]


@dataclass(frozen=True)
class WordedSpec(SameSpec):
    """The same, with a setting that may hold commas.

    Attributes:
        word: any text.
    """

    word: str = ""

    method: ClassVar[str] = "worded"

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, "word": self.word}


@dataclass(frozen=True)
class WarningSpec(SameSpec):
    """A generator that has something to say."""

    method: ClassVar[str] = "warning"

    def generate(self, contexts: Sequence[Any], seeds: Sequence[Any], **_: Any) -> list[list[Any]]:
        warnings.warn("a setting is ignored", HbTtaWarning, stacklevel=2)
        return super().generate(contexts, seeds)


@dataclass(frozen=True)
class FailingSpec(SameSpec):
    """A generator that runs out of memory."""

    method: ClassVar[str] = "failing"

    def generate(self, contexts: Sequence[Any], seeds: Sequence[Any], **_: Any) -> list[list[Any]]:
        raise RuntimeError("out of memory")


@dataclass(frozen=True)
class DrawingSpec(SameSpec):
    """Draws what it is told: a plain picture, whose colour the words and the seed decide."""

    method: ClassVar[str] = "drawing"
    needs_description: ClassVar[bool] = True
    told: ClassVar[list[str]] = []

    def generate(self, contexts: Sequence[Any], seeds: Sequence[Any], **_: Any) -> list[list[Any]]:
        DrawingSpec.told += [context.description for context in contexts]
        return [
            [drawing(context.description, context.image.size, seed) for seed in its]
            for context, its in zip(contexts, seeds, strict=True)
        ]


def drawing(told: str, size: tuple[int, int], seed: int) -> Image:
    """What ``DrawingSpec`` draws."""
    colour = hashlib.sha256(f"{told} {seed}".encode()).digest()[:3]
    return new_image("RGB", size, tuple(colour))


def small_tasks(folder: Path, images: int = 1) -> Path:
    """Our tasks with few images: drawing all takes seconds."""
    shutil.copytree(TASKS / "pocket_mme", folder)
    for split in ("dev", "sealed"):
        recipe = {"split": split, "images_per_category": images}
        (folder / f"{split}.json").write_text(json.dumps(recipe))
    return folder


def evaluate(
    tasks: Path,
    *,
    model: str,
    model_args: str,
    task: str | Sequence[str] = "pocket_mme_dev",
    augment: str | None = None,
    augment_args: str = "family=pocket",
    output_path: Path | None = None,
    shard: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """What ``lmms-eval`` does with these flags, without the seconds that it takes to start."""
    from lmms_eval import models
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    argv = ["lmms-eval", "--model", model, "--model_args", model_args, "--device", "cpu"]
    if output_path is not None:
        argv += ["--output_path", str(output_path)]
    if augment is not None:
        argv += ["--augment", augment, "--augment_args", augment_args]
    if shard is not None:
        argv += ["--shard", shard]
    manifests = prepare(argv)
    registry = models._initialize_model_registry()
    for manifest in manifests:
        registry.register_manifest(manifest, overwrite=True)
    stock, models.MODEL_REGISTRY_V2 = models.MODEL_REGISTRY_V2, registry
    in_force = [a for a in argv if a.startswith("--model_args=")]
    try:
        return simple_evaluate(
            model=model,
            model_args=in_force[-1].partition("=")[2] if in_force else model_args,
            tasks=[task] if isinstance(task, str) else list(task),
            task_manager=TaskManager(
                include_path=str(tasks), include_defaults=False, model_name=model
            ),
            device="cpu",
            log_samples=True,
            bootstrap_iters=0,
            **{"batch_size": 1, **settings},
        )
    finally:
        models.MODEL_REGISTRY_V2 = stock


def evaluate_into(folder: Path, tasks: Path, *, date: str, **settings: Any) -> dict[str, Any]:
    """The same, its results and samples written into ``folder`` as lmms-eval writes them."""
    from lmms_eval.loggers.evaluation_tracker import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(folder))
    found = evaluate(tasks, output_path=folder, evaluation_tracker=tracker, **settings)
    of_tasks = found.pop("samples")
    tracker.save_results_aggregated(found, of_tasks, datetime_str=date)
    for name, its in of_tasks.items():
        tracker.save_results_samples(name, its)
    return found


def samples(results: dict[str, Any], task: str = "pocket_mme_dev") -> list[dict[str, Any]]:
    return results["samples"][task]


def answers(results: dict[str, Any]) -> list[str]:
    return ["".join(sample["filtered_resps"][0]) for sample in samples(results)]


def records(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What the samples' lines say of the views."""
    return [sample["token_counts"][0]["hb_tta"] for sample in samples(results)]


def value_of(image: Any, choice: str) -> float:
    """What the backend ``Texts`` says of a choice: brightness by length."""
    return sum(image.tobytes()) / 1e6 * len(choice)
