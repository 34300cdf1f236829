"""The rules that combine views are what their papers say, on tensors small enough to see."""

import math
import sys

import pytest
import torch

from hb_tta.errors import UserError
from hb_tta.tta.combine import RULES, Combiner, rules_for
from hb_tta.tta.rule import CLASSES, WORDS, Rule, Views, entropy, tie_break


def logits(*views: list[float]) -> torch.Tensor:
    return torch.tensor(views)


def combine(rule: str, logits_VK: torch.Tensor, real_weight: float = 1.0, share: float = 0.5):
    return Combiner(rule, real_weight, share)(logits_VK)


def random_logits(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3


def test_the_mean_is_the_papers():
    logits_VK = logits([1.0, 5.0], [3.0, 1.0], [5.0, 3.0])
    assert torch.allclose(combine("mean", logits_VK), torch.tensor([3.0, 3.0]))
    assert torch.allclose(
        combine("mean", logits_VK, real_weight=4.0), torch.tensor([12 / 6, 24 / 6])
    )
    assert torch.equal(combine("mean", logits_VK, real_weight=0.0), torch.tensor([4.0, 2.0]))


def test_the_mean_of_log_probabilities_gives_the_same_distribution():
    logits_VK = random_logits(5, 20)
    one, other = combine("mean", logits_VK), combine("mean", logits_VK.log_softmax(-1))
    assert torch.allclose(one.softmax(-1), other.softmax(-1), atol=1e-6)


def test_entropy_in_nats():
    assert torch.allclose(entropy(logits([0.0, 0.0, 0.0, 0.0])), torch.tensor([math.log(4)]))
    assert entropy(logits([0.0, -math.inf])).item() == 0.0


def test_confidence_weights_are_one_over_perplexity():
    sure, torn = [8.0, 0.0], [0.0, 0.0]
    logits_VK = logits(sure, torn)
    perplexity_V = entropy(logits_VK).exp()
    weights_V = 1 / perplexity_V
    expected = (weights_V[:, None] * logits_VK).sum(0) / weights_V.sum()
    assert torch.allclose(combine("confidence", logits_VK), expected)
    assert combine("confidence", logits_VK)[0] > combine("mean", logits_VK)[0]


def test_selection_averages_the_probabilities_of_the_surest_views():
    logits_VK = logits([0.0, 0.1], [5.0, 0.0], [0.0, 0.0], [0.0, 3.0])
    expected = logits_VK[[1, 3]].softmax(-1).mean(0)
    assert torch.allclose(combine("selection", logits_VK, share=0.5).softmax(-1), expected)
    alone = combine("selection", logits_VK, share=0.01).softmax(-1)
    assert torch.allclose(alone, logits_VK[1].softmax(-1))


def test_zero_takes_a_vote():
    logits_VK = logits([4.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 6.0, 0.0])
    assert combine("zero", logits_VK, share=1.0).argmax() == 1
    assert combine("zero", logits_VK, real_weight=3.0, share=1.0).argmax() == 0
    assert combine("zero", logits_VK, share=1.0)[2].isfinite()


def test_contrast_is_the_papers():
    """Leng et al. 2024: (1 + α)·real − α·distorted among the real image's plausible words."""
    real, noisy = [2.0, 1.9, -9.0], [[2.0, 0.0, 9.0], [3.0, 1.0, 9.0]]
    combined = Combiner("contrast", alpha=0.5)(logits(real, *noisy))
    assert torch.allclose(combined[:2], torch.tensor([1.5 * 2 - 0.5 * 2.5, 1.5 * 1.9 - 0.5 * 0.5]))
    assert combined[2] == -math.inf, "the real image calls it impossible"
    assert combined.argmax() == 1, "what is said whatever is shown is taken off"
    assert torch.equal(Combiner("contrast")(logits(real)), logits(real)[0])
    assert torch.equal(
        Combiner("contrast", alpha=0.0)(logits(real, *noisy))[:2], logits(real)[0][:2]
    )


@pytest.mark.parametrize("what", ["mean", "zero"])
def test_a_tie_goes_to_the_side_of_the_real_image(what):
    """However sure the others are, and wherever the word stands in the vocabulary."""
    for real, other in ((0, 2), (2, 0)):
        views = torch.zeros(2, 3)
        views[0, real], views[1, other] = 5.0, 5.0
        if what == "zero":
            views[1, other] = 9.0  # surer; a mean of logits would not be tied
        assert combine(what, views, share=1.0).argmax() == real
        rows_VRK = torch.stack([views, views.flip(0), views[:, [1, 0, 2]]], 1)
        alone = torch.stack([combine(what, rows_VRK[:, r], share=1.0) for r in range(3)])
        assert torch.equal(combine(what, rows_VRK, share=1.0), alone)


def test_a_tie_among_others_goes_to_the_earlier_view():
    say = torch.eye(4) * 6
    votes = [say[0], say[3], say[2], say[2], say[3]]  # two each for 2 and 3, one for the real one's
    assert combine("zero", torch.stack(votes), share=1.0).argmax() == 3
    assert combine("zero", torch.stack([votes[0], *votes[:0:-1]]), share=1.0).argmax() == 3
    swapped = torch.stack([votes[0], votes[2], votes[1], votes[3], votes[4]])
    assert combine("zero", swapped, share=1.0).argmax() == 2


def test_a_view_without_weight_settles_no_tie():
    say = torch.eye(3) * 6
    views = torch.stack([say[2], say[1], say[2]])
    assert combine("zero", views, real_weight=0.0, share=1.0).argmax() == 1
    assert combine("zero", views, share=1.0).argmax() == 2


def test_where_no_view_says_a_tied_word_nothing_is_added():
    logits_VK = logits([2.0, 2.0, 3.0], [2.0, 2.0, -9.0])
    tied = torch.tensor([2.0, 2.0, -3.0])
    assert tie_break(tied, Views(logits_VK)).tolist() == [1.0, 0.0, 0.0]  # the second view's
    said = Views(logits([0.0, 0.0, 3.0], [0.0, 0.0, 3.0]))
    assert tie_break(tied, said).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("rule", rules_for(WORDS))
def test_without_ties_a_rule_gives_its_scores_as_they_are(rule):
    views = Views(random_logits(6, 3, 30))
    assert torch.equal(RULES.get(rule)(views), RULES.get(rule).scores(views))


@pytest.mark.parametrize("rule", rules_for(WORDS))
def test_identical_views_say_what_one_says(rule):
    single_K = random_logits(30)
    combined_K = Combiner(rule)(single_K.expand(5, 30))
    assert combined_K.argmax() == single_K.argmax()
    if rule == "contrast":  # which makes what is not plausible impossible
        kept_K = combined_K.isfinite()
        assert torch.equal(kept_K, single_K.softmax(-1) >= 0.1 * single_K.softmax(-1).max())
        assert torch.allclose(combined_K[kept_K], single_K[kept_K], atol=1e-5)
    elif rule != "zero":  # whose very idea is another temperature
        assert torch.allclose(combined_K.softmax(-1), single_K.softmax(-1), atol=1e-6)


@pytest.mark.parametrize("rule", rules_for(WORDS))
def test_the_order_of_generated_views_does_not_matter_where_nothing_ties(rule):
    logits_VRK = random_logits(6, 3, 30)
    logits_VRK[2:5, :, 7] += 12.0  # three views agree
    shuffled = logits_VRK[[0, 4, 2, 5, 1, 3]]
    one, other = Combiner(rule, 2.0)(logits_VRK), Combiner(rule, 2.0)(shuffled)
    assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("rule", rules_for(WORDS))
def test_rows_do_not_see_each_other(rule):
    logits_VRK = random_logits(4, 3, 30)
    together = Combiner(rule)(logits_VRK)
    alone = torch.stack([Combiner(rule)(logits_VRK[:, row]) for row in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("rule", sorted(set(rules_for(WORDS)) - {"contrast"}))
def test_a_weight_of_zero_leaves_the_real_view_out(rule):
    logits_VK = random_logits(4, 30)
    other = torch.cat([torch.full((1, 30), -math.inf), logits_VK[1:]])
    other[0, 3] = 50.0  # very sure of itself
    without = Combiner(rule, real_weight=0.0)
    assert torch.allclose(without(logits_VK), without(other), equal_nan=False)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"rule": "median"}, "combine='median' is unknown, did you mean 'mean'. choose from mean"),
        ({"real_weight": -1.0}, "real_weight=-1.0 is out of range"),
        ({"real_weight": math.nan}, "real_weight=nan is out of range"),
        ({"share": 0.0}, "share=0.0 is out of range"),
        ({"rule": "contrast", "alpha": -1.0}, "alpha=-1.0 is out of range"),
        ({"rule": "contrast", "real_weight": 0.0}, "contrast is about the real image"),
    ],
)
def test_wrong_settings(settings, part):
    with pytest.raises(UserError, match=part):
        Combiner(**settings)


