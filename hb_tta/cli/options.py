"""Arguments that more than one command takes, and their conversions."""

from __future__ import annotations

import argparse

from hb_tta import spelling

positive = spelling.argument(spelling.positive)
"""An integer of at least 1, as ``argparse``'s ``type``."""


def add_store(parser: argparse._ActionsContainer) -> None:
    """``--store``."""
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="where views are kept (default: $HB_TTA_STORE or ~/.cache/hb_tta/store)",
    )
