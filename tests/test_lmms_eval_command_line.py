"""Our flags in lmms-eval's command line, in all the forms that it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from lmms_eval_runs import METHODS

pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")

from hb_tta.generators.registry import GENERATORS
from hb_tta.integrations.lmms_eval import command_line, manifests, prepare
from hb_tta.integrations.lmms_eval.model_args import model_args as our_model_args
from hb_tta.integrations.lmms_eval.model_args import without_ours
from hb_tta.settings.augmented import AugmentSettings

MODEL = ["--model", "llava_hf", "--model_args", "pretrained=somewhere"]


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    for name, place in METHODS.items():
        monkeypatch.setitem(GENERATORS.built_in, name, place)


def prepared(*arguments: str) -> tuple[list[str], list]:
    argv = ["lmms-eval", *arguments]
    found = prepare(argv)
    return argv[1:], found


def model_args(arguments: list[str]) -> str:
    """What lmms-eval's own parser reads."""
    from lmms_eval.__main__ import parse_eval_args

    kept, sys.argv = sys.argv, ["lmms-eval", *arguments]
    try:
        return parse_eval_args()[1].model_args
    finally:
        sys.argv = kept


def test_without_the_flag_nothing_changes():
    line = ["--tasks", "mme", *MODEL, "--output_path", "out"]
    assert prepared(*line) == (line, [])


