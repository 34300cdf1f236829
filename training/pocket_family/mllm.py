"""Stage ``mllm``: a LLaVA that answers questions about the pocket world and describes it.

The vision tower is a frozen copy of the generator's image encoder; the projector and the language
model learn from lessons (``mllm_lessons``) that are packed, many to an image (``mllm_packing``).

The model is meant to be imperfect: what cannot fail cannot be improved by augmentation. Colour and
scene would be perfect in minutes, so a category is asked only while the model fails an exam on
the dev split in it: see ``Curriculum``. Descriptions are practised all the time. A part of the
pictures is worn; a held-out combination is never seen, in the tower's training neither.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from hb_tta.pocket.tasks import SPLITS, make_pair, question_pairs
from hb_tta.pocket.world import Scene, render_batch
from hb_tta.pocket.worn import wear_some
from hb_tta.training.pocket_family.mllm_lessons import (
    CATEGORIES,
    EDITION,
    MME_SUFFIX,
    Lesson,
    can_tell,
    compound_lesson,
    description_lesson,
    open_lesson,
    tell,
    worded_lesson,
    yes_no_lessons,
)
from hb_tta.training.pocket_family.mllm_packing import Packer, Student, packed_logits
from hb_tta.training.pocket_family.mllm_processor import (
    IMAGE,
    IMAGE_TOKENS,
    kept_tokenizer,
    make_processor,
)
from hb_tta.training.pocket_family.optimize import Draws, optimize
from hb_tta.training.pocket_family.run import RecipeRun, Scenes, to_pixels, training_scenes

# A width of 160 needs larger initial weights than the usual 0.02, or the gates of the MLPs start
# shut and comparing what is asked with what is seen is not learnt for a thousand steps.
HIDDEN = 160
# The last layer but one knows best what a patch shows, but has half forgotten where it is (a probe
# finds its column in 70 %); the embeddings know (98 %).
LAYERS = (0, -2)
CEILING = 0.82
EXAM_EVERY = 100
STEPS, GO_ON_STEPS, BATCH, LENGTH = 4500, 2400, 8, 320
GO_ON_RATE = 7e-4  # at 1.5e-3 150 steps cost what was known: scene by open questions 97 → 26 %
OPEN_SHARE, COMPOUND_SHARE, WORDED_SHARE = 0.35, 0.08, 0.12
# Answering from words is learnt last, and from very many: of the lessons of before it was not.
# Pictures suffer from that, so in the end both are asked.
WORDS_STEPS, WORDS_RATE, MANY_WORDS = 1500, 1e-3, 0.85
BOTH_STEPS, BOTH_WORDS = 1000, 0.4
GUESSED, GUESSED_OPEN_SHARE = 0.6, 0.75  # below this mark a category is little more than guessed
WORN = 0.3  # the share of worn pictures


def train_mllm(run: RecipeRun) -> None:
    """Train the model and save it with its processor, as llava-hf lays out its folders."""
    torch.manual_seed(run.seed)
    processor = make_processor(kept_tokenizer(run, "mllm"))
    model = _build_model(run, processor.tokenizer)
    steps, lr = (GO_ON_STEPS, GO_ON_RATE) if run.start else (STEPS, 2e-3)
    student, packer = student_of(model), Packer(processor.tokenizer)
    teach(run, "mllm", student, packer, steps=steps, lr=lr)
    teach_words(run, "mllm", student, packer)
    model.eval().half().save_pretrained(run.weights / "mllm")
    processor.save_pretrained(run.weights / "mllm")


def teach_words(run: RecipeRun, stage: str, student: Student, packer: Packer) -> None:
    """Have an MLLM that answers from pictures answer from descriptions too."""
    teach(
        run, f"{stage}_words", student, packer,
        steps=WORDS_STEPS, lr=WORDS_RATE, worded=MANY_WORDS,
    )  # fmt: skip
    teach(
        run, f"{stage}_both", student, packer,
        steps=BOTH_STEPS, lr=GO_ON_RATE, worded=BOTH_WORDS,
    )  # fmt: skip


def teach(
    run: RecipeRun,
    stage: str,
    student: Student,
    packer: Packer,
    *,
    steps: int,
    lr: float,
    worded: float = WORDED_SHARE,
) -> None:
    """Train an MLLM on the lessons, in place: a curriculum by its own exams.

    Args:
        worded: the share of questions that have a description before them.
    """
    scenes = training_scenes(run, 24_000)  # each comes up about once
    exam, curriculum = Exam(run, student, packer), Curriculum(worded)

    def loss(draws: Draws, step: int) -> torch.Tensor:
        rows = _useful_rows(draws, scenes, curriculum.asked())
        lessons = [_lessons(scenes.records[row], curriculum, packer, draws.numpy) for row in rows]
        pack = packer.pack(lessons)
        pixels = scenes.pixels(rows, run.device, worn=WORN, rng=draws.numpy)
        with run.low_precision():
            logits = packed_logits(student, student.see(pixels), pack, packer.image_start)
        return F.cross_entropy(logits.float(), pack.targets_A.to(logits.device))

    def evaluate() -> dict[str, float]:
        curriculum.pass_on(exam.take())
        marks = dict(zip(CATEGORIES, curriculum.marks.tolist(), strict=True))
        return marks | {"words": exam.take_words()}

    optimize(
        run, stage, {"mllm": student.model, "curriculum": curriculum}, loss,
        steps=run.steps(steps), lr=lr, evaluate=evaluate, evaluate_every=EXAM_EVERY,
    )  # fmt: skip


def _build_model(
    run: RecipeRun, tokenizer: PreTrainedTokenizerFast
) -> LlavaForConditionalGeneration:
    tower = CLIPVisionModelWithProjection.from_pretrained(
        run.weights / "generator" / "image_encoder", dtype=torch.float32
    )
    if run.start:
        model = LlavaForConditionalGeneration.from_pretrained(
            run.start / "mllm", dtype=torch.float32
        )
        before = PreTrainedTokenizerFast.from_pretrained(run.start / "mllm")
        carry_words(model, before, tokenizer)
        return _with_tower(model, tower).to(run.device)
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=416, num_hidden_layers=4, num_attention_heads=4,
        vocab_size=len(tokenizer), max_position_embeddings=1024,
        initializer_range=HIDDEN**-0.5, **special,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=tower.config, text_config=text, vision_feature_layer=list(LAYERS),
        vision_feature_select_strategy="default", image_seq_length=IMAGE_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE), **special,
    )  # fmt: skip
    return _with_tower(LlavaForConditionalGeneration(config), tower).to(run.device)


@torch.no_grad()
def carry_words(
    model: LlavaForConditionalGeneration,
    before: PreTrainedTokenizerFast,
    now: PreTrainedTokenizerFast,
) -> None:
    """Have a model read and write by another tokenizer; new words start as their pieces'.

    Left in pieces, words are not learnt: "striped" as five letters was still at chance after a
    thousand steps.
    """
    vocabulary = now.get_vocab()
    known = before.get_vocab()
    tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    old = [table.clone() for table in tables]
    model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
    tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    for token, index in vocabulary.items():
        text = now.convert_tokens_to_string([token])
        pieces = [known[token]] if token in known else before.encode(text, add_special_tokens=False)
        for table, rows in zip(tables, old, strict=True):
            table[index] = rows[pieces].mean(0)
    for config in (model.config, model.config.text_config, model.generation_config):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(config, name, getattr(now, name))
    model.config.image_token_index = now.convert_tokens_to_ids(IMAGE)


def _with_tower(
    model: LlavaForConditionalGeneration, tower: CLIPVisionModelWithProjection
) -> LlavaForConditionalGeneration:
    """The model with a frozen copy of the image encoder."""
    model.model.vision_tower.load_state_dict(tower.vision_model.state_dict())
    model.model.vision_tower.requires_grad_(False)
    # For sequences this short, and with a mask, the plain attention is quicker on a CPU.
    model.model.language_model.set_attn_implementation("eager")
    return model


def student_of(model: LlavaForConditionalGeneration) -> Student:
    """A LLaVA as packed lessons see it."""
    parts = model.model
    return Student(
        model,
        lambda pixels: tower_features(model, pixels),
        parts.multi_modal_projector,
        parts.language_model,
    )


def tower_features(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """What the projector is given: patches (N, 64, 128 a layer) of the tower's ``LAYERS``."""
    with torch.no_grad():
        seen = model.model.vision_tower(pixels, output_hidden_states=True)
    return torch.cat([seen.hidden_states[layer][:, 1:] for layer in LAYERS], -1)


