"""Where training samples come from: rows of an image, its guidance and its ground truth.

A source is read by row numbers, so that a run is cut into pieces, shared among processes and
resumed anywhere. A row that cannot be used is a ``BadRecord``: counted and listed, never silent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from hb_tta.context import MultimodalContext, check_task
from hb_tta.errors import UserError
from hb_tta.images import load_image
from hb_tta.pocket.tasks import CATEGORIES, QuestionPair, question_pairs
from hb_tta.pocket.world import render

POCKET_SEED = 40_001
"""Scenes of the pocket world that neither its models' training nor its benchmark's splits see."""


@dataclass(frozen=True)
class Record:
    """One sample.

    Attributes:
        context: with its ground truth, which the describer is told (section 4.1).
        description: where the data brings its own; else the describer writes one.
    """

    context: MultimodalContext
    description: str | None = None


@dataclass(frozen=True)
class BadRecord:
    """A row that cannot be used, and why."""

    reason: str


class Source(Protocol):
    """Rows of samples."""

    def fingerprint(self) -> Any:
        """Plain JSON that differs where the samples do."""
        ...

    def size(self) -> int | None:
        """The number of rows; ``None`` where only reading on tells."""
        ...

    def read(self, start: int, stop: int) -> Iterator[Record | BadRecord]:
        """Rows ``start`` to ``stop``, fewer where the source ends."""
        ...


def open_source(
    data: str | None, data_format: str | None = None, *, needs: bool = True
) -> Source | None:
    """A source by its name or path.

    Args:
        data: a name of ``SOURCES``, several joined by "+" (their rows take turns), a JSONL file,
            or a folder in the layout of ``data_format``.
        data_format: the name whose layout a folder has.
        needs: whether missing data is an error; ``None`` is returned else.

    Raises:
        UserError: there is no such data.
    """
    if data is None:
        raise UserError("the recipe names no data: give a file or folder with --data")
    names = data.split("+")
    if all(name in SOURCES for name in names):
        return _opened([SOURCES[name] for name in names], None, needs)
    path = Path(data).expanduser()
    if path.suffix == ".jsonl":
        return JsonlSource(path) if needs or path.exists() else None
    if not path.exists():
        if not needs:
            return None
        raise UserError(
            f"{data!r} is no file and no known data: give a .jsonl file, a folder, or one of "
            f"{', '.join(SOURCES)}"
        )
    formats = (data_format or "").split("+")
    if not all(name in SOURCES for name in formats):
        raise UserError(
            f"{data!r} needs to be told its layout: --set data_format=… with one of "
            f"{', '.join(SOURCES)}, or a .jsonl file"
        )
    return _opened([SOURCES[name] for name in formats], path, needs)


def _opened(makers: list[Callable[[Path | None], Source]], path: Path | None, needs: bool) -> Any:
    try:
        sources = [make(path) for make in makers]
    except UserError:
        if needs:
            raise
        return None
    return sources[0] if len(sources) == 1 else Interleaved(sources)


class JsonlSource:
    """A file with one sample a line.

    ``{"image": path, "question": text, "answer": text}``; a relative path is taken from the file's
    folder. Optional: "task" (``hb_tta.context.TASKS``), and "description", which is then used as it
    is in the place of a describer's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, encoding="utf-8") as file:
                self._lines = [line for line in file if line.strip()]
        except UnicodeDecodeError as error:
            raise UserError(f"{str(path)!r} is no UTF-8 text: {error.reason}") from error
        if not self._lines:
            raise UserError(f"{str(path)!r} is empty: write one sample a line")

    def fingerprint(self) -> Any:
        """Of the file's text; its images are told by their own digests later."""
        return {"jsonl": hashlib.sha256("".join(self._lines).encode()).hexdigest()}

    def size(self) -> int:
        """The number of lines."""
        return len(self._lines)

    def read(self, start: int, stop: int) -> Iterator[Record | BadRecord]:
        """See ``Source.read``."""
        for number, line in enumerate(self._lines[start:stop], start + 1):
            try:
                yield self._record(json.loads(line))
            except (ValueError, KeyError, TypeError, UserError, OSError) as error:
                yield BadRecord(f"line {number}: {_reason(error)}")

    def _record(self, row: dict[str, Any]) -> Record:
        task = row.get("task", "vqa")
        check_task(task)
        image = load_image(self.path.parent / row["image"])
        texts = {name: row.get(name) for name in ("question", "answer", "description")}
        for name, text in texts.items():
            if not isinstance(text, str | None):
                raise UserError(f"{name} is {text!r}: write a text")
        context = MultimodalContext(image, texts["question"] or "", task, texts["answer"])
        return Record(context, texts["description"])


