"""Test-time prompt tuning (Shu et al. 2022), many images at once.

Every image has prompts of its own, (B, N, W). The loss is summed over images and AdamW works
element by element, so a batch gives what one image at a time gives; nothing is carried over from
one call to the next. Image features need no gradient and are encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hb_tta.device import enough_memory
from hb_tta.errors import UserError
from hb_tta.tpt.encoders import DualEncoder
from hb_tta.tpt.filters import check_shares, get_filter, select_views
from hb_tta.tpt.prompt_learners import PromptLayout, initial_context, make_text_encoder
from hb_tta.tta.combine import combine_classes
from hb_tta.tta.gate import check_gate
from hb_tta.tta.rule import Embedded

PROMPT = "a photo of a"
LEARNING_RATE = 5e-3  # of TPT's code
WEIGHT_DECAY = 0.01  # AdamW's default, which TPT's code leaves as it is

# Prompt tokens in work at once: with CLIP's text tower (width 512, 12 layers) some 3 GB.
_TOKENS_AT_ONCE = 8192


class Tuning(NamedTuple):
    """What tuning gives for B images.

    Attributes:
        logits_BC: of the real image under its tuned prompt.
        selected_BK: the places of the views that it was tuned on.
        losses_BT: the loss before each of T steps.
        contexts_BNW: the tuned contexts.
    """

    logits_BC: Tensor
    selected_BK: Tensor
    losses_BT: Tensor
    contexts_BNW: Tensor


class PromptTuner:
    """Tunes a prompt for every image on the entropy of its confident views.

        tuner = PromptTuner(model, tokenizer, ["red circle", "blue square"])
        logits = tuner(images)  # (B, V, 3, H, W), view 0 the real one → (B, C)

    Args:
        model: an open_clip model, or a CLIPModel or SiglipModel of transformers; it is frozen.
        tokenizer: the model's.
        class_names: C names; a prompt is ``prompt + " " + class + "."``.
        prompt: the words whose embeddings the context starts from.
        selection: share of the views that is trusted; None: the filter's own (0.1 for "tpt").
        generated_selection: a quota of their own for generated views; None: one pool for all.
        filter: one of ``hb_tta.tpt.FILTERS``.
        gate: between 0 and 1: an image is tuned on its generated views only where its zero-shot
            probability is lower, else on its other views; None: every image.
        steps: of AdamW: 1 in TPT, 4 in DiffTPT.
        lr, weight_decay: of AdamW.
        backend: how prompts reach the text tower: see ``hb_tta.tpt.prompt_learners``.
        batch_size: images whose prompts go through the text tower at once; None: what fits some
            3 GB.

    Raises:
        UserError: a setting is out of range, two classes read the same, the model is no CLIP.
    """

    def __init__(
        self,
        model: nn.Module | DualEncoder,
        tokenizer: Any = None,
        class_names: Sequence[str] = (),
        *,
        prompt: str = PROMPT,
        selection: float | None = None,
        generated_selection: float | None = None,
        filter: str = "tpt",
        gate: float | None = None,
        steps: int = 1,
        lr: float = LEARNING_RATE,
        weight_decay: float = WEIGHT_DECAY,
        backend: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        check_optimisation(steps, lr)
        check_gate(gate)
        get_filter(filter)
        check_shares(selection, generated_selection)
        self.encoder = model if isinstance(model, DualEncoder) else DualEncoder(model, tokenizer)
        layout = PromptLayout.of_names(self.encoder, prompt, class_names)
        self._encode_prompts = make_text_encoder(self.encoder, layout, backend)
        self.backend = self._encode_prompts.name
        self.tokens = self._encode_prompts.tokens
        self._context_NW = initial_context(self.encoder, layout)
        self._filter, self._steps, self._lr = filter, steps, lr
        self.gate = gate
        self._weight_decay = weight_decay
        self._shares = {"selection": selection, "generated_selection": generated_selection}
        self.batch_size = batch_size or max(1, _TOKENS_AT_ONCE // self.tokens)
        with torch.no_grad():
            self.text_CD = self._encode_prompts(self._context_NW[None])[0]

    def __call__(self, images: Tensor, *, generated: int = 0) -> Tensor:
        """Logits (B, C) of preprocessed images (B, V, 3, H, W); view 0 is the real one.

        Args:
            generated: how many of the views, the last ones, are generated.

        Raises:
            UserError: the shape is another, or memory does not suffice.
        """
        if images.dim() != 5 or images.shape[2] != 3:
            raise UserError(f"images have the shape {tuple(images.shape)}: give (B, V, 3, H, W)")
        with enough_memory(f"{images.shape[1]} views of an image", "use fewer views"):
            features = self.encoder.encode_images(images)
        if self.gate is None or not generated:
            return self.tune(features, generated=generated).logits_BC
        unsure_B = self.sureness(features) < self.gate
        logits_BC = features.new_zeros(len(features), len(self.text_CD))
        for rows, its in ((unsure_B, generated), (~unsure_B, 0)):
            if bool(rows.any()):
                shown = features[rows, : features.shape[1] - generated + its]
                logits_BC[rows] = self.tune(shown, generated=its).logits_BC
        return logits_BC

    def zero_shot(self, features: Tensor) -> Tensor:
        """Logits (…, V, C) of features (…, V, D) under the untuned prompt."""
        return self.encoder.logits(features, self.text_CD)

    def sureness(self, features_BVD: Tensor) -> Tensor:
        """(B,) the real image's probability of its likeliest class, untuned: what a gate reads."""
        real_BD = features_BVD[:, 0].to(self.encoder.device)
        return self.zero_shot(real_BD).softmax(-1).amax(-1).to(features_BVD.device)

    def select(self, features_BVD: Tensor, *, generated: int = 0) -> Tensor:
        """The places (B, K) of the views to tune on."""
        logits = self.zero_shot(features_BVD)
        return select_views(
            logits, features_BVD, name=self._filter, generated=generated, **self._shares
        )

    def tune(self, features_BVD: Tensor, *, generated: int = 0) -> Tuning:
        """Tune on image features of length 1.

        Raises:
            UserError: memory does not suffice.
        """
        remedy = f"lower batch_size (it is {self.batch_size})"
        with torch.inference_mode(False), enough_memory(f"{self.tokens} prompt tokens", remedy):
            features = features_BVD.detach().clone().float().to(self.encoder.device)
            return self._tune(features, generated)

    def untuned(self, features_BVD: Tensor, tuning: Tuning) -> dict[str, Tensor]:
        """What every rule of classes says of the same views without tuning: see ``combine``.

        Returns:
            The rule's name → probabilities (B, C).
        """
        embedded = Embedded(features_BVD, self.text_CD, self.encoder.logit_scale)
        return combine_classes(self.zero_shot(features_BVD), tuning.selected_BK, embedded)

    def _tune(self, features_BVD: Tensor, generated: int) -> Tuning:
        selected = self.select(features_BVD, generated=generated)
        size = features_BVD.shape[-1]
        chosen_BKD = features_BVD.gather(1, selected[..., None].expand(-1, -1, size))
        contexts = self._context_NW.repeat(len(features_BVD), 1, 1).requires_grad_()
        optimizer = torch.optim.AdamW([contexts], lr=self._lr, weight_decay=self._weight_decay)
        losses = []
        for step in range(self._steps):
            gradient = self._gradient if step else self._first_gradient
            loss_B, contexts.grad = gradient(chosen_BKD, contexts)
            optimizer.step()
            losses.append(loss_B)
        tuned = contexts.detach()
        with torch.no_grad():
            parts = zip(
                features_BVD[:, :1].split(self.batch_size), self._batches(tuned), strict=True
            )
            logits_BC = torch.cat([self._logits(*part)[:, 0] for part in parts])
        return Tuning(logits_BC, selected, torch.stack(losses, 1), tuned)

    def _batches(self, contexts_BNW: Tensor) -> tuple[Tensor, ...]:
        return contexts_BNW.split(self.batch_size)

    def _logits(self, features_BVD: Tensor, contexts_BNW: Tensor) -> Tensor:
        return self.encoder.logits(features_BVD, self._encode_prompts(contexts_BNW))

    def _first_gradient(self, chosen_BKD: Tensor, contexts_BNW: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (B,) and gradients of the contexts (B, N, W) while all contexts are equal.

        The prompts are encoded once for all images, and the graph is gone through backwards for
        each: a third of a step's work is saved, and its memory does not grow with the batch.
        """
        with torch.enable_grad():
            text_BCD = self.text_CD.repeat(len(chosen_BKD), 1, 1).requires_grad_()
            loss_B = marginal_entropy(self.encoder.logits(chosen_BKD, text_BCD))
            (wanted_BCD,) = torch.autograd.grad(loss_B.sum(), text_BCD)
            context = contexts_BNW[:1].detach().requires_grad_()
            encoded = self._encode_prompts(context)
            rows = [
                torch.autograd.grad(encoded, context, wanted[None], retain_graph=True)[0]
                for wanted in wanted_BCD
            ]
        return loss_B.detach(), torch.cat(rows)

    def _gradient(self, chosen_BKD: Tensor, contexts_BNW: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (B,) and gradients of the contexts (B, N, W), batch by batch."""
        losses, gradients = [], []
        for chosen, batch in zip(
            chosen_BKD.split(self.batch_size), self._batches(contexts_BNW), strict=True
        ):
            contexts = batch.detach().requires_grad_()
            with torch.enable_grad():
                loss = marginal_entropy(self._logits(chosen, contexts))
                (gradient,) = torch.autograd.grad(loss.sum(), contexts)
            losses.append(loss.detach())
            gradients.append(gradient)
        return torch.cat(losses), torch.cat(gradients)


def marginal_entropy(logits_BKC: Tensor) -> Tensor:
    """(B,) entropy of the views' mean probabilities (Shu et al. 2022, equation 2)."""
    log_p = F.log_softmax(logits_BKC, -1)
    mean = log_p.logsumexp(1) - torch.log(torch.tensor(float(log_p.shape[1])))
    mean = mean.clamp(min=torch.finfo(mean.dtype).min)
    return -(mean * mean.exp()).sum(-1)


def check_optimisation(steps: int, lr: float) -> None:
    """Raises UserError for settings that cannot be."""
    if steps < 1:
        raise UserError(f"steps={steps} tune nothing: use 1 or more")
    if not 0 < lr <= 1:
        raise UserError(
            f"lr={lr} is out of range: use more than 0, at most 1; TPT's is {LEARNING_RATE}"
        )
