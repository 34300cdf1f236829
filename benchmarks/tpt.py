"""What batched prompt tuning gains over the official loop, at equal output.

    python benchmarks/tpt.py                    # minutes on one core
    python benchmarks/tpt.py --device cuda --width 512 --layers 12 --images 32

The *plain* arm is a plain reimplementation of TPT's loop: one image at a time, every prompt a
window of 77 tokens, the views encoded again at every step. *Batched* is ``PromptTuner`` on the same
images; *cached* is the same on features that are kept, as in a sweep.
The CLIP is random, with 1000 ImageNet names and 64 views; its vision tower takes about the share of
the work that it takes with a ResNet-50 (4 %). For human-object interactions: 64 steps on 12
supports, one task at a time in the plain arm. On a CPU the clock is the process's own processor
time on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from hb_tta.report import renderers
from hb_tta.report.cells import NOTHING, Cell, Table
from hb_tta.tpt import FewShotTuner, PromptTuner
from hb_tta.tpt.tuner import LEARNING_RATE, PROMPT

SELECTION = 0.1


def main() -> None:
    """Measures and prints a table, or JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = make_model(options)
    tokenizer = open_clip.SimpleTokenizer()
    report = {
        "device": options.device,
        "text": f"width {options.width}, {options.layers} layers",
        "images": measure_images(model, tokenizer, options),
        "tasks": measure_tasks(model, tokenizer, options),
    }
    print(json.dumps(report, indent=2) if options.json else table(report))


