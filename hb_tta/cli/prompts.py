"""What ``hb-tta mumu`` is asked for: prompts, or the rows of a file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hb_tta.cli.requests import Asked, Failure
from hb_tta.datasets.own import names_rows, open_rows
from hb_tta.datasets.rows import OwnRows, parsed
from hb_tta.errors import UserError, shown
from hb_tta.generators.mumu.pictures import beside
from hb_tta.generators.mumu.prompt import Prompt, parse

if TYPE_CHECKING:
    from hb_tta.generators.mumu.prompt import Read
    from hb_tta.images import PixelDigests


@dataclass
class PromptRequest:
    """A prompt to make images of.

    Attributes:
        index: the prompt's number, from 1; it names the images' files.
        question: the prompt as it was typed.
        folder: of the files that it names.
        read: of such a file.
        named: name → file, of pictures that the prompt calls by names.
        called: what a person calls it, such as "line 3".
        others: the row's other columns, for the manifest.
        prompt: once its pictures were read.
    """

    index: int
    question: str
    folder: Path
    read: Read
    named: Mapping[str, Any] = field(default_factory=dict)
    called: str = ""
    others: dict[str, Any] = field(default_factory=dict)
    prompt: Prompt | None = None

    def context(self, digests: PixelDigests) -> Prompt:
        """The prompt with its pictures.

        Raises:
            UserError: it is none, or a picture cannot be read.
        """
        self.prompt = parse(self.question, self.folder, self.named, self.read)
        return self.prompt

    @property
    def image(self) -> bytes:
        """The prompt's pictures beside each other, as PNG: what the page shows at the left."""
        assert self.prompt is not None
        file = io.BytesIO()
        beside(self.prompt.images).save(file, "PNG")
        return file.getvalue()

    def told(self, image: str, description: str | None) -> dict[str, Any]:
        """What the manifest says of what was asked for."""
        named = {"images": dict(self.named)} if self.named else {}
        return {"prompt": self.question, **named, "description": description}


def read_prompts(named: Sequence[str], read: Read) -> Asked[PromptRequest]:
    """What prompts on a command line, or a file of rows, ask for.

    Args:
        named: prompts whose files are taken from where the person stands, or one file of rows.
        read: of a picture's file.

    Raises:
        UserError: the file cannot be read, or stands beside others.
    """
    files = [name for name in named if names_rows(name) and not any(map(str.isspace, name))]
    if files and len(named) > 1:
        raise UserError(f"{files[0]} holds prompts and stands beside others: give it alone")
    if files:
        rows = open_rows(files[0])
        assert rows is not None  # a folder ends otherwise
        return Asked(_of_rows(rows, read), many=True)
    lines = (
        PromptRequest(number, text, Path("."), read, called=f"prompt {number}")
        for number, text in enumerate(named, 1)
    )
    return Asked(lines, many=len(named) > 1)


def _of_rows(rows: OwnRows, read: Read) -> Iterator[PromptRequest | Failure]:
    for row in rows:
        try:
            columns = dict(parsed(row.content))
            text, named = _text(columns.pop("prompt", None)), columns.pop("images", None)
            if named is not None and not _is_names(named):
                raise UserError(
                    f'its "images" are {shown(named)}: write {{"NAME": "FILE"}}, and <img:NAME> in '
                    "the prompt"
                )
        except UserError as error:
            yield Failure(row.number, str(error), row.called)
        else:
            yield PromptRequest(row.number, text, rows.root, read, named or {}, row.called, columns)


def _text(prompt: Any) -> str:
    if not isinstance(prompt, str):
        raise UserError(
            f'its "prompt" is {shown(prompt)}: write {{"prompt": "a <img:FILE> man"}} in every row'
        )
    return prompt


def _is_names(named: Any) -> bool:
    return isinstance(named, dict) and all(isinstance(file, str) for file in named.values())
