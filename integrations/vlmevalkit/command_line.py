"""Our flags out of VLMEvalKit's command line, and into it what the run then needs."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.families import list_families
from hb_tta.generators import list_methods
from hb_tta.settings import settings_table
from hb_tta.settings.augmented import CONCAT, RESCORE, AugmentSettings, combinations

SUPPORTED = ((0, 0, 20), (0, 0, 21))  # from … to before …
PACKAGE = "ms-vlmeval"
SETTINGS_FILE = "settings.json"
_ROOT = "MMEVAL_ROOT"  # VLMEvalKit's own variable, which counts more than --work-dir

HELP = """\
options of hb-tta:
  --augment NAME        show the model generated views beside each image and combine what it
                        says: {methods}
  --augment_args key=value,… or a JSON object or @file.json, for values with commas
                        n=4, family=sdxl, seed=0, preset=safe, gate=P, …: those of lmms-eval
                        combine=mean    {rules};
                                        models that give texts alone (APIs) have vote, and
                                        concat where they take several pictures
                        and the method's own:

{settings}

  --model               also {families}: the family's own MLLM
"""


class Line(NamedTuple):
    """A command line.

    Attributes:
        settings: of the augmentation; None: there is none.
        theirs: what VLMEvalKit gets.
    """

    settings: AugmentSettings | None
    theirs: list[str]


def check_version() -> None:
    """Raises UserError unless the installed VLMEvalKit is one whose inner workings we know."""
    version = metadata.version(PACKAGE)
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if not SUPPORTED[0] <= numbers < SUPPORTED[1]:
        raise UserError(f'VLMEvalKit {version} is not known: pip install "hb-tta[vlmevalkit]"')


def help_text() -> str:
    """Our options, for those who ask VLMEvalKit for its own."""
    rules = [rule for rule in combinations() if rule != RESCORE]
    return HELP.format(
        methods=", ".join(list_methods()),
        rules=", ".join(rules),
        families=" or ".join(list_families()),
        settings=settings_table(),
    )


def read(arguments: Sequence[str]) -> Line:
    """Take our flags out, and give the run a folder that no other settings share.

    VLMEvalKit finds earlier answers by model and data set alone: those of other views would be
    taken for these.

    Raises:
        UserError: the flags cannot be followed.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog="hb-tta vlmevalkit")
    parser.add_argument("--augment")
    parser.add_argument("--augment_args", "--augment-args")
    ours, theirs = parser.parse_known_args(list(arguments))
    if ours.augment is None:
        if ours.augment_args is not None:
            raise UserError("--augment_args without --augment: name a method, or leave it out")
        return Line(None, theirs)
    settings = AugmentSettings.parse(ours.augment, ours.augment_args or "")
    _check(settings, theirs)
    folder = _work_dir(theirs) / f"{settings.views.method}-{settings.digest}"
    if _ROOT in os.environ:
        os.environ[_ROOT] = str(folder)
    told = json.dumps(settings.to_json(), indent=1)
    write_aside(folder / SETTINGS_FILE, told.encode("ascii"))
    return Line(settings, [*theirs, "--work-dir", str(folder)])


def _check(settings: AugmentSettings, theirs: Sequence[str]) -> None:
    if "--api-mode" in theirs:
        raise UserError(
            "--api-mode asks its questions before their views are known: leave it out, --api-nproc "
            "says how many questions are asked at once"
        )
    if settings.combining.combine == RESCORE:
        raise UserError(
            "combine=rescore needs log-probabilities of prompts, which VLMEvalKit's models do not "
            f"give: use combine=mean for a model in this process, else vote or {CONCAT}"
        )
    if settings.views.gate_share is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"gate_share={settings.views.gate_share} needs all questions in one place, and several "
            "processes share them: use gate=P, which looks at one question"
        )


def _work_dir(theirs: Sequence[str]) -> Path:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--work-dir", default="./outputs")
    return Path(os.environ.get(_ROOT) or parser.parse_known_args(list(theirs))[0].work_dir)
