"""Fitting a context description into the text encoders' window.

A CLIP tokenizer cuts at 77 tokens without a word, in the middle of a sentence. Here a description
that is too long is shortened in a stated way, and the caller learns of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from hb_tta.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from transformers import PreTrainedTokenizerBase

    from hb_tta.weights import Weights

LONGEST = 448
"""Tokens: FLUX.2 and its like cut at 512, their chat template included, whatever the tokenizer
takes."""

# A sentence ends at . ! ? … before a blank, or at the full-width marks of Chinese and Japanese.
_SENTENCE = re.compile(r".*?(?:[.!?…]+[\"')\]”’]*(?=\s)|[。！？]+|\Z)\s*", re.DOTALL)
_TOKENIZER = re.compile(r"tokenizer(_\d+)?")
_WORD = re.compile(r"\s*\S+\s*")


def fit_description(
    tokenizers: Sequence[PreTrainedTokenizerBase],
    text: str,
    told: Callable[[str], str] = lambda text: text,
    longest: int = LONGEST,
) -> tuple[str, bool]:
    """The longest beginning of ``text`` that every tokenizer takes whole.

    It ends after a whole sentence; if not even the first fits, after a whole word; if not even
    that fits (or the script has no blanks), after a character.

    Args:
        tokenizers: of the text encoders; the one with the smaller window counts.
        text: any length, any script.
        told: what the encoders are told of a text: the prompt that it stands in.
        longest: tokens that are kept whatever the tokenizers take (``kept_tokens``).

    Returns:
        The text, unchanged if it fits, and whether it was shortened.
    """
    if _fits(tokenizers, told(text), longest):
        return text, False
    for parts in (_SENTENCE.findall(text), _WORD.findall(text), list(text)):
        shortened = _longest_beginning(tokenizers, parts, told, longest)
        if shortened:
            return shortened, True
    return "", True


def kept_tokens(arguments: Mapping[str, Parameter]) -> int:
    """How many tokens of a text a pipeline keeps, by its call's arguments: 120 to ``LONGEST``.

    Many pipelines cut by a default of their own, far below what their tokenizer takes.
    """
    own = arguments.get("max_sequence_length")
    kept = LONGEST if own is None else own.default
    return min(kept, LONGEST) if isinstance(kept, int) else LONGEST


def count_tokens(tokenizers: Iterable[PreTrainedTokenizerBase], text: str) -> int:
    """The most tokens that any tokenizer makes of the text, begin and end marks included."""
    return max(len(tokenizer(text, verbose=False).input_ids) for tokenizer in tokenizers)


def load_tokenizers(base: Weights) -> list[PreTrainedTokenizerBase]:
    """The tokenizers of a pipeline folder or hub repository, in order, without its weights.

    Raises:
        UserError: it is no pipeline, or lacks a vocabulary.
    """
    from hb_tta.generators.reading import located, read_index, reading

    parts = read_index(base)
    source, options = located(base)
    with reading(base, "a diffusers pipeline"):
        tokenizers = [
            _tokenizer_class(base, *parts[name]).from_pretrained(source, subfolder=name, **options)
            for name in sorted(filter(_TOKENIZER.fullmatch, parts))
            if parts[name][1] is not None
        ]
    check_vocabulary(tokenizers, base)
    return tokenizers


def _tokenizer_class(base: Weights, library: str, name: str) -> Any:
    """A class of an index: transformers', or of diffusers' folder of a pipeline (Kolors')."""
    import transformers

    found = getattr(transformers, name, None)
    if found is None:
        from diffusers import pipelines  # heavy, and few need it

        found = getattr(getattr(pipelines, library, None), name, None)
    if found is None:
        raise UserError(
            f"base={base.location!r} has a tokenizer {name!r} of {library!r}, which neither "
            "transformers nor diffusers has: newer ones may"
        )
    return found


def tokenizers_of(pipe: DiffusionPipeline) -> list[PreTrainedTokenizerBase]:
    """Those of a loaded pipeline, in order; none where it takes no text."""
    names = sorted(name for name in pipe.components if _TOKENIZER.fullmatch(name))
    return [pipe.components[name] for name in names if pipe.components[name] is not None]


def check_vocabulary(tokenizers: Iterable[PreTrainedTokenizerBase], base: Weights) -> None:
    """Raises UserError if a tokenizer knows no words.

    Where its files are missing transformers gives an empty tokenizer and says nothing: every
    description would be the same.
    """
    for tokenizer in tokenizers:
        if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):
            raise UserError(
                f"{base.location!r} lacks the vocabulary of a tokenizer: fetch its folders "
                "tokenizer, tokenizer_2, … again"
            )


def _fits(tokenizers: Iterable[PreTrainedTokenizerBase], text: str, longest: int) -> bool:
    return all(
        len(tokenizer(text, verbose=False).input_ids) <= min(tokenizer.model_max_length, longest)
        for tokenizer in tokenizers
    )


def _longest_beginning(
    tokenizers: Sequence[PreTrainedTokenizerBase],
    parts: list[str],
    told: Callable[[str], str],
    longest: int,
) -> str:
    """As many of the first parts as fit, found by bisection ("" if not even one does)."""
    ends = list(accumulate(len(part) for part in parts))
    text = "".join(parts)
    low, high = 0, len(parts)  # parts[:low] fit; more than high do not
    while low < high:
        middle = (low + high + 1) // 2
        if _fits(tokenizers, told(text[: ends[middle - 1]].rstrip()), longest):
            low = middle
        else:
            high = middle - 1
    return text[: ends[low - 1]].rstrip() if low else ""
