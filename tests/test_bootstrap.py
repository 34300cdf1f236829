"""Words of captions in images: phrases, boxes by token logits, and the command's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_grounding import build_model, make_processor
from transformers import Owlv2Config, Owlv2ForObjectDetection

from hb_tta.cli import main
from hb_tta.detect import Box, Detector, Filters, boxes_in, noun_phrases
from hb_tta.detect.boxes import one_a_phrase, overlap
from hb_tta.detect.detector import Found, as_text, tokens_of
from hb_tta.detect.phrases import is_person
from hb_tta.detect.whole import available, canny
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.pocket.world import sample_scenes
from hb_tta.training.mumu import synthetic

# ── Phrases ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("two red circles left of a blue square on grass", ["red circles", "blue square", "grass"]),
        ("a man and his dog in the cartoon style", ["man", "dog"]),
        ("A woman wearing a red hat is riding a brown horse.", ["woman", "red hat", "brown horse"]),
        ("a smiling girl, holding 2 balloons", ["smiling girl", "balloons"]),
        ("people dressed in black", ["people", "black"]),
        ("a dog, a dog and another dog", ["dog"]),
        ("the view of nothing at all", []),
        ("", []),
        ("…!? 42", []),
        ("Ein Mädchen", ["Ein Mädchen"]),  # it knows English alone
    ],
)
def test_noun_phrases(text, phrases):
    found = noun_phrases(text)
    assert [one.text for one in found] == phrases
    assert all(text[one.start : one.end] == one.text for one in found)


def test_persons():
    assert [is_person(text) for text in ("old man", "children", "man's hat", "")] == [
        True, True, False, False,
    ]  # fmt: skip


# ── Boxes ───────────────────────────────────────────────────────────────────────────────────────


def test_tokens_are_those_of_our_own_spans():
    text, spans = as_text(["red circle", "Dog"])
    assert text == "red circle. dog." and [text[a:b] for a, b in spans] == ["red circle", "dog"]
    processor = make_processor()
    offsets = processor.tokenizer(text, return_offsets_mapping=True).offset_mapping
    places = [tokens_of(span, offsets) for span in spans]
    ids = processor.tokenizer(text).input_ids
    tokens = processor.tokenizer.convert_ids_to_tokens(ids)
    assert [[tokens[i] for i in its] for its in places] == [["red", "circle"], ["[UNK]"]]
    delimiters = [ids[tokens.index(one)] for one in ("[CLS]", "[SEP]", ".")]
    assert delimiters == [101, 102, 1012], "BERT's, which GroundingDINO has written into it"


def test_the_word_of_a_box_is_its_surest_phrase_not_a_glued_label(monkeypatch):
    """Two phrases share a word; each box's own logits over the whole phrase say which it is."""
    processor = make_processor()
    detector = Detector(build_model(processor), processor)
    text, _ = as_text(["red circle", "blue circle"])
    logits = torch.full((1, 3, 64), -9.0)
    tokens = processor.tokenizer.convert_ids_to_tokens(processor.tokenizer(text).input_ids)
    where: dict[str, list[int]] = {}
    for place, token in enumerate(tokens):
        where.setdefault(token, []).append(place)
    logits[0, 0, [*where["red"], *where["circle"]]] = (
        2.0  # a red circle; "circle" twice in the text
    )
    logits[0, 1, [*where["blue"], *where["circle"]]] = 1.0
    logits[0, 2, where["red"]] = -0.5  # nothing sure
    boxes = torch.tensor([[[0.25, 0.5, 0.2, 0.4], [0.75, 0.5, 0.6, 0.4], [0.5, 0.5, 1, 1]]])
    out = type("Out", (), {"logits": logits, "pred_boxes": boxes})
    monkeypatch.setattr(detector.model, "forward", lambda **given: out)
    (found,) = detector.find([Image.new("RGB", (100, 50))], [["red circle", "blue circle"]])
    assert [one.phrase for one in found] == [0, 1]
    assert found[0].box == pytest.approx((15, 15, 35, 35))
    assert found[1].box == pytest.approx((45, 15, 100, 35)), "within the image"
    (library,) = processor.post_process_grounded_object_detection(
        out, processor.tokenizer([text], return_tensors="pt").input_ids, 0.35, 0.25, [(50, 100)]
    )
    assert library["text_labels"][0] != "red circle", "what this guards against"


