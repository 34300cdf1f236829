"""Prompt tuning with generated views for those images alone of which the CLIP is not sure.

The plain pass is zero-shot on the real image, or in a few-shot task the tuning without generated
views. Where its probability is at least the gate, the image is answered as without an augmenter:
from itself and its crops. Nothing is generated for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hb_tta.tpt.tuner import PromptTuner
from hb_tta.tpt.views import ViewFeatures, ViewRequest

Chances = dict[str, Tensor]
"""Method → probabilities."""


def classified(
    tuner: PromptTuner, views: ViewFeatures, images: Sequence[ViewRequest], gate: float | None
) -> Chances:
    """Probabilities (B, C) of images by tuning and by every rule that needs none.

    Args:
        gate: between 0 and 1; None: every image is shown its generated views.
    """
    if gate is None or not views.generated:
        return _by_views_shown(tuner, views, images)
    plain = views.without_generated()
    features_BVD = plain.features(images)
    unsure_B = tuner.sureness(features_BVD) < gate
    found = _answers(tuner, features_BVD, 0)
    unsure = [image for image, its in zip(images, unsure_B.tolist(), strict=True) if its]
    if unsure:
        for name, chances in _by_views_shown(tuner, views, unsure).items():
            found[name][unsure_B] = chances
    return found


def shown(
    tuner: PromptTuner, views: ViewFeatures, images: Sequence[ViewRequest], gate: float | None
) -> list[Tensor]:
    """Of each image the features (V, D) of the views that ``classified`` answers it from."""
    if gate is None or not views.generated:
        return _kept(views, images)
    found = list(views.without_generated().features(images))
    unsure_B = tuner.sureness(torch.stack(found)) < gate
    places = unsure_B.nonzero()[:, 0].tolist()
    if places:
        for place, features_VD in zip(
            places, _kept(views, [images[place] for place in places]), strict=True
        ):
            found[place] = features_VD
    return found


def _kept(views: ViewFeatures, images: Sequence[ViewRequest]) -> list[Tensor]:
    """Without the places of views that a judge dropped."""
    features_BVD, shown_B = views.features_and_shown(images)
    there = features_BVD.shape[1] - views.generated
    return [its[: there + int(count)] for its, count in zip(features_BVD, shown_B, strict=True)]


def few_shot(
    answer: Callable[[ViewFeatures, ViewFeatures, Sequence[int]], Chances],
    supports: ViewFeatures,
    queries: ViewFeatures,
    tasks: int,
    gate: float | None,
) -> Chances:
    """Probabilities (B, Q, C) of the queries of few-shot tasks.

    Args:
        answer: views of supports and of queries, and the places of tasks → the tasks' probabilities
            by method, those of the tuning as "tpt".
        supports, queries: with the generated views.
        tasks: how many.
        gate: see ``classified``.
    """
    everything = range(tasks)
    if gate is None or not (supports.generated or queries.generated):
        return answer(supports, queries, everything)
    found = answer(supports.without_generated(), queries.without_generated(), everything)
    unsure_BQ = found["tpt"].amax(-1) < gate
    some = unsure_BQ.any(-1).nonzero()[:, 0].tolist()
    if some:
        for name, chances in answer(supports, queries, some).items():
            chosen = unsure_BQ[some][..., None]
            found[name][some] = torch.where(chosen, chances, found[name][some])
    return found


def _by_views_shown(
    tuner: PromptTuner, views: ViewFeatures, images: Sequence[ViewRequest]
) -> Chances:
    """Images that are shown equally many views together, for a judge may have dropped some."""
    features_BVD, shown_B = views.features_and_shown(images)
    found: Chances = {}
    for shown in sorted(set(shown_B.tolist())):
        rows = shown_B == shown
        there = features_BVD.shape[1] - views.generated + shown
        for name, chances in _answers(tuner, features_BVD[rows, :there], shown).items():
            found.setdefault(name, chances.new_zeros(len(images), chances.shape[-1]))[rows] = (
                chances
            )
    return found


def _answers(tuner: PromptTuner, features_BVD: Tensor, generated: int) -> Chances:
    """Probabilities (B, C) of every method, on the CPU."""
    features = features_BVD.to(tuner.encoder.device)
    tuning = tuner.tune(features, generated=generated)
    found = {"tpt": tuning.logits_BC.softmax(-1), **tuner.untuned(features, tuning)}
    return {name: chances.cpu() for name, chances in found.items()}
