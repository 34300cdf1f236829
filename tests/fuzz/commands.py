"""``hb-tta …`` in this process, for trials that go through the command line."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from hb_tta.cli import main
from hb_tta.errors import UserError


def told_by(line: Sequence[str]) -> str:
    """What a command prints on stdout.

    Raises:
        UserError: it ends with another status than 0; what it says on stderr, the warnings aside.
    """
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(list(line))
        except SystemExit as end:  # argparse, of a wrong command line
            status = int(end.code or 0)
    if status:
        said = [one for one in err.getvalue().split("\n") if one and "warning:" not in one]
        raise UserError(said[-1] if status == 2 and said else "\n".join(said))
    return out.getvalue()
