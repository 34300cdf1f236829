"""The pipeline of Ray Data: rows in, actors that describe and generate, failures out.

Ray shares out the work, starts a dead actor again, tries its batch again and tells the progress.
It also keeps a checkpoint of the rows that are done, by the keys of what they need, beside the
store: an interrupted run leaves out what had failed, too, which the store cannot know.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from hb_tta.cluster.actors import Actor, Describer, Generator, Job
from hb_tta.cluster.places import Place
from hb_tta.cluster.pool import Pool
from hb_tta.cluster.rows import KEY, Asked, table_of
from hb_tta.errors import UserError

VIEWS_AT_ONCE = 32  # candidates of a batch: two calls of the generator
TASK_RETRIES = 3  # of a batch whose actor died: an image may be what kills it
KNOCK_SECONDS = 10.0
SPARE = 2  # processors that no actor takes: Ray reads and writes rows there


class Pools(NamedTuple):
    """The actors of a run.

    Attributes:
        generators, describers: ``None``: as many as there are GPUs, or else processors; of no
            describers the generators write the descriptions.
    """

    generators: Pool | None = None
    describers: Pool | None = None

    def on(
        self, resources: Mapping[str, float], *, gpus: bool, describes: bool
    ) -> tuple[Pool, Pool | None]:
        """The pools of generators and describers on a cluster.

        Args:
            resources: "GPU" and "CPU", as Ray counts them.
            gpus: whether actors work on GPUs.
            describes: whether a description is to be written.

        Raises:
            UserError: the cluster is too small for them.
        """
        room = resources.get("GPU", 0.0) if gpus else resources.get("CPU", 0.0) - SPARE
        generators = self.generators or Pool(max(1, int(room)))
        pool = self.describers or Pool(int(room) if room >= 2 else 0)
        describers = pool if describes and pool.most else None
        needed = generators.needs + (describers.needs if describers else 0)
        if needed > room:
            kind = "GPUs" if gpus else f"processors beside the {SPARE} that Ray works on"
            raise UserError(
                f"the actors need {needed:g} and the cluster has {room:g} {kind}: ask for fewer "
                "--generators and --describers, or give each a share (2:0.5)"
            )
        return generators, describers


def make_on_ray(
    job: Job,
    asked: Iterable[Asked],
    candidates: int,
    place: Place,
    pools: Pools,
) -> dict[str, str]:
    """Have the store hold what is asked, by the cluster that this process is connected to.

    Args:
        asked: of one key each; read to its end before the first is made.
        candidates: views of a context, at most.
        place: of the run. It stays when this raises, so that the same run goes on there.

    Returns:
        Key → why, of those that failed.

    Raises:
        UserError: what an actor said, or that a batch kills whoever does it.
    """
    import ray

    size = max(1, VIEWS_AT_ONCE // candidates)
    source, describes = _source(asked, size)
    resources = ray.cluster_resources()
    if resources.get("GPU") and not job.on_gpus and not job.device_said:
        raise UserError(
            "the cluster has GPUs and this machine has none, where numbers have another format by "
            "default: say --device cuda (or cpu)"
        )
    generators, describers = pools.on(resources, gpus=job.on_gpus, describes=describes)
    with _checkpoints(place):
        rows = ray.data.read_datasource(source, num_cpus=0.5, override_num_blocks=len(source))
        if describers is not None:
            rows = _stage(rows, Describer, job, describers, size)
        rows = _stage(rows, Generator, job, generators, size)
        with _sentences():
            rows.write_parquet(
                place.done, filesystem=place.filesystem, ray_remote_args={"num_cpus": 0.5}
            )
    return place.failures()


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be connected to a Ray cluster; ``None``: ``$RAY_ADDRESS``, else one of this machine alone.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UserError(f"--engine ray needs Ray: pip install 'hb-tta[ray]' ({error})") from error
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        _knock(address)
        if address is None:
            processors = len(os.sched_getaffinity(0)) + SPARE
            ray.init("local", num_cpus=processors, include_dashboard=False)
        else:
            ray.init(address)
    except Exception as error:  # Ray has no kind of its own for it
        reason = " ".join(str(error).split())[:200]
        if "InvalidAuthToken" in str(error.__cause__):
            raise UserError(
                f"the Ray cluster at {address} wants its token: have the ~/.ray/auth_token of its "
                "head here, and set RAY_AUTH_MODE=token"
            ) from error
        if address:
            way_out = "check --address"
        else:  # it gives its own processes half a minute, however busy the machine is
            way_out = "try again when less runs beside it, or `ray start --head` and --address auto"
        where = f"at {address}" if address else "on this machine"
        raise UserError(f"there is no Ray cluster {where} ({reason}): {way_out}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Raises OSError where nobody is at a host's port: Ray itself would wait there for ever."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d{1,5})", address or "")
    if found:
        socket.create_connection((found[1], int(found[2])), timeout=KNOCK_SECONDS).close()


def _stage(rows: Any, actor: type[Actor], job: Job, pool: Pool, size: int) -> Any:
    import ray

    kind = "num_gpus" if job.on_gpus else "num_cpus"
    return rows.map_batches(
        actor,
        fn_constructor_args=[job],
        compute=ray.data.ActorPoolStrategy(min_size=pool.least, max_size=pool.most),
        batch_size=size,
        batch_format="pyarrow",
        max_restarts=-1,
        max_task_retries=TASK_RETRIES,
        **{kind: pool.each},
    )


@contextmanager
def _checkpoints(place: Place) -> Iterator[None]:
    """Ray leaves out what the place says is done, and writes down what it does."""
    from ray.data import DataContext
    from ray.data.checkpoint import CheckpointConfig

    context = DataContext.get_current()
    before = context.checkpoint_config
    context.checkpoint_config = CheckpointConfig(
        KEY, place.checkpoint, override_filesystem=place.filesystem
    )
    try:
        yield
    finally:
        context.checkpoint_config = before


_TOLD = rf"^{UserError.__module__}\.{UserError.__qualname__}: (.+)$"


@contextmanager
def _sentences() -> Iterator[None]:
    """An actor's sentence is told as its own; its death as one, too."""
    import ray

    try:
        yield
    except Exception as error:
        # What Ray carries over of an exception is its text, not what it was raised from.
        if told := re.search(_TOLD, str(error), re.MULTILINE):
            raise UserError(told[1]) from None
        if any(isinstance(cause, ray.exceptions.RayActorError) for cause in _causes(error)):
            raise UserError(
                f"actors died {TASK_RETRIES + 1} times over one batch, and Ray gave up: look at "
                "Ray's logs for why (memory?); the same command goes on where this one stopped"
            ) from error
        raise


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen or not isinstance(one, BaseException):
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, getattr(one, "cause", None), one.__context__]


def _source(asked: Iterable[Asked], size: int) -> tuple[Any, bool]:
    """What Ray reads: tables in its object store, which spills to disk; and whether any row of
    them is undescribed."""
    import ray
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    tasks, total, undescribed = [], 0, False
    rest = iter(asked)
    while some := list(islice(rest, size)):
        undescribed = undescribed or any(one.undescribed for one in some)
        table = table_of(some)
        total += table.nbytes
        about = BlockMetadata(len(some), table.nbytes, None, None)
        tasks.append(ReadTask(_Kept(ray.put(table)), about))

    class Source(Datasource):
        """A table a task."""

        def __len__(self) -> int:
            return len(tasks)

        def estimate_inmemory_data_size(self) -> int:
            return total

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
            return tasks

        def get_name(self) -> str:
            return "Asked"

    return Source(), undescribed


class _Kept(NamedTuple):
    """Reads a table of the object store."""

    table: Any

    def __call__(self) -> list[Any]:
        import ray

        return [ray.get(self.table)]
