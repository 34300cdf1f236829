"""``hb-tta reproduce``: the frame, without models: names, plans, what is kept, what is missing."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from test_package import heavy_after

from hb_tta.cli import main
from hb_tta.errors import UserError
from hb_tta.experiments import carrying, claims, lacking, registry, site
from hb_tta.experiments.ledger import kept_lines
from hb_tta.experiments.methods import methods_of
from hb_tta.experiments.paper.mumu_rows import tuned_base
from hb_tta.experiments.plan import PlannedRun
from hb_tta.experiments.reproduction import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Cost,
    Experiment,
    Finding,
    Needs,
    Options,
    Shown,
)
from hb_tta.families import get_family
from hb_tta.generators.registry import GENERATORS
from hb_tta.metrics import PairedTest, paired_test
from hb_tta.report.cells import Cell, Table
from hb_tta.weights import Weights


@pytest.fixture
def options(tmp_path) -> Options:
    family = get_family("pocket")
    return Options(tmp_path / "out", family, split="dev", store=str(tmp_path / "store"), quiet=True)


def said(*_: str) -> None:
    pass


# ── Names ────────────────────────────────────────────────────────────────────────────────────────


def test_every_table_and_figure_is_there_and_nothing_heavy_is_imported_to_list_them(capsys):
    assert main(["reproduce", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(" ", 1)[0] for line in lines]
    assert names == registry.list_experiments()
    assert [f"table{n}" for n in range(1, 13)] == names[:12]
    figures = ["1g", *range(4, 8), *range(10, 19)]
    assert {f"figure{n}" for n in figures} <= set(names)
    assert {f"mumu{n}" for n in (1, *range(4, 13))} <= set(names)
    for line in lines:
        assert "[needs " in line or "[cannot be run yet: " in line or "[lacks something: " in line
    assert "needs questions, mllm, mllm two, randaugment" in lines[0] and "views, " in lines[0]
    code = "from hb_tta.cli import main; main(['reproduce', '--list'])"
    assert heavy_after(code).splitlines()[-1].strip() == ""


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["tabel1"], "there is no table or figure 'tabel1', did you mean 'table1'? choose from"),
        (["figure2"], "there is no table or figure 'figure2'"),
        (["table1", "--methods", "hummingbrid"], "no method 'hummingbrid', did you mean"),
        ([], "no table or figure is named: `hb-tta reproduce --list` has them"),
        (["table1", "--data", "mme"], "--data 'mme' names no folder: write NAME=DIR"),
        (["mumu10"], "mumu10 lacks mumu10: "),
    ],
)
def test_what_is_not_known_is_told_with_what_is(line, sentence, capsys, tmp_path):
    assert main(["reproduce", *line, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert sentence in told and "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_methods_are_the_papers_and_other_packages(options, monkeypatch):
    found = methods_of(options)
    assert found[-1] == "hummingbird" and "jitter" not in found
    with monkeypatch.context() as patch:
        names = [*GENERATORS.names(), "theirs"]
        patch.setattr(type(GENERATORS), "names", lambda self: names)
        assert methods_of(options) == [*found[:-1], "theirs", "hummingbird"]
    assert methods_of(replace(options, methods=("jitter", "jitter"))) == ["jitter"]


# ── What is kept ─────────────────────────────────────────────────────────────────────────────────


def test_a_stopped_run_goes_on_behind_its_last_whole_line(tmp_path):
    asked: list[int] = []

    def make(first: int, stop: int | None = None):
        for number in range(first, 5):
            if number == stop:
                raise KeyboardInterrupt
            asked.append(number)
            yield {"n": number}

    with pytest.raises(KeyboardInterrupt):
        kept_lines(tmp_path, "run", {"a": 1}, 5, lambda first: make(first, 3), quiet=True)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text(path.read_text() + '{"n": 3')  # as a kill leaves it
    found = kept_lines(tmp_path, "run", {"a": 1}, 5, make, quiet=True)
    assert found == [{"n": n} for n in range(5)] and asked == [0, 1, 2, 3, 4]
    assert kept_lines(tmp_path, "run", {"a": 1}, 5, make, quiet=True) == found
    assert kept_lines(tmp_path, "run", {"a": 2}, 5, make, quiet=True) == found
    assert len(asked) == 10 and len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_line_that_is_damaged_is_made_again_with_all_behind_it(tmp_path):
    made = []

    def make(first: int):
        for number in range(first, 4):
            made.append(number)
            yield number

    kept_lines(tmp_path, "run", {}, 4, make, quiet=True)
    (path,) = tmp_path.glob("*.jsonl")
    lines = path.read_text().splitlines()
    lines[2] = "\x00" * 7
    path.write_text("\n".join(lines) + "\n")
    assert kept_lines(tmp_path, "run", {}, 4, make, quiet=True) == [0, 1, 2, 3]
    assert made == [0, 1, 2, 3, 1, 2, 3]


def _slowly(folder: Path) -> None:
    def make(first: int):
        for number in range(first, 5):
            time.sleep(0.05)
            with open(folder / "made", "a") as file:
                file.write(f"{number}\n")
            yield number

    assert kept_lines(folder, "run", {}, 5, make, quiet=True) == [0, 1, 2, 3, 4]


def test_two_processes_make_the_same_results_once(tmp_path):
    runs = [get_context("fork").Process(target=_slowly, args=(tmp_path,)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)
        assert run.exitcode == 0
    assert (tmp_path / "made").read_text().split() == list("01234")


# ── Findings ─────────────────────────────────────────────────────────────────────────────────────


def test_a_claim_holds_where_every_comparison_does():
    up = PairedTest(0.1, 0.05, 0.15, 0.001, 100)
    down = PairedTest(-0.1, -0.15, -0.05, 0.001, 100)
    open_ = PairedTest(0.02, -0.01, 0.05, 0.3, 100)
    verdicts = {
        (up, up): HOLDS,
        (up, open_): UNDECIDED,
        (up, down): FAILS,
        (open_, down): FAILS,
        (): UNDECIDED,
        # An interval without 0 whose test does not tell it from chance decides nothing.
        (replace(up, p_value=0.08),): UNDECIDED,
        (replace(down, p_value=0.08),): UNDECIDED,
        # Of five comparisons one is that far below by chance; so far it is not.
        (replace(down, p_value=0.03), *[open_] * 4): UNDECIDED,
        (replace(down, p_value=0.009), *[open_] * 4): FAILS,
    }
    for tests, verdict in verdicts.items():
        assert Finding("it is so", [("a − b", test) for test in tests]).verdict == verdict


# ── A whole experiment, of toys ──────────────────────────────────────────────────────────────────


def toy(name: str = "table99", fails: str = "", needs: Needs | None = None) -> Experiment:
    def plan(options):
        for number, method in enumerate(("", "jitter", "randaugment")):
            yield PlannedRun(f"run {number}", lambda number=number: [float(number), 1.0], 0, method)

    def show(results, options):
        if fails:
            raise UserError(fails)
        rows = [[label, Cell(values[0] / 2)] for label, values in results.items()]
        test = paired_test([1, 1, 1, 0], [0, 0, 0, 0])
        return Shown(
            [Table(["", "share"], rows, f"The table of {name}")],
            findings=[Finding("it helps", [("a − b", test)])],
            files={f"{name}-more.html": b"<p>more", f"{name}-key.json": b"{}"},
        )

    its = needs or Needs(methods=("jitter", "randaugment"), cost=Cost(views=1200))
    return Experiment(name, "A toy", "Nobody, table 99", lambda _: its, plan, show)


def test_what_a_training_leads_to_is_run_with_it(options):
    """A plan's rows may only be known once its trainings are done."""
    trained: list[str] = []

    def plan(options):
        yield PlannedRun("training", lambda: trained.append("lora"))
        for name in trained:
            yield PlannedRun(f"views of {name}", lambda: [1.0])

    experiment = replace(toy(), plan=plan)
    assert list(carrying.carry_out(experiment, options, set(), said)) == [
        "training",
        "views of lora",
    ]


