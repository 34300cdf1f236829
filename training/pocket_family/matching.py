"""The two scores of a BLIP-2 retrieval model from shared vision tokens, and their training losses.

``Blip2ForImageTextRetrieval.forward`` sees one caption a picture and runs the vision tower for
each. Here one picture meets many captions. Shapes: B pictures, N captions, P patches and the
class token, Q queries, T text positions, D the Q-Former's width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import Blip2ForImageTextRetrieval


def query_states(model: Blip2ForImageTextRetrieval, tokens_BPD: torch.Tensor) -> torch.Tensor:
    """What the queries read off the pictures, before any text: (B, Q, D)."""
    queries = model.query_tokens.expand(len(tokens_BPD), -1, -1)
    return model.qformer(query_embeds=queries, encoder_hidden_states=tokens_BPD).last_hidden_state


def itc_scores(
    model: Blip2ForImageTextRetrieval,
    queries_BQD: torch.Tensor,
    ids_NT: torch.Tensor,
    mask_NT: torch.Tensor,
) -> torch.Tensor:
    """Image–text contrastive cosines (B, N): the best query's (BLIP-2, section 3.1)."""
    texts = model.qformer(
        query_embeds=model.embeddings(input_ids=ids_NT), query_length=0, attention_mask=mask_NT
    ).last_hidden_state[:, 0]
    images = F.normalize(model.vision_projection(queries_BQD), dim=-1)
    cosines = images @ F.normalize(model.text_projection(texts), dim=-1).T  # (B, Q, N)
    return cosines.amax(1)


@dataclass
class Match:
    """Image–text matching: logits (N, 2), and the states behind them."""

    logits: torch.Tensor
    queries_NQD: torch.Tensor
    words_NTD: torch.Tensor  # of the layer before the last: what the queries can still read


def itm_match(
    model: Blip2ForImageTextRetrieval,
    tokens_NPD: torch.Tensor,
    ids_NT: torch.Tensor,
    mask_NT: torch.Tensor,
) -> Match:
    """Match every caption with the vision tokens of its own picture; logit 1 says "it fits"."""
    queries = model.query_tokens.expand(len(ids_NT), -1, -1)
    count = queries.shape[1]
    seen = model.qformer(
        query_embeds=model.embeddings(input_ids=ids_NT, query_embeds=queries),
        query_length=count,
        attention_mask=torch.cat([mask_NT.new_ones(len(ids_NT), count), mask_NT], dim=1),
        encoder_hidden_states=tokens_NPD,
        output_hidden_states=True,
    )
    states = seen.last_hidden_state[:, :count]
    return Match(model.itm_head(states).mean(1), states, seen.hidden_states[-2][:, count:])


def itm_loss(logits_N2: torch.Tensor, fits_N: torch.Tensor, image_N: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, right and wrong captions weighing the same, and a ranking by picture.

    The reward is logit 1 alone, so the ranking is a softmax of it over a picture's captions.

    Args:
        fits_N: whether each caption is right; every picture has exactly one right caption.
        image_N: the picture of each caption.
    """
    each = F.cross_entropy(logits_N2, fits_N.long(), reduction="none")
    matching = (each[fits_N].mean() + each[~fits_N].mean()) / 2
    same = image_N[fits_N][:, None] == image_N[None]  # (B, N)
    scores = logits_N2[:, 1].expand(len(same), -1).masked_fill(~same, -torch.inf)
    return matching + F.cross_entropy(scores, fits_N.nonzero()[:, 0])


def itc_loss(
    cosines_BN: torch.Tensor,
    fits_N: torch.Tensor,
    image_N: torch.Tensor,
    trusted_N: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Contrast pictures with captions, a picture's own wrong captions among them.

    Args:
        trusted_N: captions that are wrong of every other picture of the batch; the rest may be
            true of it by chance and are left out there.
        temperature: what the cosines are divided by.
    """
    logits = cosines_BN / temperature
    pictures = torch.arange(len(logits), device=logits.device)
    own = pictures[:, None] == image_N[None]
    own_right = fits_N.nonzero()[:, 0]
    to_text = F.cross_entropy(logits.masked_fill(~(own | trusted_N), -torch.inf), own_right)
    columns = logits[:, own_right].T  # right captions × pictures
    distrusted = ~trusted_N[own_right][:, None] & ~torch.eye(
        len(logits), dtype=torch.bool, device=logits.device
    )
    to_image = F.cross_entropy(columns.masked_fill(distrusted, -torch.inf), pictures)
    return (to_text + to_image) / 2
