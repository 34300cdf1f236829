"""Stage ``unet``: the denoiser, conditioned as SDXL's and as Hummingbird's.

The text goes in through cross-attention. The pooled vector is the text's own (stock SDXL) or the
picture's image embedding (Hummingbird), of which a part comes from worn pictures while a clean one
is drawn; text and pooled vector are dropped independently, so each alone must carry what it can.
Captions come in every form that is written (``hb_tta.pocket.captions.FORMS``), about held-out
combinations too.
"""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from hb_tta.pocket.captions import caption, draw_caption, from_second
from hb_tta.pocket.world import SIZE, Scene
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.preview import judged_drawings
from hb_tta.training.pocket_family.run import RecipeRun, Scenes, training_scenes
from hb_tta.training.pocket_family.text import image_embeds, tokenize
from hb_tta.training.pocket_family.vae import encode
from hb_tta.training.pocket_family.widen import widened

WIDTHS = (96, 192)
STEPS, PREVIEWS = 14_000, 7
FIRST_SHARE = 0.45  # of the training, where it starts from nothing
SCENES = 80_000
CAPTIONS = 4  # of each scene, in drawn forms
BATCH = 64
WORN = 0.25  # of the image embeddings
# Whether things come out right is decided between these times, where the layout is (the signal is
# 0.03 to 1 times the noise); no time is drawn towards the pure noise, where nothing is left to err.
LAYOUT, LAYOUT_SHARE = (250, 820), 0.65


class Mixture(NamedTuple):
    """Shares of a step's samples.

    Attributes:
        full: captions that say everything, in place of one in a drawn form.
        text: given; empty, as for a view of the image alone; zeros.
        pooled: the image embedding; the text's pooled vector; zeros.
        neither: text and pooled vector are both zeros, whatever else was drawn: the negative of
            classifier-free guidance.
    """

    full: float
    text: tuple[float, float, float]
    pooled: tuple[float, float, float]
    neither: float


# All conditions at once are learnt slowly from nothing: at first the text must say everything that
# is to be drawn, so that every sample teaches what its words mean; then it may leave things open.
FIRST = Mixture(full=1.0, text=(1.0, 0.0, 0.0), pooled=(0.0, 0.4, 0.6), neither=0.1)
THEN = Mixture(full=0.0, text=(0.85, 0.1, 0.05), pooled=(0.5, 0.2, 0.3), neither=0.1)


def scheduler() -> DDIMScheduler:
    """Zero terminal SNR, v-prediction, trailing steps (Lin et al. 2024, arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
        prediction_type="v_prediction", rescale_betas_zero_snr=True,
        timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True,
    )  # fmt: skip


def build_unet() -> UNet2DConditionModel:
    """SDXL's UNet at two levels and 9.6 million parameters.

    Widths, heads and the norms' groups are one and a half times those of the earlier (64, 128), so
    that its weights can be carried over (``widen``).
    """
    return UNet2DConditionModel(
        sample_size=8, in_channels=8, out_channels=8, block_out_channels=WIDTHS,
        layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2, attention_head_dim=(3, 6),
        transformer_layers_per_block=1, cross_attention_dim=256, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, time_embedding_dim=256,
        projection_class_embeddings_input_dim=6 * 8 + 128, norm_num_groups=24,
    )  # fmt: skip


def train_unet(run: RecipeRun) -> None:
    """Train the denoiser and save the whole generator pipeline."""
    data, size = _TrainingSet(run), run.batches * BATCH
    torch.manual_seed(run.seed)
    unet = _start(run).to(run.device)
    # In bfloat16 the fused attention's gradient takes a third of a step on a CPU.
    unet.set_attn_processor(AttnProcessor())
    denoiser = _Denoiser(unet)
    network: Any = graphed(denoiser, _like(size, run.device)) if run.device == "cuda" else denoiser
    alphas = scheduler().alphas_cumprod.to(run.device)
    steps_in_all = run.steps(STEPS)

    def loss(draws: Draws, step: int) -> torch.Tensor:
        first = run.start is None and step < FIRST_SHARE * steps_in_all
        latents, text, pooled = data.batch(draws, size, FIRST if first else THEN)
        noise = draws.normal(*latents.shape, device=run.device)
        timesteps = draw_timesteps(draws, len(latents)).to(run.device)
        noisy, target = noised(latents, noise, alphas[timesteps])
        return F.mse_loss(network(noisy, timesteps, text, pooled), target)

    optimize(
        run, "unet", {"unet": unet}, loss, steps=steps_in_all, lr=1e-3, ema=0.999,
        evaluate=lambda: _preview(run, unet), evaluate_every=max(1, steps_in_all // PREVIEWS),
    )  # fmt: skip
    folder = run.weights / "generator"
    build_pipeline(run, unet.eval(), folder / "vae").to(dtype=torch.float16).save_pretrained(folder)


class _Denoiser(nn.Module):
    """The network as a function of tensors alone, in bfloat16.

    (B, 8, 8, 8) noisy latents, (B,) times, (B, 32, 256) text, (B, 128) pooled → (B, 8, 8, 8).
    """

    time_ids: Tensor

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        time_ids = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]], device=unet.device).float()
        self.register_buffer("time_ids", time_ids)

    def forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        added = {"text_embeds": pooled, "time_ids": self.time_ids.expand(len(noisy), -1)}
        # A graph must not hold what a cache of casts may drop.
        with torch.autocast(noisy.device.type, torch.bfloat16, cache_enabled=False):
            return self.unet(noisy, timesteps, text, added_cond_kwargs=added).sample.float()


def graphed(network: nn.Module, sample: tuple[Tensor, ...]) -> Any:
    """A network as a CUDA graph, forwards and backwards, for tensors of a sample's shapes.

    A net this small is waited for by nobody but the processor that launches its thousand kernels.
    """
    return torch.cuda.make_graphed_callables(network, sample, allow_unused_input=True)


def _like(size: int, device: str) -> tuple[Tensor, ...]:
    """What the denoiser is given, as far as a graph asks."""
    like = partial(torch.zeros, device=device)
    times = like(size, dtype=torch.long)
    return like(size, 8, 8, 8), times, like(size, 32, 256), like(size, 128)


def _start(run: RecipeRun) -> UNet2DConditionModel:
    """An untrained denoiser, or an earlier family's, carried over where it is narrower."""
    if not run.start:
        return build_unet()
    folder = run.start / "generator" / "unet"
    earlier = UNet2DConditionModel.from_pretrained(folder, dtype=torch.float32)
    same = tuple(earlier.config.block_out_channels) == WIDTHS
    return earlier if same else widened(earlier, build_unet())


