"""The rows of MUMU's galleries: who draws the pictures of prompts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any

from hb_tta.errors import UserError
from hb_tta.experiments.paper.fine_tuned import lora_of
from hb_tta.experiments.paper.lora import Training
from hb_tta.experiments.paper.mumu_prompts import Pictured
from hb_tta.experiments.reproduction import Options
from hb_tta.locks import held
from hb_tta.store import content_key

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.families import Family

OURS, TUNED_BASE = "MUMU", "another base"
AUGMENTED, UNAUGMENTED = "with altered crops", "without altered crops"
# Arms of mumu_arms.py.
WORDS, SAME = "words, text encoders", "crops of the scene"
OTHER, EXCHANGED, CONTROL = "crops of another scene", "crops exchanged", "neither (control)"
QUICK_TRAINING = (
    *("max_steps=12", "align_steps=6", "warmup_steps=2", "samples=64", "held_out=4"),
    *("batch_size=8", "micro_batch_size=8", "evaluate_steps=100", "save_steps=6"),
)

Pictures = Mapping[str, "Sequence[Sequence[Image]]"]
"""Row → a list of pictures a prompt."""


def _by_mumu(
    options: Options, prompts: Sequence[Pictured], n: int, family: Family | None = None, **own: Any
) -> list[list[Image]]:
    from hb_tta.mumu import Mumu

    mumu = Mumu.from_pretrained(
        family or options.family, store=options.store, device=options.device,
        **{**sampling(options), **own},
    )  # fmt: skip
    told = False if options.quiet else None
    made = mumu.iter_draw([one.prompt for one in prompts], n, options.seed, progress=told)
    return [its.views for its in made]


def _by_words(options: Options, prompts: Sequence[Pictured], n: int) -> list[list[Image]]:
    from hb_tta.augment import Augmenter
    from hb_tta.context import DescribedContext

    augmenter = Augmenter.from_pretrained(
        "i2t2i", family=options.family, store=options.store, device=options.device,
        **sampling(options),
    )  # fmt: skip
    contexts = [DescribedContext(one.reference, one.told) for one in prompts]
    return [its.views for its in augmenter.iter_augment(contexts, n, options.seed, progress=False)]


def _pasted(options: Options, prompts: Sequence[Pictured], n: int) -> list[list[Image]]:
    from hb_tta.experiments.mumu_study import paste

    return [[picture] for picture in paste([one.asked for one in prompts if one.asked])]


def sampling(options: Options) -> dict[str, Any]:
    known = ("num_inference_steps", "guidance_scale", "height", "width")
    return {name: value for name, value in options.settings.items() if name in known}


def of_mumu(options: Options, prompts: Sequence[Pictured], n: int) -> Pictures:
    return {OURS: _by_mumu(options, prompts, n)}


def beside_words(options: Options, prompts: Sequence[Pictured], n: int) -> Pictures:
    return {
        f"{OURS}, the prompt": _by_mumu(options, prompts, n),
        "a description of it alone": _by_words(options, prompts, n),
    }


def by_tokens(options: Options, prompts: Sequence[Pictured], n: int) -> Pictures:
    return {
        f"{OURS}, {tokens} {'token' if tokens == 1 else 'tokens'} an image": _by_mumu(
            options, prompts, n, tokens=tokens
        )
        for tokens in token_counts(options)
    }


def on_bases(options: Options, prompts: Sequence[Pictured], n: int) -> Pictures:
    return {
        "its own base": _by_mumu(options, prompts, n),
        "the same LoRA on another": _by_mumu(options, prompts, n, tuned_base(options)),
    }


def beside_pasted(options: Options, prompts: Sequence[Pictured], n: int) -> Pictures:
    rows = {OURS: _by_mumu(options, prompts, n)}
    for kind in (AUGMENTED, UNAUGMENTED):
        if family := trained_family(options, kind):
            rows[f"{OURS}, {kind}"] = _by_mumu(options, prompts, n, family)
    if all(one.asked for one in prompts):
        rows["the crops pasted"] = _pasted(options, prompts, n)
    return rows


def token_counts(options: Options) -> list[int]:
    """Tokens an image that are set beside each other: square numbers around the trained one."""
    trained = trained_tokens(options)
    tried = [trained // 16 if trained % 16 == 0 else 0, trained // 4 if trained % 4 == 0 else 0]
    found = [one for one in (*tried, trained, 4 * trained) if one and isqrt(one) ** 2 == one]
    return list(dict.fromkeys(found))


def trained_tokens(options: Options) -> int:
    """Tokens an image that the family's MUMU was trained with."""
    from hb_tta.generators.mumu.folder import read_index

    return read_index(options.family.weights("mumu")).tokens


def no_other_base(options: Options) -> UserError:
    """Where nothing makes another base."""
    return UserError(
        f"family {options.family.name!r} has no LoRA that makes another base of its generator: "
        "`hb-tta reproduce table5 --train` with the same --out trains one"
    )


def tuned_base(options: Options) -> Family:
    """The family with another base: its generator with Hummingbird's LoRA merged into it.

    It stands for the paper's community fine-tunes, which are trained as it is: MUMU's training has
    not seen it.

    Raises:
        UserError: the family has no LoRA, and none was trained for table 5.
    """
    from hb_tta.generators.loading import load_sdxl
    from hb_tta.generators.lora import merge_lora

    family = options.family
    generator, lora = family.weights("generator"), lora_of(options)
    if lora is None:
        raise no_other_base(options)
    key = content_key({"base": [generator.fingerprint(), lora.fingerprint()]})[:12]
    folder = options.folder / "bases" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held(folder.with_name(f"{key}.lock"), timeout=-1):
        if not folder.is_dir():
            pipe = load_sdxl(generator, dtype="float32", image_encoder=None, embeds_images=False)
            merge_lora(pipe.unet, lora.local_folder())
            aside = folder.with_name(f"{key}.unfinished")
            shutil.rmtree(aside, ignore_errors=True)
            pipe.save_pretrained(aside)
            aside.rename(folder)
    return family.with_roles(generator=folder)


def training_with(kind: str) -> Training:
    """The family's recipe, with the paper's share of altered crops or without any."""
    changes = (f"augmented_share={0.2 if kind == AUGMENTED else 0}",)
    return Training(f"MUMU {kind}", "mumu", changes, quick_changes=QUICK_TRAINING)


def both_trainings(options: Options) -> list[Training]:
    """They, where there is a recipe of a MUMU, and an Idefics2 that it begins with."""
    named = any(setting.startswith("vlm=") for setting in options.training)
    if "mumu" not in options.family.recipes or not (named or "mllm_two" in options.family.roles):
        return []
    return [training_with(kind) for kind in (AUGMENTED, UNAUGMENTED)]


def trained_family(options: Options, kind: str) -> Family | None:
    """The family with a MUMU that was trained so; None until it is."""
    if "mumu" not in options.family.recipes:
        return None
    made = training_with(kind).lora(options)
    return None if made is None else options.family.with_roles(mumu=made)
