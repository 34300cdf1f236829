"""Rescoring: whose proposal the views find likeliest."""

from __future__ import annotations

import pytest
import torch

from hb_tta.tta.combine import Combiner
from hb_tta.tta.rescore import Dispute, proposals, rescore


def test_for_answers_of_one_word_it_is_the_mean():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits_VK = torch.randn(5, 2, generator=generator) * 3
        logprobs_VK = logits_VK.log_softmax(-1)
        said = [str(int(word)) for word in logits_VK.argmax(-1)]
        proposed = proposals(said)
        if len(proposed) < 2:
            continue
        prompt = {view: [-float(view), -2.0] for view in range(5)}

        def score(pairs, logprobs_VK=logprobs_VK, prompt=prompt):
            return [[*prompt[view], float(logprobs_VK[view, int(text)])] for view, text in pairs]

        dispute = Dispute(range(5), [2.0, 1, 1, 1, 1], proposed)
        (found,) = rescore([dispute], score)
        mean_K = Combiner("mean", 2.0)(logprobs_VK)
        assert int(proposed[found.best]) == int(mean_K.argmax())
        gap = mean_K[int(proposed[1])] - mean_K[int(proposed[0])]
        assert found.combined[1] == pytest.approx(float(gap), abs=1e-5)


def test_proposals_of_other_lengths_are_compared_by_the_token():
    told = {None: [-1.0, -1.0], "red": [-1.0, -1.0, -2.0], "red and blue": [-1, -1, -2, -0.1, -0.3]}
    asked: list[int] = []

    def score(pairs):
        asked.append(len(pairs))
        return [told[text] for _, text in pairs]

    disputes = [Dispute(["a", "b"], [1, 1], ["red", "red and blue"])]
    (found,) = rescore(disputes, score)
    assert asked == [4, 2] and found.best == 1
    assert found.combined == [0.0, pytest.approx(2.0 - 2.4 / 3, abs=1e-5)]


def test_a_request_that_fails_fails_its_question_alone():
    def score(pairs):
        return [ValueError(row) if row == "b" else [-float(len(text))] for row, text in pairs]

    disputes = [Dispute([row], [1], ["yes", "no"]) for row in "abc"]
    one, failed, other = rescore(disputes, score)
    assert isinstance(failed, ValueError) and one == other and one.best == 1


def test_what_is_proposed_is_told_once_in_the_views_order():
    assert proposals(["no", "yes", " no ", "Yes"]) == ["no", "yes", "Yes"]
    assert proposals(["no"]) == ["no"] and rescore([], lambda pairs: []) == []
