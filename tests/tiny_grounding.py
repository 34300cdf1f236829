"""A tiny random GroundingDINO of the real classes, and the tokenizer that it takes.

GroundingDINO has BERT's ids of "[CLS]", "[SEP]", "." and "?" written into it: the tokenizer has
them where BERT has.
"""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    PreTrainedTokenizerFast,
    ResNetConfig,
)

SIDE = 128  # of the picture that it sees: its levels need as much
WIDTH = 64  # 32 groups are normalised, of two channels or more
BERT = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
WORDS = ("red", "blue", "circle", "circles", "square", "squares", "a", "the")


def make_processor() -> GroundingDinoProcessor:
    """Some words, lower case, and pictures at ``SIDE``."""
    vocabulary = BERT | {word: place for place, word in enumerate(WORDS, start=1)}
    for number in set(range(max(BERT.values()))) - set(vocabulary.values()):
        vocabulary[f"[unused{number}]"] = number
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=64,
    )  # fmt: skip
    pictures = GroundingDinoImageProcessor(
        size={"shortest_edge": SIDE, "longest_edge": SIDE}, do_pad=False
    )
    return GroundingDinoProcessor(pictures, tokenizer)


def build_model(processor: GroundingDinoProcessor) -> GroundingDinoForObjectDetection:
    """The detector with random weights: 16 boxes."""
    heads = dict(num_attention_heads=4, intermediate_size=2 * WIDTH)
    config = GroundingDinoConfig(
        backbone_config=ResNetConfig(
            embedding_size=24, hidden_sizes=[32, 48, 64, 96], depths=[1, 1, 1, 1],
            layer_type="basic", out_features=["stage2", "stage3"],
        ),
        text_config=dict(
            model_type="bert", vocab_size=len(processor.tokenizer), hidden_size=WIDTH,
            num_hidden_layers=2, max_position_embeddings=64, **heads,
        ),
        d_model=WIDTH, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=2 * WIDTH,
        decoder_ffn_dim=2 * WIDTH, encoder_attention_heads=4, decoder_attention_heads=4,
        num_queries=16, num_feature_levels=2, encoder_n_points=2, decoder_n_points=2,
        max_text_len=64, dropout=0.0, fusion_dropout=0.0, fusion_droppath=0.0,
    )  # fmt: skip
    return GroundingDinoForObjectDetection(config)
