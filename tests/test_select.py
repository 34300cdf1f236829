"""Candidates, judges, scores: what is shown, what is dropped, and that nothing is made twice."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from augmenting import CONTEXTS, GOLDEN, Make, contents, picture
from test_rewards import save_evaluator

from hb_tta import Augmentation, Augmenter, DescribedContext, MultimodalContext, UserError
from hb_tta.describe import DescriberSpec
from hb_tta.families import Family, get_family
from hb_tta.pocket.tasks import pocket_mme
from hb_tta.spelling import Unfit
from hb_tta.store import Store
from hb_tta.views import choice
from hb_tta.views.judges import JudgeSpec, list_judges, read_judge
from hb_tta.views.select import Selection, choose, read_min_score, threshold
from hb_tta.weights import Weights

pytest_plugins = ["augmenting"]
# A model with random weights does not come to an end.
pytestmark = pytest.mark.filterwarnings("ignore:the description was too long")


# ── Numbers in, places out ───────────────────────────────────────────────────────────────────────


def test_the_best_are_chosen_in_order_of_their_seeds() -> None:
    assert choose([0.1, 0.9, 0.5, 0.7], 2) == [1, 3]
    assert choose([0.9, 0.1, 0.5, 0.7], 3) == [0, 2, 3]
    assert choose([0.5, 0.5, 0.5], 2) == [0, 1]
    assert choose([0.1, 0.5, 0.5, 0.5], 2) == [1, 2]
    assert choose([0.1, 0.9, 0.5], 3, least=0.5) == [1, 2]
    assert choose([0.1, 0.9, 0.5], 2, least=0.95) == []
    assert choose([-3.0, -1.0], 1) == [1]
    assert choose([], 4) == []


@pytest.mark.parametrize(
    ("given", "read", "least"),
    [
        (None, None, -math.inf),
        ("none", None, -math.inf),
        (0, 0.0, 0.0),
        ("0.25", 0.25, 0.25),
        ("-2", -2.0, -2.0),
        ("real", "real", 3.0),
        ("real+0", "real", 3.0),
        ("real-0.1", "real-0.1", 2.9),
        ("REAL - .5", "real-0.5", 2.5),
        ("real+1e-2", "real+0.01", 3.01),
    ],
)
def test_a_least_score_as_it_is_spelled(given: Any, read: Any, least: float) -> None:
    assert read_min_score(given) == read
    assert read_min_score(read_min_score(given)) == read
    assert threshold(read, real_score=3.0) == pytest.approx(least)


@pytest.mark.parametrize(
    "given", ["", "much", "real*2", "real-", "real--1", "nan", "inf", True, []]
)
def test_a_least_score_that_is_none(given: Any) -> None:
    with pytest.raises(Unfit, match="is no score"):
        read_min_score(given)
    with pytest.raises(UserError, match="min_score=.* is no score"):
        Selection(min_score=given)


def test_what_makes_no_sense_without_a_judge_is_refused(make_augmenter: Make) -> None:
    with pytest.raises(UserError, match="min_score=0.5 has no meaning without a judge"):
        make_augmenter(min_score=0.5)
    with pytest.raises(UserError, match="candidates=8 without a judge would show the first 4"):
        make_augmenter(candidates=8)(picture(0), "Is it?", n=4)
    with pytest.raises(UserError, match="candidates=2 are fewer than the 4 views"):
        make_augmenter(judge="itm", candidates=2)(picture(0), "Is it?", n=4)


def test_judges_have_the_names_of_rewards() -> None:
    assert {"global", "fine_grained", "clip_text", "pickscore", "vqa_yes"} <= set(list_judges())
    assert read_judge("itm") == "fine_grained" and read_judge("itc") == "global"
    assert read_judge(None) == read_judge("none") == "none"
    assert read_judge("itm:some/weights") == "fine_grained:some/weights"
    for wrong in ("ITX", "itm:", "none:x", ""):
        with pytest.raises(Unfit, match="is no judge: choose from none, global, fine_grained"):
            read_judge(wrong)
    with pytest.raises(UserError, match="judge='beauty' is no judge"):
        Augmenter.from_pretrained("hummingbird", family="pocket", judge="beauty", store=False)


# ── Judges on tiny models ────────────────────────────────────────────────────────────────────────


class Indifferent(torch.nn.Module):
    """A reward of another package that likes everything as much."""

    names = ("indifferent",)

    @classmethod
    def default_weights(cls, family: Family) -> Weights:
        return family.weights("reader")

    @classmethod
    def from_pretrained(cls, weights: Weights, *, dtype: torch.dtype = torch.float32) -> Any:
        return cls()

    def targets(self, images: Any, descriptions: Any) -> dict[str, torch.Tensor]:
        return {}

    def forward(self, pixels_BCHW: torch.Tensor, targets: Any) -> dict[str, torch.Tensor]:
        return {"indifferent": pixels_BCHW.new_full((len(pixels_BCHW),), 0.5)}


class Broken(Indifferent):
    """Gives no numbers."""

    names = ("broken",)

    def forward(self, pixels_BCHW: torch.Tensor, targets: Any) -> dict[str, torch.Tensor]:
        return {"broken": pixels_BCHW.new_full((len(pixels_BCHW),), math.nan)}


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        metadata.EntryPoint(name, f"test_select:{kind}", "hb_tta.rewards")
        for name, kind in (("indifferent", "Indifferent"), ("broken", "Broken"))
    ]
    real = metadata.entry_points
    monkeypatch.setattr(
        metadata,
        "entry_points",
        lambda group: entries if group == "hb_tta.rewards" else real(group=group),
    )


@pytest.fixture(scope="module")
def itm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A judge: a tiny BLIP-2."""
    return f"fine_grained:{save_evaluator(tmp_path_factory.mktemp('evaluator'))}"


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many views each call of a generator made."""
    from hb_tta.views.models import Models

    calls: list[int] = []
    own = Models.generate

    def counted(self: Any, contexts: Any, seeds: Any) -> Any:
        calls.append(sum(map(len, seeds)))
        return own(self, contexts, seeds)

    monkeypatch.setattr(Models, "generate", counted)
    return calls


def same_views(a: Augmentation, b: Augmentation) -> bool:
    return (a.files, a.seeds, a.keys, a.description) == (b.files, b.seeds, b.keys, b.description)


def test_as_many_candidates_as_views_are_todays_views(make_augmenter: Make, itm: str) -> None:
    plain = make_augmenter().augment(CONTEXTS, n=2, seed=5)
    judged = make_augmenter(judge=itm).augment(CONTEXTS, n=2, seed=5)
    assert all(map(same_views, plain, judged))
    for before, its in zip(plain, judged, strict=True):
        assert before.scores is None and before.real_score is None and before.dropped == []
        assert its.scores is not None and len(its.scores) == 2 and its.dropped == []
        assert its.real_score is not None
        assert "selection" not in before.spec and its.spec["selection"]["judge"]["score"]


def test_a_judge_that_likes_everything_changes_nothing(make_augmenter: Make, plugins: None) -> None:
    plain = make_augmenter().augment(CONTEXTS, n=2)
    for more in ({}, {"min_score": "real"}, {"min_score": 0.5}):
        liked = make_augmenter(judge="indifferent", candidates=5, **more).augment(CONTEXTS, n=2)
        assert all(map(same_views, plain, liked))
        assert all(its.scores == [0.5, 0.5] and its.real_score == 0.5 for its in liked)
        assert all([seed for seed, _, _ in its.dropped] == [2, 3, 4] for its in liked)


def test_the_judges_best_are_shown(make_augmenter: Make, itm: str) -> None:
    all_of_them = make_augmenter().augment(CONTEXTS, n=6)
    changed = 0
    for its, candidates in zip(
        make_augmenter(judge=itm, candidates=6).augment(CONTEXTS, n=2), all_of_them, strict=True
    ):
        assert its.scores is not None and len(its.files) == len(its.scores) == 2
        assert min(its.scores) >= max(score for _, _, score in its.dropped)
        assert its.seeds == sorted(its.seeds) and len(its.dropped) == 4
        seeds = [*its.seeds, *(seed for seed, _, _ in its.dropped)]
        assert sorted(seeds) == candidates.seeds
        assert [candidates.files[seed] for seed in its.seeds] == its.files
        assert [candidates.keys[seed] for seed, _, _ in its.dropped] == [
            k for _, k, _ in its.dropped
        ]
        changed += its.seeds != [0, 1]
    assert changed  # the test would say nothing of a judge that likes the first two


def test_a_dropped_view_is_never_shown_and_is_used_again(
    make_augmenter: Make, itm: str, generated: list[int], tmp_path: Path
) -> None:
    best = make_augmenter(judge=itm, candidates=4).augment(CONTEXTS, n=1)
    made, files = sum(generated), contents(Store(tmp_path / "store"))
    assert made == 4 * len(CONTEXTS) == len(files)
    for its in best:
        assert not {key for _, key, _ in its.dropped} & set(its.keys)
    kept = [s for its in best for s in its.scores or ()]
    lost = [s for its in best for _, _, s in its.dropped]
    # Another n, another least score, nobody's judgement: the same files, nothing generated again.
    high = make_augmenter(judge=itm, candidates=4, min_score=max(kept)).augment(CONTEXTS, n=4)
    assert sum(len(its.keys) for its in high) == sum(s >= max(kept) for s in kept + lost)
    assert any(its.files == its.views == its.scores == [] for its in high)
    assert all(len(its.keys) + len(its.dropped) == 4 for its in high)
    plain = make_augmenter().augment(CONTEXTS, n=4)
    assert {key for _, key, _ in best[0].dropped} <= set(plain[0].keys)
    assert sum(generated) == made and contents(Store(tmp_path / "store")) == files


def test_a_least_score_relative_to_the_real_images(make_augmenter: Make, itm: str) -> None:
    for text in ("real", "real-0.05", "real+0.05"):
        for its in make_augmenter(judge=itm, candidates=4, min_score=text).augment(CONTEXTS, n=4):
            assert its.real_score is not None and its.scores is not None
            least = its.real_score + float(text.removeprefix("real") or 0)
            assert all(score >= least for score in its.scores)
            assert all(score < least for _, _, score in its.dropped)


def test_scores_do_not_depend_on_the_batch(
    make_augmenter: Make,
    itm: str,
    tiny_describer: DescriberSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_augmenter().augment(CONTEXTS, n=3)  # the same pixels for all
    found: dict[tuple[str, int], list[float]] = {}
    for judge in (itm, JudgeSpec("vqa_yes", tiny_describer.mllm)):
        name = judge if isinstance(judge, str) else judge.name
        for size in (1, 5, 16):
            monkeypatch.setattr(choice, "SCORES_PER_BATCH", size)
            for entry in Store(tmp_path / "store").entries():
                if entry.namespace == "scores":
                    entry.path.unlink()
            contexts = CONTEXTS[::-1] if size == 5 else CONTEXTS
            made = make_augmenter(judge=judge).augment(contexts, n=3)
            scores = {its.keys[0]: [its.real_score or 0.0, *(its.scores or ())] for its in made}
            found[name, size] = [s for key in sorted(scores) for s in scores[key]]
        assert len(set(found[name, 1])) > 8
        for size in (5, 16):
            assert found[name, size] == pytest.approx(found[name, 1], abs=1e-5)


def test_scores_lie_in_the_store_by_content(make_augmenter: Make, itm: str, tmp_path: Path) -> None:
    (made,) = make_augmenter(judge=itm).augment(CONTEXTS[:1], n=2)
    store = Store(tmp_path / "store")
    entries = [entry for entry in store.entries() if entry.namespace == "scores"]
    assert len(entries) == 3 and all(entry.path.suffix == ".json" for entry in entries)
    by_view: dict[str | None, float | None] = {}
    for entry in entries:
        payload, meta = store.read("scores", entry.key) or (b"", {})
        by_view[meta.get("view")] = json.loads(payload)["score"]
        assert set(meta) <= {"view", "pixels", "text", "judge"}
        assert meta["text"] == made.description
        assert meta["judge"] == made.spec["selection"]["judge"]
        assert str(tmp_path) not in json.dumps(meta) and itm.partition(":")[2] not in str(meta)
    expected: dict[str | None, float | None] = {None: made.real_score}
    assert by_view == expected | dict(zip(made.keys, made.scores or (), strict=True))
    assert store.info().namespaces["scores"].files == 3 and store.verify() == []


def test_all_that_changes_a_score_changes_its_key(
    make_augmenter: Make, itm: str, tmp_path: Path
) -> None:
    moved = save_evaluator(tmp_path / "moved")
    judges = [itm, f"fine_grained:{moved}", itm.replace("fine_grained", "itm")]
    told = [make_augmenter(judge=judge).spec["selection"]["judge"] for judge in judges]
    assert told[0] == told[1] == told[2]  # the same content under other names
    other = make_augmenter(judge=itm.replace("fine_grained", "global")).spec["selection"]["judge"]
    vqa = make_augmenter(judge="vqa_yes").spec["selection"]["judge"]
    assert len({json.dumps(one, sort_keys=True) for one in (told[0], other, vqa)}) == 3


def test_a_judges_package_is_in_the_key(make_augmenter: Make, plugins: None) -> None:
    told = make_augmenter(judge="indifferent").spec["selection"]["judge"]
    assert told["package"] == "test_select:Indifferent"


def test_a_judge_that_gives_no_number_stops_the_call(
    make_augmenter: Make, plugins: None, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="the judge gives nan for"):
        make_augmenter(judge="broken").augment(CONTEXTS[:1], n=1)
    assert "scores" not in Store(tmp_path / "store").info().namespaces


def test_what_is_in_the_store_needs_no_model(
    make_augmenter: Make, itm: str, generated: list[int]
) -> None:
    augmenter = make_augmenter(judge=itm, candidates=3, fresh=True)
    assert augmenter.lacks(CONTEXTS, n=2)
    made = augmenter.augment(CONTEXTS, n=2)
    assert not augmenter.lacks(CONTEXTS, n=2) and augmenter.lacks(CONTEXTS, n=2, seed=9)
    assert make_augmenter(judge=itm.replace("fine_grained", "global")).lacks(CONTEXTS, n=2)
    again = make_augmenter(judge=itm, candidates=3, fresh=True)
    before = len(generated)
    assert again.augment(CONTEXTS, n=2) == made
    assert len(generated) == before and again._models.loaded == []
    keys = again.view_keys(CONTEXTS, n=2)
    assert [len(its or ()) for its in keys] == [3] * len(CONTEXTS)  # the candidates'


def test_views_and_scores_are_made_without_being_handed_out(make_augmenter: Make, itm: str) -> None:
    augmenter = make_augmenter(judge=itm, candidates=3)
    augmenter.make(CONTEXTS, n=1)
    assert not augmenter.lacks(CONTEXTS, n=1)


def test_a_call_that_was_made_before_imports_no_torch(
    make_augmenter: Make, itm: str, tmp_path: Path
) -> None:
    picture(0).save(tmp_path / "a.png")
    context = DescribedContext(str(tmp_path / "a.png"), "a red circle")  # type: ignore[arg-type]
    asked = {"judge": itm, "candidates": 3, "min_score": "real-9"}
    (made,) = make_augmenter(**asked).augment([context], n=2)
    code = f"""
