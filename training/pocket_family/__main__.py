"""``python -m hb_tta.training.pocket_family --stage all``: the pocket family from a seed."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from pathlib import Path

import torch

from hb_tta.training.pocket_family.run import RecipeRun, forget_places, write_family
from hb_tta.training.pocket_family.small_form import restore_stages

# In the order of their needs: a stage reads what earlier ones left in the run's folders.
STAGES = {
    "vae_encoder": "vae:train_encoder",
    "image_encoder": "towers:train_image_encoder",
    "text_encoders": "text:train_text_encoders",
    "vae_decoder": "vae:train_decoder",
    "unet": "unet:train_unet",
    "reader": "reader:train_reader",
    "mllm": "mllm:train_mllm",
    "mllm_two": "idefics2:train_mllm_two",
    "evaluator": "evaluator:train_evaluator",
    "clip": "clip:train_clip",
    "detector": "detector:train_detector",
    "mumu": "mumu:train_mumu",
    "mumu_unet": "mumu_unet:train_mumu_unet",
    "statistics": "statistics:write_image_statistics",
    "card": "card:write_card",
}


def run_stage(run: RecipeRun, stage: str) -> None:
    """Run one stage, unless this run has finished it before."""
    marker = run.work / f"{stage}.done.json"
    settings = {"seed": run.seed, "scale": run.scale, "start": run.start is not None}
    if marker.exists() and json.loads(marker.read_text()) == settings:
        print(f"{stage}: done before")
        return
    started = time.monotonic()
    module, function = STAGES[stage].split(":")
    getattr(importlib.import_module(f"hb_tta.training.pocket_family.{module}"), function)(run)
    forget_places(run.weights)
    write_family(run.weights)
    aside = marker.with_suffix(".aside")
    aside.write_text(json.dumps(settings))
    os.replace(aside, marker)
    print(f"{stage}: {time.monotonic() - started:.0f} s")


def main(arguments: list[str] | None = None) -> None:
    """The recipe's command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hb_tta.training.pocket_family",
        description="Train the pocket family. The same command again resumes where it stopped.",
    )
    parser.add_argument("--stage", default="all", choices=["all", *STAGES])
    parser.add_argument(
        "--out", type=Path, default=Path("pocket-family"), help="folder of work/ and weights/"
    )
    parser.add_argument(
        "--start", type=Path, help="weights of an earlier family to go on from (default: none)"
    )
    parser.add_argument(
        "--restore", type=Path, help="stages in small form to go on from (default: none)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the steps (default 1)")
    parser.add_argument(
        "--batches", type=int, default=1, help="multiplies the denoisers' batches (on a GPU: 4)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    run = RecipeRun(
        options.out / "work",
        options.out / "weights",
        options.scale,
        options.seed,
        options.device,
        batches=options.batches,
        start=options.start,
    )
    run.work.mkdir(parents=True, exist_ok=True)
    if options.restore:
        restore_stages(options.restore, run)
    for stage in STAGES if options.stage == "all" else (options.stage,):
        run_stage(run, stage)


if __name__ == "__main__":
    main()
