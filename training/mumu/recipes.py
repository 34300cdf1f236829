"""What can be set about a training of MUMU, and its recipes: functions that give settings.

(p): said in the paper; everything else is a default for what it leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from hb_tta.errors import UserError
from hb_tta.training.ranges import OneOf, Within
from hb_tta.training.settings import Common

IDEFICS2 = "HuggingFaceM4/idefics2-8b"
PARALLEL = ("ddp", "fsdp2")
MEMORY = ("none", "block")
_SHARE = Within(least=0, most=1)
_RATE = Within(least=0, most=1)
_RANK = Within(least=0, most=4096)


@dataclass(frozen=True)
class MumuSettings(Common):
    """Everything that decides a training of MUMU.

    It begins with ``align_steps`` steps without a UNet: each token that the connector gives is
    regressed on what the text encoders say of the equivalent caption. The others denoise.
    """

    free: ClassVar[frozenset[str]] = Common.free | {"vlm", "start", "parallel", "memory"}

    # ── Models ──
    vlm: str | None = None  # an Idefics2, a folder or hub id; None: the family's
    start: str | None = None  # a MUMU folder to go on from; None: from nothing
    connector_width: Annotated[int, Within(least=8, most=2**14)] = 2048
    connector_layers: Annotated[int, Within(least=1, most=200)] = 16  # (p)
    connector_heads: Annotated[int, Within(least=1, most=1024)] = 32
    vlm_rank: Annotated[int, _RANK] = 8  # of a LoRA (p); 0: frozen
    unet_rank: Annotated[int, _RANK] = 8  # (p); 0: frozen
    # Of both LoRAs: alpha is the rank
    vlm_targets: tuple[str, ...] = (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    unet_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    # ── Prompts ──
    tokens: Annotated[int, Within(least=1, most=4900)] = 324  # an image (p: 324, then 1,296)
    registers: Annotated[int, Within(least=0, most=256)] = 0  # end tokens behind every prompt
    most_crops: Annotated[int, Within(least=0, most=4)] = 3  # of a prompt (p)
    crop_share: Annotated[float, _SHARE] = 1.0  # of the words with a box that get their crop
    # Of these words, the share that keeps its noun alone: the crop says the rest
    bare_share: Annotated[float, _SHARE] = 0.0
    persons_only: bool = False  # one crop, of a person or a face (p: stage 2)
    head_share: Annotated[float, _SHARE] = 0.7  # of persons' crops, their head in its place (p)
    augmented_share: Annotated[float, _SHARE] = 0.2  # of crops: cut, mirrored, noisy, grey (p)
    whole_share: Annotated[float, _SHARE] = 0.3  # of prompts with a picture of the whole target (p)
    whole_kinds: tuple[str, ...] | None = ("canny",)  # (p: canny, depth, sketch)
    drop_share: Annotated[float, _SHARE] = 0.1  # of prompts without conditions, for guidance
    image_size: Annotated[int | None, Within(least=8, most=8192)] = None  # None: the generator's
    cache_states: bool = False  # of a frozen VLM, on disk: every row has one prompt for all epochs

    # ── Stages and rates ──
    align_steps: Annotated[int, Within(least=0, most=10**9)] = 0
    align_rate: Annotated[float, _RATE] = 1e-4  # of connector and VLM in these steps
    connector_rate: Annotated[float, _RATE] = 1e-5  # (p)
    vlm_rate: Annotated[float, _RATE] = 3e-6  # (p)
    unet_rate: Annotated[float, _RATE] = 5e-6  # (p)

    # ── Processes and memory ──
    parallel: Annotated[str, OneOf(PARALLEL)] = "ddp"  # "fsdp2": spread over processes (p)
    memory: Annotated[str, OneOf(MEMORY)] = "block"  # what is computed again

    def check_together(self) -> None:
        """See ``Common.check_together``."""
        super().check_together()
        if round(self.tokens**0.5) ** 2 != self.tokens:
            raise UserError(
                f"tokens={self.tokens} is no square number: an image is a square of patches, use "
                "64, 324 or 1296"
            )
        if self.connector_width % self.connector_heads:
            raise UserError(
                f"connector_width={self.connector_width} cannot be shared by "
                f"connector_heads={self.connector_heads}: use a multiple"
            )
        if self.cache_states and self.vlm_rank:
            raise UserError(
                f"cache_states=true keeps what a frozen VLM says, and vlm_rank={self.vlm_rank} "
                "trains it: use vlm_rank=0, or cache_states=false"
            )

    def less_memory(self) -> str:
        """See ``Common.less_memory``."""
        if self.micro_batch_size > 1:
            return super().less_memory()
        if self.memory == "none":
            return "--set memory=block"
        return "--set parallel=fsdp2 on several GPUs, or fewer tokens in a new --out"


def mumu_align() -> MumuSettings:
    """Connector and VLM alone, against what the text encoders say: no UNet, within 24 GB."""
    steps = 20_000
    return MumuSettings(
        vlm=IDEFICS2, align_steps=steps, max_steps=steps, warmup_steps=500, batch_size=64,
        bare_share=0.5, unet_rank=0, whole_share=0.0, augmented_share=0.0, drop_share=0.0,
    )  # fmt: skip


def mumu_1() -> MumuSettings:
    """The paper's first stage: up to three crops and one picture of the whole, 324 tokens each."""
    return MumuSettings(
        vlm=IDEFICS2, max_steps=250_000, warmup_steps=500, save_steps=500, evaluate_steps=2500
    )


def mumu_2() -> MumuSettings:
    """The paper's second stage: one crop of a person or a face, in 1,296 tokens."""
    return replace(
        mumu_1(), tokens=1296, persons_only=True, most_crops=1, whole_share=0.0, max_steps=50_000
    )


def pocket_mumu() -> MumuSettings:
    """The bundled family on a CPU: 1,700 steps against the text encoders, 1,200 of denoising."""
    return MumuSettings(
        family="pocket", data="pocket-mumu", samples=16_384, vlm_rank=16, unet_rank=16,
        connector_width=192, connector_layers=3, connector_heads=6, tokens=16, registers=20,
        most_crops=2, crop_share=0.8, bare_share=0.7, whole_share=0.0, head_share=0.0,
        align_steps=1700, align_rate=1e-3, connector_rate=7e-4, vlm_rate=5e-4, unet_rate=1e-3,
        max_steps=2900, decay_steps=3000, warmup_steps=20, beta_2=0.99, batch_size=32,
        micro_batch_size=32, save_steps=50, evaluate_steps=300, memory="none",
    )  # fmt: skip


MUMU_RECIPES: dict[str, Callable[[], MumuSettings]] = {
    "mumu-align": mumu_align,
    "mumu-1": mumu_1,
    "mumu-2": mumu_2,
    "pocket-mumu": pocket_mumu,
}
