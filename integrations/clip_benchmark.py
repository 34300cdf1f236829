"""Prompt tuning inside CLIP_benchmark, as one more model type of its own command line.

    hb-tta clip-benchmark eval --dataset … --model pocket --augment hummingbird -n 4

CLIP_benchmark has no plugins, so this registers ``hb_tta`` in its table of model types, and calls
its ``main``. Our "text features" are one-hot, our "image features" the tuned scores of the classes,
so that its own product of the two gives the scores back. What is patched, for versions from 1.6.2
to before 1.7:

* ``models.TYPE2FUNC``, ``models.MODEL_TYPES``: the model type;
* ``zeroshot_classification.evaluate``: tells our model the class names, and adds the accuracies
  that the same views give without tuning;
* ``zeroshot_classification.accuracy``: it raises TypeError on numpy ≥ 2.4 (its issue 147);
* ``cli.json.dump``: its result names the views, how they were tuned on, and the weights by their
  content: what it knows itself is the name that was typed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from hb_tta import spelling
from hb_tta.errors import UserError
from hb_tta.families import get_family, list_families
from hb_tta.settings import (
    ViewSettings,
    add_arguments,
    by_arguments,
    each,
    options_of,
    refuse_share,
)
from hb_tta.store import open_store
from hb_tta.tpt.filters import get_filter
from hb_tta.tpt.gated import classified
from hb_tta.tpt.models import load_clip
from hb_tta.tpt.prompt_learners import check_prompt
from hb_tta.tpt.tuner import PromptTuner
from hb_tta.tpt.views import ViewFeatures, ViewRequest
from hb_tta.tta.combine import rules_for
from hb_tta.tta.rule import CLASSES

MODEL_TYPE = "hb_tta"
SUPPORTED = ((1, 6, 2), (1, 7))  # from … to before …


@dataclass(frozen=True)
class Options:
    """Our own flags.

    Attributes:
        views: the generated ones; None: there are none.
        crops: of an image.
        tuner: settings of ``PromptTuner``.
        options: see ``options_of``.
    """

    views: ViewSettings | None
    crops: int
    tuner: dict[str, Any]
    options: Mapping[str, Any]


def run(argv: Sequence[str]) -> None:
    """Run CLIP_benchmark's command line; ``eval`` with prompt tuning.

    Raises:
        UserError: CLIP_benchmark has another version, or a flag cannot be followed.
    """
    check_version()
    from clip_benchmark import cli

    theirs = list(argv)
    if theirs[:1] == ["eval"]:
        options, theirs = read_options(theirs)
        make_output_folder(theirs)
        register(options)
    before = sys.argv
    try:
        sys.argv = ["clip_benchmark", *theirs]
        cli.main()
    finally:
        sys.argv = before


def check_version() -> None:
    """Raises UserError for a CLIP_benchmark that this was not written for."""
    version = metadata.version("clip_benchmark")
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if not SUPPORTED[0] <= numbers < SUPPORTED[1]:
        raise UserError(
            f'CLIP_benchmark {version} is not supported: pip install "clip_benchmark>=1.6.2,<1.7"'
        )


def own_parser() -> argparse.ArgumentParser:
    """Our flags of ``eval``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog="hb-tta")
    parser.add_argument("--augment")
    add_arguments(parser, "n", "family", "preset", "gate", "store")
    share = spelling.argument(spelling.share)
    parser.add_argument("--crops", type=spelling.argument(spelling.from_zero))
    parser.add_argument("--filter", default="tpt")
    parser.add_argument("--selection", type=share)
    parser.add_argument("--generated-selection", type=share)
    parser.add_argument("--steps", type=spelling.argument(spelling.positive), default=1)
    parser.add_argument("--lr", type=share, default=5e-3)
    parser.add_argument("--prompt", default="a photo of a")
    return parser


def read_options(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Our flags, and the command line that is left, with what our model type needs put in."""
    ours, theirs = own_parser().parse_known_args(list(argv))
    check_prompt(ours.prompt)
    asked = by_arguments(ours)
    crops = get_filter(ours.filter).crops if ours.crops is None else ours.crops
    names = ("filter", "selection", "generated_selection", "steps", "lr", "prompt")
    tuner = {name: getattr(ours, name) for name in names}
    refuse_share(asked)
    views = each([ours.augment] if ours.augment else [], asked, harness=CLASSES).get(ours.augment)
    options = Options(views, crops, tuner, options_of(asked))
    if any(flag.split("=")[0] == "--model_type" for flag in theirs):
        raise UserError(f"--model_type is {MODEL_TYPE} here: leave it out, or use clip_benchmark")
    needed = ["--model_type", MODEL_TYPE, "--no_amp", "--num_workers", "0"]
    return options, [theirs[0], *needed, *_without_workers(theirs[1:])]


def _without_workers(flags: list[str]) -> list[str]:
    """Views are made in this process: a number of loaders is not followed."""
    if "--num_workers" in flags:
        place = flags.index("--num_workers")
        return flags[:place] + flags[place + 2 :]
    return flags


def make_output_folder(flags: Sequence[str]) -> None:
    """CLIP_benchmark writes at the very end, and loses everything where the folder is not there."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output")
    output = parser.parse_known_args(list(flags))[0].output
    if output is None or "{" in str(Path(output).parent):  # a folder that it names only later
        return
    try:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output {output}: its folder cannot be made ({error.strerror or error})"
        ) from error


