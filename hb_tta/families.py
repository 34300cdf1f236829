"""Which model fills which role: ``sdxl`` (hub weights, the paper's scale) and ``pocket`` (bundled).

Nothing else in the project knows a family's name: code asks for a role and loads what fills it.
A folder is a family too: a folder a role, named like it, and ``family.json`` with the settings
that the models were made for, as the training recipe of the pocket family leaves it.
Importing this module imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hb_tta.errors import UserError, choose_from, shown
from hb_tta.reading import read_json, user_path
from hb_tta.weights import Weights, as_weights

ROLES = (
    *("generator", "image_encoder", "lora", "mllm", "evaluator", "clip", "reader"),
    *("statistics", "mumu", "detector", "mllm_two"),
)


@dataclass(frozen=True)
class Family:
    """A matched set of models, one a role, and the settings that they were made for.

    Attributes:
        name: what ``get_family`` knows it by.
        roles: role → weights; a family may leave a role empty (``sdxl`` has no reader).
            ``generator``: a diffusers SDXL pipeline folder. ``image_encoder``: the CLIP vision
            tower that embeds the reference image. ``lora``: a PEFT LoRA folder for the UNet.
            ``mllm``: a chat model that describes. ``evaluator``: BLIP-2 for image-text retrieval.
            ``clip``: an open_clip model. ``reader``: reads a scene's attributes off an image.
            ``statistics``: of the images that the family was trained on (views/familiar.py).
            ``mumu``: of prompts of words and images (generators/mumu/folder.py).
            ``detector``: finds in an image what a text names. ``mllm_two``: an Idefics2, which
            answers, and with which a training of MUMU begins.
        defaults: of its generator: ``num_inference_steps`` (DDIM), ``guidance_scale``
            (classifier-free) and ``image_size`` (side of a generated image, pixels).
        method_defaults: method → what it has otherwise on this family, by name of the setting.
    """

    name: str
    roles: Mapping[str, Weights] = field(hash=False)
    defaults: Mapping[str, Any] = field(hash=False)
    method_defaults: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: MappingProxyType({}), hash=False
    )

    def weights(self, role: str) -> Weights:
        """What fills ``role``.

        Raises:
            UserError: the family leaves that role empty.
        """
        if role not in self.roles:
            raise UserError(
                f"family {self.name!r} has no {role}: name one by a hub id or a folder "
                f"(it fills {', '.join(sorted(self.roles))})"
            )
        return self.roles[role]

    def with_roles(self, **roles: str | PathLike[str] | Weights | None) -> Family:
        """The same family with some roles filled otherwise.

        Args:
            **roles: role → hub id, folder or ``Weights``; ``None`` empties it. An image encoder
                that lies inside the generator's folder moves with the generator.

        Raises:
            UserError: there is no such role.
        """
        for role in roles:
            if role not in ROLES:
                raise UserError(f"there is no role {role!r}{choose_from(role, ROLES)}")
        return self.filled(roles)

    def filled(self, roles: Mapping[str, str | PathLike[str] | Weights | None]) -> Family:
        """``with_roles`` of any roles: a method may bring one that no family knows."""
        filled = dict(self.roles)
        for role, weights in roles.items():
            if role == "generator" and "image_encoder" not in roles and weights is not None:
                _move_image_encoder(filled, as_weights(weights))
            if weights is None:
                filled.pop(role, None)
            else:
                filled[role] = as_weights(weights)
        return replace(self, roles=MappingProxyType(filled))

    def defaults_for(self, method: str, roles: Iterable[str] = ("generator",)) -> dict[str, Any]:
        """The settings of a method on this family where nobody says otherwise.

        Args:
            method: the name in ``list_methods()``.
            roles: what it uses of the family. ``defaults`` were found for the family's generator:
                a method on models of its own has its own.
        """
        of_generator = self.defaults if "generator" in roles else {}
        return {**of_generator, **self.method_defaults.get(method, {})}


def _defaults(**settings: Any) -> Mapping[str, Any]:
    return MappingProxyType(settings)


def _move_image_encoder(roles: dict[str, Weights], generator: Weights) -> None:
    encoder, old = roles.get("image_encoder"), roles.get("generator")
    if encoder and old and encoder.subfolder and encoder.location == old.location:
        roles["image_encoder"] = replace(generator, subfolder=encoder.subfolder)


def _sdxl() -> Family:
    """Section 5.2's models and appendix Q's LoRA; steps and guidance of the authors' data script.

    The paper calls both its image encoder and the features of its diversity table "CLIP ViT-G/14";
    the authors' code loads laion's bigG/14 for it, so that fills both roles here.
    """
    big_g = Weights("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k")
    return Family(
        name="sdxl",
        roles=MappingProxyType(
            {
                "generator": Weights("stabilityai/stable-diffusion-xl-base-1.0"),
                "image_encoder": big_g,
                "lora": Weights("lmquan/hummingbird", subfolder="lora_unet_65000"),
                "mllm": Weights("llava-hf/llava-v1.6-mistral-7b-hf"),
                "evaluator": Weights("Salesforce/blip2-itm-vit-g"),
                "clip": big_g,
                "detector": Weights("IDEA-Research/grounding-dino-base"),
            }
        ),
        defaults=_defaults(num_inference_steps=25, guidance_scale=15.0, image_size=1024),
        # MUMU's section 6. Nobody has published its weights: that role is empty.
        method_defaults=_defaults(mumu=_defaults(num_inference_steps=50, guidance_scale=6.0)),
    )


def pocket_folder() -> Path:
    """Where the pocket family lies: the bundled one, or what ``HB_TTA_POCKET`` names instead.

    So that whoever trained the family anew has all that is done with it done with theirs: demo,
    tasks, tests and experiments.
    """
    named = os.environ.get("HB_TTA_POCKET")
    return user_path(named) if named else Path(__file__).parent / "pocket" / "weights"


def _pocket() -> Family:
    """The bundled models; guidance 2 was best for them (higher ones bleed colours)."""
    return folder_family(pocket_folder(), name="pocket")


FAMILY_FILE = "family.json"


def folder_family(folder: Path, *, name: str | None = None) -> Family:
    """The family in a folder; its name is the folder's path, unless it has another.

    Raises:
        UserError: the folder has no ``family.json``, or not of the layout.
    """
    said = family_file(folder)
    roles = {role: Weights(str(folder / role)) for role in ROLES if (folder / role).is_dir()}
    if "generator" in roles and "image_encoder" not in roles:
        roles["image_encoder"] = Weights(str(folder / "generator"), subfolder="image_encoder")
    return Family(
        name=name or str(folder),
        roles=MappingProxyType(roles),
        defaults=_defaults(**said["defaults"]),
        method_defaults=_defaults(**{m: _defaults(**own) for m, own in said["methods"].items()}),
    )


def family_file(folder: Path) -> dict[str, Any]:
    """What ``family.json`` says: ``defaults``, ``methods`` (as ``method_defaults``), ``edition``.

    Raises:
        UserError: it is not there, or says something else.
    """
    path = folder / FAMILY_FILE
    try:
        said = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{str(folder)!r} is no folder of a family: it has no {FAMILY_FILE} that can be read "
            f"({error})"
        ) from None
    kinds: dict[str, type | tuple[type, ...]] = {
        "num_inference_steps": int, "guidance_scale": (int, float), "image_size": int,
    }  # fmt: skip
    settings = said.get("defaults") if isinstance(said, dict) else None
    if (
        not isinstance(settings, dict)
        or settings.keys() != kinds.keys()
        or not all(
            isinstance(value, kinds[key]) and not isinstance(value, bool) and value > 0
            for key, value in settings.items()
        )
    ):
        raise UserError(
            f"{str(path)!r} must have an object 'defaults' with positive numbers for "
            f"{', '.join(kinds)}"
        )
    methods = said.setdefault("methods", {})
    if not isinstance(methods, dict) or not all(isinstance(own, dict) for own in methods.values()):
        raise UserError(f"'methods' in {str(path)!r} must be an object of objects of settings")
    return said


_FAMILIES: dict[str, Callable[[], Family]] = {"pocket": _pocket, "sdxl": _sdxl}


def list_families() -> list[str]:
    """The names that ``get_family`` knows."""
    return sorted(_FAMILIES)


def get_family(name: str | PathLike[str] | Family) -> Family:
    """The family of that name, or in that folder; a ``Family`` is given back as it is.

    Raises:
        UserError: there is no such family.
    """
    if isinstance(name, Family):
        return name
    if isinstance(name, str) and name in _FAMILIES:
        return _FAMILIES[name]()
    if isinstance(name, str | PathLike) and name and user_path(name).is_dir():
        return folder_family(user_path(name).absolute())
    raise UserError(
        f"there is no family {shown(name)}{choose_from(name, list_families())}, or name a folder "
        f"of one, with {FAMILY_FILE} in it"
    )
