"""The training on rewards as the loop knows it (Hummingbird, ICLR 2025, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from hb_tta.lora import write_lora
from hb_tta.training.evaluation import evaluate
from hb_tta.training.frozen import freeze, reward_names
from hb_tta.training.lora import lora_tensors, set_lora_tensors
from hb_tta.training.progress import Console, bad_rows
from hb_tta.training.recipes import Settings
from hb_tta.training.run import RunFolder
from hb_tta.training.schedule import gradient_steps, learning_rate
from hb_tta.training.sheet import SampleSheets
from hb_tta.training.stopping import total_reward
from hb_tta.training.trained import Held, Key
from hb_tta.training.tuned import lora_of, tune

_PREFIX = "lora."  # in a checkpoint


class RewardTraining:
    """See ``Trained``."""

    def __init__(
        self, settings: Settings, run: RunFolder, accelerator: Accelerator, console: Console
    ) -> None:
        self._settings, self._accelerator = settings, accelerator
        self._frozen = frozen = freeze(settings, run, accelerator, console)
        self._tuned = tuned = tune(settings, frozen)
        self.models, self.bad = frozen.models, frozen.prepared.bad
        self.samples = len(frozen.prepared.training)
        self.parameters, self.optimizer = tuned.parameters, tuned.optimizer
        self.curves = reward_names(settings)
        self.min_diversity = settings.min_diversity if settings.evaluate_seeds > 1 else None
        shown = frozen.prepared.held_out[:: accelerator.num_processes]  # the main process's
        self._sheets = SampleSheets(run.folder / "samples", frozen.source, shown)

    def told(self) -> str:
        """How many samples there are, and what became of the rest."""
        prepared = self._frozen.prepared
        text = f"{len(prepared.training)} samples, {len(prepared.held_out)} held out"
        if prepared.left_out:
            text += f", {prepared.left_out} left out (images of held-out ones)"
        if prepared.bad:
            text += f", {bad_rows(len(prepared.bad))}: see bad_records.jsonl"
        return text

    def tensors(self) -> dict[str, Tensor]:
        """See ``Trained``."""
        return {_PREFIX + name: tensor for name, tensor in lora_tensors(self._tuned.unet).items()}

    def set_tensors(self, tensors: dict[str, Tensor]) -> None:
        """See ``Trained``."""
        set_lora_tensors(self._tuned.unet, _without_prefix(tensors))

    def write(self, tensors: dict[str, Tensor], folder: Path) -> None:
        """See ``Trained``: a LoRA in PEFT's format."""
        write_lora(lora_of(self._settings, _without_prefix(tensors)), folder, "peft")

    def set_rates(self, step: int) -> None:
        """See ``Trained``."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, step)

    def losses(self, step: int, keys: Sequence[Key]) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Trained``."""
        settings, prepared = self._settings, self._frozen.prepared
        if settings.lora_dropout:  # its masks, too, survive an interruption
            epoch, index = keys[0]
            entropy = np.random.SeedSequence([settings.seed, epoch, index, 3])
            torch.manual_seed(int(entropy.generate_state(1)[0]))
        rows = [prepared.training[index] for _, index in keys]
        batch = prepared.batch(rows, self._accelerator.device)
        return self._tuned.objective(batch, keys, gradient_steps(settings, step))

    def noted(self, step: int) -> dict[str, float]:
        """See ``Trained``: how many sampling steps carried the gradient."""
        return {"gradient_steps": len(gradient_steps(self._settings, step))}

    def evaluate(self) -> Held:
        """See ``Trained``."""
        settings = self._settings
        return evaluate(
            self._tuned.rollout, self._frozen.watching, self._frozen.prepared, self._accelerator,
            seeds=settings.evaluate_seeds, rows=settings.sample_contexts,
            batch_size=4 * settings.micro_batch_size, seed=settings.seed,
        )  # fmt: skip

    def draw(self, step: int, held: Held) -> None:
        """See ``Trained``."""
        self._sheets.write(step, held.pictures)

    def score(self, figures: dict[str, float]) -> float:
        """See ``Trained``."""
        return total_reward(figures, self._settings)


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
