"""Text guidance into an instruction for the describing model: the paper's template p (appendix C).

Figure 8 has one template for each of visual questions, human-object interactions and
object-centric images, and a generic one for the ablation of table 6. The wording here is our own;
it asks for the same things. All of them ask for what is there to see alone: a text encoder
passes a negation on as the thing itself, so "there is no dog" draws a dog.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from hb_tta.context import MultimodalContext

GUIDANCE_LIMIT = 2000
"""Characters of text guidance that the describer reads; the rest is left out, with a warning."""

_STYLE = "Be clear and concise, in the style of a prompt for an image generator."
_PRESENT = "Say only what is there to see, never name what is absent."
_TEMPLATES = {
    "vqa": (
        "Question: {guidance}{truth}\n"
        "Describe the key elements and the context of this image that directly answer the "
        "question. Say only what is there to see, even if the answer is no, never name what is "
        f"absent. {_STYLE}"
    ),
    "hoi": (
        "Describe the key elements and the context of this image, focused on {guidance}.{truth} "
        f"{_PRESENT} {_STYLE}"
    ),
    "object": (
        "Describe the main object of this image: its kind, parts, colors and surroundings."
        f"{{truth}} {_PRESENT} {_STYLE}"
    ),
    "generic": (
        "Write a caption that covers all key aspects of this image: how many things there are, "
        f"which of them are noteworthy and how they relate to each other. {_PRESENT} {_STYLE}"
    ),
}
_TRUTHS = {
    "vqa": "\nThe answer is: {truth}",
    "hoi": " The interaction is: {truth}.",
    "object": " The object is: {truth}.",
    "generic": "",
}
READS_GUIDANCE = frozenset(task for task, text in _TEMPLATES.items() if "{guidance}" in text)
"""Tasks whose template has a place for the text guidance; the others read the image alone."""

TEMPLATE_VERSION = "1-" + hashlib.sha256(repr((_TEMPLATES, _TRUTHS)).encode()).hexdigest()[:12]
"""Changes with every word of the templates, and with it the descriptions' keys in the store."""


def evaluation_prompt(guidance: str, task: str) -> str:
    """The instruction for one image at evaluation; the answer has no way in.

    Args:
        guidance: a question (``vqa``); "agent | object" or "agent | action | object" or any
            phrase (``hoi``); not read by ``object`` and ``generic``. Without one, ``vqa`` and
            ``hoi`` fall back to the generic template.
        task: one of ``hb_tta.context.TASKS``.
    """
    return _prompt(clean_guidance(guidance, task), task, truth="")


def training_prompt(context: MultimodalContext) -> str:
    """The instruction of the reward training, which tells the ground truth (section 4.1).

    Evaluation never calls this.
    """
    truth = context.ground_truth
    sentence = _TRUTHS[context.task].format(truth=truth.strip().rstrip(".")) if truth else ""
    return _prompt(clean_guidance(context.guidance, context.task), context.task, sentence)


def clean_guidance(guidance: str, task: str, limit: int | None = GUIDANCE_LIMIT) -> str:
    """What of the guidance a description can depend on; "" where the task's template reads none.

    Two guidances that clean to the same text share their description and their views.
    """
    if task not in READS_GUIDANCE:
        return ""
    return clean_question(guidance, limit)


def as_prompt(guidance: str, task: str) -> str:
    """The guidance itself as a generator's prompt; an interaction's parts one after the other."""
    told = clean_guidance(guidance, task)
    return " ".join(told.replace("|", " ").split()) if task == "hoi" else told


def _prompt(guidance: str, task: str, truth: str) -> str:
    if task in READS_GUIDANCE and not guidance:
        task = "generic"
    if task == "hoi":
        guidance = _interaction(guidance)
    return _TEMPLATES[task].format(guidance=guidance, truth=truth)


def _interaction(guidance: str) -> str:
    parts = [part.strip() for part in guidance.split("|")]
    if len(parts) == 2 and all(parts):
        return f"the interaction between the {parts[0]} and the {parts[1]}"
    if len(parts) == 3 and all(parts):
        return f"the interaction between the {parts[0]} and the {parts[2]} ({parts[1]})"
    return f"this interaction: {guidance}"


