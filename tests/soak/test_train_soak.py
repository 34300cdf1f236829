"""The trainer through fifty kills, and under the real launcher."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.soak

KILLS = 50
SMALL = {
    "samples": 32, "held_out": 2, "num_inference_steps": 2, "gradient_steps": 2, "batch_size": 4,
    "micro_batch_size": 2, "random_gradient_steps": "true", "lora_dropout": 0.1, "save_steps": 3,
    "evaluate_steps": 20, "sample_contexts": 1, "trackers": "", "dtype": "float32",
}  # fmt: skip


def command(out: Path, **changes) -> list[str]:
    line = ["train", "--recipe", "pocket", "--out", str(out), "--json"]
    for key, value in (SMALL | {"cache": out.parent / "cache"} | changes).items():
        line += ["--set", f"{key}={value}"]
    return line


def train(out: Path, **changes) -> None:
    subprocess.run([sys.executable, "-m", "hb_tta.cli", *command(out, **changes)], check=True)


def lora(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter_model.safetensors")


def test_fifty_kills_change_no_bit(tmp_path):
    steps = 4 * KILLS
    train(tmp_path / "whole", max_steps=steps)
    draw = random.Random(1)
    for _ in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-m", "hb_tta.cli", *command(tmp_path / "killed", max_steps=steps)],
            stdout=subprocess.DEVNULL,
        )
        checkpoint, began = tmp_path / "killed" / "metrics.jsonl", time.time()
        while child.poll() is None and not (
            checkpoint.exists() and checkpoint.stat().st_mtime > began
        ):
            time.sleep(0.01)
        time.sleep(draw.random() * 2)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
        child.wait()
    train(tmp_path / "killed", max_steps=steps)
    ours, theirs = lora(tmp_path / "killed"), lora(tmp_path / "whole")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_accelerate_launch_trains_what_one_process_does(tmp_path):
    plain = {"max_steps": 2, "optimizer": "sgd", "learning_rate": 1.0, "lora_dropout": 0}
    train(tmp_path / "one", **plain)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    line = [*launcher, "-m", "hb_tta.cli", *command(tmp_path / "two", **plain)]
    told = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    assert json.loads(told[told.index("{") :])["step"] == 2
    ours, theirs = lora(tmp_path / "two"), lora(tmp_path / "one")
    for key in theirs:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-2, atol=1e-4)
