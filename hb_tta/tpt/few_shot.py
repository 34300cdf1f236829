"""Prompt tuning on a few labelled supports, as TPT does on Bongard-HOI, many tasks at once.

A task learns a context that its classes share, and one vector a class that stands where the class
name would, by cross-entropy on its supports. A query's logits are averaged over its views.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hb_tta.device import enough_memory
from hb_tta.errors import UserError
from hb_tta.tpt.encoders import DualEncoder
from hb_tta.tpt.prompt_learners import PromptLayout, initial_context, make_text_encoder
from hb_tta.tpt.tuner import LEARNING_RATE, PROMPT, WEIGHT_DECAY, check_optimisation

STEPS = 64  # of the authors' code
CROPS = 0  # of an image: the authors tune on supports as they are
CLASS_STD = 0.02  # of TPT's random class vectors


class FewShotTuning(NamedTuple):
    """What tuning gives for B tasks.

    Attributes:
        logits_BQC: of the queries, averaged over their views.
        losses_BT: the loss before each of T steps.
    """

    logits_BQC: Tensor
    losses_BT: Tensor


class FewShotTuner:
    """Tunes a context and class vectors for every task on its supports.

    Args:
        model, tokenizer, prompt, lr, weight_decay, backend: see ``PromptTuner``.
        classes: classes of a task; 2 in Bongard-HOI, where 0 is the positive one.
        steps: of AdamW.
        seed: of the random class vectors, which every task starts from.
        class_vectors: (C, M, W) to start from instead.
        batch_size: tasks tuned at once; None: what fits some 3 GB.
    """

    def __init__(
        self,
        model: nn.Module | DualEncoder,
        tokenizer: Any = None,
        *,
        classes: int = 2,
        prompt: str = PROMPT,
        steps: int = STEPS,
        lr: float = LEARNING_RATE,
        weight_decay: float = WEIGHT_DECAY,
        seed: int = 0,
        class_vectors: Tensor | None = None,
        backend: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        check_optimisation(steps, lr)
        self.encoder = model if isinstance(model, DualEncoder) else DualEncoder(model, tokenizer)
        layout = PromptLayout.of_vectors(self.encoder, prompt, classes)
        self._encode_prompts = make_text_encoder(self.encoder, layout, backend)
        self.backend = self._encode_prompts.name
        self._context_NW = initial_context(self.encoder, layout)
        shape = (classes, layout.learned, self._context_NW.shape[-1])
        if class_vectors is None:
            draw = torch.Generator().manual_seed(seed)
            class_vectors = CLASS_STD * torch.randn(shape, generator=draw)
        if class_vectors.shape != shape:
            raise UserError(f"class vectors of shape {tuple(class_vectors.shape)}: give {shape}")
        self._vectors_CMW = class_vectors.to(self._context_NW)
        self._steps, self._lr, self._weight_decay = steps, lr, weight_decay
        tokens = self._encode_prompts.tokens
        self.batch_size = batch_size or max(1, min(512, 8192 // tokens))

    def __call__(self, supports: Tensor, labels_BS: Tensor, queries: Tensor) -> Tensor:
        """Query logits (B, Q, C) of preprocessed images.

        Args:
            supports: (B, S, 3, H, W), generated views among them.
            labels_BS: the class of each support.
            queries: (B, Q, V, 3, H, W); V = 1 without generated views.
        """
        encode = self.encoder.encode_images
        return self.tune(encode(supports), labels_BS, encode(queries)).logits_BQC

    def tune(self, supports_BSD: Tensor, labels_BS: Tensor, queries_BQVD: Tensor) -> FewShotTuning:
        """Tune on image features of length 1, batch by batch.

        Raises:
            UserError: a task has no support of one of the classes.
        """
        self._check_labels(labels_BS)
        device = self.encoder.device
        remedy = f"lower batch_size (it is {self.batch_size})"
        with torch.inference_mode(False), enough_memory("a batch of tasks", remedy):
            inputs = [
                tensor.detach().clone().to(device).split(self.batch_size)
                for tensor in (supports_BSD, labels_BS, queries_BQVD)
            ]
            parts = [self._tune(*batch) for batch in zip(*inputs, strict=True)]
        return FewShotTuning(*(torch.cat(field) for field in zip(*parts, strict=True)))

    def _tune(self, supports_BSD: Tensor, labels_BS: Tensor, queries_BQVD: Tensor) -> FewShotTuning:
        batch = len(supports_BSD)
        contexts = self._context_NW.repeat(batch, 1, 1).requires_grad_()
        vectors = self._vectors_CMW.repeat(batch, 1, 1, 1).requires_grad_()
        optimizer = torch.optim.AdamW(
            [contexts, vectors], lr=self._lr, weight_decay=self._weight_decay
        )
        losses = []
        for _ in range(self._steps):
            with torch.enable_grad():
                logits = self.encoder.logits(supports_BSD, self._encode_prompts(contexts, vectors))
                loss_BS = F.cross_entropy(
                    logits.flatten(0, 1), labels_BS.flatten(), reduction="none"
                )
                loss_B = loss_BS.unflatten(0, labels_BS.shape).mean(1)
                gradients = torch.autograd.grad(loss_B.sum(), [contexts, vectors])
            contexts.grad, vectors.grad = gradients
            optimizer.step()
            losses.append(loss_B.detach())
        with torch.no_grad():
            text_BCD = self._encode_prompts(contexts, vectors)
            logits_BQVC = self.encoder.logits(queries_BQVD, text_BCD[:, None])
        return FewShotTuning(logits_BQVC.mean(2), torch.stack(losses, 1))

    def _check_labels(self, labels_BS: Tensor) -> None:
        classes = len(self._vectors_CMW)
        there = F.one_hot(labels_BS, classes).any(1)
        if not bool(there.all()):
            task, missing = (~there).nonzero()[0].tolist()
            raise UserError(
                f"task {task} has no support of class {missing} (0 is the positive one): give at "
                "least one of each"
            )
