"""Sets of views: exported, opened by others, imported, proved; and used without a generator."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from augmenting import picture

from hb_tta import Augmenter, MultimodalContext
from hb_tta.cli import main
from hb_tta.errors import UserError
from hb_tta.sharing import export, import_set
from hb_tta.sharing.entries import SharedEntry
from hb_tta.store import Store, content_key
from hb_tta.views.proof import key_told
from hb_tta.weights import Weights, known_by

FORMATS = ("webdataset", "parquet")


def filled(folder: Path, method: str = "jitter", **settings) -> Store:
    augmenter = Augmenter.from_pretrained(method, family="pocket", store=folder, **settings)
    augmenter.augment([MultimodalContext(picture(n), "") for n in range(4)], n=2)
    return Store(folder)


def contents(store: Store) -> dict[tuple[str, str], tuple[bytes, dict]]:
    found = {(e.namespace, e.key): store.read(e.namespace, e.key) for e in store.entries()}
    return {place: entry for place, entry in found.items() if entry is not None}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Views of two methods; a description and scores as their makers write them."""
    store = filled(tmp_path / "store")
    filled(tmp_path / "store", "randaugment")
    pixels, describer = "ab" * 32, {"mllm": "sha256:" + "0" * 64}
    meta = {"pixels": pixels, "guidance": "Is it?", "task": "vqa", "describer": describer}
    draft = {**meta, "draft": {"kind": "sampled", "number": 1, "temperature": 0.7}}
    for about in (meta, draft):
        key = key_told("descriptions", about)
        store.put("descriptions", str(key), b'{"description": "A caf\xc3\xa9."}', about)
    view = next(store.entries("views"))
    for of in ({"view": view.key}, {"pixels": pixels}):
        about = {**of, "text": "A café.", "judge": {"reward": "itm"}}
        store.put("scores", str(key_told("scores", about)), b'{"score": 0.25}', about)
    return store


@pytest.mark.parametrize("format", FORMATS)
def test_there_and_back_every_byte_is_the_same(store, format, tmp_path):
    done = export(store, tmp_path / "set", format=format)
    assert done.entries == {"views": 16, "descriptions": 2, "scores": 2}
    assert done.methods == {"jitter": 8, "randaugment": 8}
    other = Store(tmp_path / "other")
    taken = import_set(tmp_path / "set", other)
    assert taken.whole and taken.taken == done.entries
    assert contents(other) == contents(store)
    again = import_set(tmp_path / "set", other)
    assert again.whole and not again.taken and again.there == done.entries


@pytest.mark.parametrize("format", FORMATS)
def test_the_hubs_library_opens_it(store, format, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra train is not installed")
    export(store, tmp_path / "set", format=format)
    cache = str(tmp_path / "cache")
    views = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=cache)
    assert len(views) == 16
    image = views[0]["image" if format == "parquet" else "png"]
    assert image.size == (64, 64)
    rest = datasets.load_dataset(str(tmp_path / "set"), "scores", split="train", cache_dir=cache)
    assert len(rest) == 2


def test_one_method_goes_with_what_belongs_to_it(store, tmp_path):
    method = store.read("views", next(store.entries("views")).key)[1]["generator"]["method"]
    done = export(store, tmp_path / "set", method=method)
    assert done.methods == {method: 8} and done.entries["scores"] == 1  # of a view of it
    with pytest.raises(UserError, match="holds no views of hummingbird"):
        export(store, tmp_path / "none", method="hummingbird")
    with pytest.raises(UserError, match="is not empty"):
        export(store, tmp_path / "set")


def test_the_card_tells_method_fingerprints_and_use(store, tmp_path, capsys):
    assert main(["store", "export", str(tmp_path / "set"), "--store", str(store.root)]) == 0
    card = (tmp_path / "set/README.md").read_text()
    assert "jitter (8), randaugment (8)" in card and "hb-tta store import" in card
    assert '"shift": 0.0625' in card and "licence" in card
    assert "16 views" in capsys.readouterr().out


