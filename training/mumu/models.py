"""What a training of MUMU works with: the stock pipeline, the encoder, what of them is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from hb_tta.errors import UserError
from hb_tta.families import Family, get_family
from hb_tta.generators.loading import load_sdxl
from hb_tta.generators.lora import parts_of, tensors_of
from hb_tta.generators.mumu.connector import Connector, ConnectorConfig
from hb_tta.generators.mumu.encoder import Encoder, load_processor, load_vlm
from hb_tta.generators.mumu.folder import CONNECTOR, VLM, Index, part, read_index, save, unet_lora
from hb_tta.generators.mumu.masking import install
from hb_tta.lora import Lora, read_peft
from hb_tta.lora.plain import DOWN, named_by
from hb_tta.training.lora import add_lora, lora_layers
from hb_tta.training.mumu.recipes import MumuSettings
from hb_tta.training.sharding import put, shard, whole
from hb_tta.weights import Weights, as_weights

# A LoRA of the VLM is one of its language model and of the way there (Table 1): never of the tower.
VLM_PARTS = ("text_model.", "connector.modality_projection.")
_VLM, _CONNECTOR, _UNET = "vlm_lora.", "connector.", "unet_lora."


@dataclass
class Models:
    """The parts.

    Attributes:
        pipe: the stock pipeline; its UNet is ``None`` where nothing is denoised.
        encoder: the VLM, with a LoRA or frozen.
        connector: trained whole.
        index: what the written folder says of them.
    """

    pipe: Any
    encoder: Encoder
    connector: Connector
    index: Index

    @property
    def unet(self) -> Any:
        """The UNet, with its LoRA."""
        return self.pipe.unet

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """What is trained, by part, in a fixed order."""
        unet = [] if self.unet is None else _lora_parameters(self.unet)
        return {
            "connector": list(self.connector.parameters()),
            "vlm": _lora_parameters(self.encoder.vlm),
            "unet": unet,
        }

    def tensors(self) -> dict[str, Tensor]:
        """See ``Trained.tensors``."""
        found = {
            _CONNECTOR + name: whole(value) for name, value in self.connector.state_dict().items()
        }
        for prefix, model in self._with_lora():
            found |= {prefix + name: whole(value) for name, value in _lora_state(model).items()}
        return found

    def set_tensors(self, tensors: dict[str, Tensor]) -> None:
        """See ``Trained.set_tensors``."""
        own: dict[str, Tensor] = dict(self.connector.named_parameters())
        states: list[tuple[str, dict[str, Tensor]]] = [(_CONNECTOR, own), *self._lora_states()]
        for prefix, state in states:
            for name, value in state.items():
                put(value, tensors[prefix + name])

    def write(self, tensors: dict[str, Tensor], folder: Path, settings: MumuSettings) -> None:
        """Writes the folder that ``Mumu`` loads, of what ``tensors`` gave."""
        connector = Connector(self.connector.config)
        connector.load_state_dict(_below(tensors, _CONNECTOR))
        save(
            folder,
            self.index,
            connector=connector,
            processor=self.encoder.processor,
            vlm=None if self.index.vlm else _halved(self.encoder.vlm),
            vlm_lora=_lora(_below(tensors, _VLM), settings.vlm_rank),
            unet_lora=_lora(_below(tensors, _UNET), settings.unet_rank),
        )

    def shard(self, mesh: Any) -> None:
        """Spreads all parameters over the processes (FSDP2)."""
        from diffusers.models.attention import BasicTransformerBlock

        for model in (self.encoder, self.connector, self.unet):
            if model is not None:
                shard(model, (*_blocks(self.encoder, self.connector), BasicTransformerBlock), mesh)

    def recompute(self) -> None:
        """Computes each block again for its gradient."""
        self.connector.gradient_checkpointing = True
        self.connector.train()
        if lora_layers(self.encoder.vlm):
            self.encoder.vlm.text_model.gradient_checkpointing_enable({"use_reentrant": False})
            self.encoder.vlm.text_model.train()  # it has no dropout
        if self.unet is not None:
            self.unet.enable_gradient_checkpointing()

    def _with_lora(self) -> list[tuple[str, Any]]:
        found = [(_VLM, self.encoder.vlm), (_UNET, self.unet)]
        return [(prefix, model) for prefix, model in found if model and lora_layers(model)]

    def _lora_states(self) -> list[tuple[str, dict[str, Tensor]]]:
        return [(prefix, _lora_state(model)) for prefix, model in self._with_lora()]


def family_of(settings: MumuSettings) -> Family:
    """The family, with another generator where one is named."""
    family, generator = get_family(settings.family), settings.generator
    return family if generator is None else family.with_roles(generator=generator)


def vlm_of(settings: MumuSettings, family: Family) -> Weights:
    """The Idefics2 to begin with."""
    return as_weights(settings.vlm) if settings.vlm else family.weights("mllm_two")


def load(settings: MumuSettings, family: Family, device: torch.device) -> Models:
    """All parts on a device; what is trained in float32.

    Raises:
        UserError: weights are missing, damaged, or do not fit each other.
    """
    dtype = settings.dtype or "float32"
    number, place = getattr(torch, dtype), vlm_of(settings, family)
    encoder = Encoder(load_vlm(place, number), load_processor(place), settings.registers)
    encoder.side(settings.tokens)
    base = family.weights("generator")
    pipe = load_sdxl(
        base, dtype=dtype, image_encoder=None, embeds_images=False,
        reads_text=settings.align_steps > 0,
    )  # fmt: skip
    sizes = ConnectorConfig(
        encoder.width, pipe.unet.config.cross_attention_dim, settings.connector_width,
        settings.connector_layers, settings.connector_heads,
    )  # fmt: skip
    connector = _connector(settings, sizes)
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.requires_grad_(False).eval()
    for name in ("text_encoder", "text_encoder_2"):
        if getattr(pipe, name) is not None:
            getattr(pipe, name).requires_grad_(False).eval()
    whole_vlm = place.is_folder() and not settings.vlm_rank
    index = Index(
        base.location if not base.is_folder() else family.name,
        None if whole_vlm else place.location, settings.tokens, settings.registers,
    )  # fmt: skip
    models = Models(pipe, encoder, connector, index)
    _add_loras(settings, models)
    if settings.start is not None:
        _start_from(settings, models)
    if settings.align_steps >= settings.max_steps:
        pipe.unet = None  # nothing is denoised
    else:
        install(pipe.unet)
    for model in (encoder, connector, pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        if model is not None:
            nn.Module.to(model, device)
    return models


def check_start(settings: MumuSettings) -> Weights | None:
    """The MUMU that the training goes on from.

    Raises:
        UserError: it is none, or was trained with other registers.
    """
    if settings.start is None:
        return None
    start = as_weights(settings.start)
    index = read_index(start)
    if index.registers != settings.registers:
        raise UserError(
            f"start={settings.start!r} was trained with registers={index.registers}, now they are "
            f"{settings.registers}: use as many"
        )
    return start


# ── Parts ───────────────────────────────────────────────────────────────────────────────────────


def _connector(settings: MumuSettings, sizes: ConnectorConfig) -> Connector:
    start = check_start(settings)
    if start is not None:
        found = Connector.load(part(start, CONNECTOR))
        if found.config != sizes:
            raise UserError(
                f"start={settings.start!r} has a connector of {found.config}, the settings ask for "
                f"{sizes}: set connector_width, connector_layers and connector_heads as there"
            )
        return found.requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Connector(sizes)


def _add_loras(settings: MumuSettings, models: Models) -> None:
    models.pipe.unet.requires_grad_(False).eval()
    models.encoder.requires_grad_(False).eval()
    if settings.unet_rank:
        add_lora(
            models.pipe.unet, rank=settings.unet_rank, alpha=settings.unet_rank,
            target_modules=settings.unet_targets, seed=settings.seed,
        )  # fmt: skip
    if settings.vlm_rank:
        vlm = models.encoder.vlm
        add_lora(
            vlm, rank=settings.vlm_rank, alpha=settings.vlm_rank,
            target_modules=vlm_layers(vlm, settings.vlm_targets), seed=settings.seed,
        )  # fmt: skip


def vlm_layers(vlm: nn.Module, targets: tuple[str, ...]) -> list[str]:
    """The paths of the layers that get a LoRA: of the language model, and of the way there.

    Raises:
        UserError: there are none of these names.
    """
    linear = [path for path, layer in vlm.named_modules() if isinstance(layer, nn.Linear)]
    found = [
        path
        for path in linear
        if path.startswith(VLM_PARTS) and (named_by(path, targets) or not path.startswith("text"))
    ]
    if not any(path.startswith("text") for path in found):
        raise UserError(
            f"no layer of the VLM's language model is named {', '.join(targets)}: change "
            "vlm_targets"
        )
    return found


def _start_from(settings: MumuSettings, models: Models) -> None:
    """Puts the LoRAs of an earlier training into ours."""
    start = as_weights(settings.start or "")
    folders = {_VLM: part(start, VLM).local_folder(), _UNET: unet_lora(start)}
    for prefix, state in models._lora_states():
        folder = folders[prefix]
        if folder is None or not (Path(folder) / "adapter_config.json").is_file():
            continue  # the earlier training had none there: ours begins
        given = tensors_of(read_peft(Path(folder)).parts)
        if given.keys() != state.keys():
            raise UserError(
                f"{folder}: its LoRA is of other layers than {prefix[:-6]}_targets chooses: set "
                "them as there"
            )
        for name, value in state.items():
            if value.shape != given[name].shape:
                raise UserError(f"{folder}: its LoRA is of another rank: set it as there")
            put(value, given[name])


def _lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [p for layer in lora_layers(model) for p in layer.parameters() if p.requires_grad]


def _lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The LoRA's parameters by PEFT's names without prefix, as they lie in the model."""
    return {
        name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if "lora_A." in name or "lora_B." in name
    }


def _lora(tensors: dict[str, Tensor], rank: int) -> Lora | None:
    if not tensors:
        return None
    parts = parts_of(tensors)
    modules = [key.removesuffix(DOWN) for key in parts if key.endswith(DOWN)]
    return Lora(parts, dict.fromkeys(modules, float(rank)), tuple(modules))


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _halved(vlm: Any) -> Any:
    """A copy in 16 bits: a frozen VLM's own weights are no more."""
    import copy

    return copy.deepcopy(vlm).half()


def _blocks(*models: nn.Module) -> tuple[type[nn.Module], ...]:
    """The classes of what stands in lists of layers."""
    modules = [module for model in models for module in model.modules()]
    lists = [module for module in modules if isinstance(module, nn.ModuleList)]
    return tuple({type(one) for its in lists for one in its if not isinstance(one, LoraLayer)})
