"""``--augment`` for lmms-eval, through its own plugin point, entry points ``lmms_eval.models``.

    lmms-eval --tasks mme --augment hummingbird --augment_args n=4,seed=0

``manifests`` is the entry point's payload. lmms-eval calls it before it reads its command line,
so it takes our flags out, and lets the chosen model's name lead to a subclass of that model's own
class (backend.py). The name itself stays, since prompts and folders depend on it.

    command_line.py   our flags out of the command line, what lmms-eval needs into it
    model_args.py     our settings' digest in lmms-eval's ``model_args``
    backend.py        any backend of lmms-eval, with its answers taken over all views
    visual_cot.py     generate-then-answer tasks
    no_pictures.py    asking without a picture
    requests.py       the images in a request, and the same request with others
    shards.py         one part of the questions
    outcome.py        status 1 for a run without results
    view_counts.py    each view's scores, for the samples file and beside it
    folders.py        where lmms-eval and we put a run's files
    results.py        those files → runs of records, for ``hb-tta report``:
        lines.py          JSON lines of anybody's, and how deep they may be
        records.py        a question's line → a record
        numbers.py        the numbers of a task's metrics, and its categories
        said.py           what the views said, its shape checked
        clusters.py       which questions share an image
    again.py          the command line that a run was started with

This package imports neither torch nor lmms-eval until the flag is given, and reads results without
either.
"""

from __future__ import annotations

import sys
from typing import Any

FLAGS = ("--augment", "--augment_args", "--augment-args", "--shard")
_HELP = ("-h", "--help")


def manifests() -> list[Any]:
    """What the entry point gives lmms-eval: nothing, unless its own command line asks for us.

    Without ``--augment`` and without a task of ours this looks at ``sys.argv`` and returns. Any
    program may import lmms-eval's models, so the command line is looked at only if it is
    lmms-eval's. Whatever is wrong ends the process: lmms-eval would log it and go on without us.
    """
    if "lmms_eval.__main__" not in sys.modules:
        return []
    arguments = sys.argv[1:]
    found = prepare(sys.argv)
    if _is_augmented(arguments):
        from hb_tta.integrations.lmms_eval import outcome

        outcome.watch(sys.argv[1:])
    return found


def prepare(argv: list[str]) -> list[Any]:
    """Rewrite lmms-eval's command line in place; the manifests of the models it names.

    Args:
        argv: the program's name and its arguments.

    Raises:
        SystemExit: with a sentence, status 1, if the flags cannot be followed.
    """
    if not _concerns_us(argv[1:]):
        return []
    from hb_tta.errors import UserError
    from hb_tta.integrations.failure import AugmentationFailed
    from hb_tta.integrations.lmms_eval import command_line

    if any(argument in _HELP for argument in argv[1:]):
        print(command_line.help_text())
        return []
    try:
        return command_line.prepare(argv)
    except UserError as error:
        raise AugmentationFailed(str(error)) from error
    except Exception as error:  # lmms-eval swallows it
        raise AugmentationFailed.because(error) from error


def _is_augmented(arguments: list[str]) -> bool:
    return any(argument.split("=", 1)[0] in FLAGS for argument in arguments)


def run(arguments: list[str]) -> None:
    """lmms-eval's own command line with our flags, whether its entry point found us or not."""
    from lmms_eval.models import MODEL_REGISTRY_V2

    from hb_tta.integrations.lmms_eval import outcome

    sys.argv = ["lmms-eval", *arguments]
    outcome.watch(arguments)
    for manifest in prepare(sys.argv):
        MODEL_REGISTRY_V2.register_manifest(manifest, overwrite=True)
    from lmms_eval.cli.dispatch import main

    main()


def _concerns_us(arguments: list[str]) -> bool:
    """Whether a flag of ours is there, help is asked for, or a task of ours may be."""
    return any(
        argument.split("=", 1)[0] in (*FLAGS, *_HELP)
        or "pocket_mme" in argument
        or "mme_tta" in argument
        or argument.startswith("--config")
        for argument in arguments
    )
