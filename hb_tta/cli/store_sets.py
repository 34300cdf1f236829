"""``hb-tta store export|import``: views handed on, and taken over."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from hb_tta.cli.options import add_store
from hb_tta.errors import visible
from hb_tta.reading import user_path
from hb_tta.sharing import export, import_set
from hb_tta.sharing.exporting import CONTAINERS
from hb_tta.store import Store, TieredStore

SHOWN = 20  # damaged entries told on the terminal


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``export`` and ``import``."""
    line = "write views, descriptions and scores as a data set for others"
    out = actions.add_parser(
        "export", help=line, description=line, usage="hb-tta store export PATH [options]"
    )
    out.set_defaults(action=export_set)
    out.add_argument("path", metavar="PATH", help="a new folder for the set")
    out.add_argument(
        "--format",
        choices=tuple(CONTAINERS),
        default="webdataset",
        help="tar files or Parquet; `datasets` opens both (default: webdataset)",
    )
    out.add_argument("--method", metavar="NAME", help="whose views (default: all)")
    add_store(out)
    line = "take over such a set; every entry is checked, exit status 1 where one is damaged"
    into = actions.add_parser(
        "import", help=line, description=line, usage="hb-tta store import PATH [options]"
    )
    into.set_defaults(action=take)
    into.add_argument("path", metavar="PATH", help="a folder that `hb-tta store export` wrote")
    add_store(into)


def export_set(store: Store | TieredStore, arguments: argparse.Namespace) -> int:
    """Write a set, and say what is in it."""
    folder = user_path(arguments.path)
    done = export(store, folder, format=arguments.format, method=arguments.method)
    print(f"{visible(folder)}: {_counted(done.entries)}; README.md is its card, complete it")
    if done.damaged:
        print(f"hb-tta: {done.damaged} damaged entries were left out", file=sys.stderr)
    return 1 if done.damaged else 0


def take(store: Store | TieredStore, arguments: argparse.Namespace) -> int:
    """Import a set, and say what came of it."""
    done = import_set(Path(user_path(arguments.path)), store)
    there = f"; there already: {_counted(done.there)}" if done.there else ""
    print(f"{visible(store.root)}: new {_counted(done.taken)}{there}")
    for damage in done.damaged[:SHOWN]:
        print(f"  {visible(damage.where)}: {visible(damage.why)}", file=sys.stderr)
    for namespace, count in done.missing.items():
        print(f"  {count} of its {namespace} are missing", file=sys.stderr)
    if not done.whole:
        print(
            f"hb-tta: the set is not whole ({len(done.damaged)} damaged): what is sound was taken; "
            "get a whole copy and import it again",
            file=sys.stderr,
        )
    return 0 if done.whole else 1


def _counted(numbers: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(numbers.items())) or "nothing"
