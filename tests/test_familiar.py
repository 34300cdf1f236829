"""A family knows an image that it is not for, and says so before it makes nonsense of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from augmenting import GOLDEN
from PIL import Image

from hb_tta import Augmenter, DescribedContext, UserError
from hb_tta.cli import main
from hb_tta.families import get_family
from hb_tta.pocket.edition import BUNDLED
from hb_tta.pocket.world import render_batch, sample_scenes
from hb_tta.pocket.worn import wear_some
from hb_tta.training.image_statistics import image_statistics, write_statistics
from hb_tta.views.familiar import FILE, Encoder, FamiliarSpec
from hb_tta.weights import Weights

SEED = 40_777  # no scene of it was among those that the statistics are of


@pytest.fixture(scope="module")
def familiar():
    family = get_family("pocket")
    return FamiliarSpec(family.weights("statistics"), family.weights("image_encoder")).load("cpu")


def scenes(number: int, held_out: bool = False) -> np.ndarray:
    stream = sample_scenes(SEED, held_out=held_out, edition=BUNDLED)
    return np.asarray(render_batch(list(islice(stream, number))))


def photographs() -> list[Image.Image]:
    """A real one, and crops of it: hair, flag, medals, a shoulder."""
    cbook = pytest.importorskip("matplotlib.cbook")
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        whole = Image.open(file).convert("RGB")
    width, height = whole.size
    boxes = [(x, y, x + width // 2, y + width // 2) for x in (0, width // 2) for y in (0, 150, 300)]
    return [*(whole.crop(box) for box in boxes if box[3] <= height), whole]


@pytest.mark.parametrize("held_out", [False, True], ids=["scenes", "held-out looks"])
def test_the_world_is_familiar_worn_or_not(familiar, held_out) -> None:
    pictures = scenes(150, held_out)
    worn = wear_some(pictures, np.random.default_rng(1), 1.0)
    both = [Image.fromarray(picture) for picture in (*pictures, *worn)]
    far = [distance > familiar.limit for distance in familiar.distances(both)]
    assert sum(far) <= 1  # of 300


def test_photographs_are_not(familiar) -> None:
    distances = familiar.distances(photographs())
    assert all(distance > familiar.limit for distance in distances)
    note = familiar.note(distances[-1])
    assert note and "unlike the scenes of the pocket world" in note and "--family sdxl" in note
    assert familiar.note(familiar.limit) is None


def test_the_command_warns_before_and_the_manifest_says_it_also_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pics").mkdir()
    Image.fromarray(scenes(1)[0]).save("pics/a.png")
    photographs()[-1].save("pics/b.png")
    line = ["augment", "pics", "--family", "pocket", "-n", "1", "--steps", "1", "--store", "store"]
    for out in ("first", "second"):
        assert main([*line, "--device", "cpu", "--out", out]) == 0
        told = capsys.readouterr().err
        assert ("warning: an image is unlike the scenes of the pocket world" in told) == (
            out == "first"
        )
        lines = [json.loads(line) for line in Path(out, "manifest.jsonl").read_text().splitlines()]
        assert lines[0]["warnings"] == []
        assert any("unlike the scenes" in warning for warning in lines[1]["warnings"])
        assert "unlike the scenes" in Path(out, "index.html").read_text()


def test_models_of_ones_own_and_methods_without_models_say_nothing(tmp_path: Path) -> None:
    photograph = photographs()[-1]
    own = Augmenter.from_pretrained(
        "hummingbird", family="pocket", base=str(GOLDEN / "pipeline"), describer=None, lora=None,
        num_inference_steps=1, store=tmp_path,
    )  # fmt: skip
    none = Augmenter.from_pretrained("randaugment", family="pocket", store=tmp_path)
    for augmenter in (own, none):
        (made,) = augmenter.augment([DescribedContext(photograph, "a woman")], n=1)
        assert made.warnings == []
    with pytest.warns(UserWarning, match="unlike the scenes of the pocket world"):
        Augmenter.from_pretrained(
            "hummingbird", family="pocket", describer=None, num_inference_steps=1, store=tmp_path
        ).augment([DescribedContext(photograph, "a woman")], n=1)


@pytest.mark.filterwarnings("ignore:an image is unlike")
def test_with_a_least_score_no_view_of_an_unlike_image_is_trusted(tmp_path: Path) -> None:
    scene, photograph = Image.fromarray(scenes(1)[0]), photographs()[-1]
    contexts = [DescribedContext(image, "a woman") for image in (scene, photograph)]

    def shown(**selection) -> list[int]:
        augmenter = Augmenter.from_pretrained(
            "hummingbird", family="pocket", describer=None, num_inference_steps=1, store=tmp_path,
            judge="fine_grained", **selection,
        )  # fmt: skip
        made = augmenter.augment(contexts, n=2)
        assert [len(its.views) + len(its.dropped) for its in made] == [2, 2]
        return [len(its.views) for its in made]

    assert shown(min_score=-1000) == [2, 0]
    assert shown() == [2, 2]


def test_statistics_are_made_of_any_images(tmp_path: Path) -> None:
    encoder = get_family("pocket").weights("image_encoder")
    pictures = [Image.fromarray(picture) for picture in scenes(900)]
    file = write_statistics(tmp_path, encoder, pictures[:700], pictures[700:], "a few scenes")
    found = FamiliarSpec(Weights(str(tmp_path)), encoder).load("cpu")
    assert found.trained_on == "a few scenes" and "unlike a few scenes" in found.sentence
    assert max(found.distances(pictures[700:])) < found.limit
    assert min(found.distances(photographs())) > found.limit
    other = replace(encoder, location=str(tmp_path / "generator"))
    shutil.copytree(encoder.location, other.location)
    with open(tmp_path / "generator" / "image_encoder" / "config.json", "a") as config:
        config.write("\n")
    with pytest.raises(UserError, match="they are another image encoder's"):
        FamiliarSpec(Weights(str(tmp_path)), other).load("cpu")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"image statistics in .*{FILE}.* cannot be read"):
        FamiliarSpec(Weights(str(tmp_path)), encoder).load("cpu")


def test_distances_are_those_of_mahalanobis() -> None:
    import torch

    torch.manual_seed(0)
    features = torch.randn(5000, 6) * torch.arange(1, 7) ** 0.3 + 4
    encoder = Encoder(None, None)
    encoder.__class__ = type("Given", (Encoder,), {"__call__": lambda self, given: given})
    found = image_statistics(encoder, features, features[:100])  # type: ignore[arg-type]
    from scipy.spatial.distance import mahalanobis

    inverse = torch.linalg.inv(torch.cov(features.T).double()).numpy()
    from hb_tta.views.familiar import distances

    ours = distances(features[:5], found["mean"], found["whitening"]) * 6**0.5
    mean = features.mean(0).numpy()
    theirs = [mahalanobis(row, mean, inverse) for row in features[:5].numpy()]
    assert ours.tolist() == pytest.approx(theirs, rel=0.05)  # the covariance is shrunk a little
