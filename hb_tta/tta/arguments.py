"""What a call of ``generate`` consists of: how to decode, and the inputs of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import StoppingCriteriaList, StopStringCriteria

from hb_tta.errors import UserError
from hb_tta.tta.merging import Merged, is_equal, merge, prompt_length

# What says how to decode, and is taken from the real view's call alone.
_OBJECTS = ("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn")
_SETTINGS = (*_OBJECTS, "generation_config")
# What decoding several views at once has no place for.
_UNSUPPORTED = (
    "assistant_model",
    "prompt_lookup_num_tokens",
    "streamer",
    "past_key_values",
    "negative_prompt_ids",
    "custom_generate",
    "output_attentions",
    "output_hidden_states",
    "guidance_scale",
)
# What a question of its own has to say for rows of others to be in its batch.
_GREEDY = {
    "do_sample": (None, False),
    "num_beams": (None, 1),
    "num_return_sequences": (None, 1),
    "return_dict_in_generate": (None, False),
    "use_cache": (None, True),
    "cache_implementation": (None,),
    "prefill_chunk_size": (None,),
}
_PADS = ("pad_token_id", "eos_token_id")

Inputs = dict[str, Any]


def split(views: Sequence[Mapping[str, Any]], model: Any) -> tuple[dict[str, Any], list[Inputs]]:
    """The real view's settings, and every view's inputs.

    Settings are what says how to decode; a name that is neither a setting of transformers'
    ``GenerationConfig`` nor in the table above is an input of the model.

    Raises:
        UserError: a setting has no meaning for several views.
    """
    real = views[0]
    for name in _UNSUPPORTED:
        if real.get(name) is not None and not _is_off(real[name]):
            raise UserError(
                f"{name} does not work with several views of a question: leave it out, or combine "
                "the answers instead (combine=vote)"
            )
    names = {*_SETTINGS, *_UNSUPPORTED, *model.generation_config.to_dict(), "tokenizer"}
    names |= {"max_new_tokens", "min_new_tokens", "synced_gpus", "trust_remote_code"}
    names.discard("use_cache")  # models read it, too
    settings = {name: value for name, value in real.items() if name in names}
    inputs = [{k: v for k, v in view.items() if k not in names} for view in views]
    _make_stop_strings_criteria(settings)
    return _relative_lengths(settings, model, prompt_length(inputs[0])), inputs


def may_share(settings: Mapping[str, Any], inputs: Sequence[Inputs], model: Any) -> bool:
    """Whether other questions' rows can be in a call's batch.

    They can where one row a view is decoded greedily, with no objects of the caller's own: a draw
    is the batch's, and beams are a question's.
    """
    if model.config.is_encoder_decoder or any(settings.get(name) for name in _OBJECTS):
        return False
    if settings.get("synced_gpus") or any(rows_of(own) != 1 for own in inputs):
        return False
    asked = {**settings, "use_cache": inputs[0].get("use_cache")}
    return all(_of(asked, name, model) in values for name, values in _GREEDY.items())


def same_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two calls decode alike."""
    return one.keys() == other.keys() and all(is_equal(one[name], other[name]) for name in one)


def rows_of(inputs: Mapping[str, Any]) -> int:
    """How many rows a view's call has; 0 where that is not known."""
    for name in ("input_ids", "inputs_embeds"):
        if isinstance(inputs.get(name), Tensor):
            return inputs[name].shape[0]
    return 0


def length_of(inputs: Mapping[str, Any]) -> int:
    """Positions of a view's prompt."""
    for name in ("inputs_embeds", "input_ids"):
        if isinstance(inputs.get(name), Tensor):
            return inputs[name].shape[1]
    return 0


def merge_calls(inputs: Sequence[Inputs], settings: Mapping[str, Any], model: Any) -> Merged | None:
    """The inputs as those of one call; None where they cannot be merged."""
    if model.config.is_encoder_decoder:
        return None
    candidates = (_of(settings, name, model) for name in _PADS)
    pad = next((value for value in candidates if value is not None), 0)
    return merge(inputs, pad[0] if isinstance(pad, list) else int(pad))


def _of(settings: Mapping[str, Any], name: str, model: Any) -> Any:
    """A setting that is in force: the call's, or that of its or the model's configuration."""
    config = settings.get("generation_config") or model.generation_config
    given = settings.get(name)
    return getattr(config, name, None) if given is None else given


def _is_off(value: Any) -> bool:
    """False, and the scale 1 of a guidance that does nothing."""
    return isinstance(value, bool | int | float) and value in (0, 1) and value is not True


def _make_stop_strings_criteria(settings: dict[str, Any]) -> None:
    """``generate`` loses the tokenizer that they need where a function decodes in its place."""
    tokenizer = settings.pop("tokenizer", None)
    if tokenizer is not None and settings.get("stop_strings") is not None:
        strings = StopStringCriteria(tokenizer, settings.pop("stop_strings"))
        own = settings.get("stopping_criteria") or ()
        settings["stopping_criteria"] = StoppingCriteriaList([*own, strings])


def _relative_lengths(settings: dict[str, Any], model: Any, prompt: int) -> dict[str, Any]:
    """Lengths counted from the end of the real prompt: the views' prompts may be longer."""
    config = settings.get("generation_config") or model.generation_config
    for total, new in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        length = settings.pop(total, None) or getattr(config, total, None)
        given = settings.get(new) or getattr(config, new, None)
        if length is not None and length > prompt and given is None:
            settings[new] = length - prompt
    return settings
