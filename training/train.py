"""``hb-tta train``: rewards through the sampler into a LoRA. Reads from top to bottom.

Hummingbird (Le et al., ICLR 2025), algorithm 1. One process a GPU; ``accelerate launch -m
hb_tta.cli train …`` starts several, on one machine or many. Gradients are averaged over all
samples of a step by one all-reduce of one flat vector, so a run is the same, up to rounding, on any
number of processes that divides its batch.
"""

from __future__ import annotations

import gc
import math
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available
from hb_tta.training.data import Source, open_source
from hb_tta.training.export import Lora, write_lora
from hb_tta.training.lora import add_lora, lora_parameters, lora_tensors
from hb_tta.training.objectives import DenoisingObjective, Key, Objective, RewardObjective
from hb_tta.training.prepare import (
    Order,
    Prepared,
    Share,
    describe_all,
    description_key,
    encode_all,
)
from hb_tta.training.recipes import MEMORY_PRESETS, Settings, to_json
from hb_tta.training.rollout import Rollout, last_steps
from hb_tta.training.run import CACHE, Run
from hb_tta.training.watch import evaluate, write_curve, write_grid
from tqdm import tqdm

from hb_tta.describe import DescriberSpec
from hb_tta.device import default_dtype
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.families import Family, get_family
from hb_tta.generators.hummingbird import HummingbirdGenerator, HummingbirdSpec
from hb_tta.rewards import Reward, get_reward, load_rewards
from hb_tta.store import content_key
from hb_tta.weights import Weights

MOST_SKIPPED = 10  # steps in a row without a finite gradient


