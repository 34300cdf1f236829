"""The store: whole or absent, made once, and one sentence for each way in which a disk fails."""

import enum
import io
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from store_checks import got, makes_each_once, survives_kills

from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.store import NewEntry, Store, Usage, content_key
from hb_tta.store.entries import DamagedEntry, seal, unseal
from hb_tta.store.layout import MARK
from hb_tta.store.store import USE_SECONDS
from hb_tta.store.upkeep import LEFTOVER_SECONDS
from hb_tta.store.writer import Writer

KEY = content_key({"a": 1})
DAY = 86_400.0

plain_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
requests = st.dictionaries(st.text(), plain_json, max_size=4)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def entry_file(store: Store, key: str = KEY) -> Path:
    (found,) = store.root.glob(f"*/{key[:2]}/{key}*")
    return found


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@contextmanager
def powerless() -> Iterator[None]:
    """Permissions hold for root as well while this runs."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach (pytest's own is its owner's alone)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────


def test_key_is_the_sha256_of_canonical_json() -> None:
    # printf '{"a":[1,2.5,null,true],"b":{"x":"\\u00fc","y":-0.001}}' | sha256sum
    request = {"b": {"y": -1e-3, "x": "ü"}, "a": (1, 2.5, None, True)}
    assert (
        content_key(request) == "488c126df4ee826df87c71f61425e7c9069d6b710a1d941f3fb3cb77188e3642"
    )


@settings(deadline=None)
@given(requests, requests)
def test_keys_are_equal_exactly_where_the_json_is(one: dict, other: dict) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_key(one) == content_key(other)) == same


@settings(deadline=None)
@given(requests)
def test_key_survives_json_and_the_order_of_names(request: dict) -> None:
    turned = dict(reversed(json.loads(json.dumps(request)).items()))
    assert content_key(turned) == content_key(request)


def test_keys_tell_types_apart() -> None:
    values = [1, 1.0, True, "1", [1], None]
    assert len({content_key({"v": value}) for value in values}) == len(values)


class Sampler(enum.StrEnum):
    DDIM = "ddim"


@pytest.mark.parametrize(
    "value",
    [Path("x"), np.float64(1), np.zeros(2), b"x", {1}, {1: 2}, Sampler.DDIM, object(), 1j],
    ids=lambda value: type(value).__name__,
)
def test_key_refuses_what_is_not_plain_json_and_says_where(value: object) -> None:
    with pytest.raises(TypeError, match=r"request\['spec'\]\[0\]"):
        content_key({"spec": [value]})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_key_refuses_numbers_that_json_lacks(value: float) -> None:
    with pytest.raises(ValueError):
        content_key({"guidance_scale": value})


# ── Entries ──────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(st.binary(), requests)
def test_seal_and_unseal(payload: bytes, manifest: dict) -> None:
    assert unseal(seal(payload, manifest)) == (payload, json.loads(json.dumps(manifest)))


def test_an_entry_may_hold_an_entry() -> None:
    inner = seal(b"x", {})
    assert unseal(seal(inner, {}))[0] == inner


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    entry = seal(b"\x00payload\n", {"meta": {"question": "Is there a circle?"}})
    flips = (
        entry[:at] + bytes([entry[at] ^ 1 << bit]) + entry[at + 1 :]
        for at in range(len(entry))
        for bit in range(8)
    )
    cuts = (entry[:at] for at in range(len(entry)))
    grown = (entry + b"\n", b"\n" + entry, entry + entry)
    for damaged in (*flips, *cuts, *grown):
        with pytest.raises(DamagedEntry):
            unseal(damaged)


# ── Put and get ──────────────────────────────────────────────────────────────────────────────────


def test_what_is_put_is_got(store: Store) -> None:
    assert got(store, "views", KEY) is None
    store.put("views", KEY, b"pixels", {"seed": 3})
    assert got(store, "views", KEY) == b"pixels"
    assert store.read("views", KEY) == (b"pixels", {"seed": 3})
    assert store.has("views", KEY) and not store.has("descriptions", KEY)
    assert got(store, "descriptions", KEY) is None
    assert got(Store(store.root), "views", KEY) == b"pixels"


def test_putting_again_replaces(store: Store) -> None:
    store.put("views", KEY, b"old", {})
    store.put("views", KEY, b"new", {})
    assert got(store, "views", KEY) == b"new"
    assert store.info().namespaces == {"views": Usage(1, entry_file(store).stat().st_size)}


def test_a_group_is_there_whole_and_what_cannot_be_written_stops_no_other(store: Store) -> None:
    keys = [content_key({"n": number}) for number in range(20)]
    entries = [NewEntry(key, key.encode(), {"n": n}) for n, key in enumerate(keys)]
    store.put_group("views", entries)
    assert [store.read("views", key) for key in keys] == [
        (key.encode(), {"n": number}) for number, key in enumerate(keys)
    ]
    other = Store(store.root.with_name("other"))
    blocked = other.root / "views" / keys[3][:2] / f"{keys[3]}.png"
    blocked.mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be written"):
        other.put_group("views", entries)
    assert [other.has("views", key) for key in keys] == [key != keys[3] for key in keys]


def test_a_writer_loses_nothing_and_tells_what_went_wrong(store: Store) -> None:
    keys = [content_key({"n": number}) for number in range(50)]
    with Writer(store, "views") as writer:
        for key in keys[:30]:
            writer.put(NewEntry(key, key.encode(), {}))
        writer.wait()
        assert writer.wrote(keys[:30])
        assert all(store.has("views", key) for key in keys[:30])
        for key in keys[30:]:
            writer.put(NewEntry(key, key.encode(), {}))
    assert [got(store, "views", key) for key in keys] == [key.encode() for key in keys]
    (store.root.parent / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot be written.*--store"),
        Writer(Store(store.root.parent / "file" / "store"), "views") as writer,
    ):
        writer.put(NewEntry(keys[0], b"", {}))


def test_a_reader_never_meets_half_an_entry(store: Store) -> None:
    payloads = [bytes([digit]) * 300_000 for digit in range(4)]
    store.put("views", KEY, payloads[0], {})

    def write() -> None:
        for turn in range(60):
            store.put("views", KEY, payloads[turn % 4], {})

    writer = threading.Thread(target=write)
    writer.start()
    with warnings.catch_warnings(action="error"):  # a damaged entry would be one
        while writer.is_alive():
            assert got(store, "views", KEY) in payloads
    writer.join()


def test_a_view_opens_in_an_image_viewer(store: Store) -> None:
    image = Image.effect_noise((64, 48), 50).convert("RGB")
    png = io.BytesIO()
    image.save(png, "PNG")
    store.put("views", KEY, png.getvalue(), {})
    path = entry_file(store)
    assert path.suffix == ".png"
    with Image.open(path) as opened:
        opened.verify()
    with Image.open(path) as opened:
        assert opened.tobytes() == image.tobytes()


@pytest.mark.parametrize(("namespace", "key"), [("../views", KEY), ("views", "../x"), ("", KEY)])
def test_addresses_are_checked(store: Store, namespace: str, key: str) -> None:
    for act in (
        lambda: got(store, namespace, key),
        lambda: store.put(namespace, key, b"", {}),
        lambda: store.lock(namespace, key).__enter__(),
    ):
        with pytest.raises(ValueError):
            act()


def test_reading_makes_no_folders(store: Store) -> None:
    assert got(store, "views", KEY) is None
    assert store.verify() == []
    assert store.info().namespaces == {}
    assert store.prune().entries == Usage()
    assert not store.root.exists()


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "mine"))
    assert Store().root == tmp_path / "mine"
    monkeypatch.setenv("HB_TTA_STORE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Store().root == tmp_path / "cache" / "hb_tta" / "store"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store().root == tmp_path / ".cache" / "hb_tta" / "store"


def test_root_outlives_a_change_of_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    store.put("views", KEY, b"x", {})
    assert got(Store(tmp_path / "store"), "views", KEY) == b"x"


# ── Damage ───────────────────────────────────────────────────────────────────────────────────────


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_a_damaged_entry_is_set_aside_and_made_again(store: Store) -> None:
    store.put("views", KEY, b"pixels", {})
    damage(entry_file(store))
    assert [found.key for found in store.verify()] == [KEY]
    with pytest.warns(UserWarning, match=f"{KEY}.*damaged"):
        assert got(store, "views", KEY) is None
    assert store.verify() == []
    assert got(store, "views", KEY) is None  # without a second warning
    assert store.info().set_aside.files == 1
    store.put("views", KEY, b"pixels", {})
    assert got(store, "views", KEY) == b"pixels"


def test_an_emptied_entry_is_damaged(store: Store) -> None:
    store.put("views", KEY, b"pixels", {})
    entry_file(store).write_bytes(b"")
    (found,) = store.verify()
    assert "cut short" in found.reason


def test_an_entry_under_the_wrong_key_is_damaged(store: Store) -> None:
    other = content_key({"a": 2})
    store.put("views", KEY, b"one", {})
    store.put("views", other, b"other", {})
    shutil.copy(entry_file(store, other), entry_file(store))
    with pytest.warns(UserWarning, match="another key"):
        assert got(store, "views", KEY) is None
    assert got(store, "views", other) == b"other"


def test_a_damaged_entry_that_is_being_made_again_stays_in_place(
    store: Store, tmp_path: Path
) -> None:
    store.put("views", KEY, b"pixels", {})
    damage(entry_file(store))
    with locked_elsewhere(store, KEY):
        with pytest.warns(UserWarning, match="damaged"):
            assert got(store, "views", KEY) is None
        assert store.prune(verify=True).damaged == Usage()
    assert entry_file(store).exists()


# ── Disks that fail ──────────────────────────────────────────────────────────────────────────────


def test_a_read_only_store_gives_and_refuses(open_folder: Path) -> None:
    store = Store(open_folder / "store")
    store.put("views", KEY, b"pixels", {})
    age(entry_file(store), 2 * USE_SECONDS)
    (store.root / ".locks").mkdir()
    folders = [store.root, *(path for path in store.root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    with powerless():
        assert got(store, "views", KEY) == b"pixels"
        assert store.verify() == []
        assert store.prune().entries == Usage()  # nothing to remove is no error
        for refused in (
            lambda: store.put("views", KEY, b"", {}),
            lambda: store.lock("views", KEY).__enter__(),
            lambda: store.try_lock("views", KEY).__enter__(),
            lambda: store.prune(max_bytes=0),
        ):
            with pytest.raises(UserError, match=f"{store.root} is read-only.*--store"):
                refused()
    files = sorted(path.name for path in store.root.rglob("*") if path.is_file())
    assert files == [MARK, f"{KEY}.png"]
    for folder in folders:
        folder.chmod(0o755)


def test_a_damaged_entry_of_a_read_only_store_is_none(open_folder: Path) -> None:
    store = Store(open_folder / "store")
    store.put("views", KEY, b"pixels", {})
    damage(entry_file(store))
    for folder in (store.root, entry_file(store).parent):
        folder.chmod(0o555)
    with powerless(), pytest.warns(UserWarning, match="damaged"):
        assert got(store, "views", KEY) is None
    assert len(store.verify()) == 1


def test_what_may_not_be_read_is_said_and_not_pruned(open_folder: Path) -> None:
    store = Store(open_folder / "store")
    store.put("views", KEY, b"pixels", {})
    for folder in (store.root, store.root / "views", entry_file(store).parent):
        folder.chmod(0o777)
    entry_file(store).chmod(0)
    with powerless():
        with pytest.raises(UserError, match="cannot be read.*permissions"):
            got(store, "views", KEY)
        assert "Permission denied" in store.verify()[0].reason
        store.prune(verify=True)
    assert got(store, "views", KEY) == b"pixels"
    store.root.chmod(0)
    with powerless(), pytest.raises(UserError, match="cannot be read"):
        store.info()
    store.root.chmod(0o755)


FULL_DISK = """
import resource, signal, sys
from hb_tta.errors import UserError
from hb_tta.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    Store(sys.argv[1]).put("views", sys.argv[2], bytes(100_000), {})
except UserError as error:
    print(error)
