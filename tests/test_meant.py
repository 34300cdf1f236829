"""A mistyped name is told the one that was meant, at every door where a name is looked up."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from hb_tta.cli import main
from hb_tta.context import check_task
from hb_tta.datasets import load_tasks
from hb_tta.device import check_dtype
from hb_tta.errors import UserError, choose_from, meant
from hb_tta.families import get_family
from hb_tta.generators import build_spec, get_method
from hb_tta.rewards import get_reward
from hb_tta.settings import ViewSettings
from hb_tta.settings.augmented import AugmentSettings, Combining
from hb_tta.spelling import argument, dtype
from hb_tta.tpt.filters import get_filter
from hb_tta.training.recipes import get_recipe, with_changes
from hb_tta.tta.combine import Combiner

DOORS: dict[str, tuple[Callable[[], object], str]] = {
    "method": (lambda: get_method("humingbird"), "hummingbird"),
    "method of a harness": (lambda: AugmentSettings.parse("i2t2", ""), "i2t2i"),
    "family": (lambda: get_family("Pocket"), "pocket"),
    "role": (lambda: get_family("pocket").with_roles(generater="x"), "generator"),
    "setting of a method": (
        lambda: build_spec("hummingbird", get_family("pocket"), {"guidance_scal": 1}),
        "guidance_scale",
    ),
    "augment_args": (lambda: ViewSettings.parse("hummingbird", "familly=pocket"), "family="),
    "task of a context": (lambda: check_task("vpa"), "vqa"),
    "task to score": (lambda: load_tasks("pocket_object"), "pocket_objects"),
    "recipe": (lambda: get_recipe("paper-vga"), "paper-vqa"),
    "setting of a training": (
        lambda: with_changes(get_recipe("pocket"), ["learnin_rate=1"]),
        "learning_rate",
    ),
    "choice of a setting": (
        lambda: with_changes(get_recipe("pocket"), ["memory=blok"]),
        "block",
    ),
    "reward": (lambda: get_reward("globl"), "global"),
    "rule": (lambda: Combiner("meen"), "mean"),
    "rule of a harness": (lambda: Combining("votes"), "vote"),
    "filter": (lambda: get_filter("difftpt_paper"), "difftpt-paper"),
    "dtype": (lambda: check_dtype("bfloat"), "bfloat16"),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_mistyped_name_is_told_what_was_meant(door: str) -> None:
    ask, right = DOORS[door]
    with pytest.raises(UserError) as raised:
        ask()
    sentence = str(raised.value)
    assert "did you mean" in sentence and right in sentence.split("did you mean")[1][:40]
    assert "choose from" in sentence and "\n" not in sentence


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["augmnet"], "did you mean 'augment'?"),
        (["augment", "a.png", "--task", "objekt"], "did you mean 'object'?"),
        (["augment", "a.png", "--methd=x"], "did you mean --method?"),
        (["tpt", "--task", "folder", "--famly", "pocket"], "did you mean --family?"),
    ],
)
def test_so_is_a_mistyped_command_or_option(argv, told, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_what_is_like_nothing_gets_the_choices_alone(capsys) -> None:
    assert choose_from("zzz", ["one", "two"]) == ": choose from one, two"
    assert choose_from(7, ["one", "two"]) == ": choose from one, two"
    assert meant("ONE ", ["one"]) == "one"
    with pytest.raises(SystemExit):
        main(["augment", "a.png", "--xyz"])
    assert "did you mean" not in capsys.readouterr().err


def test_an_option_value_is_told_too() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="did you mean 'float16'"):
        argument(dtype)("flot16")
