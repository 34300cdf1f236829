"""``hb-tta vlmevalkit``: VLMEvalKit's own command line, with ``--augment``."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from hb_tta.errors import UserError

DESCRIPTION = """\
The same as `python -m vlmeval …`, with lmms-eval's --augment and --augment_args. A model in
this process is decoded jointly from all views; one that gives texts alone, as an API, has
combine=vote or concat. What each view said, and which of these it was, is beside
VLMEvalKit's own files. --model also takes a family's name (pocket)."""

EXAMPLES = """\
examples:
  hb-tta vlmevalkit --data HallusionBench --model granite_vision_3.3_2b \\
      --augment hummingbird
  hb-tta vlmevalkit --data HallusionBench --model GPT4o --augment jitter \\
      --augment_args combine=vote"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta vlmevalkit [options of VLMEvalKit]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.set_defaults(passes_on=True)  # all that follows goes to VLMEvalKit as it stands


def run(arguments: argparse.Namespace) -> int:
    """Run VLMEvalKit."""
    if find_spec("vlmeval") is None:
        raise UserError(
            'VLMEvalKit is not installed: pip install "hb-tta[vlmevalkit]", in an environment of '
            "its own, for it does not go with lmms-eval"
        )
    from hb_tta.integrations import vlmevalkit

    vlmevalkit.run(arguments.passed_on)
    return 0
