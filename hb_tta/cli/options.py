"""Arguments that more than one command takes, and their conversions."""

from __future__ import annotations

import argparse

from hb_tta import spelling
from hb_tta.shards import Shard

positive = spelling.argument(spelling.positive)
"""An integer of at least 1, as ``argparse``'s ``type``."""
from_zero = spelling.argument(spelling.from_zero)
"""An integer of at least 0."""
share = spelling.argument(spelling.share)
"""A number of more than 0, at most 1."""


def add_store(parser: argparse._ActionsContainer) -> None:
    """``--store``."""
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="where views are kept: a folder, or an address such as s3://bucket/views (default: "
        "$HB_TTA_STORE or ~/.cache/hb_tta/store)",
    )


def add_shard(parser: argparse._ActionsContainer, rest: str) -> None:
    """``--shard``, read as a ``Shard`` or None.

    Args:
        rest: what a person does when all parts are done.
    """
    parser.add_argument(
        "--shard",
        type=spelling.argument(Shard.parse),
        metavar="I/N",
        help="do the I-th of N equal parts, from 1/N to N/N, each in a process of its own on any "
        f"machine; {rest}",
    )


def add_columns(parser: argparse._ActionsContainer) -> None:
    """``--image-column`` and ``--question-column``, of a person's own rows."""
    for role in ("image", "question"):
        parser.add_argument(
            f"--{role}-column",
            metavar="NAME",
            help=f"of your rows, where the {role} stands (default: one of the usual names)",
        )
