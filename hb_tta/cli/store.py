"""``hb-tta store``: what is kept on disk, whether it is whole, and making room."""

from __future__ import annotations

import argparse
import math

from hb_tta.cli.options import add_store
from hb_tta.errors import visible
from hb_tta.store import Store, Usage, size_told

DAY = 86_400  # seconds
GB = 10**9  # bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta store {info,verify,prune} [options]"
    parser.description = "The store keeps every view, so that nothing is generated twice."
    parser.epilog = (
        "examples:\n"
        "  hb-tta store info\n"
        "  hb-tta store verify --store /data/views\n"
        "  hb-tta store prune --older-than 30 --max-gb 50"
    )
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", required=True, prog="hb-tta store"
    )
    for function, line in (
        (info, "count what is in the store"),
        (verify, "read every entry; exit status 1 where one is damaged"),
        (prune, "remove what was set aside as damaged or left behind, and what is asked"),
    ):
        name = function.__name__
        action = actions.add_parser(
            name, help=line, description=line, usage=f"hb-tta store {name} [options]"
        )
        action.set_defaults(action=function)
        add_store(action)
    _add_limits(action)


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
    return arguments.action(Store(arguments.store), arguments)


def info(store: Store, arguments: argparse.Namespace) -> int:
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
    return 0


def verify(store: Store, arguments: argparse.Namespace) -> int:
    """Print every damaged entry."""
    damages = store.verify()
    for damage in damages:
        print(f"damaged: {visible(damage.path)}: {visible(damage.reason)}")
    entries = sum(usage.files for usage in store.info().namespaces.values())
    print(f"{entries} entries, {len(damages)} damaged")
    if damages:
        print("`hb-tta store prune --verify` removes them; they are made again when needed")
    return 1 if damages else 0


def prune(store: Store, arguments: argparse.Namespace) -> int:
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
