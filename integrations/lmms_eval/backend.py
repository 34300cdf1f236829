"""Any backend of lmms-eval with its answers taken over all views of a question's images.

What is put before a backend's own class (classes.py): it opens the run's folder, and hands the
requests of a call to the passes over them (passes.py) with the way to answer them (answering.py).
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from hb_tta.disk import write_aside
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.integrations.failure import AugmentationFailed, stopping
from hb_tta.integrations.lmms_eval import visual_cot
from hb_tta.integrations.lmms_eval.answering import way_for, way_of_likelihoods
from hb_tta.integrations.lmms_eval.folders import PLUGIN_FOLDER, SETTINGS_FILE, run_name
from hb_tta.integrations.lmms_eval.model_args import without_ours
from hb_tta.integrations.lmms_eval.passes import Passes
from hb_tta.integrations.lmms_eval.requests import Question
from hb_tta.integrations.lmms_eval.shards import deal_out
from hb_tta.integrations.lmms_eval.view_counts import IDENTITY
from hb_tta.integrations.lmms_eval.way import Way
from hb_tta.integrations.rows import Evidence
from hb_tta.integrations.sidecar import Sidecar
from hb_tta.locks import owned
from hb_tta.settings.augmented import AugmentSettings
from hb_tta.shards import Shard

Kinds = tuple[type[Question], type[Evidence]]


class Flags(NamedTuple):
    """What those of this process ask for."""

    settings: AugmentSettings
    output_path: Path | None
    shard: Shard | None


class AugmentedBackend:
    """What is put before a backend's own class. Its own attributes begin with ``hb_``."""

    # Of lmms-eval's own class, which comes behind this one.
    is_simple: bool
    task_dict: dict[str, Any]
    rank: int

    hb_flags: ClassVar[Flags | None] = None
    hb_settings: AugmentSettings
    hb_sidecar: Sidecar | None

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Any = None) -> Any:
        """The backend, from its own arguments; ours are the flags' again."""
        assert cls.hb_flags is not None
        own, ours = without_ours(arg_string)
        settings, output_path, shard = cls.hb_flags
        with stopping():
            if ours.get("spec") != settings.digest:
                raise UserError("the weights changed since the command line was read: start again")
        deal_out(shard)
        visual_cot.let_chat_backends_in()
        model = super().create_from_arg_string(own, additional_config)  # type: ignore[misc]
        model.hb_settings = settings
        model.hb_sidecar = None
        with stopping():
            way_for(model, settings).check(model)
            if output_path is not None:
                model._hb_open(output_path / PLUGIN_FOLDER / run_name(arg_string))
        _let_warnings_through()
        return model

    def _hb_open(self, folder: Path) -> None:
        """The run's folder, which is this run's alone as long as the model lives."""
        self.hb_sidecar = Sidecar(folder, self.rank, IDENTITY)
        if self.rank == 0:
            self.hb_held = ExitStack()
            self.hb_held.enter_context(owned(folder))
            told = json.dumps(self.hb_settings.to_json(), indent=1)
            write_aside(folder / SETTINGS_FILE, told.encode("ascii"))

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Answers over all views, each with a record of what the views said."""
        with stopping():
            way = way_for(self, self.hb_settings)
            return self._hb_answers(requests, way, super().generate_until)  # type: ignore[misc]

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """The mean of the views' values; lmms-eval takes the least of a question's choices."""
        with stopping():
            way = way_of_likelihoods(self.hb_settings)
            return self._hb_answers(requests, way, super().loglikelihood)  # type: ignore[misc]

    def generate_visual_cot(self, requests: list[Any]) -> list[Any]:
        """Answers to what is asked about an image and what was drawn of it (visual_cot.py)."""
        with stopping():
            visual_cot.check(self.hb_settings)
            way = way_for(self, self.hb_settings)
            own, kinds = super().generate_until, (visual_cot.Aided, visual_cot.Drawn)  # type: ignore[misc]
            return self._hb_answers(requests, way, own, kinds)

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        """Refused: the views of a later round would need the answer to an earlier one."""
        raise AugmentationFailed(
            "tasks of several rounds cannot be augmented: run them without --augment"
        )

    def _hb_answers(
        self, requests: list[Any], way: Way, own: Callable, kinds: Kinds = (Question, Evidence)
    ) -> list[Any]:
        shard = None if self.hb_flags is None else self.hb_flags.shard
        return Passes(self, way, own, kinds, shard).answers(requests)


def _let_warnings_through() -> None:
    """lmms-eval and many a backend silence all warnings when they are imported: not ours."""
    if not sys.warnoptions:  # what the person asked of Python counts for ours too
        warnings.simplefilter("default", HbTtaWarning)
