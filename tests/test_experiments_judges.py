"""What is measured of views and judges: the figures are of what they say."""

from __future__ import annotations

import argparse
import math

import numpy as np
import pytest
from PIL import Image

from hb_tta.experiments.fidelity import TEMPLATES, Asked, share, table
from hb_tta.experiments.judges import _figures, bars_table, questions_table
from hb_tta.metrics import roc_auc
from hb_tta.pocket.tasks import SPLITS, question_pairs
from hb_tta.report.cells import Cell


def test_the_area_under_the_curve() -> None:
    assert roc_auc([1, 2, 3, 4], [0, 0, 1, 1]) == 1.0
    assert roc_auc([4, 3, 2, 1], [0, 0, 1, 1]) == 0.0
    assert roc_auc([1, 1, 1, 1], [0, 1, 0, 1]) == 0.5
    assert roc_auc([1, 2, 2, 3], [0, 0, 1, 1]) == (1 + 0.5 + 1 + 1) / 4
    assert math.isnan(roc_auc([1, 2], [1, 1])) and math.isnan(roc_auc([1, 2], [0, 0]))
    rng = np.random.default_rng(0)
    scores, right = rng.normal(size=60).round(1), rng.integers(0, 2, 60)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[right == 1] for b in scores[right == 0]]
    assert roc_auc(scores, right) == pytest.approx(np.mean(pairs))
    with pytest.raises(ValueError, match="right"):
        roc_auc([1, 2], [0.5, 1])


def test_a_view_is_faithful_where_the_reader_answers_as_of_the_reference() -> None:
    asked = Asked.of("color", "dev", 3)
    references = [context.image for context in asked.contexts]
    assert [its.tolist() for its in asked.faithful([[i, i] for i in references])] == [[1, 1]] * 6
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    assert [its.tolist() for its in asked.faithful([[grey]] * 6)] == [[0]] * 6
    assert asked.questions[0] != asked.questions[1] and references[0] == references[1]


def test_the_templates_say_what_they_say() -> None:
    pair = next(question_pairs("color", SPLITS["dev"]))
    told = {name: its.context(pair, pair.yes) for name, its in TEMPLATES.items()}
    assert told["question"].guidance == pair.yes and told["question"].description is None
    assert told["generic"].task == "generic" and told["generic"].guidance == ""
    assert told["focused"].description == pair.description
    assert told["full"].description != pair.description
    colours = {group.colour for group in pair.told.groups}
    assert not colours & set((told["colourless"].description or "red").split())
    assert TEMPLATES["drafts"].drafts > 1


ROWS = {
    "score": [[0.9, 0.2], [0.1, 0.8], [0.7, 0.6], [0.3, 0.4]],
    "real": [[0.5, 0.5]] * 4,
    "faithful": [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]],
}


def test_a_judges_figures() -> None:
    faithful, auc, precision, recall, best = _figures(ROWS)
    for cell in (faithful, auc, precision, recall, best):
        assert isinstance(cell, Cell) and cell.n == 2  # images
    values = [cell.estimate for cell in (faithful, auc, precision, recall, best)]  # type: ignore[union-attr]
    # Kept: 0.9 right, 0.8 right, 0.7 wrong, 0.6 right. Best: right, right, wrong, wrong.
    assert values == pytest.approx([4 / 8, 11 / 16, 3 / 4, 3 / 4, 2 / 4])
    only_right = {**ROWS, "faithful": [[1.0, 1.0]] * 4}
    assert _figures(only_right)[1] == "–"


def test_what_a_bar_keeps() -> None:
    found = bars_table({"fine_grained": {"color": ROWS}, "vqa_yes": {"color": ROWS}})
    kept = {
        row[1]: [cell.estimate for cell in row[2:] if isinstance(cell, Cell)] for row in found.rows
    }
    assert kept["real"] == pytest.approx([4 / 8, 3 / 4, 3 / 4])
    assert kept["real-1"] == pytest.approx([1, 4 / 8, 1]) and kept["2"] == [
        0,
        0,
    ]  # of none no share
    assert {row[0] for row in found.rows} == {"fine_grained"}


def test_tables_have_a_row_a_judge_and_category() -> None:
    options = argparse.Namespace(images=2, views=2)
    found = questions_table({"itm": {"color": ROWS, "count": ROWS}}, options)
    assert [row[:2] for row in found.rows] == [("itm", "color"), ("itm", "count"), ("itm", "all")]
    asked = argparse.Namespace(method="hummingbird", images=1, views=2)
    told = table({"question": {"color": [[1.0, 0.0], [1.0, 1.0]]}}, asked)
    assert told.rows[0][0] == "question" and share([[1.0, 0.0], [1.0, 1.0]]).estimate == 0.75
