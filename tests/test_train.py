"""The trainer on the bundled family, at a size of seconds."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hb_tta.cli import main
from hb_tta.cli.train import _told as told_of
from hb_tta.context import DescribedContext
from hb_tta.datasets.pocket import PocketExamples
from hb_tta.datasets.samples import Example
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators.lora import tensors_of
from hb_tta.lora import read_lora
from hb_tta.rewards import load_rewards
from hb_tta.training import checkpoints, steps
from hb_tta.training import train as train_module
from hb_tta.training.data import Rows, open_source
from hb_tta.training.devices import on_devices
from hb_tta.training.frozen import load_generator
from hb_tta.training.lora import add_lora, lora_parameters
from hb_tta.training.objectives import RewardObjective
from hb_tta.training.recipes import Settings, get_recipe
from hb_tta.training.rollout import Rollout
from hb_tta.training.schedule import gradient_steps, learning_rate
from hb_tta.training.sheet import GAP, HEAD, TEXT
from hb_tta.training.stopping import is_best, total_reward
from hb_tta.training.train import train

# A server that has imported the trainer and computed nothing: what it forks starts at once.
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["hb_tta.training.train"])


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def settings(cache) -> Settings:
    return tiny(cache)


def tiny(cache: str, **changes: Any) -> Settings:
    small = {
        "samples": 16, "held_out": 2, "num_inference_steps": 2, "gradient_steps": 1,
        "batch_size": 4, "micro_batch_size": 4, "max_steps": 2, "save_steps": 1,
        "evaluate_steps": 100, "sample_contexts": 1, "warmup_steps": 0, "trackers": None,
        "cache": cache, "dtype": "float32",
    }  # fmt: skip
    return replace(get_recipe("pocket"), **{**small, **changes})


def lora_of(folder: Path) -> torch.Tensor:
    lora, _ = read_lora(folder)
    tensors = tensors_of(lora.parts)
    return torch.cat([tensors[key].flatten() for key in sorted(tensors)])


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def in_process(target, *arguments) -> None:
    child = FORK.Process(target=target, args=arguments)
    child.start()
    child.join(120)
    assert child.exitcode == 0


# ── The command ─────────────────────────────────────────────────────────────────────────────────


def test_the_command_trains_logs_shows_and_exports(tmp_path, cache, capsys):
    """From the command line, with the trackers on; the LoRA is then used by the augmenter."""
    changes = {
        "samples": 16, "held_out": 2, "num_inference_steps": 2, "gradient_steps": 1, "max_steps": 2,
        "evaluate_steps": 1, "save_steps": 1, "batch_size": 4, "cache": cache,
    }  # fmt: skip
    out = tmp_path / "run"
    command = ["train", "--recipe", "pocket", "--out", str(out), "--json"]
    for key, value in changes.items():
        command += ["--set", f"{key}={value}"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == 2 and result["ended"] == "max_steps"
    assert set(result["last"]["held_out"]) >= {"global", "fine_grained"}
    for name in ("convergence.png", "samples/step_000000.png", "samples/step_000002.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    _check_sheets(out / "samples")
    assert list((out / "tensorboard").rglob("events*"))
    steps = [row for row in metrics_of(out) if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2]
    for row in steps:
        weighted = row["global"] + 0.3 * row["fine_grained"]
        assert row["loss"] == pytest.approx(-weighted, rel=1e-4)
        assert row["gradient_norm"] > 0
    lora, form = read_lora(out)
    assert form == "peft" and set(lora.scales().values()) == {4} and lora_of(out).abs().max() > 0

    from hb_tta import Augmenter

    context = DescribedContext(pocket_image(), "a red circle")
    views = [
        Augmenter.from_pretrained(
            "hummingbird", family="pocket", lora=given, num_inference_steps=2, store=False
        ).augment([context], n=1)[0].views[0]
        for given in (str(out), None)
    ]  # fmt: skip
    assert views[0].tobytes() != views[1].tobytes()


def _check_sheets(folder: Path) -> None:
    """The reference, and beside each of the step's pictures the untuned one of the same noise."""
    first, last = (Image.open(folder / f"step_{step:06d}.png") for step in (0, 2))
    source = open_source("pocket", None)
    assert source is not None
    for row in range(2):  # as many as are held out
        (example,) = source.read(row, row + 1)
        assert isinstance(example, Example)
        real, *drawn = cells_of(last, row, 5)
        assert real == enlarged(example.context.image)
        assert drawn[0::2] == cells_of(first, row, 3)[1:], "untuned, as at the beginning"
        assert all(now != before for before, now in zip(drawn[0::2], drawn[1::2], strict=True))


