"""The pocket MLLM: its lessons tell the truth, and the stock classes train, load and ask it."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from hb_tta.describe import DescriberSpec
from hb_tta.describe.templates import evaluation_prompt
from hb_tta.families import get_family
from hb_tta.pocket.captions import NUMBERS
from hb_tta.pocket.edition import FILLINGS
from hb_tta.pocket.reading import answer as read_answer
from hb_tta.pocket.reading import read_description, reading_of
from hb_tta.pocket.tasks import PARTS, make_pair, pocket_mme
from hb_tta.pocket.world import (
    BACKGROUNDS,
    COLOURS,
    CONTACTS,
    DIRECTIONS,
    inverse,
    render,
    render_batch,
    sample_scenes,
)
from hb_tta.training.pocket_family import mllm, mllm_evaluate, mllm_processor, optimize
from hb_tta.training.pocket_family import mllm_lessons as lessons_of
from hb_tta.training.pocket_family.mllm_evaluate import keeps
from hb_tta.training.pocket_family.mllm_packing import Packer, packed_logits
from hb_tta.training.pocket_family.mllm_processor import AFTER, BEFORE, IMAGE_TOKENS, make_processor
from hb_tta.training.pocket_family.run import RecipeRun, to_pixels
from hb_tta.weights import Weights

SCALE = 0.002
CATEGORIES, EDITION = lessons_of.CATEGORIES, lessons_of.EDITION
VALUES = {*NUMBERS, *COLOURS, *BACKGROUNDS, *FILLINGS, "left", "right", "above", "below"}
SCENES = list(islice(sample_scenes(99, edition=EDITION), 400))


@pytest.fixture(scope="module")
def processor():
    return make_processor()


def new_run(folder, **settings) -> RecipeRun:
    """A miniature run with a random image encoder in the shape of the real one."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=5, projection_dim=128,
        num_attention_heads=4, image_size=64, patch_size=8, hidden_act="gelu",
    )  # fmt: skip
    run = RecipeRun(folder / "work", folder / "weights", scale=SCALE, **settings)
    tower = CLIPVisionModelWithProjection(config)
    tower.half().save_pretrained(run.weights / "generator" / "image_encoder")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RecipeRun:
    """A miniature run with its MLLM."""
    made = new_run(tmp_path_factory.mktemp("mllm"))
    mllm.train_mllm(made)
    return made


def chat(question, image=None):
    picture = {"type": "image"} if image is None else {"type": "image", "image": image}
    return [{"role": "user", "content": [picture, {"type": "text", "text": question}]}]


# What is asked and answered


def drawn(scene, category, rng):
    told = lessons_of.tell(scene, category, rng)
    return None if told is None else make_pair(told, category, rng, edition=EDITION)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_value_that_is_asked_for_says_nothing_of_the_answer(category):
    rng = np.random.default_rng(0)
    lean: Counter = Counter()
    pairs = [pair for scene in SCENES * 4 if (pair := drawn(scene, category, rng)) is not None]
    for pair in pairs:
        lean.update({_value(pair.yes): 1, _value(pair.no): -1})
    guessed = np.mean([np.sign(lean[_value(p.yes)]) - np.sign(lean[_value(p.no)]) for p in pairs])
    assert 0.5 + guessed / 4 < 0.56


def _value(question):
    """The number, relation, ground, colour or filling that a question names; else its shape."""
    words = question.rstrip("?").split()
    return next((word for word in words if word in VALUES), words[3])


@pytest.mark.parametrize("category", ["count", "scene"])
def test_no_blind_model_can_know_the_benchmark(category):
    assert 0.44 < mllm_evaluate.best_blind_accuracy(category, pairs=300, learnt=600) < 0.56


def test_open_answers_are_true():
    rng = np.random.default_rng(1)
    seen: Counter = Counter()
    for scene in SCENES:
        for category in CATEGORIES:
            told = lessons_of.tell(scene, category, rng)
            if told is None:
                continue
            question, answer, _ = lessons_of.open_lesson(told, category, rng)
            group = told.groups[0]
            facts = {
                "existence": [group.shape],
                "count": [NUMBERS[group.count - 1]],
                "position": [group.shape, told.relation],
                "color": [group.colour],
                "scene": [scene.background],
                "style": [group.filling],
                "reasoning": [group.shape],
            }
            assert answer.lower() in facts[category], (question, answer, scene)
            seen[category] += 1
    assert set(seen) == set(CATEGORIES)


