"""What MUMU's five findings, and what else its figures say, come to on figures of the arms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hb_tta.experiments.mumu import compared
from hb_tta.experiments.mumu_study import Figures
from hb_tta.experiments.paper.mumu_rows import (
    AUGMENTED,
    CONTROL,
    EXCHANGED,
    OTHER,
    SAME,
    TUNED_BASE,
    UNAUGMENTED,
    WORDS,
)
from hb_tta.experiments.reproduction import Finding

Measured = Mapping[str, Figures]

_NOT_COMPARED = "no scene could be asked both ways"


def _difference(measured: Measured, better: str, worse: str, name: str) -> list[tuple[str, Any]]:
    if not (measured.get(better) and measured.get(worse)):
        return []
    if len(measured[better][name]) != len(measured[worse][name]):
        return []
    test = compared(measured[better][name], measured[worse][name])
    return [(f"{name}: {better} − {worse}", test)] if test else []


def crops_are_used(measured: Measured) -> list[Finding]:
    claim = "MUMU places what its pictures show into the image"
    tests = _difference(measured, SAME, CONTROL, "bound")
    return [Finding(claim, tests, _NOT_COMPARED, about="mumu")]


def more_than_words(measured: Measured) -> list[Finding]:
    keeps = _difference(measured, SAME, WORDS, "filling")
    return [
        Finding("pictures keep details that words lose", keeps, _NOT_COMPARED, about="mumu words"),
        Finding(
            "finding 5: small details are kept less well than the gist (colour beside filling)",
            _within(measured[SAME], "colour", "filling") if SAME in measured else [],
            _NOT_COMPARED,
            about="mumu 5",
        ),
    ]


def _within(its: Figures, better: str, worse: str) -> list[tuple[str, Any]]:
    test = compared(its[better], its[worse])
    return [(f"{better} − {worse}", test)] if test else []


def tokens_help(measured: Measured, trained: int) -> list[Finding]:
    """Up to the number that it was trained with: a number beyond it is another model's."""
    fewer = [name for name in measured if int(name.removeprefix("tokens ")) < trained]
    tests = [
        test
        for name in ("bound", "filling")
        for worse in fewer
        for test in _difference(measured, f"tokens {trained}", worse, name)
    ]
    claim = "finding 1: more tokens an image keep more detail"
    return [Finding(claim, tests, _NOT_COMPARED, about="mumu 1")]


def harmonises(measured: Measured) -> list[Finding]:
    tests = _difference(measured, OTHER, CONTROL, "bound")
    tests += _difference(measured, "leak, pasted", "leak", "foreign ground")
    claim = "finding 2: pictures of other sources are harmonised (they are used, not pasted)"
    return [Finding(claim, tests, _NOT_COMPARED, about="mumu 2")]


def styles(measured: Measured) -> list[Finding]:
    works = _difference(measured, EXCHANGED, CONTROL, "bound")
    partly = _difference(measured, SAME, EXCHANGED, "bound")
    return [
        Finding("finding 3: a look moves to another thing", works, _NOT_COMPARED, about="mumu 3"),
        Finding(
            "finding 3: it does so less well than it stays", partly, _NOT_COMPARED, about="mumu 3"
        ),
    ]


def moves(measured: Measured) -> list[Finding]:
    tests = _difference(measured, f"{TUNED_BASE}: {SAME}", f"{TUNED_BASE}: {CONTROL}", "bound")
    claim = "finding 4: the LoRA works on another base without training"
    return [Finding(claim, tests, _NOT_COMPARED, about="mumu 4")]


def misleads(measured: Measured) -> list[Finding]:
    higher = _difference(measured, "leak, pasted", "leak", "CLIP score")
    pasted = _difference(measured, "leak, pasted", "leak", "foreign ground")
    arms = (f"{UNAUGMENTED}: leak", f"{AUGMENTED}: leak")
    copies = _difference(measured, *arms, "foreign ground")
    untrained = f"no MUMU was trained {AUGMENTED} and {UNAUGMENTED}: give --train"
    return [
        Finding(
            "pasting has a higher multimodal CLIP score",
            higher, _NOT_COMPARED, kind="step", about="mumu clip",
        ),
        Finding("and copies more", pasted, _NOT_COMPARED, about="mumu clip"),
        Finding(
            "a training without altered crops copies more",
            copies, untrained, about="mumu clip",
        ),
    ]  # fmt: skip
