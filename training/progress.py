"""What a person sees of a training in the terminal."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from hb_tta.progress import Progress, progress


class Console:
    """Progress for a person; nothing where ``on`` is false."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def say(self, text: str) -> None:
        """A line."""
        if self.on:
            tqdm.write(text)

    def rows(self, what: str, done: int, of: int | None) -> None:
        """How far the data is prepared."""
        if self.on and (done % 512 < 16 or done == of):
            self.say(f"{what}: {done}{f' of {of}' if of else ''} rows")

    def bar(self, steps: int, done: int) -> Bar:
        """The training's bar."""
        bar = progress("training", "step", steps, shown=self.on, done=done, smoothing=0.1)
        return Bar(bar)


class Bar:
    """Step, rewards, images a second, memory; the time left is the bar's own."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar

    def update(self, row: dict[str, Any]) -> None:
        """One step more."""
        hidden = ("step", "loss", "gradient_norm", "gradient_steps", "seconds")
        shown = {n: v for n, v in row.items() if n not in hidden and v is not None}
        if not row["skipped"]:
            shown.pop("skipped")
        self._bar.set_postfix_str(figures(shown), refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        """The last line stays."""
        self._bar.close()


def figures(values: dict[str, float]) -> str:
    """Named numbers in a line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def bad_rows(count: int) -> str:
    """How many cannot be used."""
    return f"{count} bad row{'s' * (count != 1)}"