def test_what_an_experiment_leaves_behind(options):
    shown = carrying.reproduce(toy(), options, said)
    folder = options.folder
    text = (folder / "table99.md").read_text()
    assert "| run 2 | 100.0 |" in text and "| it helps | undecided | a − b |" in text
    found = json.loads((folder / "table99.json").read_text())
    assert found["source"] == "Nobody, table 99" and found["split"] == "dev"
    page = (folder / "table99.html").read_text()
    assert "The table of table99" in page and 'href="table99-more.html"' in page
    assert "table99-key.json" not in page
    assert (folder / "table99-key.json").read_bytes() == b"{}"
    assert len(shown.tables) == 1


def without_its_weights(monkeypatch) -> None:
    gone = Weights("some-team/not-here")
    known = lacking.weights_of
    monkeypatch.setattr(
        lacking,
        "weights_of",
        lambda method, options: {"base": gone} if method == "jitter" else known(method, options),
    )


def test_missing_weights_are_named_before_anything_runs(options, monkeypatch):
    without_its_weights(monkeypatch)
    with pytest.raises(UserError) as error:
        carrying.reproduce(toy(), options, said)
    sentence = str(error.value)
    assert "table99 lacks jitter's base, some-team/not-here: `hb-tta download some-team" in sentence
    assert "--skip-missing leaves that method out" in sentence
    assert not options.folder.exists()


