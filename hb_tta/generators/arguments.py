"""Checks of what a person passes to a generator. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hb_tta.context import DescribedContext, evaluation_contexts
from hb_tta.errors import UserError
from hb_tta.generators.protocol import ContextLike

LCM_STEPS = 50  # that diffusers' LCM picks its few from, where no file says otherwise
MOST_SIDE = 8192  # pixels; what larger views take is beyond any machine


def described_contexts(
    contexts: Sequence[ContextLike], seeds: Sequence[Sequence[int]], *, needs_description: bool
) -> list[DescribedContext]:
    """The contexts of a ``generate`` call, as ``evaluation_contexts`` lets them through.

    Raises:
        UserError: there is not one list of seeds a context, a description is missing, or a
            context is none.
    """
    if len(contexts) != len(seeds):
        raise UserError(
            f"{len(contexts)} contexts came with {len(seeds)} lists of seeds: "
            "give one list of seeds a context"
        )
    described = evaluation_contexts(contexts)
    for index, context in enumerate(described):
        if needs_description and context.description is None:
            raise UserError(
                f"context {index} has no description, which this generator needs: "
                "describe it first, or give '' on purpose"
            )
    return described


def checked_seed(seed: int) -> int:
    """The seed as an int, if torch takes it."""
    if not -(2**63) <= int(seed) < 2**64:
        raise UserError(f"seed {seed} is out of range: use a 64-bit integer")
    return int(seed)


def check_num_inference_steps(steps: int) -> None:
    """Raises UserError unless DDIM can take that many of its 1000 training steps.

    The last is left out: the files of Stable Diffusion begin their steps at 1.
    """
    if not 1 <= steps <= 999:
        raise UserError(f"num_inference_steps={steps} is out of range: use 1 to 999")


def check_consistency_steps(steps: int, most: int) -> None:
    """Raises UserError if a latent consistency model is asked for more than it was distilled of."""
    if steps > most:
        raise UserError(
            f"num_inference_steps={steps} is more than the {most} that the solver lcm picks from: "
            "use 2 to 8"
        )


def check_guidance_scale(scale: float) -> None:
    """Raises UserError unless the scale is a number of 0 or more."""
    if not (math.isfinite(scale) and scale >= 0):
        raise UserError(f"guidance_scale={scale} is out of range: use 0 or more")


def check_strength(strength: float, steps: int | None) -> None:
    """Raises UserError unless an image can be noised so far, and a step is left to denoise it."""
    if not 0 < strength <= 1:
        raise UserError(f"strength={strength} is out of range: use a number above 0 and up to 1")
    if steps is not None and int(steps * strength) < 1:
        raise UserError(
            f"strength={strength} of num_inference_steps={steps} leaves no step: "
            f"use {math.ceil(1 / strength)} steps or more"
        )


def check_side(name: str, side: int | None) -> None:
    """Raises UserError unless a view can have that height or width (None: the base's own)."""
    if side is not None and (not 0 < side <= MOST_SIDE or side % 8):
        raise UserError(
            f"{name}={side} is no size of a view: use a multiple of 8, at most {MOST_SIDE}"
        )
