"""A call that pauses in its middle: a thread of its own that runs only while somebody waits for it.

What calls ``generate`` is other people's code, and nothing but a stack of its own holds it where it
stands. Only one thread runs at any time, so nothing here is done at once.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

Pause = Callable[[Any], Any]
"""What a call pauses with → what it is resumed with."""


class _Stop(BaseException):
    """Ends a call from inside."""


class Coroutine:
    """A call that may pause.

    Attributes:
        is_over: whether it has returned.
        value: what it returned.

    Args:
        call: given the function that it pauses with.
    """

    def __init__(self, call: Callable[[Pause], Any]) -> None:
        self.is_over, self.value = False, None
        self._call = call
        self._torch = torch_context()
        self._to_thread: Any = None
        self._from_thread: Any = None
        self._error: BaseException | None = None
        self._is_stopped = False
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._run,), daemon=True)

    def resume(self, answer: Any = None) -> Any:
        """Run until it pauses, and give what it pauses with; None at its end.

        Args:
            answer: what the last pause gives to the call.

        Raises:
            BaseException: what the call raised.
        """
        self._to_thread, self._from_thread = answer, None
        if not self._thread.is_alive():
            self._thread.start()
        self._turn.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        return self._from_thread

    def stop(self) -> None:
        """End the call, wherever it is."""
        self._is_stopped = True
        if self._thread.is_alive():
            self._turn.release()
            self._thread.join()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            if not self._is_stopped:
                with self._torch():
                    self.value = self._call(self._pause)
            self.is_over = True
        except _Stop:
            pass
        except BaseException as error:  # handed to whoever waits
            self._error = error
        self._back.release()

    def _pause(self, given: Any) -> Any:
        if self._is_stopped:  # somebody swallowed the end
            raise _Stop
        self._from_thread = given
        self._back.release()
        self._turn.acquire()
        if self._is_stopped:
            raise _Stop
        return self._to_thread


def torch_context() -> Callable[[], Any]:
    """This thread's torch settings, for another thread: torch keeps them a thread."""
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    dtypes = {kind: torch.get_autocast_dtype(kind) for kind in kinds}

    @contextmanager
    def context() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(grad))
            stack.enter_context(torch.inference_mode(inference))
            if device is not None:
                stack.enter_context(torch.cuda.device(device))
            for kind, dtype in dtypes.items():
                stack.enter_context(torch.autocast(kind, dtype=dtype))
            yield

    return context