class Curriculum(nn.Module):
    """Which categories are still asked: those in which the last exam was below ``CEILING``.

    A category that falls below again is taken up again. The marks are a buffer, so that they are
    kept with the weights and a resumed training asks the same.
    """

    marks: torch.Tensor

    def __init__(self, worded: float = WORDED_SHARE) -> None:
        super().__init__()
        self.worded = worded
        self.register_buffer("marks", torch.zeros(len(CATEGORIES)))

    def pass_on(self, marks: list[float]) -> None:
        """Take over the marks of an exam: an accuracy a category."""
        self.marks.copy_(torch.tensor(marks))

    def asked(self) -> list[str]:
        """The categories to ask."""
        return [c for c, mark in zip(CATEGORIES, self.marks, strict=True) if mark < CEILING]

    def mark(self, category: str) -> float:
        """Of the last exam."""
        return float(self.marks[CATEGORIES.index(category)])

    def open_share(self, category: str) -> float:
        """The share of open questions: naming a thing is learnt before comparing it is."""
        return GUESSED_OPEN_SHARE if self.mark(category) < GUESSED else OPEN_SHARE

    def order(self, rng: np.random.Generator) -> list[str]:
        """Those to ask, drawn so that what lags comes first more often."""
        asked = self.asked()
        if not asked:
            return []
        wrong = np.array([(1 - self.mark(c)) ** 2 for c in asked])
        return [str(c) for c in rng.choice(asked, len(asked), replace=False, p=wrong / wrong.sum())]


