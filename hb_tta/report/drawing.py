"""Scatters, box plots, curves and differences as SVG; their colours are the page's, by night too.

Numbers in, a string out. A drawing is 640 wide and scales to its window; texts are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hb_tta.report.document import visible

WIDTH, HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 16, 52
_COLOURS = ("#2f6fb5", "#c0362c", "#1a7f37", "#b07a1a", "#7a4fb0", "#0d8a8a", "#b0457f", "#6d6a64")

_HEIGHTS = (-8, 18, -24, 34)  # of labels beside their points
_LETTER, _ROW = 7.4, 26  # of differences: width of a label's letter, height of a row
_ABOVE, _BELOW, _NEITHER = _COLOURS[2], _COLOURS[1], _COLOURS[7]


@dataclass(frozen=True)
class Point:
    """A point of a scatter.

    Attributes:
        label: beside it.
        x, y: (estimate, low, high) each.
    """

    label: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]


@dataclass(frozen=True)
class Axes:
    """A range of numbers on either side, and what they are."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_name: str
    y_name: str

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        return (
            _LEFT + across * _share(x, self.x),
            HEIGHT - _BOTTOM - up * _share(y, self.y),
        )


def scatter(points: Sequence[Point], x_name: str, y_name: str) -> str:
    """Points with the intervals of both numbers; neighbours' labels stand at different heights."""
    axes = Axes(
        _range([v for p in points for v in p.x]), _range([v for p in points for v in p.y]),
        x_name, y_name,
    )  # fmt: skip
    parts = [_frame(axes)]
    for number, point in enumerate(sorted(points, key=lambda one: one.x)):
        colour = _COLOURS[number % len(_COLOURS)]
        (x, left, right), (y, low, high) = point.x, point.y
        parts.append(_line([axes.place(left, y), axes.place(right, y)], colour, 1.5))
        parts.append(_line([axes.place(x, low), axes.place(x, high)], colour, 1.5))
        px, py = axes.place(x, y)
        end = px > WIDTH - 180
        parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="{colour}"/>')
        side, anchor = (-9, "end") if end else (9, "start")
        height = _HEIGHTS[number % len(_HEIGHTS)]
        parts.append(_text(px + side, py + height, point.label, anchor))
    return _svg(parts, f"{y_name} against {x_name}")


def boxes(groups: Mapping[str, Sequence[float]], x_name: str, y_name: str) -> str:
    """A box plot: quartiles, median, and the ends of what is within 1.5 of their distance."""
    every = [value for its in groups.values() for value in its]
    axes = Axes((0.0, float(len(groups))), _range(every), x_name, y_name)
    parts = [_frame(axes, ticks=False)]
    for number, (name, values) in enumerate(groups.items()):
        low, first, middle, third, high = _quartiles(values)
        x, (left, right) = number + 0.5, (number + 0.2, number + 0.8)
        (x0, y0), (x1, y1) = axes.place(left, third), axes.place(right, first)
        parts.append(_line([axes.place(x, low), axes.place(x, high)], "currentColor", 1))
        parts.append(
            f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" '
            f'fill="{_COLOURS[0]}" fill-opacity="0.35" stroke="{_COLOURS[0]}"/>'
        )
        parts.append(_line([axes.place(left, middle), axes.place(right, middle)], _COLOURS[1], 2))
        parts.append(_text(axes.place(x, axes.y[0])[0], HEIGHT - _BOTTOM + 16, name, "middle"))
    return _svg(parts, f"{y_name} by {x_name}")


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    x_name: str,
    y_name: str,
    x_names: Sequence[str] = (),
) -> str:
    """Lines through points, with a legend.

    Args:
        x_names: of the points at 0, 1, …, where these number steps that are not evenly apart.
    """
    every = [point for its in lines.values() for point in its]
    margin = 0.08 if x_names else 0.0
    axes = Axes(
        _range([x for x, _ in every], margin), _range([y for _, y in every]), x_name, y_name
    )
    parts = [_frame(axes, ticks=not x_names)]
    for number, name in enumerate(x_names):
        x, _ = axes.place(number, axes.y[0])
        parts.append(_text(x, HEIGHT - _BOTTOM + 18, name, "middle"))
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(_line([axes.place(*point) for point in points], colour, 2))
        y = _TOP + 14 + 17 * number
        parts.append(_line([(_LEFT + 10, y - 4), (_LEFT + 30, y - 4)], colour, 3))
        parts.append(_text(_LEFT + 36, y, name))
    return _svg(parts, f"{y_name} over {x_name}")


