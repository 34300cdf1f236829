"""Synthetic images to train MUMU on: contents × styles by a generator, the best by a reward.

    python -m hb_tta.training.mumu.synthetic --contents C.txt --styles S.txt --out DIR

Berman & Peysakhovich, section 4: a prompt is a content, a comma and a style; each content comes
with many styles; what a reward (PickScore) thinks little of is left out. The paper's least score is
not said: here it is a quantile. DIR/images.jsonl is what `hb-tta bootstrap` takes. The same command
again draws what is missing.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hb_tta.context import DescribedContext
from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.generators import build_spec
from hb_tta.images import load_image
from hb_tta.progress import progress
from hb_tta.reading import read_text
from hb_tta.rewards import load_rewards
from hb_tta.rewards.pixels import pixels_of

ROWS = "images.jsonl"


def main(argv: list[str] | None = None) -> None:
    """Draws, scores, and writes the rows that are kept."""
    options = _options(argv)
    prompts = list(
        pairs(lines_of(options.contents), lines_of(options.styles), options.each, options.seed)
    )
    paths = draw(prompts, options)
    scores = score(paths, prompts, options)
    least = float(np.quantile(scores, 1 - options.keep))
    kept = [
        {"image": f"images/{path.name}", "caption": prompt, "score": round(value, 5)}
        for path, prompt, value in zip(paths, prompts, scores, strict=True)
        if value >= least
    ]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    write_aside(options.out / ROWS, text.encode())
    print(f"{len(kept)} of {len(prompts)} images with {options.reward} ≥ {least:.4g}: {ROWS}")


def lines_of(path: Path) -> list[str]:
    """The lines of a file that say something.

    Raises:
        UserError: there are none.
    """
    try:
        found = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}): name a text file") from error
    if not found:
        raise UserError(f"{str(path)!r} is empty: write a content or a style a line")
    return found


def pairs(
    contents: Sequence[str], styles: Sequence[str], each: int, seed: int
) -> Iterator[str]:  # fmt: skip
    """Each content with ``each`` styles of its own, drawn without repeats."""
    for number, content in enumerate(contents):
        rng = np.random.default_rng([seed, number])
        for place in rng.permutation(len(styles))[:each]:
            yield f"{content}, {styles[place]}"


def draw(prompts: Sequence[str], options: argparse.Namespace) -> list[Path]:
    """A picture a prompt, where it is not there yet; their files, in order."""
    folder = options.out / "images"
    paths = [folder / f"{number:08d}.png" for number in range(len(prompts))]
    _claim(options.out / "prompts.json", prompts, options)
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    if not missing:
        return paths
    family = get_family(options.family)
    generator = build_spec("i2t2i", family).load(batch_size=options.batch_size)
    grey = Image.new("RGB", (64, 64), (128, 128, 128))  # this method looks at no image
    with progress("drawing", "image", len(missing)) as bar:
        for some in pieces(missing, options.batch_size):
            contexts = [DescribedContext(grey, prompts[number]) for number in some]
            made = generator.generate(contexts, [[options.seed + number] for number in some])
            for number, (picture,) in zip(some, made, strict=True):
                buffer = io.BytesIO()
                picture.save(buffer, "PNG")
                write_aside(paths[number], buffer.getvalue(), flush=False)
            bar.update(len(some))
    return paths


@torch.no_grad()
def score(
    paths: Sequence[Path], prompts: Sequence[str], options: argparse.Namespace
) -> list[float]:
    """The reward of every picture for its prompt."""
    (judge,) = load_rewards([options.reward], get_family(options.family))
    scores: list[float] = []
    for some in pieces(list(range(len(paths))), options.batch_size):
        images = [load_image(paths[number]) for number in some]
        targets = judge.targets(images, [prompts[number] for number in some])
        side = max(max(image.size) for image in images)
        found = judge(pixels_of(images, side), targets)[options.reward]
        scores += found.float().tolist()
    return scores


def pieces(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Pieces of at most ``size``."""
    stream = iter(items)
    while piece := list(islice(stream, size)):
        yield piece


def _claim(path: Path, prompts: Sequence[str], options: argparse.Namespace) -> None:
    """Raises UserError where the folder holds the pictures of other prompts."""
    generator = get_family(options.family).weights("generator").fingerprint()
    now = json.dumps({"prompts": list(prompts), "generator": generator}).encode()
    if path.exists() and path.read_bytes() != now:
        raise UserError(
            f"{options.out} holds pictures of other contents, styles or models: give another --out"
        )
    write_aside(path, now)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--contents", type=Path, required=True, help="a text file, one a line")
    parser.add_argument("--styles", type=Path, required=True, help="a text file, one a line")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=8, help="styles of a content")
    parser.add_argument("--keep", type=float, default=0.5, help="the share that is kept")
    parser.add_argument("--reward", default="pickscore", help="by its name, see `hb-tta list`")
    parser.add_argument("--family", default="sdxl")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
