"""``hb-tta``: a table of commands, and what becomes of their errors.

A command is a light module with ``add_arguments(parser)`` and ``run(arguments) -> exit status``. It
is imported when it is chosen, and imports torch, if it needs it, when it runs.

Exit status: 0 done, 1 a mistake that the person can mend (one sentence on stderr), 2 a wrong
command line, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn, TextIO

from hb_tta.device import is_out_of_memory
from hb_tta.errors import HbTtaWarning, UserError, meant, told, visible

# name: (module, what it does)
COMMANDS = {
    "augment": ("hb_tta.cli.augment", "generate views of an image, or of every line of a file"),
    "mumu": ("hb_tta.cli.mumu", "make images of prompts of words and pictures"),
    "demo": ("hb_tta.cli.demo", "tell the method on bundled questions, on one page"),
    "download": ("hb_tta.cli.download", "fetch a family's weights from the hub, and no more"),
    "lmms-eval": ("hb_tta.cli.lmms_eval", "lmms-eval with --augment"),
    "vlmevalkit": ("hb_tta.cli.vlmevalkit", "VLMEvalKit with --augment"),
    "serve": ("hb_tta.cli.serve", "an OpenAI-compatible endpoint whose answers see views"),
    "report": ("hb_tta.cli.report", "scores of lmms-eval's output, and a page of its questions"),
    "calibrate": (
        "hb_tta.cli.calibrate",
        "gate, judge, combiner for your model, from a run",
    ),
    "bootstrap": ("hb_tta.cli.bootstrap", "find captions' words in their images, to train MUMU on"),
    "train": ("hb_tta.cli.train", "fine-tune the generator with rewards, into a LoRA"),
    "lora": ("hb_tta.cli.lora", "inspect a LoRA or convert it to another format"),
    "tpt": ("hb_tta.cli.tpt", "test-time prompt tuning of a CLIP on a benchmark"),
    "reproduce": ("hb_tta.cli.reproduce", "a table or figure of the papers, run again"),
    "clip-benchmark": ("hb_tta.cli.clip_benchmark", "CLIP_benchmark with prompt tuning"),
    "list": ("hb_tta.cli.listing", "methods, families with their models, what is installed"),
    "store": ("hb_tta.cli.store", "inspect, check or prune the store of generated views"),
}

WIDTH = 90  # of every help text, so that docs/help.md does not depend on a terminal

NO_MEMORY = "memory does not suffice: ask for less at once, or give the process more"

_FULL = "free some space and give the same command again, finished views are kept"
_FORBIDDEN = "choose a file or folder that you may use"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.ENOENT: "check the path",
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help of a fixed width whose description and examples keep their line breaks."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=WIDTH)


class CommandParser(argparse.ArgumentParser):
    """The parser of one command: its module is imported when its arguments are read.

    Args:
        module: name of the command's module; None where the arguments are added at once.

    A default ``notes`` of the command is a function that gives what the help text ends with.
    """

    def __init__(self, *, module: str | None = None, **settings: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, **settings)
        self._module = module
        self._filled = False

    def fill(self) -> None:
        """Add the command's own arguments and ``--debug``; a second call does nothing."""
        if self._filled:
            return
        self._filled = True
        if self._module is not None:
            command = import_module(self._module)
            command.add_arguments(self)
            self.set_defaults(run=command.run)
        # SUPPRESS: a command's parser must not take back a --debug that stood before its name.
        self.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error",
        )

    def format_help(self) -> str:
        """The help text, and the notes behind it."""
        told, notes = super().format_help(), self.get_default("notes")
        return told if notes is None else f"{told}\n{notes()}\n"

    def parse_known_args(self, args=None, namespace=None):
        self.fill()
        if self.get_default("passes_on") and args not in (["-h"], ["--help"]):
            found = argparse.Namespace(passed_on=list(args or ()), run=self.get_default("run"))
            return found, []
        found, extra = super().parse_known_args(args, namespace)
        if extra and self._module is not None:
            self.error(f"unrecognized arguments: {' '.join(extra)}{self._option_meant(extra)}")
        return found, extra

    def error(self, message: str) -> NoReturn:
        """``argparse``'s, with the choice that was meant."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        if wrong:
            close = meant(wrong[1], re.findall(r"[\w.-]+", wrong[2]))
            message += f", did you mean {close!r}?" if close else ""
        super().error(told(message))

    def _option_meant(self, extra: Sequence[str]) -> str:
        given = next((word[2:].split("=")[0] for word in extra if word.startswith("--")), None)
        shown = [action for action in self._actions if action.help is not argparse.SUPPRESS]
        known = [option for action in shown for option in action.option_strings]
        close = meant(given, [one[2:] for one in known if one.startswith("--")]) if given else None
        return f", did you mean --{close}?" if close else ""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; no command's module is imported yet."""
    parser = CommandParser(
        prog="hb-tta",
        usage="hb-tta COMMAND [options]",
        description="Faithful, different images of an image, for test-time augmentation.",
        epilog="`hb-tta COMMAND --help` tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog="hb-tta"
    )
    for name, (module, line) in COMMANDS.items():
        commands.add_parser(name, help=line, module=module)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments; ``sys.argv[1:]`` when None.

    Returns:
        The exit status, see the module's docstring.
    """
    _prepare_streams()
    arguments = build_parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            status = arguments.run(arguments)
            sys.stdout.flush()  # a pipe that was closed shows here, not when the interpreter ends
            return status
        except KeyboardInterrupt:
            status, sentence = 130, "stopped: finished work is kept, the same command goes on"
        except BrokenPipeError:
            _silence_stdout()
            return 1
        except UserError as error:
            if arguments.debug:
                raise
            status, sentence = 1, str(error)
        except OSError as error:
            if arguments.debug:
                raise
            short = is_out_of_memory(error)
            status, sentence = 1, NO_MEMORY if short else describe_os_error(error)
        except Exception as error:
            if arguments.debug or not is_out_of_memory(error):
                raise
            status, sentence = 1, NO_MEMORY
    print(f"hb-tta: {sentence}", file=sys.stderr)
    return status


def describe_os_error(error: OSError) -> str:
    """One sentence of what the operating system refused, and the way out where one is known."""
    if error.strerror is None:
        lines = str(error).strip().split("\n")
        return visible(lines[0]) or type(error).__name__
    where = f" ({os.fsdecode(error.filename)})" if error.filename is not None else ""
    remedy = _REMEDIES.get(error.errno or 0)
    return visible(f"{error.strerror}{where}") + (f": {remedy}" if remedy else "")


def _version() -> str:
    from hb_tta import __version__

    return f"hb-tta {__version__}"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of ours in one line; other people's are for developers, and stay out of sight."""
    if issubclass(category, HbTtaWarning):
        print(f"hb-tta: warning: {message}", file=sys.stderr)


def _prepare_streams() -> None:
    """Print any script in any locale, and no progress bars of the hub's libraries into a log.

    A stream that is closed (``2>&-``) leads nowhere, so that nobody's file gets its number.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(nowhere := os.open(os.devnull, os.O_RDWR), number)
            if nowhere != number:
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode=mode, encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _silence_stdout() -> None:
    """Keep the interpreter from complaining once more when it flushes a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
