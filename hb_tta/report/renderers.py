"""A ``Table`` in a terminal, in Markdown and in HTML."""

from __future__ import annotations

import shutil
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from hb_tta.report import cells
from hb_tta.report.cells import Cell, Column, Table, columns_of, spelled_out, written
from hb_tta.report.document import visible

WIDTH = 100
"""Characters a line where the terminal's width is not known, as in a pipe."""

PAGE, PHONE = 1216, 334
"""Pixels that a table may take of a page in a window of 1,300, and of one on a phone."""

SENTENCE = 40  # letters; a longer text is no name

_GAP = "  "
_LETTER, _SMALL_LETTER, _PADDING, _HEAD = 7.8, 5.9, 14, 103  # pixels, by page.css

Row = Sequence[str]


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────


def markdown(table: Table) -> str:
    """The title as a line, the table, and each note as a paragraph."""
    lines = [
        _markdown_row(column.label for column in columns_of(table)),
        _markdown_row("---" for _ in table.columns),
        *(_markdown_row(map(written, row)) for row in table.rows),
    ]
    return "\n\n".join(filter(None, (table.title, "\n".join(lines), *table.notes)))


def _markdown_row(values: Iterable[str]) -> str:
    shown = (value.replace("|", "\\|").replace("\n", " ") for value in values)
    return "| " + " | ".join(shown) + " |"


# ── A terminal ───────────────────────────────────────────────────────────────────────────────────


def text(table: Table, width: int | None = None) -> str:
    """For a terminal: in columns where they fit, else each value behind its column's name.

    Args:
        width: characters that no line exceeds; None: the terminal's.
    """
    width = width or shutil.get_terminal_size((WIDTH, 24)).columns
    first = table.heads - 1
    names = [_on_one_line(column.label) for column in columns_of(table)][first:]
    rows = [[_on_one_line(written(value)) for value in row] for row in table.rows]
    header, blocks = _laid_out(names, [row[first:] for row in rows], width)
    lines = textwrap.wrap(_on_one_line(table.title), width)
    for heading, part in _sections(rows, blocks, table.heads):
        lines += ["", *textwrap.wrap(heading, width)] if heading else []
        lines += [*header, *part]
    lines += [""] if table.notes else []
    for note in table.notes:
        lines += textwrap.wrap(_on_one_line(note), width)
    return "\n".join(lines).strip("\n")


def _sections(
    rows: Sequence[Row], blocks: list[list[str]], heads: int
) -> Iterator[tuple[str, Row]]:
    """The rows' lines under each value of the first of two heads; under none where there is one."""
    of_row = list(zip(rows, blocks, strict=True))
    for heading, its in groupby(of_row, key=lambda both: both[0][0] if heads == 2 else ""):
        yield heading, [line for _, block in its for line in block]


def _laid_out(names: Row, rows: list[Row], width: int) -> tuple[list[str], list[list[str]]]:
    """The lines above the rows, and each row's own."""
    widths = [max(map(_length, column)) for column in zip(names, *rows, strict=True)]
    if sum(widths) + len(_GAP) * len(widths) <= width:
        header = [_spaced(names, widths)] if any(names) else []
        return header, [[_spaced(row, widths)] for row in rows]
    named = [
        [
            row[0],
            *(f"{n} {v}".strip() if v else "" for n, v in zip(names[1:], row[1:], strict=True)),
        ]
        for row in rows
    ]
    widths = [max(map(_length, column)) for column in zip(*named, strict=True)]
    return [], [_filled(values, widths, width) for values in named]


def _spaced(values: Row, widths: list[int]) -> str:
    padded = (_GAP + _padded(*both) for both in zip(values, widths, strict=True))
    return "".join(padded).rstrip()


def _filled(values: Row, widths: list[int], width: int) -> list[str]:
    """As many values on a line as fit; the others on lines of their own, below the first value."""
    indent = " " * (widths[0] + 2 * len(_GAP))
    if len(indent) + max(widths[1:], default=0) > width:
        indent = 2 * _GAP
    lines = [_GAP + _padded(values[0], widths[0])]
    for value, its_width in zip(values[1:], widths[1:], strict=True):
        if _length(f"{lines[-1]}{_GAP}{value}".rstrip()) <= width:
            lines[-1] += _GAP + _padded(value, its_width)
        elif value:
            lines.append(indent + _padded(value, its_width))
    return [short for line in lines for short in _broken(line.rstrip(), width, indent)]


def _broken(line: str, width: int, indent: str) -> list[str]:
    if _length(line) <= width:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent=indent)


def _on_one_line(value: str) -> str:
    return spelled_out(value).replace("\n", " ")


def _padded(value: str, width: int) -> str:
    return value + " " * (width - _length(value))