class PocketSource:
    """Questions about fresh scenes of the pocket world, the five categories in turn.

    Every image has one question, whose answer is yes and no by turns. The description is made
    from the scene's record: it is what a describer that is told the answer should write.
    """

    def __init__(self, path: Path | None = None, seed: int = POCKET_SEED) -> None:
        if path is not None:
            raise UserError(
                f"{str(path)!r} would not be read: the layout 'pocket' draws its own scenes; write "
                "the samples as a .jsonl file, or name the folder's layout with --set data_format=…"
            )
        self.seed = seed
        self._streams = {name: question_pairs(name, seed) for name in CATEGORIES}
        self._pairs: dict[str, list[QuestionPair]] = {name: [] for name in CATEGORIES}

    def fingerprint(self) -> Any:
        """The seed, and a picture of the world's rules: its first questions."""
        first = [(pair.yes, pair.description) for pair in (self._pair(row) for row in range(10))]
        return {"pocket": self.seed, "first": first}

    def size(self) -> int:
        """As many as anyone may want: more could be drawn."""
        return 100_000

    def read(self, start: int, stop: int) -> Iterator[Record | BadRecord]:
        """See ``Source.read``."""
        for row in range(start, stop):
            pair = self._pair(row)
            is_yes = row // len(CATEGORIES) % 2 == 0
            context = MultimodalContext(
                render(pair.told),
                pair.yes if is_yes else pair.no,
                "vqa",
                "yes" if is_yes else "no",
            )
            yield Record(context, pair.description)

    def _pair(self, row: int) -> QuestionPair:
        category, number = CATEGORIES[row % len(CATEGORIES)], row // len(CATEGORIES)
        known = self._pairs[category]
        known.extend(islice(self._streams[category], max(0, number + 1 - len(known))))
        return known[number]


class HubSource:
    """A data set of the hub, or a copy of one in a folder, by Hugging Face's ``datasets``.

    Args:
        name: of the data set.
        path: of the copy; ``None``: the hub.
        config, split: of the data set.
        record: what a row says: its image, guidance, ground truth, task.
    """

    def __init__(
        self,
        name: str,
        path: Path | None,
        config: str | None,
        split: str,
        record: Callable[[dict[str, Any]], tuple[Any, str, str | None, str]],
    ) -> None:
        self.name, self.path, self.config, self.split = name, path, config, split
        self._record = record

    @cached_property
    def rows(self) -> Any:
        """The stream of rows."""
        return load_rows(self.name, self.path, self.config, self.split)

    def fingerprint(self) -> Any:
        """The name, and of a copy its place and files' sizes."""
        return {"hub": self.name, "split": self.split, "copy": _files(self.path)}

    def size(self) -> int | None:
        """As the data set's own card tells it, if it does."""
        info = getattr(self.rows, "info", None)
        split = (getattr(info, "splits", None) or {}).get(self.split)
        return getattr(split, "num_examples", None) or None

    def read(self, start: int, stop: int) -> Iterator[Record | BadRecord]:
        """See ``Source.read``."""
        for number, row in enumerate(islice(self.rows.skip(start), stop - start), start):
            try:
                image, guidance, truth, task = self._record(row)
                yield Record(MultimodalContext(_image(image), guidance, task, truth))
            except (ValueError, KeyError, TypeError, IndexError, UserError, OSError) as error:
                yield BadRecord(f"row {number}: {_reason(error)}")