class Exam:
    """Question pairs of the dev split, answered in packed form: both questions an image.

    Half of the pictures show held-out combinations and a quarter are worn, as in training. The
    marks decide what is asked in training, never what is shown.
    """

    def __init__(self, run: RecipeRun, student: Student, packer: Packer):
        self.student, self.packer = student, packer
        pairs = run.examples(100, least=4)
        pictures: list[np.ndarray] = []
        self.lessons: list[list[Lesson]] = []
        self.worded: list[list[Lesson]] = []
        rng = np.random.default_rng(0)
        for category in CATEGORIES:
            told: list[Scene] = []
            for held_out in (True, False):
                stream = question_pairs(
                    category, SPLITS["dev"] + 5000 * held_out, held_out=held_out, edition=EDITION
                )
                for _ in range(pairs // 2):
                    pair = next(stream)
                    told.append(pair.told)
                    questions = ((pair.yes, "Yes"), (pair.no, "No"))
                    self.lessons.append([Lesson(q + MME_SUFFIX, a) for q, a in questions])
                    if category != "style":
                        self.worded.append(
                            [
                                Lesson(f"{pair.description}.\n{q}{MME_SUFFIX}", a, False)
                                for q, a in questions
                            ]
                        )
            drawn = render_batch(told)
            half = len(told) // 2
            drawn[half : half + half // 2] = wear_some(drawn[half : half + half // 2], rng, 1.0)
            pictures.append(drawn)
        self.features = student.see(to_pixels(np.concatenate(pictures), run.device))

    def take(self) -> list[float]:
        """The accuracy by category: whether the first token is the answer's."""
        return self._right(self.lessons).reshape(len(CATEGORIES), -1).mean(1).tolist()

    def take_words(self) -> float:
        """The accuracy from right descriptions alone, over the categories that words can tell."""
        return float(self._right(self.worded).mean())

    def _right(self, lessons: list[list[Lesson]]) -> np.ndarray:
        parts = range(0, len(lessons), 100)
        return np.concatenate([self._some_right(lessons, slice(p, p + 100)) for p in parts])

    def _some_right(self, lessons: list[list[Lesson]], rows: slice) -> np.ndarray:
        pack = self.packer.pack(lessons[rows])
        features = self.features[rows][: len(lessons[rows])]
        with torch.no_grad():
            logits = packed_logits(self.student, features, pack, self.packer.image_start)
        right = (logits.argmax(-1).cpu() == pack.targets_A).numpy()
        _, firsts = np.unique(pack.lessons_A.numpy(), return_index=True)
        return right[firsts]


def _useful_rows(draws: Draws, scenes: Scenes, asked: list[str]) -> np.ndarray:
    """Scenes for a step: half of them drawn at random, half the most askable of others.

    Else a category that few scenes can tell, position, would be asked least when it lags behind.
    """
    rows = draws.rows(len(scenes), 2 * BATCH)
    some, others = rows[: BATCH // 2], rows[BATCH // 2 :]
    askable = [sum(can_tell(scenes.records[row], category) for category in asked) for row in others]
    best = others[np.argsort(askable, kind="stable")[::-1][: BATCH - len(some)]]
    return np.concatenate([some, best])


def _lessons(
    scene: Scene, curriculum: Curriculum, packer: Packer, rng: np.random.Generator
) -> list[Lesson]:
    """A sequence's lessons about one scene: a description, then questions."""
    return packer.fill(
        lambda: _question_lessons(scene, curriculum, rng), description_lesson(scene, rng), LENGTH
    )


def _question_lessons(
    scene: Scene, curriculum: Curriculum, rng: np.random.Generator
) -> list[Lesson]:
    draw = rng.random()
    if draw < COMPOUND_SHARE:
        return [compound_lesson(scene, rng)]
    if draw < COMPOUND_SHARE + curriculum.worded:
        lesson = _from_words(scene, rng)
        if lesson:
            return [lesson]
    for category in curriculum.order(rng):
        told = tell(scene, category, rng)
        if told is None:
            continue
        if rng.random() < curriculum.open_share(category):
            return [open_lesson(told, category, rng)]
        pair = make_pair(told, category, rng, edition=EDITION)
        return yes_no_lessons(pair, rng)
    return [description_lesson(scene, rng)]  # nothing that is asked can be asked of this scene


def _from_words(scene: Scene, rng: np.random.Generator) -> Lesson | None:
    """Of every category, also those that are no longer asked of pictures."""
    category = CATEGORIES[rng.integers(len(CATEGORIES))]
    told = tell(scene, category, rng)
    return worded_lesson(make_pair(told, category, rng, edition=EDITION), rng) if told else None
