"""What the tests of the augmenter share: its models, its pictures, processes of their own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hb_tta.store import Store

GOLDEN = Path(__file__).parent / "golden" / "hummingbird_pipeline"
PROCESS = Path(__file__).parent / "augment_process.py"


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    """A picture of noise in 8×8 pixel tiles."""
    tiles_HWC = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(tiles_HWC).resize((width, height), Image.Resampling.NEAREST)


def models(mllm: Path, **others: Any) -> dict[str, Any]:
    """The golden pipeline as generator, a tiny describer, few steps."""
    return {
        "generator": str(GOLDEN / "pipeline"),
        "lora": str(GOLDEN / "lora_unet"),
        "describer": str(mllm),
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        **others,
    }


def start(folder: Path, log: Path, settings: dict[str, Any]) -> subprocess.Popen[str]:
    """A process that augments as ``augment_process.py`` says."""
    file = folder / f"settings-{len(list(folder.glob('settings-*')))}.json"
    file.write_text(json.dumps(settings))
    return subprocess.Popen(
        [sys.executable, str(PROCESS), str(file), str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it printed, once it ended well."""
    out, err = process.communicate(timeout=600)
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