def load_rows(name: str, path: Path | None, config: str | None, split: str) -> Any:
    """A stream of a data set's rows, images not decoded.

    Raises:
        UserError: ``datasets`` is not installed, or cannot load it.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"{name} is read by the package datasets: pip install 'hb-tta[train]'"
        ) from error
    try:
        rows = datasets.load_dataset(str(path or name), config, split=split, streaming=True)
    except Exception as error:  # the library raises of every kind
        raise UserError(
            f"the data {str(path or name)!r} ({split}) cannot be read: {_reason(error)}"
        ) from error
    features = rows.features or {}
    for column, kind in features.items():
        if isinstance(kind, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def vqav2(path: Path | None) -> Source:
    """VQAv2's split with answers on the hub."""
    return HubSource(
        "lmms-lab/VQAv2", path, None, "validation",
        lambda row: (row["image"], row["question"], row["multiple_choice_answer"], "vqa"),
    )  # fmt: skip


def gqa(path: Path | None) -> Source:
    """GQA's balanced training questions; the hub keeps images and questions apart."""
    name = "lmms-lab/GQA"
    images: dict[str, Any] = {}

    def record(row: dict[str, Any]) -> tuple[Any, str, str | None, str]:
        if not images:
            pictures = load_rows(name, path, "train_balanced_images", "train")
            images.update((picture["id"], picture["image"]) for picture in pictures)
        if row["imageId"] not in images:
            raise UserError(f"there is no image {row['imageId']!r}")
        return images[row["imageId"]], row["question"], row["fullAnswer"] or row["answer"], "vqa"

    return HubSource(name, path, "train_balanced_instructions", "train", record)


def imagenet(path: Path | None) -> Source:
    """ImageNet-1k's training split; the ground truth is the class's name."""
    if path is not None:
        return FolderSource(path)
    source: HubSource

    def record(row: dict[str, Any]) -> tuple[Any, str, str | None, str]:
        names = source.rows.features["label"]
        return row["image"], "", names.int2str(row["label"]).split(",")[0], "object"

    source = HubSource("ILSVRC/imagenet-1k", None, None, "train", record)
    return source


class FolderSource:
    """Images in a folder a class, as ImageNet's training split comes.

    A file ``LOC_synset_mapping.txt`` or ``classes.txt`` (folder, blank, name, a line a class) in
    the folder or above it names the classes; else the folders' names do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kinds = {".jpg", ".jpeg", ".png", ".webp"}
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in kinds)
        # Row after row another class, so that a beginning of the data has all of them.
        order = {f: hashlib.sha256(str(f.relative_to(path)).encode()).digest() for f in files}
        self._files = sorted(files, key=order.__getitem__)
        if not files:
            raise UserError(f"{str(path)!r} holds no images: name the folder of the class folders")
        self._names = self._class_names()

    def _class_names(self) -> dict[str, str]:
        for folder in (self.path, *self.path.parents[:3]):
            for name in ("LOC_synset_mapping.txt", "classes.txt"):
                if (folder / name).is_file():
                    lines = (folder / name).read_text(encoding="utf-8").splitlines()
                    pairs = (line.partition(" ") for line in lines if line.strip())
                    return {key: named.split(",")[0].strip() for key, _, named in pairs}
        return {}

    def fingerprint(self) -> Any:
        """Of the files' names and sizes."""
        return {"folder": _files(self.path)}

    def size(self) -> int:
        """The number of images."""
        return len(self._files)

    def read(self, start: int, stop: int) -> Iterator[Record | BadRecord]:
        """See ``Source.read``."""
        for file in self._files[start:stop]:
            kind = self._names.get(file.parent.name, file.parent.name.replace("_", " "))
            try:
                yield Record(MultimodalContext(load_image(file), "", "object", kind))
            except (UserError, OSError) as error:
                yield BadRecord(_reason(error))


