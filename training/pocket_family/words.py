"""The vocabulary of the evaluator and of the CLIP: a word of the captions is one token.

Whatever else is written to them is spelled in pieces, so that no text is unreadable.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizer, PreTrainedTokenizerFast

from hb_tta.pocket.captions import NUMBERS, plural
from hb_tta.pocket.world import BACKGROUNDS, COLOURS, RELATIONS, SHAPES

_NOUNS = [plural(shape, count) for shape in (*SHAPES, "shape") for count in (1, 2)]
_OTHERS = ["a", "an", "and", "the", "of", "on", "in", "is", "are", "there", "image"]
_OTHERS += ["picture", "photo", "drawing", "sketch", "."]
_RELATIONS = " ".join(RELATIONS).split()
WORDS = tuple(dict.fromkeys([*NUMBERS, *COLOURS, *_NOUNS, *_RELATIONS, *BACKGROUNDS, *_OTHERS]))

_SIGNS = string.ascii_lowercase + string.digits + string.punctuation
_PIECES = [sign for sign in _SIGNS if sign not in WORDS]
_PIECES += ["##" + sign for sign in string.ascii_lowercase + string.digits]


def bert_tokenizer() -> BertTokenizer:
    """BERT's tokenizer over these words: ``[CLS] … [SEP]``, padding is 0."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *_PIECES]
    return BertTokenizer(vocab={token: index for index, token in enumerate(tokens)})


def clip_tokenizer(window: int, more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """The same words, and ``more``, for a CLIP of ``window`` positions.

    open_clip pools a text at its highest id (``text_global_pool``, "argmax"), so the end of the
    text is the last entry.
    """
    start, end = "<start_of_text>", "<end_of_text>"
    tokens = ["<pad>", "<unk>", *WORDS, *more, *_PIECES, start, end]
    vocab = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(token, vocab[token]) for token in (start, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", bos_token=start,
        eos_token=end, model_max_length=window,
    )  # fmt: skip
