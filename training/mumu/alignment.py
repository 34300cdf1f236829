"""What each token of a prompt should say: the text encoders' state of the equivalent caption.

The UNet has learnt to read the text encoders. So before it is touched, the connector's outputs are
regressed on what they say of the caption that a prompt stands for: a word's token on the state of
that word; the last tokens of an image on the states of the words that it stands for; all others on
the states of padding, which the UNet reads too. (Ours: the paper begins with denoising.)

Shape suffixes: B prompts, L tokens, T text positions, C the UNet's ``cross_attention_dim``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, pairwise
from typing import Any

import torch
from torch import Tensor

from hb_tta.errors import UserError
from hb_tta.generators.mumu.encoder import Encoder
from hb_tta.training.mumu.prompts import Drawn

MEASURED = 64  # captions that the targets' variance is taken from


class TextTargets:
    """The stock text encoders' states of captions, by the place of each word.

    Args:
        pipe: a Stable Diffusion XL with its text encoders.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe, self.variance = pipe, 1.0
        self._tokenizer = pipe.tokenizer or pipe.tokenizer_2
        self.length: int = self._tokenizer.model_max_length  # T

    @torch.no_grad()
    def states(self, captions: Sequence[str], device: torch.device) -> Tensor:
        """(B, T, C), float32."""
        found = self._pipe.encode_prompt(
            list(captions), device=device, do_classifier_free_guidance=False
        )
        return found[0].float()

    def measure(self, captions: Sequence[str], device: torch.device) -> None:
        """Takes the variance, by which the loss is divided, from some captions."""
        self.variance = float(self.states(captions[:MEASURED], device).var())

    def places(self, caption: str) -> tuple[list[int], int]:
        """For each character of a caption the text position of its word, -1 where it has none (a
        blank, or behind what the encoders read); and the position of the end."""
        found = self._tokenizer(
            caption, truncation=True, max_length=self.length, return_offsets_mapping=True
        )
        of_char = [-1] * len(caption)
        for position, (start, end) in enumerate(found.offset_mapping):
            for char in range(start, end):
                of_char[char] = position
        return of_char, len(found.input_ids) - 1

    def rows(self, drawn: Drawn, encoder: Encoder, tokens: int) -> list[int]:
        """The text position that each token of a prompt should say.

        Raises:
            UserError: the caption holds a mark of the encoder's tokenizer.
        """
        of_char, end = self.places(drawn.caption)
        chars = written(drawn, encoder, tokens)
        ids, offsets = encoder.tokenised(drawn.prompt, tokens)
        wanted = [_said(of_char, [chars[i] for i in range(*place)]) for place in offsets]
        for place, (now, after) in enumerate(pairwise([*wanted, -1])):
            if now == after:  # of a word in pieces the last says it, which has read them all
                wanted[place] = -1
        wanted[0] = 0  # both begin with their mark
        wanted = _with_images(wanted, drawn, encoder, tokens, ids, of_char)
        padding = cycle(range(min(end + 1, self.length - 1), self.length))
        return [next(padding) if position < 0 else position for position in wanted]


def written(drawn: Drawn, encoder: Encoder, tokens: int) -> list[int]:
    """For each character of ``encoder.expanded`` its place in the caption, -1 where it has none.

    Raises:
        UserError: the caption holds a mark of the encoder's tokenizer, so that the two differ.
    """
    border = encoder.expanded(drawn.prompt, tokens)
    chars: list[int] = []
    for number, piece in enumerate(drawn.pieces):
        chars += [-1] if number else []  # the blank between two parts
        if isinstance(piece.part, str):
            own = piece.end > piece.start
            chars += list(range(piece.start, piece.end)) if own else [-1] * len(piece.part)
        else:
            image, fake = encoder.processor.image_token, encoder.processor.fake_image_token
            chars += [-1] * (len(image) * tokens + 2 * len(fake))
    if len(chars) != len(border):
        raise UserError(
            f"the caption {drawn.caption[:60]!r} holds a mark of the encoder's own tokenizer: "
            "leave that row out"
        )
    return chars


def _said(of_char: Sequence[int], chars: Sequence[int]) -> int:
    """The text position of the last of some characters that has a place in the caption."""
    said = [char for char in chars if char >= 0]
    return of_char[said[-1]] if said else -1


def _with_images(
    wanted: list[int],
    drawn: Drawn,
    encoder: Encoder,
    tokens: int,
    ids: Sequence[int],
    of_char: Sequence[int],
) -> list[int]:
    """The last tokens of each image say the words that it stands for."""
    image_id = encoder.vlm.config.image_token_id
    ends = [i for i, (a, b) in enumerate(pairwise([*ids, -1])) if a == image_id and b != image_id]
    spans = [(p.start, p.end) for p in drawn.pieces if not isinstance(p.part, str)]
    for last, (start, end) in zip(ends, spans, strict=True):
        positions = list(dict.fromkeys(of_char[i] for i in range(start, end) if of_char[i] >= 0))
        for back, position in enumerate(reversed(positions[-tokens:])):
            wanted[last - back] = position
    return wanted


def alignment_loss(
    context_BLC: Tensor, mask_BL: Tensor, wanted: Sequence[Sequence[int]], states_BTC: Tensor,
    variance: float,
) -> Tensor:  # fmt: skip
    """Mean squared error over a prompt's tokens, in variances of the targets: (B,)."""
    losses = []
    for context_LC, mask_L, rows, states_TC in zip(
        context_BLC, mask_BL.bool(), wanted, states_BTC, strict=True
    ):
        target_LC = states_TC[torch.tensor(rows, device=states_TC.device)]
        losses.append((context_LC[mask_L].float() - target_LC).square().mean() / variance)
    return torch.stack(losses)
