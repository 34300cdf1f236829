"""The shapes in which diffusers' pipelines take an image: which arguments carry image and text.

A thin table. Which shape a pipeline has its own arguments say (``call_of``). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeAlias

from hb_tta.context import DescribedContext
from hb_tta.errors import UserError
from hb_tta.generators.arguments import check_strength
from hb_tta.generators.protocol import Conditions

Spec: TypeAlias = Any
"""A ``DiffusersSpec``, whose module imports this one."""

KEEP = "Make a new picture in which this stays exactly as it is: {description}"
KEEP_ALL = "Make a new picture of the same thing."  # where nothing is described
CHANGE = "Change everything else: the place, the background, the light and the point of view."
LEAST_SIDE = 64  # pixels: FLUX.2's
_STOPS = (*".!?…。！？", "")  # "": of quotes alone
_MARK = "<img><|image_1|></img>"  # where OmniGen's text has its image


@dataclass(frozen=True)
class Call:
    """A shape.

    Attributes:
        name: of the shape.
        encode: (pipeline, contexts, spec, whether guidance is on, device) → its arguments.
        told: description → the text.
        at_once: the most views a call; ``None``: any number.
        constants: fields of the spec that the pipeline takes under their own names.
        takes: arguments that the base's own class must have; none: a sibling of it is loaded.
        resizes: whether ``encode`` brings the image to the view's size where the call takes none.
    """

    name: str
    encode: Callable[[Any, Sequence[DescribedContext], Spec, bool, Any], Conditions]
    told: Callable[[str], str] = str
    at_once: int | None = None
    constants: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    resizes: bool = False


def instruction(description: str) -> str:
    """What an edit model is told of a description, whose last sentence ends before the next."""
    kept = description.strip()
    if not kept:
        return f"{KEEP_ALL} {CHANGE}"
    stop = "" if kept.rstrip("\"')]”’")[-1:] in _STOPS else "."
    return f"{KEEP.replace('{description}', kept)}{stop} {CHANGE}"


def _texts(contexts: Sequence[DescribedContext]) -> list[str]:
    return [context.description or "" for context in contexts]


def _images(contexts: Sequence[DescribedContext]) -> list[Any]:
    return [context.image.convert("RGB") for context in contexts]


def _large(image: Any) -> Any:
    """An image as it is, or enlarged: edit models refuse small ones."""
    times = LEAST_SIDE / min(image.size)
    if times <= 1:
        return image
    return image.resize([round(times * side) for side in image.size], 3)  # bicubic


def _edit(pipe: Any, contexts: Any, spec: Spec, guided: bool, device: Any) -> Conditions:
    from hb_tta.generators.loading import arguments_of

    images = [_large(image) for image in _images(contexts)]
    if not {"height", "width"} <= arguments_of(pipe).keys():  # its views have the image's size
        images = [_sized(image, spec) for image in images]
    return {"prompt": _texts(contexts), "image": images}


def _sized(image: Any, spec: Spec) -> Any:
    """An image with the sides that are said; one that is not said stays what it is."""
    size = (spec.width or image.width, spec.height or image.height)
    return image if image.size == size else image.resize(size, 3)  # bicubic


def _noised(pipe: Any, contexts: Any, spec: Spec, guided: bool, device: Any) -> Conditions:
    from hb_tta.generators.sampling import at_view_size

    images = [at_view_size(pipe, c.image, spec.height, spec.width) for c in contexts]
    return {"prompt": _texts(contexts), "image": images}


def _adapter(pipe: Any, contexts: Any, spec: Spec, guided: bool, device: Any) -> Conditions:
    return {"prompt": _texts(contexts), "ip_adapter_image": _images(contexts)}


def _image(pipe: Any, contexts: Any, spec: Spec, guided: bool, device: Any) -> Conditions:
    return {"image": _images(contexts)}


def _inputs(pipe: Any, contexts: Any, spec: Spec, guided: bool, device: Any) -> Conditions:
    return {
        "prompt": [f"{_MARK} {text}" for text in _texts(contexts)],
        "input_images": [[_large(image)] for image in _images(contexts)],
    }


def _embedded(pipe: Any, contexts: Any, spec: Spec, guided: bool, device: Any) -> Conditions:
    from hb_tta.generators.sdxl import image_conditions

    texts, images = _texts(contexts), _images(contexts)
    return image_conditions(pipe, texts, images, guided=guided, device=device)


CALLS: Mapping[str, Call] = MappingProxyType(
    {
        call.name: call
        for call in (
            # To FLUX.2, Qwen-Image-Edit-Plus and others a list of images is of one picture.
            Call("edit", _edit, instruction, 1, takes=("prompt", "image"), resizes=True),
            Call("img2img", _noised, constants=("strength",), resizes=True),
            # A list of images is one an adapter.
            Call("ip_adapter", _adapter, at_once=1, takes=("prompt", "ip_adapter_image")),
            Call("image", _image, takes=("image",)),
            Call("input_images", _inputs, instruction, 1, takes=("prompt", "input_images")),
            # SDXL with the image's CLIP embedding in place of the pooled text's, as Hummingbird.
            Call("embedded", _embedded),
        )
    }
)


@lru_cache(maxsize=32)
def call_of(spec: Spec) -> str:
    """The shape of a base's call: what the class that its index names takes.

    Raises:
        UserError: the base is no pipeline, its class is not in this diffusers, or it takes no
            image.
    """
    from hb_tta.generators.bases import call_arguments
    from hb_tta.generators.reading import read_index

    index = read_index(spec.base)
    taken = call_arguments(spec.base).keys()
    if spec.ip_adapter is not None:
        return "ip_adapter"
    if "input_images" in taken:
        return "input_images"
    if {"image", "strength"} <= taken:
        return "img2img"
    if "image" in taken:
        return "edit" if "prompt" in taken else "image"
    tower = index.get("image_encoder", [None, None])[1]
    if index["_class_name"] == "StableDiffusionXLPipeline" and (spec.image_encoder or tower):
        return "embedded"
    raise UserError(
        f"base={spec.base.location!r} is a {index['_class_name']}, which takes a text alone: give "
        "call=img2img to noise the image in part, an ip_adapter, or --method i2t2i for the text"
    )


def load_call(call: Call, spec: Spec) -> Any:
    """A spec's pipeline on the CPU, with the adapter and the LoRAs in it.

    Raises:
        UserError: weights are missing or damaged, it is not called in that shape, or a setting is
            of no use there.
    """
    _check_shape(call, spec)
    _check_used(call, spec)
    pipe = _loaded(call, spec)
    if spec.ip_adapter is not None:
        _add_adapter(pipe, spec)
    return pipe


def _check_shape(call: Call, spec: Spec) -> None:
    """Raises UserError unless the base's own class takes what a shape gives it, and needs no more.

    Image to image and SDXL's embedding are of sibling classes, whose loaders have sentences.
    """
    from hb_tta.generators.bases import call_arguments
    from hb_tta.generators.reading import read_index

    if not call.takes:
        return
    taken = call_arguments(spec.base).keys()
    lacking = [name for name in call.takes if name not in taken]
    wrong = f"takes no {' and no '.join(lacking)}" if lacking else ""
    if not wrong and "prompt" in taken and "prompt" not in call.takes:
        wrong = "takes a prompt besides"
    if wrong:
        given = "call" if spec.ip_adapter is None else "ip_adapter"
        raise UserError(
            f"call={call.name}: base={spec.base.location!r} is a "
            f"{read_index(spec.base)['_class_name']}, which {wrong}: leave {given} out"
        )


def _check_used(call: Call, spec: Spec) -> None:
    """Raises UserError if a setting that is in the key would decide nothing in a shape."""
    from hb_tta.generators.bases import check_no_image_encoder, takes_part

    if call.name == "img2img":
        check_strength(spec.strength, spec.num_inference_steps)
        check_no_image_encoder(spec.base, spec.image_encoder)
    elif spec.strength != type(spec).strength:
        raise UserError(
            f"strength={spec.strength} is of no use to base={spec.base.location!r}, which is "
            f"called as {call.name}: leave it out, or give call=img2img"
        )
    elif call.takes and not takes_part(spec.base, "image_encoder"):
        check_no_image_encoder(spec.base, spec.image_encoder)


def _loaded(call: Call, spec: Spec) -> Any:
    from hb_tta.generators.loading import (
        load_image_encoder,
        load_image_to_image,
        load_pipeline,
        load_sdxl,
    )

    merged = [one for one in (spec.few_step_lora, spec.lora) if one is not None]
    options: dict[str, Any] = {"dtype": spec.dtype, "solver": spec.solver}
    if merged:
        options["unet_dtype"] = "float32"
    if call.name == "embedded":
        encoder = spec.image_encoder
        pipe = load_sdxl(spec.base, image_encoder=encoder, embeds_images=True, **options)
    elif call.name == "img2img":
        pipe = load_image_to_image(spec.base, **options)
    else:
        tower = spec.image_encoder
        parts = {} if tower is None else load_image_encoder(tower, spec.dtype)
        pipe = load_pipeline(spec.base, **options, **parts)
    _merge(pipe, spec)
    return pipe


def _merge(pipe: Any, spec: Spec) -> None:
    """Both LoRAs into the UNet, which is rounded to its number format once, after the last."""
    from hb_tta.generators.lora import merge_lora

    scales = [(spec.few_step_lora, 1.0), (spec.lora, spec.lora_scale)]
    given = [(weights.local_folder(), scale) for weights, scale in scales if weights is not None]
    if given and "unet" not in pipe.components:
        raise UserError(
            f"base={spec.base.location!r} is a {type(pipe).__name__} without a UNet, and LoRAs "
            "here are for UNets: leave lora and few_step_lora out"
        )
    for number, (folder, scale) in enumerate(given, 1):
        dtype = spec.dtype if number == len(given) else "float32"
        merge_lora(pipe.unet, folder, scale=scale, dtype=dtype)


def _add_adapter(pipe: Any, spec: Spec) -> None:
    from hb_tta.generators.reading import reading

    assert spec.ip_adapter is not None and spec.ip_adapter_file is not None
    if not hasattr(pipe, "load_ip_adapter"):
        raise UserError(
            f"base={spec.base.location!r} is a {type(pipe).__name__}, which takes no IP-Adapter"
        )
    if not spec.ip_adapter_file.endswith(".safetensors"):
        raise UserError(f"ip_adapter_file={spec.ip_adapter_file!r}: give a .safetensors file")
    with reading(spec.ip_adapter, "an IP-Adapter"):
        path = spec.ip_adapter.file(spec.ip_adapter_file)
        pipe.load_ip_adapter(
            str(path.parent), subfolder="", weight_name=path.name, image_encoder_folder=None
        )
        pipe.set_ip_adapter_scale(spec.ip_adapter_scale)
    if pipe.components.get("image_encoder") is None:
        raise UserError(
            f"base={spec.base.location!r} has no image encoder for the IP-Adapter: name the one "
            "that it was trained with by image_encoder="
        )
