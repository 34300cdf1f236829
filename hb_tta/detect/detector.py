"""A detector: the boxes of phrases, by GroundingDINO or OWLv2.

Any model that transformers loads for zero-shot object detection will do. Which phrase a box is of
comes from the box's own logits over that phrase's tokens: the labels that the library gives are
glued from all tokens above a threshold ("a a square", "circle. square.") and are no words of ours.

Shape suffixes: B images, Q boxes of the model, T text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor

from hb_tta.device import check_memory, default_device, default_dtype
from hb_tta.errors import UserError
from hb_tta.progress import without_bars_of_libraries
from hb_tta.weights import Weights, as_weights

if TYPE_CHECKING:
    from PIL.Image import Image

THRESHOLD, TEXT_THRESHOLD = 0.35, 0.25  # the customary values of GroundingDINO
AT_ONCE = 16  # phrases in one text: the model reads 256 tokens

Corners = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the image, x to the right and y downwards."""


class Found(NamedTuple):
    """A box of a phrase.

    Attributes:
        phrase: its place among the image's phrases.
        box: within the image.
        score: in [0, 1].
    """

    phrase: int
    box: Corners
    score: float


class Detector:
    """Finds phrases in images.

    Attributes:
        model, processor: transformers' own.
        device: where the model is.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model.eval(), processor
        self.device = model.device

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str] | Weights,
        *,
        device: str | None = None,
        dtype: str | None = None,
    ) -> Self:
        """A detector from a folder or a hub id.

        Raises:
            UserError: the weights are missing, or no detector of phrases.
        """
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        weights, device = as_weights(source), device or default_device()
        folder = weights.local_folder()
        kind = getattr(torch, dtype or default_dtype(device))
        try:
            with without_bars_of_libraries():
                model = AutoModelForZeroShotObjectDetection.from_pretrained(folder, dtype=kind)
                processor = AutoProcessor.from_pretrained(folder)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            check_memory(error, f"the weights {weights.location!r}")
            raise UserError(
                f"{weights.location!r} holds no detector of phrases ({error}): name GroundingDINO, "
                "OWLv2 or another model for zero-shot object detection"
            ) from error
        return cls(model.to(device), processor)

    def find(
        self,
        images: Sequence[Image],
        phrases: Sequence[Sequence[str]],
        *,
        threshold: float = THRESHOLD,
        text_threshold: float = TEXT_THRESHOLD,
    ) -> list[list[Found]]:
        """The boxes of each image's phrases, best first.

        Args:
            images: RGB, of any sizes.
            phrases: one list an image; an empty one finds nothing.
            threshold: the least score, in [0, 1]: of the box's surest token.
            text_threshold: the least mean over the phrase's tokens, where it has several.
        """
        found: list[list[Found]] = [[] for _ in images]
        for image, some, its in zip(images, phrases, found, strict=True):
            for first in range(0, len(some), AT_ONCE):
                part = list(some[first : first + AT_ONCE])
                for one in self._find(image, part, threshold, text_threshold):
                    its.append(one._replace(phrase=one.phrase + first))
            its.sort(key=lambda one: -one.score)
        return found

    @torch.inference_mode()
    def _find(
        self, image: Image, phrases: list[str], threshold: float, text_threshold: float
    ) -> list[Found]:
        if "grounding" in self.model.config.model_type:
            surest_QP, mean_QP, boxes_Q4 = self._grounded(image, phrases)
        else:
            surest_QP, boxes_Q4 = self._by_query(image, phrases)
            mean_QP = surest_QP
        of = mean_QP.argmax(1)
        rows = torch.arange(len(of))
        kept = (surest_QP[rows, of] >= threshold) & (mean_QP[rows, of] >= text_threshold)
        scores = mean_QP[rows, of]
        return [
            Found(int(of[row]), _within(boxes_Q4[row].tolist(), *image.size), float(scores[row]))
            for row in kept.nonzero().flatten().tolist()
        ]

    def _grounded(self, image: Image, phrases: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Per box and phrase the surest token and the tokens' mean; corners from 0 to 1."""
        text, spans = as_text(phrases)
        tokens = self.processor.tokenizer(
            text, return_offsets_mapping=True, return_tensors="pt", truncation=True,
            max_length=self.model.config.max_text_len,
        )  # fmt: skip
        offsets = tokens.pop("offset_mapping")[0].tolist()
        pixels = self.processor.image_processor(image, return_tensors="pt")
        pixels["pixel_values"] = pixels["pixel_values"].to(self.model.dtype)
        out = self.model(**pixels.to(self.device), **tokens.to(self.device))
        chances_QT = out.logits[0].float().sigmoid().cpu()
        surest, means = [], []
        for span in spans:
            own = chances_QT[:, tokens_of(span, offsets)]
            # A phrase behind the last token that is read has none: it is found nowhere.
            blank = chances_QT.new_zeros(len(chances_QT))
            surest.append(own.amax(1) if own.shape[1] else blank)
            means.append(own.mean(1) if own.shape[1] else blank)
        x, y, width, height = out.pred_boxes[0].float().cpu().unbind(1)
        corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        return torch.stack(surest, 1), torch.stack(means, 1), torch.stack(corners, 1)

    def _by_query(self, image: Image, phrases: list[str]) -> tuple[Tensor, Tensor]:
        """OWL-ViT and OWLv2, which have a logit a phrase."""
        # They read 16 tokens of a phrase; a longer one, not cut, is refused.
        inputs = self.processor(text=[phrases], images=image, return_tensors="pt", truncation=True)
        inputs = inputs.to(self.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        out = self.model(**inputs)
        chances_QP = out.logits[0].float().sigmoid().cpu()
        x, y, width, height = out.pred_boxes[0].float().cpu().unbind(1)
        boxes = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
        if self.model.config.model_type == "owlv2":  # it pads to a square at the right and below
            long = max(image.size)
            boxes = boxes * torch.tensor([long / side for side in image.size * 2])
        return chances_QP[:, : len(phrases)], boxes


def as_text(phrases: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """What GroundingDINO is told, "red circle. dog.", and where each phrase stands in it."""
    text, spans = "", []
    for phrase in phrases:
        told = phrase.lower().replace(".", " ").replace("?", " ").strip()
        spans.append((len(text), len(text) + len(told)))
        text += f"{told}. "
    return text.strip(), spans


def tokens_of(span: tuple[int, int], offsets: Sequence[Sequence[int]]) -> list[int]:
    """The places of the tokens that lie within a span of the text."""
    start, stop = span
    return [place for place, (a, b) in enumerate(offsets) if a < b and start <= a and b <= stop]


def _within(corners: Sequence[float], width: int, height: int) -> Corners:
    """Corners from 0 to 1 as pixels of the image."""
    x0, y0, x1, y1 = (min(1.0, max(0.0, corner)) for corner in corners)
    return (x0 * width, y0 * height, x1 * width, y1 * height)
