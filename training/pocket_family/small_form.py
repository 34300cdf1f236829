"""Stages in small form: what a run on another machine needs to go on, and nothing else.

A finished stage is its models as they are shipped, in float16, and its log. Of one in progress the
weights are kept (their running average where there is one) with the step, without the optimizer's
state: after a short warm-up it goes on under the same schedule.

    python -m hb_tta.training.pocket_family.small_form OUT FOLDER   # a run's stages into FOLDER
    python -m hb_tta.training.pocket_family --restore FOLDER --out OUT --stage all
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hb_tta.training.pocket_family.run import RecipeRun

# What each stage leaves: paths in the run's folders "work" and "weights".
LEFT = {
    "vae_encoder": ("work/vae_encoder",),
    "image_encoder": (
        "weights/generator/image_encoder",
        "weights/generator/feature_extractor",
    ),
    "text_encoders": (
        "weights/generator/text_encoder",
        "weights/generator/text_encoder_2",
        "weights/generator/tokenizer",
        "weights/generator/tokenizer_2",
    ),
    "vae_decoder": ("weights/generator/vae",),
    "unet": (
        "weights/generator/unet",
        "weights/generator/scheduler",
        "weights/generator/model_index.json",
    ),
    "reader": ("weights/reader",),
    "mllm": ("weights/mllm",),
    "mllm_two": ("weights/mllm_two",),
    "evaluator": ("weights/evaluator",),
    "clip": ("weights/clip",),
    "statistics": ("weights/statistics", "weights/family.json"),
}
# Trainings of a stage, in their order, where they have other names than the stage.
TRAININGS = {
    "vae_encoder": ("vae_encoder", "vae_longer", "vae_pressure"),
    "image_encoder": ("image_encoder", "image_longer"),
    "mllm": ("mllm", "mllm_words", "mllm_both"),
    "mllm_two": (
        "mllm_two_sight",
        "mllm_two_aligned",
        "mllm_two",
        "mllm_two_words",
        "mllm_two_both",
    ),
    "evaluator": ("evaluator_sight", "evaluator"),
}


def save_stages(run: RecipeRun, folder: Path) -> dict[str, str]:
    """Write every stage that the run has begun into ``folder``; what was written of each.

    Returns:
        stage → "finished" or "at step …".
    """
    written = {}
    for stage in LEFT:
        if (run.work / f"{stage}.done.json").exists():
            written[stage] = "finished"
            for path in LEFT[stage]:
                _copy(_place(run, path), folder / stage / path)
            _copy(run.work / f"{stage}.done.json", folder / stage / "work" / f"{stage}.done.json")
        for training in TRAININGS.get(stage, (stage,)):
            log = run.work / f"{training}.jsonl"
            if log.exists():
                _copy(log, folder / stage / "work" / log.name)
            checkpoint = run.work / f"{training}.safetensors"
            if written.get(stage) != "finished" and checkpoint.exists():
                step = _small(checkpoint, folder / stage / "work" / checkpoint.name)
                written[stage] = f"{training} at step {step}"
    if {"vae_encoder", "vae_decoder"} <= written.keys() and written["vae_decoder"] == "finished":
        # The finished autoencoder holds the frozen encoder.
        shutil.rmtree(folder / "vae_encoder" / LEFT["vae_encoder"][0], ignore_errors=True)
    return written


def restore_stages(folder: Path, run: RecipeRun) -> None:
    """Lay the stages in ``folder`` out as a run's; what the run has already stays as it is."""
    for stage in LEFT:
        for path in _files(folder / stage):
            target = _place(run, path.relative_to(folder / stage).as_posix())
            if not target.exists():
                _copy(path, target)
    encoder, finished = run.work / "vae_encoder", run.weights / "generator" / "vae"
    if finished.exists() and not encoder.exists():
        shutil.copytree(finished, encoder)


def _place(run: RecipeRun, path: str) -> Path:
    root, _, rest = path.partition("/")
    return {"work": run.work, "weights": run.weights}[root] / rest


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _copy(source: Path, target: Path) -> None:
    """A file, or all files of a folder; tensors in float16."""
    if source.is_dir():
        for path in _files(source):
            _copy(path, target / path.relative_to(source))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".safetensors" and source.parent.name != "work":
        with safe_open(source, "pt") as file:
            metadata = file.metadata()
        save_file(_halved(load_file(source)), target, metadata=metadata)
    else:
        shutil.copyfile(source, target)


def _small(checkpoint: Path, target: Path) -> str:
    """The weights of a checkpoint alone; its step."""
    tensors = load_file(checkpoint)
    with safe_open(checkpoint, "pt") as file:
        metadata = file.metadata()
    kept = {key: value for key, value in tensors.items() if key.startswith("module.")}
    names = metadata.get("averaged", "")
    for number, name in enumerate(names.split() if names else ()):
        kept[f"module.{name}"] = tensors[f"average.{number}"]
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(_halved(kept), target, metadata=metadata)
    return metadata["step"]


def _halved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}


if __name__ == "__main__":
    out, into = map(Path, sys.argv[1:])
    for name, state in save_stages(RecipeRun(out / "work", out / "weights"), into).items():
        print(f"{name}: {state}")
