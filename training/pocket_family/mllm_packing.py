"""Many lessons about one image in one sequence: the image is read once, no lesson sees another.

A lesson without a picture sees what comes before the image alone, and counts on from there.

Letters in names: B sequences, T tokens, P image tokens, D channels, A answer tokens in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from hb_tta.training.pocket_family.mllm_lessons import Lesson
from hb_tta.training.pocket_family.mllm_processor import AFTER, BEFORE, IMAGE_TOKENS
from torch import nn
from transformers import PreTrainedTokenizerFast


class Pack(NamedTuple):
    """Sequences of packed lessons.

    Attributes:
        ids_BT: tokens; the image's are placeholders.
        mask_B1TT: 0 where a token (row) may see another (column), the image and what comes
            before it in its own lesson, and a very low number elsewhere; it is added to scores.
        positions_BT: every lesson's tokens count on from the image, as if it were alone.
        rows_A, columns_A: where an answer's token is predicted.
        targets_A: that token.
        lessons_A: the number of its lesson, over the whole pack in order.
    """

    ids_BT: torch.Tensor
    mask_B1TT: torch.Tensor
    positions_BT: torch.Tensor
    rows_A: torch.Tensor
    columns_A: torch.Tensor
    targets_A: torch.Tensor
    lessons_A: torch.Tensor


class Student(NamedTuple):
    """The parts of an MLLM that packed lessons go through.

    Attributes:
        model: transformers' model, with ``lm_head``.
        see: from pixels (N, 3, 64, 64) to its frozen tower's patches (N, 64, D).
        project: from those to image tokens.
        language: the language model without its head.
    """

    model: Any
    see: Callable[[torch.Tensor], torch.Tensor]
    project: nn.Module
    language: nn.Module


class Packer:
    """Tokenises lessons (each text once) and lays them out.

    Args:
        border: a token that the model's processor puts before and behind an image, if it does.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, border: str | None = None):
        self.tokenizer = tokenizer
        before = tokenizer(BEFORE)["input_ids"]
        at = before.index(tokenizer.convert_tokens_to_ids("<image>"))
        borders = [tokenizer.convert_tokens_to_ids(border)] if border else []
        # Where a lesson without a picture goes on; the space before an image begins its first word.
        assert tokenizer.decode(before[at - 1]) == " ", BEFORE
        self.words_end = at - 1
        self.image_start = at + len(borders)
        image = borders + before[at : at + 1] * IMAGE_TOKENS + borders
        self.prefix = before[:at] + image + before[at + 1 :]
        self._encoded: dict[str, list[int]] = {}

    def tokens(self, lesson: Lesson) -> tuple[list[int], list[int]]:
        """The tokens of a lesson's text, up to where the answer begins, and of its answer."""
        answer = [*self._encode(lesson.answer), self.tokenizer.eos_token_id]
        text = lesson.text if lesson.pictured else f" {lesson.text}"
        return self._encode(text + AFTER), answer

    def fill(self, draw: Callable[[], list[Lesson]], first: Lesson, length: int) -> list[Lesson]:
        """``first`` and as many draws of lessons as fit into ``length`` tokens."""
        lessons, used = [first], len(self.prefix) + self._size(first)
        while True:
            drawn = draw()
            used += sum(map(self._size, drawn))
            if used > length:
                return lessons
            lessons += drawn

    def pack(self, by_image: Sequence[Sequence[Lesson]]) -> Pack:
        """One sequence an image."""
        ids, segments, positions, blind = [], [], [], []
        answers: list[tuple[int, int, int, int]] = []
        number = 0
        for row, lessons in enumerate(by_image):
            line, owner = list(self.prefix), [0] * len(self.prefix)
            place, unseen = list(range(len(self.prefix))), [False] * len(self.prefix)
            for segment, lesson in enumerate(lessons, start=1):
                text, answer = self.tokens(lesson)
                first = len(line) + len(text) - 1
                answers += [(row, first + i, token, number) for i, token in enumerate(answer)]
                size = len(text) + len(answer) - 1  # nothing is predicted from the EOS
                line += text + answer[:-1]
                owner += [segment] * size
                begin = len(self.prefix) if lesson.pictured else self.words_end
                place += range(begin, begin + size)
                unseen += [not lesson.pictured] * size
                number += 1
            ids.append(line)
            segments.append(owner)
            positions.append(place)
            blind.append(unseen)
        rows, columns, targets, of_lesson = torch.tensor(answers).T
        segments_BT = _padded(segments, -1)
        return Pack(
            _padded(ids, self.tokenizer.pad_token_id),
            _block_mask(segments_BT, _padded(blind, 0).bool(), self.words_end),
            _padded(positions, 0), rows, columns, targets, of_lesson,
        )  # fmt: skip

    def _size(self, lesson: Lesson) -> int:
        text, answer = self.tokens(lesson)
        return len(text) + len(answer) - 1

    def _encode(self, text: str) -> list[int]:
        if text not in self._encoded:
            self._encoded[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self._encoded[text]


def _padded(lines: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    array = np.full((len(lines), max(map(len, lines))), value)
    for row, line in enumerate(lines):
        array[row, : len(line)] = line
    return torch.from_numpy(array)


def _block_mask(segments_BT: torch.Tensor, blind_BT: torch.Tensor, words_end: int) -> torch.Tensor:
    own = segments_BT[:, :, None] == segments_BT[:, None, :]
    shared = (segments_BT == 0)[:, None, :].expand_as(own).clone()
    shared[:, :, words_end:] &= ~blind_BT[:, :, None]
    seen_BTT = (own | shared).tril()
    return torch.where(seen_BTT, 0.0, torch.finfo(torch.float32).min)[:, None]


def packed_logits(
    student: Student, features_BPD: torch.Tensor, pack: Pack, image_start: int
) -> torch.Tensor:
    """Logits of every answer token (A, vocabulary), from the vision tower's features."""
    device = features_BPD.device
    embedded = student.model.get_input_embeddings()(pack.ids_BT.to(device))
    image = student.project(features_BPD)
    after = image_start + image.shape[1]
    hidden = student.language(
        inputs_embeds=torch.cat([embedded[:, :image_start], image, embedded[:, after:]], 1),
        attention_mask=pack.mask_B1TT.to(device),
        position_ids=pack.positions_BT.to(device),
        use_cache=False,
    ).last_hidden_state
    return student.model.lm_head(hidden[pack.rows_A.to(device), pack.columns_A.to(device)])
