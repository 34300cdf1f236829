"""Several ``generate`` calls that walk in step: after each word all wait for the leader's choice.

Each follower is a coroutine. What a model keeps on itself between two steps (Qwen-VL's
``rope_deltas``) is swapped with the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from hb_tta.tta.coroutine import Coroutine, Pause

Step = Callable[[Tensor], Tensor]
"""A follower's scores → the leader's, when the leader has chosen."""


class Followers:
    """The calls of the views that follow, one a view.

    Args:
        model: whose ``generate`` they call.
        generate: the function behind it.
        inputs: of each follower.
        arguments: a follower's step → its other arguments.
    """

    def __init__(
        self,
        model: Any,
        generate: Callable[..., Any],
        inputs: Sequence[Mapping[str, Any]],
        arguments: Callable[[Step], dict[str, Any]],
    ) -> None:
        self._state = _State(model)

        def follower(own: Mapping[str, Any]) -> Coroutine:
            def call(pause: Pause) -> Any:
                def step(scores: Tensor) -> Tensor:
                    return pause(scores).to(scores.device)

                return generate(model, **own, **arguments(step))

            return Coroutine(call)

        self._followers = [follower(own) for own in inputs]
        self._kept: list[Any] = [None] * len(self._followers)
        self._leads: Tensor | None = None

    def __enter__(self) -> Followers:
        return self

    def __exit__(self, *_: object) -> None:
        for follower in self._followers:
            follower.stop()

    def scores(self) -> list[Tensor]:
        """Every follower's scores for the next word, after it took the leader's last one."""
        leader = self._state.take()
        scores = []
        for place, follower in enumerate(self._followers):
            if self._kept[place] is not None:
                self._state.put(self._kept[place])
            scores.append(follower.resume(self._leads))
            assert not follower.is_over, "a view's call ended before the real one's"
            self._kept[place] = self._state.take()
        self._state.put(leader)
        return scores

    def lead(self, scores: Tensor) -> None:
        """Tell the followers what the leader chooses its word from."""
        self._leads = scores


class _State:
    """The tensors that a model's modules hold as plain attributes, and those that may become some.

    They are no parameters and no buffers: the model writes them during a call for the next step.
    """

    def __init__(self, model: Any) -> None:
        self._modules = list(model.modules())

    def take(self) -> list[dict[str, Any]]:
        return [
            {k: v for k, v in vars(module).items() if v is None or isinstance(v, Tensor)}
            for module in self._modules
        ]

    def put(self, state: list[dict[str, Any]]) -> None:
        for module, values in zip(self._modules, state, strict=True):
            vars(module).update(values)
