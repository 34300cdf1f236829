"""Options on the command line, and what its help tells of the methods' own settings."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from types import MappingProxyType
from typing import Any

from hb_tta import spelling
from hb_tta.device import check_device
from hb_tta.errors import UserError
from hb_tta.families import get_family, list_families
from hb_tta.generators import DEFAULT, get_method, list_methods
from hb_tta.generators.fields import Setting
from hb_tta.generators.settings import family_defaults
from hb_tta.settings.asked import by_name, own_settings
from hb_tta.settings.options import OPTIONS
from hb_tta.spelling import ARGS

FLAGS: dict[str, tuple[str, Callable[[str], Any], str, str]] = {
    "lora": ("--lora", str, "DIR|ID", "a LoRA, or 'none' for the untuned generator"),
    "num_inference_steps": ("--steps", int, "N", "denoising steps"),
    "guidance_scale": ("--guidance", float, "SCALE", "guidance scale"),
    "base": ("--base", str, "DIR|ID", "the generator's pipeline"),
}
"""Of ``OFFERED`` those with a flag of their own: flag, type, metavar, help."""


_ARGS = (
    "any setting by name, the method's own too (`hb-tta list` has them): key=value,…, a JSON "
    "object, or @file.json"
)
_DEST = "view_"  # before an option's name in a parser's namespace, apart from the command's own


def add_arguments(
    parser: argparse._ActionsContainer,
    *names: str,
    flags: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Flags for options, and ``--augment_args`` for all of them; ``by_arguments`` reads both.

    Args:
        names: the options, and names of ``FLAGS``, that get a flag; none: all of them but for
            those about who answers.
        flags: name → its flag, where the usual one means something else in this command.
    """
    for name, one in OPTIONS.items():
        if name in names or not (names or one.answering):
            _add_option(parser, name, flags.get(name, one.flag))
    for name, (flag, kind, metavar, help) in FLAGS.items():
        if name in names or not names:
            flag, help = flags.get(name, flag), f"{help} (default: the family's)"
            parser.add_argument(flag, dest=_DEST + name, type=kind, metavar=metavar, help=help)
    parser.add_argument(ARGS, dest=f"{_DEST}args", metavar="KEY=VALUE,…", help=_ARGS)
    parser.add_argument(ARGS.replace("_", "-"), dest=f"{_DEST}args", help=argparse.SUPPRESS)


def _add_option(parser: argparse._ActionsContainer, name: str, flag: str) -> None:
    option, dest = OPTIONS[name], _DEST + name
    if option.metavar is None:
        parser.add_argument(flag, dest=dest, action="store_true", default=None, help=option.help)
        return
    reads: dict[str, Any] = {
        "dest": dest,
        "type": spelling.argument(option.read),
        "metavar": option.metavar,
    }
    parser.add_argument(flag, help=option.help, **reads)
    if option.also:
        parser.add_argument(f"--{option.also}", help=argparse.SUPPRESS, **reads)


def by_arguments(arguments: argparse.Namespace, *, elsewhere: bool = False) -> dict[str, Any]:
    """What the options of ``add_arguments`` were given.

    Args:
        elsewhere: whether models run on other machines alone, whose devices nobody knows here.

    Raises:
        UserError: a setting stands twice, ``--augment_args`` cannot be read, or this machine has
            no such device.
    """
    flags = {
        place.removeprefix(_DEST): value
        for place, value in vars(arguments).items()
        if place.startswith(_DEST) and value is not None
    }
    named = by_name(flags.pop("args", ""))
    for name in named:
        if name in flags:
            raise UserError(f"{name} stands in {ARGS} and as an option of its own: leave one out")
    found = {**named, **flags}
    if not elsewhere:
        check_device(str(found.get("device", "")))
    return found


def settings_table(width: int = 90) -> str:
    """Each method's own settings with their defaults, for help texts."""
    lines = []
    for method in list_methods():
        try:
            told = "; ".join(spelled(method, one) for one in own_settings(method).values())
        except UserError as error:  # another package's, which does not import
            told = str(error)
        text = f"{method}: {told or 'none'}"
        lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ")
    return "\n".join([f"settings of the methods, by name in {ARGS}:", *lines])


def spelled(method: str, setting: Setting) -> str:
    """``name=default``, other families' defaults, and its short name where it has one."""
    told = [] if setting.alias is None else [f"or {setting.alias}="]
    if setting.role is not None:
        told.append("the family's")
    for name in list_families():
        values = family_defaults(get_method(method), get_family(name))
        if values.get(setting.name, setting.default) != setting.default:
            told.append(f"{name}: {values[setting.name]}")
    unsaid = setting.default is DEFAULT or setting.default is MISSING
    value = "" if unsaid else str(setting.default).lower()
    return f"{setting.name}={value}" + (f" ({', '.join(told)})" if told else "")
