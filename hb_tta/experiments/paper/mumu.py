"""MUMU's figures 1 and 4 to 12: known by name, not built yet; each says what it waits for."""

from __future__ import annotations

from hb_tta.experiments.reproduction import Experiment, unbuilt

WHY = (
    "it is not written as an experiment, and no family fills the role mumu: `hb-tta mumu` makes "
    "such pictures one at a time, where a training left weights"
)


def _figure(number: int, title: str, why: str = WHY) -> Experiment:
    return unbuilt(f"mumu{number}", title, f"MUMU, figure {number}", why)


FIGURE_1 = _figure(1, "A prompt of text and images, and its picture")
FIGURE_4 = _figure(4, "Direct conditioning beside a description alone")
FIGURE_5 = _figure(5, "Tokens an image: more keep more detail")
FIGURE_6 = _figure(6, "One prompt with different subjects")
FIGURE_7 = _figure(7, "Style transfer that works")
FIGURE_8 = _figure(8, "Style transfer that does not")
FIGURE_9 = _figure(9, "A community fine-tune with MUMU's LoRA")
FIGURE_10 = _figure(10, "Faces beside InstantID", "faces need photographs of consenting people")
FIGURE_11 = _figure(11, "One prompt, six samples")
FIGURE_12 = _figure(12, "A high multimodal CLIP score does not harmonise")
