"""What a training would take, from configurations alone: no weights, no data needed.

The networks are built on the meta device, where a forward pass counts operations and bytes and
computes nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hb_tta.device import default_device, default_dtype
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.reading import read_json
from hb_tta.training import devices
from hb_tta.training.data import columns_of, open_source
from hb_tta.training.devices import on_devices
from hb_tta.training.logged import read_rows
from hb_tta.training.lora import add_lora, lora_layers, lora_parameters
from hb_tta.training.recipes import MEMORY_PRESETS, Settings
from hb_tta.training.run import METRICS
from hb_tta.training.sdxl import SDXL, SDXL_UNET, SDXL_VAE
from hb_tta.training.settings import Common, to_json
from hb_tta.weights import Weights

TEXT_POSITIONS = 77
EFFICIENCY = 0.5  # of a device's speed at large matrix products that a whole training reaches
EVALUATOR_PARAMETERS = 1_173_000_000  # BLIP-2 ViT-g for retrieval: 985 M of them the tower's
EVALUATOR_FLOPS = 1.5e12  # one image, forward and back to the pixels (half of it for no weights)


def estimate(settings: Settings, out: Path | None = None) -> dict[str, Any]:
    """What a training would take, as plain JSON.

    Args:
        settings: of a recipe.
        out: a run's folder; if it holds steps of this training, their speed counts.

    Raises:
        UserError: the generator's sizes cannot be known.
    """
    family = get_family(settings.family)
    if settings.generator:
        family = family.with_roles(generator=settings.generator)
    unet, vae = build(family.weights("generator"))
    dtype = settings.dtype or default_dtype()
    add_lora(
        unet,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        target_modules=settings.target_modules,
    )
    guidance = settings.guidance_scale
    guided = (family.defaults["guidance_scale"] if guidance is None else guidance) > 1
    cost = _cost(settings, unet, vae, guided, dtype)
    return {
        "recipe_settings": to_json(settings),
        "trainable_parameters": sum(p.numel() for p in lora_parameters(unet)),
        "trainable_modules": len(lora_layers(unet)),
        "frozen_parameters": sum(p.numel() for p in unet.parameters() if not p.requires_grad),
        **over_all(settings, cost, settings.samples or _source_size(settings), out),
    }


def over_all(
    settings: Common, cost: dict[str, Any], rows: int | None, out: Path | None
) -> dict[str, Any]:
    """What the work of a sample comes to in a whole training, here and on other devices.

    Args:
        cost: "tflop_per_sample", "memory_gib", "memory_gib_by_preset" and "dtype".
        rows: of the data, if they are known.
        out: a run's folder, whose steps' speed counts.
    """
    seconds, basis = _seconds_per_sample(cost["tflop_per_sample"], out)
    steps = settings.max_steps
    images = steps * settings.batch_size
    half = cost["memory_gib"] * (0.5 if cost["dtype"] == "float32" else 1.0)
    elsewhere = on_devices(cost["tflop_per_sample"], images, half, EFFICIENCY)
    return {
        "samples": rows,
        "steps": steps,
        "samples_per_step": settings.batch_size,
        "images": images,
        "epochs": None if not rows else round(images / rows, 2),
        **cost,
        "seconds_per_sample": seconds,
        "hours_on_one_device": round(images * seconds / 3600, 2),
        "speed_basis": basis,
        "memory_here_gib": round(memory_here(), 1),
        "devices": elsewhere,
    }


def build(weights: Weights) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """A generator's UNet and VAE without weights.

    Raises:
        UserError: its configurations are not on this machine.
    """
    configs: list[dict[str, Any]] | None = None
    if weights.is_folder():
        folder = Path(weights.local_folder())
        configs = [read_json(folder / part / "config.json") for part in ("unet", "vae")]
    elif weights.location == SDXL:
        configs = [SDXL_UNET, SDXL_VAE]
    if configs is None:
        raise UserError(
            f"the sizes of {weights.location!r} are not known here: run `hb-tta download "
            f"{weights.location}` and name its folder"
        )
    with init_empty_weights(include_buffers=True):
        unet = UNet2DConditionModel.from_config(configs[0])
        vae = AutoencoderKL.from_config(configs[1])
    return unet.requires_grad_(False).eval(), vae.requires_grad_(False).eval()


def _source_size(settings: Settings) -> int | None:
    if settings.data is None or "pocket" in settings.data.split("+"):
        return None
    if not Path(settings.data).expanduser().exists():
        return None  # of the hub, which need not be at hand
    source = open_source(
        settings.data, settings.data_format, needs=False, columns=columns_of(settings)
    )
    return None if source is None else source.size()


# ── Operations and bytes ────────────────────────────────────────────────────────────────────────


def _cost(settings: Settings, unet: Any, vae: Any, guided: bool, dtype: str) -> dict[str, Any]:
    rows = (2 if guided else 1) * settings.micro_batch_size
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    side = settings.image_size // scale if settings.image_size else unet.config.sample_size
    step = count_work(unet, side, lambda: unet_call(unet, rows, side))
    picture = count_work(vae, side, lambda: _vae_call(vae, settings.micro_batch_size, side))
    total, carried = settings.num_inference_steps, settings.gradient_steps
    recomputed = {"none": 0, "block": 1, "step+block": 2}[settings.memory]
    decode_recomputed = 0 if settings.memory == "none" else 1
    # Back to the inputs alone a backward pass costs a forward's, the LoRA's share being small.
    tflop = (total + carried * (1.11 + recomputed)) * step["flops"]
    tflop += (2.05 + decode_recomputed) * picture["flops"]
    tflop /= settings.micro_batch_size
    bytes_per_number = 4 if dtype == "float32" else 2
    resident = bytes_per_number * sum(p.numel() for m in (unet, vae) for p in m.parameters())
    lora = 16 * sum(p.numel() for p in lora_parameters(unet))
    evaluator = _evaluator_bytes(settings, bytes_per_number)
    scaling = bytes_per_number / 4  # counted in float32
    peaks = {
        preset: resident + lora + evaluator + scaling * _activations(preset, carried, step, picture)
        for preset in MEMORY_PRESETS
    }
    return {
        "tflop_per_sample": round((tflop + _evaluator_flops(settings)) / 1e12, 4),
        "memory_gib": round(peaks[settings.memory] / 2**30, 2),
        "memory_gib_by_preset": {name: round(peak / 2**30, 2) for name, peak in peaks.items()},
        "dtype": dtype,
    }


def _activations(
    preset: str, carried: int, step: dict[str, float], picture: dict[str, float]
) -> float:
    """Bytes kept for the backward pass at its worst moment."""
    if preset == "none":
        return carried * step["saved"] + picture["saved"]
    one_block = max(step["largest"], 3 * picture["largest"])  # the decoder's have three ResNets
    kept = step["boundaries"] * (carried if preset == "block" else 1)
    return kept + picture["boundaries"] + one_block


def _evaluator_bytes(settings: Settings, bytes_per_number: int) -> float:
    weights = _evaluator_folder(settings)
    if weights is None:
        return bytes_per_number * EVALUATOR_PARAMETERS
    return 4 / 2 * sum(f.stat().st_size for f in weights.glob("*.safetensors"))


def _evaluator_flops(settings: Settings) -> float:
    return EVALUATOR_FLOPS if _evaluator_folder(settings) is None else 0.0


def _evaluator_folder(settings: Settings) -> Path | None:
    weights = get_family(settings.family).weights("evaluator")
    named = Weights(settings.evaluator) if settings.evaluator else weights
    return Path(named.local_folder()) if named.is_folder() else None


def unet_call(unet: Any, rows: int, side: int, positions: int = TEXT_POSITIONS) -> Any:
    """A forward pass on the meta device, with so many text positions."""
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    meta = torch.device("meta")
    return unet(
        torch.zeros(rows, config.in_channels, side, side, device=meta),
        torch.zeros((), device=meta),
        encoder_hidden_states=torch.zeros(rows, positions, config.cross_attention_dim, device=meta),
        added_cond_kwargs={
            "text_embeds": torch.zeros(rows, pooled, device=meta),
            "time_ids": torch.zeros(rows, 6, device=meta),
        },
    ).sample


def _vae_call(vae: Any, rows: int, side: int) -> Any:
    latents = torch.zeros(rows, vae.config.latent_channels, side, side, device="meta")
    return vae.decode(latents.requires_grad_(True)).sample


def count_work(
    model: nn.Module, side: int, call: Any, positions: int = TEXT_POSITIONS
) -> dict[str, float]:
    """Operations of a forward pass, and bytes that its backward pass would need."""
    weights = {id(p) for p in model.parameters()}
    keys = {positions} | {side**2 >> 2 * level for level in range(4)}
    saved: dict[int, Any] = {}
    boundaries: list[int] = []
    marks: list[float] = [0.0]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # The meta device writes attention out; the fused kernels of real ones keep no scores.
        is_scores = tensor.ndim >= 3 and tensor.shape[-1] in keys and tensor.shape[-2] > 64
        if id(tensor) not in weights and not is_scores:
            saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    def block_ends(module: nn.Module, given: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        boundaries.append(first.numel() * 4)
        marks.append(_bytes(saved))

    names = {"BasicTransformerBlock", "ResnetBlock2D"}
    blocks = [m for m in model.modules() if type(m).__name__ in names]
    hooks = [block.register_forward_hook(block_ends) for block in blocks]
    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    for hook in hooks:
        hook.remove()
    steps = [b - a for a, b in zip(marks, marks[1:], strict=False)]
    return {
        "flops": counter.get_total_flops(),
        "saved": _bytes(saved),
        "boundaries": sum(boundaries),
        "largest": max(steps, default=0.0),
    }


def _bytes(saved: dict[int, Any]) -> float:
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


# ── Speed ───────────────────────────────────────────────────────────────────────────────────────


def _seconds_per_sample(tflop: float, out: Path | None) -> tuple[float, str]:
    """As the run in ``out`` measured it, or by this device's speed at matrix products."""
    if out is not None:
        rows, _ = read_rows(out / METRICS)
        rates = [row["images_per_second"] for row in rows if "images_per_second" in row]
        if rates:
            return round(1 / statistics.median(rates), 4), f"{len(rates)} steps in {out}"
    speed = matrix_speed()
    text = f"{EFFICIENCY:.0%} of this device's {speed / 1e12:.3g} TFLOP/s at matrix products"
    return round(tflop * 1e12 / (speed * EFFICIENCY), 4), text