def holds(description, scene):
    """Whether all that a description says is so, in any order of telling."""
    told = read_description(description)
    assert told.groups, description
    for count, colour, shape in told.groups:
        group = scene.group_of(shape)
        if group is None or count not in (None, group.count) or colour not in (None, group.colour):
            return False
    if told.backgrounds not in ([], [scene.background]):
        return False
    if not told.relations:
        return True
    forward = [shape for *_, shape in told.groups] == [group.shape for group in scene.groups]
    return told.relations == [scene.relation if forward else inverse(scene.relation)]


def test_every_description_is_true_whatever_is_asked():
    rng = np.random.default_rng(2)
    for scene in SCENES * 2:
        prompt, description, _ = lessons_of.description_lesson(scene, rng)
        assert " and " not in description
        assert holds(description, scene), (prompt, description, scene)


def test_interactions_are_described_with_the_relation_that_holds():
    rng = np.random.default_rng(3)
    scenes = [scene for scene in SCENES if scene.relation in CONTACTS]
    for scene in scenes:
        prompt, description, _ = lessons_of._interaction_lesson(scene, rng)
        assert "interaction" in prompt
        assert read_description(description).relations == [scene.relation]


def test_descriptions_keep_what_is_asked_and_wrong_ones_are_told_apart():
    rng = np.random.default_rng(4)
    for category in CATEGORIES:
        samples = list(pocket_mme("dev", category=category, limit=60, edition=EDITION))[::2]
        described = []
        for sample in samples:
            pair = make_pair(sample.scene, category, rng, edition=EDITION)
            described.append(pair.description)
            assert keeps(described[-1], sample)
            assert not keeps("", sample)
        wrong = [keeps(described[i - 1], sample) for i, sample in enumerate(samples)]
        assert np.mean(wrong) < 0.4


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("Two red crosses and circle", [(2, "red", "cross"), (None, None, "circle")]),
        ("three squares", [(3, None, "square")]),
        ("a blue triangle", [(None, "blue", "triangle")]),
        ("a dog", []),
    ],
)
def test_descriptions_are_read(text, groups):
    assert read_description(text).groups == groups


