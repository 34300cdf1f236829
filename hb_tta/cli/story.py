"""What the demo tells of a question: the model's answers, and what an outsider sees in the views.

The model is the family's MLLM, frozen, asked as ``hb_tta.answer`` asks any; the outsider is the
family's reader, which takes no part in the answers and was trained on no generated image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hb_tta.report.gallery import share_of_yes
from hb_tta.report.story import Attempt, Drawn, Said, Story

if TYPE_CHECKING:
    from PIL.Image import Image

    from hb_tta.augment import Augmentation
    from hb_tta.families import Family
    from hb_tta.pocket.tasks import Sample
    from hb_tta.tta.answer import Answer
    from hb_tta.tta.words import YesNo

Ask = Callable[["Sample", Sequence["Image"]], "Answer"]
LONGEST = 16  # tokens of an answer: a yes or a no, and room to be wordy


def tell(
    samples: Sequence[Sample],
    views: Mapping[str, Sequence[Augmentation]],
    family: Family,
    device: str | None,
) -> Iterator[Story]:
    """A story a question.

    Args:
        samples: the questions, with their right answers.
        views: a method's name → what it gave of each question.
        family: whose MLLM answers and whose reader judges.
        device: of the MLLM; ``None``: a GPU if there is one.
    """
    from hb_tta.describe.templates import clean_question
    from hb_tta.pocket.reader import Reader

    ask = _asking(family, device)
    reader = Reader.from_pretrained(family.weights("reader"))
    for number, sample in enumerate(samples):
        its = {method: given[number] for method, given in views.items()}
        yield Story(
            image=sample.image,
            question=clean_question(sample.question),
            target=sample.answer,
            kind=sample.category,
            alone=_together(ask(sample, ()), sample),
            attempts=[_attempt(name, given, sample, ask, reader) for name, given in its.items()],
        )


def _asking(family: Family, device: str | None) -> Ask:
    from hb_tta.describe import load_mllm
    from hb_tta.tta.answer import answer

    model, processor = load_mllm(family.weights("mllm"), device=device)

    def ask(sample: Sample, views: Sequence[Image]) -> Answer:
        return answer(
            model, processor, sample.image, sample.question, views,
            max_new_tokens=LONGEST, do_sample=False,
        )  # fmt: skip

    return ask


def _attempt(method: str, given: Augmentation, sample: Sample, ask: Ask, reader: Any) -> Attempt:
    said = ask(sample, given.views)
    seen: Sequence[YesNo | None] = said.seen[1:] or [None] * len(given.views)
    kept = _kept(given.views, sample, reader)
    return Attempt(
        method=method,
        description=given.description,
        drawn=[
            Drawn(view, seed, keeps, None if one is None else _of_one(one, sample))
            for view, seed, keeps, one in zip(given.views, given.seeds, kept, seen, strict=True)
        ],
        together=_together(said, sample),
    )


def _kept(views: Sequence[Image], sample: Sample, reader: Any) -> Sequence[bool | None]:
    """Whether the right answer is right of each view, too; not where the thing is gone."""
    from hb_tta.pocket.reading import answer

    real, *seen = (answer(one, sample.question) for one in reader.read([sample.image, *views]))
    if real is None:  # a question that the reader has no answer to
        return [None] * len(seen)
    return [found is (sample.answer == "Yes") for found in seen]


def _together(said: Answer, sample: Sample) -> Said:
    """The decoded words, and how sure they are."""
    words = said.text.strip()
    leans = words.rstrip(".").lower()
    sure = None if said.combined is None else share_of_yes(*said.combined)
    if sure is not None:
        sure = sure if leans.startswith("yes") else 1 - sure
    return Said(words, leans == sample.answer.lower(), sure)


def _of_one(seen: YesNo, sample: Sample) -> Said:
    """What the model would say to one image: its logits before they were combined."""
    share = share_of_yes(*seen)
    leans = "Yes" if share > 0.5 else "No"
    return Said(leans, leans == sample.answer, max(share, 1 - share))