def differences(
    groups: Mapping[str, Sequence[tuple[str, tuple[float, float, float]]]], x_name: str
) -> str:
    """Differences with their intervals, a row each, about a line at 0.

    Args:
        groups: heading, or "" for none → (label, (estimate, low, high)) of its rows. What lies
            above 0 with its whole interval is green, below it red.
    """
    rows = [row for its in groups.values() for row in its]
    low, high = _range([0.0, *(value for _, its in rows for value in its)])
    bottom = _TOP + _ROW * (len(rows) + sum(map(bool, groups)))
    names = _LETTER * max(len(label) for label, _ in rows) + 12

    def across(value: float) -> float:
        return names + (WIDTH - _RIGHT - names) * _share(value, (low, high))

    parts, y = [_line([(across(0), _TOP), (across(0), bottom)], "currentColor", 1)], _TOP
    for heading, its in groups.items():
        if heading:
            parts.append(f'<g font-weight="600">{_text(0, y + 18, heading)}</g>')
            y += _ROW
        for label, (middle, left, right) in its:
            colour = _ABOVE if left > 0 else _BELOW if right < 0 else _NEITHER
            height = y + _ROW / 2
            parts.append(_text(0, height + 4, label))
            parts.append(_line([(across(left), height), (across(right), height)], colour, 2))
            parts.append(f'<circle cx="{across(middle):.1f}" cy="{height}" r="4" fill="{colour}"/>')
            y += _ROW
    for value in _ticks((low, high)):
        parts.append(_text(across(value), bottom + 18, f"{value:g}", "middle"))
    parts.append(_text((across(low) + across(high)) / 2, bottom + 40, x_name, "middle"))
    return _svg(parts, x_name, bottom + 48)


def _svg(parts: Sequence[str], told: str, height: float = HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{visible(told)}" '
        f'font-size="13" fill="currentColor">{"".join(parts)}</svg>'
    )


def _frame(axes: Axes, *, ticks: bool = True) -> str:
    x0, y0 = axes.place(axes.x[0], axes.y[0])
    x1, y1 = axes.place(axes.x[1], axes.y[1])
    parts = [_line([(x0, y1), (x0, y0), (x1, y0)], "currentColor", 1)]
    for value in _ticks(axes.y):
        _, y = axes.place(axes.x[0], value)
        parts.append(_line([(x0 - 4, y), (x0, y)], "currentColor", 1))
        parts.append(_text(x0 - 8, y + 4, f"{value:g}", "end"))
    for value in _ticks(axes.x) if ticks else ():
        x, _ = axes.place(value, axes.y[0])
        parts.append(_line([(x, y0), (x, y0 + 4)], "currentColor", 1))
        parts.append(_text(x, y0 + 18, f"{value:g}", "middle"))
    parts.append(_text((x0 + x1) / 2, HEIGHT - 10, axes.x_name, "middle"))
    middle = (y0 + y1) / 2
    parts.append(
        f'<text x="14" y="{middle:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle:.1f})">{visible(axes.y_name)}</text>'
    )
    return "".join(parts)


def _line(points: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{visible(text)}</text>'


def _share(value: float, ends: tuple[float, float]) -> float:
    return (value - ends[0]) / (ends[1] - ends[0])


def _range(values: Sequence[float], margin: float = 0.08) -> tuple[float, float]:
    """The values' ends with some room; never empty."""
    low, high = min(values), max(values)
    room = margin * (high - low) or (0.0 if high > low else 0.05 * abs(high) or 1.0)
    return low - room, high + room


def _ticks(ends: tuple[float, float]) -> list[float]:
    """Four to nine round numbers between the ends."""
    rough = (ends[1] - ends[0]) / 5
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * n for n in (1, 2, 5, 10) if size * n >= rough)
    first = math.ceil(ends[0] / step)
    return [round(n * step, 10) for n in range(first, math.floor(ends[1] / step) + 1)]


def _quartiles(values: Sequence[float]) -> tuple[float, float, float, float, float]:
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        below, rest = int(place), place - int(place)
        return ordered[below] + rest * (ordered[min(below + 1, len(ordered) - 1)] - ordered[below])

    first, middle, third = at(0.25), at(0.5), at(0.75)
    reach = 1.5 * (third - first)
    inside = [value for value in ordered if first - reach <= value <= third + reach]
    return inside[0], first, middle, third, inside[-1]