def test_a_method_without_its_weights_is_left_out_on_request(options, monkeypatch):
    without_its_weights(monkeypatch)
    with pytest.warns(UserWarning, match="jitter is left out"):
        carrying.reproduce(toy(), replace(options, skip_missing=True), said)
    text = (options.folder / "table99.md").read_text()
    assert "run 0" in text and "run 1" not in text and "run 2" in text


def test_what_the_experiment_itself_needs_cannot_be_skipped(options):
    needs = Needs(weights={"oracle": Weights("some-team/not-here")})
    with pytest.raises(UserError, match="table99 lacks the oracle, some-team/not-here"):
        carrying.reproduce(toy(needs=needs), replace(options, skip_missing=True), said)


def test_check_says_what_is_missing_and_what_it_takes(capsys, monkeypatch, tmp_path):
    line = ["reproduce", "table4", "--family", "pocket", "--check", "--methods", "randaugment"]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "table4 has all that it needs; it takes 1,200 views, about" in told
    assert main(["reproduce", "table1", "--family", "sdxl", "--check"]) == 1
    told = capsys.readouterr().out
    assert "llava-hf/llava-v1.6-mistral-7b-hf: `hb-tta download llava-hf" in told
    assert "table1 lacks hummingbird" in told and "(--skip-missing leaves it out)" in told
    assert "lmms-lab/MME" in told
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_is_missing_weights(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert lacking.lack(Weights(str(empty))) == "the folder holds no model"
    assert "is no folder" in lacking.lack(Weights(str(tmp_path / "gone")))
    assert lacking.lack(get_family("pocket").weights("mllm")) == ""


def test_forecasts_in_words():
    assert carrying.spoken(0.2) == "1 s" and carrying.spoken(100) == "100 s"
    assert carrying.spoken(600) == "10 minutes" and carrying.spoken(4 * 3600) == "4 hours"
    assert carrying.spoken(5 * 86_400) == "5 days"
    cost = Cost(views=10, pictures=20) + Cost(views=5, trainings=1, mumu_trainings=2)
    assert cost.told() == "15 views, 20 pictures asked about, 1 trainings, 2 trainings of a MUMU"


def test_a_base_for_mumu_needs_a_lora_that_was_trained(options):
    with pytest.raises(UserError, match="reproduce table5 --train"):
        tuned_base(options)


def test_a_family_in_a_folder_has_its_results_outside_of_it(options, tmp_path):
    folders = [tmp_path / name / "models" for name in ("one", "other")]
    own = [replace(options, family=replace(options.family, name=str(one))) for one in folders]
    places = [one.folder for one in own]
    assert all(place.parent == options.out and "models" in place.name for place in places)
    assert places[0] != places[1] and options.folder == options.out / "pocket"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["--augment_args", "judge=fine_grained,min_score=0.5"], "min_score=0.5: here every view"),
        (["--augment_args", "preset=safe"], "preset=safe: here every view"),
        (["--train-set", "zzz=1"], "there is no setting 'zzz'"),
        (["--train-set", "max_steps=many"], "max_steps"),
    ],
)
def test_what_would_change_what_is_compared_is_refused(asked, sentence, capsys, tmp_path):
    line = ["reproduce", "table1", "--family", "pocket", "--check", "--out", str(tmp_path)]
    assert main([*line, *asked]) != 0
    assert sentence in capsys.readouterr().err


