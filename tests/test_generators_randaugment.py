"""RandAugment: torchvision's, seeded a view."""

import numpy as np
import pytest
import torch
from sdxl_folders import reference
from torchvision.transforms import RandAugment

from hb_tta.errors import UserError
from hb_tta.generators import RandAugmentSpec

REFERENCE = reference()


def views(seeds: list[int]) -> list[bytes]:
    (images,) = RandAugmentSpec().load().generate([(REFERENCE, None)], [seeds])
    assert all((image.mode, image.size) == ("RGB", REFERENCE.size) for image in images)
    return [image.tobytes() for image in images]


def test_it_is_torchvisions_with_its_defaults():
    torch.manual_seed(5)
    assert views([5]) == [RandAugment()(REFERENCE.convert("RGB")).tobytes()]


def test_a_seed_decides_its_view_alone():
    assert views([3, 1, 3]) == [views([3])[0], views([1])[0], views([3])[0]]
    assert len(set(views(list(range(12))))) > 8


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    views([1, 2])
    assert torch.equal(torch.rand(3), expected)
    np.random.seed(0)
    expected_np = np.random.rand()
    np.random.seed(0)
    views([1])
    assert np.random.rand() == expected_np


def test_mistakes_are_named():
    generator = RandAugmentSpec().load()
    with pytest.raises(UserError, match="output_type='latent'"):
        generator.generate([(REFERENCE, None)], [[0]], output_type="latent")
    with pytest.raises(UserError, match="1 contexts came with 0 lists"):
        generator.generate([(REFERENCE, None)], [])
    with pytest.raises(UserError, match="seed -9223372036854775809 is out of range"):
        generator.generate([(REFERENCE, None)], [[-(2**63) - 1]])
