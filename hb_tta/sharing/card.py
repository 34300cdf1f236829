"""The data set card: what a set holds, which models made it, how to use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hb_tta.sharing.entries import Exported
from hb_tta.views.proof import SHARED


def text(format: str, suffix: str, done: Exported) -> str:
    """README.md of a set, with the head that the hub reads."""
    methods = ", ".join(f"{name} ({count})" for name, count in sorted(done.methods.items()))
    return "\n".join(
        [
            "---",
            "license: other",
            "tags: [test-time augmentation, synthetic]",
            "configs:",
            *_configs(suffix, done),
            "---",
            "",
            "# Generated views, by hb-tta",
            "",
            f"Views by method: {methods}. With them "
            f"{done.entries['descriptions']} descriptions and {done.entries['scores']} scores.",
            "Every entry tells what it was made from, and lies under the hash of that.",
            "",
            "## How to use it",
            "",
            "```",
            "hb-tta store import THIS_FOLDER --store views",
            f"lmms-eval … --augment {_first(done)} --augment_args store=views,…",
            "```",
            "",
            "With the settings below nothing is generated, and no generator's weights are needed.",
            f"To look at them: `datasets.load_dataset('THIS_FOLDER', 'views')` ({format}).",
            "",
            "## Which models made it",
            "",
            "| weights | fingerprint | licence |",
            "| --- | --- | --- |",
            *_weights(done.weights),
            "",
            *_settings(done),
            "",
            "## Licences",
            "",
            "Views are made from images that are not in this set, by the models above: both "
            "licences bind what may be done with them. Whoever publishes this set says here which.",
            "",
        ]
    )


def _configs(suffix: str, done: Exported) -> Iterator[str]:
    for namespace in ("views", *(name for name in SHARED if name != "views")):
        if done.entries[namespace]:
            yield f"- config_name: {namespace}"
            yield f'  data_files: "{namespace}/*{suffix}"'
            if namespace == "views":
                yield "  default: true"


def _first(done: Exported) -> str:
    return max(done.methods, key=lambda name: done.methods[name])


def _weights(names: dict[str, str]) -> Iterator[str]:
    for name, fingerprint in sorted(names.items()):
        bundled = name.startswith("hb_tta:")
        place = "/".join(name.split("@")[0].split("/")[:2])
        where = "Apache-2.0, as hb-tta" if bundled else f"see https://huggingface.co/{place}"
        yield f"| `{name}` | `{fingerprint}` | {where} |"
    if not names:
        yield "| not known by name | see the settings | ask whoever made them |"


def _settings(done: Exported) -> Iterator[str]:
    """The JSON of every generator, describer and judge, as their entries have it."""
    for model, count in sorted(done.models.items()):
        told: dict[str, Any] = json.loads(model)
        yield f"Of {count} entries:"
        yield "```json"
        yield json.dumps(told, indent=1)
        yield "```"
