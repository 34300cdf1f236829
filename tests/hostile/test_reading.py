"""What somebody else wrote: pipes, links, odd lines, deep JSON, names with control characters."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.commands import told_by

from hb_tta.cli import main
from hb_tta.errors import HbTtaWarning, UserError, visible
from hb_tta.file_index import FileIndex, file_digest
from hb_tta.images import load_image
from hb_tta.reading import (
    inside,
    lines_in,
    objects_in,
    open_regular,
    parse_json,
    read_json,
    user_path,
)
from hb_tta.store import Store, content_key
from hb_tta.weights import Weights

ROOT = Path(__file__).parents[2]
QUICK = ("--method", "randaugment", "--family", "pocket")

# ── Regular files alone ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["pipe", "folder", "socket", "device"])
def irregular(request, tmp_path):
    """A path that no reader may wait for."""
    path = tmp_path / "odd"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "socket":
        held = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(tmp_path)  # a socket's path is short
        held.bind("odd")
        os.chdir(here)
        request.addfinalizer(held.close)
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize(
    "read", [open_regular, read_json, file_digest, lambda path: list(lines_in(path))]
)
def test_a_reader_waits_for_no_pipe(irregular, read):
    with pytest.raises(OSError):
        read(irregular)


def test_a_pipe_as_an_image_an_entry_weights_or_an_index(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="not a regular file"):
        load_image(tmp_path / "pipe.png")
    store, key = Store(tmp_path / "store"), content_key({"a": 1})
    store.put("views", key, b"", {})
    [entry] = store.entries()
    entry.path.unlink()
    os.mkfifo(entry.path)
    with pytest.raises(UserError, match="cannot be read"):
        store.read("views", key)
    assert store.verify() == []  # it is no entry at all
    (tmp_path / "model").mkdir()
    os.mkfifo(tmp_path / "model" / "weights.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        Weights(str(tmp_path / "model")).fingerprint()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "hb_tta").mkdir()
    os.mkfifo(tmp_path / "hb_tta" / "index.json")
    (tmp_path / "file").write_bytes(b"text")
    monkeypatch.setattr(FileIndex, "_SMALL", -1)
    assert FileIndex("index.json").digest(tmp_path / "file") == file_digest(tmp_path / "file")


def test_a_pipe_as_a_file_of_samples_or_of_settings(tmp_path, picture):
    os.mkfifo(tmp_path / "samples.jsonl")
    pipe = tmp_path / "samples.jsonl"
    assert main(["augment", str(pipe), *QUICK]) == 1
    with pytest.raises(UserError, match="regular file"):
        told_by(["augment", str(picture), *QUICK, "--augment_args", f"@{pipe}"])


def reads_of(file: Path) -> list[str]:
    """Calls in a module that read files by other ways than ``hb_tta.reading``."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
        given = [*node.args[1:2], *(one.value for one in node.keywords if one.arg == "mode")]
        to_read = [ast.unparse(mode) for mode in given] in ([], ["'rb'"], ["'r'"])
        opens = isinstance(node.func, ast.Name) and name == "open" and to_read
        method = node.func if isinstance(node.func, ast.Attribute) else None
        reads = name in ("read_bytes", "read_text") and method is not None
        ours = method is not None and getattr(method.value, "id", "") == "reading"
        if opens or (reads and not ours):
            found.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    return found


# Files of the package itself, and of what its own runs wrote just before.
OWN = (
    "hb_tta/report/document.py",
    "hb_tta/serve/page.py",
    "hb_tta/datasets/imagenet.py",
    "hb_tta/experiments/",
)


def test_every_file_is_read_in_one_place():
    folders = [ROOT / name for name in ("hb_tta", "integrations", "training")]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    assert len(files) > 100
    others = [
        file
        for file in files
        if file.name != "reading.py"
        and "pocket_family" not in file.parts
        and not str(file.relative_to(ROOT)).startswith(OWN)
    ]
    assert [place for file in others for place in reads_of(file)] == []


