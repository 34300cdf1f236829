"""Several ``generate`` calls that walk in step: after each word all wait for the leader's choice.

Each follower is a thread, used as a coroutine: only one thread runs at any time. What a model keeps
on itself between two steps (Qwen-VL's ``rope_deltas``) is swapped with the turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]
"""A follower's scores → the leader's, when the leader has chosen."""


class _Stop(BaseException):
    """Ends a follower's call from inside."""


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
        self._model = model
        self._state = _State(model)

        def call(own: Mapping[str, Any], step: Step) -> Any:
            return generate(model, **own, **arguments(step))

        self._followers = [_Follower(partial(call, own)) for own in inputs]
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
        for follower in self._followers:
            if follower.state is not None:
                self._state.put(follower.state)
            scores.append(follower.resume(self._leads))
            follower.state = self._state.take()
        self._state.put(leader)
        return scores

    def lead(self, scores: Tensor) -> None:
        """Tell the followers what the leader chooses its word from."""
        self._leads = scores


class _Follower:
    """One call in a thread of its own that runs only while ``resume`` waits for it."""

    def __init__(self, call: Callable[[Step], Any]) -> None:
        self.state: Any = None
        self._call = call
        self._context = _torch_context()
        self._to_thread: Tensor | None = None
        self._from_thread: Tensor | None = None
        self._error: BaseException | None = None
        self._stopped = False
        self._turn = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def resume(self, scores: Tensor | None) -> Tensor:
        """Run until the next step's scores; ``scores`` answers the last step."""
        self._to_thread = scores
        if not self._thread.is_alive():
            self._thread.start()
        self._turn.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        assert self._from_thread is not None
        return self._from_thread

    def stop(self) -> None:
        """End the call, wherever it is."""
        self._stopped = True
        if self._thread.is_alive():
            self._turn.release()
            self._thread.join()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            with self._context():
                self._call(self._step)
            if not self._stopped:
                raise AssertionError("a view's call ended before the real one's")
        except _Stop:
            pass
        except BaseException as error:  # handed to whoever waits
            self._error = error
        self._back.release()

    def _step(self, scores: Tensor) -> Tensor:
        self._from_thread = scores
        self._back.release()
        self._turn.acquire()
        if self._stopped:
            raise _Stop
        assert self._to_thread is not None
        return self._to_thread.to(scores.device)


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


def _torch_context() -> Callable[[], Any]:
    """This thread's torch settings, for another thread: torch keeps them a thread."""
    inference = torch.is_inference_mode_enabled()
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    dtypes = {kind: torch.get_autocast_dtype(kind) for kind in kinds}

    @contextmanager
    def context() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(inference))
            if device is not None:
                stack.enter_context(torch.cuda.device(device))
            for kind, dtype in dtypes.items():
                stack.enter_context(torch.autocast(kind, dtype=dtype))
            yield

    return context
