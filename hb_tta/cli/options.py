"""Arguments that more than one command takes, and their conversions."""

from __future__ import annotations

import argparse
import re

from hb_tta.device import default_device

DEFAULT_VIEWS = 4


def positive(text: str) -> int:
    """An integer of at least 1, as ``argparse``'s ``type``."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def device(text: str) -> str:
    """A device that models can be moved to, as ``argparse``'s ``type``."""
    if not re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no device: use cpu, cuda, cuda:1, mps or xpu"
        )
    if text.startswith("cuda") and default_device() == "cpu":
        raise argparse.ArgumentTypeError(f"{text!r} is not to be had: torch finds no NVIDIA GPU")
    return text


def add_views(parser: argparse._ActionsContainer) -> None:
    """``-n`` and ``--seed``."""
    parser.add_argument(
        "-n",
        type=positive,
        default=DEFAULT_VIEWS,
        metavar="N",
        help=f"views of an image (default: {DEFAULT_VIEWS})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first view; view i uses SEED + i (default: 0)"
    )


def add_running(parser: argparse._ActionsContainer) -> None:
    """``--device`` and ``--store``."""
    parser.add_argument(
        "--device",
        type=device,
        help="where the models run, such as cpu or cuda:1 (default: a GPU if any)",
    )
    add_store(parser)


def add_store(parser: argparse._ActionsContainer) -> None:
    """``--store``."""
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="where views are kept (default: $HB_TTA_STORE or ~/.cache/hb_tta/store)",
    )
