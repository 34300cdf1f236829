"""What is frozen, computed once: descriptions, text and image embeddings, the rewards' text side.

The source's rows are cut into shards. Two passes over them, each with its own models on the
device: descriptions (the MLLM), then embeddings (the generator's encoders, the rewards' text
sides). A shard is a file that is whole or absent, under the key of everything that decides it, so
an interrupted pass goes on, a second run finds what the first made, and processes share the work.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from hb_tta.context import DescribedContext
from hb_tta.datasets.samples import Example
from hb_tta.describe import DescriberSpec
from hb_tta.describe.templates import TEMPLATE_VERSION, training_prompt
from hb_tta.disk import write_aside
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.generators.description import fit_description
from hb_tta.generators.hummingbird import HummingbirdGenerator
from hb_tta.images import pixel_digest
from hb_tta.reading import read_json
from hb_tta.rewards import Judge
from hb_tta.rewards.pixels import pixels_of
from hb_tta.store import content_key
from hb_tta.training.data import BadRecord, Source
from hb_tta.training.rollout import scaled
from hb_tta.views.refusals import apart

SHARD = 16  # rows a shard, and that models take at once
MOST_HELD_OUT = 64  # rows; more of them would tell little more, and evaluation takes its time
NEGATIVE = "negative.safetensors"
_FORMAT = 1


@dataclass(frozen=True)
class Share:
    """Which shards are this process's: those whose number is ``rank`` modulo ``processes``."""

    rank: int = 0
    processes: int = 1

    def has(self, number: int) -> bool:
        """Whether a shard is."""
        return number % self.processes == self.rank


Progress = Callable[[str, int, int | None], None]
"""(what, rows done, rows in all if known)."""


def describe_all(
    source: Source,
    rows: int | None,
    folder: Path,
    spec: DescriberSpec,
    *,
    share: Share,
    device: str,
    progress: Progress,
) -> None:
    """First pass: writes ``described_00000.json`` … with every row's text, or why it has none.

    The describer is loaded when the first row asks for it, and unloaded at the end.
    """
    describer = None
    for number in count():
        start = number * SHARD
        if rows is not None and start >= rows:
            break
        path = described_path(folder, start)
        if not share.has(number):
            continue
        if not path.exists():
            records = list(source.read(start, start + SHARD))
            if describer is None and any(_needs_description(record) for record in records):
                describer = spec.load(device)
            write_aside(path, json.dumps(_described(records, describer, start)).encode())
            progress("describing", *_done(start + len(records), rows, len(records) < SHARD))
        if len(read_json(path)) < SHARD:
            break  # the source ends here
    if describer is not None:
        describer.unload()


def _done(done: int, rows: int | None, ended: bool) -> tuple[int, int | None]:
    """(rows done, rows in all): a source that has ended has no more than it gave."""
    return done, done if ended else rows


def _needs_description(record: Example | BadRecord) -> bool:
    return isinstance(record, Example) and record.description is None


def _described(
    records: Sequence[Example | BadRecord], describer: Any, start: int
) -> list[dict[str, Any]]:
    """Every row's texts; a ground truth stands in no file that evaluation reads."""
    rows: list[dict[str, Any]] = [
        {"bad": record.reason}
        if isinstance(record, BadRecord)
        else {
            "guidance": record.context.guidance,
            "task": record.context.task,
            "image": pixel_digest(record.context.image),
            "description": record.description,
        }
        for record in records
    ]
    missing = {
        i: record.context
        for i, record in enumerate(records)
        if isinstance(record, Example) and record.description is None
    }
    if missing:
        texts = apart(
            list(missing.values()),
            lambda contexts: describer.describe_with(
                [context.image for context in contexts],
                [training_prompt(context) for context in contexts],
            ),
            "the describer",
        )
        for i, text in zip(missing, texts, strict=True):
            if isinstance(text, UserError):
                rows[i] = {"bad": f"row {start + i}: {text}"}
            else:
                rows[i]["description"] = text
    for row in rows:
        if "bad" not in row and not (row["description"] or "").strip():
            row["bad"] = "the describer wrote nothing of use"
    return rows


def encode_all(
    source: Source,
    rows: int | None,
    described: Path,
    folder: Path,
    generator: HummingbirdGenerator,
    rewards: Sequence[Judge],
    *,
    with_latents: bool,
    share: Share,
    progress: Progress,
) -> None:
    """Second pass: writes ``encoded_….safetensors`` beside every shard of descriptions.

    Args:
        with_latents: also the VAE's latents of the references, for the denoising objective.
    """
    if share.rank == 0 and not (folder / NEGATIVE).exists():
        write_aside(folder / NEGATIVE, save(_negative(generator), {"format": "pt"}))
    for number, path in enumerate(described_shards(described, rows)):
        start = number * SHARD
        target = encoded_path(folder, start)
        if not share.has(number) or target.exists():
            continue
        texts = read_json(path)
        records = list(source.read(start, start + SHARD))
        good = [
            (record, row["description"])
            for record, row in zip(records, texts, strict=True)
            if isinstance(record, Example) and "bad" not in row
        ]
        if good:
            tensors = _encoded(good, generator, rewards, with_latents)
            write_aside(target, save(tensors, {"format": "pt"}))
        progress("encoding", *_done(start + len(records), rows, len(records) < SHARD))