def make_model(options: argparse.Namespace) -> open_clip.CLIP:
    """A random CLIP; its logits are scaled as trained ones are."""
    width = options.width
    heads = max(1, width // 64)
    vision = {"image_size": 64, "patch_size": 8, "layers": 2 * options.layers, "width": width}
    text = {"context_length": 77, "vocab_size": 49408, "width": width, "heads": heads}
    model = open_clip.CLIP(width, vision | {"head_width": 64}, text | {"layers": options.layers})
    with torch.no_grad():
        model.logit_scale.fill_(torch.tensor(100.0).log())
    return model.eval().requires_grad_(False).to(options.device)


# ── The official loops, written plainly ──────────────────────────────────────────────────────────


def plain_text(model: Any, ids: Tensor, parts: list[Tensor]) -> Tensor:
    """Text features of prompts whose first tokens behind SOS are ``parts``, each (C, …, W)."""
    embedded = model.token_embedding(ids)
    length = sum(part.shape[1] for part in parts)
    x = torch.cat([embedded[:, :1], *parts, embedded[:, 1 + length :]], 1)
    x = model.transformer(x + model.positional_embedding, attn_mask=model.attn_mask)
    x = model.ln_final(x)[torch.arange(len(ids)), ids.argmax(-1)] @ model.text_projection
    return F.normalize(x, dim=-1)


def plain_image(model: Any, ids: Tensor, start: Tensor, views: Tensor) -> Tensor:
    """Logits (C,) of one image, tuned for one step on its views (V, 3, H, W)."""
    context = start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([context], LEARNING_RATE)

    def logits(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            features = model.encode_image(pixels, normalize=True)
        text = plain_text(model, ids, [context.expand(len(ids), -1, -1)])
        return model.logit_scale.exp() * features @ text.T

    scores = logits(views)
    entropy = -(scores.softmax(-1) * scores.log_softmax(-1)).sum(-1)
    chosen = entropy.argsort()[: int(SELECTION * len(views))]
    mean = scores[chosen].log_softmax(-1).logsumexp(0) - torch.log(torch.tensor(1.0 * len(chosen)))
    loss = -(mean * mean.exp()).sum()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        return logits(views[:1])[0]


def plain_task(
    model: Any, ids: Tensor, start: Tensor, vectors: Tensor, task: tuple[Tensor, ...], steps: int
) -> Tensor:
    """Query logits (Q, 2) of one few-shot task."""
    supports, labels, queries = task
    context, classes = start.clone().requires_grad_(), vectors.clone().requires_grad_()
    optimizer = torch.optim.AdamW([context, classes], LEARNING_RATE)

    def logits(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            features = model.encode_image(pixels, normalize=True)
        text = plain_text(model, ids, [context.expand(2, -1, -1), classes])
        return model.logit_scale.exp() * features @ text.T

    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(logits(supports), labels).backward()
        optimizer.step()
    with torch.no_grad():
        return logits(queries)


# ── Measuring ────────────────────────────────────────────────────────────────────────────────────


def measure_images(model: Any, tokenizer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of the plain loop, batched, and batched on cached features."""
    names = open_clip.IMAGENET_CLASSNAMES[: options.classes]
    images = torch.randn(options.images, options.views, 3, 64, 64, device=options.device)
    tuner = PromptTuner(model, tokenizer, names, selection=SELECTION, batch_size=options.batch_size)
    ids = tokenizer([f"{PROMPT} {name}." for name in names]).to(options.device)
    start = model.token_embedding(ids[0, 1:5]).detach()
    features = tuner.encoder.encode_images(images)
    few = images[: options.plain_images]
    plain, plain_seconds = timed(
        lambda: torch.stack([plain_image(model, ids, start, views) for views in few]), options
    )
    batched, batched_seconds = timed(lambda: tuner(images), options)
    _, cached_seconds = timed(lambda: tuner.tune(features), options)
    memory = saved_bytes(lambda: tuner.tune(features))
    rates = {
        "plain": len(few) / plain_seconds,
        "batched": len(images) / batched_seconds,
        "cached": len(images) / cached_seconds,
    }
    return {
        "classes": len(names),
        "views": options.views,
        "tokens of a prompt set": {"plain": ids.numel(), "batched": tuner.tokens},
        "a second": rates,
        "batched / plain": rates["batched"] / rates["plain"],
        "cached / plain": rates["cached"] / rates["plain"],
        "largest difference of logits": (batched[: len(few)] - plain).abs().max().item(),
        "images in the batch": len(images),
        "MB that the batch keeps for its gradient": memory / 1e6,
    }


def measure_tasks(model: Any, tokenizer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Few-shot tasks a second, one at a time and batched."""
    device = options.device
    number = options.tasks
    supports = torch.randn(number, 12, 3, 64, 64, device=device)
    labels = torch.tensor([0] * 6 + [1] * 6, device=device).expand(number, -1)
    queries = torch.randn(number, 2, 3, 64, 64, device=device)
    vectors = 0.02 * torch.randn(2, 1, options.width, device=device)
    tuner = FewShotTuner(model, tokenizer, class_vectors=vectors, steps=options.steps)
    ids = tokenizer([f"{PROMPT} X."] * 2).to(device)
    start = model.token_embedding(ids[0, 1:5]).detach()
    few = range(options.plain_tasks)

    def plain() -> Tensor:
        tasks = [(supports[n], labels[n], queries[n]) for n in few]
        return torch.stack(
            [plain_task(model, ids, start, vectors, task, options.steps) for task in tasks]
        )

    one_by_one, plain_seconds = timed(plain, options)
    batched, seconds = timed(lambda: tuner(supports, labels, queries[:, :, None]), options)
    rates = {"plain": len(few) / plain_seconds, "batched": number / seconds}
    return {
        "steps": options.steps,
        "a second": rates,
        "batched / plain": rates["batched"] / rates["plain"],
        "largest difference of logits": (batched[: len(few)] - one_by_one).abs().max().item(),
    }


def timed(run: Callable[[], Any], options: argparse.Namespace) -> tuple[Any, float]:
    """What ``run`` gives, and its best time of some rounds."""
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    seconds = []
    for _ in range(options.rounds):
        began = clock()
        found = run()
        if options.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - began)
    return found, min(seconds)


def saved_bytes(run: Callable[[], Any]) -> int:
    """The bytes that are kept for the gradient, counted once each."""
    sizes: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        run()
    return sum(sizes.values())


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    images, tasks = report["images"], report["tasks"]
    tokens = images["tokens of a prompt set"]
    title = (
        f"{images['classes']} classes, {images['views']} views, text {report['text']}, "
        f"{report['device']}; {tokens['plain']} tokens plain, {tokens['batched']} packed"
    )
    rows: list[list[Cell | str]] = [
        [name, Cell(rate, kind="rate"), _rate(tasks["a second"].get(name))]
        for name, rate in images["a second"].items()
    ]
    notes = [
        f"Images: batched / plain {images['batched / plain']:.1f}, on cached features "
        f"{images['cached / plain']:.1f} (aim: 10 or more); logits differ by "
        f"{images['largest difference of logits']:.1e}.",
        f"The batch of {images['images in the batch']} keeps "
        f"{images['MB that the batch keeps for its gradient']:.0f} MB for its gradient.",
        f"Tasks: batched / plain {tasks['batched / plain']:.1f} (aim: 10 or more); logits differ "
        f"by {tasks['largest difference of logits']:.1e} after {tasks['steps']} steps.",
    ]
    return renderers.text(Table(["", "images/s", "tasks/s"], rows, title, notes))


def _rate(value: float | None) -> Cell | str:
    return NOTHING if value is None else Cell(value, kind="rate")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--plain-images", type=int, default=1, help="of them, in the plain loop")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--plain-tasks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
