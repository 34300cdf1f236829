"""Why the shipped family misses some of its aims: what was found out, for the card.

Only reasons of aims that are missed are printed. The experiments are in docs/LOG.md.
"""

from __future__ import annotations

from collections.abc import Iterable

# The beginning of an aim's name → what was found.
REASONS = {
    "generator, from true captions": (
        "The denoiser's accuracy rose until partial captions and image embeddings joined the full "
        "captions at 45 % of its training, and hardly since (see the curve). Most faults are one "
        "thing too many among three or four, and things of one group in two colours."
    ),
    "generator, from the embedding alone": (
        "The embedding holds the colours (linear heads read 98 %), but only 3 % of the training "
        "samples have it without words."
    ),
    "generator: the five averaged": (
        "Combinations of shape, colour and background are learnt partly by heart: on held-out "
        "ones the shape gives way first."
    ),
    "MLLM": (
        "Categories are asked in training only while the last exam is below 85 %, but descriptions "
        "are practised all the time and teach the background and the shapes with them."
    ),
    "generator, what is asked is kept": (
        "Forms that leave things open: where two groups are told without their relation, or one of "
        "them alone, things of one group in two colours and one thing too many are still drawn."
    ),
    "second MLLM": (
        "It has the first one's lessons and a tower of its own that sees more; its curriculum asks "
        "what lies below 82 % alone."
    ),
    "CLIP, zero-shot": (
        "It was trained until it told relations apart, and objects are learnt long before."
    ),
    "generator, between seeds": (
        "Radii differ by a tenth in the world and are drawn closer to their mean."
    ),
}


def reasons(missed: Iterable[str]) -> str:
    """A Markdown list of the reasons for the missed aims, by name."""
    names = tuple(missed)
    return "\n".join(
        f"- *{start}*: {why}"
        for start, why in REASONS.items()
        if any(name.startswith(start) for name in names)
    )
