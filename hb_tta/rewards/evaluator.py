"""The paper's Multimodal Context Evaluator (section 4.2): BLIP-2's two scores, with gradients.

Shape suffixes: B images, C channels, H height, W width, P patches and the class token, Q queries,
T text positions, D the Q-Former's width, E the shared embedding's width.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.rewards.defaults import default_weights
from hb_tta.rewards.expected import check_bert, picture_values
from hb_tta.rewards.pixels import Normalize, resized
from hb_tta.rewards.protocol import Targets
from hb_tta.rewards.reading import reading
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.families import Family

MAX_TEXT_TOKENS = 128  # more than SDXL's 77 become in BERT's vocabulary; LAVIS cuts at 32


class MultimodalContextEvaluator(nn.Module):
    """BLIP-2's two scores of an image and a description, from one pass of its vision tower.

    ``global``: the Global Semantic Reward, equation 4, the cosine of image-text contrast, of the
    best query. ``fine_grained``: the Fine-Grained Consistency Reward, equation 5, the positive
    logit of image-text matching. ``match_probability``: that pair of logits after a softmax, which
    the authors' code maximises; ``match_log_probability``: its logarithm, the loss that the
    matching head was trained with, for which images that match already pull little.

    Equal to two calls of the stock ``Blip2ForImageTextRetrieval`` on the same ids, with and without
    ``use_image_text_matching_head``. The ids go to the model's parts directly, since the stock
    call drops the first ones of configurations that set ``image_token_index``.

    Args:
        model: on the CPU; it is frozen.
        tokenizer: the model's own.
        mean, std: what the vision tower's pixels are normalised with.
    """

    names: ClassVar[tuple[str, ...]] = (
        "global",
        "fine_grained",
        "match_probability",
        "match_log_probability",
    )

    def __init__(
        self, model: Any, tokenizer: Any, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.size = model.config.vision_config.image_size
        positions = model.config.qformer_config.max_position_embeddings
        self.text_tokens = min(MAX_TEXT_TOKENS, positions)
        self.normalize = Normalize(mean, std)

    @classmethod
    def default_weights(cls, family: Family) -> Weights:
        """The family's evaluator."""
        return default_weights("global", family)

    @classmethod
    def from_pretrained(cls, weights: Weights, *, dtype: torch.dtype = torch.float32) -> Self:
        """An evaluator of a folder or hub repository in transformers' layout, on the CPU.

        Args:
            weights: such as ``Salesforce/blip2-itm-vit-g``.
            dtype: of the vision tower; the Q-Former stays in float32.

        Raises:
            UserError: it is not, or not all of, a BLIP-2 for image-text retrieval.
        """
        from transformers import AutoConfig, AutoProcessor, Blip2ForImageTextRetrieval

        with reading(weights):
            folder = weights.local_folder()
            _check_architecture(AutoConfig.from_pretrained(folder), weights)
            model, info = Blip2ForImageTextRetrieval.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
            processor = AutoProcessor.from_pretrained(folder)
        if info["missing_keys"]:  # the library fills them with random numbers
            raise UserError(
                f"the evaluator {weights.location!r} lacks {min(info['missing_keys'])!r} "
                f"({len(info['missing_keys'])} weights in all): give a whole BLIP-2 for "
                "image-text retrieval, such as Salesforce/blip2-itm-vit-g"
            )
        tokenizer = getattr(processor, "tokenizer", None)
        check_bert(tokenizer, model.config.qformer_config.vocab_size, weights)
        pictures = getattr(processor, "image_processor", None)
        values = picture_values(pictures, model.config.vision_config.image_size, weights)
        model.vision_model.to(dtype)
        return cls(model, tokenizer, *values)

    @torch.no_grad()
    def targets(self, images: Sequence[Image], descriptions: Sequence[str]) -> Targets:
        """The text side; the reference images are not looked at.

        Returns:
            ``evaluator_ids_BT`` and ``evaluator_mask_BT``, padded to a length that is the same of
            every call, and ``evaluator_text_BE``, the normalised [CLS] embedding.
        """
        given = self.tokenizer(list(descriptions))["input_ids"]
        cut = sum(len(ids) > self.text_tokens for ids in given)
        if cut:
            warnings.warn(
                f"{cut} descriptions are longer than the evaluator's {self.text_tokens} tokens: "
                "their ends do not count",
                HbTtaWarning,
                stacklevel=2,
            )
        batch = self.tokenizer(
            list(descriptions),
            padding="max_length",
            truncation=True,
            max_length=self.text_tokens,
            return_attention_mask=True,  # also of one whose model_input_names leave it out
            return_tensors="pt",
        )
        ids_BT, mask_BT = batch["input_ids"], batch["attention_mask"]
        return {
            "evaluator_ids_BT": ids_BT,
            "evaluator_mask_BT": mask_BT,
            "evaluator_text_BE": self._text_embeds(ids_BT, mask_BT),
        }

    def _text_embeds(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        model, device = self.model, self.model.device
        states_BTD = model.qformer(
            query_embeds=model.embeddings(input_ids=ids_BT.to(device)),
            query_length=0,
            attention_mask=mask_BT.to(device),
        ).last_hidden_state
        return F.normalize(model.text_projection(states_BTD[:, 0]), dim=-1).cpu()

    def forward(self, pixels_BCHW: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The four rewards (B,), for pixels in [0, 1] of any size."""
        tokens_BPD = self._vision(pixels_BCHW)
        cosines_B = self._contrast(tokens_BPD, targets["evaluator_text_BE"])
        logits_B2 = self._match(
            tokens_BPD, targets["evaluator_ids_BT"], targets["evaluator_mask_BT"]
        )
        return {
            "global": cosines_B,
            "fine_grained": logits_B2[:, 1],
            "match_probability": logits_B2.softmax(-1)[:, 1],
            "match_log_probability": logits_B2.log_softmax(-1)[:, 1],
        }

    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """The vision tower's mean patch, normalised."""
        return F.normalize(self._vision(pixels_BCHW)[:, 1:].mean(1), dim=-1)

    def _vision(self, pixels_BCHW: Tensor) -> Tensor:
        tower = self.model.vision_model
        pixels = self.normalize(resized(pixels_BCHW, self.size)).to(tower.dtype)
        return tower(pixel_values=pixels).last_hidden_state.to(self.model.query_tokens.dtype)

    def _contrast(self, tokens_BPD: Tensor, text_BE: Tensor) -> Tensor:
        """Equation 4."""
        model = self.model
        queries = model.query_tokens.expand(len(tokens_BPD), -1, -1)
        states_BQD = model.qformer(
            query_embeds=queries, encoder_hidden_states=tokens_BPD
        ).last_hidden_state
        images_BQE = F.normalize(model.vision_projection(states_BQD), dim=-1)
        return (images_BQE @ text_BE.to(images_BQE)[:, :, None])[..., 0].amax(1)

    def _match(self, tokens_BPD: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Equation 5's two logits."""
        model = self.model
        ids_BT, mask_BT = ids_BT.to(tokens_BPD.device), mask_BT.to(tokens_BPD.device)
        longest = int(mask_BT.sum(1).max())
        ids_BT, mask_BT = ids_BT[:, :longest], mask_BT[:, :longest]
        queries = model.query_tokens.expand(len(tokens_BPD), -1, -1)
        count = queries.shape[1]
        states = model.qformer(
            query_embeds=model.embeddings(input_ids=ids_BT, query_embeds=queries),
            query_length=count,
            attention_mask=torch.cat([mask_BT.new_ones(len(ids_BT), count), mask_BT], dim=1),
            encoder_hidden_states=tokens_BPD,
        ).last_hidden_state
        return model.itm_head(states[:, :count]).mean(1)


def _check_architecture(config: Any, weights: Weights) -> None:
    named = getattr(config, "architectures", None) or []
    right = "Blip2ForImageTextRetrieval"
    if config.model_type != "blip-2" or (named and right not in named):
        raise UserError(
            f"the evaluator {weights.location!r} is a {config.model_type} "
            f"({', '.join(named) or 'no architecture named'}), not a {right}: give one, such as "
            "Salesforce/blip2-itm-vit-g"
        )
    if not config.qformer_config.use_qformer_text_input:
        raise UserError(
            f"the evaluator {weights.location!r} has use_qformer_text_input=false, and reads no "
            "text: give one that does, such as Salesforce/blip2-itm-vit-g"
        )
