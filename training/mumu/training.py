"""A training of MUMU as the loop knows it (Berman & Peysakhovich, 2024, section 5).

Shape suffixes: B prompts, L tokens, C the UNet's ``cross_attention_dim``, h w latent sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from hb_tta.detect.whole import available
from hb_tta.errors import UserError
from hb_tta.generators.mumu.generator import pooled_zeros
from hb_tta.generators.mumu.pictures import squared
from hb_tta.rewards.pixels import pixels_of
from hb_tta.store import content_key
from hb_tta.training.mumu import models as parts
from hb_tta.training.mumu.alignment import TextTargets, alignment_loss
from hb_tta.training.mumu.data import Captioned, open_captioned, survey, with_pixels
from hb_tta.training.mumu.prompts import Drawn, draw_prompt
from hb_tta.training.mumu.recipes import MumuSettings
from hb_tta.training.mumu.sheet import MumuSheets, SheetRow
from hb_tta.training.mumu.states import States
from hb_tta.training.prepare import suited
from hb_tta.training.progress import Console, bad_rows
from hb_tta.training.rollout import draw_noise, scaled
from hb_tta.training.run import CACHE, RunFolder
from hb_tta.training.schedule import rate_factor
from hb_tta.training.settings import to_json
from hb_tta.training.trained import Held, Key

EVALUATION = 2**31  # the epoch of held-out rows' draws: no training epoch has it
DRAWN_STEPS = 25  # of a picture to look at, at most


class MumuTraining:
    """See ``Trained``."""

    min_diversity = None

    def __init__(
        self, settings: MumuSettings, run: RunFolder, accelerator: Accelerator, console: Console
    ) -> None:
        self._settings, self._accelerator = settings, accelerator
        family = parts.family_of(settings)
        self._source = open_captioned(settings)
        self._kinds = available(settings.whole_kinds or ()) if settings.whole_share else {}
        self.models = _fingerprints(settings, family, self._source)
        if accelerator.is_main_process:
            run.check_settings(settings, self.models)
        good = self._survey(console)
        kept = suited(len(good)) if settings.held_out is None else settings.held_out
        self._held, self._rows = good[:kept], good[kept:]
        if not self._rows:
            raise UserError(
                f"no row is left to train on ({len(good)} good ones, {len(self._held)} held out, "
                f"{len(self.bad)} bad{': ' + self.bad[0] if self.bad else ''}): give more data"
            )
        self.samples = len(self._rows)
        self.parts = parts.load(settings, family, accelerator.device)
        self._prepare(run)

    def _prepare(self, run: RunFolder) -> None:
        settings, device = self._settings, self._accelerator.device
        self._targets = TextTargets(self.parts.pipe) if settings.align_steps else None
        if self._targets is not None:
            captions = [self._row(row).caption for row in self._rows[:64]]
            self._targets.measure(captions, device)
        cache = Path(settings.cache) if settings.cache else run.folder / CACHE
        decided = {**self.models, **{n: to_json(settings)[n] for n in _OF_PROMPTS}}
        self._states = States(
            self.parts.encoder, settings.tokens,
            cache / content_key(decided)[:32] if settings.cache_states else None,
        )  # fmt: skip
        if settings.memory == "block":
            self.parts.recompute()
        if settings.parallel == "fsdp2":
            self._shard()
        groups = self.parts.groups()
        self.parameters = [p for its in groups.values() for p in its]
        self.optimizer = torch.optim.AdamW(
            [{"params": its, "part": name} for name, its in groups.items() if its],
            lr=1e-3, betas=(0.9, settings.beta_2), weight_decay=settings.weight_decay,
        )  # fmt: skip
        both = {"align": settings.align_steps > 0, "denoise": self.parts.unet is not None}
        self.curves = [name for name, there in both.items() if there]
        self._sheets = MumuSheets(run.folder / "samples")

    def told(self) -> str:
        """See ``Trained``."""
        text = f"{self.samples} samples, {len(self._held)} held out"
        return text + (f", {bad_rows(len(self.bad))}: see bad_records.jsonl" if self.bad else "")

    def tensors(self) -> dict[str, Tensor]:
        """See ``Trained``."""
        return self.parts.tensors()

    def set_tensors(self, tensors: dict[str, Tensor]) -> None:
        """See ``Trained``."""
        self.parts.set_tensors(tensors)

    def write(self, tensors: dict[str, Tensor], folder: Path) -> None:
        """See ``Trained``: a folder that ``Mumu`` loads."""
        self.parts.write(tensors, folder, self._settings)

    def set_rates(self, step: int) -> None:
        """See ``Trained``: each stage warms up, and the second alone falls."""
        settings, rates = self._settings, self._rates(step)
        began = settings.align_steps if step >= settings.align_steps else 0
        rising = min(1.0, (step - began + 1) / (settings.warmup_steps + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["part"]] * min(rising, rate_factor(settings, step))

    def losses(self, step: int, keys: Sequence[Key]) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``Trained``."""
        rows = [self._rows[index] for _, index in keys]
        with self._precision():
            name = "align" if step < self._settings.align_steps else "denoise"
            losses = self._loss(name, rows, keys)
        return losses, {name: losses.detach()}

    def noted(self, step: int) -> dict[str, float]:
        """See ``Trained``: nothing."""
        return {}

    @torch.no_grad()
    def evaluate(self) -> Held:
        """See ``Trained``: both losses of the held-out rows, from the same draws at every call."""
        accelerator, size = self._accelerator, self._settings.micro_batch_size
        world, rank = accelerator.num_processes, accelerator.process_index
        each = -(-len(self._held) // world)  # all processes work alike: FSDP2 gathers together
        mine = [(rank * each + i) % len(self._held) for i in range(each)]
        counts = [float(rank * each + i < len(self._held)) for i in range(each)]
        sums = torch.zeros(len(self.curves))
        for first in range(0, each, size):
            places = mine[first : first + size]
            weight = torch.tensor(counts[first : first + size])
            keys = [(EVALUATION, place) for place in places]
            with self._precision():
                for number, name in enumerate(self.curves):
                    losses = self._loss(name, [self._held[place] for place in places], keys)
                    sums[number] += (losses.float().cpu() * weight).sum()
        total = accelerator.reduce(sums.to(accelerator.device), "sum").tolist()
        figures = {n: v / len(self._held) for n, v in zip(self.curves, total, strict=True)}
        return Held(figures, None, self._pictures())

    def draw(self, step: int, held: Held) -> None:
        """See ``Trained``."""
        self._sheets.write(step, held.pictures)

    def score(self, figures: dict[str, float]) -> float:
        """See ``Trained``: the least loss of the last stage."""
        return -figures[self.curves[-1]]

    # ── Rows and prompts ────────────────────────────────────────────────────────────────────────

    def _survey(self, console: Console) -> list[int]:
        """The numbers of the good rows; the others are listed."""
        size = self._source.size()
        rows = size if self._settings.samples is None else min(size, self._settings.samples)
        good: list[int] = []
        self.bad: list[str] = []
        for row, reason in survey(self._source, rows):
            if reason is None:
                good.append(row)
            else:
                self.bad.append(reason)
            if (row + 1) % 512 == 0:
                console.rows("reading", row + 1, rows)
        return good

    def _row(self, number: int) -> Captioned:
        found = self._source.read(number)
        assert isinstance(found, Captioned), "a row that was good stays good"
        return found

    def _drawn(self, row: Captioned, key: Key) -> Drawn:
        """The prompt of a sample: of a cache, the same in all epochs."""
        epoch = key[0] if epochs_differ(self._settings, key[0]) else 0
        rng = np.random.default_rng([self._settings.seed, epoch, key[1], 11])
        return draw_prompt(row, self._settings, self._kinds, rng)

    def _loss(self, name: str, numbers: Sequence[int], keys: Sequence[Key]) -> Tensor:
        rows = [with_pixels(self._row(number), number) for number in numbers]
        drawn = [self._drawn(row, key) for row, key in zip(rows, keys, strict=True)]
        states_BLD, mask_BL = self._states(drawn, keys, self._accelerator.device)
        context_BLC = self.parts.connector(states_BLD.float(), mask_BL)
        if name == "align":
            return self._align(context_BLC, mask_BL, drawn)
        return self._denoise(context_BLC, mask_BL, rows, keys)

    # ── The two losses ──────────────────────────────────────────────────────────────────────────

    def _align(self, context_BLC: Tensor, mask_BL: Tensor, drawn: Sequence[Drawn]) -> Tensor:
        targets, encoder = self._targets, self.parts.encoder
        assert targets is not None
        states_BTC = targets.states([one.caption for one in drawn], context_BLC.device)
        wanted = [targets.rows(one, encoder, self._settings.tokens) for one in drawn]
        return alignment_loss(context_BLC, mask_BL, wanted, states_BTC, targets.variance)

    def _denoise(
        self, context_BLC: Tensor, mask_BL: Tensor, rows: Sequence[Captioned], keys: Sequence[Key]
    ) -> Tensor:
        """Squared error of the noise (or velocity) prediction, as SDXL's own: (B,)."""
        settings, pipe = self._settings, self.parts.pipe
        scheduler, device = pipe.scheduler, context_BLC.device
        draws = [np.random.default_rng([settings.seed, *key, 1]) for key in keys]
        gone = [bool(draw.random() < settings.drop_share) for draw in draws]
        context_BLC = context_BLC * ~torch.tensor(gone, device=device)[:, None, None]
        latents = self._latents(rows)
        noise = torch.cat([draw_noise(settings.seed, e, [i], latents.shape[1:]) for e, i in keys])
        noise = noise.to(device)
        times = scheduler.config.num_train_timesteps
        t_B = torch.tensor([int(draw.integers(times)) for draw in draws], device=device)
        noisy = scheduler.add_noise(latents, noise, t_B)
        prediction = self.parts.unet(
            noisy.to(self.parts.unet.dtype), t_B,
            encoder_hidden_states=context_BLC.to(self.parts.unet.dtype),
            encoder_attention_mask=mask_BL,
            added_cond_kwargs=self._added(len(rows), context_BLC), return_dict=False,
        )[0]  # fmt: skip
        if scheduler.config.prediction_type == "v_prediction":
            noise = scheduler.get_velocity(latents, noise, t_B)
        return (prediction.float() - noise).square().flatten(1).mean(1)

    def _added(self, rows: int, like: Tensor) -> dict[str, Tensor]:
        side = self._side()
        size = torch.tensor([[side, side, 0, 0, side, side]], dtype=like.dtype, device=like.device)
        pooled = pooled_zeros(self.parts.unet, like.to(self.parts.unet.dtype))
        return {"text_embeds": pooled.expand(rows, -1), "time_ids": size.repeat(rows, 1)}

    def _side(self) -> int:
        pipe = self.parts.pipe
        own: int = self.parts.unet.config.sample_size * pipe.vae_scale_factor
        return self._settings.image_size or own

    @torch.no_grad()
    def _latents(self, rows: Sequence[Captioned]) -> Tensor:
        """Of the targets, padded to squares with black (section 5); float32."""
        vae = self.parts.pipe.vae
        pixels = pixels_of([squared(row.image) for row in rows], self._side())
        encoded = vae.encode(pixels.to(vae.device, vae.dtype) * 2 - 1).latent_dist.mode()
        return scaled(vae.config, encoded.float())

    # ── To look at ──────────────────────────────────────────────────────────────────────────────

    def _pictures(self) -> list[SheetRow]:
        """The first held-out rows: prompt, target, and what the model makes of it."""
        shown = self._held[: self._settings.sample_contexts]
        sharded = self._settings.parallel == "fsdp2"
        if not (self._accelerator.is_main_process or sharded):
            return []
        found = []
        for place, number in enumerate(shown):
            row = with_pixels(self._row(number), number)
            drawn = self._drawn(row, (EVALUATION, place))
            picture = None if self.parts.unet is None else self._sample(drawn, place)
            found.append(SheetRow(drawn, row.image, picture))
        return found

    def _sample(self, drawn: Drawn, place: int) -> Any:
        settings, side = self._settings, self._side()
        device = self._accelerator.device
        with self._precision():
            states_BLD, mask_BL = self._states([drawn], None, device)
            context_BLC = self.parts.connector(states_BLD.float(), mask_BL)
        context_BLC = context_BLC.to(self.parts.unet.dtype)
        pooled_BP = pooled_zeros(self.parts.unet, context_BLC)[None]
        return self.parts.pipe(
            prompt_embeds=context_BLC, pooled_prompt_embeds=pooled_BP,
            negative_prompt_embeds=torch.zeros_like(context_BLC),
            negative_pooled_prompt_embeds=pooled_BP, height=side, width=side,
            num_inference_steps=min(DRAWN_STEPS, settings.num_inference_steps),
            guidance_scale=settings.guidance_scale or 1.0,
            generator=torch.Generator("cpu").manual_seed(place),
        ).images[0]  # fmt: skip

    # ── Numbers and processes ───────────────────────────────────────────────────────────────────

    def _rates(self, step: int) -> dict[str, float]:
        """Each part's rate in the stage of a step."""
        settings = self._settings
        if step < settings.align_steps:
            return {"connector": settings.align_rate, "vlm": settings.align_rate, "unet": 0.0}
        return {
            "connector": settings.connector_rate,
            "vlm": settings.vlm_rate,
            "unet": settings.unet_rate,
        }

    def _precision(self) -> torch.autocast:
        """16 bits where the frozen weights have them; the masters stay in float32."""
        kind = getattr(torch, self._settings.dtype or "float32")
        device = self._accelerator.device.type
        return torch.autocast(device, kind, enabled=kind != torch.float32)

    def _shard(self) -> None:
        if self._accelerator.num_processes == 1 and not torch.distributed.is_initialized():
            raise UserError(
                "parallel=fsdp2 spreads the models over several processes and there is one: start "
                "it by `accelerate launch -m hb_tta.cli train …`, or use parallel=ddp"
            )
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh(self._accelerator.device.type, (self._accelerator.num_processes,))
        self.parts.shard(mesh)


_OF_PROMPTS = (
    *("seed", "tokens", "registers", "most_crops", "crop_share", "bare_share", "persons_only"),
    *("head_share", "augmented_share", "whole_share", "whole_kinds", "held_out", "samples"),
)
"""Settings that decide a row's prompt: part of the key of what the VLM says of it."""


def epochs_differ(settings: MumuSettings, epoch: int) -> bool:
    """Whether a row has another prompt in an epoch than in the first."""
    return epoch == EVALUATION or not settings.cache_states


def _fingerprints(settings: MumuSettings, family: Any, source: Any) -> dict[str, Any]:
    """What the settings name, by content: a run goes on wherever its models and data lie."""
    start = parts.check_start(settings)
    return {
        "generator": family.weights("generator").fingerprint(),
        "vlm": parts.vlm_of(settings, family).fingerprint(),
        "start": None if start is None else start.fingerprint(),
        "data": content_key({"data": source.fingerprint()}),
    }