# ── Lines and JSON ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_a_line_ends_at_a_newline_alone(tmp_path, mark):
    path = tmp_path / "lines.jsonl"
    said = {"answer": f"one{mark}two"}
    path.write_bytes(json.dumps(said, ensure_ascii=False).encode() + b"\n\n" + b'{"b": 1}')
    assert list(objects_in(path)) == [(1, said), (3, {"b": 1})]


@pytest.mark.parametrize(
    "text",
    [b"", b"[" * 100_000, b"[" * 500 + b"]" * 500, b"9" * 5000, b"\xff", b"{", b"nul", b"'a'"],
)
def test_json_that_cannot_be_read_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_a_line_that_is_no_object_is_none_and_the_others_stay(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n[1]\nnull\n\xff\n' + b"[" * 9999 + b'\n{"b": 2}\n{')
    found = [line for _, line in objects_in(path)]
    assert found == [{"a": 1}, None, None, None, None, {"b": 2}, None]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\0b", ".."])
def test_a_name_out_of_data_stays_inside(tmp_path, name):
    with pytest.raises(ValueError, match="leads out of"):
        inside(tmp_path, name)
    assert inside(tmp_path, "a/b.png") == tmp_path / "a" / "b.png"


# ── Homes ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["~a.png", "~nobody-of-that-name/x", "a~", "~~"])
def test_a_tilde_that_is_nobodys_home_is_a_letter(name):
    assert str(user_path(name)) == name
    with pytest.raises(UserError, match="there is no image"):
        load_image(name)


HOMELESS = """
import os, pwd, sys

def nobody(*_):
    raise KeyError("uid not found: 12345")

pwd.getpwuid = pwd.getpwnam = nobody
from hb_tta.cli import main
sys.exit(main(sys.argv[1:]))
"""


def homeless(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    """The command as ``docker run -u 12345`` has it run: no home, no entry in passwd."""
    gone = ("HOME", "XDG_CACHE_HOME", "HB_TTA_STORE", "HF_HOME")
    left = {name: value for name, value in os.environ.items() if name not in gone}
    return subprocess.run(
        [sys.executable, "-c", HOMELESS, *line],
        cwd=folder,
        env=left,
        capture_output=True,
        text=True,
    )


def test_a_user_without_a_home_needs_only_a_store(tmp_path, picture):
    done = homeless(tmp_path, "augment", str(picture), *QUICK, "-n", "1", "--store", "store")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "hb-tta-out", "store"]
    refused = homeless(tmp_path, "store", "info")
    assert refused.returncode == 1
    assert refused.stderr.startswith("hb-tta: this user has no home folder") and (
        refused.stderr.count("\n") == 1
    )
    assert homeless(tmp_path, "store", "info", "--store", "store").returncode == 0


@pytest.fixture
def picture(tmp_path) -> Path:
    from PIL import Image

    path = tmp_path / "a.png"
    Image.new("RGB", (16, 16), "red").save(path)
    return path


# ── Streams and names ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_costs_nothing(tmp_path, picture, closed):
    line = f'"{sys.executable}" -m hb_tta.cli augment a.png {" ".join(QUICK)} -n 1 {closed}'
    assert subprocess.run(line, shell=True, cwd=tmp_path).returncode == 0
    assert len(list((tmp_path / "hb-tta-out" / "views").iterdir())) == 1


ODD_NAMES = ["\x1b[31mred.png", "a\nb.png", "\x07\x9b.png", "\u202egnp.exe", "a\u2028b.png"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_no_terminal_obeys_a_files_name(tmp_path, monkeypatch, capsys, picture, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"no image")
    assert main(["augment", name, *QUICK]) == 1
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"image": name}) + "\n")
    assert main(["augment", str(file), *QUICK]) == 1
    assert main(["augment", "a.png", *QUICK, "-n", "1", "--out", f"out{name}"]) == 0
    told = capsys.readouterr()
    assert name not in told.out + told.err
    assert visible(name) in told.out and visible(name) in told.err


def test_a_warning_is_one_line_too():
    assert str(HbTtaWarning("a\x1b[0m\nb")) == "a\\x1b[0m\\nb" == str(UserError("a\x1b[0m\nb"))
