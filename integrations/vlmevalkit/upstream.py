"""All that is replaced in VLMEvalKit, for as long as its command runs (0.0.20).

* ``inference.infer_data``, which builds the model and asks it about a data set: the model's
  ``generate`` is ours meanwhile. The model comes from ``config.supported_VLM``, or was built
  before (``--config``, ``--base-url``).
* ``run.infer_data_job_video`` and ``run.infer_data_job_mt``: refused, views are of images and of
  one question.
* ``run.upsert_dataset_status``: VLMEvalKit catches every error of a data set, writes it down
  through this, and ends with status 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hb_tta.tta.intercept  # noqa: F401  before a model can bind transformers' generate
from hb_tta.errors import UserError
from hb_tta.integrations.failure import AugmentationFailed, stopping
from hb_tta.integrations.sidecar import Sidecar
from hb_tta.integrations.vlmevalkit.families import register
from hb_tta.integrations.vlmevalkit.job import IDENTITY, Job
from hb_tta.integrations.vlmevalkit.questions import Message
from hb_tta.integrations.vlmevalkit.ways import way_for
from hb_tta.settings.augmented import AugmentSettings

FOLDER = "hb_tta"


def evaluate(settings: AugmentSettings | None) -> None:
    """VLMEvalKit's command, with what ``sys.argv`` says.

    Args:
        settings: of the augmentation; None: there is none.

    Raises:
        UserError: a data set was not done.
    """
    from vlmeval import config, inference
    from vlmeval import run as command

    register(config.supported_VLM)
    statuses = Statuses(command.upsert_dataset_status)
    with ExitStack() as stack:

        def replace(module: Any, name: str, ours: Any) -> None:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, ours)

        replace(command, "upsert_dataset_status", statuses)
        if settings is not None:
            replace(inference, "infer_data", Inference(settings, inference, config.supported_VLM))
            replace(command, "infer_data_job_video", _refused("a video"))
            replace(command, "infer_data_job_mt", _refused("a conversation of several turns"))
        command.main()
    statuses.check()


class Statuses:
    """VLMEvalKit's ``upsert_dataset_status``, and what of it is a failure."""

    def __init__(self, stock: Callable[..., Any]) -> None:
        self._stock = stock
        self._failed: list[str] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if "error_message" in kwargs or kwargs.get("skip_reason") == "invalid_dataset":
            self._failed.append(f"{kwargs.get('model_name')} on {kwargs.get('dataset_name')}")
        return self._stock(*args, **kwargs)

    def check(self) -> None:
        """Raises UserError where a data set was not done."""
        if self._failed:
            raise UserError(
                f"VLMEvalKit did not finish {', '.join(self._failed)}: its own lines above say why"
            )


class Inference:
    """VLMEvalKit's ``infer_data``, whose model answers from views.

    Args:
        settings: of the augmentation.
        upstream: the module that it is in.
        models: name → what builds a model.
    """

    def __init__(self, settings: AugmentSettings, upstream: Any, models: dict[str, Any]) -> None:
        self._settings, self._upstream, self._models = settings, upstream, models
        self._stock = upstream.infer_data

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(self._stock).bind(*args, **kwargs)
        asked = bound.arguments
        with ExitStack() as stack:

            def augmented(model: Any) -> Any:
                stack.enter_context(self._augmented(model, asked))
                return model

            model, name = asked["model"], asked["model_name"]
            if isinstance(model, str):
                build = self._models[name]
                self._models[name] = lambda **settings: augmented(build(**settings))
                stack.callback(self._models.__setitem__, name, build)
            else:
                augmented(model)
            return self._stock(*bound.args, **bound.kwargs)

    @contextmanager
    def _augmented(self, model: Any, asked: dict[str, Any]) -> Iterator[None]:
        """While it is entered, the model's ``generate`` is ours."""
        dataset = asked["dataset"]
        name, stock = dataset.dataset_name, model.generate

        def own(message: Message) -> Any:
            return stock(message=message, dataset=name)

        rank, _ = self._upstream.get_rank_and_world_size()
        with stopping():
            way = way_for(model, own, self._settings)
            sidecar = Sidecar(Path(asked["work_dir"]) / FOLDER, rank, IDENTITY)
            job = Job(model, own, way, self._settings, lambda: self._listed(model, asked), name,
                      sidecar)  # fmt: skip
        model.generate = lambda message, dataset=None: job.answer(message)
        try:
            yield
        finally:
            del model.generate
            job.close()

    def _listed(self, model: Any, asked: dict[str, Any]) -> list[tuple[Any, Message]]:
        """What this process asks the model, as ``infer_data`` finds it."""
        upstream, dataset = self._upstream, asked["dataset"]
        rank, world = upstream.get_rank_and_world_size()
        earlier = f"{asked['work_dir']}/{asked['model_name']}_{dataset.dataset_name}_PREV.pkl"
        done: set[Any] = set()
        for file in (earlier, asked["out_file"]):
            if Path(file).exists():
                done |= set(upstream.load(file))
        rows = [dataset.data.iloc[place] for place in range(rank, len(dataset), world)]
        return [(row["index"], _prompt(model, dataset, row)) for row in rows
                if row["index"] not in done]  # fmt: skip


def _prompt(model: Any, dataset: Any, row: Any) -> Message:
    """A row's message: the data set's, or the model's own."""
    name, forced = dataset.dataset_name, getattr(dataset, "force_use_dataset_prompt", False)
    # Of the APIs not all have the method.
    if not forced and hasattr(model, "use_custom_prompt") and model.use_custom_prompt(name):
        return model.build_prompt(row, dataset=name)
    return dataset.build_prompt(row)


def _refused(what: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        name = kwargs["dataset"].dataset_name
        raise AugmentationFailed(
            f"the data set {name} asks about {what}, which cannot be augmented: run it without "
            "--augment"
        )

    return refuse
