"""How ``hb-tta augment`` grows where nothing is left to make: a file of rows, images, ``--out``.

    python benchmarks/command_growth.py 100 10000 100000

Images are real files of 8 pixels, four views each; the store is filled with synthetic views under
their keys. Each command is a process of its own: its processor's seconds and its most memory are
told, and how they grow from one size to the next. TMPDIR says where the files go: two a view, and
one an image.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hb_tta import Augmenter, MultimodalContext
from hb_tta.images import PixelDigests
from hb_tta.store import NewEntry, Store
from hb_tta.store.entries import sealed
from hb_tta.views.encode import encoded

VIEWS = 4  # of an image
COMMAND = [sys.executable, "-c", "import sys; from hb_tta.cli import main; sys.exit(main())"]


def main() -> None:
    """Print what each command takes, by size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+", help="views")
    before: dict[str, float] = {}
    for size in parser.parse_args().sizes:
        print(f"{size} views", flush=True)
        found: dict[str, float] = {"size": size}
        for name, (seconds, clock, memory) in measured(size):
            found[name] = seconds
            slope = math.nan
            if name in before:
                slope = math.log(seconds / before[name]) / math.log(size / before["size"])
            print(
                f"  {name}: {seconds:.2f} s, {1000 * seconds / size:.3f} ms a view, slope "
                f"{slope:.2f}, {clock:.1f} s by the clock, {memory:.0f} MB",
                flush=True,
            )
        before = found


def measured(size: int) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Name → processor's seconds, the clock's, most MB, of each command."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _fill(root, size)
        command = ["augment", str(root / "rows.jsonl"), "--method=jitter", "--family=pocket"]
        command += [f"-n{VIEWS}", f"--store={root / 'store'}", f"--out={root / 'out'}"]
        environment = {**os.environ, "XDG_CACHE_HOME": str(root / "cache"), "OMP_NUM_THREADS": "1"}
        for name, more in (
            ("dry run", ["--dry-run"]),
            ("first --out", []),
            ("again", []),
            ("a part, again", ["--shard=1/1"]),
        ):
            yield name, _taken([*COMMAND, *command, *more], environment)
        for name in ("info", "verify"):
            told = ["store", name, f"--store={root / 'store'}"]
            yield f"store {name}", _taken([*COMMAND, *told], environment)


def _taken(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} ended with {status}")
    seconds = usage.ru_utime + usage.ru_stime
    return seconds, time.monotonic() - began, usage.ru_maxrss / 1024


def _fill(root: Path, size: int) -> None:
    """The rows, their images, and every view's entry, as ``Store.put`` writes it but unflushed."""
    store = Store(root / "store")
    store.put_group("views", [])
    augmenter = Augmenter.from_pretrained("jitter", family="pocket", store=store)
    view = encoded(Image.effect_noise((64, 64), 60))
    digests = PixelDigests()
    with (root / "rows.jsonl").open("w") as rows:
        for start in range(0, size // VIEWS, 1000):
            contexts = []
            for number in range(start, min(start + 1000, size // VIEWS)):
                path = root / "images" / f"{number // 1000:04d}" / f"{number:07d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                _image(number).save(path)
                rows.write(json.dumps({"image": str(path), "question": "Is it red?"}) + "\n")
                known: Any = digests.known(path)
                contexts.append(MultimodalContext(known, ""))
            for keys in augmenter.view_keys(contexts, VIEWS):
                for key in keys or ():
                    file = store.root / "views" / key[:2] / f"{key}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(sealed("views", NewEntry(key, view, {"description": None})))


def _image(number: int) -> Image.Image:
    pixels_HWC = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels_HWC)


if __name__ == "__main__":
    main()
