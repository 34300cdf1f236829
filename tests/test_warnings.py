"""What we warn of reaches the person, whoever warns; what others warn of does not."""

from __future__ import annotations

import ast
import json
import sys
import types
import warnings
from pathlib import Path

import pytest

from hb_tta import cli
from hb_tta.errors import HbTtaWarning
from hb_tta.pocket.tasks import pocket_mme
from hb_tta.training import start

ROOT = Path(__file__).parents[1]
OURS = ("hb_tta", "training", "integrations")


def told(capsys) -> tuple[list[str], str]:
    """The warnings that the command showed, and all it said on stderr."""
    mark = "hb-tta: warning: "
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith(mark)]
    return [line.removeprefix(mark) for line in lines], err


def test_warnings_of_the_trainer_and_of_rewards_are_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(start, "get_available_trackers", list)
    next(pocket_mme("dev")).image.save(tmp_path / "scene.png")
    # 29 tokens to the text encoders, whose window is 32, and 42 to the evaluator of that window.
    row = {"image": "scene.png", "question": "Is it?", "answer": "yes", "description": "abc" * 14}
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(row))
    command = ["train", "--recipe", "pocket", "--data", data, "--out", tmp_path / "run"]
    assert cli.main([*map(str, command), "--set", "held_out=1"]) == 1
    shown, end = told(capsys)
    assert "no sample is left to train on" in end  # as is meant: that saves the training
    assert any(line.startswith("no TensorBoard") for line in shown)
    assert any("longer than the evaluator's 32 tokens" in line for line in shown)


def warn_as_others() -> None:
    warnings.warn("an odd setting", UserWarning, stacklevel=1)


def warn_as_we_do() -> None:
    warnings.warn("a setting is ignored", HbTtaWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("warn", "shown"), [(warn_as_we_do, ["a setting is ignored"]), (warn_as_others, [])]
)
def test_the_class_decides_what_is_shown(warn, shown, monkeypatch, capsys):
    command = types.ModuleType("a_command")
    command.add_arguments = lambda parser: None
    command.run = lambda arguments: warn() or 0
    monkeypatch.setitem(sys.modules, "a_command", command)
    monkeypatch.setitem(cli.COMMANDS, "noisy", ("a_command", "warns"))
    assert cli.main(["noisy"]) == 0
    assert told(capsys)[0] == shown


def categories(path: Path) -> list[tuple[int, str]]:
    """The line and the class of each warning that a file gives."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("warnings.warn", "warn")
    ]
    return [
        (call.lineno, ast.unparse(call.args[1]) if len(call.args) > 1 else "") for call in calls
    ]


def test_every_warning_is_of_our_class():
    found = {
        f"{path.relative_to(ROOT)}:{line}": category
        for folder in OURS
        for path in (ROOT / folder).rglob("*.py")
        for line, category in categories(path)
    }
    assert len(found) >= 10
    assert {where: name for where, name in found.items() if name != "HbTtaWarning"} == {}