def register(options: Options) -> None:
    """Put our model type and the patches into CLIP_benchmark; a second call replaces the first."""
    from clip_benchmark import cli, models
    from clip_benchmark.metrics import zeroshot_classification

    said: dict[str, Any] = {}

    def load(model_name: str, pretrained: str, cache_dir: str | None, device: str) -> tuple:
        model = TunedClip(_source(model_name, pretrained), device, options)
        said.clear()
        said.update(model.told())
        return model, model.remember, lambda texts: torch.zeros(len(texts))

    models.TYPE2FUNC[MODEL_TYPE] = load
    if MODEL_TYPE not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(MODEL_TYPE)
    zeroshot_classification.accuracy = accuracy
    cli.json = _Json(said)
    theirs = getattr(zeroshot_classification.evaluate, "theirs", zeroshot_classification.evaluate)
    zeroshot_classification.evaluate = _evaluate_with(theirs)


class _Json:
    """The module ``json`` whose ``dump`` adds to a result what we know of it.

    Args:
        said: what is added; looked at when a result is written.
    """

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said

    def __getattr__(self, name: str) -> Any:
        return getattr(json, name)

    def dump(self, result: Any, file: Any, **settings: Any) -> None:
        """``json.dump``."""
        json.dump({**result, **self._said}, file, **settings)


def _source(model_name: str, pretrained: str) -> Any:
    if model_name in list_families():
        return get_family(model_name).weights("clip")
    named = pretrained and not model_name.startswith((".", "/", "~"))
    return f"{model_name}:{pretrained}" if named else model_name


class TunedClip:
    """A CLIP whose "image features" are class scores, tuned for each image on its views.

    Args:
        source: see ``load_clip``.
        device: where it runs.
        options: whose views, and how prompts are tuned.
    """

    def __init__(self, source: Any, device: str, options: Options) -> None:
        store = open_store(options.options["store"])
        views = options.views
        self._views = ViewFeatures(
            load_clip(source, device=device),
            store,
            augmenter=None if views is None else views.augmenter(store=store, device=device),
            generated=0 if views is None else views.n,
            crops=options.crops,
            seed=options.options["seed"],
        )
        self._settings = options.tuner
        self._gate = None if views is None else views.gate
        self._options = options
        self._images: dict[int, Image] = {}
        self._seen = 0
        self._tuner: PromptTuner | None = None
        self._texts = 0
        self.untuned: dict[str, list[Tensor]] = {}

    def told(self) -> dict[str, Any]:
        """What decides the figures, as plain JSON: a column each of CLIP_benchmark's table."""
        views, shown = self._options.views, self._views
        return {
            "method": "none" if views is None else views.method,
            "views": shown.generated,
            "crops": shown.crops,
            "filter": self._settings["filter"],
            "seed": self._options.options["seed"],
            "weights": shown.clip.identity["weights"],
            "view_settings": None if views is None else views.to_json(),
            "tuning": dict(self._settings),
        }

    def eval(self) -> TunedClip:
        """CLIP_benchmark asks for it; the model is always so."""
        return self

    def remember(self, image: Image) -> Tensor:
        """The "transform": keeps the image for ``encode_image`` and gives its number."""
        number = self._seen
        self._seen += 1
        self._images[number] = image
        return torch.tensor(number)

    def begin(self, class_names: Sequence[str]) -> None:
        """A new set of classes."""
        self._tuner = PromptTuner(self._views.clip.encoder, None, class_names, **self._settings)
        self._texts = 0
        self.untuned = {name: [] for name in rules_for(CLASSES)}

    def encode_text(self, texts: Tensor) -> Tensor:
        """One-hot: the first call is for the first class, and so on; a row a template."""
        assert self._tuner is not None
        row = torch.zeros(len(texts), len(self._tuner.text_CD))
        row[:, self._texts] = 1
        self._texts += 1
        return row

    def encode_image(self, numbers: Tensor) -> Tensor:
        """Tuned scores (B, C) of the remembered images, all positive."""
        assert self._tuner is not None
        images = [self._images.pop(number) for number in numbers.tolist()]
        requests = [ViewRequest(image) for image in images]
        found = classified(self._tuner, self._views, requests, self._gate)
        tuned = found.pop("tpt")
        for name, chances in found.items():
            self.untuned[name].append(chances)
        return tuned.to(numbers.device)


def _evaluate_with(theirs: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
    """CLIP_benchmark's ``evaluate`` for any model; ours learns its classes from it."""

    def evaluate(
        model: Any,
        dataloader: Any,
        tokenizer: Any,
        classnames: Sequence[str],
        *rest: Any,
        **kw: Any,
    ) -> dict[str, float]:
        if not isinstance(model, TunedClip):
            return theirs(model, dataloader, tokenizer, classnames, *rest, **kw)
        model.begin(classnames)
        targets: list[Tensor] = []
        watched = _Watched(dataloader, targets)
        metrics = theirs(model, watched, tokenizer, classnames, *rest, **kw)
        target = torch.cat(targets)
        for name, parts in model.untuned.items():
            metrics[f"acc1 {name}"] = accuracy(torch.cat(parts), target)[0]
        return metrics

    evaluate.theirs = theirs  # type: ignore[attr-defined]
    return evaluate


class _Watched:
    """A data loader whose targets are kept aside, for scoring alone."""

    def __init__(self, loader: Any, targets: list[Tensor]) -> None:
        self._loader, self._targets = loader, targets
        self.dataset = loader.dataset

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self):
        for images, target in self._loader:
            if target.ndim > 1:
                raise UserError(
                    "the data set has several labels an image: prompt tuning looks for one class; "
                    "run clip_benchmark itself for it"
                )
            self._targets.append(target.cpu())
            yield images, target


def accuracy(output: Tensor, target: Tensor, topk: Sequence[int] = (1,)) -> list[float]:
    """Top-k accuracies of logits (N, C): what CLIP_benchmark's function of that name computes."""
    best = output.topk(max(topk), 1).indices
    right = best == target.view(-1, 1)
    return [right[:, :k].any(1).float().mean().item() for k in topk]
