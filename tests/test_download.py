"""`hb-tta download`: what is needed is said first, and fetched once however often it stops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_hub import TinyHub

from hb_tta.hub_files import HubFile, needed

BIG = os.urandom(3_000_000)

# As SDXL Base 1.0's repository is: a pipeline, and most of it several times over.
INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "image_encoder": [None, None],
}
PIPELINE = {
    ".gitattributes": b"*.safetensors filter=lfs",
    "README.md": b"# a card",
    "model_index.json": json.dumps(INDEX).encode(),
    "sd_xl_base_1.0.safetensors": BIG,
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": BIG,
    "unet/diffusion_pytorch_model.fp16.safetensors": BIG[:1000],
    "unet/diffusion_flax_model.msgpack": b"flax",
    "unet/openvino_model.xml": b"openvino",
    "unet/model.onnx": b"onnx",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"a b",
    "vae_1_0/config.json": b"{}",
    "vae_1_0/diffusion_pytorch_model.safetensors": BIG,
}
WANTED = {
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
}


@pytest.fixture
def hub() -> Iterator[TinyHub]:
    with TinyHub("org/name", PIPELINE).running() as running:
        yield running


def download(hub: TinyHub, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, against the hub."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "hb_tta.cli", "download", *(arguments or ("org/name",))]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def snapshot(hub: TinyHub, folder: Path) -> dict[str, bytes]:
    root = folder / "hub" / "models--org--name" / "snapshots" / hub.commit
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_what_is_needed_is_said_first_and_fetched_once(hub: TinyHub, tmp_path: Path) -> None:
    said = download(hub, tmp_path, "org/name", "--dry-run")
    assert said.returncode == 0 and "3.00 MB" in said.stdout and "org/name" in said.stdout
    assert set(hub.served) <= {".gitattributes", "model_index.json"}
    done = download(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    found = snapshot(hub, tmp_path)
    assert found.keys() - {".gitattributes"} == WANTED
    assert all(found[name] == PIPELINE[name] for name in found)
    hub.served.clear()
    again = download(hub, tmp_path)
    assert again.returncode == 0 and not set(hub.served) & WANTED
    assert not list((tmp_path / "hub").rglob("*.hb-tta-part*"))
    # The hub's own client finds all of it, without a network.
    code = """
from huggingface_hub import snapshot_download, try_to_load_from_cache
name = "unet/diffusion_pytorch_model.safetensors"
print(len(open(try_to_load_from_cache("org/name", name), "rb").read()))
"""
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert ran.stdout.split() == [b"%d" % len(BIG)]


def test_what_is_cut_goes_on_at_the_byte_where_it_stopped(hub: TinyHub, tmp_path: Path) -> None:
    name = "unet/diffusion_pytorch_model.safetensors"
    hub.breaks_at[name] = 2_000_000
    cut = download(hub, tmp_path)
    assert cut.returncode == 1 and "Traceback" not in cut.stderr
    assert "give the same command again, it goes on where it stopped" in cut.stderr
    (part,) = (tmp_path / "hub").rglob("*.hb-tta-part")
    had = part.stat().st_size
    assert 0 < had <= 2_000_000
    hub.sent.clear()
    done = download(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert hub.sent[name] == len(BIG) - had  # and not a byte more
    assert snapshot(hub, tmp_path)[name] == BIG


def test_what_came_damaged_is_not_kept(hub: TinyHub, tmp_path: Path) -> None:
    name = "unet/diffusion_pytorch_model.safetensors"
    hub.breaks_at[name] = 2_000_000
    download(hub, tmp_path)
    (part,) = (tmp_path / "hub").rglob("*.hb-tta-part")
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(data)
    damaged = download(hub, tmp_path)
    assert damaged.returncode == 1 and "came damaged and was thrown away" in damaged.stderr
    assert download(hub, tmp_path).returncode == 0
    assert snapshot(hub, tmp_path)[name] == BIG


def test_mistakes_are_sentences(hub: TinyHub, tmp_path: Path) -> None:
    for arguments, told in (
        (["org/other"], "the hub shows no model 'org/other'"),
        (["--family", "sdxxl"], "did you mean 'sdxl'"),
        (["--family", "sdxl", "--role", "genrator"], "did you mean 'generator'"),
        (["org/name", "--family", "sdxl"], "give it, or their ids"),
    ):
        ran = download(hub, tmp_path, *arguments)
        assert ran.returncode == 1 and told in ran.stderr and "Traceback" not in ran.stderr
    pocket = download(hub, tmp_path, "--family", "pocket")
    assert pocket.returncode == 0 and "nothing to fetch" in pocket.stdout


# ── Which files ──────────────────────────────────────────────────────────────────────────────────


def names(*given: str, **how: str) -> list[str]:
    return [file.name for file in needed([HubFile(name, 1) for name in given], **how)]  # type: ignore[arg-type]


def test_of_a_model_in_two_forms_the_roles_own_is_needed() -> None:
    """As laion's bigG: transformers' shards, open_clip's file, pickles of both."""
    both = (
        *("config.json", "open_clip_config.json", "tokenizer.json", "README.md"),
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        *("model.safetensors.index.json", "open_clip_model.safetensors", "pytorch_model.bin"),
    )
    assert "open_clip_model.safetensors" not in names(*both, role="image_encoder")
    assert len(names(*both, role="image_encoder")) == 6
    clip = names(*both, role="clip")
    assert "open_clip_model.safetensors" in clip and not any("-of-" in name for name in clip)
    assert names("config.json", "model.safetensors", role="clip") == [
        "config.json", "model.safetensors",
    ]  # fmt: skip


def test_other_copies_of_the_same_weights_are_not_needed() -> None:
    assert names(
        "model.safetensors", "model-00001-of-00001.safetensors", "consolidated.safetensors"
    ) == ["model.safetensors"]
    assert names("lora/adapter_model.safetensors", "other/x.safetensors", subfolder="lora") == [
        "lora/adapter_model.safetensors"
    ]


def test_without_a_network_it_is_a_sentence_at_once(hub: TinyHub, tmp_path: Path) -> None:
    class Gone:
        endpoint = "http://127.0.0.1:9"  # nobody listens there

    ran = download(Gone(), tmp_path)  # type: ignore[arg-type]
    assert ran.returncode == 1 and "the hub cannot be reached: connect" in ran.stderr


def test_missing_weights_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    image = Path(__file__).parents[1] / "docs" / "pocket" / "seeds.png"
    command = [sys.executable, "-m", "hb_tta.cli", "augment", str(image), "Is it?"]
    ran = subprocess.run(
        [*command, "--store", str(tmp_path), "--out", str(tmp_path / "out")],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "`hb-tta download stabilityai/stable-diffusion-xl-base-1.0`" in ran.stderr