def _length(value: str) -> int:
    """Columns of a terminal that it takes: Chinese and Japanese signs take two, marks none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in value)
    return len(value) + wide - sum(unicodedata.combining(char) > 0 for char in value)


# ── HTML ─────────────────────────────────────────────────────────────────────────────────────────


def html(table: Table) -> str:
    """A part of a page (document.py has its style): the title, the table, the notes."""
    title = f"<h2>{visible(table.title)}</h2>\n" if table.title else ""
    words = _of_words(table)
    rows = "\n".join(_html_row(row, table, words) for row in table.rows)
    notes = "".join(f"<p>{visible(note)}</p>" for note in table.notes)
    return (
        f'{title}<div class="{_fit(table)}"><table><thead>{_html_head(table, words)}</thead>\n'
        f"<tbody>{rows}</tbody></table></div>\n"
        + (f'<div class="notes">{notes}</div>\n' if notes else "")
    )


def _fit(table: Table) -> str:
    """The classes of a table's frame: how narrow a window has its rows as blocks."""
    needed = _pixels(table)
    return "wide" + " roomy" * (needed > PHONE) + " stacked" * (needed > PAGE)


def _pixels(table: Table) -> float:
    """About how wide the table is with its columns side by side."""
    columns = zip(columns_of(table), *table.rows, strict=True)
    grouped = any(column.group for column in columns_of(table))
    widths = []
    for place, (column, *values) in enumerate(columns):
        its = [_breadth(column), *map(_breadth, values)]
        if place < table.heads:
            its.append(_HEAD)
        elif grouped and not column.group:  # a name beside groups is not broken
            its.append(_LETTER * _length(column.name))
        widths.append(_PADDING + max(its))
    return sum(widths)


def _breadth(value: Cell | Column | str) -> float:
    """About how wide a cell is, in pixels: of its longest line, or of a name's longest word."""
    if isinstance(value, Column | str):
        text = value.name if isinstance(value, Column) else value
        return _LETTER * max(map(_length, text.split()), default=0)
    lines = (cells.figure(value.estimate, value.kind), cells.interval(value), value.note)
    return _SMALL_LETTER * max(map(_length, lines))


def _html_head(table: Table, words: Sequence[bool]) -> str:
    columns = columns_of(table)
    kinds = [" class=words" if one else "" for one in words]
    if not any(column.group for column in columns):
        names = zip(columns, kinds, strict=True)
        return "<tr>" + "".join(f"<th{k}>{visible(c.name)}</th>" for c, k in names) + "</tr>"
    above, below, place = "", "", 0
    for (group, note), its in groupby(columns, key=lambda column: (column.group, column.note)):
        their = [visible(column.name) for column in its]
        its_kinds = kinds[place : place + len(their)]
        place += len(their)
        if not group:
            both = zip(their, its_kinds, strict=True)
            above += "".join(f'<th{kind} rowspan="2">{name}</th>' for name, kind in both)
            continue
        small = f"<small>{visible(note)}</small>" if note else ""
        above += f'<th colspan="{len(their)}" scope="colgroup">{visible(group)}{small}</th>'
        below += f"<th class=first>{their[0]}</th>"
        below += "".join(f"<th>{name}</th>" for name in their[1:])
    return f"<tr>{above}</tr><tr>{below}</tr>"


def _of_words(table: Table) -> list[bool]:
    """Of each column whether it has no number: it begins at the left, as its heading does."""
    columns = columns_of(table)
    values = list(zip(*table.rows, strict=True)) or [()] * len(columns)
    return [
        place < table.heads
        or (not column.group and all(isinstance(value, str) for value in values[place]))
        for place, column in enumerate(columns)
    ]


def _html_row(row: Sequence[Cell | str], table: Table, words: Sequence[bool]) -> str:
    columns = columns_of(table)
    shown = []
    for place, (value, column) in enumerate(zip(row, columns, strict=True)):
        if place < table.heads:
            name, *rest = visible(written(value)).split("\n")
            small = f"<small>{'<br>'.join(rest)}</small>" if rest else ""
            shown.append(f"<th scope=row>{name}{small}</th>")
            continue
        begins = column.group and column.group != columns[place - 1].group
        kind = " class=first" if begins else _kind(value) if words[place] else ""
        shown.append(
            f"<td{kind}{_hint(value)} "
            f'data-column="{visible(column.label)}">{_html_cell(value)}</td>'
        )
    return f"<tr>{''.join(shown)}</tr>"


def _kind(value: Cell | str) -> str:
    """The class of a cell of words: a sentence takes a block's whole width on a phone."""
    return ' class="words long"' if _length(str(value)) > SENTENCE else " class=words"


def _html_cell(value: Cell | str) -> str:
    if isinstance(value, str):
        return visible(value)
    unit = f" {visible(value.unit)}" if value.unit else ""
    lines = [f"<b>{cells.figure(value.estimate, value.kind)}{unit}</b>"]
    if ends := cells.interval(value):
        lines.append(f"<small>{ends}</small>")
    if value.test is not None and value.change is not None:
        sure = " sure" if value.test.p_value < cells.CLEAR else ""
        told = "" if value.test.difference is None else f"{cells.change(value)} <br>"
        p = visible(cells.p_value(value.test.p_value))
        lines.append(f'<small class="{value.way}{sure}">{told}{p}</small>')
    if value.note:
        lines.append(f"<small>{visible(value.note)}</small>".replace("\n", "<br>"))
    return "".join(lines)


def _hint(value: Cell | str) -> str:
    """What is told of a cell that is pointed at: its samples, and what it was compared with."""
    if isinstance(value, str):
        return ""
    told = [f"n = {value.n}"] if value.n is not None else []
    if value.test is not None and value.test.against:
        told.append(f"against {value.test.against}")
    return f' title="{visible(", ".join(told))}"' if told else ""
