"""The model card: measures that are kept, rows with intervals, curves and contact sheets."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from hb_tta.pocket.captions import ATTRIBUTES, FORMS
from hb_tta.pocket.reader import Reader
from hb_tta.pocket.reading import Reading, reading_of
from hb_tta.pocket.world import render_batch, sample_scenes
from hb_tta.training.pocket_family import card, measure
from hb_tta.training.pocket_family.card import at_least, between, card_text, percent
from hb_tta.training.pocket_family.curves import draw_curves, stage_logs
from hb_tta.training.pocket_family.edits import SWAPS
from hb_tta.training.pocket_family.evaluate import (
    FIVE,
    best_guidance,
    both_judges,
    captioned,
    evaluate_captions,
    read_rightly,
)
from hb_tta.training.pocket_family.evaluate_views import UNASKED, spread
from hb_tta.training.pocket_family.measure import MEASURES, Measure, measured
from hb_tta.training.pocket_family.mllm_lessons import CATEGORIES
from hb_tta.training.pocket_family.run import RecipeRun
from hb_tta.training.pocket_family.sheets import RIGHT, WRONG, Cell, judged_cells, sheet, wrapped

SCENES = list(islice(sample_scenes(99), 40))
GOLDEN = Path(__file__).parent / "golden" / "hummingbird_pipeline" / "pipeline"


@pytest.fixture
def run(tmp_path: Path) -> RecipeRun:
    """A run with an untrained reader in it."""
    torch.manual_seed(0)
    made = RecipeRun(tmp_path / "work", tmp_path / "weights", scale=0.01)
    Reader(widths=(8, 16), hidden=32).save_pretrained(made.weights / "reader")
    made.work.mkdir()
    return made


# ── Measures ────────────────────────────────────────────────────────────────────────────────────


def test_a_measure_is_made_once_and_again_when_its_weights_change(
    run: RecipeRun, monkeypatch
) -> None:
    made = []

    def make(_: RecipeRun, number: int) -> dict:
        made.append(number)
        return {"plain": np.arange(number), "nested": {"figure": np.ones(2)}}

    monkeypatch.setitem(MEASURES, "trial", Measure(("reader",), 1000, make))
    first = measured(run, "trial")
    again = measured(run, "trial")
    assert made == [12]
    assert set(first) == set(again) == {"plain", "nested/figure"}
    assert np.array_equal(first["plain"], np.arange(12))
    torch.manual_seed(1)
    Reader(widths=(8, 16), hidden=32).save_pretrained(run.weights / "reader")
    measured(run, "trial")
    assert made == [12, 12]
    measured(RecipeRun(run.work, run.weights, scale=0.02), "trial")
    assert made == [12, 12, 20]


def test_the_best_guidance_has_the_best_average_and_is_the_smallest_of_equals() -> None:
    def figures(value: float) -> dict:
        return {"average": np.full(3, value)}

    assert best_guidance({"1.0": figures(0.5), "2.0": figures(0.8), "3.0": figures(0.7)}) == 2.0
    assert best_guidance({"3.0": figures(0.8), "1.5": figures(0.8)}) == 1.5


# ── Judging ─────────────────────────────────────────────────────────────────────────────────────


def test_what_is_misread_counts_against_its_attribute_alone() -> None:
    perfect = [reading_of(scene) for scene in SCENES]
    assert all(values.all() for values in read_rightly(perfect, SCENES).values())
    blind = [Reading(r.background, r.groups, frozenset()) for r in perfect]
    figures = read_rightly(blind, SCENES)
    assert figures["relation"].sum() == 0 and figures["count"].all()
    assert len(figures["relation"]) == sum(scene.relation is not None for scene in SCENES)
    shifted = read_rightly(perfect[1:] + perfect[:1], SCENES)
    assert shifted["scene"].mean() < 0.6 and shifted["shape"].mean() < 0.5


def test_a_reading_that_holds_too_much_is_no_right_relation() -> None:
    scene = next(scene for scene in SCENES if scene.relation == "left of")
    reading = reading_of(scene)
    greedy = Reading(
        reading.background, reading.groups, reading.relations | {(0, "right of", 1)}
    )  # fmt: skip
    assert read_rightly([reading], [scene])["relation"].all()
    assert not read_rightly([greedy], [scene])["relation"].any()


def test_both_readers_judge_rendered_pictures(run: RecipeRun) -> None:
    figures = both_judges(run, render_batch(SCENES), SCENES)
    for name in FIVE:
        assert figures[f"strict_{name}"].mean() > 0.95
        assert len(figures[name]) == len(figures[f"agree_{name}"])
        same = figures[name] == figures[f"strict_{name}"]
        assert np.array_equal(same, figures[f"agree_{name}"].astype(bool))
    assert len(figures["average"]) == len(figures["agree_reading"]) == len(SCENES)
    assert len(figures["shuffled_position"]) == len(figures["position"])


def test_captions_are_told_from_either_group_and_always_the_same() -> None:
    scenes = captioned(5, 200)
    assert scenes == captioned(5, 200)
    firsts = [scene.things[0].group for scene in scenes if len(scene.groups) == 2]
    assert 0.2 < np.mean(firsts) < 0.6


def test_pictures_are_drawn_by_the_stock_path(run: RecipeRun) -> None:
    (run.weights / "generator").symlink_to(GOLDEN)
    figures = evaluate_captions(run, 5, 2, 1.0)
    assert len(figures["scene"]) == 2 and set(np.unique(figures["scene"])) <= {0.0, 1.0}


def test_spread_is_zero_without_variety_and_the_worlds_with_it(run: RecipeRun) -> None:
    reader = Reader.from_pretrained(run.weights / "reader")
    pictures = render_batch([scene for scene in SCENES if len(scene.groups) == 1][:12])
    same = spread(reader, np.repeat(pictures[:1], 6, 0))
    assert same == {"scene": 0.0, "places": 0.0, "sizes": 0.0}
    varied = spread(reader, pictures)
    assert varied["places"] > 3 and varied["sizes"] > 0.3
    nothing = np.full((4, 64, 64, 3), 120, np.uint8)
    assert np.isnan(spread(reader, nothing)["places"])


# ── The card ────────────────────────────────────────────────────────────────────────────────────


def test_intervals_resample_images_and_rows_say_whether_the_aim_is_met() -> None:
    values = np.repeat([1.0, 0.0, 1.0, 1.0], 2)
    assert percent(values, images=2).n == 4 and percent(values).n == 8
    assert percent(values, images=2).estimate == 75
    assert at_least("x", values, 75).met and not at_least("x", values, 76).met
    assert between("x", values, 70, 80).met and not between("x", values, 80, 95).met
    assert at_least("x", values, 76).cells()[-1] == "**no**"
    assert at_least("x", np.ones(5), 98).cells() == [
        "x",
        "98",
        "100.0 [100.0, 100.0] %",
        "5",
        "yes",
    ]


def test_the_held_out_gap_is_a_difference_of_means() -> None:
    rng = np.random.default_rng(0)
    seen, unseen = rng.random(300), rng.random(200) * 0.8
    row = card._held_out(seen, unseen)
    assert row.interval.estimate == pytest.approx(100 * (seen.mean() - unseen.mean()))
    assert row.interval.low < row.interval.estimate < row.interval.high < 20
    assert not row.met


def test_a_generator_that_shows_nothing_has_no_spread(run: RecipeRun, monkeypatch) -> None:
    nothing = {name: np.full(3, np.nan) for name in UNASKED}
    world = {f"world_{name}": np.ones(3) for name in UNASKED}
    mixed = nothing | world | {"places": np.array([np.nan, 1.0, 0.8])}
    monkeypatch.setitem(MEASURES, "diversity", Measure(("reader",), 3, lambda *_: mixed))
    rows = {row.what.split()[-4]: row for row in card._diversity(run)}
    assert rows["places,"].interval.estimate == pytest.approx(90) and rows["places,"].met
    assert rows["sizes,"].interval.n == 0 and not rows["sizes,"].met


def _prepared(run: RecipeRun, monkeypatch) -> None:
    """Figures as a finished family might have them, in place of hours of training."""
    rng = np.random.default_rng(0)

    def shares(names, chance: float = 0.9, number: int = 40) -> dict:
        return {name: (rng.random(number) < chance).astype(float) for name in names}

    judged = [
        prefix + name
        for prefix in ("", "strict_", "agree_", "shuffled_")
        for name in (*FIVE, "bound", "average")
    ]
    read = [prefix + n for prefix in ("", "strict_") for n in card.READ]
    questions = ["accuracy", "single_word", "blind", "blank", "description", "text alone"]
    questions += [f"{name}, {part}" for name in ("accuracy", "description") for part in card.PARTS]
    mllm = {category: shares(questions) for category in CATEGORIES}
    mllm["best_blind"] = shares(CATEGORIES)
    forms = {form: shares(["all", "asked", "filling", *FIVE]) for form in FORMS}
    forms["embedding alone"] = shares(["all", "asked", "filling", *FIVE])
    spreads = [prefix + name for prefix in ("", "world_") for name in UNASKED]
    figures = {
        "vae": {"psnr": rng.normal(35, 1, 40)},
        "clip": shares(["colour and shape"]),
        "evaluator": shares([*ATTRIBUTES, *SWAPS]),
        "mllm": mllm,
        "mllm_two": mllm,
        "forms": forms,
        "forms_held_out": forms,
        "guidance": {scale: shares(judged) for scale in ("1.0", "2.0")},
        "diversity": {name: rng.uniform(0.9, 1.0, 16) for name in spreads},
        **{name: shares(read) for name in MEASURES if name.startswith("reader")},
        **{
            name: shares([*judged, "agree_reading"])
            for name in MEASURES
            if name.startswith(("captions", "embedding"))
        },
        **{
            name: {category: shares(("kept", "chance")) for category in CATEGORIES}
            for name in ("views", "views_of_records")
        },
    }
    assert set(figures) == set(MEASURES)
    for name, values in figures.items():
        guided = MEASURES[name].guided
        monkeypatch.setitem(
            measure.MEASURES, name, Measure(("reader",), 40, lambda *_, v=values: v, guided)
        )


def test_the_card_holds_every_aim_model_and_stage(run: RecipeRun, monkeypatch) -> None:
    _prepared(run, monkeypatch)
    log = [{"step": 5, "of": 10, "loss": 0.3, "seconds": 30, "scene": 0.9}]
    (run.work / "reader.jsonl").write_text(json.dumps(log[0]) + "\n")
    text = card_text(run)
    lines = text.splitlines()
    aims = lines[lines.index("## Aims") + 4 :]
    aims = aims[: aims.index("")]
    asked = len(CATEGORIES)
    assert len(aims) == 6 + 6 + 1 + 1 + 5 + 2 + 1 + (2 + 2 * len(FORMS)) + 6 * asked + 7 + 1 + 3
    for line in aims:
        assert line.count("|") == 6 and "nan" not in line, line
    assert "| VAE: round trips | 28 | 3" in text and " dB | 40 | yes |" in text
    assert "`reader`" in text and "| reader | 5 | 0.5 |" in text
    for name in ("world", "worn", "round_trips", "seeds", "captions", "curves"):
        assert f"({name}.png)" in text
    assert card_text(run) == text


def test_a_card_of_an_unfinished_family_says_what_is_not_there(run: RecipeRun, monkeypatch) -> None:
    _prepared(run, monkeypatch)
    monkeypatch.setitem(MEASURES, "clip", Measure(("clip",), 3, lambda *_: {}))
    monkeypatch.setitem(MEASURES, "views", Measure(("mllm",), 3, lambda *_: {}))
    text = card_text(run)
    assert "**Not there yet, and not measured: clip, mllm.**" in text
    assert "CLIP, zero-shot" not in text and "What a view keeps" not in text
    assert "reader: count" in text and "## Guidance" in text


def test_curves_show_every_log(run: RecipeRun) -> None:
    for stage, extra in (("unet", {}), ("reader", {"scene": 0.9, "count": 0.5})):
        lines = [{"step": s, "of": 3, "loss": 1 / s, "seconds": 60 * s, **extra} for s in (1, 2, 3)]
        (run.work / f"{stage}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (run.work / "empty.jsonl").write_text("")
    assert list(stage_logs(run)) == ["reader", "unet"]
    draw_curves(run, run.work / "curves.png")
    with Image.open(run.work / "curves.png") as image:
        assert image.width > 900 and len(np.unique(np.asarray(image))) > 50


def test_a_sheet_frames_right_pictures_green_and_wrong_ones_red() -> None:
    scenes = SCENES[:5]
    readings = [reading_of(scene) for scene in scenes]
    readings[3] = Reading("dusk" if scenes[3].background != "dusk" else "sea", ())
    cells = judged_cells(render_batch(scenes), readings, scenes)
    assert [cell.right for cell in cells] == [True, True, True, False, True]
    page = sheet(cells)
    assert {RIGHT, WRONG} <= colours_of(page)
    plain = sheet([Cell(cell.pictures, cell.lines) for cell in cells])
    assert RIGHT not in colours_of(plain)
    assert page.size == plain.size


def colours_of(picture: Image.Image) -> set[object]:
    return {colour for _, colour in picture.getcolors(1 << 24) or ()}


def test_lines_are_wrapped_to_the_tile() -> None:
    font = ImageFont.load_default(11)
    text = "three yellow triangles right of one black cross on sand"
    lines = wrapped(text, 150, font)
    assert " ".join(lines) == text and len(lines) > 1
    assert all(font.getlength(line) <= 150 for line in lines)
    assert wrapped("", 150, font) == []
