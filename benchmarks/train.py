"""Where a training step's time goes, and how it compares with the loop of the released code.

    python benchmarks/train.py --family pocket
    python benchmarks/train.py --random-sdxl --memory block      # full size, random weights, a GPU

The plain loop does the same work as the authors' code goes about it: one sample at a time, the
evaluator's two scores by two calls of the stock model, the MLLM, the text and the image encoder
run at every step, gradients for all of the UNet's weights. On a CPU the clock is the process's own
processor time, which a busy neighbour disturbs less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from hb_tta.training.data import Rows
from hb_tta.training.lora import add_lora, lora_parameters
from hb_tta.training.objectives import conditions_in
from hb_tta.training.recipes import MEMORY_PRESETS, get_recipe
from hb_tta.training.rollout import Rollout, draw_noise, last_steps

from hb_tta.context import DescribedContext
from hb_tta.datasets.pocket import PocketExamples
from hb_tta.datasets.samples import Example
from hb_tta.describe import DescriberSpec
from hb_tta.describe.templates import training_prompt
from hb_tta.device import default_device, default_dtype
from hb_tta.families import get_family
from hb_tta.generators.hummingbird import HummingbirdGenerator
from hb_tta.rewards import MultimodalContextEvaluator

# Of an H200's measured 790 TFLOP/s of dense bf16: one sample at K = 5, without recomputation,
# with blocks recomputed.
H200_FLOORS = {"none": 0.552, "block": 0.63}


def main() -> None:
    """Measures and prints JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = options.device or default_device()
    clock = time.process_time if device == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as scratch:
        generator, evaluator = _models(options, Path(scratch), device)
    records = [r for r in islice(Rows(PocketExamples()).read(0, options.batch), options.batch)]
    work = Work(options, generator, evaluator, [r for r in records if isinstance(r, Example)])
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device != "cpu" else "CPU",
        "dtype": generator.spec.dtype,
        "memory": options.memory,
        "batch": options.batch,
        "gradient_steps": options.gradient_steps,
        "seconds_per_sample": _median(work.step, options.rounds, clock) / options.batch,
        "shares": work.shares(clock),
    }
    if device != "cpu":
        report["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        floor = H200_FLOORS.get(options.memory)
        if options.random_sdxl and floor:
            report["fraction_of_h200_floor"] = floor / report["seconds_per_sample"]
    if options.plain:
        plain = _median(work.plain_sample, options.rounds, clock)
        report["plain_seconds_per_sample"] = plain
        report["times_as_fast"] = plain / report["seconds_per_sample"]
    print(json.dumps(report, indent=2))


class Work:
    """One step, its parts, and the plain loop's one sample."""

    def __init__(
        self, options: Any, generator: Any, evaluator: Any, records: list[Example]
    ) -> None:
        self.describer = None
        if options.plain and not options.random_sdxl:
            spec = DescriberSpec(get_family(options.family).weights("mllm"), max_new_tokens=75)
            self.describer = spec.load(generator.pipe.unet.device.type)
        pipe, spec = generator.pipe, generator.spec
        add_lora(pipe.unet)
        self.generator, self.evaluator, self.records = generator, evaluator, records
        self.rollout = Rollout(
            pipe.unet, pipe.vae, pipe.scheduler, spec.num_inference_steps, spec.guidance_scale,
            last_steps(options.gradient_steps, spec.num_inference_steps), memory=options.memory,
        )  # fmt: skip
        contexts = [DescribedContext(r.context.image, r.description) for r in records]
        with torch.no_grad():
            self.batch = generator.encode(contexts, True)
        images = [context.image for context in contexts]
        texts = [str(context.description) for context in contexts]
        self.batch |= evaluator.targets(images, texts)
        device, dtype = pipe.unet.device, pipe.unet.dtype
        self.batch = {name: part.to(device) for name, part in self.batch.items()}
        noise = draw_noise(0, 0, list(range(len(records))), self.rollout.latent_shape)
        self.noise = noise.to(device, dtype)

    def step(self) -> None:
        """As the trainer does it."""
        pixels = self.rollout(conditions_in(self.batch), self.noise)
        scores = self.evaluator(pixels, self.batch)
        (-scores["global"] - 0.1 * scores["fine_grained"]).mean().backward()
        _wait(self.noise)

    def shares(self, clock: Callable[[], float]) -> dict[str, float]:
        """Fractions of a step, forward and back: prefix, steps with gradient, decoder, reward."""
        rollout, conditions = self.rollout, conditions_in(self.batch)
        marks = [clock()]

        def mark() -> None:
            _wait(self.noise)
            marks.append(clock())

        with torch.no_grad():
            rollout.latents(conditions, self.noise, gradient_steps=())
        mark()
        latents = rollout.latents(conditions, self.noise)
        mark()
        cut = latents.detach().requires_grad_(True)
        pixels = rollout.decode(cut)
        mark()
        seen = pixels.detach().clamp(-1, 1).add(1).div(2).requires_grad_(True)
        scores = self.evaluator(seen, self.batch)
        (scores["global"] + scores["fine_grained"]).sum().backward()
        mark()
        pixels.backward(seen.grad)
        mark()
        latents.backward(cut.grad)
        mark()
        whole, carried, decode, reward, decode_back, back = (
            b - a for a, b in zip(marks, marks[1:], strict=False)
        )
        k, total = len(rollout.gradient_steps), rollout.num_inference_steps
        prefix = whole * (total - k) / total
        parts = {
            "prefix": prefix,
            "gradient_steps": carried - prefix + back,
            "decode": decode + decode_back,
            "reward": reward,
        }
        return {name: part / sum(parts.values()) for name, part in parts.items()}

    def plain_sample(self) -> None:
        """One sample as the released code goes about it."""
        generator, evaluator = self.generator, self.evaluator
        record = self.records[0]
        unet = generator.pipe.unet
        trained = {id(p) for p in lora_parameters(unet)}
        for parameter in unet.parameters():
            parameter.requires_grad_(True)
        text = str(record.description)
        if self.describer is not None:
            self.describer.describe_with([record.context.image], [training_prompt(record.context)])
        with torch.no_grad():
            batch = generator.encode([DescribedContext(record.context.image, text)], True)
        pixels = self.rollout(batch, self.noise[:1])
        ids = evaluator.tokenizer([text], return_tensors="pt").to(pixels.device)
        given = {"pixel_values": evaluator.normalize(pixels), **ids}
        itc = evaluator.model(**given).logits_per_image[0, 0]
        itm = evaluator.model(**given, use_image_text_matching_head=True).logits_per_image
        (-itc - itm.softmax(-1)[0, 1]).backward()
        for parameter in unet.parameters():
            if id(parameter) not in trained:
                parameter.requires_grad_(False)
                parameter.grad = None
        _wait(self.noise)


def _wait(tensor: torch.Tensor) -> None:
    if tensor.device.type == "cuda":
        torch.cuda.synchronize()


def _median(run: Callable[[], None], rounds: int, clock: Callable[[], float]) -> float:
    """Of some rounds, after one that does not count."""
    seconds = []
    for _ in range(rounds + 1):
        start = clock()
        run()
        seconds.append(clock() - start)
    return statistics.median(seconds[1:])


def _models(options: Any, scratch: Path, device: str) -> tuple[Any, Any]:
    dtype = options.dtype or default_dtype(device)
    if not options.random_sdxl:
        family = get_family(options.family)
        generator = HummingbirdGenerator.from_pretrained(
            family.weights("generator"), device=device, dtype=dtype,
            num_inference_steps=family.defaults["num_inference_steps"],
            guidance_scale=family.defaults["guidance_scale"],
        )  # fmt: skip
        weights = family.weights("evaluator")
        evaluator = MultimodalContextEvaluator.from_pretrained(weights, dtype=getattr(torch, dtype))
        return generator, evaluator.to(device)
    from random_sdxl import save_random_sdxl

    generator = HummingbirdGenerator.from_pretrained(
        save_random_sdxl(scratch, device=device), device=device, dtype=dtype
    )
    generator.pipe.vae.disable_slicing()
    return generator, _random_evaluator(getattr(torch, dtype)).to(device)


def _random_evaluator(dtype: torch.dtype) -> MultimodalContextEvaluator:
    """BLIP-2's full size: its configuration's defaults are those of ViT-g."""
    from transformers import Blip2Config, Blip2ForImageTextRetrieval, CLIPTokenizer

    tokenizer = Path(__file__).parents[1] / "tests/golden/hummingbird_pipeline/pipeline/tokenizer"
    config = Blip2Config(
        qformer_config={"use_qformer_text_input": True}, image_text_hidden_size=256
    )
    model = Blip2ForImageTextRetrieval(config)
    model.vision_model.to(dtype)
    half = [0.5, 0.5, 0.5]
    return MultimodalContextEvaluator(model, CLIPTokenizer.from_pretrained(tokenizer), half, half)


def _options() -> argparse.Namespace:
    recipe = get_recipe("pocket")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="pocket")
    parser.add_argument("--random-sdxl", action="store_true", help="full size, random weights")
    parser.add_argument("--memory", choices=MEMORY_PRESETS, default="none")
    parser.add_argument("--batch", type=int, default=recipe.micro_batch_size)
    parser.add_argument("--gradient-steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="also the released code's way")
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    return parser.parse_args()


if __name__ == "__main__":
    main()
