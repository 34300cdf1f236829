"""What a table's rows gain, drawn: each difference from the real image alone with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hb_tta.experiments.methods import REAL
from hb_tta.experiments.reproduction import Drawing
from hb_tta.metrics import PairedTest
from hb_tta.report.drawing import differences

NOTE = "Lines: 95 % intervals. Green: all of it above 0; red: all below."


def gains_of(
    title: str, groups: Mapping[str, Sequence[tuple[str, PairedTest | None]]]
) -> list[Drawing]:
    """The drawing, or none where there is no difference.

    Args:
        title: of what is compared, such as "Table 1".
        groups: heading, or "" → (row, its test against the real image alone; None: it is that).
    """
    found = {
        heading: [
            (label, (100 * test.difference, 100 * test.low, 100 * test.high))
            for label, test in rows
            if test is not None
        ]
        for heading, rows in groups.items()
    }
    found = {heading: rows for heading, rows in found.items() if rows}
    if not found:
        return []
    return [Drawing(f"{title}: gains", differences(found, f"points over {REAL!r}"), NOTE)]
