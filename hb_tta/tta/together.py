"""Many questions decoded in one batch: every view of each of them is a row.

Whoever asks has code of its own before and behind its ``generate``, so the real view's call of each
question is a coroutine that pauses there. When all of a batch have come so far their rows are
decoded (shared_loop.py), and each call goes on with its own words.

A question that fails, fails alone. What cannot be in a batch with others, as beams, samples or
inputs that do not merge, is decoded by itself, as ``decode_jointly`` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hb_tta.device import is_out_of_memory
from hb_tta.tta.arguments import (
    Inputs,
    length_of,
    may_share,
    merge_calls,
    rows_of,
    same_settings,
    split,
)
from hb_tta.tta.coroutine import Coroutine, Pause, torch_context
from hb_tta.tta.decoding import Decoded, Shared, decode_one, words_of
from hb_tta.tta.intercept import GeneratedTwice, NeverGenerated, Session, record
from hb_tta.tta.joint_loop import Combine, prepare_only
from hb_tta.tta.merging import prompt_length
from hb_tta.tta.room import Room, by_rows
from hb_tta.tta.shared_loop import CannotShare, Share, SharedLoop, is_plain


class Asked(NamedTuple):
    """A question: ``calls`` and ``combine`` as of ``hb_tta.tta.decoding.decode_jointly``."""

    calls: Sequence[Callable[[], Any]]
    combine: Combine


def decode_together(
    questions: Iterable[Asked], room: Room | None = None, *, mode: str = "auto"
) -> list[Decoded | Exception]:
    """Decode the views of many questions.

    Texts are those of ``decode_jointly`` for each question by itself, and logits equal but for
    rounding, in whatever order and number they come.

    Args:
        questions: of one model, as a rule.
        room: how many rows go together, and so are in memory; it learns from what did not fit.
        mode: as of ``decode_jointly``; other than "auto" it decodes one question after the other.

    Returns:
        What ``decode_jointly`` returns, or raises, for each.
    """
    room = room or Room()
    found: list[Decoded | Exception] = []
    for some in by_rows(questions, lambda asked: len(asked.calls), room.rows):
        found += _walk(some, room, mode)
    return found


def _walk(questions: Sequence[Asked], room: Room, mode: str) -> list[Decoded | Exception]:
    walks = [_Walk(asked) for asked in questions]
    try:
        for walk in walks:
            walk.begin()
        for alike in _alike([walk for walk in walks if walk.outcome is None], mode):
            for batch in room.batches(alike, alike[0].model):
                _decode(batch, room, mode)
    finally:
        for walk in walks:
            walk.call.stop()
    return [walk.outcome for walk in walks]


class _Arrived(NamedTuple):
    """Where a real view's call pauses: see ``hb_tta.tta.intercept.Handler``."""

    model: Any
    original: Any
    arguments: dict[str, Any]
    torch: Callable[[], Any]