def test_no_view_is_left():
    with pytest.raises(UserError, match="leaves no view"):
        Combiner(real_weight=0.0)(random_logits(1, 5))


# ── Rules of other packages ──────────────────────────────────────────────────────────────────────

PLUGIN = """
from hb_tta.tta.rule import CLASSES, WORDS, rule

@rule(WORDS, CLASSES)
def median(views):
    return views.logits_VRK.median(0).values

def no_rule(views):
    return views
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package whose entry point names something of ``PLUGIN``."""

    def install(name: str, what: str) -> None:
        (tmp_path / "hb_tta_medians.py").write_text(PLUGIN)
        info = tmp_path / "medians-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: medians\nVersion: 1.0\n")
        entry = f"[hb_tta.combiners]\n{name} = hb_tta_medians:{what}\n"
        (info / "entry_points.txt").write_text(entry)
        monkeypatch.syspath_prepend(tmp_path)
        sys.modules.pop("hb_tta_medians", None)

    return install


def test_an_installed_rule_combines_words_and_classes(package):
    package("median", "median")
    logits_VK = random_logits(5, 30)
    assert torch.equal(Combiner("median")(logits_VK), logits_VK.median(0).values)
    assert list(rules_for(CLASSES)) == ["zero-shot", "average", "zero", "mta", "median"]
    assert isinstance(rules_for(WORDS)["median"], Rule)


@pytest.mark.parametrize(
    ("name", "what", "told"),
    [
        ("mean", "median", "'medians' names its combiner 'mean' as a built-in one"),
        ("odd", "no_rule", "'odd' of the package 'medians' is no rule: put @hb_tta"),
        ("odd", "missing", "'odd' of the package 'medians' does not import"),
        ("tpt", "median", "'tpt' of the package 'medians' has the name of what is tuned"),
    ],
)
def test_a_wrong_rule_of_another_package_is_named(package, name, what, told):
    package(name, what)
    for ask in (lambda: rules_for(CLASSES), lambda: Combiner(name)):
        with pytest.raises(UserError, match=told):
            ask()


def test_a_rule_of_classes_is_no_choice_for_words():
    with pytest.raises(UserError, match="choose from mean, confidence, selection, contrast, zero$"):
        Combiner("mta")
