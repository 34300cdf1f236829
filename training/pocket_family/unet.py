"""Stage ``unet``: the denoiser, conditioned as SDXL's and as Hummingbird's.

The text goes in through cross-attention. The pooled vector is the text's own (stock SDXL) or the
picture's image embedding (Hummingbird); text and pooled vector are dropped independently, so each
alone must carry what it can.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import Run, Scenes, training_scenes
from hb_tta.training.pocket_family.text import image_embeds, tokenize
from hb_tta.training.pocket_family.vae import encode
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from hb_tta.pocket.captions import random_caption
from hb_tta.pocket.world import SIZE

CAPTIONS_A_SCENE = 4
# Shares of the training samples. Text: a caption; the empty caption, as for a view of the image
# alone; zeros, as for the negative of classifier-free guidance.
TEXT_SHARES = (0.85, 0.07, 0.08)
# Pooled: the image embedding; the text's pooled vector; zeros.
POOLED_SHARES = (0.50, 0.25, 0.25)


def scheduler() -> DDIMScheduler:
    """Zero terminal SNR, v-prediction, trailing steps (Lin et al. 2024, arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
        prediction_type="v_prediction", rescale_betas_zero_snr=True,
        timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True,
    )  # fmt: skip


def build_unet() -> UNet2DConditionModel:
    """SDXL's UNet at two levels and 4.6 million parameters."""
    return UNet2DConditionModel(
        sample_size=8, in_channels=8, out_channels=8, block_out_channels=(64, 128),
        layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2, attention_head_dim=(2, 4),
        transformer_layers_per_block=1, cross_attention_dim=256, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 128, norm_num_groups=16,
    )  # fmt: skip


def train_unet(run: Run) -> None:
    """Train the denoiser and save the whole generator pipeline."""
    data = _TrainingSet(run)
    torch.manual_seed(run.seed)
    unet = build_unet().to(run.device)
    noise_schedule = scheduler()
    alphas = noise_schedule.alphas_cumprod.to(run.device)
    time_ids = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]], device=run.device).float()

    def loss(draws: Draws, step: int) -> torch.Tensor:
        latents, text, pooled = data.batch(draws, 32)
        noise = draws.normal(*latents.shape, device=run.device)
        # Stratified, and drawn towards high noise, where the layout is decided.
        u = (torch.rand(len(latents), generator=draws.torch) + torch.arange(len(latents))) / 32
        steps = ((1 - (1 - u) ** 1.6) * 1000).long().clamp(max=999).to(run.device)
        alpha = alphas[steps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        added = {"text_embeds": pooled, "time_ids": time_ids.expand(len(latents), -1)}
        return F.mse_loss(unet(noisy, steps, text, added_cond_kwargs=added).sample, target)

    optimize(
        run, "unet", {"unet": unet}, loss, steps=run.steps(11_000), lr=1e-3, ema=0.998,
        evaluate=lambda: _save_preview(run, unet), evaluate_every=500,
    )  # fmt: skip
    save_pipeline(run, unet.eval(), run.weights / "generator")


def _save_preview(run: Run, unet: UNet2DConditionModel) -> dict[str, float]:
    """The pipeline as it stands, to look at while the training goes on."""
    unet.save_pretrained(run.work / "unet_preview")
    return {}


def save_pipeline(run: Run, unet: UNet2DConditionModel, folder) -> None:
    """Assemble the stock pipeline from the finished parts and save it in fp16."""
    parts = run.weights / "generator"
    StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(parts / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(parts / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(parts / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(parts / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(parts / "tokenizer_2"),
        unet=unet,
        scheduler=scheduler(),
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(parts / "image_encoder"),
        feature_extractor=CLIPImageProcessor.from_pretrained(parts / "feature_extractor"),
        add_watermarker=False,
    ).to(dtype=torch.float16).save_pretrained(folder)


class _TrainingSet:
    """Latents and every condition of the training scenes, encoded once by the frozen parts."""

    def __init__(self, run: Run):
        self.device = run.device
        scenes = training_scenes(run)
        vae = AutoencoderKL.from_pretrained(run.work / "vae_encoder").to(run.device)
        self.latents = torch.cat(
            [
                encode(vae, scenes.pixels(slice(i, i + 64), run.device)).cpu()
                for i in range(0, len(scenes), 64)
            ]
        )
        self.images = image_embeds(run, scenes)
        self._encode_captions(run, scenes)

    @torch.no_grad()
    def _encode_captions(self, run: Run, scenes: Scenes) -> None:
        rng = np.random.default_rng([run.seed, 2])
        index: dict[str, int] = {"": 0}
        self.captions = np.array(
            [
                [
                    index.setdefault(random_caption(record, rng), len(index))
                    for _ in range(CAPTIONS_A_SCENE)
                ]
                for record in scenes.records
            ]
        )
        folder = run.weights / "generator"
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        one = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        two = CLIPTextModelWithProjection.from_pretrained(
            folder / "text_encoder_2", dtype=torch.float32
        )
        one, two = one.to(run.device), two.to(run.device)
        hidden, pooled = [], []
        texts = list(index)
        for start in range(0, len(texts), 256):
            ids = tokenize(tokenizer, texts[start : start + 256], run.device)
            seen = [encoder(ids, output_hidden_states=True) for encoder in (one, two)]
            both = torch.cat([s.hidden_states[-2] for s in seen], -1)
            hidden.append(both.half().cpu())
            pooled.append(seen[1].text_embeds.cpu())
        self.hidden, self.pooled = torch.cat(hidden), torch.cat(pooled)

    def batch(self, draws: Draws, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents (B, 8, 8, 8), text (B, 32, 256), pooled (B, 128), with conditions dropped."""
        rows = draws.rows(len(self.latents), size)
        captions = self.captions[rows, draws.numpy.integers(CAPTIONS_A_SCENE, size=size)]
        how = draws.numpy.choice(3, size, p=TEXT_SHARES)
        captions = np.where(how == 0, captions, 0)
        text = self.hidden[captions].float()
        text[torch.from_numpy(how == 2)] = 0
        which = torch.from_numpy(draws.numpy.choice(3, size, p=POOLED_SHARES)).unsqueeze(1)
        pooled = torch.where(which == 0, self.images[rows], self.pooled[captions])
        pooled = torch.where(which == 2, torch.zeros(()), pooled)
        return self.latents[rows].to(self.device), text.to(self.device), pooled.to(self.device)
