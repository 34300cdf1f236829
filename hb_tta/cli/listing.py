"""``hb-tta list``: what there is to choose from, and what is installed."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import MISSING
from importlib import metadata
from typing import Any

from hb_tta.families import get_family, list_families
from hb_tta.generators import DEFAULT, Setting, get_method, list_methods, method_settings
from hb_tta.generators.settings import family_defaults
from hb_tta.weights import Weights

# Whose versions a bug report needs, and the harnesses that an extra brings.
PACKAGES = (
    "hb-tta",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "open_clip_torch",
    "lmms_eval",
    "clip_benchmark",
    "ms-vlmeval",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta list [--json]"
    parser.description = (
        "The methods that generate views and their settings, the families with the folder or\n"
        "hub id of every role, and the versions of what is installed."
    )
    parser.epilog = (
        "example:\n"
        '  hb-tta list --json | python -c "import json, sys; '
        "print(json.load(sys.stdin)['families']['pocket']['mllm'])\""
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print the listing; no model is loaded."""
    listing = collect()
    print(json.dumps(listing, indent=2, default=str) if arguments.json else as_text(listing))
    return 0


def collect() -> dict[str, Any]:
    """Methods, their settings, families (role → folder or hub id), versions (None: none)."""
    return {
        "methods": {name: _summary(name) for name in list_methods()},
        "settings": {name: _settings(name) for name in list_methods()},
        "families": {name: _locations(name) for name in list_families()},
        "installed": {package: _version(package) for package in PACKAGES},
    }


def as_text(listing: dict[str, Any]) -> str:
    """The listing in aligned columns."""
    parts = ["methods", _columns(listing["methods"])]
    for name, settings in listing["settings"].items():
        parts += [
            "",
            f"settings of {name}",
            _columns({s: _told(s, it) for s, it in settings.items()}),
        ]
    for name, roles in listing["families"].items():
        parts += ["", f"family {name}", _columns(roles)]
    versions = {name: version or "not installed" for name, version in listing["installed"].items()}
    return "\n".join([*parts, "", "installed", _columns(versions)])


def _columns(table: dict[str, str]) -> str:
    width = max(map(len, table), default=0)
    return "\n".join(f"  {name:<{width}}  {value}".rstrip() for name, value in table.items())


def _summary(method: str) -> str:
    """The first line of the spec's docstring."""
    return (get_method(method).__doc__ or "").strip().partition("\n")[0]


def _settings(method: str) -> dict[str, dict[str, Any]]:
    """What each is, its short name (None: none), the role that fills it, its default by family."""
    spec = get_method(method)
    return {
        name: {
            "help": setting.help,
            "alias": setting.alias,
            "role": setting.role,
            "default": _defaults(spec, setting),
        }
        for name, setting in method_settings(spec).items()
    }


def _defaults(spec: type[Any], setting: Setting) -> dict[str, Any]:
    """Family → the value where nobody says otherwise; empty where that is no plain value."""
    if setting.default in (DEFAULT, MISSING) or setting.name == "dtype":
        return {}
    return {
        name: family_defaults(spec, get_family(name)).get(setting.name, setting.default)
        for name in list_families()
    }


def _told(name: str, setting: dict[str, Any]) -> str:
    """One setting in a line: what it is, its short name, its default."""
    notes = [f"short: {setting['alias']}"] if setting["alias"] else []
    values = {str(value) for value in setting["default"].values()}
    if setting["role"]:
        notes.append(f"default: the family's {setting['role']}")
    elif name == "dtype":
        notes.append("default: what suits the device")
    elif not values:
        notes.append("must be given")
    elif len(values) == 1:
        notes.append(f"default: {values.pop()}")
    else:
        notes += [f"default of {family}: {value}" for family, value in setting["default"].items()]
    told = f"{setting['help'].rstrip('.')} ({'; '.join(notes)})"
    return re.sub(r"\bNone\b", "none", told)  # as it is typed


def _locations(family: str) -> dict[str, str]:
    return {role: _location(weights) for role, weights in get_family(family).roles.items()}


def _location(weights: Weights) -> str:
    return f"{weights.location}/{weights.subfolder}" if weights.subfolder else weights.location


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
