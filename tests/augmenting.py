"""What the tests of the augmenter share: its models, pictures, fixtures, processes of their own.

A test module names this file in ``pytest_plugins`` to have the fixtures. (It imports the rest
before that, so pytest must not expect to: PYTEST_DONT_REWRITE.)
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from PIL import Image

from hb_tta import Augmenter, MultimodalContext
from hb_tta.describe import DescriberSpec
from hb_tta.store import Store
from hb_tta.weights import Weights

GOLDEN = Path(__file__).parent / "golden" / "hummingbird_pipeline"
PROCESS = Path(__file__).parent / "augment_process.py"


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    """A picture of noise in 8×8 pixel tiles."""
    tiles_HWC = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(tiles_HWC).resize((width, height), Image.Resampling.NEAREST)


def models(mllm: Path, **others: Any) -> dict[str, Any]:
    """The golden pipeline as generator, a tiny describer, few steps."""
    return {
        "base": str(GOLDEN / "pipeline"),
        "lora": str(GOLDEN / "lora_unet"),
        "describer": str(mllm),
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        **others,
    }


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image).astype(int) for image in images])


CONTEXTS = [
    MultimodalContext(picture(0), "Is there a red circle left of the square?"),
    MultimodalContext(picture(1, 80, 40), "How many triangles are there?"),
    MultimodalContext(picture(2), "", "object"),
    MultimodalContext(picture(3), "person | ride | bicycle", "hoi"),
]


# ── Augmenters ───────────────────────────────────────────────────────────────────────────────────

Make = Callable[..., Augmenter]


@pytest.fixture(scope="session")
def tiny_mllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_llava(tmp_path_factory.mktemp("mllm"))


@pytest.fixture(scope="session")
def tiny_describer(tiny_mllm: Path) -> DescriberSpec:
    return DescriberSpec(Weights(str(tiny_mllm)), max_new_tokens=16)


@pytest.fixture(scope="session")
def augmenters() -> dict[str, Augmenter]:
    """Augmenters of earlier tests with their models, by settings."""
    return {}


@pytest.fixture
def make_augmenter(
    tiny_describer: DescriberSpec, tmp_path: Path, augmenters: dict[str, Augmenter]
) -> Make:
    """Augmenters on the golden pipeline and a tiny LLaVA, with a store of the test's own."""

    def make(method: str = "hummingbird", *, fresh: bool = False, **changed: Any) -> Augmenter:
        store = changed.pop("store", tmp_path / "store")
        settings = {**models(Path(), describer=tiny_describer), **changed}
        if method == "randaugment":
            settings = {}
        elif method == "i2t2i":
            settings.pop("lora")
        new = Augmenter.from_pretrained(method, family="pocket", store=store, **settings)
        if fresh:
            return new
        same = copy(augmenters.setdefault(f"{method} {settings}", new))
        same.store = new.store
        return same

    return make


# ── Processes ────────────────────────────────────────────────────────────────────────────────────


def settings(mllm: Path, folder: Path, *, images: int = 4, **changed: Any) -> dict[str, Any]:
    """Of an ``augment_process``."""
    paths = []
    for seed in range(images):
        picture(seed).save(folder / f"{seed}.png")
        paths.append((str(folder / f"{seed}.png"), f"Is there a {seed}?"))
    return {
        "method": "hummingbird",
        "models": models(mllm),
        "store": str(folder / "store"),
        "contexts": paths,
        "n": 4,
        "batch_size": 2,
        **changed,
    }


def augment_here(settings: dict[str, Any]) -> list[str]:
    """What an ``augment_process`` does, in this process; the views' keys."""
    augmenter = Augmenter.from_pretrained(
        settings["method"],
        family="pocket",
        **settings["models"],
        store=settings["store"],
        batch_size=settings["batch_size"],
    )
    contexts = [MultimodalContext(image, question) for image, question in settings["contexts"]]
    return [key for each in augmenter.augment(contexts, n=settings["n"]) for key in each.keys]


def written(folder: Path, settings: dict[str, Any]) -> Path:
    """A file of settings, each time another one."""
    file = folder / f"settings-{len(list(folder.glob('settings-*')))}.json"
    file.write_text(json.dumps(settings))
    return file


def start(folder: Path, log: Path, settings: dict[str, Any]) -> subprocess.Popen[str]:
    """A process that augments as ``augment_process.py`` says."""
    return subprocess.Popen(
        [sys.executable, str(PROCESS), str(written(folder, settings)), str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Forker:
    """Starts processes as ``start`` does, by forking one that has imported everything."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(PROCESS), "--fork"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._told() == "ready"

    def start(self, folder: Path, log: Path, settings: dict[str, Any]) -> Forked:
        """The one before must have ended."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps([str(written(folder, settings)), str(log)]) + "\n")
        return Forked(int(self._told()), self._told)

    def close(self) -> None:
        """No more are wanted."""
        self._server.communicate()

    def _told(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


class Forked:
    """What the soak test uses of a ``Popen``.

    Args:
        number: of the process.
        ended: waits for its end, and gives its exit status as text.
    """

    def __init__(self, number: int, ended: Callable[[], str]) -> None:
        self._number, self._ended = number, ended
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """None: it runs."""
        if self.returncode is None and not Path(f"/proc/{self._number}").exists():
            self.returncode = int(self._ended())
        return self.returncode

    def send_signal(self, signal: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self._number, signal)

    def communicate(self) -> None:
        """Wait for its end."""
        if self.returncode is None:
            self.returncode = int(self._ended())


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it printed, once it ended well."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def logged(log: Path) -> list[str]:
    """The keys that processes put into the namespace "views", in order."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[1] for line in lines if line.startswith("views ")]


def contents(store: Store) -> dict[str, tuple[int, int, str]]:
    """Each view's file: its inode, when it was written (ns) and its digest."""
    found = {}
    for entry in store.entries():
        if entry.namespace == "views":
            status = entry.path.stat()
            digest = hashlib.sha256(entry.path.read_bytes()).hexdigest()
            found[entry.key] = status.st_ino, status.st_mtime_ns, digest
    return found
