"""Images in what a harness gives its model are found and replaced, whatever is around them."""

from __future__ import annotations

import pytest
from hb_tta.integrations.questions import images, with_images
from PIL import Image

RED, GREEN, BLUE = (Image.new("RGB", (2, 2), colour) for colour in ("red", "green", "blue"))

CHAT = [
    {"role": "system", "content": "You are helpful."},
    {
        "role": "user",
        "content": [
            {"type": "image", "url": RED},
            {"type": "text", "text": "and"},
            {"type": "image", "url": "dog.png"},
            {"type": "video", "url": "dog.mp4"},
        ],
    },
]


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        ([RED, GREEN], [RED, GREEN]),
        (CHAT, [RED, "dog.png"]),
        ((RED, {"a": [GREEN]}), [RED, GREEN]),
        ("no image", []),
        (None, []),
    ],
)
def test_images_are_found_in_order(tree, found):
    assert list(images(tree)) == found


def test_others_take_their_places_and_the_rest_stays():
    changed = with_images(CHAT, iter([GREEN, BLUE]))
    assert list(images(changed)) == [GREEN, BLUE]
    assert changed[0] == CHAT[0]
    assert changed[1]["content"][1::2] == CHAT[1]["content"][1::2]
    assert list(images(CHAT)) == [RED, "dog.png"], "the input was changed"


def test_kinds_of_lists_stay():
    assert with_images((RED, [RED]), iter([GREEN, BLUE])) == (GREEN, [BLUE])
