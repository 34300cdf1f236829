"""``hb-tta train``: the loop, whatever is trained. Reads from top to bottom.

Hummingbird's rewards through the sampler (Le et al., ICLR 2025, algorithm 1) and MUMU's stages
(Berman & Peysakhovich, 2024) are kinds of training; this is what they share. One process a GPU;
``accelerate launch -m hb_tta.cli train …`` starts several, on one machine or many. Gradients are
averaged over all samples of a step by one all-reduce of one flat vector, so a run is the same, up
to rounding, on any number of processes that divides its batch.

    start.py     the processes                kinds.py, trained.py  what a kind of training is
    steps.py     one step                     checkpoints.py        where it goes on
    watch.py     what is logged and evaluated
    rewarded.py  rewards: frozen.py, tuned.py: its models, what they say of the data, the LoRA
    mumu/        MUMU's
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hb_tta.errors import UserError
from hb_tta.locks import owned
from hb_tta.training.checkpoints import checkpoint_of, restore_checkpoint, save_checkpoint
from hb_tta.training.kinds import prepare
from hb_tta.training.prepare import Order
from hb_tta.training.progress import Console
from hb_tta.training.run import RunFolder
from hb_tta.training.settings import Common
from hb_tta.training.start import memory_advice, start, start_trackers
from hb_tta.training.steps import take_step
from hb_tta.training.stopping import agreed, until_interrupted, why_stop
from hb_tta.training.watch import Watch, summary

MOST_SKIPPED = 10  # steps in a row without a finite gradient


def train(settings: Common, out: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Trains what the settings are of, or goes on with the training that a folder holds.

    Args:
        settings: of a recipe.
        out: the run's folder, see ``RunFolder``.
        quiet: no progress on the terminal.

    Returns:
        The last step, why it ended, and the last held-out figures.

    Raises:
        UserError: a setting, the data or the weights cannot be used; memory does not suffice; no
            gradient is finite.
        KeyboardInterrupt: after an interrupt, once the running step is done and saved.
    """
    with memory_advice(settings):
        accelerator, settings = start(settings, out)
        with owned(out) if accelerator.is_main_process else nullcontext():
            return _train(accelerator, settings, out, quiet)


def _train(accelerator: Accelerator, settings: Common, out: Path, quiet: bool) -> dict[str, Any]:
    # ── What is frozen, what is trained ──
    main = accelerator.is_main_process
    console, run = Console(main and not quiet), RunFolder(out)
    trained = prepare(settings, run, accelerator, console)
    if main:
        run.list_bad(trained.bad)
        console.say(trained.told())
    accelerator.wait_for_everyone()

    # ── Where it stopped ──
    step, skipped = restore_checkpoint(out, trained)
    if main:
        run.claim(settings, trained.models)
        run.load_metrics(step)
        if step < settings.max_steps:
            start_trackers(accelerator, step)
    order = Order(trained.samples, settings.seed)
    watch = Watch(settings, run, trained, accelerator, console)
    if step == 0:
        watch.evaluate(0)

    # ── The loop ──
    began, ended, in_a_row = step, None, 0
    bar = console.bar(settings.max_steps, step)
    with until_interrupted() as interrupted:
        while step < settings.max_steps and ended is None:
            started = time.perf_counter()
            did = take_step(settings, step, trained, order, accelerator, interrupted)
            step += 1
            skipped, in_a_row = (skipped, 0) if did.finite else (skipped + 1, in_a_row + 1)
            watch.log(step, did, skipped, started, bar)
            _check_finite(in_a_row)
            if step % settings.evaluate_steps == 0 or step == settings.max_steps:
                watch.evaluate(step)
                reason = why_stop(run.evaluations(), trained, settings.patience) if main else None
                ended = agreed(accelerator, reason)
            last = step == settings.max_steps or ended or did.interrupted
            if step % settings.save_steps == 0 or last:
                state = checkpoint_of(trained, step, skipped)  # of all processes
                if main:
                    trained.write(state.trained, out)
                    save_checkpoint(out, state)
            if did.interrupted:
                bar.close()
                raise KeyboardInterrupt
    bar.close()

    # ── What remains ──
    if step == began:  # nothing was left to do: what lies there may be gone or junk
        tensors = trained.tensors()
        if main:
            trained.write(tensors, out)
    curve = watch.draw_curve()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary(run, step, ended, skipped, trained, curve)


def _check_finite(skipped_in_a_row: int) -> None:
    if skipped_in_a_row >= MOST_SKIPPED:
        raise UserError(
            f"the gradient was not finite in {MOST_SKIPPED} steps in a row: lower "
            "the learning rate, or set dtype=bfloat16 or float32; the checkpoint is intact"
        )
