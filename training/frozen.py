"""What a training never changes: the models, and what they say of the data, once."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from hb_tta.describe import DescriberSpec
from hb_tta.errors import UserError
from hb_tta.families import Family, get_family
from hb_tta.generators.hummingbird import HummingbirdGenerator, HummingbirdSpec
from hb_tta.generators.solvers import samples_by_ddim
from hb_tta.rewards import Judge, get_reward, load_rewards
from hb_tta.store import content_key
from hb_tta.training.data import Source, columns_of, described_by, open_source
from hb_tta.training.fitting import check_generator
from hb_tta.training.prepare import Prepared, Share, describe_all, description_key, encode_all
from hb_tta.training.progress import Console
from hb_tta.training.recipes import Settings
from hb_tta.training.run import CACHE, RunFolder
from hb_tta.weights import Weights


@dataclass(frozen=True)
class Frozen:
    """What the steps work with.

    Attributes:
        generator: without its encoders, which have had their say.
        judges: whose rewards are followed, on the device.
        watching: these and the held-out judge.
        prepared: the samples, as the encoders and the judges see them.
        source: where their pictures are.
        models: fingerprints of what the run trains on and with.
    """

    generator: HummingbirdGenerator
    judges: list[Judge]
    watching: list[Judge]
    prepared: Prepared
    source: Source
    models: dict[str, Any]


def freeze(
    settings: Settings, run: RunFolder, accelerator: Accelerator, console: Console
) -> Frozen:
    """Loads the models, and has the data described and encoded where the cache lacks it.

    Raises:
        UserError: the data or the weights cannot be used, or the folder holds another run.
    """
    family = family_of(settings)
    check_generator(settings, family.weights("generator"))
    source = open_source(settings.data, settings.data_format, columns=columns_of(settings))
    assert source is not None
    source = described_by(source, settings.prompt)
    models = _fingerprints(settings, family, source)
    if accelerator.is_main_process:
        run.check_settings(settings, models)
    described = _describe(settings, family, source, run, accelerator, console)
    generator = load_generator(settings, family, accelerator.device)
    watching = _judges(settings, family, accelerator.device)
    prepared = _encode(
        settings, family, source, described, generator, watching, accelerator, console
    )
    _drop_encoders(generator)
    followed = [judge for judge in watching if set(judge.names) & set(followed_names(settings))]
    return Frozen(generator, followed, watching, prepared, source, models)


def family_of(settings: Settings) -> Family:
    """The family with the roles that the settings fill otherwise."""
    named = {role: getattr(settings, role) for role in ("generator", "evaluator", "mllm")}
    return get_family(settings.family).with_roles(
        **{role: place for role, place in named.items() if place is not None}
    )


def load_generator(settings: Settings, family: Family, device: torch.device) -> Any:
    """The untuned generator, with nothing to learn."""
    spec = HummingbirdSpec.from_family(
        family,
        lora=None,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        dtype=settings.dtype,
        solver="ddim",  # the gradient goes through its steps
    )
    generator = spec.load(str(device))
    if not samples_by_ddim(generator.pipe.scheduler):
        raise UserError(
            f"generator={spec.base.location!r} was made for "
            f"{type(generator.pipe.scheduler).__name__}, and training goes through DDIM's steps: "
            "name a base of the kind that DDPM trains"
        )
    for model in (generator.pipe.unet, generator.pipe.vae):
        model.requires_grad_(False).eval()
    generator.pipe.vae.disable_slicing()  # the decoder sees one micro-batch at a time
    _upcast(generator.pipe.vae)
    return generator


def _upcast(vae: Any) -> None:
    """SDXL's VAE overflows in float16; the stock pipeline decodes with it in float32 then."""
    if vae.dtype == torch.float16 and vae.config.force_upcast:
        vae.to(torch.float32)


def followed_names(settings: Settings) -> list[str]:
    """The rewards that are followed; of the control, the paper's two are watched."""
    if settings.objective == "rewards":
        return list(settings.rewards)
    return ["global", "fine_grained"]


def reward_names(settings: Settings) -> list[str]:
    """Those that are followed, then the held-out judge's."""
    return followed_names(settings) + ([] if settings.judge is None else [settings.judge])


def _judges(settings: Settings, family: Family, device: torch.device) -> list[Judge]:
    weights = {name: Weights(place) for name, place in settings.reward_weights.items()}
    dtype = getattr(torch, settings.dtype or "float32")
    loaded = load_rewards(reward_names(settings), family, weights=weights, dtype=dtype)
    return [judge.to(device) for judge in loaded]


def _fingerprints(settings: Settings, family: Family, source: Source) -> dict[str, Any]:
    """What the settings name, by content: a run goes on wherever its models and data lie."""
    return {
        "generator": family.weights("generator").fingerprint(),
        "rewards": _reward_weights(settings, family),
        "data": content_key({"data": source.fingerprint()}),
    }


def _reward_weights(settings: Settings, family: Family) -> dict[str, str]:
    """Reward → the fingerprint of its weights."""
    named = {name: Weights(place) for name, place in settings.reward_weights.items()}
    return {
        name: (named.get(name) or get_reward(name).default_weights(family)).fingerprint()
        for name in reward_names(settings)
    }


def _describe(
    settings: Settings,
    family: Family,
    source: Source,
    run: RunFolder,
    accelerator: Accelerator,
    console: Console,
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
        source, _rows(settings, source), folder, describer, share=_share(accelerator),
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
    judges: Sequence[Judge],
    accelerator: Accelerator,
    console: Console,
) -> Prepared:
    """Embeddings of all samples, made where the cache lacks them."""
    parts = {
        "descriptions": described.name,
        "generator": generator.spec.to_json(),
        "rewards": _reward_weights(settings, family),
        "latents": settings.objective == "denoising",
    }
    folder, rows = described.parent / content_key(parts)[:32], _rows(settings, source)
    encode_all(
        source, rows, described, folder, generator, judges,
        with_latents=settings.objective == "denoising", share=_share(accelerator),
        progress=console.rows,
    )  # fmt: skip
    accelerator.wait_for_everyone()
    return Prepared(described, folder, rows, settings.held_out)


def _share(accelerator: Accelerator) -> Share:
    return Share(accelerator.process_index, accelerator.num_processes)


def _rows(settings: Settings, source: Source) -> int | None:
    """How many rows of the source count; ``None``: all, and only reading tells."""
    return source.size() if settings.samples is None else settings.samples


def _drop_encoders(generator: HummingbirdGenerator) -> None:
    """What they say is on disk: their memory is the sampler's."""
    for part in ("text_encoder", "text_encoder_2", "image_encoder"):
        setattr(generator.pipe, part, None)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
