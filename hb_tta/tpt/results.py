"""The JSON file that ``hb-tta tpt --out`` writes, read again: its shape is checked here, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hb_tta.errors import UserError
from hb_tta.reading import open_regular, read_json

FORMAT = 1
"""Counts the changes of what the file means."""

Results = list[dict[str, Any]]


def written(results: Results) -> bytes:
    """The file's bytes."""
    return json.dumps({"format": FORMAT, "results": results}, indent=1).encode()


def is_results(path: Path) -> bool:
    """Whether a file looks like one of prompt tuning's results, without reading all of it."""
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        with open_regular(path) as file:
            beginning = file.read(64)
    except OSError:
        return False
    return b"".join(beginning.split()).startswith(b'{"format":') and b'"results"' in beginning


def read_results(path: Path) -> Results:
    """The results of every method on every task.

    Raises:
        UserError: the file cannot be read, is damaged, or of another version.
    """
    try:
        found = read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValueError:
        raise _damaged(path, "it is no JSON") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _damaged(path, f"its format is not {FORMAT}")
    results = found.get("results")
    if not isinstance(results, list) or not results:
        raise _damaged(path, "it has no results")
    for place, result in enumerate(results, 1):
        if fault := _fault(result):
            raise _damaged(path, f"result {place}: {fault}")
    check_samples(results, str(path))
    return results


def check_samples(results: Results, where: str) -> None:
    """Raises UserError unless each task's results are over equally many samples and scores."""
    sizes: dict[str, tuple[int, int]] = {}
    for result in results:
        scores = next(iter(result["methods"].values()))["scores"]
        size = result["samples"], len(scores)
        if sizes.setdefault(result["task"], size) != size:
            raise UserError(
                f"{where}: {result['task']} was evaluated on {sizes[result['task']][0]} and on "
                f"{size[0]} samples: evaluate all methods with the same --limit"
            )


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is no whole result of hb-tta tpt ({why}): evaluate again with --out")


def _fault(result: Any) -> str:
    """What is wrong with a result; "" if nothing is."""
    if not isinstance(result, dict):
        return "no object"
    for name in ("task", "augment"):
        if not isinstance(result.get(name), str):
            return f"{name} is no text"
    for name in ("samples", "of"):
        if not _is_count(result.get(name)):
            return f"{name} is no number of samples"
    if not isinstance(result.get("subset"), bool):
        return "subset is neither true nor false"
    methods = result.get("methods")
    if not isinstance(methods, dict) or not methods:
        return "it has no methods"
    sizes = {
        len(entry["scores"])
        for entry in methods.values()
        if isinstance(entry, dict) and isinstance(entry.get("scores"), list)
    }
    if len(sizes) != 1 or 0 in sizes or next(iter(sizes)) % result["samples"]:
        return "its methods' scores are not of its samples"
    faults = (_entry_fault(name, entry) for name, entry in methods.items())
    return next(filter(None, faults), "")


def _entry_fault(name: str, entry: Any) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get("scores"), list):
        return f"{name!r:.60} has no scores"
    if not all(_is_share(score) for score in entry["scores"]):
        return f"{name!r:.60} has a score that is none"
    accuracy, gain = entry.get("accuracy"), entry.get("gain over zero-shot")
    told = accuracy if isinstance(accuracy, dict) else {}
    shares = [told.get(key) for key in ("estimate", "low", "high")]
    if not all(map(_is_share, [*shares, entry.get("ece")])):
        return f"{name!r:.60} has no accuracy"
    if told.get("n") is not None and not _is_count(told["n"]):
        return f"{name!r:.60} has a damaged accuracy"
    orders = entry.get("orders", [])
    if not isinstance(orders, list) or not all(map(_is_share, orders)):
        return f"{name!r:.60} has an order without an accuracy"
    if gain is not None and not _is_gain(gain):
        return f"{name!r:.60} has a damaged gain"
    return ""


def _is_gain(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_share(value.get("p_value"))
        and _is_number(value.get("difference"))
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**12


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1e9  # neither NaN nor infinite


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1
