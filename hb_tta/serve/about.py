"""The response's field ``hb_tta``: what was made of a question, plain JSON."""

from __future__ import annotations

import base64
from typing import Any

from hb_tta.augment import Augmentation
from hb_tta.serve.asking import Said
from hb_tta.serve.conversation import Row, rows_of
from hb_tta.serve.job import Job
from hb_tta.serve.offer import OVERRIDES
from hb_tta.serve.views import Made
from hb_tta.settings.augmented import AugmentSettings
from hb_tta.tta.gate import Gated


def about(job: Job, said: Said, made: Made | None, gate: Gated | None) -> dict[str, Any]:
    """Of an answer.

    ``description``: of the image, a list of them where there are several; None: none was written.
    ``views``: see ``about_candidates``. ``answers``: what each row says, with number and ``seed``
    of the ``view`` that it shows, None for the real images, and its other ``words``. ``combined``:
    the same of all together. ``gate``: how sure the plain answer was and whether there were views;
    None: no gate. ``warnings``: of the views. ``settings``: what decided it; None: a plain answer.
    """
    its = [] if made is None else made.augmentations
    told = [one.description for one in its]
    rows = [Row(None, ())]
    if made is not None and job.settings is not None:
        rows = rows_of(job.conversation, its, job.settings.combining)
    return {
        "description": told[0] if len(told) == 1 else (told or None),
        "views": [] if made is None else about_candidates(made),
        "answers": [
            {"view": row.view, "seed": _seed(row, its), **_words(row), **one}
            for row, one in zip(rows, said.answers, strict=bool(said.answers))
        ],
        "combined": said.combined,
        "gate": None if gate is None else gate._asdict(),
        "warnings": [note for one in its for note in one.warnings],
        "settings": None if job.settings is None else _settings(job.settings),
    }


def _settings(settings: AugmentSettings) -> dict[str, Any]:
    """Those that a client may know of: no folder's name is among them."""
    told = ("method", "preset", *OVERRIDES)
    return {name: value for name, value in settings.to_json().items() if name in told}


def about_candidates(made: Made) -> list[dict[str, Any]]:
    """All that was generated: ``image`` (of the question, from 0), ``seed``, ``score``, ``kept``.

    ``view``: its number among those of its image that are shown, from 0; None: it is not shown.
    ``png``: the candidate itself as a data: address, where the job asks for pictures.
    """
    found = []
    for number, its in enumerate(made.augmentations):
        for seed, key, score, view in sorted(_candidates(its), key=lambda one: one[0]):
            one: dict[str, Any] = {"image": number, "seed": seed, "score": score}
            one |= {"kept": view is not None, "view": view}
            if made.job.pictures:
                one["png"] = _picture(made, its, key)
            found.append(one)
    return found


def _candidates(its: Augmentation) -> list[tuple[int, str, float | None, int | None]]:
    """Seed, key, score and number of each."""
    scores: list[float | None] = [None] * len(its.seeds) if its.scores is None else [*its.scores]
    shown = zip(its.seeds, its.keys, scores, range(len(its.seeds)), strict=True)
    return [*shown, *((seed, key, score, None) for seed, key, score in its.dropped)]


def _picture(made: Made, its: Augmentation, key: str) -> str | None:
    """A candidate; None where the store has lost it meanwhile."""
    kept = dict(zip(its.keys, its.files, strict=True))
    found = (kept[key], None) if key in kept else made.store.read("views", key)
    if found is None:
        return None
    kind = "webp" if found[0][8:12] == b"WEBP" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(found[0]).decode()}"


def _seed(row: Row, made: list[Augmentation]) -> int | list[int | None] | None:
    if row.view is None:
        return None
    seeds = [its.seeds[row.view] if row.view < len(its.seeds) else None for its in made]
    return seeds[0] if len(seeds) == 1 else seeds


def _words(row: Row) -> dict[str, str]:
    return {} if row.words is None else {"words": row.words}
