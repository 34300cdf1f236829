"""The decoding loop of many questions' views in one batch, as ``generate``'s ``custom_generate``.

N: rows of the batch, a question's views one after the other, the real one first. Q: questions that
are still going on. V: views of a question. K: the words of the vocabulary. T: positions.

It is transformers' own greedy loop, with two differences: a question's rows all get the word that
its combined logits choose, and when a question has its answer its rows leave the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.generation import EosTokenCriteria, MaxLengthCriteria

from hb_tta.tta.joint_loop import Combine, Prepared
from hb_tta.tta.rule import entropy


class CannotShare(Exception):
    """The model's cache cannot lose rows: its questions are decoded one by one."""


@dataclass
class Share:
    """A question's part of the batch.

    Attributes:
        combine: logits_VRK → logits_RK.
        views: how many rows it has.
        padding: positions before the real view's first word.
        real: the real view's own processors and criteria; None: there are none but the batch's.
        first: the first step's logits_VRK and logits_RK, R = 1.
        entropies: of the combined distribution, a number a step, in nats.
        ids_1T: the real view's prompt and the words of the answer, when it is there.
    """

    combine: Combine
    views: int
    padding: int
    real: Prepared | None = None
    first: tuple[Tensor, Tensor] | None = None
    entropies: list[float] = field(default_factory=list)
    ids_1T: Tensor | None = None


class SharedLoop:
    """Decodes the shares' rows, which lie in their order."""

    def __init__(self, shares: list[Share]) -> None:
        self._shares = shares

    def decode(
        self, model, input_ids, logits_processor, stopping_criteria, generation_config, **kwargs
    ):
        """A ``custom_generate``: what it gives is in the shares."""
        plain = [c for c in stopping_criteria if is_plain(c)]
        running, ids_NT = list(self._shares), input_ids
        outputs = model._prefill(ids_NT, generation_config, kwargs, is_first_iteration=True)
        while True:
            kwargs = model._update_model_kwargs_for_generation(outputs, kwargs)
            _check_cache(kwargs)
            logits_NK = outputs.logits[:, -1].to(ids_NT.device, torch.float32, copy=True)
            words_Q = _words(running, ids_NT, logits_NK)
            views_Q = torch.tensor([share.views for share in running], device=ids_NT.device)
            ids_NT = torch.cat([ids_NT, words_Q.repeat_interleave(views_Q)[:, None]], 1)
            running, ids_NT = _without_finished(running, ids_NT, plain, model, kwargs)
            if not running:
                return input_ids
            inputs = model.prepare_inputs_for_generation(
                ids_NT, next_sequence_length=1, is_first_iteration=False, **kwargs
            )
            outputs = model(**inputs, return_dict=True)


def is_plain(criterion: Any) -> bool:
    """Whether a criterion is of a last word or a length, which a batch's rows have in common."""
    return isinstance(criterion, MaxLengthCriteria | EosTokenCriteria)


# ── A step's words ───────────────────────────────────────────────────────────────────────────────


def _words(shares: list[Share], ids_NT: Tensor, logits_NK: Tensor) -> Tensor:
    """The next word of each question: (Q,)."""
    scores_QK = _combined(shares, logits_NK)
    for share, nats in zip(shares, entropy(scores_QK).tolist(), strict=True):
        share.entropies.append(nats)
    for place, (share, start) in enumerate(zip(shares, _starts(shares), strict=True)):
        if share.first is None:
            own_VK = logits_NK[start : start + share.views]
            share.first = own_VK[:, None].cpu(), scores_QK[place : place + 1].clone().cpu()
        if share.real is not None:
            real_1T = ids_NT[start : start + 1, share.padding :]
            scores_QK[place] = share.real.processors(real_1T, scores_QK[place : place + 1])[0]
    return scores_QK.argmax(-1)


def _combined(shares: list[Share], logits_NK: Tensor) -> Tensor:
    """Questions of one rule and as many views are combined at once, as rows: (Q, K)."""
    alike: dict[Any, list[int]] = {}
    for place, share in enumerate(shares):
        alike.setdefault((share.views, id(share.combine)), []).append(place)
    starts = _starts(shares)
    scores_QK = logits_NK.new_empty(len(shares), logits_NK.shape[1])
    for (views, _), places in alike.items():
        first_R = torch.tensor([starts[place] for place in places], device=logits_NK.device)
        rows_VR = first_R + torch.arange(views, device=logits_NK.device)[:, None]
        scores_QK[places] = shares[places[0]].combine(logits_NK[rows_VR])
    return scores_QK


def _starts(shares: list[Share]) -> list[int]:
    """The place of each question's real row."""
    starts, start = [], 0
    for share in shares:
        starts.append(start)
        start += share.views
    return starts


# ── Whoever has finished leaves ──────────────────────────────────────────────────────────────────


def _without_finished(
    shares: list[Share], ids_NT: Tensor, plain: list[Any], model: Any, kwargs: dict[str, Any]
) -> tuple[list[Share], Tensor]:
    """Those who go on, and their words; the others' answers are put into their shares."""
    starts = _starts(shares)
    done_Q = _done(shares, ids_NT[starts], plain)
    if not any(done_Q):
        return shares, ids_NT
    kept: list[int] = []
    for share, start, done in zip(shares, starts, done_Q, strict=True):
        if done:
            share.ids_1T = ids_NT[start : start + 1, share.padding :].clone()
        else:
            kept += range(start, start + share.views)
    running = [share for share, done in zip(shares, done_Q, strict=True) if not done]
    rows = torch.tensor(kept, device=ids_NT.device, dtype=torch.long)
    if running:
        _select(model, kwargs, rows, len(ids_NT))
    return running, ids_NT[rows]


def _done(shares: list[Share], real_QT: Tensor, plain: list[Any]) -> list[bool]:
    done_Q = torch.zeros(len(shares), dtype=torch.bool, device=real_QT.device)
    for criterion in plain:
        done_Q = done_Q | torch.as_tensor(criterion(real_QT, None), device=real_QT.device)
    done = done_Q.tolist()
    for place, share in enumerate(shares):
        own_1T = real_QT[place : place + 1, share.padding :]
        for criterion in share.real.criteria if share.real is not None else ():
            if not is_plain(criterion):
                done[place] = done[place] or bool(torch.as_tensor(criterion(own_1T, None)).all())
    return done


def _select(model: Any, kwargs: dict[str, Any], rows: Tensor, count: int) -> None:
    """Keep some of ``count`` rows of what goes from step to step, in place."""
    for name, value in kwargs.items():
        if isinstance(value, DynamicCache):
            value.reorder_cache(rows)
        elif isinstance(value, Tensor):
            axis = _batch_axis(name, value, count)
            kwargs[name] = value if axis is None else value.index_select(axis, rows)
    for module in model.modules():
        deltas = vars(module).get("rope_deltas")  # Qwen-VL keeps its rows' places there
        if isinstance(deltas, Tensor) and len(deltas) == count:
            module.rope_deltas = deltas[rows]


def _batch_axis(name: str, value: Tensor, count: int) -> int | None:
    """Which axis of an input is the rows'; None where it has none."""
    axis = 1 if name == "position_ids" and value.ndim == 3 else 0
    return axis if value.ndim > axis and value.shape[axis] == count else None


def _check_cache(kwargs: Mapping[str, Any]) -> None:
    """Raises CannotShare unless rows can be taken out of the cache."""
    caches = [value for value in kwargs.values() if hasattr(value, "get_seq_length")]
    if not caches or any(type(cache) is not DynamicCache for cache in caches):
        raise CannotShare
