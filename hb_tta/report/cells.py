"""A table of figures, and how a figure is written: percent, decimals, intervals, p-values.

A ``Cell`` is a value with what it is worth: its interval, how many samples it is over, and whether
its distance from another value could be chance. A ``Table`` has rows of cells and of text;
renderers.py shows it in a terminal, in Markdown and in HTML, ``to_json`` for programs.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hb_tta.metrics import Interval, PairedTest

MINUS = "−"
NOTHING = "–"
"""Stands where there can be no value."""

CLEAR = 0.05
"""A difference of a smaller p-value is set off from the others."""


@dataclass(frozen=True)
class Kind:
    """How values of a kind are written: times ``scale``, with so many digits behind the point."""

    scale: float = 1.0
    digits: int = 1
    signed: bool = False
    significant: bool = False  # ``digits`` counts from the first one that is not 0


KINDS = {
    "percent": Kind(scale=100),  # of a share
    "points": Kind(scale=100, signed=True),  # of a difference of shares
    "number": Kind(),
    "fine": Kind(digits=2),
    "step": Kind(digits=2, signed=True),  # of a difference of fine numbers
    "rate": Kind(digits=3, significant=True),
}


@dataclass(frozen=True)
class Comparison:
    """A paired test of a value.

    Attributes:
        p_value: two-sided.
        against: what the value was compared with, in words.
        difference: from it, in the value's unit; None where the value is that difference itself.
    """

    p_value: float
    against: str = ""
    difference: float | None = None

    @classmethod
    def of(cls, test: PairedTest, against: str = "") -> Comparison:
        """What ``hb_tta.metrics.paired_test`` found."""
        return cls(test.p_value, against, test.difference)


@dataclass(frozen=True)
class Cell:
    """A value with what it is worth.

    Attributes:
        estimate: as it was measured: a share is between 0 and 1, whatever is printed.
        low, high: the ends of its interval; None where it has none.
        n: samples.
        test: of its difference from another value.
        kind: of ``KINDS``: how it is written.
        unit: stands behind it.
        note: what else is said of the same samples.
        lower_is_better: of errors and the like.
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    test: Comparison | None = None
    kind: str = "percent"
    unit: str = ""
    note: str = ""
    lower_is_better: bool = False

    @classmethod
    def of(cls, interval: Interval, test: Comparison | None = None, **how: Any) -> Cell:
        """An estimate with its interval; ``how``: the cell's kind, unit, note…"""
        return cls(interval.estimate, interval.low, interval.high, interval.n, test, **how)

    @classmethod
    def difference(cls, test: PairedTest, against: str = "", **how: Any) -> Cell:
        """The difference that a paired test is about, by default one of shares."""
        told = Comparison(test.p_value, against)
        return cls(test.difference, test.low, test.high, test.n, told, **{"kind": "points", **how})

    @property
    def change(self) -> float | None:
        """The difference that the test is about; None where there is no test."""
        if self.test is None:
            return None
        return self.estimate if self.test.difference is None else self.test.difference

    @property
    def way(self) -> str:
        """Whether that difference is "up", which is good, "down" or neither, "same"."""
        gain = (self.change or 0.0) * (-1 if self.lower_is_better else 1)
        return "up" if gain > 0 else "down" if gain < 0 else "same"


@dataclass(frozen=True)
class Column:
    """A column's name.

    Attributes:
        group: what it has in common with its neighbours; stands above their names.
        note: beside the group.
    """

    name: str
    group: str = ""
    note: str = ""

    @property
    def label(self) -> str:
        """The whole name, where there is one line for it."""
        return f"{self.group} {self.name}".strip()


@dataclass(frozen=True)
class Table:
    """Rows of cells and text under named columns.

    Attributes:
        columns: strings are columns without a group.
        rows: each as long as ``columns``; "" is an empty cell.
        title: stands above it; may be empty.
        notes: what a reader must know, below it.
        heads: how many columns, 1 or 2, name a row; of two the first one's value heads the rows
            that share it.
    """

    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Cell | str]]
    title: str = ""
    notes: Sequence[str] = ()
    heads: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(columns_of(self)))
        object.__setattr__(self, "rows", tuple(map(tuple, self.rows)))
        object.__setattr__(self, "notes", tuple(self.notes))
        assert self.heads in (1, 2), self.heads
        assert all(len(row) == len(self.columns) for row in self.rows), "a row of another length"