class BongardSource:
    """Bongard-HOI's training annotations: every positive image of every problem, once.

    The folder holds, at any depth, ``bongard_hoi_train.json`` (a list of [negatives, positives,
    annotation], an item of the first two having im_path, sub_class, act_class and obj_class), and
    the images that im_path names.
    """

    def __init__(self, path: Path | None) -> None:
        if path is None:
            raise UserError(
                "Bongard-HOI is on no hub: fetch it as its authors say, and give its folder with "
                "--data FOLDER"
            )
        self.path = path
        files = sorted(path.rglob("bongard_hoi_train.json"))
        if not files:
            raise UserError(f"{str(path)!r} has no bongard_hoi_train.json: fetch the annotations")
        problems = json.loads(files[0].read_text(encoding="utf-8"))
        rows = [
            tuple(
                str(item.get(key) or "").replace("_", " ") if key != "im_path" else item[key]
                for key in ("im_path", "sub_class", "act_class", "obj_class")
            )
            for problem in problems
            for item in problem[1]
        ]
        self._rows = list(dict.fromkeys(rows))

    def fingerprint(self) -> Any:
        """Of the rows."""
        return {"bongard-hoi": hashlib.sha256(json.dumps(self._rows).encode()).hexdigest()}

    def size(self) -> int:
        """The number of images, once a concept."""
        return len(self._rows)

    def read(self, start: int, stop: int) -> Iterator[Record | BadRecord]:
        """See ``Source.read``."""
        for name, agent, action, thing in self._rows[start:stop]:
            try:
                image = load_image(self._find(name))
                guidance = f"{agent or 'person'} | {thing}"
                yield Record(MultimodalContext(image, guidance, "hoi", action))
            except (UserError, OSError) as error:
                yield BadRecord(_reason(error))

    def _find(self, name: str) -> Path:
        parts = [part for part in Path(name).parts if part not in (".", "/")]
        places = [
            Path(*prefix, *parts) for prefix in ((), ("hake",), ("hake", "images"), ("images",))
        ]
        for place in places:
            if (self.path / place).is_file():
                return self.path / place
        return self.path / places[0]


class Interleaved:
    """The rows of several sources in turn, as long as all last."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources = sources

    def fingerprint(self) -> Any:
        """Of all sources."""
        return {"interleaved": [source.fingerprint() for source in self.sources]}

    def size(self) -> int | None:
        """Of the shortest, times their number."""
        sizes = [source.size() for source in self.sources]
        known = [size for size in sizes if size is not None]
        return min(known) * len(self.sources) if len(known) == len(sizes) else None

    def read(self, start: int, stop: int) -> Iterator[Record | BadRecord]:
        """See ``Source.read``."""
        number = len(self.sources)
        streams = [
            source.read((start - i + number - 1) // number, (stop - i + number - 1) // number)
            for i, source in enumerate(self.sources)
        ]
        for row in range(start, stop):
            found = next(streams[row % number], None)
            if found is None:
                return
            yield found


SOURCES: dict[str, Callable[[Path | None], Source]] = {
    "pocket": PocketSource,
    "vqav2": vqav2,
    "gqa": gqa,
    "bongard-hoi": BongardSource,
    "imagenet": imagenet,
}


def _image(value: Any) -> Any:
    """An image of a row: undecoded bytes, a path, or a Pillow image."""
    if isinstance(value, dict):
        value = value["bytes"] or value["path"]
    return load_image(value)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _files(path: Path | None) -> str | None:
    """A digest of the names and sizes of a folder's files."""
    if path is None:
        return None
    listing = [
        (str(f.relative_to(path)), f.stat().st_size) for f in sorted(path.rglob("*")) if f.is_file()
    ]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