def latest_unet(run: RecipeRun) -> UNet2DConditionModel:
    """The run's finished denoiser, or what it last saved to look at."""
    finished = run.weights / "generator" / "unet"
    folder = finished if finished.exists() else run.work / "unet_preview"
    return UNet2DConditionModel.from_pretrained(folder, dtype=torch.float32).to(run.device).eval()


def draw_timesteps(draws: Draws, number: int) -> torch.Tensor:
    """Stratified times: ``LAYOUT_SHARE`` of them uniform in ``LAYOUT``, the others over all."""
    u = (torch.rand(number, generator=draws.torch) + torch.arange(number)) / number
    low, high = LAYOUT
    within = low + (high - low) * u / LAYOUT_SHARE
    anywhere = 1000 * (u - LAYOUT_SHARE) / (1 - LAYOUT_SHARE)
    return torch.where(u < LAYOUT_SHARE, within, anywhere).long().clamp(max=999)


def noised(latents: Tensor, noise: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy latents, and the velocity to be predicted of them: (B, C, h, w) each.

    Args:
        latents, noise: (B, C, h, w).
        alphas: the scheduler's ``alphas_cumprod`` at each one's time, (B,).
    """
    alpha = alphas.view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    return noisy, alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def _preview(run: RecipeRun, unet: UNet2DConditionModel) -> dict[str, float]:
    """The denoiser as it stands: saved, to look at while the training goes on, and judged."""
    unet.save_pretrained(run.work / "unet_preview")
    # The finished decoder may still be in training; the encoder's own will do.
    return judged_drawings(run, build_pipeline(run, unet, run.work / "vae_encoder"))


def build_pipeline(
    run: RecipeRun, unet: UNet2DConditionModel, vae: Path
) -> StableDiffusionXLPipeline:
    """The stock pipeline of the finished parts, in float32."""
    parts = run.weights / "generator"

    def load(kind: Any, folder: Path) -> Any:
        return kind.from_pretrained(folder, dtype=torch.float32).to(run.device)

    return StableDiffusionXLPipeline(
        vae=load(AutoencoderKL, vae),
        text_encoder=load(CLIPTextModel, parts / "text_encoder"),
        text_encoder_2=load(CLIPTextModelWithProjection, parts / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(parts / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(parts / "tokenizer_2"),
        unet=unet,
        scheduler=scheduler(),
        image_encoder=load(CLIPVisionModelWithProjection, parts / "image_encoder"),
        feature_extractor=CLIPImageProcessor.from_pretrained(parts / "feature_extractor"),
        add_watermarker=False,
    )


class _TrainingSet:
    """Latents and every condition of the training scenes, encoded once by the frozen parts.

    Captions are columns: a full one from either group, then ``CAPTIONS`` in drawn forms.
    """

    def __init__(self, run: RecipeRun):
        self.device = run.device
        scenes = training_scenes(run, SCENES, everything=True)
        vae = AutoencoderKL.from_pretrained(run.work / "vae_encoder", dtype=torch.float32).to(
            run.device
        )
        parts = [slice(i, i + 64) for i in range(0, len(scenes), 64)]
        self.latents = torch.cat([encode(vae, scenes.pixels(part, run.device)) for part in parts])
        self.images = image_embeds(run, scenes).to(run.device)
        self.worn_images = image_embeds(run, scenes, worn=True).to(run.device)
        self.captions, texts = numbered_captions(run, scenes)
        self.hidden, self.pooled = (of.to(run.device) for of in encoded_captions(run, texts))

    def batch(
        self, draws: Draws, size: int, mixture: Mixture
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents (B, 8, 8, 8), text (B, 32, 256), pooled (B, 128), with conditions dropped."""
        drawn = draws.rows(len(self.latents), size)
        full = draws.numpy.random(size) < mixture.full
        column = np.where(
            full,
            draws.numpy.integers(2, size=size),
            2 + draws.numpy.integers(CAPTIONS, size=size),
        )
        how = draws.numpy.choice(3, size, p=mixture.text)
        which = draws.numpy.choice(3, size, p=mixture.pooled)
        neither = draws.numpy.random(size) < mixture.neither
        worn = self._column(draws.numpy.random(size) < WORN)
        captions = self._moved(np.where(how == 0, self.captions[drawn, column], 0))
        said = self._column((how != 2) & ~neither)
        text = self.hidden[captions].float() * said[:, :, None]
        rows = self._moved(drawn)
        images = torch.where(worn, self.worn_images[rows], self.images[rows])
        pooled = torch.where(self._column(which == 0), images, self.pooled[captions])
        pooled = pooled * self._column((which != 2) & ~neither)
        return self.latents[rows], text, pooled

    def _moved(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _column(self, truths: np.ndarray) -> Tensor:
        return self._moved(truths).unsqueeze(1)


def numbered_captions(run: RecipeRun, scenes: Scenes) -> tuple[np.ndarray, list[str]]:
    """Every scene's captions as numbers (N, 2 + CAPTIONS), and the texts that these count."""
    rng = np.random.default_rng([run.seed, 2])
    index: dict[str, int] = {"": 0}
    numbers = [
        [index.setdefault(text, len(index)) for text in _captions(record, rng)]
        for record in scenes.records
    ]
    return np.array(numbers), list(index)


def encoded_captions(run: RecipeRun, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (N, 32, 256), in float16, and pooled vectors (N, 128) of texts.

    They are kept in the run's folder: a resumed training begins at once.
    """
    folder, path = run.weights / "generator", run.work / "captions.safetensors"
    digest = hashlib.sha256("\n".join(texts).encode())
    for part in ("text_encoder", "text_encoder_2"):
        digest.update((folder / part / "model.safetensors").read_bytes())
    key = {"key": digest.hexdigest()}
    if path.exists():
        with safe_open(path, "pt") as file:
            if file.metadata() == key:
                return file.get_tensor("hidden"), file.get_tensor("pooled")
    hidden, pooled = _encode(run, texts)
    aside = path.with_suffix(".aside")
    save_file({"hidden": hidden, "pooled": pooled}, aside, metadata=key)
    os.replace(aside, path)
    return hidden, pooled


@torch.no_grad()
def _encode(run: RecipeRun, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    folder = run.weights / "generator"
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    one = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    two = CLIPTextModelWithProjection.from_pretrained(
        folder / "text_encoder_2", dtype=torch.float32
    )
    one, two = one.to(run.device), two.to(run.device)
    hidden, pooled = [], []
    for start in range(0, len(texts), 256):
        ids = tokenize(tokenizer, texts[start : start + 256], run.device)
        seen = [encoder(ids, output_hidden_states=True) for encoder in (one, two)]
        both = torch.cat([s.hidden_states[-2] for s in seen], -1)
        hidden.append(both.half().cpu())
        pooled.append(seen[1].text_embeds.cpu())
    return torch.cat(hidden), torch.cat(pooled)


def _captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Two full captions, from either group where there are two, and ``CAPTIONS`` in drawn forms."""
    second = from_second(scene) if len(scene.groups) == 2 else scene
    full = [caption(scene), caption(second)]
    return full + [draw_caption(scene, rng)[1] for _ in range(CAPTIONS)]
