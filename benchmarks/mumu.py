"""MUMU at full size with random weights: seconds an image, memory, seconds a training step.

    python benchmarks/mumu.py --scratch /dev/shm      # Idefics2-8B and SDXL, a GPU of 80 GB
    python benchmarks/mumu.py --small                 # a try of the same on a CPU

Images are of the paper's way of drawing, 50 steps with guidance 6, of a prompt with two pictures;
steps are those of the recipes ``mumu-1`` and ``mumu-2``, a sample at a time. About 30 GB are
written into the scratch folder, for everything is loaded as a user's folders are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from random_sdxl import VISION_G, save_random_sdxl
from transformers import Idefics2Config

from hb_tta.device import default_device, default_dtype
from hb_tta.families import get_family
from hb_tta.generators.mumu.connector import Connector, ConnectorConfig
from hb_tta.generators.mumu.encoder import PatchesModel, load_processor
from hb_tta.generators.mumu.folder import Index, save
from hb_tta.generators.mumu.generator import PromptGenerator
from hb_tta.generators.mumu.prompt import Prompt
from hb_tta.generators.mumu.spec import PromptSpec
from hb_tta.training.mumu.estimate import IDEFICS2_8B
from hb_tta.training.recipes import get_recipe
from hb_tta.training.sdxl import SDXL_UNET, SDXL_VAE
from hb_tta.training.train import train
from hb_tta.weights import Weights

GIB = 2**30
SMALL_UNET = {
    **SDXL_UNET, "sample_size": 8, "block_out_channels": (32, 64), "cross_attention_dim": 64,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": (2, 4),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 1),
}  # fmt: skip
SMALL_VAE = {
    **SDXL_VAE, "block_out_channels": (32, 32), "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2, "sample_size": 16,
}  # fmt: skip
# MUMU looks at nothing through the pipeline's own image encoder.
VISION = {**VISION_G, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def main() -> None:
    """Measures and prints JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        report = measured(options, Path(scratch))
    print(json.dumps(report, indent=2))


def measured(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All figures, plain JSON."""
    sizes: dict[str, Any] = {"unet": SMALL_UNET, "vae": SMALL_VAE} if options.small else {}
    began = time.perf_counter()
    sdxl = save_random_sdxl(scratch / "sdxl", device=options.device, vision=VISION, **sizes)
    save_random_mumu(scratch, options)
    _let_go()
    report: dict[str, Any] = {
        "device": _device_name(options.device),
        "dtype": default_dtype(options.device),
        "written_seconds": time.perf_counter() - began,
        "tokens": options.tokens,
        "steps": options.steps,
    }
    for stays in (True, False):
        name = "encoder stays" if stays else "encoder and UNet take turns"
        report[name] = drawn(options, sdxl, scratch / "mumu", stays)
        print(json.dumps({name: report[name]}), flush=True)
    for stage in ("mumu-1", "mumu-2"):
        report[stage] = trained(options, stage, sdxl, scratch)
        print(json.dumps({stage: report[stage]}), flush=True)
    return report


def save_random_mumu(scratch: Path, options: argparse.Namespace) -> None:
    """An Idefics2 without its perceiver, with the bundled one's tokenizer, and a connector."""
    processor = load_processor(get_family("pocket").weights("mllm_two"))
    sizes = _small_idefics2() if options.small else IDEFICS2_8B
    config = Idefics2Config(**sizes, image_token_id=processor.image_token_id)
    torch.manual_seed(0)
    with torch.device(options.device):
        vlm = PatchesModel(config).to(_dtype(options.device))
    vlm.save_pretrained(scratch / "idefics2")
    processor.save_pretrained(scratch / "idefics2")
    width, out = config.text_config.hidden_size, 64 if options.small else 2048
    inner = ConnectorConfig(width, out, 64, 2, 2) if options.small else ConnectorConfig(width, out)
    save(
        scratch / "mumu", Index("sdxl", "../idefics2", options.tokens),
        connector=Connector(inner), processor=processor,
    )  # fmt: skip


def _small_idefics2() -> dict[str, Any]:
    """Of the bundled one's sizes, for its tokenizer's words."""
    place = get_family("pocket").weights("mllm_two").local_folder()
    config = Idefics2Config.from_pretrained(place).to_dict()
    return {name: config[name] for name in IDEFICS2_8B}


def drawn(options: argparse.Namespace, sdxl: Path, mumu: Path, stays: bool) -> dict[str, float]:
    """Seconds an image behind a first one, and the peak of memory."""
    spec = PromptSpec(
        Weights(str(sdxl)), dtype=default_dtype(options.device), mumu=Weights(str(mumu)),
        num_inference_steps=options.steps,
    )  # fmt: skip
    generator = PromptGenerator(spec, device=options.device, encoder_stays=stays)
    grey = Image.new("RGB", (512, 512), (128, 128, 128))
    prompt = Prompt(("one", grey, "red circle above two", grey, "squares"))
    generator.generate([prompt], [[0]], num_inference_steps=2)
    _let_go()
    began = time.perf_counter()
    generator.generate([prompt], [[1]])
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    generator.encode([prompt])
    encoding = time.perf_counter() - began
    found = {"seconds": seconds, "of them encoding": encoding, "peak_gib": _peak(options.device)}
    del generator
    _let_go()
    return found


def trained(options: argparse.Namespace, stage: str, sdxl: Path, scratch: Path) -> dict[str, float]:
    """Seconds of a step behind the first, a sample a step, and the peak of memory."""
    small = {"connector_width": 64, "connector_layers": 2, "connector_heads": 2, "tokens": 16}
    settings = replace(
        get_recipe(stage), generator=str(sdxl), vlm=str(scratch / "idefics2"), data="pocket-mumu",
        image_size=16 if options.small else 1024, samples=40, held_out=1, batch_size=1,
        persons_only=False, max_steps=4, warmup_steps=0, evaluate_steps=4, save_steps=4,
        sample_contexts=1, num_inference_steps=1, trackers=None, **(small if options.small else {}),
    )  # fmt: skip
    out = scratch / stage
    train(settings, out, quiet=True)
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    timed = [its for its in steps if "seconds" in its and "gradient_norm" in its][1:]
    _let_go()
    return {
        "seconds": min(its["seconds"] for its in timed),
        "peak_gib": max(its["memory_gib"] for its in timed),
    }


def _let_go() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> float:
    return torch.cuda.max_memory_allocated() / GIB if device.startswith("cuda") else 0.0


def _dtype(device: str) -> torch.dtype:
    found = getattr(torch, default_dtype(device))
    assert isinstance(found, torch.dtype)
    return found


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, help="a folder with room for 30 GB (default: /tmp)")
    parser.add_argument("--small", action="store_true", help="small sizes, to try it on a CPU")
    parser.add_argument("--tokens", type=int, help="an image (default: 324)")
    parser.add_argument("--steps", type=int, default=50, help="of an image (default: 50)")
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--threads", type=int, default=1, help="of a CPU (default: 1)")
    options = parser.parse_args()
    options.tokens = options.tokens or (16 if options.small else 324)
    return options


if __name__ == "__main__":
    main()