def cells_of(sheet: Image.Image, row: int, count: int) -> list[bytes]:
    side = 192 + GAP
    corners = [(TEXT + place * side, HEAD + row * side) for place in range(count)]
    return [sheet.crop((x, y, x + 192, y + 192)).tobytes() for x, y in corners]


def enlarged(image: Image.Image) -> bytes:
    return image.resize((192, 192), Image.Resampling.NEAREST).tobytes()


def pocket_image():
    from hb_tta.pocket.tasks import pocket_mme

    return next(pocket_mme("dev")).image


def test_a_manifest_of_augment_trains_as_it_is(tmp_path, monkeypatch, capsys):
    """From ten pictures, their questions and answers in a table to a LoRA, by two commands."""
    monkeypatch.chdir(tmp_path)
    lines = ["file,query,answer,description"]
    for number, row in enumerate(Rows(PocketExamples()).read(0, 10)):
        assert isinstance(row, Example)
        row.context.image.save(f"{number}.png")
        said = row.context.guidance, row.context.ground_truth, row.description
        lines.append(",".join([f"{number}.png", *(f'"{text}"' for text in said)]))
    Path("rows.csv").write_text("\n".join(lines) + "\n")
    quick = ["--method", "randaugment", "-n", "1", "--store", "store"]
    assert main(["augment", "rows.csv", *quick, "--out", "deep/out"]) == 0
    small = ["num_inference_steps=2", "gradient_steps=1", "max_steps=1", "batch_size=4"]
    small += ["micro_batch_size=4", "trackers=tensorboard", "sample_contexts=1"]
    capsys.readouterr()
    command = ["train", "--recipe", "pocket", "--data", "deep/out/manifest.jsonl", "--json"]
    assert main([*command, "--out", "run", "--set", *small]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["step"], result["bad_records"]) == (1, 0)
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()


