"""``hb-tta lora``: what a LoRA is, and its other formats."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hb_tta.lora import Lora

DESCRIPTION = """\
inspect tells a LoRA's format, rank, alpha, scale (alpha/r), modules and parameters. convert
writes it in another format: peft, a folder for this package and PEFT; diffusers, a file for
load_lora_weights; kohya, a file for ComfyUI and sd-scripts. All of them keep the scale, and a
LoRA whose scale is lost is refused unless --alpha tells it. With --lora-scale it is written weaker
or stronger. A LoRA of SDXL in sd-scripts' own names (input_blocks_…) is read as well."""

EXAMPLES = """\
examples:
  hb-tta lora inspect run
  hb-tta lora convert run --to kohya --out comfy
  hb-tta lora convert run --to peft --lora-scale 0.5 --out half"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = (
        "hb-tta lora inspect LORA [--alpha A] [--json]\n"
        "       hb-tta lora convert LORA --to FORMAT --out DIR [--lora-scale S] [--alpha A]"
    )
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("action", choices=("inspect", "convert"), help="what to do")
    parser.add_argument("lora", metavar="LORA", help="a LoRA's folder or file")
    parser.add_argument("--to", choices=("peft", "diffusers", "kohya"), help="the format to write")
    parser.add_argument("--out", metavar="DIR", help="the folder to write into")
    parser.add_argument(
        "--lora-scale",
        type=float,
        default=1.0,
        metavar="S",
        help="multiplies alpha: a weaker LoRA gives up some reward and keeps diversity (default: "
        "1, as trained)",
    )
    parser.add_argument(
        "--alpha",
        type=float,
        metavar="A",
        help="of a file that does not say it; trainers that write none mostly took the rank",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Inspect or convert."""
    from hb_tta.errors import UserError
    from hb_tta.lora import read_lora, write_lora

    lora, form = read_lora(Path(arguments.lora), arguments.alpha)
    if arguments.action == "inspect":
        found = _found(lora, form)
        print(json.dumps(found, indent=2) if arguments.json else _table(found))
        return 0
    if arguments.to is None or arguments.out is None:
        raise UserError("convert needs --to FORMAT and --out DIR")
    if not (math.isfinite(arguments.lora_scale) and arguments.lora_scale != 0):
        raise UserError(f"--lora-scale {arguments.lora_scale} leaves no LoRA: 1 is as trained")
    written = write_lora(lora.scaled(arguments.lora_scale), Path(arguments.out), arguments.to)
    print(json.dumps({"written": str(written)}) if arguments.json else written)
    return 0


def _found(lora: Lora, form: str) -> dict[str, Any]:
    """What ``inspect`` tells; a list where not all layers have the same."""
    from hb_tta.lora.parts import DTYPES

    return {
        "format": form,
        "rank": _one_or_all(lora.ranks.values()),
        "alpha": _one_or_all(lora.alphas.values()),
        "scale": _one_or_all(lora.scales().values()),
        "modules": len(lora.modules),
        "target_modules": list(lora.target_modules or lora.modules),
        "parameters": lora.parameters,
        "dtype": sorted({DTYPES[part.dtype] for part in lora.parts.values()}),
    }


def _one_or_all(values: Iterable[float]) -> Any:
    found = sorted(set(values))
    return found[0] if len(found) == 1 else found


def _table(found: dict[str, Any]) -> str:
    values = (
        (name, ", ".join(map(str, value)) if isinstance(value, list) else value)
        for name, value in found.items()
    )
    return "\n".join(f"{name:15} {value}" for name, value in values)
