"""Making the descriptions and the views that a plan needs and the store lacks."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.store import Store
from hb_tta.store.fill import Made, MemoryStore, fill, missing_keys
from hb_tta.views.models import Models
from hb_tta.views.plan import Item

if TYPE_CHECKING:
    from PIL.Image import Image

DESCRIPTIONS_A_BATCH = 8  # of LLaVA v1.6's images, up to 2,900 tokens each
VIEWS_A_BATCH = 16  # more of SDXL's views at once gain nothing
TRIES = 3  # at an entry that somebody else removes again as soon as it is made

SHORTENED = "the description was too long for the text encoders and was shortened"
WORDLESS = "the describer wrote nothing of use: the views follow the image alone"
VANISHED = "entries vanish from the store as soon as they are made: stop whoever prunes it"


class Maker:
    """Fills a store with what items need.

    Args:
        models: load themselves when the first missing entry is claimed.
        store: where the entries go.
        batch_size: views a call of the generator; ``None``: ``VIEWS_A_BATCH``.
        progress: show progress bars; ``None``: where there is more than one batch, in a terminal.
    """

    def __init__(
        self,
        models: Models,
        store: Store | MemoryStore,
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self._models = models
        self._store = store
        self._batch_size = batch_size or VIEWS_A_BATCH
        self._progress = progress

    def make(self, items: Sequence[Item]) -> None:
        """Have every view of the items in the store, and the descriptions that those need."""
        missing = missing_keys(self._store, "views", [key for i in items for key in i.view_keys])
        if not missing:
            return
        unfinished = [item for item in items if missing.keys() & item.view_keys]
        for note in (note for item in unfinished for note in item.warnings):
            warnings.warn(note, HbTtaWarning, stacklevel=3)
        texts = self._descriptions(unfinished)
        views = {
            key: (item, seed)
            for item in reversed(items)  # of equal keys the first item counts
            for key, seed in zip(item.view_keys, item.seeds, strict=True)
        }
        with _bar("generating", "view", len(missing), self._batch_size, self._progress) as bar:
            fill(
                self._store,
                "views",
                missing,
                lambda keys: self._generate([(key, *views[key]) for key in keys], texts),
                batch_size=self._batch_size,
                on_progress=bar.update,
            )

    def _descriptions(self, items: Iterable[Item]) -> dict[str, str]:
        """Description key → text, read from the store or written now."""
        wanted = {item.description_key: item for item in items if item.description_key}
        texts: dict[str, str] = {}
        for _ in range(TRIES):
            missing = self._read_descriptions([key for key in wanted if key not in texts], texts)
            if not missing:
                return texts
            size = DESCRIPTIONS_A_BATCH
            with _bar("describing", "image", len(missing), size, self._progress) as bar:
                fill(
                    self._store,
                    "descriptions",
                    missing,
                    lambda keys: self._describe([wanted[key] for key in keys]),
                    batch_size=size,
                    on_progress=bar.update,
                )
        raise UserError(VANISHED)

    def _read_descriptions(self, keys: Iterable[str], texts: dict[str, str]) -> list[str]:
        """Adds what the store has to ``texts`` and gives the keys of the rest."""
        missing = []
        for key in keys:
            payload = self._store.get("descriptions", key)
            if payload is None:
                missing.append(key)
            else:
                texts[key] = json.loads(payload)["description"]
        return missing

    def _describe(self, items: Sequence[Item]) -> Iterator[Made]:
        texts = self._models.describe([item.context(None) for item in items])
        for item, text in zip(items, texts, strict=True):
            assert item.description_key is not None
            payload = json.dumps({"description": text}, ensure_ascii=False).encode()
            yield Made(item.description_key, payload, self._meta(item))

    def _generate(
        self, views: Sequence[tuple[str, Item, int]], texts: Mapping[str, str]
    ) -> Iterator[Made]:
        """The entries of one batch: (key, item, seed) each."""
        batch = [(item, list(group)) for item, group in groupby(views, key=lambda view: view[1])]
        fitted = [self._fitted(item, texts) for item, _ in batch]
        images = self._models.generate(
            [
                item.context(told["description"])
                for (item, _), told in zip(batch, fitted, strict=True)
            ],
            [[seed for _, _, seed in group] for _, group in batch],
        )
        keys = [key for _, group in batch for key, _, _ in group]
        metas = [
            {**self._meta(item), **told, "generator": self._models.generator_json, "seed": seed}
            for (item, group), told in zip(batch, fitted, strict=True)
            for _, _, seed in group
        ]
        with ThreadPoolExecutor() as pool:  # zlib works outside Python's lock
            payloads = pool.map(to_png, (image for its_images in images for image in its_images))
            yield from map(Made, keys, payloads, metas)

    def _fitted(self, item: Item, texts: Mapping[str, str]) -> dict[str, Any]:
        """What the generator is told: the description, and whether it had to be shortened."""
        text = texts[item.description_key] if item.description_key else item.description
        if text is None:
            return {"description": None, "shortened": False}
        description, shortened = self._models.fit(text)
        if shortened:
            warnings.warn(f"{SHORTENED}: it begins {text[:40]!r}", HbTtaWarning, stacklevel=2)
        if item.description_key and not text:
            warnings.warn(WORDLESS, HbTtaWarning, stacklevel=2)
        return {"description": description, "shortened": shortened}

    def _meta(self, item: Item) -> dict[str, Any]:
        """What people find beside an entry; no ground truth is known here."""
        return {
            "pixels": item.digest,
            "guidance": item.guidance,
            "task": item.task,
            "describer": self._models.describer_json if item.description_key else None,
        }


def to_png(image: Image) -> bytes:
    """The bytes that the store keeps of a view."""
    file = io.BytesIO()
    # Level 1 takes a fifth of the default's time and a tenth more room on photographs.
    image.convert("RGB").save(file, "PNG", compress_level=1)
    return file.getvalue()


def _bar(name: str, unit: str, total: int, batch_size: int, progress: bool | None) -> Any:
    """A progress bar; by default in a terminal alone, where there is more than one batch."""
    hidden = (True if total <= batch_size else None) if progress is None else not progress
    return tqdm(total=total, desc=name, unit=unit, disable=hidden)
