"""One image that a model refuses is that image's fault: the others get their views."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from augmenting import GOLDEN, picture

from hb_tta import Augmenter, MultimodalContext, UserError
from hb_tta.cli import main
from hb_tta.describe import DescriberSpec
from hb_tta.training.data import open_source
from hb_tta.training.prepare import Share, describe_all
from hb_tta.views.refusals import apart, tried
from hb_tta.weights import Weights

pytest_plugins = ["augmenting"]
pytestmark = pytest.mark.filterwarnings("ignore:the description was too long")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A describer whose processor refuses what is over 200 times as wide as it is high."""
    return tiny_models.save_qwen_vl(tmp_path_factory.mktemp("qwen"))


def augmenter(qwen: Path, store: Path) -> Augmenter:
    return Augmenter.from_pretrained(
        "hummingbird",
        family="pocket",
        base=str(GOLDEN / "pipeline"),
        lora=None,
        describer=str(qwen),
        num_inference_steps=1,
        store=store,
    )


CONTEXTS = [
    MultimodalContext(picture(0), "Is it red?"),
    MultimodalContext(picture(1).resize((700, 3)), "Is it red?"),
    MultimodalContext(picture(2), "Is it red?"),
]


def test_an_image_that_the_describer_refuses(qwen: Path, tmp_path: Path) -> None:
    failed: list[tuple[int, str]] = []
    done = list(
        augmenter(qwen, tmp_path / "store").iter_augment(
            CONTEXTS, n=1, on_failure=lambda number, error: failed.append((number, str(error)))
        )
    )
    assert len(done) == 2 and [number for number, _ in failed] == [1]
    assert "the describer refuses the image (ValueError: absolute aspect ratio" in failed[0][1]
    with pytest.raises(UserError, match="context 1: the describer refuses the image"):
        augmenter(qwen, tmp_path / "store").augment(CONTEXTS, n=1)


def test_the_command_makes_the_others_and_says_which(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = []
    for number, context in enumerate(CONTEXTS):
        context.image.save(f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "Is it red?"})
    rows.insert(1, {"image": "gone.png", "question": "?"})
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["augment", "rows.jsonl", "--family", "pocket", "--describer", str(qwen), "-n", "1"]
    line += ["--base", str(GOLDEN / "pipeline"), "--lora", "none", "--steps", "1"]
    assert main([*line, "--store", "store", "--device", "cpu"]) == 1
    told = capsys.readouterr().err
    assert "images that failed: 2" in told and "line 3: the describer refuses the image" in told
    lines = [
        json.loads(line) for line in Path("hb-tta-out/manifest.jsonl").read_text().splitlines()
    ]
    assert [(line["index"], "failure" in line) for line in lines] == [
        (1, False), (2, True), (3, True), (4, False),
    ]  # fmt: skip


def test_what_is_refused_together_is_asked_for_alone() -> None:
    asked: list[list[int]] = []

    def halves(numbers: Any) -> list[float]:
        asked.append(list(numbers))
        return [1 / number for number in numbers]

    found = apart([1, 0, 2], halves, "the divider")
    assert found[0] == 1.0 and found[2] == 0.5
    assert str(found[1]).startswith("the divider refuses the image (ZeroDivisionError: division")
    assert asked == [[1, 0, 2], [1], [0], [2]]
    with pytest.raises(KeyError):  # a bug is none of the image's
        apart([1], lambda numbers: [_raise(KeyError("a"))], "nobody")
    with pytest.raises(UserError):  # nor is what a person can mend
        apart([1, 2], lambda numbers: _raise(UserError("no weights")), "nobody")


def test_who_takes_no_image_at_all_is_broken() -> None:
    """Not the image: a bug keeps its traceback."""

    def broken(contexts: Any) -> Any:
        raise RuntimeError("a bug")

    def narrow(contexts: Any) -> list[int]:
        if any(max(image.size) > 200 * min(image.size) for image, _ in contexts):
            raise ValueError("aspect ratio")
        return [0 for _ in contexts]

    odd = (picture(0).resize((700, 3)), "red")
    for images in ([odd], [odd, odd], [(picture(0), "red")]):
        with pytest.raises(RuntimeError, match="a bug"):
            apart(images, broken, "the generator")
    for images in ([odd], [odd, odd]):
        found = apart(images, narrow, "the generator")
        assert [str(one) for one in found] == [
            "the generator refuses the image (ValueError: aspect ratio)"
        ] * len(images)


def test_what_cannot_be_read_is_told_apart_from_the_rest() -> None:
    found = tried([1, 2], lambda number: number if number == 1 else _raise(UserError("gone")))
    assert found[0] == 1 and str(found[1]) == "gone"


def _raise(error: Exception) -> Any:
    raise error


def test_a_training_goes_on_without_the_row(qwen: Path, tmp_path: Path) -> None:
    for number, context in enumerate(CONTEXTS):
        context.image.save(tmp_path / f"{number}.png")
    rows = [{"image": f"{number}.png", "question": "Is it red?"} for number in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(str(tmp_path / "rows.jsonl"))
    assert source is not None
    describe_all(
        source, None, tmp_path / "described", DescriberSpec(Weights(str(qwen)), max_new_tokens=4),
        share=Share(), device="cpu", progress=lambda *given: None,
    )  # fmt: skip
    (shard,) = (tmp_path / "described").iterdir()
    found = json.loads(shard.read_bytes())
    assert [("bad" in row) for row in found][1]
    assert found[1]["bad"].startswith("row 1: the describer refuses the image (ValueError")
