"""What an experiment found, as tables."""

from __future__ import annotations

from typing import Any

from hb_tta.experiments.reproduction import Finding, Shown
from hb_tta.report.cells import Cell, Table


def tables_of(shown: Shown) -> list[Table]:
    """The tables, with that of the findings behind them."""
    return [*shown.tables, *([findings_table(shown.findings)] if shown.findings else [])]


def findings_table(findings: list[Finding] | tuple[Finding, ...] | Any) -> Table:
    """A row a comparison: the claim, its verdict, the difference."""
    rows: list[list[Cell | str]] = []
    for one in findings:
        if not one.tests:
            rows.append([one.claim, one.verdict, one.reason, ""])
        for place, (what, test) in enumerate(one.tests):
            difference = Cell.difference(test, what, kind=one.kind)
            rows.append([one.claim, one.verdict if place == 0 else "", what, difference])
    return Table(
        ["claim", "verdict", "compared", "difference"],
        rows,
        "The paper's claims",
        [
            "Holds: every difference is above 0, by its interval and p < 0.05; does not hold: one "
            "is below, also once p is multiplied by the number of comparisons."
        ],
    )