import sys
from hb_tta import Augmenter, DescribedContext
augmenter = Augmenter.from_pretrained(
    "hummingbird", family="pocket", store={str(tmp_path / "store")!r}, describer=None,
    base={str(GOLDEN / "pipeline")!r}, lora={str(GOLDEN / "lora_unet")!r},
    num_inference_steps=2, guidance_scale=2.0, **{asked!r})
told = DescribedContext({str(tmp_path / "a.png")!r}, "a red circle")
(made,) = augmenter.augment([told], n=2)
assert "torch" not in sys.modules
print(*made.keys)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == made.keys, done.stderr


# ── Whose turn it is ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is loaded after each call of a model."""
    from hb_tta.views.models import Models

    seen: list[list[str]] = []
    for name in ("describe", "generate", "score"):
        own = getattr(Models, name)

        def watched(self: Any, *args: Any, own: Any = own) -> Any:
            given = own(self, *args)
            seen.append(self.loaded)
            return given

        monkeypatch.setattr(Models, name, watched)
    return seen


def _changes(turns: list[list[str]]) -> Iterator[list[str]]:
    return (now for before, now in zip([None, *turns], turns, strict=False) if now != before)


def test_describer_generator_and_judge_take_turns_where_there_is_no_room(
    make_augmenter: Make, itm: str, turns: list[list[str]]
) -> None:
    augmenter = make_augmenter(judge=itm, candidates=2, keep_loaded=False, fresh=True)
    first = augmenter.augment(CONTEXTS, n=1)
    assert list(_changes(turns)) == [["describer"], ["generator"], ["judge"]]
    augmenter.unload()
    assert augmenter._models.loaded == []
    turns.clear()
    together = make_augmenter(judge=itm, candidates=2, store=False, fresh=True)
    assert [its.keys for its in together.augment(CONTEXTS, n=1)] == [its.keys for its in first]
    assert turns[-1] == ["describer", "generator", "judge"]