def test_a_category_is_asked_while_it_is_failed():
    curriculum = mllm.Curriculum()
    assert curriculum.asked() == list(CATEGORIES)
    curriculum.pass_on([0.5, 0.95, 0.81, 1.0, 0.7, 0.9, 0.9])
    assert curriculum.asked() == ["existence", "position", "scene"]
    curriculum.pass_on([0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert curriculum.asked() == ["existence", "count"]


def test_what_lags_is_asked_more_often():
    curriculum, rng = mllm.Curriculum(), np.random.default_rng(0)
    curriculum.pass_on([0.8] * (len(CATEGORIES) - 2) + [0.4, 0.9])
    firsts = Counter(curriculum.order(rng)[0] for _ in range(1000))
    assert CATEGORIES[-1] not in firsts  # passed
    share = 0.6**2 / (0.6**2 + 0.2**2 * (len(CATEGORIES) - 2))
    assert abs(firsts[CATEGORIES[-2]] / 1000 - share) < 0.06
    assert curriculum.open_share(CATEGORIES[-2]) > curriculum.open_share(CATEGORIES[0])


def test_with_nothing_to_ask_descriptions_are_practised():
    rng = np.random.default_rng(5)
    passed = mllm.Curriculum()
    passed.pass_on([1.0] * len(CATEGORIES))
    lessons = [mllm._question_lessons(scene, passed, rng)[0] for scene in SCENES[:50]]
    assert sum("Describe" in lesson.text or "caption" in lesson.text for lesson in lessons) > 35


def test_both_questions_of_a_pair_are_asked():
    rng = np.random.default_rng(8)
    lessons = lessons_of.yes_no_lessons(drawn(SCENES[0], "scene", rng), rng)
    assert [lesson.answer for lesson in lessons] == ["Yes", "No"]
    assert SCENES[0].background in lessons[0].text
    assert SCENES[0].background not in lessons[1].text


# Told from the other group, or compared.
SAID_OTHERWISE = {relation.capitalize() for relation in DIRECTIONS}


def test_answers_from_words_are_true_of_the_words_without_and_of_the_picture_with_it():
    rng = np.random.default_rng(9)
    wrong, pictured = 0, 0
    for scene in SCENES:
        for category in CATEGORIES:
            pair = drawn(scene, category, rng)
            lesson = pair and lessons_of.worded_lesson(pair, rng)
            if not lesson:
                continue
            words, question = lesson.text.split("\n")[:2]
            question = question[: question.index("?") + 1]
            if lesson.answer in ("Yes", "No"):
                right = read_answer(reading_of(pair.told), question)
                assert lesson.answer == ("Yes" if right else "No")
            elif not lesson.pictured and lesson.answer not in SAID_OTHERWISE:
                assert lesson.answer.lower() in words.lower()  # it is found in the words
            true = holds(words, pair.told)
            assert true or lesson.pictured
            wrong, pictured = wrong + (not true), pictured + lesson.pictured
    assert 0.1 < wrong / pictured < 0.3


# The processor


def test_any_text_tokenises_and_only_a_bos_is_added(processor):
    tokenizer = processor.tokenizer
    for text in ("Is there a zebra?", "¿Qué hay? 你好 🙂", "a\tb\x00 c", ""):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.eos_token_id not in ids
        assert tokenizer.decode(ids[1:]) == text
    assert len(tokenizer("Yes", add_special_tokens=False)["input_ids"]) == 1


def test_the_vocabulary_is_the_same_each_time(processor):
    assert make_processor().tokenizer.get_vocab() == processor.tokenizer.get_vocab()


def test_a_run_keeps_its_tokenizer_when_the_lessons_change(tmp_path, monkeypatch):
    run = RecipeRun(tmp_path / "work", tmp_path / "weights")
    made = mllm_processor.kept_tokenizer(run, "mllm")
    monkeypatch.setattr(mllm_processor, "_corpus", lambda: ["other words altogether"])
    assert mllm_processor.make_tokenizer().get_vocab() != made.get_vocab()
    again = mllm_processor.kept_tokenizer(run, "mllm")
    assert again.get_vocab() == made.get_vocab() and again.padding_side == "left"
    text = "Is there a circle in this image?"
    assert again(text)["input_ids"] == made(text)["input_ids"]
    assert make_processor(again).tokenizer.image_token == "<image>"


def test_long_templates_cost_a_token_a_word(processor):
    prompt = evaluation_prompt("Are there three circles in this image?", "vqa")
    assert len(processor.tokenizer(prompt)["input_ids"]) < 80


def test_a_harness_string_is_the_same_conversation(processor):
    question = "Is there a circle?\nAnswer the question using a single word or phrase."
    listed = processor.apply_chat_template(chat(question), add_generation_prompt=True)
    harness = [{"role": "user", "content": f"<image>\n{question}"}]
    assert processor.apply_chat_template(harness, add_generation_prompt=True) == listed
    assert listed == BEFORE + question + AFTER
    answered = [*harness, {"role": "assistant", "content": "Yes"}]
    assert processor.apply_chat_template(answered) == listed + "Yes</s>"


def test_an_earlier_model_reads_the_worlds_new_words_as_tokens(processor):
    """Words that both know keep their rows; a new one starts as the mean of its pieces."""
    folder = get_family("pocket").weights("mllm").local_folder()
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    before, now = AutoProcessor.from_pretrained(folder).tokenizer, processor.tokenizer
    old = model.get_input_embeddings().weight.clone(), model.lm_head.weight.clone()
    mllm.carry_words(model, before, now)
    ids = {
        text: [tokenizer.encode(text, add_special_tokens=False) for tokenizer in (before, now)]
        for text in (" circles", "Yes", " striped")
    }
    assert len(ids[" striped"][1]) == 1
    for table, rows in zip(
        (model.get_input_embeddings().weight, model.lm_head.weight), old, strict=True
    ):
        assert len(table) == len(now)
        for was, becomes in ids.values():
            torch.testing.assert_close(table[becomes[0]], rows[was].mean(0))
    assert model.config.image_token_id == now.convert_tokens_to_ids("<image>")
    assert model.generation_config.eos_token_id == now.eos_token_id


# Packing


def test_packed_logits_are_the_plain_ones(tmp_path, processor):
    model = mllm._build_model(new_run(tmp_path), processor.tokenizer).eval()
    packer = Packer(processor.tokenizer)
    rng = np.random.default_rng(6)
    scenes = SCENES[:3]
    by_image = [
        mllm._lessons(scene, mllm.Curriculum(), packer, rng)[: 3 + row]
        for row, scene in enumerate(scenes)
    ]
    pack = packer.pack(by_image)
    with torch.no_grad():
        features = mllm.tower_features(model, to_pixels(render_batch(scenes)))
        packed = packed_logits(mllm.student_of(model), features, pack, packer.image_start)
        number = 0
        for scene, lessons in zip(scenes, by_image, strict=True):
            for lesson in lessons:
                inputs = plain_inputs(processor, scene, lesson)
                size = int((pack.lessons_A == number).sum())
                plain = model(**inputs).logits[0, -size - 1 : -1]
                torch.testing.assert_close(packed[pack.lessons_A == number], plain)
                assert inputs["input_ids"][0, -size:].tolist() == [
                    *pack.targets_A[pack.lessons_A == number]
                ]
                number += 1
    assert number == pack.lessons_A.max() + 1


def words(text):
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


def plain_inputs(processor, scene, lesson):
    """A lesson as anyone would ask it, with its answer: the stock processor and template."""
    turns = [
        *(chat(lesson.text, render(scene)) if lesson.pictured else words(lesson.text)),
        {"role": "assistant", "content": [{"type": "text", "text": lesson.answer}]},
    ]
    return processor.apply_chat_template(
        turns, tokenize=True, return_dict=True, processor_kwargs={"return_tensors": "pt"}
    )


def test_a_sequence_is_filled_and_no_longer(processor):
    packer = Packer(processor.tokenizer)
    rng = np.random.default_rng(7)
    lessons = [mllm._lessons(scene, mllm.Curriculum(), packer, rng) for scene in SCENES[:20]]
    pack = packer.pack(lessons)
    assert pack.ids_BT.shape[1] <= mllm.LENGTH
    assert np.mean([len(some) for some in lessons]) > 5


# The finished model


def test_the_folder_loads_and_answers_by_the_chat_template(run):
    folder = run.weights / "mllm"
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    image = render(SCENES[0])
    inputs = processor.apply_chat_template(
        [chat("Is there a circle?", image), chat("Describe the image, in a few words.", image)],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"padding": True, "return_tensors": "pt"},
    )
    assert (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist() == [
        IMAGE_TOKENS
    ] * 2
    assert inputs["attention_mask"][0, 0] == 0  # the shorter one is padded on the left
    ids = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert ids.shape[1] <= inputs["input_ids"].shape[1] + 3
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id


def test_what_is_saved_is_what_was_trained(run):
    files = sorted(path.name for path in (run.weights / "mllm").iterdir())
    assert "model.safetensors" in files and "chat_template.jinja" in files
    assert not [name for name in files if name.endswith((".bin", ".pt"))]
    tensors = load_file(run.weights / "mllm" / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert (run.weights / "mllm" / "model.safetensors").stat().st_size < 6_000_000


def test_the_tower_is_the_image_encoder(run):
    model = AutoModelForImageTextToText.from_pretrained(run.weights / "mllm", dtype=torch.float32)
    encoder = CLIPVisionModelWithProjection.from_pretrained(
        run.weights / "generator" / "image_encoder", dtype=torch.float32
    )
    ours, theirs = model.model.vision_tower.state_dict(), encoder.vision_model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_describer_takes_it_as_it_is(run):
    describer = DescriberSpec(Weights(str(run.weights / "mllm")), max_new_tokens=5).load("cpu")
    image = render(SCENES[0])
    texts = describer.describe([(image, None, "Is there a circle?"), (image, None, "", "generic")])
    assert len(texts) == 2


def test_figures_are_samples_by_category(run):
    figures = mllm_evaluate.evaluate_mllm(run, "dev", limit=4)
    assert tuple(figures) == CATEGORIES
    assert "text alone" in figures["count"] and "text alone" not in figures["style"]
    for by_name in figures.values():
        whole = {"accuracy", "single_word", "blind", "blank", "description"}
        parts = {f"{name}, {part}" for name in ("accuracy", "description") for part in PARTS}
        assert set(by_name) - {"text alone"} == whole | parts
        assert all(set(v) <= {0, 1} for v in by_name.values())
        assert all(by_name[name].shape == (8,) for name in whole)
        assert [len(by_name[f"accuracy, {part}"]) for part in PARTS] == [2, 4, 2]


def test_a_killed_training_resumes_to_the_same_weights(run, tmp_path, monkeypatch):
    killed = new_run(tmp_path, save_seconds=0)
    save = optimize._Checkpoint.save

    def save_then_die(checkpoint, *args):
        save(checkpoint, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optimize._Checkpoint, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            mllm.train_mllm(killed)
    assert not (killed.weights / "mllm").exists()
    mllm.train_mllm(killed)
    ours, theirs = (load_file(r.weights / "mllm" / "model.safetensors") for r in (killed, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
