"""Views over a cluster, by Ray Data: ``hb-tta augment FILE --engine ray``.

    requests.parquet ── describing actors ── generating actors ── done/*.parquet
                             │                      │
                             └──── the store ◄──────┘

Each actor holds an ``Augmenter`` and asks it for what it would make on one machine: planning, keys
and making are the same. What they make lies in the store, which all of them reach; Ray carries rows
and the words "done". Ray decides who works where, starts dead actors again, and, from what its
checkpoint says is done, where a killed driver goes on. At the end the command itself writes its
folder from the store, as it would without Ray.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hb_tta import spelling
from hb_tta.context import DescribedContext, MultimodalContext
from hb_tta.device import default_device, default_dtype
from hb_tta.errors import UserError, choose_from
from hb_tta.images import KnownImage, PixelDigests
from hb_tta.settings import ViewSettings
from hb_tta.store import content_key

FOLDER = ".ray"
START = ("RAY_raylet_start_wait_time_s", "300")
"""Ray's own 30 seconds do not start a cluster on a machine that is busy."""
CONTEXTS_PER_BATCH = 16
BATCHES_PER_BLOCK = 1
"""What is done is written down a block at a time: so much is looked at again after a kill."""


@dataclass(frozen=True)
class Stages:
    """What ``--ray`` says.

    Attributes:
        describers, generators: actors of each stage, a number or ``MIN-MAX``; Ray starts more
            where there is room and work.
        describer_gpus, generator_gpus: of each actor; parts of a GPU are shared.
        describer_cpus, generator_cpus: of each actor.
    """

    describers: str = "1"
    generators: str = "1"
    describer_gpus: float | None = None
    generator_gpus: float | None = None
    describer_cpus: float = 1.0
    generator_cpus: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Stages:
        """``generators=1-8,generator_gpus=1``.

        Raises:
            UserError: a name is unknown, or a value is not of its kind.
        """
        known = [one.name for one in fields(cls)]
        found: dict[str, Any] = {}
        for name, value in spelling.pairs(text):
            if name not in known:
                raise UserError(f"{name}= in --ray is not known{choose_from(name, known)}")
            found[name] = (
                str(value) if name in ("describers", "generators") else _number(name, value)
            )
        stages = cls(**found)
        _ = _actors("describers", stages.describers), _actors("generators", stages.generators)
        return stages

    def of(self, stage: str, device: str) -> dict[str, Any]:
        """What Ray is told of a stage, "describer" or "generator"."""
        gpus = getattr(self, f"{stage}_gpus")
        return {
            "concurrency": _actors(f"{stage}s", getattr(self, f"{stage}s")),
            "num_gpus": (1.0 if device.startswith("cuda") else 0.0) if gpus is None else gpus,
            "num_cpus": getattr(self, f"{stage}_cpus"),
            "max_restarts": -1,
            "max_task_retries": -1,
        }


def make_views(
    contexts: Iterable[tuple[int, MultimodalContext | DescribedContext]],
    settings: ViewSettings,
    task: str,
    folder: Path,
    *,
    stages: Stages,
    address: str | None = None,
) -> dict[int, str]:
    """Have the store hold the views of all contexts.

    Args:
        contexts: each with its number; those whose images are paths are read by the actors.
        settings: of the views; their store has to be one that every machine reaches.
        task: of the augmenter.
        folder: for what is asked for and what is done; every machine has to reach it.
        stages: how many actors there are, of what size.
        address: of a cluster; ``None``: one is started on this machine.

    Returns:
        Number of a context that alone is at fault → why.

    Raises:
        UserError: Ray is not installed, or does not answer; whatever an actor told.
    """
    ray = _ray()
    augmenter = settings.augmenter(task=task)  # mistakes are told before a cluster starts
    name = content_key({"spec": augmenter.spec, "n": settings.n, "seed": settings.seed})[:16]
    place = folder.absolute() / FOLDER / name
    rows = _rows(contexts, name)
    if not rows:
        return {}
    asked, done = place / "requests.parquet", place / "done"
    _write(asked, rows)
    with _cluster(ray, address), _checkpoints(ray, place / "checkpoint"):
        _run(ray, asked, done, len(rows), augmenter, _plain(settings), task, stages)
    failed = _failures(done, rows)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)  # only a killed driver needs it
    return failed


# ── What the actors do ───────────────────────────────────────────────────────────────────────────