# ── What others may have done to it ──────────────────────────────────────────────────────────────


def retold(folder: Path, change) -> None:
    """The first shard of views, with what is told of its first entry changed."""
    path = min((folder / "views").glob("*.tar"))
    with tarfile.open(path) as tar:
        files = [(m, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    told = json.loads(files[1][1])
    picture_bytes = change(told, files[0][1])
    files[0] = files[0][0], picture_bytes
    files[1] = files[1][0], json.dumps(told).encode()
    with tarfile.open(path, "w") as tar:
        for member, data in files:
            member.size = len(data)
            import io

            tar.addfile(member, io.BytesIO(data))


def other_bytes(told, data):
    return data[:-1] + b"x"


def other_picture(told, data):
    import hashlib

    new = b"no picture"
    told["sha256"] = hashlib.sha256(new).hexdigest()
    return new


def other_seed(told, data):
    told["meta"]["seed"] += 1
    return data


def other_namespace(told, data):
    told["namespace"] = "../../etc"
    return data


def no_meta(told, data):
    told["meta"] = ["x"]
    return data


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other_bytes, "its bytes are not those that were sent"),
        (other_picture, "is not an image"),
        (other_seed, "its key is not that of what it says"),
        (other_namespace, "among those of another kind"),
        (no_meta, "tells nothing of how it was made"),
    ],
)
def test_an_entry_that_is_not_what_it_says_is_left_out(store, tmp_path, change, why, capsys):
    export(store, tmp_path / "set")
    retold(tmp_path / "set", change)
    assert main(["store", "import", str(tmp_path / "set"), "--store", str(tmp_path / "in")]) == 1
    told = capsys.readouterr()
    assert why in told.err and "15 views" in told.out and "the set is not whole" in told.err
    whole = contents(store)
    assert all(whole[place] == entry for place, entry in contents(Store(tmp_path / "in")).items())


@pytest.mark.parametrize("format", FORMATS)
def test_a_shard_that_is_cut_or_gone_is_told(store, tmp_path, format):
    export(store, tmp_path / "set", format=format)
    (shard,) = (tmp_path / "set/views").iterdir()
    shard.write_bytes(shard.read_bytes()[:-20_000])
    done = import_set(tmp_path / "set", Store(tmp_path / "in"))
    assert not done.whole and "damaged or cut short" in done.damaged[0].why
    assert done.missing["views"] > 0 and done.taken["scores"] == 2
    shard.unlink()
    done = import_set(tmp_path / "set", Store(tmp_path / "in2"))
    assert done.missing == {"views": 16}


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1, "container": "zip"}'])
def test_what_is_no_set(tmp_path, text):
    with pytest.raises(UserError, match="is no whole set of views"):
        import_set(tmp_path, Store(tmp_path / "in"))
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(UserError, match="is damaged: get|this version reads 1"):
        import_set(tmp_path, Store(tmp_path / "in"))