def test_a_vlm_that_describes_and_judges_is_loaded_once(
    make_augmenter: Make, tiny_describer: DescriberSpec, turns: list[list[str]]
) -> None:
    judge = JudgeSpec("vqa_yes", tiny_describer.mllm)
    made = make_augmenter(judge=judge, fresh=True).augment(CONTEXTS[:2], n=2)
    assert turns[-1] == ["describer", "generator"]
    assert all(0 < score < 1 for its in made for score in its.scores or ())
    other = replace(tiny_describer, dtype="bfloat16")
    apart = make_augmenter(judge=judge, describer=other, store=False, fresh=True)
    apart.augment(CONTEXTS[:1], n=1)
    assert turns[-1] == ["describer", "generator", "judge"]


# ── What a judge goes by ─────────────────────────────────────────────────────────────────────────


def test_a_judge_goes_by_what_the_generator_was_told(
    make_augmenter: Make, itm: str, tmp_path: Path
) -> None:
    long = "A red circle on a sandy beach. " * 30
    (made,) = make_augmenter(judge=itm).augment([DescribedContext(picture(0), long)], n=1)
    texts = texts_of(Store(tmp_path / "store"))
    assert made.description != long and texts == {made.description}


def test_a_supports_views_have_to_show_its_relation(
    make_augmenter: Make, itm: str, tmp_path: Path
) -> None:
    contexts = [
        MultimodalContext(picture(3), "person | ride | bicycle", "hoi"),
        DescribedContext(picture(3), "a person", "person | bicycle", "hoi"),
    ]
    make_augmenter(judge=itm).augment(contexts, n=1)
    assert texts_of(Store(tmp_path / "store")) == {"person ride bicycle", "a person"}


