"""How a store grows: what planning, a warm rerun and its upkeep take of processor and memory.

    python benchmarks/store_growth.py 100 10000 100000

Entries are synthetic: a view of 64 pixels under every key, so that no model is in the figures. The
processor's seconds are told, which other work beside it moves less than the clock's; the slope is
how they grow from one size to the next, 1 where it is linear. Files are not flushed.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from hb_tta import Augmenter, MultimodalContext
from hb_tta.images import KnownImage
from hb_tta.store import NewEntry, Store
from hb_tta.store.entries import sealed
from hb_tta.views.encode import encoded

VIEWS = 4  # of a context


def main() -> None:
    """Print a row a size, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+", help="stored views")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(*(f"{name}={value:.4f}" for name, value in measured(arguments.sizes[0]).items()))
        return
    before: dict[str, float] = {}
    for size in arguments.sizes:
        command = [sys.executable, __file__, str(size), "--one"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = {n: float(v) for n, v in (pair.split("=") for pair in done.stdout.split())}
        print(size, *(f"{name} {_told(name, found, before)}" for name in found), sep="\n  ")
        before = {**found, "size": float(size)}


def _told(name: str, found: dict[str, float], before: dict[str, float]) -> str:
    if not name.endswith("_s") or not before:
        return f"{found[name]:g}"
    steps = math.log(found["views"] / before["size"])
    slope = math.log(max(found[name], 1e-6) / max(before[name], 1e-6)) / steps
    return f"{found[name]:g} (slope {slope:.2f})"


def measured(size: int) -> dict[str, float]:
    """Seconds of the processor by step, and the most memory (MB) up to its end."""
    found: dict[str, float] = {"views": float(size)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "real.png")
        Image.new("RGB", (64, 64)).save(path)
        store = Store(Path(folder, "store"))
        augmenter = Augmenter.from_pretrained("jitter", family="pocket", store=store)
        view = encoded(Image.effect_noise((64, 64), 60))

        def step(name: str, do: Callable[[], Any]) -> None:
            began = time.process_time()
            do()
            found[f"{name}_s"] = time.process_time() - began
            found[f"{name}_MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        step("plan", lambda: augmenter.outlook(_contexts(path, size), VIEWS))
        step("fill", lambda: _fill(store, augmenter, path, size, view))
        step("warm", lambda: _drain(augmenter.iter_augment(_contexts(path, size), VIEWS)))
        step("info", store.info)
        step("verify", store.verify)
        step("prune", lambda: store.prune(max_bytes=size * len(view) // 2))
        found["inodes"] = float(sum(len(names) for _, _, names in os.walk(store.root)))
    return found


def _contexts(path: Path, size: int) -> Iterator[MultimodalContext]:
    """Images that differ, as far as anybody knows: what makes views of them is never loaded."""
    for number in range(size // VIEWS):
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        image: Any = KnownImage(path, digest)
        yield MultimodalContext(image, "")


def _fill(store: Store, augmenter: Augmenter, path: Path, size: int, view: bytes) -> None:
    """Every view's entry, as ``Store.put`` writes it but for the flush."""
    store.put_group("views", [])
    contexts = _contexts(path, size)
    while some := [context for _, context in zip(range(1000), contexts, strict=False)]:
        for keys in augmenter.view_keys(some, VIEWS):
            for key in keys or ():
                file = store.root / "views" / key[:2] / f"{key}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(sealed("views", NewEntry(key, view, {"description": None})))


def _drain(made: Iterator[Any]) -> None:
    for _ in made:
        pass


if __name__ == "__main__":
    main()
