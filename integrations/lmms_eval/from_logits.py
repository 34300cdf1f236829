"""The ways to answer where transformers generates in this process, or choices are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from lmms_eval.api.instance import unwrap_generation_output

from hb_tta.errors import UserError
from hb_tta.integrations.asking import Asking, Jointly, T, few
from hb_tta.integrations.lmms_eval.scoring import is_hosted, scorer_of
from hb_tta.integrations.lmms_eval.way import Own, Rows, Said, with_record


class Joint(Jointly):
    """See ``Jointly``."""

    def check(self, backend: Any) -> None:
        if is_hosted(backend):
            other = "combine=rescore, vote or concat" if scorer_of(backend) else "combine=vote"
            raise UserError(
                f"combine={self._settings.combining.combine} needs a model's logits, and "
                f"{type(backend).__mro__[2].__name__} gives none: use {other}"
            )

    def say(self, questions: Sequence[Rows], own: Own) -> list[Said | Exception]:
        found = self.decoded([partial(_answer, own, row) for row in rows] for rows in questions)
        return [its if isinstance(its, Exception) else self._said(its) for its in found]

    def _said(self, decoded: Any) -> Said:
        text, counts = unwrap_generation_output(decoded.value)
        record = self.record(text, decoded.mode, **self.scores.record(decoded))
        p = self.scores.sure(decoded, str(text))
        return Said(lambda record: with_record(text, counts, record), record, p)


def _answer(own: Own, row: Any) -> Any:
    return own([row])[0]


class Likelihoods(Asking):
    """The mean of the rows' values for a choice."""

    def check(self, backend: Any) -> None:
        """Every backend that is asked for likelihoods gives them."""

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
