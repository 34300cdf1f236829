"""The schedulers that a base's noise is taken away by, made from its own scheduler's file.

Whichever file a base comes with, its noise schedule and what its network predicts are kept; by
which rule steps are taken along it is the solver's. What DDIM cannot sample (flow matching,
consistency) keeps its own scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, LCMScheduler

from hb_tta.errors import UserError
from hb_tta.weights import Weights

DDIM, OWN = "ddim", "own"

# What says which noise a model was trained on. Where a file is silent on it, its own class's
# defaults were meant, and DDIM's are others.
_NOISE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "prediction_type", "rescale_betas_zero_snr",
)  # fmt: skip
_PREDICTIONS = ("epsilon", "sample", "v_prediction")  # that DDIM knows


def solver_for(scheduler: Any, solver: str, base: Weights) -> Any:
    """The scheduler that samples a base.

    Args:
        scheduler: the base's own, as diffusers loaded it.
        solver: "ddim", which leaves a base alone that DDIM cannot sample; or another of the names
            of ``PipelineSpec.solver``.
        base: for the sentence.

    Raises:
        UserError: another solver than DDIM is asked for, and the base is not of its kind.
    """
    if solver == OWN:
        return scheduler
    if samples_by_ddim(scheduler):
        return _SOLVERS[solver](scheduler.config)
    if solver == DDIM:
        return scheduler
    raise UserError(
        f"solver={solver} cannot sample {base.location!r}, which was made for "
        f"{type(scheduler).__name__}: leave it out, and the base keeps its own"
    )


def samples_by_ddim(scheduler: Any) -> bool:
    """Whether a base with this scheduler is of the kind that DDPM trains."""
    known = any(kind is DDIMScheduler for kind in scheduler.compatibles)
    return known and scheduler.config.get("prediction_type", "epsilon") in _PREDICTIONS


def ddim_like(config: Mapping[str, Any]) -> DDIMScheduler:
    """A DDIM scheduler for latents on the noise schedule of another scheduler's configuration.

    What the file itself says counts. Where it is silent, the noise is that of the file's own class.
    Files of Euler or DPM-Solver++ are silent on what is DDIM's alone: its own defaults for pixels
    would cut latents off at 1 and end the schedule at an alpha of 1; SDXL's own file switches both
    off.

    Args:
        config: of a scheduler as diffusers loaded it, its class's defaults filled in.
    """
    unwritten = config.get("_use_default_values", ())
    written = {name: value for name, value in config.items() if name not in unwritten}
    return DDIMScheduler.from_config(
        config,
        **_noise(config),
        clip_sample=written.get("clip_sample", False),
        set_alpha_to_one=written.get("set_alpha_to_one", False),
    )


def dpm_like(config: Mapping[str, Any]) -> DPMSolverMultistepScheduler:
    """DPM-Solver++(2M) (Lu et al., 2022) on the noise schedule and the spacing that DDIM has."""
    like = ddim_like(config).config
    return DPMSolverMultistepScheduler.from_config(
        {name: like[name] for name in (*_NOISE, "timestep_spacing", "steps_offset")},
        algorithm_type="dpmsolver++",
        solver_order=2,
    )


def lcm_like(config: Mapping[str, Any]) -> LCMScheduler:
    """The sampler of latent consistency models (Luo et al., 2023)."""
    return LCMScheduler.from_config(config, **_noise(config), clip_sample=False)


def _noise(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in _NOISE if name in config}


_SOLVERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = MappingProxyType(
    {DDIM: ddim_like, "dpmsolver++": dpm_like, "lcm": lcm_like}
)
