"""The hb-tta command: what it writes, what it answers from the store, how it speaks of mistakes."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from hb_tta.cli import describe_os_error, main
from hb_tta.cli.output import Lines
from hb_tta.cli.requests import Failure, read_requests
from hb_tta.datasets.own import open_rows
from hb_tta.families import get_family, list_families
from hb_tta.file_index import FileIndex
from hb_tta.pocket.tasks import pocket_mme
from hb_tta.store import Store, content_key

QUICK = ("--method", "randaugment", "--family", "pocket")  # needs no model
REAL = ("--family", "pocket", "--steps", "2", "--device", "cpu")
NO_FOLDER = "/sys/hb-tta"  # a place where nobody can make a folder, root included


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, with a scene in it and a store beside it."""
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    next(pocket_mme("dev")).image.save(folder / "scene.png")
    return folder


def hb_tta(*arguments: object, **settings) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "hb_tta.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **settings)


def write_lines(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def read_manifest(folder: Path | str = "hb-tta-out") -> dict:
    """What the files beside the views say: the done, the failed, the specs by their hash."""
    lines = (Path(folder) / "manifest.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    told = [json.loads(line) for line in lines]
    assert [line["index"] for line in told] == sorted({line["index"] for line in told})
    specs = Path(folder) / "specs.json"
    return {
        "items": [line for line in told if "views" in line],
        "failures": [line for line in told if "failure" in line],
        "specs": json.loads(specs.read_bytes()) if specs.exists() else {},
    }


def pngs(folder: Path | str = "hb-tta-out") -> dict[str, bytes]:
    """The views by the names of their files, without the beginnings of their keys."""
    files = (Path(folder) / "views").glob("*.png")
    return {re.sub("-[0-9a-f]{8}[.]", ".", path.name): path.read_bytes() for path in files}


def sentence(error: str) -> str:
    """What the command said of a mistake: one line at the end, no traceback."""
    assert "Traceback" not in error
    ours = [line for line in error.splitlines() if line.startswith("hb-tta: ")]
    told = re.compile("hb-tta: (warning|planning|describing|generating): ")
    (line,) = [line for line in ours if not told.match(line)]
    assert error.rstrip().endswith(line)
    return line


# ── augment ──────────────────────────────────────────────────────────────────────────────────────


def test_the_second_time_the_store_answers_without_a_model(work):
    command = ["augment", "scene.png", "Is there a circle?", *REAL, "-n", "2", "--out"]
    assert main([*command, "first"]) == 0
    # A fresh process: what it imports tells what it needed.
    code = f"""
import sys
from hb_tta.cli import main
status = main({[*command, "second"]!r})
print("imported:", *sorted({{"torch", "diffusers", "transformers"}} & set(sys.modules)))
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported:"
    assert len(pngs("first")) == 2
    assert pngs("first") == pngs("second")
    assert read_manifest("first") == read_manifest("second")


def test_the_manifest_tells_all_that_decided_the_views(work, capsys):
    assert main(["augment", "scene.png", "Is it?", *REAL, "-n", "2", "--seed", "7"]) == 0
    manifest = read_manifest()
    (item,) = manifest["items"]
    assert (
        item["question"] == "Is it?" and item["image"] == "../scene.png" and item["task"] == "vqa"
    )
    assert [view["seed"] for view in item["views"]] == [7, 8]
    files = (work / "hb-tta-out" / "views").iterdir()
    assert {view["file"] for view in item["views"]} == {f"views/{file.name}" for file in files}
    assert item["spec_hash"] == content_key(manifest["specs"][item["spec_hash"]])
    assert manifest["specs"][item["spec_hash"]]["generator"]["num_inference_steps"] == 2
    assert item["description"] and item["description"] in capsys.readouterr().out


def test_no_file_is_named_by_the_question(work):
    question = "Is the answer yes?"
    assert main(["augment", "scene.png", question, *QUICK, "-n", "2", "--seed", "5"]) == 0
    assert set(pngs()) == {"000001-seed5.png", "000001-seed6.png"}


def test_every_line_of_a_file_is_augmented(work, monkeypatch):
    (work / "images").mkdir()
    (work / "scene.png").rename(work / "images" / "scene.png")
    lines = [{"image": "images/scene.png", "question": f"Is it {name}?"} for name in ("a", "b")]
    file = write_lines(work / "questions.jsonl", lines[0], "", lines[1])
    monkeypatch.chdir("/")  # relative paths are taken from the file's folder
    out = work / "views"
    assert main(["augment", str(file), *QUICK, "-n", "2", "--out", str(out)]) == 0
    assert set(pngs(out)) == {f"00000{line}-seed{seed}.png" for line in (1, 3) for seed in (0, 1)}
    items = read_manifest(out)["items"]
    assert [item["question"] for item in items] == ["Is it a?", "Is it b?"]


BAD_LINES = {
    '{"image": "none.png", "question": "?"}': "there is no image",
    '{"image": "empty.png", "question": "?"}': "is empty",
    '{"image": "scene.png", "question": 3}': '"question" is 3',
    '{"image": "scene.png", "task": "vqaa"}': "no task 'vqaa'",
    '{"question": "no image"}': 'names no "image"',
    '["scene.png", "?"]': "not a JSON object",
    "null": "not a JSON object",
    '{"image": "~a.png", "question": "?"}': "there is no image",
    '{"image": "scene.png", "question": "?", "id": ' + "7" * 5000 + "}": "not JSON",
    '{"image": "scene.png", "asked": "?"}': "no question among its columns 'asked'",
    '{"image": "scene.png"': "not JSON",
    '{"image": "nul\\u0000.png"}': "cannot be the path",
    "[" * 100_000: "not JSON",
}


def test_bad_lines_are_told_at_the_end_and_the_good_ones_are_done(work, capsys):
    (work / "empty.png").touch()
    good = {"image": "scene.png", "question": "Is it?"}
    file = write_lines(work / "questions.jsonl", good, *BAD_LINES, good)
    with open(file, "ab") as lines:
        lines.write(b'{"image": "\xff.png"}\n')
    assert main(["augment", str(file), *QUICK, "-n", "1"]) == 1
    last = len(BAD_LINES) + 2
    assert set(pngs()) == {"000001-seed0.png", f"{last:06d}-seed0.png"}
    told = capsys.readouterr().err
    assert f"images that failed: {len(BAD_LINES) + 1}" in told
    expected = {**BAD_LINES, "latin-1": "not UTF-8"}
    failures = read_manifest()["failures"]
    numbers = [*range(2, last), last + 1]
    for number, failure, reason in zip(numbers, failures, expected.values(), strict=True):
        assert failure["index"] == number
        assert reason in failure["failure"]
        assert f"line {number}: " in told


def test_a_file_of_bad_lines_alone_is_told_without_a_model(work, capsys):
    file = write_lines(work / "questions.jsonl", {"image": "none.png"})
    assert main(["augment", str(file), "--family", "pocket"]) == 1
    assert "line 1: there is no image" in capsys.readouterr().err


def test_many_bad_lines_do_not_flood_the_terminal(work, capsys):
    file = write_lines(work / "questions.jsonl", *["oops"] * 30)
    assert main(["augment", str(file), *QUICK]) == 1
    told = capsys.readouterr().err
    assert "images that failed: 30" in told and told.count("not JSON") == 20
    assert len(read_manifest()["failures"]) == 30


def test_a_line_may_name_its_task(work):
    file = write_lines(work / "q.jsonl", {"image": "scene.png", "task": "object", "more": 1})
    rows = open_rows(str(file))
    assert rows is not None
    (request,) = read_requests(rows, "vqa")
    assert not isinstance(request, Failure)
    assert (request.task, request.question) == ("object", "")


def test_the_answer_in_a_line_changes_nothing(work):
    for answer in ("Yes", "No"):
        line = {"image": "scene.png", "question": "Is it?", "answer": answer}
        file = write_lines(work / f"{answer}.jsonl", line)
        assert main(["augment", str(file), *QUICK, "--out", answer]) == 0
    assert pngs("Yes") == pngs("No")
    told = read_manifest("Yes"), read_manifest("No")
    for manifest, answer in zip(told, ("Yes", "No"), strict=True):
        assert [item.pop("answer") for item in manifest["items"]] == [answer]  # kept, to train on
    assert told[0] == told[1]


def test_what_is_there_is_neither_decoded_nor_written_again(work):
    line = {"image": "scene.png", "question": "Is it?"}
    odd = "Is\u2028it\x85so?"  # where Python, but not JSON, ends a line
    file = write_lines(work / "questions.jsonl", line, {**line, "question": odd})
    assert main(["augment", str(file), *QUICK, "-n", "2"]) == 0
    stored = {
        payload
        for entry in Store().entries()
        for payload, _ in [Store().read(entry.namespace, entry.key) or (b"", {})]
    }
    assert set(pngs().values()) == stored
    inodes = {path: path.stat().st_ino for path in (work / "hb-tta-out" / "views").iterdir()}
    (changed,) = (work / "hb-tta-out" / "views").glob("000002-seed1-*.png")
    changed.write_bytes(b"another")
    assert main(["augment", str(file), *QUICK, "-n", "2"]) == 0
    assert {p for p, inode in inodes.items() if p.stat().st_ino != inode} == {changed}
    assert set(pngs().values()) == stored
    assert [item["question"] for item in read_manifest()["items"]] == [
        "Is it?",
        "Is\u2028it\x85so?",
    ]


def test_an_image_is_looked_at_once(work, monkeypatch):
    monkeypatch.setattr(FileIndex, "_FRESH_NS", 0)  # the image has just been written
    monkeypatch.setattr(FileIndex, "_SMALL", -1)  # and is known by its times
    monkeypatch.setenv("XDG_CACHE_HOME", str(work / "cache"))
    decoded: list[str] = []
    listening = True

    def hear(event, arguments):
        if listening and event == "open" and str(arguments[0]).endswith("scene.png"):
            decoded.append(str(arguments[0]))

    sys.addaudithook(hear)
    file = write_lines(work / "questions.jsonl", {"image": "scene.png"})
    counts = []
    for _ in range(2):
        decoded.clear()
        assert main(["augment", str(file), *QUICK, "-n", "2"]) == 0
        counts.append(len(decoded))
    listening = False
    assert counts == [2, 0]  # to be named, and by the generator; then not at all


def test_no_part_of_a_run_replaces_the_lines_of_a_whole_one(tmp_path):
    path = tmp_path / "manifest.jsonl"

    def write(name: str, count: int, whole: bool) -> list[dict]:
        lines = Lines(path)
        for number in range(count):
            lines.write({"run": name, "line": number})
        lines.close(whole=whole)
        assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.jsonl"]
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def run(name: str, count: int) -> list[dict]:
        return [{"run": name, "line": number} for number in range(count)]

    assert write("a", 3, whole=False) == run("a", 3)  # better than nothing
    assert write("b", 2, whole=False) == run("a", 3)
    assert write("c", 5, whole=False) == run("c", 5)
    assert write("d", 5, whole=True) == run("d", 5)
    assert write("e", 4, whole=True) == run("e", 4)


def test_a_line_is_in_the_file_when_it_is_written(tmp_path):
    path = tmp_path / "manifest.jsonl"
    for name in ("a", "b"):
        lines = Lines(path)
        for number in range(3):
            lines.write({"run": name, "line": number})
            if name == "a" or number == 2:
                assert json.loads(path.read_bytes().splitlines()[-1]) == {
                    "run": name,
                    "line": number,
                }
        lines.close(whole=True)


STOPPED = """
import sys
from hb_tta.cli import main, output
class Stopping(output.Lines):
    def write(self, line):
        super().write(line)
        if self._written == 11:
            raise KeyboardInterrupt
output.Lines = Stopping
quick = ("--method", "randaugment", "--family", "pocket")
sys.exit(main(["augment", sys.argv[1], *quick, "-n", "1", "--out", sys.argv[2]]))
"""


def test_an_interrupted_run_leaves_what_it_did_and_what_was_there(work):
    lines = [{"image": f"{number}.png"} for number in range(40)]
    for line in lines:
        (work / line["image"]).write_bytes((work / "scene.png").read_bytes())
    file = write_lines(work / "questions.jsonl", *lines)
    (work / "7.png").unlink()
    assert main(["augment", str(file), *QUICK, "-n", "1"]) == 1
    whole = read_manifest()
    assert [item["index"] for item in whole["items"]] == [n for n in range(1, 41) if n != 8]
    assert [failure["index"] for failure in whole["failures"]] == [8]
    for folder, left in (("hb-tta-out", whole), ("fresh", None)):
        started = [sys.executable, "-c", STOPPED, str(file), folder]
        done = subprocess.run(started, capture_output=True, text=True)
        assert done.returncode == 130, done.stderr
        found = read_manifest(folder)
        assert found == left if left else len(found["items"]) == 10


def test_lora_none_is_the_untuned_generator(work):
    assert main(["augment", "scene.png", "Is it?", *REAL, "-n", "1", "--lora", "none"]) == 0
    (spec,) = read_manifest()["specs"].values()
    assert spec["generator"]["lora"] is None


# ── Bad input ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "question",
    [
        "",
        "x " * 50_000,
        "犬はいますか。",
        "هل هناك كلب؟",
        "\x00\x1b[31m\x07?",
        "<script>alert(1)</script>",
        "<image><|im_start|></s>",
        "\udcff",
    ],
    ids=["empty", "100 kB", "Japanese", "Arabic", "control", "HTML", "marks", "not UTF-8"],
)
def test_any_question_gives_views(work, question, capsys):
    assert main(["augment", "scene.png", question, *REAL, "-n", "1"]) == 0
    (item,) = read_manifest()["items"]
    assert item["question"] == question
    assert len(pngs()) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_a_question_may_be_left_out(work):
    assert main(["augment", "scene.png", *REAL, "-n", "1"]) == 0
    assert read_manifest()["items"][0]["question"] == ""


@pytest.mark.parametrize("number", ["0", "-3", "two", "1.5"])
def test_no_number_of_views_but_a_positive_one(work, number, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["augment", "scene.png", "Is it?", *QUICK, "-n", number])
    assert stopped.value.code == 2
    assert f"argument -n: '{number}' is not a whole number of at least 1" in capsys.readouterr().err
    assert not Path("hb-tta-out").exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:x"])
def test_no_device(work, device, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["augment", "scene.png", "Is it?", *QUICK, "--device", device])
    assert stopped.value.code == 2
    assert f"argument --device: '{device}' is no device" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--device", "cuda:0"], ["--augment_args", "device=cuda:0"]])
def test_a_device_that_is_not_there(work, option, no_gpu, capsys):
    assert main(["augment", "scene.png", "Is it?", *QUICK, *option]) == 1
    assert "device 'cuda:0' is not to be had: torch finds no NVIDIA" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.png"], "no image 'none.png'"),
        (["empty"], "the folder empty holds no image"),
        (["none.jsonl"], "there is no file or folder 'none.jsonl': check the path"),
        (["empty.jsonl"], "empty.jsonl is empty"),
        (["good.jsonl", "Is it?"], "question stands beside"),
        (["scene.png", "--method", "hummingbrid"], "did you mean 'hummingbird'? choose from"),
        (["scene.png", "--family", "pokcet"], "did you mean 'pocket'? choose from pocket"),
        (["scene.png", "--family", "pocket", "--lora", "no/where/at/all"], "no/where/at/all"),
        (["scene.png", "--family", "pocket", "--steps", "0"], "num_inference_steps=0"),
        (["scene.png", "--family", "pocket", "--guidance", "nan"], "guidance_scale=nan"),
        (["scene.png", "--family", "pocket", "--seed", "-1"], "seed=-1"),
        (["scene.png", "--family", "pocket", "--seed", str(10**30)], "seed=1000"),
        (["scene.png", *QUICK, "--store", "scene.png"], "is a file"),
        (["scene.png", *QUICK, "--store", NO_FOLDER], NO_FOLDER),
        (["scene.png", *QUICK, "--out", NO_FOLDER], NO_FOLDER),
        (["scene.png", *QUICK, "--out", "scene.png"], "scene.png"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_sentence(work, arguments, told, capsys):
    (work / "empty.jsonl").touch()
    write_lines(work / "good.jsonl", {"image": "scene.png"})
    (work / "empty").mkdir()
    assert main(["augment", *arguments]) == 1
    assert told in sentence(capsys.readouterr().err)


@pytest.mark.parametrize(
    "typed",
    [
        ["tpt", "--selection=" + "x" * 70_000],
        ["tpt", "--task", "p" * 9_000],
        ["augment", "scene.png", "--seed", "9" * 70_000 + "x"],
        ["augment", "scene.png", "-n", "9 views " * 9_000],
        ["augment", "scene.png", "--method", "hummingbird " * 9_000],
        ["augment", "scene.png", "--augment_args", "p" * 9_000],
        ["augment", "p" * 9_000],
        ["store", "x" * 70_000],
        ["report", "--" + "x" * 70_000],
        ["report", "run", *[f"--x{i}" for i in range(5_000)]],
    ],
    ids=lambda typed: " ".join(typed)[:30],
)
def test_what_is_refused_is_not_repeated_whole(typed, work, capsys):
    try:
        assert main(typed) == 1
    except SystemExit as stopped:
        assert stopped.code == 2
    assert 20 < len(capsys.readouterr().err.splitlines()[-1]) <= 1000


def test_debug_shows_where_a_mistake_was_met(work):
    done = hb_tta("augment", "none.png", *QUICK, "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "no image 'none.png'" in done.stderr


def test_missing_weights_without_a_network_are_told_in_one_sentence(work):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "hub")}
    done = hb_tta("augment", "scene.png", "Is it?", "--family", "sdxl", env=environment)
    assert done.returncode == 1
    assert "stabilityai/stable-diffusion-xl-base-1.0" in sentence(done.stderr)


@pytest.mark.parametrize("option", ["--store", "--out"])
def test_a_full_disk_is_told_in_one_sentence_and_costs_nothing_finished(work, option):
    # A limit on the size of a file is what can be had of a full disk without being root.
    (work / "full").mkdir()
    code = f"""
import resource, sys
import torchvision.transforms.v2  # importing it writes temporary files
from hb_tta.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
sys.exit(main(["augment", "scene.png", *{QUICK!r}, {option!r}, "full"]))
"""
    if option == "--out":
        assert main(["augment", "scene.png", *QUICK]) == 0  # the store has the views
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    told = r"/full is on a full disk|full/views/000001-seed0-[0-9a-f]+.png cannot"
    assert re.search(told, sentence(done.stderr))
    assert not [path for path in (work / "full").rglob("*.tmp")]
    assert main(["augment", "scene.png", *QUICK, option, "full"]) == 0
    assert Store("full" if option == "--store" else None).verify() == []


def test_an_operating_systems_refusal_is_a_sentence():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "views/1.png")
    assert describe_os_error(full).startswith("No space left on device (views/1.png): free some")
    assert describe_os_error(OSError(errno.EIO, "Input/output error")) == "Input/output error"
    assert describe_os_error(ConnectionError("first\nsecond")) == "first"
    assert describe_os_error(TimeoutError()) == "TimeoutError"


def wait_until(condition, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def test_an_interruption_keeps_what_was_finished(work):
    line = {"image": "scene.png", "question": "Is it?"}
    file = write_lines(work / "questions.jsonl", line)
    command = ["augment", file, "--family", "pocket", "-n", 64, "--device", "cpu"]
    started = [sys.executable, "-m", "hb_tta.cli", *map(str, command)]
    # A shell's background job inherits that interrupts are ignored.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(started, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    store = Store()
    wait_until(lambda: process.poll() is not None or list((store.root / "views").glob("*/*.png")))
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 130, error
    assert "stopped: finished work is kept" in sentence(error)
    kept = {entry.path: entry.path.read_bytes() for entry in store.entries()}
    assert kept and store.verify() == []
    assert hb_tta(*command).returncode == 0
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(pngs()) == 64


# ── list ─────────────────────────────────────────────────────────────────────────────────────────


def test_list_tells_methods_families_and_versions(capsys):
    assert main(["list", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert list(listing["methods"])[:3] == ["hummingbird", "i2t2i", "randaugment"]
    assert all(listing["methods"].values()), "a method tells what it is"
    assert set(listing["families"]) == set(list_families())
    for name, roles in listing["families"].items():
        assert set(roles) == set(get_family(name).roles)
    assert Path(listing["families"]["pocket"]["mllm"]).is_dir()
    assert listing["families"]["sdxl"]["mllm"] == "llava-hf/llava-v1.6-mistral-7b-hf"
    assert re.match(r"\d+\.\d+", listing["installed"]["torch"])


def test_list_is_readable_too(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  mllm +llava-hf/llava-v1.6-mistral-7b-hf$", out, re.MULTILINE)
    assert re.search(r"^  hummingbird {2,}\S", out, re.MULTILINE)


# ── store ────────────────────────────────────────────────────────────────────────────────────────


def damage(store: Store) -> Path:
    path = next(iter(store.entries())).path
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes(payload)
    return path


def test_verify_finds_what_is_damaged_and_the_next_run_mends_it(work, capsys):
    assert main(["augment", "scene.png", *QUICK]) == 0
    before = pngs()
    assert main(["store", "verify"]) == 0
    path = damage(Store())
    assert main(["store", "verify"]) == 1
    assert f"damaged: {path}" in capsys.readouterr().out
    assert main(["augment", "scene.png", *QUICK]) == 0
    assert f"hb-tta: warning: the store's entry {path} is damaged" in capsys.readouterr().err
    assert pngs() == before
    assert main(["store", "verify"]) == 0


def test_verify_of_a_store_that_is_not_there(work, capsys):
    assert main(["store", "verify", "--store", "nowhere"]) == 0
    assert "0 entries, 0 damaged" in capsys.readouterr().out
    assert not Path("nowhere").exists()


def test_info_counts_and_prune_makes_room(work, capsys):
    assert main(["augment", "scene.png", *QUICK, "-n", "3"]) == 0
    damage(Store())
    capsys.readouterr()
    assert main(["store", "info"]) == 0
    assert re.search(r"^  views +3 files, \d+\.\d kB$", capsys.readouterr().out, re.MULTILINE)
    assert main(["store", "prune"]) == 0
    assert "removed 0 files, 0 bytes of damaged entries" in capsys.readouterr().out
    assert main(["store", "prune", "--verify"]) == 0
    assert "1 file, " in capsys.readouterr().out
    assert main(["store", "prune", "--older-than", "1"]) == 0
    assert len(list(Store().entries())) == 2
    assert main(["store", "prune", "--max-gb", "0"]) == 0
    assert list(Store().entries()) == []


# ── The command line itself ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("argv", [[], ["nothing"], ["store"], ["list", "extra"], ["augment"]])
def test_a_wrong_command_line_shows_the_usage(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: hb-tta")


def test_a_closed_pipe_is_no_error(work):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "hb_tta.cli", "store", "info"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 1


def test_any_script_prints_in_any_locale(work):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    (work / "犬.jsonl").write_text('{"image": "犬.png"}\n', encoding="utf-8")
    done = hb_tta("augment", "犬.jsonl", *QUICK, "--out", "犬", env=environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and r"\u72ac.png" in done.stderr
