"""How many views a second: batched, one by one, and the bare stock pipeline on the same work.

    python benchmarks/generate.py --family pocket
    python benchmarks/generate.py --pipeline FOLDER [--lora FOLDER]
    python benchmarks/generate.py --random-sdxl          # full size, random weights, for a GPU

With a LoRA, "LoRA as layers" is the batched arm with PEFT's layers in place of merged weights.
Every arm makes the same views of the same contexts on the same pipeline object. The arms take
turns, in another order each round, so that whatever else slows the machine slows all of them; the
figures are medians over rounds, ratios are medians of the ratios within a round. On a CPU the clock
is the process's own processor time on one thread, which a busy neighbour disturbs less than the
time of day; on a GPU it is the time of day.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from hb_tta.device import default_device, default_dtype
from hb_tta.families import get_family
from hb_tta.generators import DescribedContext, HummingbirdGenerator, HummingbirdSpec
from hb_tta.generators.lora import load_lora
from hb_tta.report import renderers
from hb_tta.report.cells import Cell, Table
from hb_tta.weights import as_weights

# 349.7 TFLOP a guided view of 25 steps at 1024² over 790 TFLOP/s, an H200's measured dense bf16
H200_FLOOR_SECONDS = 0.443
LAYERS = "LoRA as layers, batched"


@dataclass(frozen=True)
class Work:
    """The views that every arm makes."""

    contexts: list[DescribedContext]
    seeds: list[int]

    def views(self) -> list[tuple[DescribedContext, int]]:
        """Context and seed of every view."""
        return [(context, seed) for context in self.contexts for seed in self.seeds]


def main() -> None:
    """Measures and prints a table, or JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        generator = _generator(options, Path(folder))
    work = _work(generator, options.contexts, options.seeds)
    rounds = measure(arms(generator, work), options.rounds, generator.pipe.device)
    report = summary(rounds, generator, work)
    print(json.dumps(report, indent=2) if options.json else table(report))


def arms(generator: HummingbirdGenerator, work: Work) -> dict[str, Callable[[], object]]:
    """The ways of making the same views."""
    views, size = work.views(), generator.batch_size
    batches = [views[start : start + size] for start in range(0, len(views), size)]
    ways: dict[str, Callable[[], object]] = {
        "batched": lambda: generator.generate(work.contexts, [work.seeds] * len(work.contexts)),
        "one by one": lambda: [generator.generate([view], [[seed]]) for view, seed in views],
        "bare pipeline, batched": lambda: [bare(generator, batch) for batch in batches],
        "bare pipeline, one by one": lambda: [bare(generator, [view]) for view in views],
    }
    if generator.spec.lora is not None:
        layered = _with_layers(generator)
        ways[LAYERS] = lambda: layered.generate(work.contexts, [work.seeds] * len(work.contexts))
    return ways


def _with_layers(generator: HummingbirdGenerator) -> HummingbirdGenerator:
    """The same generator with the LoRA in layers of its own, as it is trained."""
    spec = generator.spec
    assert spec.lora is not None
    device = str(generator.pipe.device)
    layered = replace(spec, lora=None).load(device, batch_size=generator.batch_size)
    load_lora(layered.pipe.unet, spec.lora.local_folder(), scale=spec.lora_scale)
    return layered


@torch.no_grad()
def bare(
    generator: HummingbirdGenerator, views: list[tuple[DescribedContext, int]]
) -> list[Image.Image]:
    """The stock pipeline as one would call it by hand, encoders included."""
    pipe, spec = generator.pipe, generator.spec
    prompt, negative_prompt, _, _ = pipe.encode_prompt([view.description for view, _ in views])
    embeds, zeros = pipe.encode_image([view.image for view, _ in views], pipe.device, 1)
    return pipe(
        prompt_embeds=prompt,
        negative_prompt_embeds=negative_prompt,
        pooled_prompt_embeds=embeds,
        negative_pooled_prompt_embeds=zeros,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(seed) for _, seed in views],
    ).images


