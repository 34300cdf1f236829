"""What a processor of transformers lacks in older folders, taken from the model's configuration.

Imports no torch.
"""

from __future__ import annotations

from typing import Any


def complete(processor: Any, config: Any) -> None:
    """Fills in what LLaVA's older folders leave to the model: how many tokens an image is.

    What a folder says itself stays. Processors of other kinds have none of it.

    Args:
        processor: of ``AutoProcessor``, in place.
        config: the model's.
    """
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return
    if getattr(processor, "patch_size", 0) is None:
        processor.patch_size = vision.patch_size
        # CLIP's tower has a class token beside its patches, SigLIP's has none.
        processor.num_additional_image_tokens = int(vision.model_type == "clip_vision_model")
    if getattr(processor, "vision_feature_select_strategy", "") is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
