"""What a training would take on devices that are not at hand: their speed and their memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hb_tta.progress import spoken
from hb_tta.report import renderers
from hb_tta.report.cells import Cell, Table


class Device(NamedTuple):
    """A device.

    Attributes:
        name: as people call it.
        tflops: of dense bfloat16 matrix products that it reaches, of what its maker states.
        memory_gib: that a process may use.
        basis: where the speed comes from.
    """

    name: str
    tflops: float
    memory_gib: float
    basis: str


# NVIDIA's data sheets: 312, 989 and 989 TFLOP/s of dense bfloat16. Of the H200's we measured 790 at
# large products, 80 %; the others are taken to reach as much of theirs.
REACHED = 0.8
DEVICES = (
    Device("A100 80 GB", 312 * REACHED, 79, "80 % of the data sheet's 312 TFLOP/s"),
    Device("H100 SXM", 989 * REACHED, 79, "80 % of the data sheet's 989 TFLOP/s"),
    Device("H200", 790, 140, "measured"),
)


def on_devices(
    tflop_per_sample: float, images: int, memory_gib: float, efficiency: float
) -> list[dict[str, Any]]:
    """Each device's figures, as plain JSON.

    Args:
        images: of the whole training.
        memory_gib: that it takes in bfloat16.
        efficiency: the share of its speed at matrix products that a whole training reaches.
    """
    rows = []
    for device in DEVICES:
        seconds = tflop_per_sample / (device.tflops * efficiency)
        rows.append(
            {
                "device": device.name,
                "seconds_per_sample": float(f"{seconds:.4g}"),
                "hours": float(f"{images * seconds / 3600:.4g}"),
                "fits": memory_gib <= device.memory_gib,
                "memory_gib": device.memory_gib,
                "basis": device.basis,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]], here: dict[str, Any]) -> str:
    """The figures for a person, this machine's last.

    Args:
        rows: from ``on_devices``.
        here: the same of this machine.
    """
    shown: list[list[Cell | str]] = [
        [
            row["device"],
            _at_least(row["hours"] * 3600, 1, spoken),
            _at_least(row["seconds_per_sample"], 0.001, lambda seconds: f"{seconds:.3g} s"),
            "yes" if row["fits"] else f"no: it has {row['memory_gib']:.0f} GiB",
        ]
        for row in [*rows, here]
    ]
    return renderers.text(Table(["one of", "time", "a sample", "fits"], shown))


def _at_least(seconds: float, least: float, told: Callable[[float], str]) -> str:
    """A time that is reckoned from operations says nothing below ``least``: it is never 0."""
    return told(seconds) if seconds >= least else f"under {least:g} s"
