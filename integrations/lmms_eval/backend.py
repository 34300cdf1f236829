"""Any backend of lmms-eval with its answers taken over all views of a question's images.

The registry leads a model's name to a class that is made here on first use: a subclass of the
backend's own class, so everything that lmms-eval reads off a model is there. The views of all
requests are generated before the first answer; then each request is answered from the real image
and its views together.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module, metadata
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lmms_eval.api.instance import GenerationResult, unwrap_generation_output
from lmms_eval.models.registry_v2 import ModelManifest, ModelRegistryV2
from loguru import logger

from hb_tta.disk import write_aside
from hb_tta.errors import HbTtaWarning, UserError
from hb_tta.integrations.lmms_eval.failure import AugmentationFailed
from hb_tta.integrations.lmms_eval.folders import PLUGIN_FOLDER, SETTINGS_FILE, run_name
from hb_tta.integrations.lmms_eval.model_args import without_ours
from hb_tta.integrations.lmms_eval.no_pictures import no_pictures
from hb_tta.integrations.lmms_eval.quiet import quiet
from hb_tta.integrations.lmms_eval.requests import Question
from hb_tta.integrations.lmms_eval.rows import Evidence
from hb_tta.integrations.lmms_eval.shards import deal_out
from hb_tta.integrations.lmms_eval.view_counts import IDENTITY, ViewCounts, sidecar_line
from hb_tta.integrations.parking import Parking
from hb_tta.integrations.settings import DESCRIBE, VOTE, AugmentSettings
from hb_tta.integrations.sidecar import Sidecar
from hb_tta.locks import owned
from hb_tta.progress import progress
from hb_tta.shards import Shard
from hb_tta.tta.combine import Combiner
from hb_tta.tta.gate import Gated, decide, sureness, sureness_of_choice
from hb_tta.tta.vote import vote

CHUNK = 512  # questions whose images are in memory at a time
T = TypeVar("T")


class Said(NamedTuple):
    """What a question's rows said.

    Attributes:
        value: what lmms-eval is given, or a function of the record that gives it.
        record: plain JSON.
        p: how sure the model is of it; None: not known, or not before other requests are answered.
    """

    value: Any
    record: dict[str, Any]
    p: float | None = None


Answering = Callable[[list[Any], Callable], Said]

# ── Which class a model's name leads to ──────────────────────────────────────────────────────────


class Flags(NamedTuple):
    """What those of this process ask for."""

    settings: AugmentSettings
    output_path: Path | None
    shard: Shard | None


_flags: Flags | None = None
_bases: dict[str, str] = {}  # a name in this module → the path of the backend's own class


def override(
    models: set[str],
    settings: AugmentSettings,
    output_path: Path | None,
    shard: Shard | None = None,
) -> list[ModelManifest]:
    """Manifests that lead the models' names to augmented classes.

    Raises:
        UserError: lmms-eval has no such model, or another plugin would take it from us.
    """
    import hb_tta.tta.decoding  # noqa: F401  before a backend can bind transformers' generate

    global _flags
    _flags = Flags(settings, output_path, shard)
    registry, later = _registry()
    manifests = []
    for model in sorted(models):
        try:
            found = registry.get_manifest(model)
        except ValueError:
            raise UserError(f"there is no model {model!r}: see `lmms-eval models`") from None
        if found.model_id in later:
            raise UserError(
                f"the package {later[found.model_id]!r} replaces the model {model!r} after hb-tta "
                "does: use `hb-tta lmms-eval` in place of `lmms-eval`"
            )
        manifests.append(
            ModelManifest(
                found.model_id,
                simple_class_path=_augmented(found.model_id, "simple", found.simple_class_path),
                chat_class_path=_augmented(found.model_id, "chat", found.chat_class_path),
            )
        )
    return manifests


def _registry() -> tuple[ModelRegistryV2, dict[str, str]]:
    """All models without ours, and those that other plugins put in place after us."""
    registry, later, after_us = ModelRegistryV2(), {}, False
    for manifest in import_module("lmms_eval.models")._build_builtin_manifests():
        registry.register_manifest(manifest)
    for entry in metadata.entry_points(group="lmms_eval.models"):
        if entry.value.split(":")[0] == __package__:
            after_us = True
            continue
        for manifest in registry._coerce_payload_to_manifests(entry.load()):
            registry.register_manifest(manifest, overwrite=True)
            if after_us:
                later[manifest.model_id] = entry.dist.name if entry.dist else entry.value
    return registry, later


def _augmented(model_id: str, kind: str, class_path: str | None) -> str | None:
    if class_path is None:
        return None
    name = f"{model_id}__{kind}"
    _bases[name] = class_path
    return f"{__name__}.{name}"


def __getattr__(name: str) -> type:
    """The augmented class of a backend, made when lmms-eval first asks for it."""
    if name not in _bases:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _bases[name].rpartition(".")
    base = getattr(import_module(module), attribute)
    made = type(f"Augmented{base.__name__}", (AugmentedBackend, base), {"__module__": __name__})
    globals()[name] = made
    return made


def _let_warnings_through() -> None:
    """lmms-eval and many a backend silence all warnings when they are imported: not ours."""
    if not sys.warnoptions:  # what the person asked of Python counts for ours too
        warnings.simplefilter("default", HbTtaWarning)


# ── The class ────────────────────────────────────────────────────────────────────────────────────


class AugmentedBackend:
    """What is put before a backend's own class. Its own attributes begin with ``hb_``."""

    # Of lmms-eval's own class, which comes behind this one.
    is_simple: bool
    task_dict: dict[str, Any]
    rank: int

    hb_settings: AugmentSettings
    hb_sidecar: Sidecar | None

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Any = None) -> Any:
        """The backend, from its own arguments; ours are the flags' again."""
        assert _flags is not None
        own, ours = without_ours(arg_string)
        settings = _flags.settings
        with _stopping():
            if ours.get("spec") != settings.digest:
                raise UserError("the weights changed since the command line was read: start again")
        deal_out(_flags.shard)
        model = super().create_from_arg_string(own, additional_config)  # type: ignore[misc]
        model.hb_settings = settings
        model.hb_sidecar = None
        if _flags.output_path is not None:
            with _stopping():
                model._hb_open(_flags.output_path / PLUGIN_FOLDER / run_name(arg_string))
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
        answer = self._hb_vote if self.hb_settings.combining.combine == VOTE else self._hb_decode
        with _stopping():
            return self._hb_answers(requests, answer, super().generate_until)  # type: ignore[misc]

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """The mean of the views' values; lmms-eval takes the least of a question's choices."""
        with _stopping():
            if self.hb_settings.combining.combine not in ("mean", DESCRIBE):
                raise UserError(
                    f"combine={self.hb_settings.combining.combine} has no meaning for "
                    "multiple-choice tasks that compare likelihoods: use combine=mean"
                )
            return self._hb_answers(requests, self._hb_likelihood, super().loglikelihood)  # type: ignore[misc]

    def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
        """Refused: the views of a later round would need the answer to an earlier one."""
        raise AugmentationFailed(
            "tasks of several rounds cannot be augmented: run them without --augment"
        )

    generate_visual_cot = generate_until_multi_round

    # The passes over the requests: a plain one where there is a gate, then one with views.

    def _hb_answers(self, requests: list[Any], answer: Answering, own: Callable) -> list[Any]:
        answers: list[Any] = [None] * len(requests)
        if self.hb_sidecar is not None:
            for task in {request.task_name for request in requests}:
                self.hb_sidecar.begin(task)
        with quiet(type(self)):
            told = self._hb_gate(requests, answers, answer, own)
            rest = [place for place, its in enumerate(told) if its is None or its.passed]
            evidence = self._hb_evidence([requests[place] for place in rest])
            name = f"Answering from 1 + {self.hb_settings.n} views"
            for place, its in self._hb_shown(name, rest, evidence):
                answers[place] = self._hb_answer(its, told[place], answer, own)
        self._hb_write()
        if self.rank == 0:
            views = self.hb_settings.views
            logger.info(
                f"hb-tta: {len(rest)} of {len(requests)} questions were answered from views of "
                f"{views.method} too (at most {self.hb_settings.n} each, preset={views.preset}); "
                "the others were sure without, or have no image"
            )
            if _flags is not None and _flags.shard is not None:
                logger.warning(
                    f"hb-tta: the scores are of part {_flags.shard} of the questions: run again "
                    "without --shard when all parts are done, which finds all views in the store"
                )
        return answers

    def _hb_write(self) -> None:
        """Write the sidecar; a disk that is full now must not cost the answers."""
        try:
            if self.hb_sidecar is not None:
                self.hb_sidecar.write()
        except OSError as error:
            logger.warning(
                f"hb-tta: what each view said could not be written ({error.strerror or error}); "
                "the answers are complete"
            )

    def _hb_gate(
        self, requests: list[Any], answers: list[Any], answer: Answering, own: Callable
    ) -> list[Gated | None]:
        """What the gate makes of each request; puts the plain answers of those it stops in place.

        None where there is no gate, or no image for it to be about.
        """
        views = self.hb_settings.views
        if views.gate is None and views.gate_share is None:
            return [None] * len(requests)
        said: dict[int, Said] = {}
        keys: dict[int, tuple[str, Any]] = {}
        asked = self._hb_asked(requests)
        for place, question in self._hb_shown("Asking plainly", range(len(requests)), asked):
            if question.shown:
                said[place] = self._hb_say(question, [question.copy()], answer, own)
                said[place].record["images"] = Evidence(question).about()
                self._hb_show(question, said[place].record)
                keys[place] = question.key
        told = decide(_sure(said, keys), views.gate, views.gate_share)
        for place, its in told.items():
            if not its.passed:
                record = {**said[place].record, "gate": its._asdict()}
                answers[place] = self._hb_keep(requests[place], said[place].value, record)
        return [told.get(place) for place in range(len(requests))]

    def _hb_asked(self, requests: list[Any]) -> Iterator[Question]:
        """The questions, a few of them in memory at a time."""
        for chunk in _chunks(requests):
            yield from self._hb_questions(chunk)[0]

    def _hb_evidence(self, requests: list[Any]) -> Iterator[Evidence]:
        """The questions with their views. All views are made before this returns.

        What is made stays in the store, so that a few questions at a time are in memory.
        """
        chunks = _chunks(requests)
        with Parking(self) as parking:
            plain = sum(self._hb_make(chunk, parking) for chunk in chunks)
            self.hb_settings.augmenter.unload()
        if plain:
            logger.warning(f"hb-tta: {plain} requests show no image and are answered as they are")
        return chain.from_iterable(map(self._hb_views, chunks))

    def _hb_make(self, requests: list[Any], parking: Parking) -> int:
        """Have the store hold all views of questions; how many of those show no image."""
        questions, contexts = self._hb_questions(requests)
        settings, told = self.hb_settings, None if self.rank == 0 else False
        augmenter, number = settings.augmenter, self._hb_number()
        generated = settings.n or settings.combining.combine == DESCRIBE
        if parking.has_something and generated and _misses(augmenter, contexts, settings):
            parking.park()
        if settings.n:
            augmenter.make(contexts, **number, progress=told)
        elif settings.combining.combine == DESCRIBE:
            augmenter.descriptions(contexts, progress=told)
        return sum(not question.shown for question in questions)

    def _hb_views(self, requests: list[Any]) -> Iterator[Evidence]:
        """Questions, and what the store has for each image that they show, in order."""
        questions, contexts = self._hb_questions(requests)
        settings = self.hb_settings
        made: Iterator[Any] = iter(())
        told: Iterator[Any] = iter(())
        if settings.n:
            made = settings.augmenter.iter_augment(contexts, **self._hb_number(), progress=False)
        if settings.combining.combine == DESCRIBE:
            told = iter(settings.augmenter.descriptions(contexts, progress=False))
        for question in questions:
            number = len(question.shown)
            yield Evidence(question, list(islice(made, number)), list(islice(told, number)))

    def _hb_questions(self, requests: list[Any]) -> tuple[list[Question], list[Any]]:
        questions = [Question.read(r, self.is_simple, self.task_dict) for r in requests]
        return questions, [context for question in questions for context in question.contexts]

    def _hb_number(self) -> dict[str, Any]:
        return {"n": self.hb_settings.views.n, "seed": self.hb_settings.views.seed}

    def _hb_shown(self, name: str, places: Sequence[int], items: Iterable[T]) -> Iterator:
        """Places and what is there, telling how far it is."""
        shown = self.rank == 0 and len(places) > 0
        with progress(name, "question", len(places), shown=shown) as told:
            for both in zip(places, items, strict=True):
                yield both
                told.update()

    def _hb_answer(
        self, evidence: Evidence, told: Gated | None, answer: Answering, own: Callable
    ) -> Any:
        question = evidence.question
        if not question.shown:
            return own([question.copy()])[0]
        requests = evidence.requests(self.hb_settings.combining)
        said = self._hb_say(question, requests, answer, own)
        record = {**said.record, "images": evidence.about()}
        if told is not None:
            record["gate"] = told._asdict()
        self._hb_show(question, record)
        return self._hb_keep(question.request, said.value, record)

    def _hb_say(
        self, question: Question, requests: list[Any], answer: Answering, own: Callable
    ) -> Said:
        """Ask the rows of a question."""
        whole, self.task_dict = self.task_dict, question.task_dict(self.task_dict)
        try:
            with no_pictures():
                return answer(requests, own)
        finally:
            self.task_dict = whole

    # The ways to answer: requests of all rows, the real image's first → what was said.

    def _hb_decode(self, requests: list[Any], own: Callable) -> Said:
        from hb_tta.tta.decoding import decode_jointly
        from hb_tta.tta.words import first_token, yes_no

        calls = [lambda request=request: own([request])[0] for request in requests]
        decoded = decode_jointly(calls, self._hb_combiner(requests))
        text, counts = unwrap_generation_output(decoded.value)
        record: dict[str, Any] = {"answer": text, "mode": decoded.mode, "views": []}
        words = self._hb_yes_no_tokens()
        if words is not None:
            *views, combined = [
                {**yes_no(logits_K, words)._asdict(), **first_token(logits_K, _tokenizer(self))}
                for logits_K in [*decoded.first_logits_VRK[:, 0], decoded.first_combined_RK[0]]
            ]
            record |= {"views": views, "combined": combined}
        p = sureness(decoded.first_combined_RK[0], decoded.entropies, str(text), words)
        return Said(lambda record: _with_record(text, counts, record), record, p)

    def _hb_vote(self, requests: list[Any], own: Callable) -> Said:
        found = [unwrap_generation_output(answer) for answer in own(requests)]
        texts = [text for text, _ in found]
        chosen = vote(texts, self.hb_settings.combining.real_weight)
        text, counts = found[chosen]
        record = {"answer": text, "mode": VOTE, "views": [{"answer": text} for text in texts]}
        return Said(lambda record: _with_record(text, counts, record), record)

    def _hb_likelihood(self, requests: list[Any], own: Callable) -> Said:
        import torch

        values, greedy = zip(*own(requests), strict=True)
        combined = self._hb_combiner(requests)(torch.tensor(values, dtype=torch.float64)[:, None])
        record = {
            "answer": combined.item(),
            "mode": "loglikelihood",
            "choice": str(requests[0].args[1]),
            "views": list(values),
        }
        return Said((combined.item(), all(greedy)), record)

    def _hb_combiner(self, requests: list[Any]) -> Combiner:
        """Of the real image alone nothing is to be combined, whatever the rule."""
        return self.hb_settings.combining.combiner if len(requests) > 1 else Combiner()

    # What the views said.

    def _hb_yes_no_tokens(self) -> tuple[list[int], list[int]] | None:
        from hb_tta.tta.words import yes_no_tokens

        if not hasattr(self, "hb_words"):
            tokenizer = _tokenizer(self)
            self.hb_words = None if tokenizer is None else yes_no_tokens(tokenizer)
        return self.hb_words

    def _hb_keep(self, request: Any, value: Any, record: dict[str, Any]) -> Any:
        """Puts a question's record where it belongs, and gives what is returned for it."""
        sidecar = self._hb_sidecar_of(request)
        if sidecar is not None:
            sidecar.add(request.task_name, sidecar_line(request, record), {})
        return value(record) if callable(value) else value

    def _hb_show(self, question: Question, record: dict[str, Any]) -> None:
        sidecar = self._hb_sidecar_of(question.request)
        if sidecar is not None:
            digests = (about["pixels"] for about in record["images"])
            sidecar.show(dict(zip(digests, question.shown, strict=True)))

    def _hb_sidecar_of(self, request: Any) -> Sidecar | None:
        """Where a request's record goes; nowhere, where it only fills up a batch."""
        return None if request.metadata.get("__padding_only__") else self.hb_sidecar