# Instructions that benchmarks append to a question: they say how to answer, not what is asked.
_ANSWER_FORMAT = re.compile(
    r"""(?<=[?.!:;)\]"'\n？。！])\s*
    (?:
        (?:please\s+)?(?:only\s+|directly\s+)?
        (?: answer | respond | reply | think\ step\ by\ step | let's\ think
          | (?:select|choose|pick)\ (?:the\ |one\ )?(?:correct|best|right|option)
          | give\ (?:me\ )?(?:the\ answer|only|your\ answer|the\ best)
          | only\ give | keep\ (?:the|your)\ answer | your\ (?:answer|response)\ (?:should|must)
          | do\ not\ (?:explain|output|respond|answer) )
        \b [^?\n？]*
      | 请 [^?\n？。]* (?:回答|作答|选项|答案) [^?\n？]*
    )$""",
    re.IGNORECASE | re.VERBOSE,
)
_ANSWER_CUE = re.compile(
    r"(?:(?<=\W)|^)(?:(?:the\s+)?(?:best|final|short|correct)\s+)?(?:answer|assistant|option)"
    r"(?:\s+is)?\s*[:：]\s*\(?$",
    re.IGNORECASE,
)
_TAIL = 1000  # characters in which such suffixes are looked for
_QUESTION_CUE = re.compile(r"^(?:(?:question|q|user)\s*[:：]\s*)+", re.IGNORECASE)
_IMAGE_MARK = re.compile(r"<\s*image(?:[ _-]?\d+)?\s*>", re.IGNORECASE)
_YES_OR_NO = re.compile(r"\byes\W{1,3}or\W{1,3}no\b", re.IGNORECASE)


def clean_question(question: str, limit: int | None = GUIDANCE_LIMIT) -> str:
    """The question alone: no control characters, no instruction on how to answer it.

    MME's questions ("… Please answer yes or no.") end at their first question mark, as in the
    authors' code. Other benchmarks' suffixes ("Answer the question using a single word or
    phrase.", "Answer with the option's letter …", "Answer:") and image marks go; whitespace
    becomes single spaces. Any script is fine. What is clean stays as it is.

    Args:
        question: any text.
        limit: longest result in characters; a longer one ends at the last space before it.
            ``None`` for no limit.
    """
    text, shorter = question, _cleaned_once(question, limit)
    while shorter != text:  # what is taken off uncovers more: a cue behind a mark, an end of a line
        text, shorter = shorter, _cleaned_once(shorter, limit)
    return text


def _cleaned_once(question: str, limit: int | None) -> str:
    text = _IMAGE_MARK.sub(" ", printable(question)).strip()
    text = _QUESTION_CUE.sub("", text)
    bare, _ = question_and_format(text)
    return _shorten(" ".join(bare.split()), limit)


def question_and_format(prompt: str) -> tuple[str, str]:
    """A prompt as what is asked, and the rest: an instruction on how to answer, or "".

    The two make the prompt again.
    """
    bare = _strip_answer_format(prompt)
    if _YES_OR_NO.search(prompt[len(bare) :]):
        bare = re.split(r"(?<=[?？])", bare, maxsplit=1)[0]
    return bare, prompt[len(bare) :]


def _strip_answer_format(text: str) -> str:
    while True:
        head, tail = text[:-_TAIL], text[-_TAIL:]
        shorter = _ANSWER_CUE.sub("", _ANSWER_FORMAT.sub("", tail)).rstrip()
        if shorter == tail or not shorter:
            return text
        text = head + shorter


def printable(text: str) -> str:
    """The text with spaces for control characters and lone surrogates, in composed form (NFC)."""
    kept = (
        char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cs") else " "
        for char in unicodedata.normalize("NFC", text)
    )
    return re.sub(r"[^\S\n]+", " ", "".join(kept))


def _shorten(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    head = text[: limit + 1]
    return (head[: head.rfind(" ")] if " " in head else head[:limit]).rstrip()