@pytest.mark.parametrize(
    "flags",
    [
        ["--augment", "same", "--augment_args", "n=2,family=pocket"],
        ["--augment=same", "--augment_args=family=pocket,views=2"],
        ["--augment", "same", "--augment-args", " views=2 , family=pocket,"],
        ["--augment", "same", "--augment_args", '{"n": 2, "family": "pocket"}'],
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_the_flags_become_model_args(flags, before):
    line = [*flags, *MODEL, "--tasks", "mme"] if before else [*MODEL, "--tasks", "mme", *flags]
    arguments, found = prepared(*line)
    assert not any("augment" in a and not a.startswith("--model_args") for a in arguments)
    args = model_args(arguments)
    own, ours = without_ours(args)
    assert own == "pretrained=somewhere"
    assert ours["augment"] == "same" and ours["n"] == "2" and len(ours["spec"]) == 16
    assert [manifest.model_id for manifest in found] == ["llava_hf"]
    assert found[0].chat_class_path.endswith("classes.llava_hf__chat")
    assert found[0].simple_class_path.endswith("classes.llava_hf__simple")


def test_the_output_folder_is_named_by_the_same_model():
    from lmms_eval.loggers.evaluation_tracker import GeneralConfigTracker

    arguments, _ = prepared(*MODEL, "--augment", "same", "--augment_args", "describer=a/b")
    assert GeneralConfigTracker._get_model_name(model_args(arguments)) == "somewhere"


def test_every_setting_that_decides_an_answer_is_in_the_model_args():
    def of(method, arguments="", **settings):
        return our_model_args(
            AugmentSettings.parse(method, f"family=pocket,{arguments}", **settings)
        )

    base = of("same")
    for change in ("n=3", "seed=5", "combine=zero", "real_weight=2", "share=0.3"):
        assert without_ours(of("same", change))[1]["spec"] != without_ours(base)[1]["spec"]
    assert of("same", "store=/elsewhere,batch_size=2", device="cpu") == base
    assert of("randaugment", "magnitude=20") != of("randaugment")


def test_texts_with_commas_are_told_by_the_digest_alone(tmp_path):
    (tmp_path / "views.json").write_text('{"family": "pocket", "word": "a, b=c"}')
    line = ["--augment", "worded", "--augment_args", f"@{tmp_path / 'views.json'}"]
    found = [
        without_ours(model_args(prepared(*MODEL, *line[:2], *args)[0]))
        for args in (line[2:], ["--augment_args", '{"family": "pocket", "word": "a"}'])
    ]
    assert [own for own, _ in found] == ["pretrained=somewhere"] * 2
    (one, other) = (ours for _, ours in found)
    assert {name for name in one if one[name] != other[name]} == {"spec"}


def test_an_alias_is_its_model():
    _, found = prepared("--model", "openai_compatible", "--augment", "same", "--tasks", "mme")
    assert [manifest.model_id for manifest in found] == ["openai"]


def test_without_a_model_it_is_the_familys():
    arguments, found = prepared("--tasks", "mme", "--augment", "same")
    assert "--model=llava_hf" in arguments
    assert model_args(arguments).startswith("pretrained=llava-hf/llava-v1.6-mistral-7b-hf,")
    pocket, _ = prepared("--tasks", "mme", "--augment", "same", "--augment_args", "family=pocket")
    assert "pocket/weights/mllm" in model_args(pocket)


@pytest.mark.parametrize("option", ["--tasks", "--task"])
def test_our_tasks_are_found_with_and_without_the_flag(option):
    arguments, _ = prepared(*MODEL, option, "pocket_mme,mme")
    assert arguments[-1] == f"--include_path={command_line.TASKS}"
    arguments, _ = prepared(*MODEL, f"{option}=mme_tta", "--augment", "same")
    assert f"--include_path={command_line.TASKS}" in arguments


def test_a_configuration_file(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("model: llava_hf\nmodel_args: pretrained=somewhere\ntasks: pocket_mme\n")
    arguments, found = prepared("--config", str(config), "--augment", "same")
    assert model_args(arguments).startswith("pretrained=somewhere,hb_alpha=1.0,hb_augment=same")
    assert f"--include_path={command_line.TASKS}" in arguments
    assert [manifest.model_id for manifest in found] == ["llava_hf"]
    arguments, _ = prepared("--config", str(config), *MODEL[2:], "--augment", "same")
    assert model_args(arguments).count("pretrained=") == 1


def test_two_configurations_with_different_models(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("- model: llava_hf\n  model_args: a=1\n- model: fuyu\n  model_args: a=2\n")
    with pytest.raises(SystemExit, match="several model_args"):
        prepared(f"--config={config}", "--augment", "same")
    config.write_text("- model: llava_hf\n  model_args: a=1\n- model: fuyu\n  model_args: a=1\n")
    _, found = prepared(f"--config={config}", "--augment", "same")
    assert [manifest.model_id for manifest in found] == ["fuyu", "llava_hf"]


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--augment", "sdedit"], "--augment sdedit: there is no such method: choose from humm"),
        (["--augment"], "--augment needs a value"),
        (["--augment", "same", "--augment", "i2t2i"], "--augment stands twice"),
        (["--augment_args", "views=2"], "--augment_args without --augment"),
        (["--augment", "same", "--augment_args", "views"], "write key=value"),
        (["--augment", "same", "--augment_args", "view=2"], "did you mean n=.*choose from fam.*sh"),
        (["--augment", "same", "--augment_args", "views=two"], "n='two' is not a whole number"),
        (["--augment", "same", "--augment_args", "n=0"], "n=0 adds nothing: use n of 1 or more"),
        (["--augment", "same", "--augment_args", "seed=1,seed=2"], "seed= stands twice"),
        (["--augment", "same", "--augment_args", "n=1,views=1"], "views= stands twice"),
        (["--augment", "same", "--augment_args", "share=half"], "share=half .*: give a number"),
        (["--augment", "same", "--augment_args", "{'n': 1}"], "is not JSON"),
        (["--augment", "same", "--augment_args", "@nowhere.json"], "@nowhere.json cannot be read"),
        (["--augment", "same", "--augment_args", "combine=max"], "combine=max .*choose from mean"),
        (["--augment", "same", "--augment_args", "real_weight=-1"], "real_weight=-1.0 is out of"),
        (["--augment", "same", "--augment_args", "family=sd15"], "there is no family 'sd15'"),
        (
            ["--augment", "hummingbird", "--augment_args", "lora=/nowhere"],
            "are not all on this machine",
        ),
        (["--augment", "same", "--model", "gpt9"], "there is no model 'gpt9'"),
        (
            ["--augment", "same", "--tasks", "pocket_mme", "--include_path", "t"],
            "includes one fold",
        ),
    ],
)
def test_what_cannot_be_followed_ends_with_a_sentence(flags, part):
    with pytest.raises(SystemExit, match=f"^hb-tta: .*{part}") as stopped:
        prepared("--tasks", "mme", *MODEL, *flags)
    assert "\n" not in str(stopped.value)


def test_help_lists_our_options(capsys):
    prepared("--help")
    told = capsys.readouterr().out
    assert "--augment NAME" in told and "hummingbird" in told and "combine=mean" in told
    assert "randaugment: num_ops=2; magnitude=9" in told and "views=" not in told


def test_other_programs_command_lines_are_left_alone(monkeypatch):
    monkeypatch.delitem(sys.modules, "lmms_eval.__main__", raising=False)
    argv = ["train.py", "--augment", "flips"]
    monkeypatch.setattr(sys, "argv", argv)
    assert manifests() == []
    assert argv == ["train.py", "--augment", "flips"]


@pytest.mark.parametrize(
    ("version", "known"),
    [("0.7.3", True), ("0.7.9", True)]
    + [(version, False) for version in ("0.7.2", "0.8.0", "1.0")],
)
def test_versions(monkeypatch, version, known):
    monkeypatch.setattr(command_line.metadata, "version", lambda _: version)
    if known:
        command_line.check_version()
    else:
        with pytest.raises(command_line.UserError, match=f"lmms-eval {version} is not known"):
            command_line.check_version()


def test_a_plugin_that_is_loaded_after_us(monkeypatch):
    from lmms_eval.models.registry_v2 import ModelManifest

    from hb_tta.integrations.lmms_eval import classes

    theirs = ModelManifest("llava_hf", chat_class_path="their.Llava")
    entries = [
        SimpleNamespace(value="hb_tta.integrations.lmms_eval:manifests", dist=None),
        SimpleNamespace(value="their:m", dist=SimpleNamespace(name="their"), load=lambda: theirs),
    ]
    own = classes.metadata.entry_points

    def entry_points(group):
        return entries if group == "lmms_eval.models" else own(group=group)

    monkeypatch.setattr(classes.metadata, "entry_points", entry_points)
    with pytest.raises(SystemExit, match="the package 'their' replaces the model 'llava_hf'"):
        prepared(*MODEL, "--augment", "same")
    entries.reverse()
    _, found = prepared(*MODEL, "--augment", "same")
    assert found[0].chat_class_path.endswith("llava_hf__chat")
    assert classes._bases["llava_hf__chat"] == "their.Llava"


def test_the_entry_point_is_installed():
    from importlib.metadata import entry_points

    (ours,) = [e for e in entry_points(group="lmms_eval.models") if e.name == "hb-tta"]
    assert ours.load() is manifests


def test_start_up_without_the_flag_takes_no_time():
    """Processor time: the computer may be busy."""
    code = """
import sys, time
sys.modules["lmms_eval.__main__"] = object()
sys.argv = ["lmms-eval", "--tasks", "mme", "--model", "llava_hf", "--model_args", "pretrained=x"]
began = time.process_time()
from hb_tta.integrations.lmms_eval import manifests
assert manifests() == []
print(time.process_time() - began, "torch" in sys.modules, "lmms_eval.models" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    seconds, torch_came, models_came = done.stdout.split()
    assert float(seconds) < 0.1
    assert (torch_came, models_came) == ("False", "False")
