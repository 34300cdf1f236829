"""Combining views of a CLIP: test-time prompt tuning, batched, and what needs no tuning.

    encoders.py   any CLIP as one interface        prompts.py    context vectors → text features
    filters.py    which views are trusted          tuner.py      TPT on unlabelled images
    combiners.py  answers without any tuning       few_shot.py   tuning on a task's supports
    views.py      crops and generated views        evaluate.py   a whole task, with intervals

Shapes: B images (or tasks), V views, C classes, N context tokens, M class tokens, L tokens of a
prompt, W width of the text tower, D dimensions of a feature, S supports, Q queries, K chosen views.
"""

from hb_tta.tpt.combiners import COMBINERS
from hb_tta.tpt.few_shot import FewShotTuner, FewShotTuning
from hb_tta.tpt.filters import FILTERS, select_views
from hb_tta.tpt.tuner import PromptTuner, Tuning

__all__ = [
    "COMBINERS",
    "FILTERS",
    "FewShotTuner",
    "FewShotTuning",
    "PromptTuner",
    "Tuning",
    "select_views",
]
