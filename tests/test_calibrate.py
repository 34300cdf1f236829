"""``hb-tta calibrate``: settings replayed from what views said, and honest gains."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from report_files import write_augmented, write_plain

from hb_tta import UserError
from hb_tta.cli import main
from hb_tta.cli.calibrate import line_to_type, verdict
from hb_tta.report import renderers
from hb_tta.report.calibration import calibrate, table
from hb_tta.report.records import Record, Run, Seen
from hb_tta.report.replay import Setting, plain, replayed, said
from hb_tta.store import Store

COMMAND = "lmms-eval --model x --augment hummingbird --augment_args n=2,preset=paper --log_samples"


def seen(p_yes, score=None, label="seed 0"):
    return Seen(label, (), math.log(0.99 * p_yes), math.log(0.99 - 0.99 * p_yes), score=score)


def run(rows, **settings):
    """Rows of (right answer, each view's probability of yes, each view's score)."""
    records = []
    for number, (target, chances, scores) in enumerate(rows):
        views = [seen(*both) for both in zip(chances, scores or [None] * 9, strict=False)]
        mean = np.mean([np.log(p) - np.log(1 - p) for p in chances])
        right = float((mean > 0) == (target == "Yes"))
        records.append(Record(str(number), str(number // 2), "c", right, target=target, seen=views))
    return Run("views", records, settings=settings, command=COMMAND)


ROWS = [
    ("Yes", [0.6, 0.1, 0.2], [0.9, 0.2, 0.3]),  # sure enough, and broken by its views
    ("No", [0.7, 0.1, 0.3], [0.9, 0.95, 0.2]),  # fixed, by a view that its judge likes
    ("No", [0.02, 0.99, 0.99], [0.9, 0.1, 0.1]),  # very sure
    ("No", [0.4, 0.95, 0.2], [0.9, 0.1, 0.9]),  # broken by one that its judge does not like
]


def test_a_run_is_replayed_by_hand():
    its = said(run(ROWS))
    assert plain(its).tolist() == [1, 0, 1, 1]
    assert replayed(its, Setting())[0].tolist() == [0, 1, 0, 0]
    assert replayed(its, Setting(gate=0.0))[0].tolist() == plain(its).tolist()
    right, shown = replayed(its, Setting(gate=0.9))
    assert right.tolist() == [0, 1, 1, 0] and shown.tolist() == [2, 2, 0, 2]
    right, shown = replayed(its, Setting(min_score=0.5))
    assert right.tolist() == [1, 1, 1, 1] and shown.tolist() == [0, 1, 0, 1]
    assert replayed(its, Setting(min_score="real"))[1].tolist() == [0, 1, 0, 1]
    assert replayed(its, Setting(min_score="real+0.01"))[1].tolist() == [0, 1, 0, 0]
    assert replayed(its, Setting(min_score="real-0.75"))[1].tolist() == [2, 2, 0, 1]


def noisy(number, seed, *, good, judged=True):
    """Questions whose views are right in a share ``good``; their judge knows which."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(number):
        sign = rng.choice([-1, 1])

        def chance(margin, sign=sign):
            return 1 / (1 + math.exp(-sign * margin))

        hard = rng.random() < 0.3
        chances, scores = [chance(rng.normal(0.3 if hard else 4, 1))], [0.9]
        for _ in range(3):
            faithful = rng.random() < good
            chances.append(chance(rng.normal(2.5 if faithful else -4, 1)))
            scores.append(rng.normal(0.9 if faithful else 0.4, 0.1))
        rows.append(("Yes" if sign > 0 else "No", chances, scores if judged else None))
    return rows


def test_what_helps_is_found_and_what_does_not_is_said():
    found = calibrate(run(noisy(300, 0, good=0.7), combine="mean", real_weight="1.0"))
    by_name = {choice.name: choice for choice in found.choices}
    assert found.agree == 1.0
    assert by_name["judge"].test.low > 0 > by_name["all views, their mean"].test.high
    best = found.best
    assert best.setting.min_score is not None and best.test.low > 0
    assert "gains +" in verdict(found)
    line = line_to_type(found)
    assert line.startswith("lmms-eval --model x --augment hummingbird --augment_args")
    for part in ("n=2", "preset=paper", "gate=", f"min_score={best.setting.min_score}"):
        assert part in line
    shown = renderers.text(table([found]))
    assert "plain" in shown and "fixed" in shown and "cross-" in shown

    useless = calibrate(run(noisy(300, 1, good=0.5, judged=False)))
    assert all("judge" not in choice.name for choice in useless.choices)
    assert useless.best.test.low <= 0 and "no choice is told from the plain" in verdict(useless)


def test_a_gain_is_not_of_the_questions_it_was_chosen_on():
    """Views that say anything: the best of many settings looks good on the questions themselves."""
    rng = np.random.default_rng(1)
    rows = [
        (rng.choice(["Yes", "No"]), rng.uniform(0.1, 0.9, 4).tolist(), rng.uniform(size=4).tolist())
        for _ in range(80)
    ]
    found = calibrate(run(rows))
    everything = found.choices[-1]
    chosen = replayed(found.said, everything.setting)[0].mean() - plain(found.said).mean()
    assert chosen > 0.02 > everything.test.difference


def test_runs_that_do_not_tell_are_refused():
    refused = [
        (run(ROWS, gate="0.9"), "with gate=0.9, so some questions have no views"),
        (run([("Yes", [0.5], None), *ROWS]), "does not say yes and no of every view"),
        (run([("Yes", [0.5, 0.6], None), *ROWS]), "more views of some questions than of others"),
        (run([("blue", [0.5, 0.6, 0.7], None), *ROWS]), "has the answer 'blue'"),
        (Run("empty", []), "does not say yes and no of every view"),
    ]
    for one, part in refused:
        with pytest.raises(UserError, match=part):
            said(one)


def test_without_a_command_the_settings_are_told():
    found = calibrate(run(noisy(60, 2, good=0.9)))
    bare = type(found)(Run("x", ()), found.said, found.choices, found.agree)
    assert line_to_type(bare).startswith("--augment_args gate=")


def test_the_command(tmp_path, capsys):
    store = Store(tmp_path / "store")
    write_plain(tmp_path / "plain")
    write_augmented(tmp_path / "augmented", store)
    folders = [str(tmp_path / "plain"), str(tmp_path / "augmented")]
    assert main(["calibrate", *folders, "--json", str(tmp_path / "figures.json")]) == 0
    told = capsys.readouterr().out
    assert "all views, their mean" in told and "8 questions, 4 images" in told
    assert "gate=" in told.splitlines()[-1]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["task"] == "mme" and len(figures["rows"]) == 5
    assert main(["calibrate", folders[0]]) == 1
    assert "has no run with --augment" in capsys.readouterr().err
