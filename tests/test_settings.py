"""Which views: one value at every door, whoever's the generator and however it is written."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hb_tta import Augmenter, MultimodalContext, UserError
from hb_tta.cli import build_parser, main
from hb_tta.cli.augment import view_settings as of_augment
from hb_tta.cli.tpt import view_settings as of_tpt
from hb_tta.datasets import load_tasks
from hb_tta.describe import DescriberSpec
from hb_tta.describe.drafts import Drafting
from hb_tta.families import get_family
from hb_tta.generators import DEFAULT, GeneratorSpec
from hb_tta.generators.registry import GENERATORS
from hb_tta.pocket.tasks import pocket_mme
from hb_tta.presets import CLASSES, PRESETS, WORDS
from hb_tta.settings import OPTIONS, ViewSettings, each, settings_table
from hb_tta.store import Store
from hb_tta.weights import Weights

PLUGIN = Path(__file__).parent / "test_package_plugin"
POCKET = get_family("pocket")


@pytest.fixture
def work(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    next(pocket_mme("dev")).image.save(folder / "scene.png")
    return folder


# ── The doors ────────────────────────────────────────────────────────────────────────────────────


def augment_door(method: str, flags: list[str]) -> ViewSettings:
    line = ["augment", "scene.png", "--method", method, *flags]
    return of_augment(build_parser().parse_args(line))


def tpt_door(method: str, flags: list[str]) -> ViewSettings:
    line = ["tpt", "--task", "pocket_objects", "--augment", "none", method, *flags]
    return of_tpt(build_parser().parse_args(line))[method]


def clip_benchmark_door(method: str, flags: list[str]) -> ViewSettings:
    pytest.importorskip("clip_benchmark")
    from hb_tta.integrations.clip_benchmark import read_options

    views = read_options(["eval", "--augment", method, *flags])[0].views
    assert views is not None
    return views


def lmms_eval_door(method: str, flags: list[str]) -> ViewSettings:
    from hb_tta.settings.augmented import AugmentSettings

    assert flags[0] == "--augment_args"
    return AugmentSettings.parse(method, f"{flags[1]},combine=zero").views


DOORS = [augment_door, tpt_door, clip_benchmark_door, lmms_eval_door]
WANTED: dict[str, Any] = {
    "family": "pocket",
    "n": 3,
    "seed": 5,
    "candidates": 6,
    "judge": "fine_grained",
    "min_score": "real-0.1",
    "seeds": "by_context",
    "drafts": Drafting(3, "sampled"),
    "preset": "safe",
    "gate": 0.3,
    "gate_share": 0.2,
    "describer": "some/mllm",
    "dtype": "float16",
    "batch_size": 2,
    "deterministic": True,
    "format": "webp:80",
    "cpu_offload": True,
    "device": "cpu",
    "store": "kept",
}
OWN = {"lora": None, "base": "some/base", "num_inference_steps": 7, "guidance_scale": 2.5}
TEXT = (
    "family=pocket,n=3,seed=5,candidates=6,judge=itm,min_score=real-0.10,seeds=by_context,"
    "drafts=3+sampled,preset=safe,describer=some/mllm,dtype=float16,batch_size=2,cpu_offload=true,"
    "deterministic=true,format=webp:80,"
    "device=cpu,store=kept,lora=none,base=some/base,steps=7,guidance=2.5"
)
GATES = ("gate", "gate_share")  # of which one may be said
EXPECTED = ViewSettings("hummingbird", OWN, **{k: v for k, v in WANTED.items() if k not in GATES})
GATED = replace(EXPECTED, gate=0.3)


@pytest.mark.parametrize("door", DOORS)
def test_equal_requests_give_equal_settings_at_every_door(door):
    if door is augment_door:
        assert door("hummingbird", ["--augment_args", TEXT]) == EXPECTED
    else:
        assert door("hummingbird", ["--augment_args", f"{TEXT},gate=0.3"]) == GATED
        text = f"gate=0.3,{TEXT}".replace("n=3", "views=3")
        assert door("hummingbird", ["--augment_args", text]) == GATED


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("door", DOORS)
def test_who_asks_nobody_or_only_a_part_has_no_gate_for_it(door, name):
    if door is lmms_eval_door or (name == "gate" and door is not augment_door):
        assert getattr(door("hummingbird", ["--augment_args", f"{name}=0.2"]), name) == 0.2
    else:
        with pytest.raises(UserError, match=f"{name}=0.2 needs .*: (leave it out|use gate=P)"):
            door("hummingbird", ["--augment_args", f"{name}=0.2"])


def test_the_request_of_the_test_names_every_option():
    assert set(WANTED) == set(OPTIONS)
    for name, value in WANTED.items():
        assert value != OPTIONS[name].default, f"{name} is what it is anyway"


@pytest.mark.parametrize("door", DOORS)
def test_without_a_word_harnesses_are_safe_and_others_show_all_views(door):
    found = door("hummingbird", ["--augment_args", ""])
    if door is augment_door:
        assert found == ViewSettings() == ViewSettings(preset="paper")
    else:
        asked = WORDS if door is lmms_eval_door else CLASSES
        assert found == ViewSettings(preset="safe", gate=PRESETS["safe"]["gate"][asked])
    paper = door("hummingbird", ["--augment_args", "preset=paper"])
    assert paper == ViewSettings() and paper.family == "sdxl" and paper.n == 4


@pytest.mark.parametrize("door", DOORS[1:])
def test_what_a_person_says_beats_the_preset(door):
    def asked(text, method="hummingbird"):
        return door(method, ["--augment_args", text])

    assert asked("gate=none").gate is None and asked("gate=none").judge != "none"
    assert asked("gate=0.25").gate == 0.25
    assert asked("seeds=fixed").seeds == "fixed"
    for other in ("none", "clip_text"):  # the threshold is one of the preset's own judge
        assert (asked(f"judge={other}").judge, asked(f"judge={other}").min_score) == (other, None)
    assert asked("min_score=0.5").min_score == 0.5
    other = asked("", "randaugment")
    assert (other.preset, other.gate, other.judge, other.seeds) == (
        *("paper", None, "none"),
        "by_context",
    )
    assert asked("preset=safe", "randaugment").judge == "none", "nothing is there to judge by"


def test_a_gate_changes_no_view_and_no_key(tmp_path):
    plain, gated = (
        ViewSettings.parse("randaugment", f"family=pocket,store={tmp_path},{text}")
        for text in ("", "gate=0.5")
    )
    spec = plain.augmenter().spec
    assert spec == gated.augmenter().spec and plain.digest(spec) == gated.digest(spec)


@pytest.mark.parametrize("door", DOORS)
def test_python_makes_the_augmenter_of_every_door(door, tmp_path):
    text = f"family=pocket,preset=paper,seed=2,steps=3,guidance=1.5,lora=none,store={tmp_path}"
    made = door("hummingbird", ["--augment_args", text]).augmenter()
    python = Augmenter.from_pretrained(
        "hummingbird", family="pocket", steps=3, guidance=1.5, lora=None, store=tmp_path
    )
    assert made.spec == python.spec
    assert made.spec["generator"]["num_inference_steps"] == 3
    assert made.spec["describer"]["mllm"] == POCKET.weights("mllm").fingerprint()


def test_flags_say_the_same_as_augment_args():
    flags = "--family pocket -n 3 --seed 5 --describer some/mllm --dtype float16 --batch-size 2"
    flags += " --candidates 6 --judge itm --min-score real-.1 --seeds by_context --drafts 3+sampled"
    flags += " --deterministic --cpu-offload --device cpu --store kept --lora none --base some/base"
    flags += " --format webp:80 --steps 7 --guidance 2.5 --augment_args preset=safe"
    assert augment_door("hummingbird", flags.split()) == EXPECTED
    few = "--family pocket --views 3 --seed 5 --device cpu --store kept --lora none"
    few += " --sampling-steps 7 --guidance 2.5 --augment_args"
    rest = "describer=some/mllm,dtype=float16,batch_size=2,cpu_offload=true,base=some/base,"
    rest += "deterministic=true,format=webp:80,"
    rest += "candidates=6,judge=itm,min_score=real-0.1,seeds=by_context,drafts=3+sampled"
    gated = ["--preset", "safe", "--gate", "0.3"]
    assert tpt_door("hummingbird", [*gated, *few.split(), rest]) == GATED
    flags = [*gated, "--family", "pocket", "-n", "3", "--store", "kept", "--augment_args"]
    rest += ",seed=5,device=cpu,lora=none,steps=7,guidance=2.5"
    assert clip_benchmark_door("hummingbird", [*flags, rest]) == GATED


def test_the_demo_is_pockets_own(work, capsys):
    line = ["demo", "--questions", "1", "-n", "2", "--store", "kept", "--out", "page.html"]
    methods = ["--method", "randaugment", "--augment_args", "magnitude=3"]
    assert main([*line, *methods]) == 0
    assert "randaugment: 2 views for 1 questions" in capsys.readouterr().err


# ── key=value, JSON, a file ──────────────────────────────────────────────────────────────────────


def test_json_and_a_file_say_the_same_as_key_value(tmp_path):
    expected = ViewSettings.parse("randaugment", "n=2,magnitude=20,family=pocket")
    written = {"n": 2, "magnitude": 20, "family": "pocket"}
    (tmp_path / "views.json").write_text("\ufeff" + json.dumps(written), encoding="utf-8")
    for given in (json.dumps(written), f"@{tmp_path / 'views.json'}", written):
        assert ViewSettings.parse("randaugment", given) == expected
    assert expected.settings == {"magnitude": 20} and expected.n == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "magnitud=3",
            "magnitud= .* to randaugment, did you mean magnitude=.*choose from .*num_ops",
        ),
        ("view=3", "did you mean n="),
        (
            "zzz=3",
            "zzz= in --augment_args is not known to randaugment: choose from family, n, seed",
        ),
        ("n", "write key=value, separated by commas"),
        ("n=1,n=2", "n= stands twice"),
        ("n=1,views=2", "views= stands twice"),
        ('{"n": 1, "n": 2}', "n= stands twice"),
        ('{"n": 1', "is not JSON"),
        ("@nowhere.json", "@nowhere.json cannot be read .*: check the path"),
        ("[1]", "write key=value"),
        ("n=0", "n='0' is not a whole number of at least 1"),
        ("n=two", "n='two' is not a whole number"),
        ('{"n": 1.5}', "n=1.5 is not a whole number"),
        ('{"n": true}', "n=True is not a whole number"),
        ('{"n": null}', "n=None is not a whole number"),
        ("seed=-1", "seed=-1 is out of range"),
        ("family=", "family='' names nothing"),
        ("family=sd3", "there is no family 'sd3'"),
        ("dtype=int8", "dtype='int8' is not known: choose from float32"),
        ("device=gpu", "device='gpu' is no device"),
        ("cpu_offload=perhaps", "cpu_offload='perhaps' is neither true nor false"),
        ('{"describer": {"name": "x"}}', "is no describer: give a folder, a hub id, or its mllm"),
        ("magnitude=much", "magnitude='much' is no value of it: give a whole number"),
        ('{"magnitude": 2.5}', "magnitude=2.5 is no value of it"),
    ],
)
def test_what_cannot_be_followed_is_a_sentence(given, told):
    with pytest.raises(UserError, match=told) as caught:
        ViewSettings.parse("randaugment", given)
    assert "\n" not in str(caught.value)


def test_a_setting_stands_in_one_place(capsys):
    line = ["augment", "scene.png", "-n", "2", "--augment_args", "views=3"]
    with pytest.raises(UserError, match="n stands in --augment_args and as an option of its own"):
        of_augment(build_parser().parse_args(line))


def test_a_mistake_in_a_flag_shows_before_anything_is_done(capsys):
    for line, told in (
        (["-n", "0"], "argument -n: '0' is not a whole number of at least 1"),
        (["--dtype", "int8"], "argument --dtype: 'int8' is not known"),
        (["--device", "gpu"], "argument --device: 'gpu' is no device"),
    ):
        with pytest.raises(SystemExit):
            augment_door("hummingbird", line)
        assert told in capsys.readouterr().err


def test_a_setting_that_only_others_have_is_ignored_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="randaugment ignores lora='a/b'"):
        settings = ViewSettings.parse("randaugment", "lora=a/b,magnitude=3")
    assert settings.settings == {"magnitude": 3}
    with pytest.warns(UserWarning, match="randaugment ignores"):
        Augmenter.from_pretrained("randaugment", family="pocket", steps=3, store=tmp_path)
    with pytest.raises(UserError, match="randaugment has no setting 'magnitud'"):
        Augmenter.from_pretrained("randaugment", family="pocket", magnitud=3, store=tmp_path)


def test_several_methods_take_each_their_own():
    found = each(["randaugment", "i2t2i"], {"magnitude": "3", "guidance_scale": 2, "n": 2})
    assert found["randaugment"].settings == {"magnitude": 3}
    assert found["i2t2i"].settings == {"guidance_scale": 2.0}
    assert {settings.n for settings in found.values()} == {2}
    with pytest.raises(UserError, match="magnitude= in --augment_args is not known to i2t2i"):
        each(["i2t2i"], {"magnitude": "3"})
    with pytest.raises(UserError, match="magnitude= .* is a method's, and none is named"):
        each([], {"magnitude": "3"})


# ── Written down ─────────────────────────────────────────────────────────────────────────────────

CASES = {
    "nothing": ViewSettings(),
    "everything": replace(EXPECTED, batch_size=None, cpu_offload=False, device=None, store=None),
    "nobody describes": ViewSettings(describer=None),
    "parts": ViewSettings(
        settings={"lora": Weights("a/b", subfolder="c"), "base": Weights("d/e", revision="f")},
        describer=DescriberSpec(Weights("g/h", subfolder="i"), max_new_tokens=9),
    ),
    "own": ViewSettings("randaugment", {"magnitude": 20}, family="pocket"),
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_json_round_trips(settings):
    written = settings.to_json()
    assert json.loads(json.dumps(written)) == written
    assert ViewSettings.from_json(json.loads(json.dumps(written))) == settings


def test_what_only_running_needs_is_in_no_json():
    assert EXPECTED.to_json() == CASES["everything"].to_json()
    assert not {name for name, one in OPTIONS.items() if one.running} & set(EXPECTED.to_json())


def test_a_family_of_ones_own_has_no_name():
    settings = ViewSettings(family=POCKET.with_roles(clip=None))
    with pytest.raises(UserError, match="name the weights themselves, by base"):
        settings.to_json()
    assert ViewSettings(family=POCKET).to_json()["family"] == "pocket"


def test_the_digest_is_of_content_and_of_every_setting(tmp_path):
    def digest(text="", method="hummingbird"):
        settings = ViewSettings.parse(method, f"family=pocket,store={tmp_path / 's'},{text}")
        return settings.digest(settings.augmenter().spec)

    copy = shutil.copytree(POCKET.weights("generator").location, tmp_path / "copy")
    base = digest()
    assert len(base) == 16
    same = [f"base={copy}", "batch_size=2", "device=cpu", "cpu_offload=true", "steps=10"]
    assert {digest(text) for text in same} == {base}
    other = ["n=3", "seed=1", "guidance=3", "steps=3", "dtype=bfloat16"]
    digests = {base, digest(method="randaugment"), *(digest(text) for text in other)}
    assert len(digests) == len(other) + 2


def test_the_describers_default_is_the_familys():
    assert ViewSettings().describer is DEFAULT
    assert ViewSettings.parse("hummingbird", "describer=none").describer is None
    assert ViewSettings.parse("hummingbird", {"describer": None}).describer is None


# ── Another package's generator, with a setting of its own ───────────────────────────────────────


@pytest.mark.parametrize("door", DOORS)
def test_a_plugins_setting_is_set_by_name_at_every_door(mirror, door):
    settings = door("mirror", ["--augment_args", "family=pocket,preset=paper,every=3,n=2"])
    assert settings == ViewSettings("mirror", {"every": 3}, family="pocket", n=2)
    python = Augmenter.from_pretrained("mirror", family="pocket", every=3)
    assert settings.augmenter().spec == python.spec
    assert python.spec["generator"]["every"] == 3
    with pytest.raises(UserError, match="did you mean every="):
        door("mirror", ["--augment_args", "evry=3"])


def test_a_plugins_setting_reaches_its_views(mirror, work):
    line = ["augment", "scene.png", "--family", "pocket", "--method", "mirror", "-n", "4"]
    assert main([*line, "--augment_args", "every=3"]) == 0
    out = work / "hb-tta-out"
    assert any('"every": 3' in path.read_text() for path in out.glob("*.json"))
    pngs = {path.name: path.read_bytes() for path in out.rglob("*.png")}
    views = [next(pngs[name] for name in pngs if f"-seed{seed}-" in name) for seed in range(4)]
    assert views[0] == views[3] != views[1] == views[2]


def test_a_plugins_setting_reaches_the_tuned_clip(mirror, work, tmp_path):
    line = "tpt --task pocket_objects --limit 1 --family pocket --augment mirror randaugment"
    line += " --crops 0 -n 2 --preset paper --quiet --augment_args every=3,magnitude=1"
    assert main(line.split()) == 0
    store = Store(tmp_path / "store")
    kept = {entry.key for entry in store.entries() if entry.namespace == "views"}
    image = load_tasks("pocket_objects", limit=1)[0].images[0].image
    expected: set[str] = set()
    for method, own in {"mirror": {"every": 3}, "randaugment": {"magnitude": 1}}.items():
        augmenter = Augmenter.from_pretrained(method, family="pocket", store=store, **own)
        expected |= set(augmenter.view_keys([MultimodalContext(image, "", "object")], n=2)[0] or ())
    assert kept == expected and len(kept) == 4


def test_a_plugins_setting_is_told(mirror, capsys):
    assert "mirror: every=2" in settings_table()
    for command in ("augment", "tpt", "clip-benchmark"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "mirror: every=2" in capsys.readouterr().out
    assert main(["list"]) == 0
    assert "every" in capsys.readouterr().out


@dataclass(frozen=True)
class ClashingSpec(GeneratorSpec):
    """A method whose setting has the name of an option."""

    seed: int = 0

    method: ClassVar[str] = "clashing"
    needs_description: ClassVar[bool] = False

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, "seed": self.seed}

    def load(self, device: str | None = None, **_: Any) -> Any:
        raise AssertionError


def test_a_method_may_not_name_a_setting_as_every_method_has_it(monkeypatch):
    monkeypatch.setitem(GENERATORS.built_in, "clashing", f"{__name__}:ClashingSpec")
    with pytest.raises(UserError, match="clashing has a setting of its own named 'seed'"):
        ViewSettings.parse("clashing", "seed=3")