def test_names_in_a_tar_lead_nowhere(store, tmp_path):
    export(store, tmp_path / "set")
    path = min((tmp_path / "set/views").glob("*.tar"))
    with tarfile.open(path, "a") as tar:
        for name in ("../../evil.png", "/etc/evil.json", "x" * 90 + ".png"):
            tar.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("a" * 64 + ".json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    done = import_set(tmp_path / "set", Store(tmp_path / "in"))
    assert len(done.damaged) == 4 and done.taken["views"] == 16
    assert not list(tmp_path.rglob("evil*"))


def test_a_payload_is_proved_whatever_its_kind():
    for payload in (b"", b"{}", b'{"score": NaN}', b'{"score": true}', b"[" * 3000):
        about = {"pixels": "a", "text": "b", "judge": {}}
        entry = SharedEntry.of("scores", str(key_told("scores", about)), payload, about)
        assert entry.fault() == "it holds no score"
    assert (
        SharedEntry.of("features", "a" * 64, b"", {}).fault() == "there is no namespace 'features'"
    )


# ── Without a generator ──────────────────────────────────────────────────────────────────────────


def test_weights_have_names_and_what_is_here_counts_first(tmp_path):
    own = Weights(str(tmp_path))
    (tmp_path / "a.json").write_text("{}")
    hub = Weights("org/model", subfolder="lora", revision="v2")
    assert own.name is None and hub.name == "org/model/lora@v2"
    bundled = Weights(str(Path(main.__code__.co_filename).parents[1] / "pocket/weights/none"))
    assert bundled.name == "hb_tta:pocket/weights/none"
    with known_by({"org/model/lora@v2": "hub:1", str(bundled.name): "sha256:2"}) as known:
        assert (hub.fingerprint(), bundled.fingerprint()) == ("hub:1", "sha256:2")
        assert own.fingerprint().startswith("sha256:") and len(known.used) == 2
    with pytest.raises(UserError, match="no folder and no hub id"):
        bundled.fingerprint()


def without_generator(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as it is where nobody put the generator's weights."""
    from hb_tta import families, weights

    here = Path(families.__file__).parent / "pocket" / "weights"
    (folder / "pocket/weights").mkdir(parents=True)
    for role in here.iterdir():
        if role.name != "generator":
            (folder / "pocket/weights" / role.name).symlink_to(role)
    monkeypatch.setattr(families, "__file__", str(folder / "families.py"))
    monkeypatch.setattr(weights, "_PACKAGE", folder)


def test_lmms_eval_answers_from_a_set_without_a_generator(tmp_path, monkeypatch):
    pytest.importorskip("lmms_eval", reason="the extra lmms-eval is not installed")
    from lmms_eval_runs import answers, evaluate, small_tasks

    from hb_tta.families import get_family
    from hb_tta.views.models import Models

    tasks = small_tasks(tmp_path / "pocket_mme")
    mllm = get_family("pocket").weights("mllm").location

    def run(store: Path, more: str = "") -> dict:
        given = f"family=pocket,n=1,steps=2,preset=paper,store={store}{more}"
        args = f"pretrained={mllm},device_map=cpu"
        return evaluate(
            tasks,
            model="llava_hf",
            model_args=args,
            limit=4,
            augment="hummingbird",
            augment_args=given,
        )

    first = run(tmp_path / "one")
    assert main(["store", "export", str(tmp_path / "set"), "--store", str(tmp_path / "one")]) == 0
    card = (tmp_path / "set/README.md").read_text()
    assert "`hb_tta:pocket/weights/generator`" in card and "hummingbird (" in card
    without_generator(tmp_path / "package", monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(SystemExit, match="no folder"):
        run(tmp_path / "nothing")
    assert main(["store", "import", str(tmp_path / "set"), "--store", str(tmp_path / "two")]) == 0
    loaded: list[str] = []
    turn = Models._turn
    monkeypatch.setattr(
        Models,
        "_turn",
        lambda self, role, *a, **k: loaded.append(role) or turn(self, role, *a, **k),
    )
    second = run(tmp_path / "two")
    assert loaded == []
    assert answers(second) == answers(first) and second["results"] == first["results"]
    with pytest.raises(SystemExit, match="generator would have to make.*not on this machine"):
        run(tmp_path / "two", ",seed=7")
    with pytest.raises(SystemExit, match="generator would have to make.*not on this machine"):
        run(tmp_path / "two", ",dtype=bfloat16")  # its descriptions lack, too


def test_a_key_needs_no_more_than_what_is_told(store):
    for entry in store.entries():
        found = store.read(entry.namespace, entry.key)
        assert found is not None and key_told(entry.namespace, found[1]) == entry.key
    assert content_key({}) != key_told("scores", {"view": "a", "text": "", "judge": {}})
