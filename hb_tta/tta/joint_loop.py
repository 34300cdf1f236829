"""The decoding loop of several views, in place of ``generate``'s own: its ``custom_generate``.

N: rows of a batch, view-major. V: views. R: rows of a view. K: the words of the vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation import EosTokenCriteria, MaxLengthCriteria
from transformers.generation.configuration_utils import GenerationMode

from hb_tta.errors import UserError
from hb_tta.tta.lockstep import Followers, Step
from hb_tta.tta.rule import entropy

Combine = Callable[[Tensor], Tensor]

_DECODERS = {
    GenerationMode.GREEDY_SEARCH: "_sample",
    GenerationMode.SAMPLE: "_sample",
    GenerationMode.BEAM_SEARCH: "_beam_search",
}


class Prepared(NamedTuple):
    """What ``generate`` makes of one view's call before it decodes."""

    processors: LogitsProcessorList
    criteria: StoppingCriteriaList


def prepare_only(
    model, input_ids, logits_processor, stopping_criteria, generation_config, **others
):
    """A ``custom_generate`` that decodes nothing."""
    return Prepared(logits_processor, stopping_criteria)


class Joint:
    """The decoding loop of all views, as ``generate``'s ``custom_generate``.

    Args:
        combine: logits_VRK → logits_RK.
        views: how many.
        padding: how many positions of a batch stand before the real view's first word.

    Attributes:
        real: the real view's own processors and criteria, for a batch.
        first: the first step's logits_VRK and logits_RK.
        entropies: of the first row's combined distribution, a number a step, in nats.
    """

    def __init__(self, combine: Combine, views: int, padding: int) -> None:
        self._combine, self._views, self._padding = combine, views, padding
        self.real: Prepared | None = None
        self.first: tuple[Tensor, Tensor] | None = None
        self.entropies: list[float] = []

    def decode_batched(
        self, model, input_ids, logits_processor, stopping_criteria, generation_config, **others
    ):
        """The views as rows: each gets the combined scores, and so the same words.

        Processors and criteria are those of the real view's call alone: of the batch's own, some
        know of rows and of padding that the real view does not have.
        """
        assert self.real is not None
        mode = _mode(generation_config)
        beams = generation_config.num_beams if mode is GenerationMode.BEAM_SEARCH else 1
        process = _Process(self.real.processors, mode)

        def together(ids_NT: Tensor, scores_NK: Tensor) -> Tensor:
            scores_VRK = scores_NK.unflatten(0, (self._views, -1))
            scores_RK = process(self.real_ids(ids_NT), self._combined(scores_VRK, mode, beams))
            return scores_RK.repeat(self._views, 1)

        return _decoder(model, mode)(
            model,
            input_ids,
            logits_processor=LogitsProcessorList([_Function(together)]),
            stopping_criteria=self._criteria(stopping_criteria, self.real.criteria),
            generation_config=_greedy(generation_config, mode),
            **others,
        )

    def decode_in_lockstep(self, model, original, inputs, settings):
        """A call a view; after every step all of them wait for the combined scores."""
        with Followers(model, original, inputs[1:], _follow(settings)) as followers:

            def lead(
                model, input_ids, logits_processor, stopping_criteria, generation_config, **others
            ):
                mode = _mode(generation_config)
                if mode is GenerationMode.BEAM_SEARCH:
                    raise UserError(
                        "beam search needs the views in one batch, and this model's inputs cannot "
                        "be merged: use num_beams=1"
                    )
                process = _Process(logits_processor, mode)

                def together(ids_RT: Tensor, scores_RK: Tensor) -> Tensor:
                    scores = [scores_RK, *followers.scores()]
                    scores_VRK = torch.stack([s.to(scores_RK.device) for s in scores])
                    processed = process(ids_RT, self._combined(scores_VRK, mode, 1))
                    followers.lead(processed)
                    return processed

                return _decoder(model, mode)(
                    model,
                    input_ids,
                    logits_processor=LogitsProcessorList([_Function(together)]),
                    stopping_criteria=stopping_criteria,
                    generation_config=_greedy(generation_config, mode),
                    **others,
                )

            return original(model, **inputs[0], **settings, custom_generate=lead)

    def _combined(self, scores_VRK: Tensor, mode: GenerationMode, beams: int) -> Tensor:
        scores_RK = self._combine(scores_VRK)
        if mode is GenerationMode.BEAM_SEARCH:  # beams are compared by their probabilities
            scores_RK = scores_RK.log_softmax(-1)
        if self.first is None:  # a question's beams are still the same
            self.first = scores_VRK[:, ::beams].float().cpu(), scores_RK[::beams].float().cpu()
        self.entropies.append(entropy(scores_RK[:1].float()).item())
        return scores_RK

    def real_ids(self, ids_NT: Tensor) -> Tensor:
        """The real view's rows of a batch, without the padding that others needed."""
        return ids_NT[: ids_NT.shape[0] // self._views, self._padding :]

    def _criteria(
        self, batch: StoppingCriteriaList, real: StoppingCriteriaList
    ) -> StoppingCriteriaList:
        """The batch's own limits of length and last word, and what else ends the real view."""
        plain = (MaxLengthCriteria, EosTokenCriteria)
        return StoppingCriteriaList(
            [criterion for criterion in batch if isinstance(criterion, plain)]
            + [_RealView(c, self.real_ids) for c in real if not isinstance(c, plain)]
        )


class _Process:
    """A view's own logits processors and, where it samples, one draw for all views."""

    def __init__(self, processors: LogitsProcessorList, mode: GenerationMode) -> None:
        self._processors = processors
        self._draws = mode is GenerationMode.SAMPLE

    def __call__(self, ids_RT: Tensor, scores_RK: Tensor) -> Tensor:
        scores_RK = self._processors(ids_RT, scores_RK)
        return _drawn(scores_RK) if self._draws else scores_RK


def _drawn(scores_RK: Tensor) -> Tensor:
    """Scores whose only possible word is drawn as ``GenerationMixin._sample`` draws it."""
    drawn_R1 = torch.multinomial(scores_RK.softmax(-1), num_samples=1)
    return torch.full_like(scores_RK, -torch.inf).scatter_(-1, drawn_R1, 0.0)


class _Function(LogitsProcessor):
    """A function as a logits processor."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._function = function

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self._function(input_ids, scores)


class _RealView(StoppingCriteria):
    """A criterion of the real view, for all views."""

    def __init__(self, criterion: StoppingCriteria, real_ids: Callable[[Tensor], Tensor]) -> None:
        self._criterion, self._real_ids = criterion, real_ids

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        real_RT = self._real_ids(input_ids)
        done = self._criterion(real_RT, scores, **kwargs)
        done_R = torch.as_tensor(done, device=input_ids.device).expand(real_RT.shape[0])
        return done_R.repeat(input_ids.shape[0] // real_RT.shape[0])


def _mode(config: Any) -> GenerationMode:
    mode = config.get_generation_mode()
    if mode not in _DECODERS:
        raise UserError(
            f"{mode.value} does not work with several views of a question: use greedy decoding, "
            "sampling or beam search, or combine the answers instead (combine=vote)"
        )
    return mode


def _decoder(model: Any, mode: GenerationMode) -> Callable[..., Any]:
    """transformers' own loop for the mode; private there, and so guarded by a test."""
    return getattr(type(model), _DECODERS[mode])


def _greedy(config: Any, mode: GenerationMode) -> Any:
    """The same settings without drawing: the draw is in the scores already."""
    if mode is GenerationMode.SAMPLE:
        config = copy.copy(config)
        config.do_sample = False
    return config


def _follow(settings: Mapping[str, Any]) -> Callable[[Step], dict[str, Any]]:
    """What a follower calls ``generate`` with: the leader's lengths, and its words."""

    def arguments(step: Step) -> dict[str, Any]:
        def follow(
            model, input_ids, logits_processor, stopping_criteria, generation_config, **others
        ):
            lengths = [c for c in stopping_criteria if isinstance(c, MaxLengthCriteria)]
            return _decoder(model, GenerationMode.GREEDY_SEARCH)(
                model,
                input_ids,
                logits_processor=LogitsProcessorList([_Function(lambda _, scores: step(scores))]),
                stopping_criteria=StoppingCriteriaList(lengths),
                generation_config=_greedy(generation_config, GenerationMode.SAMPLE),
                **others,
            )

        own = {
            k: v for k, v in settings.items() if k not in ("logits_processor", "stopping_criteria")
        }
        return {**own, "custom_generate": follow}

    return arguments