class Stage:
    """An augmenter in an actor.

    Args:
        settings: plain JSON of ``ViewSettings``, with those that no view depends on.
        task: of the augmenter.
    """

    def __init__(self, settings: Mapping[str, Any], task: str) -> None:
        self._settings = ViewSettings.from_json(settings)
        self._augmenter = self._settings.augmenter(task=task)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Rows as they came, with what a context is at fault for."""
        number = len(batch["id"])
        rows = [{name: batch[name][i] for name in batch} for i in range(number)]
        sound = [place for place, row in enumerate(rows) if not row["failure"]]
        failed: dict[int, str] = {}
        contexts = [_context(rows[place]) for place in sound]
        self._do(contexts, lambda n, error: failed.__setitem__(sound[n], str(error)))
        why = [failed.get(place) or str(row["failure"]) for place, row in enumerate(rows)]
        return {**batch, "failure": why}

    def _do(self, contexts: list[Any], fail: Any) -> None:
        raise NotImplementedError


class Describing(Stage):
    """Has the store hold descriptions."""

    def _do(self, contexts: list[Any], fail: Any) -> None:
        self._augmenter.descriptions(contexts, progress=False, on_failure=fail)


class Generating(Stage):
    """Has the store hold views, and scores where there is a judge."""

    def _do(self, contexts: list[Any], fail: Any) -> None:
        asked = {"n": self._settings.n, "seed": self._settings.seed}
        self._augmenter.make(contexts, **asked, progress=False, on_failure=fail)


def _context(row: Mapping[str, Any]) -> MultimodalContext | DescribedContext:
    image: Any = bytes(row["bytes"]) or KnownImage(Path(str(row["path"])), str(row["pixels"]))
    question, task = str(row["question"]), str(row["task"])
    if row["described"]:
        return DescribedContext(image, str(row["description"]), question, task)
    return MultimodalContext(image, question, task)


# ── Ray ──────────────────────────────────────────────────────────────────────────────────────────


def _run(
    ray: Any,
    asked: Path,
    done: Path,
    count: int,
    augmenter: Any,
    settings: dict[str, Any],
    task: str,
    stages: Stages,
) -> None:
    how = {"batch_size": CONTEXTS_PER_BATCH, "fn_constructor_args": (settings, task)}
    blocks = max(1, count // (CONTEXTS_PER_BATCH * BATCHES_PER_BLOCK))
    rows = ray.data.read_parquet(str(asked), override_num_blocks=blocks)
    if augmenter.describer_spec is not None:
        rows = rows.map_batches(Describing, **how, **stages.of("describer", augmenter.device))
    rows = rows.map_batches(Generating, **how, **stages.of("generator", augmenter.device))
    try:
        rows.select_columns(["id", "failure"]).write_parquet(str(done))
    except Exception as error:
        cause = _told_by_us(error)
        if cause is None:
            raise
        raise UserError(cause) from error


@contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """A cluster: the one that is there, or one that lives as long as this."""
    if ray.is_initialized():
        yield
        return
    # Actors hold their cores all the time: Ray's own tasks, which read and write rows, need some.
    cores = {} if address else {"num_cpus": (os.cpu_count() or 1) + 2}
    os.environ.setdefault(*START)
    try:
        ray.init(address=address, log_to_driver=False, **cores)
    except Exception as error:
        raise UserError(
            f"Ray's cluster at {address or 'this machine'} does not answer "
            f"({' '.join(str(error).split())[:150]}): check --address"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _checkpoints(ray: Any, place: Path) -> Iterator[None]:
    """Rows that were done, also by a driver that was killed, are not asked for again."""
    from ray.data.checkpoint import CheckpointConfig

    context = ray.data.DataContext.get_current()
    before = context.checkpoint_config
    context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=str(place))
    try:
        yield
    finally:
        context.checkpoint_config = before


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError('--engine ray needs Ray: pip install "hb-tta[ray]"') from None
    return ray


def _told_by_us(error: BaseException | None) -> str | None:
    """The sentence of a ``UserError`` that an actor raised."""
    while error is not None:
        if isinstance(error, UserError):
            return str(error)
        cause = getattr(error, "cause", None)
        error = cause if isinstance(cause, BaseException) else error.__cause__
    return None


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────


def _rows(contexts: Iterable[tuple[int, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Key → row; the key is of all that decides what is made of it, so equal ones are one row."""
    rows: dict[str, dict[str, Any]] = {}
    digests = PixelDigests()
    for number, context in contexts:
        image = context.image
        description = getattr(context, "description", None)
        decided = {
            "made": name,
            "pixels": digests.of(image),
            "question": context.guidance,
            "task": context.task,
            "description": description,
        }
        key = content_key(decided)
        row = rows.setdefault(key, {"numbers": [], "id": key, "failure": ""})
        row["numbers"].append(number)
        row |= {"pixels": decided["pixels"], "question": context.guidance, "task": context.task}
        row |= {"described": description is not None, "description": description or ""}
        inside = image if isinstance(image, bytes) else b""
        path = image.path if isinstance(image, KnownImage) else image
        row |= {"bytes": inside, "path": "" if inside else str(Path(path).absolute())}
    return rows


def _write(path: Path, rows: Mapping[str, dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    table = [{k: it for k, it in row.items() if k != "numbers"} for row in rows.values()]
    pq.write_table(pa.Table.from_pylist(table), path, row_group_size=CONTEXTS_PER_BATCH)


def _failures(done: Path, rows: Mapping[str, dict[str, Any]]) -> dict[int, str]:
    import pyarrow.parquet as pq

    found: dict[int, str] = {}
    for path in sorted(done.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if row["failure"] and row["id"] in rows:
                found |= dict.fromkeys(rows[row["id"]]["numbers"], row["failure"])
    return found


def _plain(settings: ViewSettings) -> dict[str, Any]:
    """All that an actor needs to make the same augmenter."""
    from hb_tta.store import open_store

    here = settings.device or default_device()
    said: dict[str, Any] = {"cpu_offload": settings.cpu_offload}
    # One dtype for all: it is in the keys, and the machine that asks may have no GPU.
    said["dtype"] = settings.dtype or default_dtype(here)
    if settings.batch_size is not None:
        said["batch_size"] = settings.batch_size
    if settings.device == "cpu":
        said["device"] = "cpu"
    store = str(open_store(settings.store).root)  # type: ignore[arg-type]
    return {**settings.to_json(), **said, "store": store}


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < 1000:
        raise UserError(f"{name}={value} in --ray is no amount of processors: use 0 or more")
    return number


def _actors(name: str, text: str) -> int | tuple[int, int]:
    low, is_there, high = text.partition("-")
    try:
        least, most = int(low), int(high) if is_there else int(low)
    except ValueError:
        least, most = 0, -1
    if not 1 <= least <= most:
        raise UserError(f"{name}={text} in --ray is no number of actors: use N or MIN-MAX")
    return least if not is_there else (least, most)
