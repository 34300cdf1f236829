"""The claims of both papers that experiments here can speak to, and what they come to together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hb_tta.experiments import reproduction
from hb_tta.experiments.reproduction import HOLDS, UNDECIDED, Finding
from hb_tta.report.cells import Cell, Table, written


@dataclass(frozen=True)
class Claim:
    """What a paper says.

    Attributes:
        said: in its sense.
        where: tables and figures of ours that speak to it, by name.
    """

    said: str
    where: tuple[str, ...]


CLAIMS: Mapping[str, Claim] = {
    "best": Claim("Hummingbird is the most faithful method", ("table1", "table8", "figure1g")),
    "second": Claim("Hummingbird is second in diversity to I2T2I alone", ("table4",)),
    "tta": Claim("test-time augmentation helps on every task", ("table1", "table8")),
    "tuning": Claim("tuning on the rewards raises fidelity", ("table5", "table12")),
    "rewards": Claim("each of the two rewards helps", ("table5",)),
    "prompt": Claim("the designed prompt beats the generic one", ("table6",)),
    "evaluator": Claim("BLIP-2 is a better evaluator than CLIP", ("table7",)),
    "tpt": Claim("Hummingbird is best for prompt tuning", ("table2", "table3")),
    "trained": Claim("Hummingbird is best to train a network with", ("table11",)),
    "fid": Claim("FID misleads", ("table9",)),
    "seeds": Claim("20 seeds suffice", ("figure15",)),
    "people": Claim("people find Hummingbird more faithful than I2T2I", ("table10",)),
    "mumu": Claim("MUMU places what its pictures show", ("mumu1",)),
    "mumu words": Claim("MUMU keeps details that a description loses", ("mumu4",)),
    "mumu 1": Claim("MUMU's finding 1: long contexts matter", ("mumu5",)),
    "mumu 2": Claim("MUMU's finding 2: diverse pictures are harmonised", ("mumu6",)),
    "mumu 3": Claim("MUMU's finding 3: some style transfer", ("mumu7",)),
    "mumu 4": Claim("MUMU's finding 4: it merges with other bases", ("mumu9",)),
    "mumu 5": Claim("MUMU's finding 5: details are not consistent", ("mumu4",)),
    "mumu clip": Claim("a high multimodal CLIP score misleads", ("mumu12",)),
}
"""What a ``Finding`` is about → the claim; in the papers' order."""


def verdict(findings: Sequence[Finding]) -> str:
    """Of all their comparisons together; none holds whose findings are not all compared."""
    together = reproduction.verdict([test for one in findings for _, test in one.tests])
    whole = all(one.tests for one in findings)
    return together if whole or together != HOLDS else UNDECIDED


def claims_table(found: Mapping[str, Sequence[Finding]], why: Mapping[str, str]) -> Table:
    """A row a claim, also of those that nothing spoke to.

    Args:
        found: name of an experiment → its findings.
        why: name of an experiment → what it lacks.
    """
    rows = []
    for key, claim in CLAIMS.items():
        by = {n: [one for one in found.get(n, ()) if one.about == key] for n in claim.where}
        its = [one for some in by.values() for one in some]
        silent = [name for name, some in by.items() if not some]
        here = verdict(its)
        reasons = [*map(_least, its), *(_unsaid(name, why) for name in silent)]
        told = UNDECIDED if silent and here == HOLDS else here
        rows.append([claim.said, told, ", ".join(claim.where), "; ".join(reasons)])
    notes = [
        "Holds: every comparison of every finding is above 0, its 95 % interval and p < 0.05 "
        "saying so; does not hold: one is below 0, also once its p is multiplied by the number of "
        "comparisons; else undecided. Of each finding the comparison that is least in its favour; "
        "all of them stand below."
    ]
    return Table(["claim", "here", "by", "because"], rows, "What the papers claim", notes)


def _least(one: Finding) -> str:
    where, _, said = one.claim.partition(": ")
    told = where if said else one.claim  # what it claims stands at the row's beginning
    if not one.tests:
        return f"{told}: {one.reason}"
    what, test = min(one.tests, key=lambda both: _favour(both[1]))
    return f"{told}, {what}: {written(Cell.difference(test, kind=one.kind))}"


def _favour(test: object) -> float:
    """How far a difference is above 0, in halves of its interval: tests have several units."""
    difference, low, high = (getattr(test, name) for name in ("difference", "low", "high"))
    half = (high - low) / 2
    return difference / half if half > 0 else 0.0


def _unsaid(name: str, why: Mapping[str, str]) -> str:
    return f"{name}: {why.get(name) or 'it compares nothing here'}"
