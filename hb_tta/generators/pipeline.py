"""What every method on a diffusers pipeline has: its spec's fields, and its generator.

Imports no torch. A method is a file with a ``PipelineSpec``: its fields, how its pipeline is
loaded, and what of a context goes into which of the pipeline's arguments. One whose conditions
come from elsewhere (mumu/, textual_inversion.py) has the fields of a ``SampledSpec``.

What ``to_json`` leaves out on purpose: the device, the batch size and the libraries' versions.
They move a view by rounding alone (a golden test holds that), so a store outlives an upgrade.
``version`` counts changes of our own that move it by more.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hb_tta.context import DescribedContext
from hb_tta.device import check_dtype
from hb_tta.errors import UserError
from hb_tta.generators.arguments import (
    LCM_STEPS,
    check_consistency_steps,
    check_guidance_scale,
    check_num_inference_steps,
    check_side,
)
from hb_tta.generators.fields import method_settings
from hb_tta.generators.protocol import Conditions, ContextLike, Fitter, GeneratorSpec
from hb_tta.generators.values import checked
from hb_tta.weights import Weights

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from hb_tta.generators.sampling import Sampler


@dataclass(frozen=True)
class SampledSpec(GeneratorSpec):
    """The settings of whatever samples with a diffusers pipeline.

    Attributes:
        base: a pipeline folder or hub repository in diffusers' layout.
        num_inference_steps: denoising steps, at least 1.
        guidance_scale: classifier-free guidance, at least 0; 1 or less turns it off; where a base
            takes none, it is left out.
        height, width: of a view in pixels, multiples of 8; ``None`` the base's own size.
        dtype: "float32", "bfloat16" or "float16".
        solver: ddim, which a base that it cannot sample (flow matching) replaces by its own;
            dpmsolver++, which needs half the steps; lcm, for weights that were distilled for it;
            own, the base's.
    """

    base: Weights
    num_inference_steps: int = 25  # with guidance 15: the released synthetic-data script
    guidance_scale: float = 15.0
    height: int | None = None
    width: int | None = None
    dtype: str = "float32"
    solver: Literal["ddim", "dpmsolver++", "lcm", "own"] = "ddim"

    roles: ClassVar[Mapping[str, str]] = MappingProxyType({"base": "generator"})
    constants: ClassVar[tuple[str, ...]] = ()
    """Fields that the pipeline takes as they are, under their own names, such as strength."""

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        for name, setting in method_settings(type(self)).items():
            if setting.choices:  # a spec that was built by hand was checked nowhere else
                checked(setting, getattr(self, name))
        if self.num_inference_steps is not None:
            check_num_inference_steps(self.num_inference_steps)
            if self.solver == "lcm":
                check_consistency_steps(self.num_inference_steps, LCM_STEPS)
        if self.guidance_scale is not None:
            check_guidance_scale(self.guidance_scale)
        check_side("height", self.height)
        check_side("width", self.width)

    @classmethod
    def settled(cls, values: Mapping[str, Any], said: Set[str]) -> Mapping[str, Any]:
        """See ``GeneratorSpec.settled``: what a family's defaults say fits its own generator.

        Of a base that a person named, one without guidance gets none, and one that another solver
        than DDIM cannot sample keeps the method's.
        """
        from hb_tta.generators.bases import guides, is_of_ddpm

        settled = dict(values)
        if "base" not in said:
            return settled
        if "solver" not in said and settled.get("solver") not in (None, "ddim", "own"):
            if not is_of_ddpm(settled["base"]):
                del settled["solver"]
        if not guides(settled["base"]):
            if settled.get("guidance_scale") is not None and "guidance_scale" in said:
                raise UserError(
                    f"guidance_scale={settled['guidance_scale']} is of no use to "
                    f"base={settled['base'].location!r}, whose call takes no guidance: leave it out"
                )
            settled["guidance_scale"] = None
        return settled

    @abstractmethod
    def load_pipeline(self) -> DiffusionPipeline:
        """The pipeline on the CPU, with all that the method changes of it."""
        ...

    def fields_json(self) -> dict[str, Any]:
        """The part of ``to_json`` that the fields give: weights by content, the rest as it is."""
        fields = {
            name: _json(setting.type, getattr(self, name))
            for name, setting in method_settings(type(self)).items()
        }
        return {"method": self.method, "scheduler": fields.pop("solver"), **fields}


@dataclass(frozen=True)
class PipelineSpec(SampledSpec):
    """What every generator has whose pipeline itself takes contexts."""

    def load(
        self, device: str | None = None, *, batch_size: int | None = None, cpu_offload: bool = False
    ) -> PipelineGenerator:
        """See ``GeneratorSpec.load``."""
        return PipelineGenerator(
            self, device=device, batch_size=batch_size, cpu_offload=cpu_offload
        )

    @abstractmethod
    def encode(
        self,
        pipe: Any,
        contexts: Sequence[DescribedContext],
        *,
        guided: bool,
        device: torch.device,
    ) -> Conditions:
        """What the pipeline is given of contexts: its arguments by name, a row a context.

        Args:
            pipe: as ``load_pipeline`` gave it, on its device.
            contexts: with descriptions that the text encoders take whole.
            guided: whether guidance is on; without, no negatives are needed.
            device: where the pipeline computes.
        """
        ...

    def arguments(self) -> dict[str, Any]:
        """The pipeline's arguments that are the same for all views; here, ``constants``."""
        return {name: getattr(self, name) for name in self.constants}

    def prompt(self, description: str) -> str:
        """What the text encoders are told of a description; here, the description."""
        return description

    @property
    def at_once(self) -> int | None:
        """The most views that the pipeline can make in a call; ``None``: any number."""
        return None

    @property
    def resizes(self) -> bool:
        """Whether ``encode`` brings the reference to the view's size where the call takes none."""
        return False

    def fitter(self) -> Fitter:
        """See ``GeneratorSpec.fitter``: the beginning that every text encoder of the base takes."""
        from hb_tta.generators.bases import text_window
        from hb_tta.generators.description import fit_description, load_tokenizers

        tokenizers = load_tokenizers(self.base)
        window = text_window(self.base)
        return partial(fit_description, tokenizers, told=self.prompt, longest=window)


