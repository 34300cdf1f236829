"""What a denoiser can draw while it is being trained: the card's curve of accuracy against time.

Pictures come from the stock pipeline with the captions alone, and are judged by the strict reader,
which needs no training.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline

from hb_tta.pocket.captions import caption
from hb_tta.pocket.reading import judge
from hb_tta.pocket.world import SIZE
from hb_tta.training.pocket_family.run import RecipeRun, dev_scenes
from hb_tta.training.pocket_family.strict_reader import read_strictly

GUIDANCE = 2.0
BATCH = 16


def judged_drawings(
    run: RecipeRun, pipeline: StableDiffusionXLPipeline, captions: int = 64
) -> dict[str, float]:
    """Accuracy by attribute on dev captions: see ``hb_tta.pocket.reading.judge``.

    Args:
        pipeline: with the denoiser as it stands.
    """
    scenes = dev_scenes(run, captions).records
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for start in range(0, len(scenes), BATCH):
        texts = [caption(scene) for scene in scenes[start : start + BATCH]]
        noise = [torch.Generator().manual_seed(start + row) for row in range(len(texts))]
        drawn = pipeline(
            texts, height=SIZE, width=SIZE, num_inference_steps=25, guidance_scale=GUIDANCE,
            generator=noise, output_type="np",
        ).images  # fmt: skip
        pictures.append((drawn * 255).round().astype(np.uint8))
    readings = read_strictly(np.concatenate(pictures))
    verdicts = [judge(reading, scene) for reading, scene in zip(readings, scenes, strict=True)]
    names = dict.fromkeys(name for verdict in verdicts for name in verdict)
    return {name: float(np.mean([v[name] for v in verdicts if name in v])) for name in names}