def train(settings: Settings, out: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Trains a LoRA, or goes on with the training that a folder holds.

    Args:
        settings: of a recipe.
        out: the run's folder, see ``Run``.
        quiet: no progress on the terminal.

    Returns:
        The last step, why it ended, and the last held-out figures.

    Raises:
        UserError: a setting, the data or the weights cannot be used; memory does not suffice; no
            gradient is finite.
        KeyboardInterrupt: after an interrupt, once the running step is done and saved.
    """
    with _memory_advice(settings):
        return _train(settings, out, quiet)


def _train(settings: Settings, out: Path, quiet: bool) -> dict[str, Any]:
    # ── Who runs ──
    trackers = _trackers(settings)
    accelerator = Accelerator(log_with=list(trackers) or None, project_dir=str(out))
    settings = _completed(settings, accelerator)
    _check_batch(settings, accelerator.num_processes)
    main, device = accelerator.is_main_process, accelerator.device
    console = _Console(main and not quiet)
    run = Run(out)

    # ── What is frozen: models, and what they say of the data, once ──
    family = family_of(settings)
    source = open_source(settings.data, settings.data_format)
    assert source is not None
    if main:
        run.check_settings(settings, _fingerprints(settings, family, source))
    texts = _describe(settings, family, source, run, accelerator, console)
    generator = _generator(settings, family, device)
    rewards = _rewards(settings, family, device)
    prepared = _encode(settings, family, source, texts, generator, rewards, accelerator, console)
    _drop_encoders(generator)
    if main:
        run.list_bad(prepared.bad)
        console.say(_told(prepared))
    accelerator.wait_for_everyone()

    # ── What is trained ──
    pipe = generator.pipe
    add_lora(
        pipe.unet,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        target_modules=settings.target_modules,
        dropout=settings.lora_dropout,
        seed=settings.seed,
    )
    rollout = Rollout(
        pipe.unet, pipe.vae, pipe.scheduler, settings.num_inference_steps,
        generator.spec.guidance_scale, _gradient_steps(settings, 0),
        settings.gradient_at == "anywhere", settings.max_sample_gradient, settings.memory,
        settings.image_size,
    )  # fmt: skip
    objective = _objective(settings, rollout, rewards)
    parameters = lora_parameters(pipe.unet)
    optimizer = _optimizer(settings, parameters)

    # ── Where it stopped ──
    step, skipped = run.restore(pipe.unet, optimizer)
    if main:
        run.load_metrics(step)
        if step < settings.max_steps:
            purge = {"tensorboard": {"purge_step": step + 1}}
            accelerator.init_trackers("tensorboard", init_kwargs=purge)
    order = Order(len(prepared.training), settings.seed)
    share = settings.batch_size // accelerator.num_processes
    first_of_mine = accelerator.process_index * share
    stopped_by, skipped_in_a_row = None, 0

    def watch(step: int) -> None:
        held = evaluate(
            rollout, rewards, prepared, accelerator,
            seeds=settings.evaluate_seeds, rows=settings.sample_contexts,
            batch_size=4 * settings.micro_batch_size, seed=settings.seed,
        )  # fmt: skip
        if not main:
            return
        row = {"step": step, "held_out": held.rewards, "diversity": held.diversity}
        best = _is_best(row, run.evaluations(), settings)
        run.log(row)
        accelerator.log({f"held_out/{n}": v for n, v in held.rewards.items()}, step=step)
        accelerator.log({"held_out/diversity": held.diversity}, step=step)
        shown = prepared.held_out[:: accelerator.num_processes]
        write_grid(out / "samples" / f"step_{step:06d}.png", held.pictures, shown, f"step {step}")
        if best and step:
            write_lora(_lora(settings, pipe.unet), out / "best", "peft")
        console.say(
            f"step {step}: held-out {_figures(held.rewards | {'diversity': held.diversity})}"
        )

    if step == 0:
        watch(0)

    # ── The loop ──
    bar = console.bar(settings.max_steps, step)
    with _until_interrupted() as interrupted:
        while step < settings.max_steps and stopped_by is None:
            started = time.perf_counter()
            carried = _gradient_steps(settings, step)
            optimizer.zero_grad(set_to_none=True)
            sums: dict[str, float] = {}
            for first in range(0, share, settings.micro_batch_size):
                places = range(first, min(share, first + settings.micro_batch_size))
                keys = [order(step * settings.batch_size + first_of_mine + p) for p in places]
                losses, figures = _forward(settings, objective, prepared, keys, carried, device)
                losses.sum().backward()
                for name, values in {"loss": losses.detach(), **figures}.items():
                    sums[name] = sums.get(name, 0.0) + float(values.double().sum())
            means, interrupt = _all_reduce(
                accelerator, parameters, sums, bool(interrupted), settings.batch_size
            )
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(settings, step)
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_gradient_norm))
            finite = math.isfinite(norm) and math.isfinite(means["loss"])
            if finite:  # the same on all processes: all have the reduced gradient
                optimizer.step()
                skipped_in_a_row = 0
            else:
                skipped, skipped_in_a_row = skipped + 1, skipped_in_a_row + 1
            step += 1

            if main:
                seconds = time.perf_counter() - started
                row = {
                    "step": step, **(means if finite else {}),
                    "gradient_norm": norm if finite else None,
                    "gradient_steps": len(carried), "skipped": skipped,
                    "seconds": round(seconds, 4),
                    "images_per_second": round(settings.batch_size / seconds, 4),
                    "memory_gib": round(_peak_gib(device), 3),
                }  # fmt: skip
                run.log(row)
                accelerator.log(
                    {f"train/{n}": v for n, v in row.items() if v is not None and n != "step"},
                    step=step,
                )
                bar.update(row)
            if skipped_in_a_row >= MOST_SKIPPED:
                raise UserError(
                    f"the gradient was not finite in {MOST_SKIPPED} steps in a row: lower "
                    "learning_rate, or set dtype=bfloat16 or float32; the checkpoint is intact"
                )
            last = step == settings.max_steps or interrupt
            if step % settings.evaluate_steps == 0 or step == settings.max_steps:
                watch(step)
                stopped_by = _why_stop(run.evaluations(), settings) if main else None
                stopped_by = _agreed(accelerator, stopped_by)
            if main and (step % settings.save_steps == 0 or last or stopped_by):
                write_lora(_lora(settings, pipe.unet), out, "peft")
                run.save(pipe.unet, optimizer, step, skipped)
            if interrupt:
                bar.close()
                raise KeyboardInterrupt
    bar.close()

    # ── What remains ──
    if main:
        names = (
            list(settings.rewards)
            if settings.objective == "rewards"
            else ["global", "fine_grained"]
        )
        if not write_curve(out / "convergence.png", run.metrics, names):
            console.say("no convergence.png: pip install 'hb-tta[train]' for matplotlib")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    evaluations = run.evaluations()
    return {
        "step": step,
        "ended": stopped_by or "max_steps",
        "skipped": skipped,
        "bad_records": len(prepared.bad),
        "first": evaluations[0] if evaluations else None,
        "last": evaluations[-1] if evaluations else None,
        "out": str(out),
    }


# ── Settings and models ─────────────────────────────────────────────────────────────────────────


def family_of(settings: Settings) -> Family:
    """The family with the roles that the settings fill otherwise."""
    named = {role: getattr(settings, role) for role in ("generator", "evaluator", "mllm")}
    return get_family(settings.family).with_roles(
        **{role: place for role, place in named.items() if place is not None}
    )


def _completed(settings: Settings, accelerator: Accelerator) -> Settings:
    """Settings with what depends on the family and the device filled in."""
    family = get_family(settings.family)
    guidance = settings.guidance_scale
    return replace(
        settings,
        dtype=settings.dtype or default_dtype(accelerator.device.type),
        guidance_scale=family.defaults["guidance_scale"] if guidance is None else guidance,
    )


def _check_batch(settings: Settings, processes: int) -> None:
    if settings.batch_size % processes:
        raise UserError(
            f"batch_size={settings.batch_size} cannot be shared by {processes} processes: use a "
            "multiple of their number"
        )


def _trackers(settings: Settings) -> tuple[str, ...]:
    if "tensorboard" in settings.trackers and not is_tensorboard_available():
        warnings.warn(
            "no TensorBoard: pip install 'hb-tta[train]' for it", HbTtaWarning, stacklevel=2
        )
        return tuple(name for name in settings.trackers if name != "tensorboard")
    return settings.trackers


def _generator(settings: Settings, family: Family, device: torch.device) -> HummingbirdGenerator:
    spec = HummingbirdSpec.from_family(
        family,
        lora=None,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        dtype=settings.dtype,
    )
    generator = spec.load(str(device))
    for model in (generator.pipe.unet, generator.pipe.vae):
        model.requires_grad_(False).eval()
    generator.pipe.vae.disable_slicing()  # the decoder sees one micro-batch at a time
    return generator


def _reward_names(settings: Settings) -> list[str]:
    """Of the control, the paper's two are watched."""
    if settings.objective == "rewards":
        return list(settings.rewards)
    return ["global", "fine_grained"]


def _rewards(settings: Settings, family: Family, device: torch.device) -> list[Reward]:
    weights = {name: Weights(place) for name, place in settings.reward_weights.items()}
    dtype = getattr(torch, settings.dtype or "float32")
    loaded = load_rewards(_reward_names(settings), family, weights=weights, dtype=dtype)
    return [reward.to(device) for reward in loaded]


def _fingerprints(settings: Settings, family: Family, source: Source) -> dict[str, Any]:
    """What the settings name, by content: a run goes on wherever its models and data lie."""
    return {
        "generator": family.weights("generator").fingerprint(),
        "rewards": {n: _reward_weights(settings, family, n) for n in _reward_names(settings)},
        "data": content_key({"data": source.fingerprint()}),
    }


def _describe(
    settings: Settings,
    family: Family,
    source: Source,
    run: Run,
    accelerator: Accelerator,
    console: _Console,
) -> Path:
    """Descriptions of all samples, made where the cache lacks them, by an MLLM that then goes.

    Returns:
        Their folder, whose name is their key.
    """
    describer = DescriberSpec(
        family.weights("mllm"),
        max_new_tokens=settings.max_new_tokens,
        dtype=settings.dtype or "float32",
    )
    cache = Path(settings.cache) if settings.cache else run.folder / CACHE
    folder = cache / description_key(source, describer)[:32]
    describe_all(
        source, _rows(settings, source), folder, describer,
        share=Share(accelerator.process_index, accelerator.num_processes),
        device=str(accelerator.device), progress=console.rows,
    )  # fmt: skip
    accelerator.wait_for_everyone()
    return folder


def _encode(
    settings: Settings,
    family: Family,
    source: Source,
    described: Path,
    generator: HummingbirdGenerator,
    rewards: Sequence[Reward],
    accelerator: Accelerator,
    console: _Console,
) -> Prepared:
    """Embeddings of all samples, made where the cache lacks them."""
    parts = {
        "descriptions": described.name,
        "generator": generator.spec.to_json(),
        "rewards": {n: _reward_weights(settings, family, n) for n in _reward_names(settings)},
        "latents": settings.objective == "denoising",
    }
    folder, rows = described.parent / content_key(parts)[:32], _rows(settings, source)
    encode_all(
        source, rows, described, folder, generator, rewards,
        with_latents=settings.objective == "denoising",
        share=Share(accelerator.process_index, accelerator.num_processes), progress=console.rows,
    )  # fmt: skip
    accelerator.wait_for_everyone()
    return Prepared(described, folder, rows, settings.held_out)


def _rows(settings: Settings, source: Source) -> int | None:
    """How many rows of the source count; ``None``: all, and only reading tells."""
    return source.size() if settings.samples is None else settings.samples


def _reward_weights(settings: Settings, family: Family, name: str) -> str:
    named = settings.reward_weights.get(name)
    weights = Weights(named) if named else get_reward(name).default_weights(family)
    return weights.fingerprint()


def _drop_encoders(generator: HummingbirdGenerator) -> None:
    """What they say is on disk: their memory is the sampler's."""
    for part in ("text_encoder", "text_encoder_2", "image_encoder"):
        setattr(generator.pipe, part, None)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _objective(settings: Settings, rollout: Rollout, rewards: Sequence[Reward]) -> Objective:
    if settings.objective == "denoising":
        return DenoisingObjective(rollout, settings.seed)
    return RewardObjective(
        rollout, rewards, settings.rewards, settings.loss_scale, settings.seed,
        settings.drift_weight,
    )  # fmt: skip


def _optimizer(settings: Settings, parameters: list[Any]) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate)
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(0.9, settings.beta_2),
        weight_decay=settings.weight_decay,
    )


