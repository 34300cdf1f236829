"""Describing: an MLLM and a prompt template write what of an image matters for a question."""

from hb_tta.describe.describer import Describer, DescriberSpec, load_mllm, tidy_description
from hb_tta.describe.rewording import reworded

__all__ = ["Describer", "DescriberSpec", "load_mllm", "reworded", "tidy_description"]
