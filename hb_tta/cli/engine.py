"""``hb-tta augment --engine ray``: who makes what the store lacks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta import spelling
from hb_tta.augment import Augmenter
from hb_tta.cluster.pool import Pool
from hb_tta.cluster.rows import Asked
from hb_tta.errors import UserError
from hb_tta.settings import ViewSettings, by_arguments
from hb_tta.store import Store, TieredStore, content_key
from hb_tta.views.fills import VANISHED

if TYPE_CHECKING:
    from hb_tta.cli.work import Work

LOCAL, RAY = "local", "ray"
TURNS = 2  # an interrupted run's checkpoint may name what was pruned since


def add_engine(parser: argparse._ActionsContainer) -> None:
    """``--engine``, and what a cluster is asked for."""
    parser.add_argument(
        "--engine",
        choices=(LOCAL, RAY),
        default=LOCAL,
        help="who makes the views: this process, or the actors of a Ray cluster, whose nodes all "
        "see the store and the images (pip install 'hb-tta[ray]') (default: local)",
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="of the Ray cluster (default: $RAY_ADDRESS, else one of this machine alone)",
    )
    for name, more in (("generators", ""), ("describers", "; 0: the generators write them, too")):
        what = "views" if name == "generators" else "descriptions"
        parser.add_argument(
            f"--{name}",
            type=spelling.argument(Pool.parse),
            metavar="N[:GPUS]",
            help=f"Ray actors for the {what}, and the GPUs of each, as in 4:0.5{more} (default: as "
            "many as fit)",
        )


def check(arguments: argparse.Namespace) -> None:
    """Raises UserError where options of a cluster stand without one."""
    if arguments.engine == RAY and arguments.dry_run:
        raise UserError("--dry-run tries the speed of this machine: leave out --engine ray")
    if arguments.engine == RAY:
        if arguments.generators is not None and not arguments.generators.most:
            raise UserError("--generators 0 makes no views: use 1 or more")
        return
    for name in ("address", "generators", "describers"):
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name} is for --engine ray: say that, or leave it out")


def make_on_cluster(
    read: Callable[[], Work[Any]], settings: ViewSettings, arguments: argparse.Namespace
) -> dict[int, str]:
    """Have a Ray cluster make what the store lacks; the numbers of lines that failed, and why.

    Nothing is started where nothing lacks.

    Args:
        read: reads the lines from the first.

    Raises:
        UserError: the settings keep no views, the cluster does not work, or entries vanish.
    """
    from hb_tta.cluster import Job, Place, Pools, connected, make_on_ray

    augmenter = settings.augmenter(task=arguments.task)
    if not isinstance(augmenter.store, Store | TieredStore):
        raise UserError("--engine ray hands views over in a store: name one with --store")
    job = Job.of(
        arguments.method, by_arguments(arguments, elsewhere=True), arguments.task, augmenter
    )
    place = Place(augmenter.store, _run(augmenter, settings, arguments))
    pools = Pools(arguments.generators, arguments.describers)
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        for turn in range(TURNS + 1):
            lacking = Lacking(read, augmenter, settings, failures)
            asked = iter(lacking)
            first = next(asked, None)
            if first is None:
                place.remove()
                return lacking.failed
            if turn == 0:
                stack.enter_context(connected(arguments.address))
            if turn < TURNS:
                rest = chain([first], asked)
                failures |= make_on_ray(job, rest, _candidates(settings), place, pools)
    raise UserError(VANISHED)


class Lacking:
    """What a cluster is to make: each key once, and nothing that failed.

    Attributes:
        failed: the numbers of lines that did, and why.

    Args:
        read: reads the lines from the first.
        failures: by key.
    """

    def __init__(
        self,
        read: Callable[[], Work[Any]],
        augmenter: Augmenter,
        settings: ViewSettings,
        failures: Mapping[str, str],
    ) -> None:
        self.failed: dict[int, str] = {}
        self._read, self._augmenter = read, augmenter
        self._settings, self._failures = settings, failures

    def __iter__(self) -> Iterator[Asked]:
        work, seen = self._read(), set[bytes]()
        looks = self._augmenter.lacking(iter(work), self._settings.n, self._settings.seed)
        for look, key in looks:
            line = work.next_done()
            if key is None:
                continue
            if key in self._failures:
                self.failed[line.index] = self._failures[key]
            elif (short := bytes.fromhex(key[:32])) not in seen:
                seen.add(short)
                yield Asked(key, look.context, look.plan is None)
        work.digests.save()


def _candidates(settings: ViewSettings) -> int:
    return settings.candidates or settings.n


def _run(augmenter: Augmenter, settings: ViewSettings, arguments: argparse.Namespace) -> str:
    """The name of a run: the same command has it again."""
    return content_key(
        {
            "spec": augmenter.spec,
            "views": [settings.n, settings.seed],
            "out": str(Path(arguments.out).absolute()),
            "shard": str(arguments.shard),
        }
    )[:16]