def test_dry_run_needs_neither_weights_nor_data(capsys):
    command = ["train", "--recipe", "paper-vqa", "--data", "nowhere.jsonl", "--dry-run", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trainable_parameters"] == 11_796_480 and found["steps"] == 50_000
    assert found["samples_per_step"] == 64 and found["hours_on_one_device"] > 0
    devices = {row["device"]: row for row in found["devices"]}
    assert list(devices) == ["A100 80 GB", "H100 SXM", "H200"]
    assert devices["A100 80 GB"]["hours"] > 3 * devices["H100 SXM"]["hours"] > 100
    assert all(row["fits"] for row in devices.values())  # at the recipe's memory=block
    assert found["tflop_per_sample"] == pytest.approx(516, abs=0.5)  # README.md
    assert devices["H100 SXM"]["hours"] / 24 == pytest.approx(48, abs=0.5)  # and docs/train.md
    by_preset = found["memory_gib_by_preset"]
    assert by_preset["none"] > by_preset["block"] > by_preset["step+block"] > 5


def test_dry_run_tells_devices_in_hours_or_days(capsys):
    assert main(["train", "--recipe", "paper-vqa", "--dry-run"]) == 0
    told = capsys.readouterr().out
    for name in ("A100 80 GB", "H100 SXM", "H200", "this machine"):
        (line,) = [line for line in told.splitlines() if line.startswith(f"  {name}")]
        assert " days" in line or " years" in line
    assert main(["train", "--recipe", "pocket", "--dry-run"]) == 0
    told = capsys.readouterr().out
    (line,) = [line for line in told.splitlines() if line.startswith("  H200")]
    assert line.split()[1:] == "under 1 s under 0.001 s yes".split(), "never 0 s"
    fits = [row["fits"] for row in on_devices(1.0, 1, 100.0, 0.5)]
    assert fits == [False, False, True]


# ── The same run, however it is run ─────────────────────────────────────────────────────────────


def test_micro_batches_are_one_batch(settings, tmp_path):
    """4×1 equals 1×4 equals two processes of 2: the LoRA after a step of plain descent.

    Up to float32's rounding, which sampler and judge amplify; in double precision see
    ``test_losses_do_not_depend_on_the_batch``.
    """
    plain = replace(settings, optimizer="sgd", learning_rate=1.0, max_steps=1)
    train(plain, tmp_path / "one", quiet=True)
    train(replace(plain, micro_batch_size=1), tmp_path / "four", quiet=True)
    two_processes(replace(plain, micro_batch_size=2), tmp_path / "two")
    ours = [lora_of(tmp_path / name) for name in ("one", "four", "two")]
    start = lora_of_start(plain, tmp_path)
    moved = ours[0] - start
    assert moved.norm() > 0
    for other in ours[1:]:
        assert (other - ours[0]).norm() <= 5e-4 * moved.norm()
    first, second = (
        next(row for row in metrics_of(tmp_path / name) if "loss" in row) for name in ("one", "two")
    )
    for name in ("loss", "global", "fine_grained", "gradient_norm"):
        assert first[name] == pytest.approx(second[name], rel=1e-4)


def test_losses_do_not_depend_on_the_batch(settings):
    """In double precision the gradient of a batch of 4 is that of 4 micro-batches to 1e-5."""
    family = get_family("pocket")
    generator = load_generator(settings, family, torch.device("cpu"))
    (evaluator,) = load_rewards(["global"], family)
    pipe = generator.pipe
    add_lora(pipe.unet)
    for model in (pipe.unet, pipe.vae, evaluator):
        model.double()
    records = [r for r in Rows(PocketExamples()).read(0, 4) if isinstance(r, Example)]
    images, texts = [r.context.image for r in records], [str(r.description) for r in records]
    with torch.no_grad():
        contexts = [DescribedContext(*pair) for pair in zip(images, texts, strict=True)]
        batch = {n: t.double() for n, t in generator.encode(contexts, True).items()}
    batch |= evaluator.targets(images, texts)
    rollout = Rollout(pipe.unet, pipe.vae, pipe.scheduler, 2, 2.0, [1], memory="none")
    objective = RewardObjective(rollout, [evaluator], settings.rewards, 1.0, 0)

    def gradient(size: int) -> torch.Tensor:
        pipe.unet.zero_grad()
        for first in range(0, 4, size):
            rows = slice(first, first + size)
            keys = [(0, index) for index in range(4)[rows]]
            losses, _ = objective({n: t[rows] for n, t in batch.items()}, keys, [1])
            losses.sum().backward()
        return torch.cat(
            [p.grad.flatten() for p in lora_parameters(pipe.unet) if p.grad is not None]
        )

    whole, parts = gradient(4), gradient(1)
    assert len(whole) == sum(p.numel() for p in lora_parameters(pipe.unet))
    assert whole.norm() > 0
    assert (whole - parts).norm() <= 1e-5 * whole.norm()


def lora_of_start(settings: Settings, tmp_path: Path) -> torch.Tensor:
    """Before the first step: a step of no length."""
    still = replace(settings, learning_rate=1e-30)
    train(still, tmp_path / "still", quiet=True)
    return lora_of(tmp_path / "still")


def two_processes(settings: Settings, out: Path) -> None:
    """As ``accelerate launch --cpu --num_processes 2`` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = [FORK.Process(target=_rank, args=(settings, out, rank, port)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(180)
    assert [child.exitcode for child in children] == [0, 0]


def _rank(settings: Settings, out: Path, rank: int, port: str) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=port, ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    train(settings, out, quiet=True)


def test_a_killed_run_goes_on_to_the_same_bits(settings, tmp_path):
    """Killed three times at random moments, with a random K and a dropout that must come back."""
    long = replace(
        settings, max_steps=6, num_inference_steps=3, random_gradient_steps=True,
        gradient_steps=2, lora_dropout=0.2, seed=1,
    )  # fmt: skip
    train(long, tmp_path / "whole", quiet=True)
    rows = metrics_of(tmp_path / "whole")
    assert len({row["gradient_steps"] for row in rows if "loss" in row}) > 1
    out = tmp_path / "killed"
    draw = random.Random(0)
    for number in range(3):
        kill_after(long, out, lines=number + 1, wait=draw.random() * 0.05)
    in_process(_quiet_train, long, out)
    for name in ("adapter_model.safetensors", "checkpoint.safetensors"):
        ours, theirs = (load_file(tmp_path / run / name) for run in ("killed", "whole"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert untimed(out) == untimed(tmp_path / "whole")


def untimed(folder: Path) -> list[dict[str, Any]]:
    clock = ("seconds", "images_per_second", "memory_gib")
    return [{k: v for k, v in row.items() if k not in clock} for row in metrics_of(folder)]


def kill_after(settings: Settings, out: Path, *, lines: int, wait: float) -> None:
    child = FORK.Process(target=_quiet_train, args=(settings, out))
    child.start()
    log, began, until = out / "metrics.jsonl", time.time(), time.monotonic() + 120
    while time.monotonic() < until and child.is_alive():
        if log.exists() and log.stat().st_mtime > began:  # else they are an earlier run's lines
            if len(log.read_bytes().splitlines()) > lines:
                break
        time.sleep(0.005)
    time.sleep(wait)
    assert child.is_alive(), "the run ended before it was killed"
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()


def _quiet_train(settings: Settings, out: Path) -> None:
    train(settings, out, quiet=True)


def test_an_interrupt_saves_and_goes_on(settings, tmp_path, monkeypatch):
    forward = steps.forward
    monkeypatch.setattr(
        steps,
        "forward",
        lambda *given: (os.kill(os.getpid(), signal.SIGINT), forward(*given))[1],
    )
    with pytest.raises(KeyboardInterrupt):
        train(replace(settings, save_steps=50), tmp_path / "run", quiet=True)
    monkeypatch.undo()
    assert [row["step"] for row in metrics_of(tmp_path / "run")] == [0, 1]
    assert train(settings, tmp_path / "run", quiet=True)["step"] == 2


def test_steps_with_gradient_anywhere(settings, tmp_path):
    chosen = replace(settings, gradient_at="anywhere", num_inference_steps=25, gradient_steps=3)
    drawn = [gradient_steps(chosen, step) for step in range(50)]
    for part, (low, high) in enumerate(((0, 8), (8, 17), (17, 25))):
        assert {steps[part] for steps in drawn} <= set(range(low, high))
        assert len({steps[part] for steps in drawn}) > 3
    assert drawn[3] == gradient_steps(chosen, 3)
    assert gradient_steps(replace(chosen, gradient_at="end"), 3) == [22, 23, 24]
    train(replace(settings, gradient_at="anywhere"), tmp_path / "run", quiet=True)
    assert lora_of(tmp_path / "run").abs().max() > 0


def test_the_rate_warms_up_and_falls(settings):
    rate = learning_rate
    chosen = replace(settings, learning_rate=1.0, warmup_steps=4, max_steps=20, decay_steps=20)
    assert [rate(chosen, step) for step in (0, 3, 4, 10, 19)] == pytest.approx(
        [0.2, 0.8, 0.8, 0.5, 0.05]
    )
    assert rate(replace(chosen, decay_steps=None), 19) == 1


# ── Objectives and stopping ─────────────────────────────────────────────────────────────────────


def test_rewards_rise(cache, tmp_path):
    """On few contexts and steps, with nothing but the rewards to follow."""
    settings = tiny(
        cache, max_steps=20, evaluate_steps=20, save_steps=20, learning_rate=1e-4, samples=32,
        gradient_steps=2, gradient_at="end", batch_size=16, micro_batch_size=16, held_out=8,
        min_diversity=0.01, rewards={"global": 1.0, "fine_grained": 1.0},
    )  # fmt: skip
    result = train(settings, tmp_path / "run", quiet=True)
    before, after = (result[when]["held_out"] for when in ("first", "last"))
    assert after["global"] > before["global"] + 0.005
    assert after["fine_grained"] > before["fine_grained"]


def test_a_weight_on_the_drift_holds_the_generator(cache, tmp_path):
    drifts = []
    for weight in (1e-6, 1e3):
        settings = tiny(cache, max_steps=6, learning_rate=2e-3, drift_weight=weight)
        train(settings, tmp_path / str(weight), quiet=True)
        rows = [row for row in metrics_of(tmp_path / str(weight)) if "loss" in row]
        assert rows[0]["drift"] == 0
        drifts.append(rows[-1]["drift"])
    assert 0 < drifts[1] < 0.5 * drifts[0]


def test_the_control_learns_to_denoise(cache, tmp_path):
    settings = tiny(cache, objective="denoising", max_steps=2, batch_size=8, micro_batch_size=8)
    train(settings, tmp_path / "run", quiet=True)
    losses = [row["denoising_loss"] for row in metrics_of(tmp_path / "run") if "loss" in row]
    assert all(0 < loss < 2 for loss in losses)
    assert lora_of(tmp_path / "run").abs().max() > 0


def test_a_run_that_loses_its_diversity_stops(settings, tmp_path):
    strict = replace(settings, learning_rate=0.03, max_steps=3, evaluate_steps=1)  # far too high
    result = train(strict, tmp_path / "run", quiet=True)
    assert result["step"] == 1 and "diversity fell" in result["ended"]


def test_a_held_out_judge_says_which_is_best_and_when_to_stop(settings, tmp_path):
    """Without a step that changes anything no later evaluation is better than the first."""
    still = replace(
        settings, judge="clip_text", learning_rate=1e-12, max_steps=6, evaluate_steps=1, patience=2
    )
    result = train(still, tmp_path / "run", quiet=True)
    assert result["step"] == 2 and "patience" in result["ended"]
    rows = metrics_of(tmp_path / "run")
    assert all("clip_text" in row["held_out"] for row in rows if "held_out" in row)
    assert not any("clip_text" in row for row in rows if "loss" in row)  # it is not followed
    figures = {"global": 1.0, "fine_grained": 1.0, "clip_text": 0.1}
    better = {"step": 9, "held_out": figures | {"global": -5.0, "clip_text": 0.2}}
    score, followed = (
        partial(total_reward, settings=its) for its in (still, replace(still, judge=None))
    )
    assert is_best(better, [{"step": 0, "held_out": figures}], score)
    assert not is_best(better, [{"step": 0, "held_out": figures}], followed)
    with pytest.raises(UserError, match="name another, or none"):
        replace(settings, judge="global")


@pytest.mark.parametrize("name", ["pocket-hoi", "pocket-object"])
def test_the_other_pocket_recipes_train(name, tmp_path):
    data = get_recipe(name).data
    short = tiny(str(tmp_path / "cache"), data=data, judge="clip_text")
    result = train(short, tmp_path / "run", quiet=True)
    assert result["step"] == 2 and result["bad_records"] == 0
    assert lora_of(tmp_path / "run").abs().max() > 0


def test_steps_that_are_not_finite_are_skipped_and_counted(settings, tmp_path, monkeypatch):
    forward, calls = steps.forward, []

    def sometimes(*given):
        losses, figures = forward(*given)
        calls.append(1)
        return (losses * float("nan") if len(calls) == 1 else losses), figures

    monkeypatch.setattr(steps, "forward", sometimes)
    result = train(settings, tmp_path / "run", quiet=True)
    assert result["skipped"] == 1 and torch.isfinite(lora_of(tmp_path / "run")).all()
    monkeypatch.setattr(train_module, "MOST_SKIPPED", 2)
    monkeypatch.setattr(steps, "forward", lambda *given: (forward(*given)[0] * float("nan"), {}))
    with pytest.raises(UserError, match="not finite in 2 steps"):
        train(replace(settings, max_steps=5), tmp_path / "nan", quiet=True)


# ── Bad input ───────────────────────────────────────────────────────────────────────────────────


def test_another_runs_folder_is_refused(settings, tmp_path):
    train(replace(settings, max_steps=1), tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="learning_rate=0.0001, now it is 0.1"):
        train(replace(settings, learning_rate=0.1), tmp_path / "run", quiet=True)
    written = tmp_path / "run" / "run.json"
    old = json.loads(written.read_text())
    old["models"]["generator"] = "sha256:of-yesterday"
    written.write_text(json.dumps(old))
    with pytest.raises(UserError, match="a different generator"):
        train(settings, tmp_path / "run", quiet=True)


def test_a_run_that_never_began_claims_no_folder(settings, tmp_path, monkeypatch):
    pocket_image().save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "Is it red?", "description": "A red circle."}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    one_image = replace(
        settings, data=str(tmp_path / "rows.jsonl"), data_format=None, samples=None, held_out=None
    )
    with pytest.raises(UserError, match="no sample is left.* 1 of them held out and 2 with an im"):
        train(one_image, tmp_path, quiet=True)
    assert not (tmp_path / "run.json").exists()

    def stopped(*given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "take_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path, quiet=True)  # it began, and kept nothing
    monkeypatch.undo()
    assert (tmp_path / "run.json").exists()
    other = replace(settings, learning_rate=2e-4)
    assert train(other, tmp_path, quiet=True)["step"] == 2
    with pytest.raises(UserError, match="holds a run with learning_rate=0.0002"):
        train(settings, tmp_path, quiet=True)


def test_the_curve_is_named_where_it_was_written(settings, tmp_path, monkeypatch, capsys):
    result = train(settings, tmp_path, quiet=True)
    assert result["curve"] == str(tmp_path / "convergence.png")
    assert "look at its samples/ and convergence.png" in told_of(result)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = train(settings, tmp_path, quiet=True)
    assert result["curve"] is None and not (tmp_path / "convergence.png").exists()
    assert "convergence.png" not in told_of(result)


def test_a_full_disk_leaves_the_last_checkpoint(settings, tmp_path, monkeypatch, capsys):
    train(replace(settings, max_steps=1), tmp_path / "run", quiet=True)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()

    write = checkpoints.write_aside

    def full(path, data):
        if Path(path).name == "checkpoint.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_aside", full)
        with pytest.raises(OSError):
            train(settings, tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    assert train(settings, tmp_path / "run", quiet=True)["step"] == 2


def test_out_of_memory_names_what_to_try(settings, tmp_path, monkeypatch):
    def exhausted(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(steps, "forward", exhausted)
    with pytest.raises(UserError, match="--set micro_batch_size=2"):
        train(settings, tmp_path / "a", quiet=True)
    with pytest.raises(UserError, match="--set memory=block"):
        train(replace(settings, micro_batch_size=1), tmp_path / "b", quiet=True)


def test_a_damaged_checkpoint_is_told(settings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="is damaged"):
        train(settings, tmp_path / "run", quiet=True)
