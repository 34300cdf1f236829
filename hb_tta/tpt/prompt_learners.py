"""Prompt learners: context vectors in, text features out, with the model's own code in between.

Two backends give the same features:

* *universal*: a forward hook on the token embedding overwrites the context's positions. It needs
  nothing but ``encode_text``; every class costs a whole window of tokens.
* *packed*, for causal towers: many classes share one sequence ``[SOS context | rest₁ | rest₂ …]``
  under a mask that lets each rest see the shared beginning and itself, with the positions it would
  have alone. 1000 ImageNet classes take some 4,500 tokens in place of 77,000.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hb_tta.errors import HbTtaWarning, UserError, choose_from, shown
from hb_tta.tpt.encoders import CausalTower, DualEncoder

BACKENDS = ("auto", "packed", "universal")
PLACEHOLDER = "X"  # stands where a learned class vector goes, as in the authors' code
_OTHER_PLACEHOLDER = "Z"  # another word, which shows where it stands
_MOST_LEARNED = 4  # tokens that a word of one letter can be
# Tokens of classes in one packed sequence: far more than the shared beginning (5 tokens), and few
# enough that attention, which grows with the square, stays a small part.
_SEQUENCE = 96
_TOLERANCE = 1e-4  # of features of length 1; the backends differ by some 1e-7 in float32


@dataclass(frozen=True)
class PromptLayout:
    """Where in the tokens of a prompt what stands.

    Attributes:
        ids_CL: a prompt a class, ``prompt + " " + class + "."``.
        start: position of the first context token.
        context: context tokens N.
        learned: class tokens M that vectors replace; 0 where the class has a name.
    """

    ids_CL: Tensor
    start: int
    context: int
    learned: int = 0

    @property
    def end(self) -> int:
        """The position behind the context."""
        return self.start + self.context

    @classmethod
    def of_names(cls, encoder: DualEncoder, prompt: str, names: Sequence[str]) -> PromptLayout:
        """The layout for classes with names; underscores count as spaces.

        Raises:
            UserError: there are fewer than two classes, two names have the same tokens, or the
                prompt is empty or does not fit. A name that stands twice gives a warning: CLIP's
                names of ImageNet have two such pairs.
        """
        spoken = [name.replace("_", " ").strip() for name in names]
        if len(spoken) < 2 or not all(spoken):
            raise UserError(
                f"{len(spoken)} class names, {spoken[:3]}…: give two or more, none empty"
            )
        texts = [f"{prompt} {name}." for name in spoken]
        ids = encoder.tokenize(texts)
        start, end = _context_span(encoder, prompt, ids)
        _check_distinct(spoken, ids)
        _warn_of_cut(encoder, texts)
        return cls(ids, start, end - start)

    @classmethod
    def of_vectors(cls, encoder: DualEncoder, prompt: str, classes: int) -> PromptLayout:
        """The layout for ``classes`` classes without names, of one learned vector each."""
        words = (PLACEHOLDER, _OTHER_PLACEHOLDER)
        ids = encoder.tokenize([f"{prompt} {word}." for word in words])
        start, end = _context_span(encoder, prompt, ids)
        learned = _placeholder_span(ids, end)
        return cls(ids[:1].repeat(classes, 1), start, end - start, learned)


def _placeholder_span(ids_2L: Tensor, end: int) -> int:
    """How many tokens the placeholder has, which stands behind the context.

    Two prompts that differ in it alone tell: no mark behind it is needed, which some tokenizers
    (SigLIP's) take for punctuation and drop.

    Raises:
        UserError: they differ in more than a word.
    """
    differ = (ids_2L[0] != ids_2L[1]).nonzero().flatten().tolist()
    learned = differ[-1] + 1 - end if differ else 0
    if not 1 <= learned <= _MOST_LEARNED or differ[0] < end:
        raise UserError(
            f"the tokenizer makes {learned} tokens of the word {PLACEHOLDER!r}, where a learned "
            f"vector is to stand for 1 to {_MOST_LEARNED}: give a CLIP with another tokenizer"
        )
    return learned


def _warn_of_cut(encoder: DualEncoder, texts: Sequence[str]) -> None:
    cut = encoder.too_long(texts)
    if cut:
        warnings.warn(
            f"{len(cut)} class names do not fit the text encoder's {encoder.context_length} "
            f"tokens, such as {shown(cut[0])}: their ends do not count",
            HbTtaWarning,
            stacklevel=4,
        )


def check_prompt(prompt: str) -> None:
    """Raises UserError for a prompt that class names cannot stand behind."""
    if not prompt.strip():
        raise UserError("the prompt is empty: give at least one word to tune, as in 'a photo of a'")
    if "{" in prompt or "}" in prompt:
        raise UserError(
            f"the prompt {shown(prompt)} would be read as it stands, with its braces: class names "
            "come behind it by themselves, write 'a photo of a'"
        )


def _check_distinct(names: Sequence[str], ids_CL: Tensor) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for name, row in zip(names, map(tuple, ids_CL.tolist()), strict=True):
        other = seen.setdefault(row, name)
        if other != name:
            raise UserError(
                f"the classes {other!r} and {name!r} have the same tokens: make their names "
                "differ, within the text encoder's window and vocabulary"
            )
    if len(seen) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        warnings.warn(
            f"{len(names) - len(seen)} class names stand more than once, such as {twice!r}: of "
            "such classes the first one is always told",
            HbTtaWarning,
            stacklevel=4,
        )


def _context_span(encoder: DualEncoder, prompt: str, ids_CL: Tensor) -> tuple[int, int]:
    """Begin and end of the prompt's own tokens, which all classes share."""
    check_prompt(prompt)
    empty, alone = encoder.tokenize(["", prompt])
    start = _common(empty, alone)
    end = min(_common(alone, row) for row in ids_CL)
    if end <= start or end >= encoder.context_length - 2:
        raise UserError(
            f"the prompt {prompt!r} leaves no room for class names in {encoder.context_length} "
            "tokens: shorten it"
        )
    return start, end


def _common(one: Tensor, other: Tensor) -> int:
    """How many tokens two rows share from the beginning."""
    differ = (one != other).nonzero()
    return int(differ[0]) if len(differ) else len(one)


class TextEncoder(Protocol):
    """A prompt learner's forward pass."""

    name: str
    tokens: int
    """Tokens that one set of contexts costs."""

    def __call__(self, contexts_BNW: Tensor, classes_BCMW: Tensor | None = None) -> Tensor:
        """Normalised features (B, C, D) of contexts, and of class vectors where they are learned.

        A gradient flows to both.
        """


class UniversalTextEncoder:
    """Any text tower: the context is put in behind its token embedding."""

    name = "universal"

    def __init__(self, encoder: DualEncoder, layout: PromptLayout) -> None:
        self._encoder, self._layout = encoder, layout
        self.tokens = layout.ids_CL.numel()

    def __call__(self, contexts_BNW: Tensor, classes_BCMW: Tensor | None = None) -> Tensor:
        """See ``TextEncoder``."""
        batch, classes = len(contexts_BNW), len(self._layout.ids_CL)
        vectors = contexts_BNW[:, None].expand(-1, classes, -1, -1)
        if classes_BCMW is not None:
            vectors = torch.cat([vectors, classes_BCMW], 2)
        with self._overwritten(vectors.flatten(0, 1)):
            features = self._encoder.encode_text(self._layout.ids_CL.repeat(batch, 1))
        return features.unflatten(0, (batch, classes))

    @contextmanager
    def _overwritten(self, vectors: Tensor) -> Iterator[None]:
        start = self._layout.start
        end = start + vectors.shape[1]

        def put_in(module: object, args: object, output: Tensor) -> Tensor:
            assert len(output) == len(vectors), "the token embedding saw another batch"
            parts = [output[:, :start], vectors.to(output.dtype), output[:, end:]]
            return torch.cat(parts, 1)

        hook = self._encoder.token_embedding.register_forward_hook(put_in)
        try:
            yield
        finally:
            hook.remove()


class PackedTextEncoder:
    """A causal text tower: classes of equally many tokens share sequences.

    Args:
        tower: the tower, taken apart.
        embedding: ids → token embeddings.
        layout: of the prompts.
    """

    name = "packed"

    def __init__(self, tower: CausalTower, embedding: torch.nn.Module, layout: PromptLayout):
        self._tower, self._layout = tower, layout
        ids, end = layout.ids_CL, layout.end
        positions = tower.positions_LW
        with torch.no_grad():
            self._before = embedding(ids[0, : layout.start]) + positions[: layout.start]
        self._context_positions = positions[layout.start : end]
        rests = (tower.ends(ids) + 1 - end).tolist()
        self._groups = [
            _Group(rest, [c for c, other in enumerate(rests) if other == rest], ids, end)
            for rest in sorted(set(rests))
        ]
        for group in self._groups:
            with torch.no_grad():
                group.embed(embedding, positions, end)
        order = torch.tensor([c for group in self._groups for c in group.classes])
        self._order = order.argsort().to(ids.device)
        self.tokens = sum(group.mask.shape[0] * group.rows for group in self._groups)

    def __call__(self, contexts_BNW: Tensor, classes_BCMW: Tensor | None = None) -> Tensor:
        """See ``TextEncoder``."""
        dtype = self._before.dtype
        context = contexts_BNW.to(dtype) + self._context_positions.to(dtype)
        before = self._before.expand(len(context), -1, -1)
        begin_BPW = torch.cat([before, context], 1)
        learned = None if classes_BCMW is None else classes_BCMW.to(dtype)
        pooled = torch.cat([self._run(g, begin_BPW, learned) for g in self._groups], 1)
        return F.normalize(self._tower.head(pooled[:, self._order]).float(), dim=-1)

    def _run(self, group: _Group, begin_BPW: Tensor, learned_BCMW: Tensor | None) -> Tensor:
        """Hidden states (B, classes of the group, W) of the pooled tokens."""
        batch, length, width = begin_BPW.shape
        rest_RTW = group.embedded.expand(batch, -1, -1, -1)
        if learned_BCMW is not None:
            vectors = learned_BCMW[:, group.padded] + group.learned_positions
            rest_RTW = torch.cat([vectors, rest_RTW[:, :, self._layout.learned :]], 2)
        rows = rest_RTW.reshape(batch, group.rows, group.per_row * group.rest, width)
        begin = begin_BPW[:, None].expand(-1, group.rows, -1, -1)
        x = torch.cat([begin, rows], 2).flatten(0, 1)
        hidden = self._tower.blocks(x, group.mask)
        ends = length + group.rest * torch.arange(1, group.per_row + 1, device=x.device) - 1
        return hidden[:, ends].reshape(batch, -1, width)[:, : len(group.classes)]


class _Group:
    """Classes whose rests (behind the context, to the pooled token) have equally many tokens."""

    def __init__(self, rest: int, classes: list[int], ids_CL: Tensor, end: int) -> None:
        self.rest, self.classes = rest, classes
        self.per_row = max(1, min(len(classes), _SEQUENCE // rest))
        self.rows = -(-len(classes) // self.per_row)
        # The last class fills up the last row.
        filled = classes + [classes[-1]] * (self.rows * self.per_row - len(classes))
        self.padded = torch.tensor(filled, device=ids_CL.device)
        self._ids = ids_CL[self.padded, end : end + rest]
        self.embedded = self.learned_positions = self.mask = torch.empty(0)

    def embed(self, embedding: torch.nn.Module, positions_LW: Tensor, end: int) -> None:
        """Fill in what does not depend on the context."""
        own = positions_LW[end : end + self.rest]
        self.embedded = embedding(self._ids) + own
        self.learned_positions = own[:1]
        self.mask = _block_causal_mask(end, self.rest, self.per_row).to(self.embedded)


def _block_causal_mask(begin: int, rest: int, blocks: int) -> Tensor:
    """Additive mask: causal, and no block of ``rest`` tokens sees another one."""
    places = torch.arange(begin + rest * blocks)
    block = torch.where(places < begin, -1, (places - begin) // rest)
    seen = (block[None] == block[:, None]) | (block[None] == -1)
    seen &= places[None] <= places[:, None]
    return torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))


def make_text_encoder(
    encoder: DualEncoder, layout: PromptLayout, backend: str = "auto"
) -> TextEncoder:
    """The backend of that name; "auto" takes the packed one where it agrees with the universal one.

    Raises:
        UserError: the name is unknown, or "packed" was asked for and does not fit the model.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r} is not known{choose_from(backend, BACKENDS)}")
    universal = UniversalTextEncoder(encoder, layout)
    if backend == "universal":
        return universal
    difference = float("inf")
    if encoder.tower is not None:
        packed = PackedTextEncoder(encoder.tower, encoder.token_embedding, layout)
        difference = _difference(encoder, layout)
        if difference <= _TOLERANCE or _is_half(encoder) and difference <= 100 * _TOLERANCE:
            return packed
    if backend == "packed":
        raise UserError(
            f"packed prompts do not fit this model (they differ by {difference:.1e}): use "
            "backend='auto'"
        )
    if encoder.tower is not None:
        warnings.warn(
            f"packed prompts differ by {difference:.1e} from this model's own: tuning takes the "
            "slower way",
            HbTtaWarning,
            stacklevel=3,
        )
    return universal


def initial_context(encoder: DualEncoder, layout: PromptLayout) -> Tensor:
    """The prompt's own token embeddings (N, W), float32."""
    with torch.no_grad():
        return encoder.token_embedding(layout.ids_CL[0, layout.start : layout.end]).float()


def _is_half(encoder: DualEncoder) -> bool:
    return encoder.token_embedding.weight.dtype in (torch.float16, torch.bfloat16)


def _difference(encoder: DualEncoder, layout: PromptLayout) -> float:
    """The largest difference of features between the backends: a class of every length, tuned a
    little, so that a wrong place of the context shows as well."""
    assert encoder.tower is not None
    ends = encoder.tower.ends(layout.ids_CL).tolist()
    chosen = sorted({end: c for c, end in enumerate(ends)}.values())
    chosen = chosen if len(chosen) > 1 else sorted({0, len(ends) - 1, *chosen})
    few = PromptLayout(layout.ids_CL[chosen], layout.start, layout.context, layout.learned)
    noise = torch.Generator().manual_seed(0)
    context = initial_context(encoder, layout)[None]
    context = context + context.std() * torch.randn(context.shape, generator=noise).to(context)
    vectors = None
    if layout.learned:
        shape = (1, len(chosen), layout.learned, context.shape[-1])
        vectors = 0.02 * torch.randn(shape, generator=noise).to(context)
    with torch.no_grad():
        packed = PackedTextEncoder(encoder.tower, encoder.token_embedding, few)
        universal = UniversalTextEncoder(encoder, few)
        return float((packed(context, vectors) - universal(context, vectors)).abs().max())