# ── The site ─────────────────────────────────────────────────────────────────────────────────────


def test_a_claim_of_the_papers_is_what_all_its_findings_come_to():
    up = PairedTest(0.1, 0.05, 0.15, 0.001, 100)
    open_ = PairedTest(0.02, -0.01, 0.05, 0.3, 100)
    best = Finding("one mllm", [("a − b", up)], about="best")
    found = {
        "table1": [best, Finding("views help", [("a − b", open_), ("c − d", up)], about="tta")],
        "table8": [best],
        "figure1g": [best],
    }

    def rows_of(found: dict) -> dict:
        table = claims.claims_table(found, {"table5": "not trained yet"})
        return {row[0]: row[1:] for row in table.rows}

    rows = rows_of(found)
    assert rows["Hummingbird is the most faithful method"][0] == HOLDS
    helps = rows["test-time augmentation helps on every task"]
    assert helps[0] == UNDECIDED and "a − b: +2.0" in helps[2]
    assert rows["each of the two rewards helps"] == (UNDECIDED, "table5", "table5: not trained yet")
    # What one of its tables does not speak to, or a comparison that was not made, leaves it open.
    faithful = "Hummingbird is the most faithful method"
    assert rows_of({"table1": [best], "table8": [best]})[faithful][0] == UNDECIDED
    half = Finding("another", reason="it was not trained", about="best")
    assert rows_of({**found, "table8": [best, half]})[faithful][0] == UNDECIDED
    known = set(registry.list_experiments())
    assert all(set(one.where) <= known for one in claims.CLAIMS.values())


def test_the_site_has_a_page_each_and_says_what_was_not_run(options):
    unbuilt = replace(toy("figure98"), unbuilt="nobody has written it")
    broken = toy("table97", fails="the data are of another year: fetch them")
    index = site.build([toy("table98"), toy("table99"), unbuilt, broken], options, said)
    folder = options.out / "site"
    assert index == folder / "index.html"
    names = {path.name for path in folder.iterdir()}
    pages = {"index.html", "claims.md", "table98.html", "table99.html"}
    assert "Hummingbird is the most faithful method" in (folder / "claims.md").read_text()
    pages |= {"table98-more.html", "table99-more.html", site.PAGES}
    assert names == pages  # and no survey's key
    text = index.read_text()
    assert 'href="table98.html"' in text and "nobody has written it" in text
    assert "fetch them" in text and "it helps" in text
    page = (folder / "table99.html").read_text()
    assert '<a href="table98.html">' in page and "The table of table99" in page


def test_a_page_that_is_no_longer_made_is_taken_away(options):
    site.build([toy("table98"), toy("table99")], options, said)
    folder = options.out / "site"
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("somebody's own")
    (folder / "CNAME").write_text("somebody's own")
    site.build([toy("table98")], options, said)
    assert not (folder / "table99.html").exists() and not (folder / "table99-more.html").exists()
    assert (folder / "table98.html").exists()
    assert (folder / "notes" / "mine.txt").exists() and (folder / "CNAME").exists()