class _Walk:
    """A question on its way.

    Attributes:
        outcome: what it came to in the end; None: it is on its way.
        rows, length: see ``hb_tta.tta.room.Sized``.
    """

    def __init__(self, asked: Asked) -> None:
        self.outcome: Any = None
        self.asked = asked
        self.call = Coroutine(self._real)
        self.settings: dict[str, Any] = {}
        self.inputs: list[Inputs] = []
        self.rows = self.length = 0

    def begin(self) -> None:
        """Walk to ``generate``."""
        with self._failing_alone():
            others = [record(call) for call in self.asked.calls[1:]]
            self.arrived: _Arrived = self.call.resume()
            if self.call.is_over:
                raise NeverGenerated
            self.model = self.arrived.model
            views = [self.arrived.arguments, *others]
            self.settings, self.inputs = split(views, self.model)
            self.rows = sum(rows_of(own) for own in self.inputs)
            new = self.settings.get("max_new_tokens") or 0
            self.length = max(map(length_of, self.inputs)) + new

    def end(self, shared: Shared) -> None:
        """Walk on with what ``generate`` gives."""
        with self._failing_alone():
            self.inputs = []
            self.call.resume(shared.output)
            if not self.call.is_over:
                raise GeneratedTwice
            self.outcome = shared.decoded(self.call.value)

    def decode_alone(self, mode: str) -> None:
        """Decode this question by itself, and walk on."""
        shared = None
        with self._failing_alone(), self.arrived.torch():
            model, original, *_ = self.arrived
            combine = self.asked.combine
            shared = decode_one(model, original, self.settings, self.inputs, combine, mode)
        if shared is not None:
            self.end(shared)

    def joins(self, other: _Walk) -> bool:
        """Whether the two can be in one batch."""
        return self.model is other.model and same_settings(self.settings, other.settings)

    def _real(self, pause: Pause) -> Any:
        def arrive(model: Any, original: Any, arguments: dict[str, Any]) -> Any:
            return pause(_Arrived(model, original, arguments, torch_context()))

        with Session(arrive):
            return self.asked.calls[0]()

    @contextmanager
    def _failing_alone(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.outcome = error
            self.call.stop()


def _alike(walks: list[_Walk], mode: str) -> list[list[_Walk]]:
    """Those that may be in one batch together; the others by themselves."""
    groups: list[list[_Walk]] = []
    shared: list[list[_Walk]] = []
    for walk in walks:
        if mode != "auto" or not may_share(walk.settings, walk.inputs, walk.model):
            groups.append([walk])
            continue
        group = next((group for group in shared if walk.joins(group[0])), None)
        if group is None:
            shared.append([walk])
        else:
            group.append(walk)
    return groups + shared


def _decode(batch: list[_Walk], room: Room, mode: str) -> None:
    """Decode a batch; where that fails, its halves, and so whoever is to blame by itself."""
    todo = [batch]
    while todo:
        batch = todo.pop()
        if len(batch) == 1:
            batch[0].decode_alone(mode)
            continue
        found, one_by_one = _shared(batch, room)
        if found is not None:
            for walk, shared in zip(batch, found, strict=True):
                walk.end(shared)
        elif one_by_one:
            todo += [[walk] for walk in reversed(batch)]
        else:
            half = len(batch) // 2
            todo += [batch[half:], batch[:half]]


def _shared(batch: list[_Walk], room: Room) -> tuple[list[Shared] | None, bool]:
    """What each gets; None where they cannot go together, and whether no part of them can."""
    try:
        with batch[0].arrived.torch():
            return _decode_batch(batch), False
    except CannotShare:
        return None, True
    except Exception as error:  # whose it is comes out when they are fewer
        if is_out_of_memory(error):
            room.shrink(sum(walk.rows for walk in batch))
        return None, False


def _decode_batch(batch: list[_Walk]) -> list[Shared] | None:
    model, original, *_ = batch[0].arrived
    settings = batch[0].settings
    merged = merge_calls([own for walk in batch for own in walk.inputs], settings, model)
    if merged is None:
        return None
    shares, row = [], 0
    for walk in batch:
        padding = merged.padding[row] if prompt_length(walk.inputs[0]) else 0
        shares.append(Share(walk.asked.combine, len(walk.inputs), padding))
        row += len(walk.inputs)
    _prepare(batch, shares)
    loop = SharedLoop(shares)
    original(model, **merged.inputs, **settings, custom_generate=loop.decode)
    return [_shared_of(share) for share in shares]


def _prepare(batch: list[_Walk], shares: list[Share]) -> None:
    """Give the shares their own processors and criteria, where there are any.

    The settings are the same for all, so where the first one has none nobody has.
    """
    for walk, share in zip(batch, shares, strict=True):
        model, original, *_ = walk.arrived
        words = words_of(walk.inputs[0])
        real = original(model, **words, **walk.settings, custom_generate=prepare_only)
        if not real.processors and all(map(is_plain, real.criteria)):
            return
        share.real = real


def _shared_of(share: Share) -> Shared:
    assert share.first is not None
    return Shared(share.ids_1T, *share.first, share.entropies, "batched")
