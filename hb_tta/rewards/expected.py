"""What the judges' scores rely on in processors and tokenizers, checked when they are loaded.

The judges take pixels and ids their own way, with gradients. Where a folder's processor would take
others, they do the same, or it is refused: never another score in silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hb_tta.errors import UserError, shown
from hb_tta.weights import Weights

_BICUBIC = 3  # Pillow's number
_SPARE = 128  # rows of an embedding beyond the vocabulary: padding to a round number


def picture_values(processor: Any, side: int, weights: Weights) -> tuple[list[float], list[float]]:
    """The mean and deviation that pixels in [0, 1] are normalised with.

    Args:
        processor: transformers' image processor.
        side: of the pictures that the vision tower takes.
        weights: for the sentence.

    Raises:
        UserError: it makes other pixels than squares of that side, resized by a bicubic filter.
    """
    if processor is None:
        raise UserError(f"{weights.location!r} has no image processor: fetch all of its files")
    for name, value, wanted in (
        ("do_resize", processor.do_resize, True),
        ("do_rescale", processor.do_rescale, True),
        ("resample", int(processor.resample), _BICUBIC),
        ("size", _side(processor.size), side),
        ("crop_size", _crop(processor, side), side),
    ):
        if value != wanted:
            raise UserError(
                f"the image processor of {weights.location!r} has {name}={value}, and these "
                f"scores are of {name}={wanted}: give weights whose processor has that"
            )
    if not math.isclose(processor.rescale_factor, 1 / 255, rel_tol=1e-6):
        raise UserError(
            f"the image processor of {weights.location!r} has "
            f"rescale_factor={processor.rescale_factor}, and these scores are of 1/255"
        )
    if not processor.do_normalize:
        return [0.0] * 3, [1.0] * 3
    return _three(processor.image_mean, weights), _three(processor.image_std, weights, above=0)


def _side(size: Any) -> Any:
    """The side of squares; else what it is."""
    if isinstance(size, int):
        return size
    found = {size.get("height"), size.get("width"), size.get("shortest_edge")} - {None}
    return found.pop() if len(found) == 1 else size


def _crop(processor: Any, side: int) -> Any:
    crops = getattr(processor, "do_center_crop", False)
    return _side(processor.crop_size) if crops else side


def _three(values: Any, weights: Weights, above: float | None = None) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 3 or not all(
        math.isfinite(number) and (above is None or number > above) for number in numbers
    ):
        raise UserError(
            f"the image processor of {weights.location!r} normalises with {shown(values)}: give "
            "three numbers, one a channel"
        )
    return numbers


def check_bert(tokenizer: Any, vocabulary: int, weights: Weights) -> None:
    """Makes a tokenizer pad and cut at the right, as the Q-Former reads texts, or refuses it.

    The text's embedding is that of the first token, [CLS]; its end is [SEP]; words are looked up
    in lower case where the vocabulary has no other.

    Args:
        tokenizer: in place.
        vocabulary: how many words the model knows.
        weights: for the sentence.

    Raises:
        UserError: its ids would not be those that the model was trained on.
    """
    _check_tokenizer(tokenizer, ("cls", "sep"), vocabulary, weights)


def check_clip(tokenizer: Any, vocabulary: int, weights: Weights) -> None:
    """``check_bert`` of a CLIP, whose texts' embedding is that of their last token, the end's."""
    _check_tokenizer(tokenizer, ("bos", "eos"), vocabulary, weights)


def _check_tokenizer(
    tokenizer: Any, edges: tuple[str, str], vocabulary: int, weights: Weights
) -> None:
    if tokenizer is None:
        raise UserError(f"{weights.location!r} has no tokenizer: fetch all of its files")
    fault = _fault(tokenizer, edges, vocabulary)
    if fault:
        raise UserError(
            f"the tokenizer of {weights.location!r} {fault}: its scores would be of other texts; "
            "fetch its files again"
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token_id is None:  # masked, so that any will do
        tokenizer.pad_token = getattr(tokenizer, f"{edges[1]}_token")


def _fault(tokenizer: Any, edges: tuple[str, str], vocabulary: int) -> str | None:
    ends = tuple(getattr(tokenizer, f"{name}_token_id") for name in edges)
    unknown, words = tokenizer.unk_token_id, _some_words(tokenizer)
    ids = {word: tokenizer(word)["input_ids"] for word in words}
    if None in ends or any((one[0], one[-1]) != ends for one in ids.values()):
        return f"does not put {edges[0]}_token before a text and {edges[1]}_token behind it"
    if tokenizer.vocab_size > vocabulary or len(tokenizer) + _SPARE < vocabulary:
        return f"has {tokenizer.vocab_size} words, the model {vocabulary}"
    for word in words:
        is_known = unknown is None or unknown not in ids[word][1:-1]
        if is_known and unknown in tokenizer(word.upper())["input_ids"][1:-1]:
            return f"knows {word!r} and not {word.upper()!r} (do_lower_case)"
    return None


def _some_words(tokenizer: Any) -> Sequence[str]:
    """A few words of letters alone that the tokenizer knows, the same ones each time."""
    known = sorted(
        word
        for word in tokenizer.get_vocab()
        if word.isascii() and word.isalpha() and word.islower() and len(word) > 1
    )
    return known[:: max(1, len(known) // 8)][:8]
