"""MUMU's model: real sizes on the meta device, tiny random weights of the real classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from safetensors.torch import load_file, save_file
from sdxl_folders import PIPELINE
from tiny_mumu import CONTEXT, WIDTH, make_processor, picture, save_idefics2, save_mumu
from transformers import Idefics2Config

from hb_tta.errors import UserError
from hb_tta.generators.mumu.connector import Connector, ConnectorConfig
from hb_tta.generators.mumu.encoder import Encoder, PatchesModel, load_processor, load_vlm
from hb_tta.generators.mumu.folder import INDEX, load_parts, read_index
from hb_tta.generators.mumu.generator import PromptGenerator
from hb_tta.generators.mumu.masking import MASK, install
from hb_tta.generators.mumu.prompt import Prompt
from hb_tta.generators.mumu.spec import PromptSpec
from hb_tta.weights import Weights

A, B, C = picture(0), picture(1, 24, 40), picture(2, 16, 16)
PROMPTS = {
    "words alone": ["a red circle on a blue ground"],
    "a picture alone": [A],
    "at the front": [A, "man"],
    "at the end": ["a man as", B],
    "the paper's": ["a", A, "man and his", B, "dog in an", C, "animated style"],
    "four": [A, B, C, "and", A],
    "repeated": ["a", C, "dog and a", C, "dog"],
}


@pytest.fixture(scope="module")
def idefics2(tmp_path_factory) -> Path:
    return save_idefics2(tmp_path_factory.mktemp("hub") / "idefics2")


@pytest.fixture(scope="module")
def mumu(tmp_path_factory, idefics2) -> Path:
    return save_mumu(tmp_path_factory.mktemp("trained") / "mumu", idefics2)


@pytest.fixture(scope="module")
def encoder(idefics2) -> Encoder:
    weights = Weights(str(idefics2))
    return Encoder(load_vlm(weights, torch.float32), load_processor(weights), registers=3)


@pytest.fixture(scope="module")
def spec(mumu) -> PromptSpec:
    return PromptSpec(
        Weights(str(PIPELINE)),
        mumu=Weights(str(mumu)),
        num_inference_steps=2,
        guidance_scale=3.0,
    )


@pytest.fixture(scope="module")
def generator(spec) -> PromptGenerator:
    return PromptGenerator(spec, device="cpu")


def prompts() -> list[Prompt]:
    return [Prompt.of(parts) for parts in PROMPTS.values()]


# ── Real sizes ───────────────────────────────────────────────────────────────────────────────────


def millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize(("width", "heads", "layers"), [(768, 12, 113.4), (1024, 16, 201.5),
                                                        (2048, 32, 805.7)])  # fmt: skip
def test_the_connectors_real_sizes(width, heads, layers):
    with torch.device("meta"):
        connector = Connector(ConnectorConfig(4096, 2048, width=width, heads=heads))
    assert millions(connector.layers) == pytest.approx(layers, abs=0.1)
    ends = (4096 * width + width + 2 * width + width * 2048 + 2048) / 1e6
    assert millions(connector) == pytest.approx(layers + ends, abs=0.1)


def idefics2_8b() -> PatchesModel:
    config = Idefics2Config(
        vision_config=dict(
            hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16,
            image_size=980, patch_size=14,
        ),
        text_config=dict(
            model_type="mistral", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8, vocab_size=32003, pad_token_id=0,
        ),
    )  # fmt: skip
    with torch.device("meta"):
        return PatchesModel(config)


def test_idefics2s_real_sizes_without_its_perceiver():
    model = idefics2_8b()
    assert millions(model.vision_model) == pytest.approx(417.8, abs=0.1)
    assert millions(model.connector) == pytest.approx(91.8, abs=0.1)
    assert millions(model.connector.modality_projection) == millions(model.connector)
    # Without the head, which the facts' 7,110.7 hold no more than the perceiver.
    assert millions(model.text_model) == pytest.approx(7110.7, abs=0.1)
    assert not [name for name, _ in model.named_parameters() if "perceiver" in name]


@pytest.mark.parametrize(
    ("targets", "size"),
    [
        (r"connector\.modality_projection\.\w+_proj", 0.395),
        (r"text_model\..*\.[qkvo]_proj", 6.82),
        (r"text_model\..*\.(?:[qkvo]|gate|up|down)_proj", 20.97),
    ],
)
def test_loras_real_sizes(targets, size):
    config = LoraConfig(r=8, target_modules=targets)
    model = inject_adapter_in_model(config, idefics2_8b(), "default", low_cpu_mem_usage=True)
    added = [p.numel() for name, p in model.named_parameters() if "lora_" in name]
    assert sum(added) / 1e6 == pytest.approx(size, abs=0.01)


# ── The encoder ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("tokens", "side"), [(64, 112), (324, 252), (1296, 504)])
def test_any_number_of_tokens_from_crops_of_any_shape(encoder, tokens, side):
    prompt = Prompt.of(["a", A, "man and", B, "dog"])
    inputs = encoder.inputs([prompt], tokens)
    assert inputs["pixel_values"].shape == (2, 3, side, side)
    assert int(inputs["is_image"].sum()) == 2 * tokens
    states, _ = encoder.encode([prompt], tokens)
    assert states.shape == (1, inputs["input_ids"].shape[1], WIDTH)
    assert states.isfinite().all()


@pytest.mark.parametrize("size", [(40, 24), (24, 40)])
def test_crops_are_padded_with_black_in_the_encoder_too(encoder, size):
    white = Prompt.of([Image.new("RGB", size, "white")])
    pixels = encoder.inputs([white], 324)["pixel_values"][0]
    lit = (pixels > 0).all(0).float()
    assert float(lit.mean()) == pytest.approx(24 / 40, abs=0.02)
    assert bool((pixels[:, 0, 0] == -1).all())
    middle = lit[126] if size[0] > size[1] else lit[:, 126]
    assert bool(middle.all()), "the long side is whole"


def test_the_tokens_are_those_of_the_stock_processor(encoder):
    """Which is asked for the same size; it would squash what is no square."""
    stock = make_processor()
    stock.image_seq_len = 16
    pictures = [picture(3, 24, 24), picture(4, 16, 16)]
    for text in ("a <image> man and his <image> dog", "<image>, <image>"):
        parts = text.replace("<image>", "\0<image>\0").split("\0")
        left = iter(pictures)
        prompt = Prompt.of([next(left) if part == "<image>" else part for part in parts])
        size = {"shortest_edge": 56, "longest_edge": 56}
        theirs = stock(
            text=text, images=pictures, images_kwargs={"size": size}, return_tensors="pt"
        )
        mine = encoder.inputs([prompt], 16)
        first, registers = encoder.processor.tokenizer.bos_token_id, [2] * 3
        assert mine["input_ids"][0].tolist() == [first, *theirs.input_ids[0], *registers]
        assert torch.equal(mine["pixel_values"], theirs.pixel_values[0])


def test_states_are_the_stock_models(encoder, idefics2):
    """Of one prompt, with the perceiver taken out of the stock class by hand."""
    from transformers import Idefics2Model

    stock = Idefics2Model.from_pretrained(idefics2, dtype=torch.float32).eval()
    stock.connector.perceiver_resampler = encoder.vlm.connector.perceiver_resampler
    prompt = Prompt.of(["a", A, "man and his", B, "dog"])
    states, inputs = encoder.encode([prompt], 16)
    with torch.no_grad():
        theirs = stock(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values=inputs["pixel_values"][None],
        ).last_hidden_state
    torch.testing.assert_close(states, theirs, atol=1e-5, rtol=1e-5)


def test_marks_of_the_tokenizer_in_a_text_are_words(encoder):
    prompt = Prompt.of(["the mark <image> and", A, "<fake_token_around_image> </s> <s>"])
    ids, places = encoder.tokenised(prompt, 4)
    tokenizer = encoder.processor.tokenizer
    assert ids.count(tokenizer.convert_tokens_to_ids("<image>")) == 4
    assert ids.count(tokenizer.convert_tokens_to_ids("<fake_token_around_image>")) == 2
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids.count(tokenizer.eos_token_id) == encoder.registers
    text = encoder.expanded(prompt, 4)
    assert "".join(text[a:b] for a, b in places) == text


@pytest.mark.parametrize("tokens", [0, -4, 5, 71**2])
def test_numbers_of_tokens_that_no_picture_has(encoder, tokens):
    with pytest.raises(UserError, match=f"tokens={tokens} an image is not to be had.*64, 324"):
        encoder.inputs([Prompt.of([A])], tokens)


def test_a_prompt_longer_than_the_language_model_reads(encoder):
    with pytest.raises(UserError, match="tokens and the encoder reads 8192"):
        encoder.inputs([Prompt.of(["word " * 9000])], 4)


def test_pocket_patches_come_from_the_configuration(tmp_path):
    folder = save_idefics2(tmp_path, patch=8, side=64)
    weights = Weights(str(folder))
    small = Encoder(load_vlm(weights, torch.float32), load_processor(weights))
    assert [small.side(tokens) for tokens in (1, 4, 16, 64)] == [8, 16, 32, 64]
    assert small.inputs([Prompt.of([A])], 16)["pixel_values"].shape == (1, 3, 32, 32)
    with pytest.raises(UserError, match="up to 64, such as 4, 16, 64"):
        small.side(81)


def test_a_model_saved_without_a_perceiver_loads(tmp_path, encoder):
    """Also under the model type that such folders of ours have."""
    encoder.vlm.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "idefics2_patches"
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = load_vlm(Weights(str(tmp_path)), torch.float32)
    mine, theirs = encoder.vlm.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


# ── Mixed batches ────────────────────────────────────────────────────────────────────────────────


def test_a_mixed_batch_is_one_by_one(generator):
    how: dict = {"num_inference_steps": 1, "output_type": "latent"}
    seeds = [[number] for number in range(len(PROMPTS))]
    seeds[1] = [1, 50, 51]
    together = generator.generate(prompts(), seeds, **how)
    for prompt, its, latents in zip(prompts(), seeds, together, strict=True):
        assert len(latents) == len(its)
        alone = generator.generate([prompt], [its[:1]], **how)[0][0]
        torch.testing.assert_close(latents[0], alone, atol=1e-4, rtol=1e-4)
    flat = torch.stack([latents[0] for latents in together])
    assert len({tuple(row.flatten()[:4].tolist()) for row in flat}) == len(PROMPTS)


def test_pictures_and_their_places_count(generator):
    """One seed: what differs is the prompt."""
    given = (["a", A, "man"], ["a", B, "man"], ["a", "man", A], ["a man"], [A], ["a", A, A, "man"])
    latents = generator.generate(
        [Prompt.of(it) for it in given],
        [[0]] * len(given),
        num_inference_steps=1,
        output_type="latent",
    )
    for first in range(len(given)):
        for second in range(first):
            assert (latents[first][0] - latents[second][0]).abs().max() > 1e-3


def test_padding_would_change_the_image_without_the_mask():
    unet = UNet2DConditionModel.from_pretrained(PIPELINE / "unet").eval()
    install(unet)
    torch.manual_seed(0)
    context, noise = torch.randn(1, 5, CONTEXT), torch.randn(1, 4, 8, 8)
    padded = torch.cat([context, torch.zeros(1, 7, CONTEXT)], 1)
    mask = torch.tensor([[1] * 5 + [0] * 7])
    pooled = {"text_embeds": torch.zeros(1, 32), "time_ids": torch.zeros(1, 6)}

    def predicted(states, rows=1, **kwargs):
        many = {name: value.repeat(rows, 1) for name, value in pooled.items()}
        with torch.no_grad():
            return unet(
                noise.repeat(rows, 1, 1, 1), 500, states, added_cond_kwargs=many, **kwargs
            ).sample

    plain = predicted(context)
    masked = predicted(padded, cross_attention_kwargs={MASK: mask})
    torch.testing.assert_close(masked, plain, atol=1e-5, rtol=1e-5)
    assert (predicted(padded) - plain).abs().max() > 1e-3
    guided = predicted(
        torch.cat([torch.zeros_like(padded), padded]), 2, cross_attention_kwargs={MASK: mask}
    )
    torch.testing.assert_close(guided[1:], plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        guided[:1], predicted(torch.zeros(1, 1, CONTEXT)), atol=1e-5, rtol=1e-5
    )


def test_an_image_scale_of_one_is_as_trained_and_less_is_less(spec, generator):
    prompt, latents = Prompt.of(["a", A, "man"]), {}
    for scale in (1.0, 0.5, 0.0):
        generator.spec = replace(spec, image_scale=scale)
        latents[scale] = generator.encode([prompt])[0]
    generator.spec = spec
    images = generator.encoder.inputs([prompt], 4)["is_image"][0]
    assert not latents[0.0][images].any() and latents[1.0][images].any()
    torch.testing.assert_close(latents[0.5][images], latents[1.0][images] / 2)
    assert torch.equal(latents[0.0][~images], latents[1.0][~images])


def test_encoder_and_unet_take_turns(generator, monkeypatch):
    """Each leaves before the other comes, and the encoder reads every prompt once."""
    moves: list[tuple[str, str]] = []
    to = torch.nn.Module.to

    def logged(module, *args, **kwargs):
        name = type(module).__name__
        if name in ("Encoder", "Connector", "UNet2DConditionModel"):
            moves.append((name, str(args[0])))
        return to(module, *args, **kwargs)

    passes: list[int] = []
    generator.encoder.register_forward_pre_hook(lambda *_: passes.append(len(moves)))
    generator._device = torch.device("cpu:0")  # a name of its own, so that places can be told
    monkeypatch.setattr(torch.nn.Module, "to", logged)
    generator.generate(prompts()[:2], [[0, 1, 2], [3]], num_inference_steps=1)
    assert moves == [
        ("UNet2DConditionModel", "cpu"),
        ("Encoder", "cpu:0"),
        ("Connector", "cpu:0"),
        ("Encoder", "cpu"),
        ("Connector", "cpu"),
        ("UNet2DConditionModel", "cpu:0"),
    ]
    assert passes == [3]


# ── Trained, saved, loaded ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("whole", [False, True])
def test_what_was_saved_is_what_loads(tmp_path, idefics2, whole):
    folder = save_mumu(tmp_path / "mumu", idefics2, whole=whole, registers=5, tokens=16)
    index, encoder, connector = load_parts(Weights(str(folder)), dtype="float32")
    assert (index.tokens, index.registers, encoder.registers) == (16, 5, 5)
    assert (index.vlm is None) == whole
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")}
    vlm = "vlm/model.safetensors" if whole else "vlm/adapter_model.safetensors"
    assert files == {
        vlm, "connector/model.safetensors", "unet_lora/adapter_model.safetensors",
    }  # fmt: skip
    if not whole:
        written = load_file(folder / vlm)
        loaded = {name: p for name, p in encoder.vlm.named_parameters() if "lora_" in name}
        assert len(written) == len(loaded) > 0
        for name, tensor in written.items():
            mine = name.removeprefix("base_model.model.").replace(".weight", ".default.weight")
            assert torch.equal(loaded[mine], tensor)
    for name, tensor in load_file(folder / "connector" / "model.safetensors").items():
        assert torch.equal(connector.state_dict()[name], tensor)


def test_a_step_of_training_moves_what_is_trained_and_survives_saving(tmp_path, idefics2):
    vlm = load_vlm(Weights(str(idefics2)), torch.float32)
    config = LoraConfig(r=2, target_modules=r"(connector|text_model)\..*(q|up)_proj")
    inject_adapter_in_model(config, vlm, "default")
    encoder = Encoder(vlm, make_processor())
    connector = Connector(ConnectorConfig(WIDTH, CONTEXT, width=48, layers=2, heads=4)).train()
    lora = {name: p for name, p in encoder.named_parameters() if "lora_" in name}
    trained = {**lora, **dict(connector.named_parameters())}
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    losses = []
    for checkpointing in (False, True):
        connector.gradient_checkpointing = checkpointing
        inputs = encoder.inputs(prompts(), 4)
        context = connector(encoder(**inputs), inputs["attention_mask"])
        loss = (context - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    # B of a fresh LoRA is zero, so that A's first gradient is zero: it moves at the second step.
    still = [name for name, p in trained.items() if torch.equal(p, before[name])]
    assert still == []
    connector.eval().save(tmp_path / "connector")
    again = Connector.load(Weights(str(tmp_path), subfolder="connector"))
    with torch.no_grad():
        states = encoder(**inputs)
        mine, theirs = (one(states, inputs["attention_mask"]) for one in (connector, again))
    assert torch.equal(mine, theirs)


def test_the_lora_moves_to_another_base(tmp_path, spec):
    """Finding 4: any Stable Diffusion XL of the same sizes."""
    other = shutil.copytree(PIPELINE, tmp_path / "fine-tune")
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: 0.9 * value for name, value in load_file(weights).items()}, weights)
    moved = replace(spec, base=Weights(str(other)))
    assert moved.to_json() != spec.to_json()
    pipe = moved.load_pipeline()
    plain = load_file(weights)
    name = next(name for name in plain if name.endswith("attn2.to_q.weight"))
    assert not torch.equal(pipe.unet.state_dict()[name], plain[name])
    assert pipe.text_encoder is None and pipe.tokenizer_2 is None


# ── What does not fit ────────────────────────────────────────────────────────────────────────────


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(folder / name)


def _index(**changed: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        (folder / INDEX).write_text(json.dumps({**index, **changed}))

    return change


def _connector(**sizes: int) -> Callable[[Path], object]:
    given = {"in_features": WIDTH, "out_features": CONTEXT, "width": 48, "layers": 2, "heads": 4}
    return lambda folder: Connector(ConnectorConfig(**{**given, **sizes})).save(
        folder / "connector"
    )


def _rewritten(name: str, change: Callable[[dict], dict]) -> Callable[[Path], object]:
    return lambda folder: save_file(change(load_file(folder / name)), folder / name)


def _cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-40])


def _wider(tensors: dict) -> dict:
    return {n: v.repeat(1, 2) if "lora_A" in n else v for n, v in tensors.items()}


CONNECTOR = "connector/model.safetensors"
VLM_LORA = "vlm/adapter_model.safetensors"
UNFIT = [
    (_without("connector"), "have no folder 'connector'"),
    (_without("processor"), "have no folder 'processor'"),
    (lambda folder: (folder / INDEX).unlink(), "is no MUMU: its mumu.json cannot be read"),
    (lambda folder: (folder / INDEX).write_text("[" * 2000), "its mumu.json cannot be read"),
    (lambda folder: (folder / INDEX).write_text("[]"), r"a mumu.json of format \[\]"),
    (_index(format=2), "of format 2, this version reads 1"),
    (_index(tokens="many"), "with tokens='many'"),
    (_index(tokens=True), "with tokens=True"),
    (_index(colour=1), "with colour=1"),
    (_index(registers=-1), "out of range"),
    (_index(vlm="/nowhere/at/all"), "is no folder and no hub id"),
    (_index(vlm=None), "cannot be loaded as an Idefics2"),
    (_index(vlm=str(PIPELINE / "unet")), "cannot be loaded as an Idefics2"),
    (_connector(in_features=40), "for states of 40 numbers, its VLM gives 32"),
    (_connector(out_features=128), "gives 128 numbers a token, the UNet .* attends to 64"),
    (lambda folder: (folder / "connector/config.json").write_text("{}"), "does not name"),
    (_cut("connector/model.safetensors"), "cannot be loaded as a connector"),
    (_rewritten(CONNECTOR, lambda t: {n: v for n, v in t.items() if "qkv" not in n}), "cannot be"),
    (
        _rewritten(CONNECTOR, lambda t: {**t, "norm.bias": t["norm.bias"] / 0}),
        "not finite",
    ),
    (_rewritten(VLM_LORA, _wider), "changes a weight of the shape .*, the VLM's is"),
    (
        _rewritten(VLM_LORA, lambda t: {n.replace("text_model", "model"): v for n, v in t.items()}),
        "none of its .* layers is one of the VLM|has no place in the VLM",
    ),
    (_cut(VLM_LORA), "is damaged or no safetensors file"),
    (_cut("unet_lora/adapter_model.safetensors"), "is damaged or no safetensors file"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), UNFIT, ids=[sentence for _, sentence in UNFIT])
def test_what_does_not_fit_together_is_refused(tmp_path, mumu, spec, change, sentence):
    folder = shutil.copytree(mumu, tmp_path / "mumu")
    change(folder)
    with pytest.raises(UserError, match=sentence):
        PromptGenerator(replace(spec, mumu=Weights(str(folder))), device="cpu")


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path, idefics2):
    folder = shutil.copytree(idefics2, tmp_path / "idefics2")
    weights = folder / "model.safetensors"
    kept = {n: v for n, v in load_file(weights).items() if "modality_projection.up_proj" not in n}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="it lacks 'connector.modality_projection.up_proj.weight'"):
        load_vlm(Weights(str(folder)), torch.float32)


def test_another_models_processor_is_refused(idefics2):
    vlm = load_vlm(Weights(str(idefics2)), torch.float32)
    other = make_processor()
    other.tokenizer.add_tokens([f"word{number}" for number in range(9)])
    with pytest.raises(UserError, match="give the processor that it was made with"):
        Encoder(vlm, other)


def test_a_vlm_is_given_in_place_of_the_named_one_or_refused(tmp_path, idefics2, mumu, spec):
    moved = shutil.copytree(idefics2, tmp_path / "copy")
    same = replace(spec, vlm=Weights(str(moved)))
    assert same.to_json() == spec.to_json()
    whole = save_mumu(tmp_path / "whole", idefics2, whole=True)
    with pytest.raises(UserError, match="holds its own VLM: leave vlm"):
        replace(same, mumu=Weights(str(whole))).to_json()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"tokens": 300}, "tokens=300 is no square number"),
        ({"image_scale": -1.0}, "image_scale=-1.0 is out of range"),
        ({"image_scale": float("nan")}, "image_scale=nan"),
        ({"num_inference_steps": 0}, "num_inference_steps=0"),
    ],
)
def test_settings_out_of_range(spec, setting, sentence):
    with pytest.raises(UserError, match=sentence):
        replace(spec, **setting)


@pytest.mark.parametrize(
    "setting",
    [{"tokens": 16}, {"image_scale": 0.5}, {"guidance_scale": 4.0}, {"num_inference_steps": 3},
     {"dtype": "bfloat16"}, {"height": 64}],
)  # fmt: skip
def test_every_setting_is_in_the_key(spec, setting):
    assert replace(spec, **setting).to_json() != spec.to_json()


def test_the_folders_own_number_of_tokens_is_one_key(spec, mumu):
    assert replace(spec, tokens=read_index(Weights(str(mumu))).tokens).to_json() == spec.to_json()


def test_it_runs_in_sixteen_bits(spec):
    generator = PromptGenerator(replace(spec, dtype="bfloat16"), device="cpu")
    image = generator.generate([Prompt.of(["a", A, "man"])], [[0]])[0][0]
    assert image.mode == "RGB" and np.asarray(image).std() > 0