def _lora(settings: Settings, unet: Any) -> Lora:
    return Lora(lora_tensors(unet), settings.lora_alpha, settings.target_modules)


# ── A step ──────────────────────────────────────────────────────────────────────────────────────


def _gradient_steps(settings: Settings, step: int) -> list[int]:
    """The sampling steps with gradient, the same for all samples of an optimizer step."""
    draw = np.random.default_rng([settings.seed, step, 7])
    total, carried = settings.num_inference_steps, settings.gradient_steps
    if settings.random_gradient_steps:
        carried = int(draw.integers(1, min(total, 2 * carried - 1) + 1))
    if settings.gradient_at == "end":
        return [*last_steps(carried, total)]
    edges = np.linspace(0, total, carried + 1).round().astype(int)  # one in each of K parts
    return [int(draw.integers(low, high)) for low, high in pairwise(edges)]


def _learning_rate(settings: Settings, step: int) -> float:
    """Of the step after ``step`` others."""
    rising = min(1, (step + 1) / (settings.warmup_steps + 1))
    falling = 1 if settings.decay_steps is None else 1 - step / settings.decay_steps
    return settings.learning_rate * min(rising, falling)


def _forward(
    settings: Settings,
    objective: Objective,
    prepared: Prepared,
    keys: list[Key],
    gradient_steps: Sequence[int],
    device: torch.device,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Losses of one micro-batch."""
    if settings.lora_dropout:  # its masks, too, survive an interruption
        epoch, index = keys[0]
        torch.manual_seed(
            int(np.random.SeedSequence([settings.seed, epoch, index, 3]).generate_state(1)[0])
        )
    batch = prepared.batch([prepared.training[index] for _, index in keys], device)
    return objective(batch, keys, gradient_steps)


def _all_reduce(
    accelerator: Accelerator,
    parameters: list[Any],
    sums: dict[str, float],
    interrupted: bool,
    samples: int,
) -> tuple[dict[str, float], bool]:
    """Means over all samples of gradients and figures, and whether a process wishes to stop.

    Gradients and figures come as sums over a process's samples, and travel in one flat vector.
    """
    names = sorted(sums)
    extra = torch.tensor([*(sums[name] for name in names), float(interrupted)])
    pieces = [
        (torch.zeros_like(p) if p.grad is None else p.grad / samples).flatten().float()
        for p in parameters
    ]
    flat = accelerator.reduce(torch.cat([*pieces, extra.to(pieces[0])]), "sum")
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.grad = flat[start:stop].view_as(parameter)
        start = stop
    *figures, stops = flat[start:].tolist()
    return {name: value / samples for name, value in zip(names, figures, strict=True)}, stops > 0


def _agreed(accelerator: Accelerator, reason: str | None) -> str | None:
    """The main process's reason, on all."""
    if accelerator.num_processes == 1:
        return reason
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([reason])[0]


# ── When to stop ────────────────────────────────────────────────────────────────────────────────


def total_reward(figures: dict[str, float], settings: Settings) -> float:
    """Σ λ·reward of held-out figures; of the control, that of the paper's two as they stand."""
    weights = settings.rewards if settings.objective == "rewards" else {}
    return sum(weights.get(name, 0.0) * value for name, value in figures.items())


def _is_best(row: dict[str, Any], before: list[dict[str, Any]], settings: Settings) -> bool:
    reward = total_reward(row["held_out"], settings)
    return all(reward > total_reward(old["held_out"], settings) for old in before)


def _why_stop(rows: list[dict[str, Any]], settings: Settings) -> str | None:
    """Diversity lost, or no better held-out reward for ``patience`` evaluations."""
    first, last = rows[0], rows[-1]
    if (
        settings.evaluate_seeds > 1
        and last["diversity"] < settings.min_diversity * first["diversity"]
    ):
        return (
            f"diversity fell to {last['diversity'] / first['diversity']:.0%} of the untuned "
            f"generator's (min_diversity={settings.min_diversity:g})"
        )
    totals = [total_reward(row["held_out"], settings) for row in rows]
    if (
        settings.patience is not None
        and len(totals) - 1 - int(np.argmax(totals)) >= settings.patience
    ):
        return f"no better held-out reward in {settings.patience} evaluations (patience)"
    return None


@dataclass
class _Flag:
    """Set by a signal."""

    raised: bool = False

    def __bool__(self) -> bool:
        return self.raised


@contextmanager
def _until_interrupted() -> Iterator[_Flag]:
    """An interrupt lets the running step end; a second one does not wait."""
    flag = _Flag()

    def note(number: int, frame: Any) -> None:
        if flag.raised:
            raise KeyboardInterrupt
        flag.raised = True

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: there is nobody to interrupt
        old = {}
    try:
        yield flag
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _memory_advice(settings: Settings) -> Iterator[None]:
    """Turns "out of memory" into what to try."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not (
            "allocate memory" in str(error) or "out of memory" in str(error)
        ):
            raise
        stronger = MEMORY_PRESETS[MEMORY_PRESETS.index(settings.memory) + 1 :]
        if settings.micro_batch_size > 1:
            advice = f"--set micro_batch_size={settings.micro_batch_size // 2}"
        elif stronger:
            advice = f"--set memory={stronger[0]}"
        else:
            advice = "a smaller gradient_steps or image_size in a new --out"
        raise UserError(
            f"memory does not suffice with memory={settings.memory}, "
            f"micro_batch_size={settings.micro_batch_size}: try {advice}; the checkpoint is intact"
        ) from error


# ── The terminal ────────────────────────────────────────────────────────────────────────────────


class _Console:
    """Progress for a person."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def say(self, text: str) -> None:
        """A line."""
        if self.on:
            tqdm.write(text)

    def rows(self, what: str, done: int, of: int | None) -> None:
        """How far the data is prepared."""
        if self.on and (done % 512 < 16 or done == of):
            self.say(f"{what}: {done}{f' of {of}' if of else ''} rows")

    def bar(self, steps: int, done: int) -> _Bar:
        """The training's bar."""
        return _Bar(
            tqdm(total=steps, initial=done, disable=not self.on, unit="step", smoothing=0.1)
        )


class _Bar:
    """Step, rewards, images a second, memory; the time left is the bar's own."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def update(self, row: dict[str, Any]) -> None:
        """One step more."""
        hidden = ("step", "loss", "gradient_norm", "gradient_steps", "seconds")
        shown = {n: v for n, v in row.items() if n not in hidden and v is not None}
        if not row["skipped"]:
            shown.pop("skipped")
        self._bar.set_postfix_str(_figures(shown), refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        """The last line stays."""
        self._bar.close()


def _figures(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _told(prepared: Prepared) -> str:
    text = f"{len(prepared.training)} samples, {len(prepared.held_out)} held out"
    if prepared.left_out:
        text += f", {prepared.left_out} left out (images of held-out ones)"
    if prepared.bad:
        text += f", {len(prepared.bad)} bad rows: see bad_records.jsonl"
    return text


def _peak_gib(device: torch.device) -> float:
    """Of the accelerator; without one, of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


__all__ = ["Settings", "family_of", "to_json", "total_reward", "train"]