def test_real_classes_load_again_and_find_what_they_find(tmp_path):
    processor = make_processor()
    torch.manual_seed(0)
    model = build_model(processor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    images = [Image.new("RGB", (64, 48), "red"), Image.new("RGB", (64, 64))]
    phrases = [["red circle", "square"], []]
    ours = Detector(model, processor).find(images, phrases, threshold=0.0, text_threshold=0.0)
    again = Detector.from_pretrained(tmp_path)
    theirs = again.find(images, phrases, threshold=0.0, text_threshold=0.0)
    assert ours == theirs and len(ours[0]) == 16 and ours[1] == []
    many = again.find(images[:1], [["circle"] * 40], threshold=0.0, text_threshold=0.0)
    assert {one.phrase // 16 for one in many[0]} == {0, 1, 2}, "in texts of 16 phrases"
    with pytest.raises(UserError, match="no detector of phrases"):
        (tmp_path / "config.json").write_text("{}")
        Detector.from_pretrained(tmp_path)


def found(phrase: int, box: tuple[float, float, float, float], score: float) -> Found:
    return Found(phrase, box, score)


def test_one_box_a_phrase_and_one_phrase_a_thing():
    same, near = (0, 0, 10, 10), (0, 0, 10, 9)
    kept = one_a_phrase([found(0, same, 0.9), found(1, near, 0.8), found(0, (50, 50, 60, 60), 0.7)])
    assert [(one.phrase, one.box) for one in kept] == [(0, same)]
    assert overlap(same, near) == pytest.approx(0.9) and overlap(same, (20, 20, 30, 30)) == 0


class Told:
    """What a detector says of each phrase, in the place of one."""

    def __init__(self, **boxes: tuple[float, float, float, float]) -> None:
        self.boxes = boxes

    def find(self, images: Any, phrases: Any, **_: float) -> list[list[Found]]:
        return [
            [
                found(place, self.boxes[one.split()[-1]], 0.9 - 0.1 * place)
                for place, one in enumerate(some)
                if one.split()[-1] in self.boxes
            ]
            for some in phrases
        ]


def test_boxes_are_filtered_as_in_the_paper():
    detector: Any = Told(
        man=(100, 0, 400, 300), dog=(0, 0, 140, 140), house=(0, 0, 999, 999), head=(10, 5, 50, 45)
    )
    image, text = Image.new("RGB", (1000, 1000)), "a man and his dog beside the house"
    (its,) = boxes_in(detector, [image], [text])
    assert [box.word for box in its] == ["man"], "too small, too large"
    assert its[0].head == (110, 5, 150, 45), "in the image, from the person's own box"
    (wide,) = boxes_in(detector, [image], [text], Filters(least_area=1, most_share=1), heads=False)
    assert [box.word for box in wide] == ["man", "dog", "house"] and wide[0].head is None
    (one,) = boxes_in(detector, [image], [text], Filters(least_area=1, most_share=1, most=1))
    assert [box.word for box in one] == ["man"]
    again = Box.from_json(json.loads(json.dumps(its[0].to_json())), text, image.size)
    assert again == its[0]


def test_edges_of_the_whole_image_and_a_kind_whose_library_is_missing(monkeypatch):
    image = Image.new("RGB", (40, 30))
    image.paste("white", (10, 10, 30, 20))
    edges = canny(image)
    assert edges.size == image.size and 0 < np.asarray(edges).mean() < 100
    assert set(available(["canny"])) == {"canny"}
    with pytest.raises(UserError, match="no picture of a whole image 'cany', did you mean"):
        available(["cany"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.warns(HbTtaWarning, match="canny is left out: it needs cv2"):
        assert available(["canny"]) == {}


# ── The command ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def owl(tmp_path_factory) -> Path:
    """An OWLv2 of random weights, whose every box passes at a threshold of almost 0."""
    from transformers import Owlv2ImageProcessor, Owlv2Processor

    folder = tmp_path_factory.mktemp("owl")
    tokenizer = make_processor().tokenizer  # OWLv2 takes a text that begins with the id 0 for none
    small = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    torch.manual_seed(1)
    config = Owlv2Config(
        text_config=dict(
            vocab_size=len(tokenizer), max_position_embeddings=64, **small,
        ),
        vision_config=dict(image_size=64, patch_size=16, **small), projection_dim=32,
    )  # fmt: skip
    model = Owlv2ForObjectDetection(config)
    for parameter in model.parameters():  # its own first weights say nothing, with certainty
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    pictures = Owlv2ImageProcessor(size={"height": 64, "width": 64})
    Owlv2Processor(pictures, tokenizer).save_pretrained(folder)
    return folder


def test_bootstrap_writes_boxes_goes_on_and_lists_bad_rows(owl, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(5):
        picture = rng.integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(picture).save(f"{number}.png")
        rows.append(
            {"image": f"{number}.png", "caption": f"a red circle and {number} blue squares"}
        )
    Path("2.png").write_bytes(b"no image")
    rows[3]["caption"] = 7
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["bootstrap", "rows.jsonl", "--family", "pocket", "--detector", str(owl)]
    command += ["--out", "out", "--threshold", "1e-9", "--text-threshold", "1e-9"]
    command += ["--least-area", "0", "--most-share", "1", "--batch-size", "2"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "line 3" in said and "line 4" in said and "2.png" in said
    lines = [json.loads(line) for line in Path("out/boxes.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == [1, 2, 3, 4, 5]
    assert ["failure" in line for line in lines] == [False, False, True, True, False]
    for line in (lines[0], lines[1], lines[4]):
        assert line["image"].startswith("../") and line["size"] == [80, 60]
        for box in line["boxes"]:
            Box.from_json(box, line["caption"], (80, 60))
    assert any(line.get("boxes") for line in lines)
    page = Path("out/index.html").read_text()
    assert page.count("<section>") == 3 and "data:image/png" in page
    assert not list(Path("out").rglob("*.png")), "boxes, never crops"
    # ── after a kill: half a line is left, and what was done stays as it is ──
    whole = Path("out/boxes.jsonl").read_bytes()
    Path("out/boxes.jsonl").write_bytes(whole[: whole.index(b"\n") + 20])
    looked: list[int] = []
    find = Detector.find

    def counted(self: Detector, images: Any, *given: Any, **named: Any) -> Any:
        looked.append(len(images))
        return find(self, images, *given, **named)

    monkeypatch.setattr(Detector, "find", counted)
    assert main(command) == 1
    assert Path("out/boxes.jsonl").read_bytes() == whole and sum(looked) == 2
    capsys.readouterr()
    # ── in two parts: joined they have the whole's lines ──
    assert main([*command, "--shard", "1/2"]) == main([*command, "--shard", "2/2"]) == 1
    parts = [Path(f"out/boxes-0000{number}-of-00002.jsonl").read_bytes() for number in (1, 2)]
    assert [len(part.splitlines()) for part in parts] == [3, 2]
    assert sorted(b"".join(parts).splitlines()) == sorted(whole.splitlines())
    assert Path("out/boxes.jsonl").read_bytes() == whole
    assert Path("out/index-00002-of-00002.html").is_file()
    capsys.readouterr()
    assert main([*command, "--threshold", "0.9"]) == 1
    assert "another filters: give another --out" in capsys.readouterr().err


def test_bootstrap_describes_images_without_captions(owl, tmp_path, capsys):
    from hb_tta.pocket.world import render

    (tmp_path / "photos").mkdir()
    render(next(sample_scenes(3))).save(tmp_path / "photos" / "a.png")
    command = ["bootstrap", str(tmp_path / "photos"), "--family", "pocket", "--detector", str(owl)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    (line,) = map(json.loads, (tmp_path / "out" / "boxes.jsonl").read_text().splitlines())
    assert len(line["caption"].split()) > 2
    assert "images: 1" in capsys.readouterr().out


def test_synthetic_images_are_kept_by_their_reward(tmp_path, capsys):
    (tmp_path / "c.txt").write_text("one red circle\n\ntwo blue squares\n")
    (tmp_path / "s.txt").write_text("on grass\non sea\non sand\n")
    command = ["--contents", str(tmp_path / "c.txt"), "--styles", str(tmp_path / "s.txt")]
    command += ["--out", str(tmp_path / "out"), "--each", "2", "--keep", "0.5"]
    command += ["--family", "pocket", "--reward", "clip_text"]
    synthetic.main(command)
    rows = [
        json.loads(line) for line in (tmp_path / "out" / "images.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 2 and all((tmp_path / "out" / row["image"]).is_file() for row in rows)
    assert all(row["caption"].split(", ")[1].startswith("on ") for row in rows)
    (tmp_path / "s.txt").write_text("on dusk\n")
    with pytest.raises(UserError, match="give another --out"):
        synthetic.main(command)
    assert list(synthetic.pairs(["a"], ["x", "y", "z"], 8, 0)) == [
        *synthetic.pairs(["a"], ["x", "y", "z"], 3, 0)
    ]
