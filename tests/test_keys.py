"""Keys as they are: what a store holds is found by them, so a change of one is never by chance."""

from pathlib import Path

from PIL import Image

from hb_tta import Augmenter, MultimodalContext
from hb_tta.images import load_image, pixel_digest
from hb_tta.store import content_key
from hb_tta.tpt.views import feature_request
from hb_tta.views.plan import FORMAT, description_key, view_key

PIXELS = "ab" * 32
DESCRIBER = {"mllm": "sha256:12", "dtype": "float32", "max_new_tokens": 77}
PINNED = {
    "pixels": "becb273cf1d8e38ecb6edc224e3da7b9e3c81ce2bd7d08cb399b835743694a39",
    "description": "85256f08bdc784ccb5c354efa2b1a086efbf51d75c837f0aa9a2ee9a4a983ee8",
    "view told": "a61af50fe1ac652217665357071d1616a2132239ebf19264c8d7b6c2b2d13b0b",
    "view bare": "61a6021d7dc14b17bfbf8eb4dae7b8f70bc2ddb56af300366c7ce16e65162956",
    "features": "70312c3594d4664f128c309978213cec82ddd6482b54cdf750a1021d4b9ad22c",
    "randaugment 0": "16ea860b51bbb832e36eec76b6b9b66da2282d4f66ee28bcad14376589c159f0",
    "randaugment 1": "3e3d9bfd819fddacc2a395d09a0de0fe61c14e3136a2fb65aacc2766da1de27b",
}
GENERATOR = {"method": "hummingbird", "version": 1, "guidance_scale": 15.0, "lora": None}


def test_the_digest_of_pixels() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    # The SHA-256 of '3x2\n' and 6 times '\1\2\3'.
    assert pixel_digest(load_image(image)) == PINNED["pixels"]


def test_the_key_of_a_description() -> None:
    assert FORMAT == 2
    key = description_key(PIXELS, "Is there a red circle?", "vqa", DESCRIBER)
    assert key == PINNED["description"]


def test_the_key_of_a_view() -> None:
    assert view_key(PIXELS, "A red circle, é.", GENERATOR, 7) == PINNED["view told"]
    assert view_key(PIXELS, None, GENERATOR, 0) == PINNED["view bare"]


def test_the_key_of_features() -> None:
    request = feature_request(
        ["file:" + PIXELS, "pixels:" + PIXELS],
        [["Is it?", "vqa"], ["", "object"]],
        clip={"weights": "sha256:34", "preprocess": "sha256:56"},
        crops=3,
        generated={"n": 2, "generator": GENERATOR, "describer": DESCRIBER},
        seed=0,
    )
    assert content_key(request) == PINNED["features"]


def test_the_key_of_an_augmenters_view(tmp_path: Path) -> None:
    augmenter = Augmenter.from_pretrained("randaugment", family="pocket", store=tmp_path)
    context = MultimodalContext(Image.new("RGB", (3, 2), (1, 2, 3)), "Is it?")
    assert augmenter.view_keys([context], n=2) == [
        [
            PINNED["randaugment 0"],
            PINNED["randaugment 1"],
        ]
    ]
