"""Several drafts of a description: how they come about, and which one is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from augmenting import CONTEXTS, Make, picture
from test_rewards import save_evaluator

from hb_tta import MultimodalContext, UserError
from hb_tta.describe import DescriberSpec
from hb_tta.describe.drafts import Drafting, distances, settle
from hb_tta.store import Store

pytest_plugins = ["augmenting"]
# A model with random weights does not come to an end.
pytestmark = pytest.mark.filterwarnings("ignore:the description was too long")


# ── Texts ────────────────────────────────────────────────────────────────────────────────────────

TWO = "Two red circles left of one blue square."


def test_the_draft_nearest_to_all_others_is_told() -> None:
    drafts = ["Three red circles left of one blue square.", TWO, TWO, "Two red circles on grass."]
    text, doubtful = settle(drafts)
    assert text == TWO and doubtful == ()
    assert settle([TWO, TWO[::-1]]).text == TWO  # of equals the first
    assert settle(["", ""]) == ("", ())
    assert settle([TWO]) == (TWO, ())


def test_the_distance_is_of_words_and_their_neighbours() -> None:
    same, other, none = distances(["a red dog", "A red dog.", "x y"])[0], 0.5, 1.0
    assert same == pytest.approx((0 + none) / 2) and other == same
    turned = distances(["a left of b", "b left of a"])
    assert 0 < turned[0] == turned[1] < 1


def test_a_judges_score_may_decide() -> None:
    drafts = [TWO, TWO, "Three red circles."]
    assert settle(drafts, scores=[0.1, 0.1, 0.2]).text == drafts[2]
    assert settle(drafts, scores=[0.2, 0.2, 0.2]).text == TWO


def test_what_drafts_disagree_on_is_flagged_or_left_out() -> None:
    drafts = [f"{n} red circles left of a {c} square." for n, c in (
        ("Two", "blue"), ("Three", "blue"), ("Four", "blue"), ("One", "green"))]  # fmt: skip
    text, doubtful = settle(drafts)
    assert text in drafts and doubtful == (text.split()[0],)
    left, same = settle(drafts, doubt="leave_out")
    assert left == "red circles left of a blue square." and same == doubtful


def test_a_plural_alone_is_no_disagreement() -> None:
    drafts = ["one cross on grass", "two crosses on grass", "three crosses on grass"]
    assert settle(drafts, doubt="leave_out").text.split()[-3:] in (
        ["cross", "on", "grass"],
        ["crosses", "on", "grass"],
    )


def test_a_sentence_that_only_one_draft_has_is_left_out_whole() -> None:
    common = "A dog sits on a red mat."
    drafts = [f"{common} A unicorn flies past.", common, common]
    text, doubtful = settle(drafts, doubt="leave_out", scores=[1, 0, 0])
    assert text == common and "unicorn" in doubtful
    assert settle(["Quite this.", "Other words."], doubt="leave_out").text == "Quite this."


@pytest.mark.parametrize("text", ["1", "5", "3+sampled", "64+sampled+score+leave_out", "2+score"])
def test_drafting_is_spelled_in_one_text(text: str) -> None:
    drafting = Drafting.parse(text)
    assert str(drafting) == text and Drafting.parse(str(drafting)) == drafting
    assert Drafting.parse("5+leave_out+sampled") == Drafting(5, "sampled", "text", "leave_out")
    assert Drafting.parse(5) == Drafting(5)


@pytest.mark.parametrize("wrong", ["", "0", "65", "-1", "two", "5+all", "5+sampled+jittered", "5+",
                                   True, 2.5, None])  # fmt: skip
def test_a_number_of_drafts_that_is_none(make_augmenter: Make, wrong: object) -> None:
    with pytest.raises(UserError, match="drafts=.* is no number of drafts: give COUNT"):
        make_augmenter(drafts=wrong)


def test_a_draft_by_score_needs_a_judge(make_augmenter: Make) -> None:
    with pytest.raises(UserError, match="drafts=3[+]score needs a judge"):
        make_augmenter(drafts="3+score")


# ── Models ───────────────────────────────────────────────────────────────────────────────────────


def test_words_drawn_at_random_depend_on_their_seed_alone(tiny_describer: DescriberSpec) -> None:
    describer = tiny_describer.load("cpu")
    contexts = [MultimodalContext(picture(n), "Is it?") for n in (0, 0, 1, 0)]
    seeds = [None, 1, 2, 3]
    together = describer.describe(contexts, seeds)
    alone = [describer.describe([c], [s])[0] for c, s in zip(contexts, seeds, strict=True)]
    assert together == alone == describer.describe(contexts, seeds)
    assert together[0] == describer.describe(contexts[:1])[0]
    assert len({together[0], together[1], together[3]}) == 3


def written(store: Store) -> list[dict]:
    found = [store.read(e.namespace, e.key) for e in store.entries()]
    return [meta for _, meta in filter(None, found) if "guidance" in meta]


@pytest.mark.parametrize("kind", ["jittered", "sampled"])
def test_drafts_are_kept_and_the_first_is_todays(
    make_augmenter: Make, tmp_path: Path, kind: str
) -> None:
    store = Store(tmp_path / "store")
    plain = make_augmenter().augment(CONTEXTS[:2], n=1)
    assert len(written(store)) == 2
    augmenter = make_augmenter(drafts=f"4+{kind}", fresh=True)
    assert augmenter.view_keys(CONTEXTS[:2], n=1) == [None, None] and augmenter.lacks(CONTEXTS[:2])
    made = augmenter.augment(CONTEXTS[:2], n=1)
    assert len(written(store)) == 8  # the first drafts were there
    drafts = [meta["draft"]["number"] for meta in written(store) if "draft" in meta]
    assert sorted(drafts) == [1, 1, 2, 2, 3, 3]
    assert {m["draft"]["kind"] for m in written(store) if "draft" in m} == {kind}
    assert all(its.spec["describer"]["drafts"].startswith("4") for its in made)
    assert "drafts" not in plain[0].spec["describer"]
    again = make_augmenter(drafts=f"4+{kind}", fresh=True)
    assert again.augment(CONTEXTS[:2], n=1) == made and again._models.loaded == []
    assert not again.lacks(CONTEXTS[:2], n=1)
    told = again.descriptions(CONTEXTS[:2])
    assert all(
        (t or "").startswith(its.description or "!") for t, its in zip(told, made, strict=True)
    )


def test_what_is_doubtful_is_told(make_augmenter: Make) -> None:
    made = make_augmenter(drafts="4+sampled").augment(CONTEXTS[:2], n=1)
    notes = [note for its in made for note in its.warnings]
    assert any(note.startswith("the drafts of the description disagree on: ") for note in notes)


def test_a_judge_chooses_the_draft_that_is_most_true_of_the_image(
    make_augmenter: Make, tmp_path: Path
) -> None:
    judge = f"itm:{save_evaluator(tmp_path / 'evaluator')}"
    augmenter = make_augmenter(drafts="4+sampled+score", judge=judge)
    augmenter.augment(CONTEXTS[:1], n=1)
    store, scores, drafts = Store(tmp_path / "store"), {}, set()
    for entry in store.entries():
        payload, meta = store.read(entry.namespace, entry.key) or (b"", {})
        if entry.namespace == "scores" and "pixels" in meta:
            scores[meta["text"]] = json.loads(payload)["score"]
        if entry.namespace == "descriptions":
            drafts.add(json.loads(payload)["description"])
    assert len(drafts) >= 3
    (told,) = augmenter.descriptions(CONTEXTS[:1])
    assert told in drafts and scores[told] == max(scores[draft] for draft in drafts)