def _sure(said: Mapping[int, Said], keys: Mapping[int, Any]) -> dict[int, float]:
    """How sure the model is of each request's question, by the request's place.

    Raises:
        UserError: only the likelihood of the right answer is asked for.
    """
    found = {place: its.p for place, its in said.items() if its.p is not None}
    choices: dict[Any, list[int]] = {}
    for place in said.keys() - found.keys():
        choices.setdefault(keys[place], []).append(place)
    for (task, _), places in choices.items():
        if len(places) < 2:
            raise UserError(
                f"the task {task} asks for the likelihood of the right answer alone, which no gate "
                "may see: use gate=none"
            )
        sure = sureness_of_choice([said[place].record["answer"] for place in places])
        found |= dict.fromkeys(places, sure)
    return found


def _chunks(requests: list[Any]) -> list[list[Any]]:
    return [requests[start : start + CHUNK] for start in range(0, len(requests), CHUNK)]


def _with_record(text: Any, counts: Any, record: dict[str, Any]) -> GenerationResult:
    return GenerationResult(text, ViewCounts.of(counts, record))


def _misses(augmenter: Any, contexts: list[Any], settings: AugmentSettings) -> bool:
    """Whether a description, or a view that is shown, is still to be made."""
    number = {"n": settings.views.n, "seed": settings.views.seed}
    if settings.n:
        return augmenter.lacks(contexts, **number)
    return None in augmenter.view_keys(contexts, **number)


def _tokenizer(backend: Any) -> Any:
    """A backend's tokenizer, wherever it keeps it; None for one that has none."""
    for name in ("tokenizer", "_tokenizer", "processor", "_processor", "_image_processor"):
        try:
            found = getattr(backend, name, None)
        except (NotImplementedError, AssertionError):
            continue
        found = getattr(found, "tokenizer", found)
        if callable(getattr(found, "encode", None)) and callable(getattr(found, "decode", None)):
            return found
    return None


@contextmanager
def _stopping() -> Iterator[None]:
    """Turns an error into the end of the run: it is never scored as a wrong answer."""
    try:
        yield
    except UserError as error:
        raise AugmentationFailed(str(error)) from error
    except Exception as error:
        raise AugmentationFailed.because(error) from error
