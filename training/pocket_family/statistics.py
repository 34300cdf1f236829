"""Stage "statistics": by which the family knows an image that is none of its world."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hb_tta.pocket.edition import THIRD, Edition
from hb_tta.pocket.worn import STRENGTHS, wear_some
from hb_tta.training.image_statistics import write_statistics
from hb_tta.training.pocket_family.run import DEV_SEED, TRAIN_SEED, RecipeRun, Scenes
from hb_tta.weights import Weights

SEEN, UNSEEN = 4000, 2000  # scenes; of the former as many worn ones come beside as of the latter
TRAINED_ON = "the scenes of the pocket world"


def write_image_statistics(
    run: RecipeRun, edition: Edition = THIRD, *, held_out: bool | None = None
) -> None:
    """Writes the role "statistics" beside the image encoder's.

    Args:
        edition: the world that the encoder was trained on.
        held_out: of its scenes, see ``Scenes``.
    """
    folder = Weights(str(run.weights / "generator"), subfolder="image_encoder")
    rng = np.random.default_rng([run.seed, 7])

    def pictures(seed: int, number: int, worn: float) -> list[Image.Image]:
        scenes = Scenes(seed + 1000 * run.seed, number, held_out=held_out, edition=edition)
        drawn = wear_some(scenes.pictures, rng, worn, STRENGTHS) if worn else scenes.pictures
        return [Image.fromarray(picture) for picture in drawn]

    seen, unseen = run.examples(SEEN, least=600), run.examples(UNSEEN, least=200)
    write_statistics(
        run.weights / "statistics",
        folder,
        [*pictures(TRAIN_SEED, seen, 0.0), *pictures(TRAIN_SEED + 10, unseen, 1.0)],
        [*pictures(DEV_SEED, unseen // 2, 0.0), *pictures(DEV_SEED + 10, unseen // 2, 1.0)],
        TRAINED_ON,
    )