def memory_here() -> float:
    """GiB that this machine's device has."""
    if default_device().startswith("cuda"):
        return torch.cuda.get_device_properties(0).total_memory / 2**30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def matrix_speed() -> float:
    """FLOP a second of this device's large matrix products, measured in a moment."""
    device = default_device()
    on_cpu = not device.startswith("cuda")
    side, dtype = (768, torch.float32) if on_cpu else (8192, torch.bfloat16)
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def table(found: dict[str, Any]) -> str:
    """The figures for a person."""
    settings = found["recipe_settings"]
    presets = ", ".join(f"{k} {v:g}" for k, v in found["memory_gib_by_preset"].items())
    rows = {
        "trainable": f"{found['trainable_parameters']:,} parameters in "
        f"{found['trainable_modules']} layers, beside {found['frozen_parameters']:,} frozen",
        "data": f"{settings['data'] or 'none named: --data PATH'}, "
        f"{found['samples'] if found['samples'] else 'an unknown number of'} rows",
        "steps": f"{found['steps']:,} of {found['samples_per_step']} samples: "
        f"{found['images']:,} images"
        + ("" if found["epochs"] is None else f", {found['epochs']:g} epochs"),
        "memory": f"about {found['memory_gib']:g} GiB on a device like this, "
        f"in {found['dtype']} (by preset: {presets})",
        "work": f"{found['tflop_per_sample']:g} TFLOP a sample",
    }
    lines = [f"{name:10} {text}" for name, text in rows.items()]
    here = {
        "device": "this machine",
        "seconds_per_sample": found["seconds_per_sample"],
        "hours": found["hours_on_one_device"],
        "fits": found["memory_gib"] <= found["memory_here_gib"],
        "memory_gib": found["memory_here_gib"],
    }
    lines += ["", devices.table(found["devices"], here), ""]
    told = {row["device"]: row["basis"] for row in found["devices"]}
    told["this machine"] = found["speed_basis"]
    lines += [f"speed of {name}: {basis}" for name, basis in told.items()]
    lines += [
        f"A whole training is taken to reach {EFFICIENCY:.0%} of what large products do; several "
        "devices share the work. The named GPUs are reckoned in bfloat16: half the memory."
    ]
    lines += ["", "settings (--set KEY=VALUE):"]
    lines += [f"  {key} = {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join(lines)