def measure(
    ways: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> list[dict[str, float]]:
    """Seconds of every way in every round, after a round that does not count."""
    names, measured = list(ways), []
    for number in range(rounds + 1):
        turn = number % len(names)
        order = names[turn:] + names[:turn]
        seconds = {name: _seconds(ways[name], device) for name in order}
        measured.append(seconds)
    return measured[1:]


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    run()  # ends with images on the CPU: nothing is left to wait for
    return clock() - start


def summary(
    rounds: list[dict[str, float]], generator: HummingbirdGenerator, work: Work
) -> dict[str, Any]:
    """The figures of a run, plain JSON."""
    count, spec = len(work.views()), generator.spec

    def ratio(numerator: str, denominator: str) -> float:
        return statistics.median(r[numerator] / r[denominator] for r in rounds)

    report: dict[str, Any] = {
        "device": _device_name(generator.pipe),
        "dtype": spec.dtype,
        "lora": spec.lora is not None,
        "pixels": list(generator.generate(work.contexts[:1], [[0]])[0][0].size),
        "num_inference_steps": spec.num_inference_steps,
        "guidance_scale": spec.guidance_scale,
        "views": count,
        "batch_size": generator.batch_size,
        "rounds": len(rounds),
        "images_per_second": {
            name: count / statistics.median(r[name] for r in rounds) for name in sorted(rounds[0])
        },
        "batched_over_one_by_one": ratio("one by one", "batched"),
        "batched_over_bare_one_by_one": ratio("bare pipeline, one by one", "batched"),
        "overhead_batched": ratio("batched", "bare pipeline, batched") - 1,
        "overhead_one_by_one": ratio("one by one", "bare pipeline, one by one") - 1,
    }
    if LAYERS in rounds[0]:
        report["merged_over_layers"] = ratio("batched", LAYERS)
    if report["pixels"] == [1024, 1024] and spec.num_inference_steps == 25:
        report["fraction_of_h200_floor"] = (
            H200_FLOOR_SECONDS * report["images_per_second"]["batched"]
        )
    return report


def table(report: dict[str, Any]) -> str:
    """The figures for a person."""
    width, height = report["pixels"]
    speeds = report["images_per_second"].items()
    rates = Table(["", "images/s"], [[name, Cell(rate, kind="rate")] for name, rate in speeds])
    lines = [
        f"{report['device']}, {report['dtype']}, {width}x{height}, "
        f"{report['num_inference_steps']} steps, guidance {report['guidance_scale']:g}, "
        f"LoRA {'on' if report['lora'] else 'off'}; {report['views']} views, "
        f"batch {report['batch_size']}, median of {report['rounds']} rounds",
        "",
        renderers.markdown(rates),
        "",
        f"batched over one by one: {report['batched_over_one_by_one']:.2f} times",
        f"batched over the bare pipeline in a loop: {report['batched_over_bare_one_by_one']:.2f}"
        " times",
        f"overhead over the bare pipeline: {report['overhead_one_by_one']:+.1%} one by one, "
        f"{report['overhead_batched']:+.1%} batched",
    ]
    if "merged_over_layers" in report:
        lines.append(f"time, LoRA merged over layers: {report['merged_over_layers']:.2f}")
    if "fraction_of_h200_floor" in report:
        lines.append(f"of an H200's floor: {report['fraction_of_h200_floor']:.0%}")
    return "\n".join(lines)


def _work(generator: HummingbirdGenerator, contexts: int, seeds: int) -> Work:
    """Noise for references and sentences of several lengths: what they show costs nothing."""
    draw = np.random.default_rng(0)
    size = generator.pipe.default_sample_size * generator.pipe.vae_scale_factor
    images = [
        Image.fromarray(draw.integers(0, 256, (size, size, 3), dtype=np.uint8))
        for _ in range(contexts)
    ]
    sentence = "two red dogs sit left of a blue bench"
    return Work(
        [
            DescribedContext(image, " ".join(sentence.split()[: 2 + index % 7]))
            for index, image in enumerate(images)
        ],
        list(range(seeds)),
    )


def _generator(options: argparse.Namespace, scratch: Path) -> HummingbirdGenerator:
    device = options.device or default_device()
    dtype = options.dtype or default_dtype(device)
    if options.family:
        spec = HummingbirdSpec.from_family(get_family(options.family), dtype=dtype)
    else:
        spec = HummingbirdSpec(as_weights(_folder(options, scratch, device)), dtype=dtype)
    given = {"num_inference_steps": options.steps, "guidance_scale": options.guidance_scale}
    changes: dict[str, Any] = {name: it for name, it in given.items() if it is not None}
    if options.lora:
        changes["lora"] = as_weights(options.lora)
    return replace(spec, **changes).load(device, batch_size=options.batch_size)


def _folder(options: argparse.Namespace, scratch: Path, device: str) -> Path:
    if not options.random_sdxl:
        return options.pipeline
    from random_sdxl import save_random_sdxl

    return save_random_sdxl(scratch, device=device)


def _device_name(pipe: StableDiffusionXLPipeline) -> str:
    if pipe.device.type == "cuda":
        return torch.cuda.get_device_name(pipe.device)
    return f"CPU, {torch.get_num_threads()} thread(s)"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--family", help="a family of models, such as pocket")
    what.add_argument("--pipeline", type=Path, help="an SDXL folder with an image encoder")
    what.add_argument("--random-sdxl", action="store_true", help="full size, random weights")
    parser.add_argument("--lora", help="a PEFT LoRA folder")
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=4, help="views a context")
    parser.add_argument("--steps", type=int, help="DDIM steps (default: the family's, 25)")
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--batch-size", type=int, help="default: what the device has room for")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