def texts_of(store: Store) -> set[str]:
    found = [store.read(e.namespace, e.key) for e in store.entries() if e.namespace == "scores"]
    return {meta["text"] for _, meta in filter(None, found)}


@pytest.mark.parametrize("method", ["randaugment", "jitter"])
def test_a_method_without_description_has_no_judge(method: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=f"{method} needs no description: the judge is ignored"):
        augmenter = Augmenter.from_pretrained(
            method, family="pocket", judge="itm", candidates=8, min_score=1, store=tmp_path
        )
    (made,) = augmenter.augment(CONTEXTS[:1], n=2)
    assert made.seeds == [0, 1] and made.scores is None


# ── Ground truth ─────────────────────────────────────────────────────────────────────────────────


def test_the_truth_changes_no_key_score_or_view(make_augmenter: Make, itm: str) -> None:
    from hb_tta.cli.demo import contexts_of

    samples = list(pocket_mme("dev", category="color", limit=2))
    turned = [replace(s, answer={"Yes": "No", "No": "Yes"}[s.answer]) for s in samples]
    marked = [replace(s, answer=f"THE ANSWER IS {s.answer}") for s in samples]
    augmenter = make_augmenter(judge=itm, candidates=3, min_score="real-0.01", seeds="by_context")
    made = augmenter.augment(contexts_of(samples), n=2)
    for others in (turned, marked):
        assert augmenter.augment(contexts_of(others), n=2) == made
    assert augmenter.augment(contexts_of(samples[::-1]), n=2) == made[::-1]
    told = MultimodalContext(picture(0), "Is it?", ground_truth="yes")
    with pytest.raises(UserError, match="carries its ground truth"):
        augmenter.augment([told], n=2)


