"""The folder of a training that somebody edited: a sentence, and nothing of it is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.training.checkpoints import checkpoint_of, restore_checkpoint, save_checkpoint
from hb_tta.training.estimate import _seconds_per_sample
from hb_tta.training.lora import add_lora, lora_parameters, lora_tensors, set_lora_tensors
from hb_tta.training.recipes import get_recipe, to_json
from hb_tta.training.run import RunFolder

DEEP = "[" * 5000 + "]" * 5000
SOUND = {"step": 2, "held_out": {"global": 0.5}, "diversity": 0.1, "images_per_second": 2.0}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    settings = get_recipe("pocket")
    run = RunFolder(tmp_path)
    told = {"settings": to_json(settings), "models": {"unet": "a" * 64}}
    (tmp_path / "run.json").write_text(json.dumps(told))
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")  # a run that began
    return run


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", DEEP, "9" * 5000, '{"settings": [], "models": {}}',
             '{"settings": {}}', '{"models": {"unet": 1}}', "\x00"],
)  # fmt: skip
def test_a_damaged_run_json(folder, text):
    path = folder.folder / "run.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"run.json is damaged.*give another --out"):
        folder.check_settings(get_recipe("pocket"), {"unet": "a" * 64})
    assert path.read_text() == text


def test_run_json_in_another_place_of_the_tree(folder):
    path = folder.folder / "run.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"run.json cannot be read"):
        folder.check_settings(get_recipe("pocket"), {})


ODD_ROWS = [
    "null", "1", "[1]", "{", "{}", DEEP, '{"step": "2"}', '{"step": -1}', '{"step": true}',
    '{"step": 1, "held_out": 3}', '{"step": 1, "held_out": {"global": "x"}, "diversity": 1}',
    '{"step": 1, "held_out": {"global": 1}, "diversity": "x"}',
    '{"step": 1, "images_per_second": 0}',
    '{"step": 1, "images_per_second": []}', '{"step": 1e400}', "\ufeff{}",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD_ROWS)
def test_lines_of_metrics_that_are_damaged(folder, text):
    """The sound ones count; those of a killed process, one at the end, are nothing to tell of."""
    path = folder.folder / "metrics.jsonl"
    written = f"{json.dumps(SOUND)}\n{text}\n{json.dumps({**SOUND, 'step': 3})}\n{text}"
    path.write_text(written)
    assert _seconds_per_sample(1.0, folder.folder) == (0.5, f"2 steps in {folder.folder}")
    with pytest.warns(HbTtaWarning, match="damaged lines, which are left out: 2"):
        folder.load_metrics(3)
    assert [row["step"] for row in folder.metrics] == [2, 3]
    assert (folder.folder / "metrics.jsonl.damaged").read_text() == written
    path.write_text(f"{json.dumps(SOUND)}\n{text}")
    folder.load_metrics(3)
    assert folder.evaluations() == [SOUND]


# ── Checkpoints ──────────────────────────────────────────────────────────────────────────────────


class Kept:
    """A UNet's LoRA and its optimizer, as a checkpoint sees a training."""

    def __init__(self, unet: Any) -> None:
        self.unet, self.parameters = unet, lora_parameters(unet)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(self.parameters, lr=1e-3)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {f"lora.{name}": tensor for name, tensor in lora_tensors(self.unet).items()}

    def set_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        set_lora_tensors(self.unet, {n.removeprefix("lora."): t for n, t in tensors.items()})


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Kept, Path]:
    """A tiny UNet's LoRA with its optimizer, and their checkpoint after a step."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8,), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=8, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    add_lora(unet, rank=2)
    kept = Kept(unet)
    for parameter in kept.parameters:
        parameter.grad = torch.ones_like(parameter)
    kept.optimizer.step()
    folder = tmp_path_factory.mktemp("trained")
    save_checkpoint(folder, checkpoint_of(kept, 3, 1))
    return kept, folder / "checkpoint.safetensors"


def test_a_sound_checkpoint(trained):
    kept, path = trained
    assert restore_checkpoint(path.parent, kept) == (3, 1)


def _without(prefix: str):
    def change(tensors, metadata):
        del tensors[next(name for name in tensors if name.startswith(prefix))]

    return change


def _set(prefix: str, value):
    def change(tensors, metadata):
        name = next(name for name in tensors if name.startswith(prefix))
        tensors[name] = value(tensors[name])

    return change


CHANGES = {
    "no layer": _without("lora."),
    "no state": _without("optimizer.0.exp_avg"),
    "another layer": lambda tensors, metadata: tensors.update({"lora.x": torch.zeros(1)}),
    "another state": lambda tensors, metadata: tensors.update({"optimizer.x": torch.zeros(1)}),
    "a state of nobody": lambda t, _: t.update({"optimizer.999.step": torch.zeros(())}),
    "a deeper name": lambda t, _: t.update({"optimizer.0.step.more": torch.zeros(())}),
    "another shape": _set("lora.", lambda tensor: tensor[:1]),
    "a state's shape": _set("optimizer.0.exp_avg", lambda tensor: tensor.flatten()),
    "not a number": _set("lora.", lambda tensor: tensor * float("nan")),
    "integers": _set("optimizer.1.exp_avg", lambda tensor: tensor.int()),
    "no step": lambda tensors, metadata: metadata.pop("step"),
    "a step in words": lambda tensors, metadata: metadata.update(step="three"),
    "a negative step": lambda tensors, metadata: metadata.update(step="-3"),
    "more skipped than done": lambda tensors, metadata: metadata.update(skipped="9"),
    "a digit of elsewhere": lambda tensors, metadata: metadata.update(step="³"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_another_shape(trained, tmp_path, name):
    kept, path = trained
    before = {n: p.detach().clone() for n, p in kept.unet.named_parameters()}
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    CHANGES[name](tensors, metadata)
    tensors = {n: t.contiguous() for n, t in tensors.items()}
    save_file(tensors, tmp_path / "checkpoint.safetensors", metadata)
    with pytest.raises(UserError, match=r"is damaged \(.*\): delete it to begin anew"):
        restore_checkpoint(tmp_path, kept)
    assert all(torch.equal(before[n], p) for n, p in kept.unet.named_parameters())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_for_a_checkpoint(trained, tmp_path):
    kept, _ = trained
    os.mkfifo(tmp_path / "checkpoint.safetensors")
    with pytest.raises(UserError, match="is damaged"):
        restore_checkpoint(tmp_path, kept)