class PipelineGenerator:
    """A spec's pipeline on its device. The one generator of all methods on a pipeline.

    Args:
        spec: what decides the pixels.
        device, batch_size, cpu_offload: see ``GeneratorSpec.load``; they decide none.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        cpu_offload: bool = False,
    ) -> None:
        self.spec = spec
        self._sampler = _sampler_of(
            spec, device=device, batch_size=batch_size, cpu_offload=cpu_offload
        )

    @property
    def pipe(self) -> Any:
        """The stock pipeline, for whoever wants to call it alone."""
        return self._sampler.pipe

    @property
    def batch_size(self) -> int:
        """Views a batch."""
        return self._sampler.batch_size

    def generate(
        self,
        contexts: Sequence[ContextLike],
        seeds: Sequence[Sequence[int]],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        output_type: str = "pil",
    ) -> list[list[Any]]:
        """Views of every context, one a seed.

        Args:
            contexts: (image, description) pairs or ``DescribedContext``s; "" as description leaves
                the image alone. A description longer than the text encoders' window is shortened
                (``fit_description``) with a warning.
            seeds: one list of seeds a context, of any lengths.
            num_inference_steps: 1 to 999; ``None``: the spec's.
            guidance_scale: classifier-free guidance, 0 or more, off at 1 or less; ``None``: the
                spec's.
            output_type: "pil": RGB images; "latent": the VAE's latents, a (C, h, w) tensor a view,
                as the denoiser leaves them.

        Returns:
            One list a context, one result a seed, in the order of the seeds. A view does not
            depend on the others of the call (beyond the rounding of batched arithmetic).

        Raises:
            UserError: a description is None, the lists do not match, or a setting is out of range.
        """
        spec = self.spec
        steps, guidance = num_inference_steps, guidance_scale
        return self._sampler.sample(
            contexts,
            seeds,
            self.encode,
            num_inference_steps=spec.num_inference_steps if steps is None else steps,
            guidance_scale=spec.guidance_scale if guidance is None else guidance,
            needs_description=spec.needs_description,
            output_type=output_type,
        )

    def encode(self, contexts: Sequence[DescribedContext], guided: bool) -> Conditions:
        """The stock pipeline's arguments for contexts, a row each; negatives where ``guided``.

        Every description must fit the text encoders' window, see ``fit_description``.
        """
        return self.spec.encode(self.pipe, contexts, guided=guided, device=self._sampler.device)


def _sampler_of(
    spec: PipelineSpec, *, device: str | None, batch_size: int | None, cpu_offload: bool
) -> Sampler:
    """A spec's pipeline on its device, and what batches its views."""
    from hb_tta.generators.sampling import Sampler, checked_device

    checked_device(device)  # before the weights are read
    return Sampler(
        spec.load_pipeline(),
        height=spec.height,
        width=spec.width,
        constants=spec.arguments(),
        resized=spec.resizes,
        told=spec.prompt,
        device=device,
        batch_size=spec.at_once or batch_size,
        cpu_offload=cpu_offload,
    )


def _json(kind: Any, value: Any) -> Any:
    if isinstance(value, Weights):
        return value.fingerprint()
    return float(value) if kind is float and value is not None else value