# ── Seeds ────────────────────────────────────────────────────────────────────────────────────────


def test_seeds_by_context_follow_from_pixels_and_description(make_augmenter: Make) -> None:
    told = [
        DescribedContext(picture(0), "a red circle", "Is it red?"),
        DescribedContext(picture(0), "a red circle", "Another question?", "hoi"),
        DescribedContext(picture(0), "a blue circle", "Is it red?"),
        DescribedContext(picture(1), "a red circle", "Is it red?"),
    ]
    augmenter = make_augmenter(seeds="by_context")
    made = augmenter.augment(told, n=3, seed=5)
    firsts = [its.seeds[0] for its in made]
    assert made[0].seeds == made[1].seeds and len(set(firsts)) == 3
    for its in made:
        assert its.seeds == [(its.seeds[0] + i) % 2**64 for i in range(3)]
        assert all(0 <= seed < 2**64 for seed in its.seeds)
    later = augmenter.augment(told, n=2, seed=6)
    assert [its.keys for its in later] == [its.keys[1:] for its in made]
    assert [its.spec["seeds"] for its in made] == ["by_context"] * 4
    assert augmenter.view_keys(told, n=3, seed=5) == [its.keys for its in made]
    fixed = make_augmenter().augment(told, n=1, seed=firsts[0] % 2**63)
    assert "seeds" not in fixed[0].spec
    with pytest.raises(UserError, match="seeds='random' is not known: choose from fixed"):
        make_augmenter(seeds="random")


def test_seeds_by_context_are_pinned(tmp_path: Path) -> None:
    from hb_tta.views.plan import seeds_of

    assert seeds_of("ab" * 32, "A red circle.", range(2)) == PINNED_TOLD
    assert seeds_of("ab" * 32, None, range(1)) == PINNED_BARE
    assert seeds_of("ab" * 32, None, [2**64 - PINNED_BARE[0]]) == (0,)


PINNED_TOLD = (7755878304243118342, 7755878304243118343)
PINNED_BARE = (4850131718454550975,)


def test_judges_are_the_familys_own() -> None:
    family = get_family("pocket")
    for name, role in (("itm", "evaluator"), ("clip_text", "clip"), ("vqa_yes", "mllm")):
        spec = JudgeSpec.from_family(name, family, dtype="bfloat16")
        assert spec is not None and spec.weights == family.weights(role)
        assert spec.dtype == ("bfloat16" if name == "vqa_yes" else "float32")
    with pytest.raises(UserError, match="aesthetic:FOLDER"):
        JudgeSpec.from_family("aesthetic", family, dtype="float32")
    assert JudgeSpec.from_family("none", family, dtype="float32") is None
