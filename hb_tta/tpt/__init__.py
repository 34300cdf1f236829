"""Combining views of a CLIP: test-time prompt tuning, batched, and what needs no tuning.

    encoders.py   any CLIP as one interface        prompt_learners.py  context vectors → features
    filters.py    which views are trusted          tuner.py      TPT on unlabelled images
    views.py      crops and generated views        few_shot.py   tuning on a task's supports
    models.py     CLIPs by name or folder          evaluate.py   a whole task, with intervals

What needs no tuning, on the same features, is the rules of classes in hb_tta/tta/rules.py and
hb_tta/tta/mta.py.

Shapes: B images (or tasks), V views, C classes, N context tokens, M class tokens, L tokens of a
prompt, W width of the text tower, D dimensions of a feature, S supports, Q queries, K chosen views.
"""

from hb_tta.tpt.few_shot import FewShotTuner, FewShotTuning
from hb_tta.tpt.filters import FILTERS, select_views
from hb_tta.tpt.tuner import PromptTuner, Tuning

__all__ = [
    "FILTERS",
    "FewShotTuner",
    "FewShotTuning",
    "PromptTuner",
    "Tuning",
    "select_views",
]
