"""The rules that combine views are what their papers say, on tensors small enough to see."""

import math

import pytest
import torch

from hb_tta.errors import UserError
from hb_tta.tta.combine import RULES, Combiner, confidence, entropy, mean, selection, zero


def logits(*views: list[float]) -> torch.Tensor:
    return torch.tensor(views)


def random_logits(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3


def test_the_mean_is_the_papers():
    logits_VK = logits([1.0, 5.0], [3.0, 1.0], [5.0, 3.0])
    assert torch.equal(mean(logits_VK), torch.tensor([3.0, 3.0]))
    assert torch.allclose(mean(logits_VK, real_weight=4.0), torch.tensor([12 / 6, 24 / 6]))
    assert torch.equal(mean(logits_VK, real_weight=0.0), torch.tensor([4.0, 2.0]))


def test_the_mean_of_log_probabilities_gives_the_same_distribution():
    logits_VK = random_logits(5, 20)
    one, other = mean(logits_VK), mean(logits_VK.log_softmax(-1))
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
    assert torch.allclose(confidence(logits_VK), expected)
    assert confidence(logits_VK)[0] > mean(logits_VK)[0]


def test_selection_averages_the_probabilities_of_the_surest_views():
    logits_VK = logits([0.0, 0.1], [5.0, 0.0], [0.0, 0.0], [0.0, 3.0])
    expected = logits_VK[[1, 3]].softmax(-1).mean(0)
    assert torch.allclose(selection(logits_VK, share=0.5).softmax(-1), expected)
    alone = selection(logits_VK, share=0.01).softmax(-1)
    assert torch.allclose(alone, logits_VK[1].softmax(-1))


def test_zero_takes_a_vote_and_breaks_ties_by_probability():
    logits_VK = logits([4.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 6.0, 0.0])
    assert zero(logits_VK, share=1.0).argmax() == 1
    assert zero(logits_VK, real_weight=3.0, share=1.0).argmax() == 0
    assert zero(logits_VK[:2], share=1.0).argmax() == 1  # one vote each, the second is surer
    assert zero(logits_VK, share=1.0)[2].isfinite()


@pytest.mark.parametrize("rule", RULES)
def test_identical_views_say_what_one_says(rule):
    single_K = random_logits(30)
    combined_K = Combiner(rule)(single_K.expand(5, 30))
    assert combined_K.argmax() == single_K.argmax()
    if rule != "zero":  # whose very idea is another temperature
        assert torch.allclose(combined_K.softmax(-1), single_K.softmax(-1), atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_generated_views_does_not_matter(rule):
    logits_VRK = random_logits(6, 3, 30)
    shuffled = logits_VRK[[0, 4, 2, 5, 1, 3]]
    one, other = Combiner(rule, 2.0)(logits_VRK), Combiner(rule, 2.0)(shuffled)
    assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_rows_do_not_see_each_other(rule):
    logits_VRK = random_logits(4, 3, 30)
    together = Combiner(rule)(logits_VRK)
    alone = torch.stack([Combiner(rule)(logits_VRK[:, row]) for row in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_weight_of_zero_leaves_the_real_view_out(rule):
    logits_VK = random_logits(4, 30)
    other = torch.cat([torch.full((1, 30), -math.inf), logits_VK[1:]])
    other[0, 3] = 50.0  # very sure of itself
    without = Combiner(rule, real_weight=0.0)
    assert torch.allclose(without(logits_VK), without(other), equal_nan=False)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"rule": "median"}, "combine='median' is unknown: choose from mean"),
        ({"real_weight": -1.0}, "real_weight=-1.0 is out of range"),
        ({"real_weight": math.nan}, "real_weight=nan is out of range"),
        ({"share": 0.0}, "share=0.0 is out of range"),
    ],
)
def test_wrong_settings(settings, part):
    with pytest.raises(UserError, match=part):
        Combiner(**settings)


def test_no_view_is_left():
    with pytest.raises(UserError, match="leaves no view"):
        Combiner(real_weight=0.0)(random_logits(1, 5))