def columns_of(table: Table) -> list[Column]:
    """The columns, also those that were given as strings."""
    return [c if isinstance(c, Column) else Column(c) for c in table.columns]


def could_have_shown(test: PairedTest, kind: str = "percent") -> Cell | str:
    """The size of difference that the sample of a paired test could have shown, at power 0.8."""
    size = test.could_have_shown
    return NOTHING if size is None else Cell(size, n=test.n, kind=kind)


# ── How it is written ────────────────────────────────────────────────────────────────────────────


def written(value: Cell | str) -> str:
    """A cell on one line: ``87.2 [84.0, 90.2] −3.2 (p=0.035)``."""
    if isinstance(value, str):
        return spelled_out(value)
    said = " ".join(filter(None, (figure(value.estimate, value.kind), interval(value), value.unit)))
    if value.test is not None:
        p = p_value(value.test.p_value)
        change = value.test.difference
        said += f", {p}" if change is None else f" {figure(change, _change_kind(value))} ({p})"
    return f"{said} {spelled_out(value.note)}".rstrip()


def figure(value: float, kind: str = "percent") -> str:
    """A number in its kind's digits."""
    how = KINDS[kind]
    scaled = how.scale * value
    if how.significant:
        return f"{scaled:.{how.digits}g}".replace("-", MINUS)
    size = f"{abs(scaled):.{how.digits}f}"
    if float(size) == 0:
        return size
    return (MINUS if value < 0 else "+" if how.signed else "") + size


def interval(cell: Cell) -> str:
    """``[84.0, 90.2]``; "" where the cell has none."""
    if cell.low is None or cell.high is None:
        return ""
    return f"[{figure(cell.low, cell.kind)}, {figure(cell.high, cell.kind)}]"


def change(cell: Cell) -> str:
    """The difference from what the cell was compared with, with its sign."""
    return "" if cell.change is None else figure(cell.change, _change_kind(cell))


def p_value(value: float) -> str:
    """A p-value as it is written."""
    return "p<0.001" if value < 0.001 else f"p={value:.3f}"


def spelled_out(text: str) -> str:
    """``text`` with its control characters, line breaks apart, written as in Python: ``\\x1b``."""
    return "".join(
        # Cc: control characters; Cs: halves of surrogate pairs, which UTF-8 cannot hold.
        repr(char)[1:-1] if char != "\n" and unicodedata.category(char) in ("Cc", "Cs") else char
        for char in text
    )


def _change_kind(cell: Cell) -> str:
    return {"percent": "points", "fine": "step"}.get(cell.kind, cell.kind)


# ── For programs ─────────────────────────────────────────────────────────────────────────────────


def to_json(table: Table) -> dict[str, Any]:
    """Plain JSON with every digit: ``from_json`` gives the table back."""
    return {
        "title": table.title,
        "columns": [
            _lean(asdict(column)) for column in table.columns if isinstance(column, Column)
        ],
        "rows": [
            [value if isinstance(value, str) else _lean(asdict(value)) for value in row]
            for row in table.rows
        ],
        "notes": list(table.notes),
        "heads": table.heads,
    }


def from_json(found: dict[str, Any]) -> Table:
    """The table that ``to_json`` wrote."""
    return Table(
        columns=[Column(**column) for column in found["columns"]],
        rows=[[v if isinstance(v, str) else _cell(v) for v in row] for row in found["rows"]],
        title=found["title"],
        notes=found["notes"],
        heads=found["heads"],
    )


def _cell(found: dict[str, Any]) -> Cell:
    test = found.get("test")
    return Cell(**{**found, "test": test and Comparison(**test)})


def _lean(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what is not there."""
    kept = {k: _lean(v) if isinstance(v, dict) else v for k, v in fields.items()}
    # By identity: a figure of 0.0 is there, and equals False.
    nothing = (None, "", False)
    return {k: v for k, v in kept.items() if k == "name" or not any(v is no for no in nothing)}
