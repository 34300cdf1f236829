"""The rows of the papers' tables: which methods there are, and their views of questions.

A method is known by its name in the registry: a generator of another package is one more row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from hb_tta.context import MultimodalContext
from hb_tta.datasets.questions import YesNoQuestion, load_questions
from hb_tta.errors import UserError, choose_from
from hb_tta.experiments.reproduction import Cost, Options
from hb_tta.generators import get_method, list_methods
from hb_tta.generators.registry import GENERATORS
from hb_tta.settings import ViewSettings, each
from hb_tta.weights import Weights

if TYPE_CHECKING:
    from hb_tta.augment import Augmentation

REAL = "Real only"
TUNED, UNTUNED = "Hummingbird", "Hummingbird without fine-tuning"
LABELS = {
    "randaugment": "RandAugment",
    "image_variation": "Image Variation",
    "image_translation": "Image Translation",
    "textual_inversion": "Textual Inversion",
    "i2t2i": "I2T2I SDXL",
    "hummingbird": TUNED,
}
"""The papers' names of methods, in the order of table 1."""


@dataclass(frozen=True)
class Arm:
    """Views of one kind.

    Attributes:
        label: of the row; the paper's where it has one.
        method: whose views; None: the real image alone.
        settings: of the method, beside what was asked for.
        generic: whether the describer is asked for a caption of everything (table 6).
    """

    label: str
    method: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    generic: bool = False

    def views(self, options: Options, n: int) -> ViewSettings | None:
        """How they are made; None: there are none.

        Raises:
            UserError: a setting is none of the method's.
        """
        if self.method is None:
            return None
        asked = {
            **options.settings,
            "family": options.family,
            "n": n,
            "seed": options.seed,
            "preset": "paper",
            "store": options.store,
            "device": options.device,
        }
        # A setting that another row's method has, and this one has not, is that one's.
        beside = dict.fromkeys([self.method, *methods_of(options)])
        return each(beside, {**asked, **dict(self.settings)})[self.method]


def methods_of(options: Options) -> list[str]:
    """The methods of the rows: those asked for, else the paper's and other packages'.

    Raises:
        UserError: a method is unknown.
    """
    known = list_methods()
    if options.methods is not None:
        for name in options.methods:
            if name not in known:
                raise UserError(f"there is no method {name!r}{choose_from(name, known)}")
        return list(dict.fromkeys(options.methods))
    others = [name for name in known if name not in GENERATORS.built_in]
    papers = [name for name in LABELS if name in known]
    return [name for name in papers if name != "hummingbird"] + others + ["hummingbird"]


def arms_of(options: Options) -> list[Arm]:
    """An arm a method, by the family's weights."""
    return [Arm(LABELS.get(name, name), name) for name in methods_of(options)]


def weights_of(method: str, options: Options) -> dict[str, Weights]:
    """What a method loads, by what it is for: its spec's own, and its describer.

    Raises:
        UserError: the family leaves a role empty that it needs.
    """
    settings = Arm(method, method).views(options, 1)
    assert settings is not None
    augmenter = settings.augmenter()
    spec: Any = augmenter.generator_spec
    found = {
        one.name: value
        for one in fields(spec)
        if isinstance(value := getattr(spec, one.name), Weights)
    }
    if augmenter.describer_spec is not None:
        found["describer"] = augmenter.describer_spec.mllm
    return found


# ── Questions and their views ────────────────────────────────────────────────────────────────────


def questions_of(options: Options, categories: Sequence[str], limit: int) -> list[YesNoQuestion]:
    """The family's questions, both of an image beside each other."""
    name = options.benchmark("questions")
    return load_questions(
        name, categories, data=options.data.get(name), split=options.split, limit=limit
    )


def context_of(question: YesNoQuestion, arm: Arm) -> MultimodalContext:
    """What the describer is told: never the answer."""
    if arm.generic:
        return MultimodalContext(question.picture(), "", "generic")
    return MultimodalContext(question.picture(), question.guidance)


def make_views(arm: Arm, questions: Sequence[YesNoQuestion], options: Options, n: int) -> int:
    """Have the store hold the views of an arm, and free the device; how many there are."""
    settings = arm.views(options, n)
    if settings is None:
        return 0
    augmenter = settings.augmenter()
    contexts = [context_of(one, arm) for one in questions]
    augmenter.make(contexts, shown(arm, n), options.seed, progress=_told(options))
    augmenter.unload()
    return len(questions) * n


def cost_of_views(
    arms: Sequence[Arm], references: int, n: int, options: Options, contexts: int | None = None
) -> Cost:
    """What arms' views take.

    Args:
        references: images; some methods learn each of them once.
        n: views of a context.
        contexts: of all images; None: one each.
    """
    methods = [arm.method for arm in arms if arm.method is not None]
    once = sum(options.seconds(method) for method in methods)
    each = references if contexts is None else contexts
    return Cost(views=each * n * len(methods), minutes=references * once / 60)


def views_of(
    arm: Arm, questions: Sequence[YesNoQuestion], options: Options, n: int
) -> Iterator[Augmentation | None]:
    """What an arm gives of each question; None of the real image alone."""
    settings = arm.views(options, n)
    if settings is None:
        yield from (None for _ in questions)
        return
    augmenter = settings.augmenter()
    contexts = (context_of(one, arm) for one in questions)
    yield from augmenter.iter_augment(contexts, shown(arm, n), options.seed, progress=False)
    augmenter.unload()


def shown(arm: Arm, n: int) -> int:
    """As many views as a method makes of an image, ``n`` at most."""
    most = None if arm.method is None else _outputs(arm.method)
    return n if most is None else min(n, most)


@cache
def _outputs(method: str) -> int | None:
    found = getattr(get_method(method), "outputs", None)
    return found if isinstance(found, int) else None


def identity(arm: Arm, options: Options, n: int) -> dict[str, Any] | None:
    """Plain JSON that decides an arm's views; None of the real image alone.

    Raises:
        UserError: weights are missing.
    """
    settings = arm.views(options, n)
    if settings is None:
        return None
    return {
        "spec": settings.augmenter().spec,
        "n": shown(arm, n),
        "seed": options.seed,
        "generic": arm.generic,
    }


def _told(options: Options) -> bool | None:
    return False if options.quiet else None
