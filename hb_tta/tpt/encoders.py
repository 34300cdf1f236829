"""Any CLIP as one interface: open_clip's CLIP, CoCa and SigLIP, transformers' CLIP and SigLIP.

Models are wrapped, never edited. A ``DualEncoder`` freezes the model it is given: eval mode, and no
gradient for its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel, PreTrainedTokenizerBase, SiglipModel

from hb_tta.errors import UserError

_OPEN_CLIP_TOKENIZERS = (
    open_clip.tokenizer.SimpleTokenizer,
    open_clip.tokenizer.HFTokenizer,
    open_clip.tokenizer.SigLipTokenizer,
)


@dataclass(frozen=True)
class CausalTower:
    """A text tower taken apart, for prompts packed into one sequence.

    Attributes:
        positions_LW: the positional embeddings.
        blocks: (sequences (R, L, W), additive mask (L, L)) → hidden states (R, L, W).
        head: hidden states of the pooled tokens (…, W) → features (…, D), not yet normalised.
        ends: ids (C, L) → the position of each prompt's pooled token (C,).
    """

    positions_LW: Tensor
    blocks: Callable[[Tensor, Tensor], Tensor]
    head: Callable[[Tensor], Tensor]
    ends: Callable[[Tensor], Tensor]


class DualEncoder:
    """A frozen CLIP: images and texts to features of length 1.

    Args:
        model: an ``open_clip`` model or a transformers ``CLIPModel`` or ``SiglipModel``. It is
            frozen and put into eval mode.
        tokenizer: of open_clip (a callable) or of transformers.

    Raises:
        UserError: it is another kind of model.
    """

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        if isinstance(model, CLIPModel | SiglipModel):
            self._image, self._text = model.get_image_features, model.get_text_features
            text: Any = model.text_model
            self.token_embedding: nn.Embedding = text.get_input_embeddings()
            self.context_length = text.embeddings.position_embedding.num_embeddings
            self.tower = _transformers_tower(model) if isinstance(model, CLIPModel) else None
        elif isinstance(model, open_clip.CLIP | open_clip.CustomTextCLIP | open_clip.CoCa):
            self._image, self._text = model.encode_image, model.encode_text
            text = model if isinstance(model, open_clip.CLIP) else model.text
            self.token_embedding = _open_clip_embedding(text)
            self.context_length = model.context_length
            self.tower = _open_clip_tower(text)
        else:
            raise UserError(
                f"a {type(model).__name__} is no CLIP that prompts can be tuned for: give an "
                "open_clip model, or a CLIPModel or SiglipModel of transformers"
            )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.token_embedding.weight.device

    @property
    def logit_scale(self) -> Tensor:
        """The factor of a cosine in a logit, a scalar."""
        return self.model.logit_scale.exp().squeeze().float()  # type: ignore[operator]

    @property
    def logit_bias(self) -> Tensor:
        """What is added to every logit; 0 but for SigLIP."""
        bias = getattr(self.model, "logit_bias", None)  # open_clip's CLIP has it or None
        return torch.zeros((), device=self.device) if bias is None else bias.squeeze().float()

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Ids (C, L), padded to the window and cut where they are longer, on the model's device."""
        if isinstance(self._tokenizer, PreTrainedTokenizerBase):
            ids = self._padded(texts, self.context_length)
        else:
            ids = self._tokenizer(list(texts))
        return ids.to(self.device)

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts whose ends the window cuts off, of a tokenizer that can tell."""
        length = self.context_length
        if isinstance(self._tokenizer, PreTrainedTokenizerBase):
            whole = self._padded(texts, 4 * length)
        elif isinstance(self._tokenizer, _OPEN_CLIP_TOKENIZERS):
            whole = self._tokenizer(list(texts), context_length=4 * length)
        else:
            return []
        differ = (self.tokenize(texts).cpu() != whole[:, :length]).any(1).tolist()
        return [text for text, is_cut in zip(texts, differ, strict=True) if is_cut]

    def _padded(self, texts: Sequence[str], length: int) -> Tensor:
        return self._tokenizer(
            list(texts),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        ).input_ids

    def encode_text(self, ids: Tensor) -> Tensor:
        """Normalised features (C, D), float32, of ids (C, L)."""
        return F.normalize(_pooled(self._text(ids)).float(), dim=-1)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor, *, batch_size: int = 64) -> Tensor:
        """Normalised features (…, D), float32, of preprocessed pixels (…, 3, H, W)."""
        flat = pixels.flatten(0, -4)
        dtype = next(self.model.parameters()).dtype
        features = torch.empty(0)
        for start in range(0, len(flat), batch_size):
            part = flat[start : start + batch_size].to(self.device, dtype)
            pooled = F.normalize(_pooled(self._image(part)).float(), dim=-1)
            if not start:  # room for all of them at once: too many fail now, not in an hour
                features = pooled.new_empty(len(flat), pooled.shape[-1])
            features[start : start + batch_size] = pooled
        return features.unflatten(0, pixels.shape[:-3])

    def logits(self, features: Tensor, text: Tensor) -> Tensor:
        """Logits (…, V, C) of image features (…, V, D) and text features (…, C, D).

        The scale comes last and texts of one image lose their batch dimension: so the rounding is
        that of the authors' code too, which 64 steps of tuning can amplify.
        """
        while text.dim() > 2 and len(text) == 1:
            text = text[0]
        return self.logit_scale * (features @ text.transpose(-1, -2)) + self.logit_bias


def _pooled(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output


def _open_clip_embedding(text: Any) -> nn.Embedding:
    embedding = getattr(text, "token_embedding", None)
    if embedding is None:  # a tower of transformers inside open_clip
        embedding = text.transformer.get_input_embeddings()
    return embedding


def _open_clip_tower(text: Any) -> CausalTower | None:
    """The tower of a causal text transformer without a class token; None for other ones."""
    known = isinstance(text, open_clip.CLIP | open_clip.transformer.TextTransformer)
    if not known or text.attn_mask is None or getattr(text, "cls_emb", None) is not None:
        return None
    is_clip = isinstance(text, open_clip.CLIP)
    pool = text.text_pool_type if is_clip else text.pool_type
    if pool not in ("argmax", "eos"):
        return None
    eos = (text.text_eos_id if is_clip else text.eos_id) if pool == "eos" else None
    projection = text.text_projection

    def head(pooled: Tensor) -> Tensor:
        pooled = text.ln_final(pooled)
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection

    return CausalTower(
        text.positional_embedding,
        lambda x, mask: text.transformer(x, attn_mask=mask),
        head,
        lambda ids: _end(ids, eos),
    )


def _transformers_tower(model: Any) -> CausalTower:
    text = model.text_model
    # transformers' own rule: id 2 marks configurations of before its pull request 24773.
    eos = None if text.eos_token_id == 2 else text.eos_token_id
    return CausalTower(
        text.embeddings.position_embedding.weight,
        lambda x, mask: (
            text.encoder(inputs_embeds=x, attention_mask=mask[None, None]).last_hidden_state
        ),
        lambda pooled: model.text_projection(text.final_layer_norm(pooled)),
        lambda ids: _end(ids, eos),
    )


def _end(ids: Tensor, eos: int | None) -> Tensor:
    """The pooled token: the first of the id ``eos``, or the highest id."""
    return ids.argmax(-1) if eos is None else (ids == eos).int().argmax(-1)
