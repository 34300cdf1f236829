"""Arguments that more than one command takes, and their conversions."""

from __future__ import annotations

import argparse

from hb_tta import spelling

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
        help="where views are kept (default: $HB_TTA_STORE or ~/.cache/hb_tta/store)",
    )
