"""Which model fills which role: ``sdxl`` (hub weights, the paper's scale) and ``pocket`` (bundled).

Nothing else in the project knows a family's name: code asks for a role and loads what fills it.
A folder is a family too: a folder a role, named like it, and ``family.json``, which says which
family's settings are its own, as the training recipe of the pocket family leaves it.
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
    *("variation", "statistics", "mumu", "detector", "mllm_two"),
)


@dataclass(frozen=True)
class Family:
    """A matched set of models, one a role, and the settings that they were made for.

    Attributes:
        name: what ``get_family`` knows it by.
        roles: role → weights; a family may leave a role empty (``sdxl`` has no reader).
            ``generator``: a diffusers SDXL pipeline folder. ``image_encoder``: the CLIP vision
            tower that embeds the reference image. ``lora``: a PEFT LoRA folder for the UNet.
            ``variation``: a pipeline that makes pictures from an image alone.
            ``mllm``: a chat model that describes. ``evaluator``: BLIP-2 for image-text retrieval.
            ``clip``: an open_clip model. ``reader``: reads a scene's attributes off an image.
            ``statistics``: of the images that the family was trained on (views/familiar.py).
            ``mumu``: of prompts of words and images (generators/mumu/folder.py).
            ``detector``: finds in an image what a text names. ``mllm_two``: another chat model that
            answers; the pocket family's is an Idefics2, with which a training of MUMU begins.
        defaults: of its generator: ``num_inference_steps``, ``solver``, ``guidance_scale``
            (classifier-free) and ``image_size`` (side of a generated image, pixels).
        method_defaults: method → what it has otherwise on this family, by name of the setting.
        benchmarks: what the papers' experiments are made on: "questions", "relations", "objects" →
            a data set's name; "backbone": what is trained on views (table 11); "prompts": of MUMU.
        recipes: of a LoRA for each of those benchmarks; "mumu": of a whole MUMU.
        seconds: about what a view, a picture that is asked about, … takes, for forecasts, and by
            a method's name what it takes once a reference; ``machine`` says where.
    """

    name: str
    roles: Mapping[str, Weights] = field(hash=False)
    defaults: Mapping[str, Any] = field(hash=False)
    method_defaults: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: MappingProxyType({}), hash=False
    )
    benchmarks: Mapping[str, str] = field(default_factory=dict, hash=False)
    recipes: Mapping[str, str] = field(default_factory=dict, hash=False)
    seconds: Mapping[str, float] = field(default_factory=dict, hash=False)
    machine: str = ""

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
                # InternVL 2.0 wants remote code; the third has a native checkpoint.
                "mllm_two": Weights("OpenGVLab/InternVL3-8B-hf"),
                "variation": Weights("lambdalabs/sd-image-variations-diffusers", revision="v2.0"),
            }
        ),
        defaults=_defaults(num_inference_steps=25, guidance_scale=15.0, image_size=1024),
        method_defaults=_defaults(
            # MUMU's section 6. Nobody has published its weights: that role is empty.
            mumu=_defaults(num_inference_steps=50, guidance_scale=6.0),
            # Nobody says with what guidance these ran: the stock pipelines' own.
            image_translation=_defaults(guidance_scale=7.5),
            textual_inversion=_defaults(guidance_scale=7.5),
        ),
        benchmarks=_defaults(
            questions="mme",
            relations="bongard-hoi",
            objects="imagenet",
            backbone="resnet50",
            prompts="own",
        ),
        recipes=_defaults(questions="paper-vqa", relations="paper-hoi", objects="paper-object"),
        # A view was measured with random weights; the others are guesses of its order.
        seconds=_defaults(
            views=0.45, pictures=0.1, tunings=0.5, trainings=8 * 86_400.0, textual_inversion=120.0
        ),
        machine="one H200",
    )


def pocket_folder() -> Path:
    """Where the pocket family lies: the bundled one, or what ``HB_TTA_POCKET`` names instead.

    So that whoever trained the family anew has all that is done with it done with theirs: demo,
    tasks, tests and experiments.
    """
    named = os.environ.get("HB_TTA_POCKET")
    return user_path(named) if named else Path(__file__).parent / "pocket" / "weights"


def _pocket() -> Family:
    """The bundled models; guidance 2 was best for them (higher ones bleed colours).

    10 steps of DPM-Solver++ keep what DDIM's 25 keep: of 1,400 views the same ones are faithful
    (docs/results/solvers.md).
    """
    return Family(
        name="pocket",
        roles=_roles_in(pocket_folder()),
        defaults=_defaults(
            num_inference_steps=10, solver="dpmsolver++", guidance_scale=2.0, image_size=64
        ),
        method_defaults=_defaults(
            # The world's smallest shape has some 60 of a picture's 4,096 pixels.
            mumu=_defaults(least_area=36),
            image_variation=_defaults(guidance_scale=2.0),
            textual_inversion=_defaults(learning_steps=300),
        ),
        benchmarks=_defaults(
            questions="pocket_mme",
            relations="pocket_hoi",
            objects="pocket_objects_all",
            backbone="tiny",
            prompts="pocket_prompts",
        ),
        recipes=_defaults(
            questions="pocket", relations="pocket-hoi", objects="pocket-object", mumu="pocket-mumu"
        ),
        seconds=_defaults(
            views=0.08,
            pictures=0.025,
            tunings=0.15,
            trainings=600.0,
            textual_inversion=3.1,
            mumu_trainings=2500.0,
        ),
        machine="one core",
    )


def _roles_in(folder: Path) -> Mapping[str, Weights]:
    roles = {role: Weights(str(folder / role)) for role in ROLES if (folder / role).is_dir()}
    # Named also where it is not there: views that somebody else made are found by its name.
    generator = roles.setdefault("generator", Weights(str(folder / "generator")))
    # A generator that takes the image and an empty text varies it.
    roles.setdefault("variation", generator)
    roles.setdefault("image_encoder", replace(generator, subfolder="image_encoder"))
    return MappingProxyType(roles)


_FAMILIES: dict[str, Callable[[], Family]] = {"pocket": _pocket, "sdxl": _sdxl}
FAMILY_FILE = "family.json"


def folder_family(folder: Path) -> Family:
    """The family in a folder; its name is the folder's path.

    Raises:
        UserError: the folder has no ``family.json``, or it names no family that this one is like.
    """
    like = family_file(folder).get("like")
    if not isinstance(like, str) or like not in _FAMILIES:
        raise UserError(
            f"'like' in {str(folder / FAMILY_FILE)!r} is {shown(like)}: whose settings are this "
            f"family's? Write one of {', '.join(list_families())}"
        )
    return replace(_FAMILIES[like](), name=str(folder), roles=_roles_in(folder))


def family_file(folder: Path) -> dict[str, Any]:
    """What ``family.json`` says: "like", a family's name, and "edition", of the pocket world.

    Raises:
        UserError: it is not there, or is no object.
    """
    try:
        said = read_json(folder / FAMILY_FILE)
        if isinstance(said, dict):
            return said
        reason = "it is no object"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise UserError(
        f"{str(folder)!r} is no folder of a family: no {FAMILY_FILE} can be read there ({reason})"
    )


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
