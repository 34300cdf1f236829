"""Write docs/help.md again: what every command prints for ``--help``. A test compares the two."""

import io
from contextlib import redirect_stdout, suppress
from pathlib import Path

from hb_tta.cli import COMMANDS, main

PAGE = Path(__file__).with_name("help.md")
ACTIONS = {
    "store": ("info", "verify", "sync", "prune", "export", "import")
}  # commands below commands


def help_page() -> str:
    """The page in Markdown."""
    commands: list[list[str]] = [[]]
    for name in COMMANDS:
        commands += [[name], *([name, action] for action in ACTIONS.get(name, ()))]
    head = "# The command line\n\n`make docs` writes this page.\n"
    return head + "".join(_section(command) for command in commands)


def _section(command: list[str]) -> str:
    output = io.StringIO()
    with redirect_stdout(output), suppress(SystemExit):
        main([*command, "--help"])
    title = " ".join(["hb-tta", *command])
    return f"\n## {title}\n\n```console\n$ {title} --help\n{output.getvalue()}```\n"


if __name__ == "__main__":
    PAGE.write_text(help_page(), encoding="utf-8")
    print(PAGE)