@torch.no_grad()
def _encoded(
    good: list[tuple[Example, str]],
    generator: HummingbirdGenerator,
    rewards: Sequence[Judge],
    with_latents: bool,
) -> dict[str, Tensor]:
    """The shard's tensors, a row a good record."""
    pipe = generator.pipe
    tokenizers = [pipe.tokenizer, pipe.tokenizer_2]
    fitted = [fit_description(tokenizers, text) for _, text in good]
    cut = sum(was_shortened for _, was_shortened in fitted)
    if cut:
        warnings.warn(
            f"{cut} of {len(good)} descriptions were shortened to the text encoders' window: "
            "lower max_new_tokens",
            HbTtaWarning,
            stacklevel=2,
        )
    texts = [text for text, _ in fitted]
    images = [record.context.image for record, _ in good]
    contexts = [DescribedContext(*pair) for pair in zip(images, texts, strict=True)]
    tensors = dict(generator.encode(contexts, False))
    for reward in rewards:
        tensors |= reward.targets(images, texts)
    if with_latents:
        tensors["latents"] = _latents(pipe, images)
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


@torch.no_grad()
def _negative(generator: HummingbirdGenerator) -> dict[str, Tensor]:
    """The negative conditions of guidance, which are the same of all samples: one row."""
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    conditions = generator.encode([DescribedContext(grey, "")], True)
    return {n: t.cpu().contiguous() for n, t in conditions.items() if n.startswith("negative")}


def _latents(pipe: Any, images: Sequence[Any]) -> Tensor:
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    pixels = pixels_of(images, side).to(pipe.vae.device, pipe.vae.dtype) * 2 - 1
    return scaled(pipe.vae.config, pipe.vae.encode(pixels).latent_dist.mode())


def described_path(folder: Path, start: int) -> Path:
    """Of the descriptions of the shard that begins at a row."""
    return folder / f"described_{start:09d}.json"


def described_shards(folder: Path, rows: int | None) -> Iterator[Path]:
    """The shards of descriptions of the first ``rows`` rows, in order."""
    for number in count():
        path = described_path(folder, number * SHARD)
        if (rows is not None and number * SHARD >= rows) or not path.exists():
            return
        yield path


def encoded_path(folder: Path, start: int) -> Path:
    """Of the embeddings of the shard that begins at a row."""
    return folder / f"encoded_{start:09d}.safetensors"


def description_key(source: Source, spec: DescriberSpec) -> str:
    """The key of everything that decides the descriptions."""
    return content_key(
        {
            "format": _FORMAT,
            "data": source.fingerprint(),
            "mllm": spec.to_json(),
            "templates": TEMPLATE_VERSION,
        }
    )


# ── Reading it back ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Sample:
    """A good row: its number in the source, its shard of embeddings, its place there, its texts."""

    number: int
    shard: Path
    row: int
    image: str
    description: str


class Prepared:
    """The good rows, held-out ones apart.

    Args:
        described, folder: of the two passes.
        rows: of the source that count.
        held_out: how many good rows at the beginning are kept for evaluation; ``None``: as many as
            suit their number. A training row with the image of one of them is left out.

    Raises:
        UserError: no row is left to train on.
    """

    def __init__(
        self, described: Path, folder: Path, rows: int | None, held_out: int | None
    ) -> None:
        self.bad: list[str] = []
        samples: list[Sample] = []
        for number, path in enumerate(described_shards(described, rows)):
            start, row = number * SHARD, 0
            left = None if rows is None else rows - start
            for place, written in enumerate(read_json(path)[:left]):
                if "bad" in written:
                    self.bad.append(written["bad"])
                    continue
                shard = encoded_path(folder, start)
                texts = written["image"], written["description"]
                samples.append(Sample(start + place, shard, row, *texts))
                row += 1
        kept = suited(len(samples)) if held_out is None else held_out
        self.held_out = samples[:kept]
        seen = {sample.image for sample in self.held_out}
        self.training = [sample for sample in samples[kept:] if sample.image not in seen]
        self.left_out = len(samples) - len(self.held_out) - len(self.training)
        self.negative = {name: row[0] for name, row in load_file(folder / NEGATIVE).items()}
        self._open: dict[Path, Any] = {}
        if not self.training:
            raise UserError(
                f"no sample is left to train on ({len(samples)} good rows, {len(self.held_out)} of "
                f"them held out and {self.left_out} with an image of those, {len(self.bad)} bad"
                f"{': ' + self.bad[0] if self.bad else ''}): give more data"
            )

    def batch(self, samples: Sequence[Sample], device: Any) -> dict[str, Tensor]:
        """Conditions and targets of samples, a row each, on a device."""
        rows = [self._row(sample) for sample in samples]
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        batch |= {name: row.expand(len(rows), *row.shape) for name, row in self.negative.items()}
        return {name: tensor.to(device) for name, tensor in batch.items()}

    def _row(self, sample: Sample) -> dict[str, Tensor]:
        file = self._open.get(sample.shard)
        if file is None:
            file = self._open[sample.shard] = safe_open(sample.shard, "pt")
        return {name: file.get_slice(name)[sample.row] for name in file.keys()}  # noqa: SIM118


def suited(rows: int) -> int:
    """How many of so many good rows are held out where nobody says it."""
    return min(MOST_HELD_OUT, max(1, rows // 5))


class Order:
    """Which sample stands where: epochs of all samples, each in an order of its own.

    A place in it depends on (seed, epoch) alone, so data order survives any interruption and does
    not depend on the number of processes.
    """

    def __init__(self, samples: int, seed: int) -> None:
        self.samples, self.seed = samples, seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def __call__(self, place: int) -> tuple[int, int]:
        """(epoch, index of the sample) of the place-th sample of a run."""
        epoch, position = divmod(place, self.samples)
        if epoch != self._epoch:
            draw = np.random.default_rng([self.seed, epoch])
            self._epoch, self._permutation = epoch, draw.permutation(self.samples)
        return epoch, int(self._permutation[position])
