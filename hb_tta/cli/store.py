"""``hb-tta store``: what is kept on disk, whether it is whole, and making room."""

from __future__ import annotations

import argparse
import math

from hb_tta.cli.options import add_store
from hb_tta.cli.store_sets import add_actions
from hb_tta.errors import UserError, visible
from hb_tta.store import Store, TieredStore, Usage, open_store, size_told

DAY = 86_400  # seconds
GB = 10**9  # bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta store {info,verify,sync,prune,export,import} [options]"
    parser.description = "The store keeps every view, so that nothing is generated twice."
    parser.epilog = (
        "examples:\n"
        "  hb-tta store info\n"
        "  hb-tta store verify --store /data/views\n"
        "  hb-tta store prune --older-than 30 --max-gb 50\n"
        "  hb-tta store sync --store s3://bucket/views\n"
        "  hb-tta store export my-views --method hummingbird --format parquet\n"
        "  hb-tta store import my-views --store views"
    )
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", required=True, prog="hb-tta store"
    )
    for function, line in (
        (info, "count what is in the store"),
        (verify, "read every entry; exit status 1 where one is damaged"),
        (sync, "send what a store at an address (s3://…) could not take when it was made"),
        (prune, "remove what was set aside as damaged or left behind, and what is asked"),
    ):
        name = function.__name__
        action = actions.add_parser(
            name, help=line, description=line, usage=f"hb-tta store {name} [options]"
        )
        action.set_defaults(action=function)
        add_store(action)
    _add_limits(action)
    add_actions(actions)


def _add_limits(prune_parser: argparse.ArgumentParser) -> None:
    prune_parser.add_argument(
        "--older-than",
        type=_amount,
        metavar="DAYS",
        help="remove entries that were last used longer ago",
    )
    prune_parser.add_argument(
        "--max-gb",
        type=_amount,
        metavar="GB",
        help="remove the least recently used entries until the rest is no larger",
    )
    prune_parser.add_argument(
        "--verify",
        action="store_true",
        help="read every entry first, and remove the damaged ones that nobody met yet",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked of the store; no model is loaded."""
    return arguments.action(open_store(arguments.store), arguments)


def info(store: Store | TieredStore, arguments: argparse.Namespace) -> int:
    """Print how many entries of what size there are."""
    counted = store.info()
    print(f"store {visible(counted.root)}")
    rows = {
        **counted.namespaces,
        "damaged, set aside": counted.set_aside,
        "left by writers": counted.leftovers,
    }
    for name, usage in rows.items():
        print(f"  {name:<18}  {_told(usage)}")
    if counted.here is not None:
        kept = sum(counted.here.namespaces.values(), Usage())
        print(f"  on this machine, {visible(counted.here.root)}: {_told(kept)}")
        print(f"  waiting to be sent: {counted.waiting}")
    return 0


def sync(store: Store | TieredStore, arguments: argparse.Namespace) -> int:
    """Send what waits, and say how much."""
    if isinstance(store, Store):
        raise UserError(f"{store.root} is a folder, from which nothing is sent: name an address")
    done = store.sync()
    print(f"{visible(store.root)}: {done.sent} entries sent, {done.waiting} still waiting")
    return 1 if done.waiting else 0


def verify(store: Store | TieredStore, arguments: argparse.Namespace) -> int:
    """Print every damaged entry."""
    damages = store.verify()
    for damage in damages:
        print(f"damaged: {visible(damage.path)}: {visible(damage.reason)}")
    entries = sum(usage.files for usage in store.info().namespaces.values())
    print(f"{entries} entries, {len(damages)} damaged")
    if damages:
        print("`hb-tta store prune --verify` removes them; they are made again when needed")
    return 1 if damages else 0


def prune(store: Store | TieredStore, arguments: argparse.Namespace) -> int:
    """Remove, and print what was removed."""
    older_than = None if arguments.older_than is None else arguments.older_than * DAY
    max_bytes = None if arguments.max_gb is None else int(arguments.max_gb * GB)
    removed = store.prune(older_than, max_bytes, verify=arguments.verify)
    print(f"removed {_told(removed.entries)} of sound entries")
    print(f"removed {_told(removed.damaged)} of damaged entries")
    print(f"removed {_told(removed.leftovers)} of leftovers")
    return 0


def _told(usage: Usage) -> str:
    return f"{usage.files} {'file' if usage.files == 1 else 'files'}, {size_told(usage.bytes)}"


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return number
