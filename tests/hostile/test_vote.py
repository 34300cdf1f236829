"""Which answers agree, by what they answer."""

from __future__ import annotations

import pytest

from hb_tta.tta.vote import sides, vote

AGREE = [
    ["(B)", "B. dog", "b", "B)", "B: a dog", "The answer is B.", "Answer: (B) dog",
     "dog", "A dog."],
    ["Yes", "yes.", "Yes, there is.", "YES!", "Yes it is", "Ｙｅｓ", "yes - it is"],
    ["No.", "no", "No, there are none", "no there is not", "No; it is red"],
    ["3", "3.0", "three", "Three.", " 3 ."],
    ["1,000", "1000", "1000.0"],
    ["two dogs", "Two  dogs.", '"two dogs"', "the two dogs"],
    ["no entry", "No Entry.", "“No entry”"],
    ["E. coli", "e. coli", "E.  Coli."],
]  # fmt: skip
APART = [
    ["no entry", "no parking", "no smoking"],
    ["No Country for Old Men", "no man's land"],
    ["yes minister", "yes sir"],
    ["C. difficile", "C. diphtheriae"],
    ["(A)", "(B)", "C. cat", "D"],
    ["a dog", "a cat"],
    ["3", "13", "-3", "3.5"],
    ["nothing", "no"],
    ["yesterday", "yes"],
    ["a", "b"],
    ["", "no"],
    ["one dog", "1 cat", "one"],
]


@pytest.mark.parametrize("answers", AGREE, ids=lambda answers: answers[0])
def test_these_agree(answers):
    assert len(set(sides(answers))) == 1
    assert vote(["something else", *answers]) == 1


@pytest.mark.parametrize("answers", APART, ids=lambda answers: answers[0])
def test_these_do_not(answers):
    assert len(set(sides(answers))) == len(answers)
    assert vote(answers) == 0


def test_a_plain_no_makes_it_a_question_of_yes_or_no():
    assert vote(["Yes.", "No dogs are there.", "no"]) == 1
    assert sides(["No dogs are there.", "no"]) == ["no", "no"]
    assert vote(["no entry", "no parking", "no parking"]) == 1


def test_a_sign_is_not_outvoted_by_other_signs():
    """Real "stop"; views read two different signs that begin alike."""
    assert vote(["stop", "no entry", "no parking"]) == 0


@pytest.mark.parametrize(
    "text", ["", " ", "\n", ".", "(", ")", "a" * 100_000, "(" * 10_000, "9" * 10_000, "\ud800",
             "yes" * 50_000, "answer " * 20_000, "1," * 20_000, "٣", "Ⅷ", "²"]
)  # fmt: skip
def test_odd_answers_are_sides_of_their_own(text):
    assert len(sides([text, text, "something else"])) == 3
    assert vote([text, text]) == 0 and vote(["x y", text, text]) == 1
