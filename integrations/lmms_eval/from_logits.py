"""The ways to answer where transformers generates in this process, or choices are compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from lmms_eval.api.instance import unwrap_generation_output

from hb_tta.errors import UserError
from hb_tta.integrations.lmms_eval.scoring import is_hosted, scorer_of
from hb_tta.integrations.lmms_eval.way import Asking, Own, Rows, Said, T, few, with_record
from hb_tta.integrations.scores import Scores
from hb_tta.settings.augmented import AugmentSettings
from hb_tta.tta.room import Room, by_rows


class Joint(Asking):
    """All rows are decoded together from their combined logits, many questions in a batch."""

    def __init__(self, backend: Any, settings: AugmentSettings) -> None:
        super().__init__(settings)
        self._scores = Scores(backend)
        # Where the person says how many, it is they who say what fits.
        self._room = Room() if settings.at_once is None else Room(sys.maxsize)

    def check(self, backend: Any) -> None:
        if is_hosted(backend):
            other = "combine=rescore, vote or concat" if scorer_of(backend) else "combine=vote"
            raise UserError(
                f"combine={self._settings.combining.combine} needs a model's logits, and "
                f"{type(backend).__mro__[2].__name__} gives none: use {other}"
            )

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        at_once = self._settings.at_once
        return by_rows(items, rows, self._room.rows) if at_once is None else few(items, at_once)

    def say(self, questions: Sequence[Rows], own: Own) -> list[Said | Exception]:
        from hb_tta.tta.together import Asked, decode_together

        asked = [
            Asked([partial(_answer, own, row) for row in rows], self.combiner(rows))
            for rows in questions
        ]
        found = decode_together(asked, self._room)
        return [its if isinstance(its, Exception) else self._said(its) for its in found]

    def _said(self, decoded: Any) -> Said:
        text, counts = unwrap_generation_output(decoded.value)
        record = self.record(text, decoded.mode, **self._scores.record(decoded))
        p = self._scores.sure(decoded, str(text))
        return Said(lambda record: with_record(text, counts, record), record, p)


def _answer(own: Own, row: Any) -> Any:
    return own([row])[0]


class Likelihoods(Asking):
    """The mean of the rows' values for a choice."""

    def batches(self, items: Iterable[T], rows: Callable[[T], int]) -> Iterator[list[T]]:
        return few(items, self._settings.at_once or 1)

    def say(self, questions: Sequence[Rows], own: Own) -> list[Said | Exception]:
        return [self._one(rows, own) for rows in questions]

    def _one(self, rows: Rows, own: Own) -> Said | Exception:
        import torch

        try:
            values, greedy = zip(*own(rows), strict=True)
        except Exception as error:
            return error
        combined = self.combiner(rows)(torch.tensor(values, dtype=torch.float64)[:, None])
        about = {"choice": str(rows[0].args[1]), "views": list(values)}
        record = self.record(combined.item(), "loglikelihood", **about)
        return Said((combined.item(), all(greedy)), record)
