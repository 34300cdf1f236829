"""``--augment`` for VLMEvalKit, in front of its own command.

    hb-tta vlmevalkit --data HallusionBench --model granite_vision_3.3_2b --augment hummingbird

VLMEvalKit has no plugin point. It asks each model's ``generate`` about one question after the other
(or several at a time, of APIs); ours stands before it while a data set is worked on, knows all of
the data set's questions, and so makes their views and answers them in batches.

    command_line.py   our flags out of the command line, a folder of the run's own into it
    upstream.py       all that is replaced in VLMEvalKit, for known versions
    families.py       the families' own MLLMs among its models
    questions.py      a message of VLMEvalKit's as a question about images
    job.py            a model's work on a data set: views, then answers
    ways.py           from a question's rows to its answer, by what the model gives

What every view said is in ``<run>/<model>/hb_tta/<data set>.jsonl``, see ``sidecar.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def run(arguments: Sequence[str]) -> None:
    """VLMEvalKit's own command line, with our flags.

    Raises:
        UserError: its version is not known, the flags cannot be followed, or a data set was not
            done.
    """
    from hb_tta.integrations.vlmevalkit import command_line

    command_line.check_version()
    if any(argument in ("-h", "--help") for argument in arguments):
        print(command_line.help_text())
    line = command_line.read(arguments)

    from hb_tta.integrations.vlmevalkit import upstream

    before = sys.argv
    try:
        sys.argv = ["vlmevalkit", *line.theirs]
        upstream.evaluate(line.settings)
    finally:
        sys.argv = before
