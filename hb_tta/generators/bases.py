"""What a base's files say of it before its weights are loaded. Imports no torch.

Which arguments its pipeline's call takes, diffusers is asked: it is imported where a base is no
Stable Diffusion.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hb_tta.errors import UserError
from hb_tta.generators.description import LONGEST, kept_tokens
from hb_tta.generators.reading import located, read_index, reading
from hb_tta.weights import Weights

# Schedulers that are, whatever their file says: no need to import diffusers for it.
_OF_DDPM = (
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
)


def sampling_version(base: Weights) -> int:
    """Of how a base's views are sampled, for the store's key: 1 of Stable Diffusion, else 2.

    What 2 changed (true guidance, the text's window, a seed of one view's own) has moved no view of
    a Stable Diffusion. Without an index nothing can be sampled, and views of 1 are still found.
    """
    return 1 if _is_stable_diffusion(base) else 2


def guides(base: Weights) -> bool:
    """Whether a base's call takes a guidance at all; also where nobody can tell (not fetched)."""
    if _is_stable_diffusion(base):
        return True
    return not {"guidance_scale", "true_cfg_scale"}.isdisjoint(call_arguments(base))


def text_window(base: Weights) -> int:
    """How many tokens of a text its call keeps; of a Stable Diffusion its tokenizers say it."""
    if _is_stable_diffusion(base):
        return LONGEST
    return kept_tokens(call_arguments(base))


def is_of_ddpm(base: Weights) -> bool:
    """Whether ``solver_for`` can sample it with any solver; also where nobody can tell."""
    if _class_name(base) is None:
        return True
    name = read_index(base).get("scheduler", [None, None])[1]
    if name in _OF_DDPM:
        return True
    import diffusers

    from hb_tta.generators.solvers import samples_by_ddim

    kind = getattr(diffusers, name or "", None)
    if kind is None:
        return False
    source, options = located(base)
    with reading(base, "a diffusers pipeline"):
        return samples_by_ddim(kind.from_pretrained(source, subfolder="scheduler", **options))


def check_no_image_encoder(base: Weights, image_encoder: Weights | None) -> None:
    """Raises UserError if a tower is named for a base that is called in a way that needs none."""
    if image_encoder is not None:
        raise UserError(
            f"image_encoder={image_encoder.location!r} is of no use to base={base.location!r}, a "
            f"{read_index(base)['_class_name']}: leave it out"
        )


def takes_part(base: Weights, part: str) -> bool:
    """Whether the class of its pipeline is made with a part, such as an image encoder."""
    return part in inspect.signature(_pipeline_class(base).__init__).parameters


def call_arguments(base: Weights) -> Mapping[str, inspect.Parameter]:
    """The arguments of its pipeline's call, by name.

    Raises:
        UserError: the base is no pipeline, or its class is not in this diffusers.
    """
    return inspect.signature(_pipeline_class(base).__call__).parameters


def _pipeline_class(base: Weights) -> Any:
    import diffusers

    name = read_index(base)["_class_name"]
    found = getattr(diffusers, name, None)
    if found is None:
        raise UserError(
            f"base={base.location!r} is a {name}, which diffusers {diffusers.__version__} "
            "does not have: a newer one may"
        )
    return found


def _is_stable_diffusion(base: Weights) -> bool:
    """Also where nobody can tell: without an index nothing is sampled."""
    name = _class_name(base)
    return name is None or name.startswith("StableDiffusion")


def _class_name(base: Weights) -> str | None:
    """What its index names; ``None`` where it cannot be had (a hub's that was not fetched)."""
    try:
        return read_index(base)["_class_name"]
    except UserError:
        return None
