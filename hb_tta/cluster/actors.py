"""What runs in a Ray actor: an ordinary augmenter, kept with its models from batch to batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from typing import Any, Self

from hb_tta.augment import Augmenter
from hb_tta.cluster.rows import FAILURE, contexts_of, with_failures
from hb_tta.context import DescribedContext
from hb_tta.errors import UserError
from hb_tta.settings import ViewSettings
from hb_tta.store import Store, TieredStore

Fail = Callable[[int, UserError], object]


@dataclass(frozen=True)
class Job:
    """What is asked of every actor; plain values alone, so that it travels.

    Attributes:
        method: a name of ``list_methods()``.
        asked: of ``ViewSettings.of``, the store and the device among them.
        task: of the contexts that name none.
        spec: ``Augmenter.spec`` where the work is planned: an actor with other weights or another
            number format would make other views, and refuses.
        folder: that relative paths in the settings start from.
        version: of the package there.
        device_said: whether a person named the device.
    """

    method: str
    asked: Mapping[str, Any]
    task: str
    spec: Mapping[str, Any]
    folder: str
    version: str = field(default_factory=lambda: metadata.version("hb-tta"))
    device_said: bool = False

    @classmethod
    def of(cls, method: str, asked: Mapping[str, Any], task: str, augmenter: Augmenter) -> Self:
        """What makes the views of an augmenter, on its store and kind of device.

        Args:
            asked: that the augmenter was made of.
        """
        assert isinstance(augmenter.store, Store | TieredStore)
        device = "cuda" if augmenter.device.startswith("cuda") else "cpu"
        place = {"store": str(augmenter.store.root), "device": device}
        said = asked.get("device") is not None
        spec = augmenter.spec
        return cls(method, {**asked, **place}, task, spec, os.getcwd(), device_said=said)

    @property
    def on_gpus(self) -> bool:
        """Whether actors work on GPUs."""
        return self.asked["device"] == "cuda"

    def settings(self) -> ViewSettings:
        """What is asked."""
        return ViewSettings.of(self.method, self.asked)

    def augmenter(self) -> Augmenter:
        """The augmenter of an actor. Loads no model yet.

        Raises:
            UserError: it would make other views than those that were planned.
        """
        where = f"on node {os.uname().nodename}"
        if (here := metadata.version("hb-tta")) != self.version:
            raise UserError(
                f"hb-tta {here} is installed {where}, and the work was planned by "
                f"{self.version}: install one version everywhere"
            )
        with suppress(OSError):  # it is another machine, and the paths are absolute
            os.chdir(self.folder)
        augmenter = self.settings().augmenter(task=self.task)
        if augmenter.spec != self.spec:
            raise UserError(
                f"the models {where} are not those that the work was planned with: have the same "
                "weights on every node, and name the device and --dtype if nodes differ in them"
            )
        return augmenter


class Actor:
    """Does its part for a batch of rows, and says which failed; the store keeps what it makes."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @cached_property
    def augmenter(self) -> Augmenter:
        """Made for the first batch: what is wrong there reaches a person, in a constructor not."""
        return self._job.augmenter()

    @cached_property
    def settings(self) -> ViewSettings:
        """What is asked."""
        return self._job.settings()

    def __call__(self, batch: Any) -> Any:
        """The batch, with the failures of this part in it; what failed before is left alone."""
        rows = batch.to_pylist()
        failures: list[str | None] = [row[FAILURE] for row in rows]
        sound = [place for place, failure in enumerate(failures) if failure is None]

        def fail(number: int, error: UserError) -> None:
            failures[sound[number]] = str(error)

        self.do(contexts_of(rows[place] for place in sound), fail)
        return with_failures(batch, failures)

    def do(self, contexts: Sequence[DescribedContext], fail: Fail) -> None:
        """What is made of contexts."""
        raise NotImplementedError


class Describer(Actor):
    """Has the store hold descriptions."""

    def do(self, contexts: Sequence[DescribedContext], fail: Fail) -> None:
        """See ``Actor``."""
        self.augmenter.descriptions(contexts, progress=False, on_failure=fail)


class Generator(Actor):
    """Has the store hold views and scores, and the descriptions that nobody wrote before."""

    def do(self, contexts: Sequence[DescribedContext], fail: Fail) -> None:
        """See ``Actor``."""
        n, seed = self.settings.n, self.settings.seed
        self.augmenter.make(contexts, n, seed, progress=False, on_failure=fail)
