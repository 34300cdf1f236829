"""``hb-tta lmms-eval``: lmms-eval's own command line, with ``--augment``."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from hb_tta.errors import UserError

DESCRIPTION = """\
The same as `lmms-eval …`, whose --augment comes from this package as well: for where the
plugin is not found, or another one replaces the same model."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta lmms-eval [options of lmms-eval]"
    parser.description = DESCRIPTION
    parser.set_defaults(passes_on=True)  # all that follows goes to lmms-eval as it stands


def run(arguments: argparse.Namespace) -> int:
    """Run lmms-eval; it ends the process by itself where it fails."""
    if find_spec("lmms_eval") is None:
        raise UserError('lmms-eval is not installed: pip install "hb-tta[lmms-eval]"')
    from hb_tta.integrations import lmms_eval

    lmms_eval.run(arguments.passed_on)
    return 0