"""


def test_a_full_disk_keeps_the_old_entry_and_no_part_of_the_new_one(store: Store) -> None:
    """The operating system refuses a write half-way, as it does where a disk or quota is full."""
    store.put("views", KEY, b"old", {})
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(store.root), KEY], capture_output=True, check=True
    )
    assert f"the store {store.root} is on a full disk".encode() in ran.stdout
    assert b"--store" in ran.stdout
    assert got(store, "views", KEY) == b"old"
    assert store.info().leftovers == Usage()


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: name a folder with --store"):
        Store(tmp_path / "file")
    below = Store(tmp_path / "file" / "store")
    for act in (lambda: below.put("views", KEY, b"", {}), below.lock("views", KEY).__enter__):
        with pytest.raises(UserError, match="cannot be written.*--store"):
            act()


def test_an_interrupt_in_the_middle_of_a_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_aside(tmp_path / "file", b"x")
    assert list(tmp_path.iterdir()) == []


# ── Verify and prune ─────────────────────────────────────────────────────────────────────────────


def filled(store: Store, count: int) -> list[str]:
    """Keys of entries of 1000 bytes and a trailer, the first used longest ago (in days)."""
    keys = [content_key({"entry": index}) for index in range(count)]
    for index, key in enumerate(keys):
        store.put("views", key, bytes(1000), {})
        age(entry_file(store, key), (count - index) * DAY)
    return keys


def left(store: Store, keys: list[str]) -> list[bool]:
    return [any(entry.key == key for entry in store.entries()) for key in keys]


def test_prune_by_age(store: Store) -> None:
    keys = filled(store, 4)
    pruned = store.prune(older_than=2.5 * DAY)
    assert pruned.entries.files == 2
    assert left(store, keys) == [False, False, True, True]


def test_prune_by_size_keeps_what_was_used_last(store: Store) -> None:
    keys = filled(store, 4)
    assert got(store, "views", keys[0]) is not None
    size = sum(entry.size for entry in store.entries())
    pruned = store.prune(max_bytes=size // 2)
    assert pruned.entries == Usage(2, size // 2)
    assert left(store, keys) == [True, False, False, True]
    assert store.prune(max_bytes=0).entries.files == 2


def test_verifying_and_pruning_are_no_use(store: Store) -> None:
    keys = filled(store, 2)
    store.verify()
    store.prune()
    store.info()
    assert all(time.time() - entry.used > DAY / 2 for entry in store.entries())
    assert store.prune(older_than=DAY / 2).entries.files == len(keys)


def test_prune_reads_no_entry(store: Store) -> None:
    keys = filled(store, 3)
    damage(entry_file(store, keys[2]))
    opened: list[str] = []

    def hear(event: str, arguments: tuple) -> None:
        if listening and event == "open" and str(arguments[0]).endswith(".png"):
            opened.append(str(arguments[0]))

    listening = True
    sys.addaudithook(hear)
    try:
        assert store.prune(older_than=2.5 * DAY).entries.files == 1
        assert opened == []
        assert store.prune(verify=True).damaged.files == 1
        assert len(set(opened)) == 2
    finally:
        listening = False


def test_prune_removes_damaged_entries_and_what_killed_writers_left(store: Store) -> None:
    keys = filled(store, 3)
    damage(entry_file(store, keys[0]))
    damage(entry_file(store, keys[1]))
    with pytest.warns(UserWarning, match="damaged"):
        got(store, "views", keys[0])
    folder = entry_file(store, keys[2]).parent
    old, young = (folder / f".{keys[2]}.png.{digit * 16}.tmp" for digit in "ab")
    for leftover in (old, young):
        leftover.write_bytes(b"part")
    age(old, 2 * LEFTOVER_SECONDS)
    assert store.info().leftovers == Usage(2, 8)
    pruned = store.prune()
    assert (pruned.entries.files, pruned.damaged.files) == (0, 1)
    assert pruned.leftovers == Usage(1, 4)
    assert store.prune(verify=True).damaged.files == 1
    assert young.exists() and not old.exists()
    assert store.info().set_aside == Usage()
    assert left(store, keys) == [False, False, True]


def test_files_of_others_are_not_touched(store: Store) -> None:
    (key,) = filled(store, 1)
    strangers = [
        store.root / "README.md",
        store.root / "views" / "notes.txt",
        entry_file(store, key).parent / "x.png",
        store.root / "Photos" / "ab" / f"{KEY}.png",
        store.root / "views" / "zz" / f"{KEY}.png",
        store.root / "views" / "00" / f"{KEY}.png",
    ]
    for stranger in strangers:
        stranger.parent.mkdir(parents=True, exist_ok=True)
        stranger.write_bytes(b"x")
        age(stranger, 100 * DAY)
    assert store.verify() == []
    assert store.prune(older_than=0, max_bytes=0).entries.files == 1
    assert all(stranger.exists() for stranger in strangers)


@pytest.mark.parametrize("limit", [{"older_than": -1}, {"max_bytes": -1}])
def test_negative_limits(store: Store, limit: dict) -> None:
    with pytest.raises(UserError, match="negative"):
        store.prune(**limit)


# ── Locks ────────────────────────────────────────────────────────────────────────────────────────

HOLD = """
import sys
from hb_tta.store import Store
with Store(sys.argv[1]).lock("views", sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def locked_elsewhere(store: Store, key: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process holds the key's lock."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.root), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    try:
        yield holder
    finally:
        holder.communicate()


TRY = """
import sys
from hb_tta.store import Store
with Store(sys.argv[1]).try_lock("views", sys.argv[2]) as mine:
    print(mine)
"""


def free_elsewhere(store: Store, key: str) -> bool:
    """Whether another process gets the key's lock."""
    command = [sys.executable, "-c", TRY, str(store.root), key]
    return subprocess.run(command, capture_output=True, check=True).stdout == b"True\n"


def test_a_lock_keeps_other_processes_out(store: Store) -> None:
    with locked_elsewhere(store, KEY), store.try_lock("views", KEY) as mine:
        assert not mine
    with store.try_lock("views", KEY) as mine:
        assert mine


def test_a_killed_holder_lets_go(store: Store) -> None:
    with locked_elsewhere(store, KEY) as holder:
        holder.kill()
        holder.wait()
        with store.lock("views", KEY):
            pass


def test_lock_waits_for_its_turn(store: Store) -> None:
    with locked_elsewhere(store, KEY) as holder:
        threading.Timer(0.3, holder.kill).start()
        begun = time.monotonic()
        with store.lock("views", KEY):
            assert time.monotonic() - begun > 0.2


def sharing_a_lock() -> tuple[str, str]:
    """Two keys of one lock file."""
    seen: dict[str, str] = {}
    for index in range(10_000):
        key = content_key({"n": index})
        if key[:3] in seen:
            return seen[key[:3]], key
        seen[key[:3]] = key
    raise AssertionError


def test_a_thread_holds_several_keys_at_once(store: Store) -> None:
    one, other = sharing_a_lock()
    again = Store(store.root)
    with store.lock("views", one), store.lock("views", other), again.lock("views", one):
        with again.try_lock("views", other) as mine:
            assert mine
        assert not free_elsewhere(store, one)
    assert free_elsewhere(store, one)


OTHER = next(key for n in range(99) if (key := content_key({"other": n}))[:3] != KEY[:3])

CROSS = """
import sys
from hb_tta.store import Store
store = Store(sys.argv[1])
with store.lock("views", sys.argv[2]):
    print("first", flush=True)
    sys.stdin.readline()
    with store.lock("features", sys.argv[3]):
        print("both", flush=True)
"""


def test_two_that_nest_their_locks_crosswise_do_not_wait_for_each_other(store: Store) -> None:
    """As a table's row does that makes views, and views that learn a word."""
    command = [sys.executable, "-c", CROSS, str(store.root), KEY, OTHER]
    other = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    stdin, stdout = other.stdin, other.stdout
    assert stdin is not None and stdout is not None
    try:
        assert stdout.readline() == "first\n"
        crossed = threading.Event()

        def crosswise() -> None:
            with store.lock("features", OTHER):
                stdin.write("\n")
                with store.lock("views", KEY):
                    crossed.set()

        threading.Thread(target=crosswise, daemon=True).start()
        assert crossed.wait(30), "they wait for each other"
        assert stdout.readline() == "both\n"
    finally:
        other.kill()
        other.wait()


def test_what_was_given_away_while_waiting_is_taken_back(store: Store) -> None:
    with store.lock("views", OTHER), store.lock("views", OTHER):
        with locked_elsewhere(store, KEY) as holder:
            free = []

            def look() -> None:
                free.append(free_elsewhere(store, OTHER))
                holder.kill()

            threading.Timer(0.3, look).start()
            with store.lock("views", KEY):
                assert free == [True], "it was held while its thread waited"
                assert not free_elsewhere(store, OTHER)
        assert not free_elsewhere(store, OTHER)
    assert free_elsewhere(store, OTHER) and free_elsewhere(store, KEY)


def test_what_somebody_else_took_meanwhile_is_left_to_them(store: Store) -> None:
    with store.lock("views", OTHER), locked_elsewhere(store, KEY) as holder, ExitStack() as taken:

        def take() -> None:
            taken.enter_context(locked_elsewhere(store, OTHER))
            holder.kill()

        threading.Timer(0.3, take).start()
        with store.lock("views", KEY):
            assert not free_elsewhere(store, OTHER)
        taken.close()
        assert free_elsewhere(store, OTHER)  # this thread's own was given away for good
        with store.lock("views", OTHER):  # and it may lock it again
            assert not free_elsewhere(store, OTHER)
        assert free_elsewhere(store, OTHER)


def test_a_lock_keeps_other_threads_out(store: Store) -> None:
    seen = []

    def other_thread() -> None:
        with store.try_lock("views", KEY) as mine:
            seen.append(mine)

    with store.lock("views", KEY):
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
    assert seen == [False]


def _try_in_child(store: Store, results: "multiprocessing.Queue[bool]") -> None:
    with store.try_lock("views", KEY) as mine:
        results.put(mine)


def test_a_forked_child_locks_for_itself(store: Store) -> None:
    """As the workers of a data loader do."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with store.lock("views", KEY):
        child = context.Process(target=_try_in_child, args=(store, results))
        child.start()
        assert results.get(timeout=30) is False
        child.join()
        assert not free_elsewhere(store, KEY)  # the child's end took nothing from its parent
    child = context.Process(target=_try_in_child, args=(store, results))
    child.start()
    assert results.get(timeout=30) is True
    child.join()


def test_an_error_under_a_lock_lets_go_of_it(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.lock("views", KEY):
        raise KeyboardInterrupt
    assert free_elsewhere(store, KEY)


def test_lock_files_stay_few(store: Store) -> None:
    for index in range(50):
        with store.lock("views", KEY[:3] + content_key({"n": index})[3:]):
            pass
    assert len(list((store.root / ".locks").iterdir())) == 1


# ── Processes (longer in soak/) ──────────────────────────────────────────────────────────────────


def test_kills_lose_nothing_and_damage_nothing(tmp_path: Path) -> None:
    survives_kills(tmp_path, kills=6, seed=0)


@pytest.mark.parametrize("role", ["make_each", "make_batches"])
def test_processes_make_nothing_twice(tmp_path: Path, role: str) -> None:
    makes_each_once(tmp_path, role, processes=4, count=120)
