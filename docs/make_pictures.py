"""Make the README's pictures again, from the bundled models: a test compares the strip.

    python docs/make_pictures.py [--results FOLDER]

docs/pictures/strip.webp: what goes in and what comes out, of the demo's first questions.
docs/pictures/report.webp: the report page of a small evaluation by lmms-eval, which is run for it
(minutes) unless FOLDER has it, in Chromium.
docs/pictures/circle.png, square.png: single things of the bundled world, for prompts of MUMU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hb_tta.cli.demo import METHODS, augment_all, pick_questions
from hb_tta.cli.story import tell
from hb_tta.families import get_family
from hb_tta.pocket.boxes import corners
from hb_tta.pocket.edition import BUNDLED
from hb_tta.pocket.tasks import SPLITS
from hb_tta.pocket.world import Scene, render, sample_scenes
from hb_tta.report.story import Attempt, Said, Story
from hb_tta.settings import ViewSettings

PICTURES = Path(__file__).with_name("pictures")
STRIP, REPORT = PICTURES / "strip.webp", PICTURES / "report.webp"
QUESTIONS = 3  # the first three, whatever comes of them
VIEWS, SEED = 4, 0
PAGE = (1300, 1020)  # pixels of the report's window
TASK, LIMIT = "pocket_mme_dev", 40

CELL, GAP, EDGE = 136, 12, 4  # pixels, the cell's with a frame of EDGE
TEXT, HEAD = 300, 30
INK, QUIET = (29, 28, 26), (109, 106, 100)
COLOURS = {True: (26, 127, 55), False: (192, 54, 44), None: (200, 197, 190)}
MARKS = {True: "right", False: "wrong"}


# ── What goes in and what comes out ──────────────────────────────────────────────────────────────


def strip() -> Image.Image:
    """A row a question; a view's frame says whether it keeps the answer."""
    rows = stories()
    width = 2 * (CELL + GAP) + TEXT + VIEWS * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, HEAD + len(rows) * (CELL + 2 * GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    left = 2 * GAP + CELL + TEXT
    pen.text((GAP, 8), "what goes in", QUIET, _font(14))
    pen.text((left, 8), "what comes out: views", QUIET, _font(14))
    pen.text((left + VIEWS * (CELL + GAP), 8), "the answer", QUIET, _font(14))
    for number, story in enumerate(rows):
        _row(sheet, pen, HEAD + number * (CELL + 2 * GAP), story)
    return sheet


def stories() -> list[Story]:
    """The demo's first questions."""
    samples = list(pick_questions(QUESTIONS))
    settings = ViewSettings(METHODS[0], family="pocket", n=VIEWS, seed=SEED, device="cpu")
    views = {METHODS[0]: augment_all(settings, samples)}
    return list(tell(samples, views, get_family("pocket"), "cpu"))


def _row(sheet: Image.Image, pen: ImageDraw.ImageDraw, top: int, story: Story) -> None:
    (attempt,) = story.attempts
    _put(sheet, story.image, GAP, top, None)
    _texts(pen, 2 * GAP + CELL, top, story, attempt)
    left = 2 * GAP + CELL + TEXT
    for place, drawn in enumerate(attempt.drawn):
        _put(sheet, drawn.image, left + place * (CELL + GAP), top, drawn.keeps)
    _answer(pen, left + VIEWS * (CELL + GAP), top + 44, attempt.together)


def _texts(pen: ImageDraw.ImageDraw, left: int, top: int, story: Story, attempt: Attempt) -> None:
    alone = f"alone the model says {_words(story.alone)}"
    pen.text((left, top + 8), story.question, INK, _font(17))
    pen.text((left, top + 38), alone, COLOURS[story.alone.right], _font(14))
    pen.text((left, top + 72), "and writes down, to be kept:", QUIET, _font(14))
    told = "\n".join(textwrap.wrap(f"“{attempt.description}”", 40)[:2])
    pen.text((left, top + 94), told, INK, _font(15))


def _answer(pen: ImageDraw.ImageDraw, left: int, top: int, said: Said) -> None:
    pen.text((left, top), said.answer, COLOURS[said.right], _font(22))
    pen.text((left, top + 28), MARKS[said.right], COLOURS[said.right], _font(14))


def _words(said: Said) -> str:
    return f"{said.answer}: {MARKS[said.right]}"


def _put(sheet: Image.Image, image: Image.Image, left: int, top: int, keeps: bool | None) -> None:
    """The picture; a frame says whether the right answer is right of it, too."""
    if keeps is not None:
        sheet.paste(Image.new("RGB", (CELL, CELL), COLOURS[keeps]), (left, top))
    side = CELL - 2 * EDGE
    sheet.paste(image.resize((side, side), Image.Resampling.NEAREST), (left + EDGE, top + EDGE))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


# ── Things to put into prompts ───────────────────────────────────────────────────────────────────


def things() -> dict[str, Image.Image]:
    """The first striped yellow circle and the first hollow blue square of the dev seed."""
    wanted = {"circle": ("yellow", "striped"), "square": ("blue", "hollow")}
    found: dict[str, Image.Image] = {}
    for scene in sample_scenes(SPLITS["dev"], edition=BUNDLED):
        for shape, look in wanted.items():
            group = scene.group_of(shape)
            if shape not in found and group and (group.colour, group.filling) == look:
                found[shape] = _cut(scene, shape)
        if len(found) == len(wanted):
            break
    return found


def _cut(scene: Scene, shape: str) -> Image.Image:
    number = next(n for n, group in enumerate(scene.groups) if group.shape == shape)
    thing = next(thing for thing in scene.things if thing.group == number)
    left, top, right, bottom = (round(side) for side in corners(thing))
    return render(scene).crop((left, top, right, bottom))


# ── The report page ──────────────────────────────────────────────────────────────────────────────


def report(results: Path) -> Image.Image:
    """The head of the report page, and a question of it opened."""
    evaluate(results)
    page = results / "report.html"
    folders = [str(results / run) for run in ("plain", METHODS[0])]
    _hb_tta("report", *folders, "--store", str(results / "store"), "--out", str(page))
    return photograph(page, "document.querySelector('details.question').open = true")


def evaluate(results: Path) -> None:
    """lmms-eval without views and with them, where the folder lacks it."""
    common = (
        *("--model", "llava_hf", "--device", "cpu", "--tasks", TASK, "--limit", str(LIMIT)),
        *("--model_args", f"pretrained={get_family('pocket').weights('mllm').location},"
          "device_map=cpu", "--log_samples"),
    )  # fmt: skip
    args = f"preset=paper,family=pocket,n={VIEWS},seed={SEED},store={results / 'store'}"
    for run, more in (
        ("plain", ()),
        (METHODS[0], ("--augment", METHODS[0], "--augment_args", args)),
    ):
        if not (results / run).exists():
            _hb_tta("lmms-eval", *common, "--output_path", str(results / run), *more)


def photograph(page: Path, script: str = "") -> Image.Image:
    """What a window shows of a page, after a script."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import chromium

    # Chromium may still write while its folder is taken away.
    aside = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with aside as folder, chromium.open_tab(Path(folder)) as tab:
        tab.open(page.resolve().as_uri())
        if script:
            tab.run(script)
        # Two frames later, what the script changed is drawn.
        tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shot = Path(folder) / "shot.png"
        tab.screenshot(shot, *PAGE)
        return Image.open(shot).convert("RGB")


def _hb_tta(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "hb_tta.cli", *arguments], check=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, help="where the evaluation is kept")
    results = parser.parse_args(argv).results
    PICTURES.mkdir(exist_ok=True)
    strip().save(STRIP, lossless=True, method=6)
    made = [STRIP, REPORT]
    for name, picture in things().items():
        made.append(PICTURES / f"{name}.png")
        picture.save(made[-1])
    with tempfile.TemporaryDirectory() as folder:
        report(results or Path(folder)).save(REPORT, quality=82, method=6)
    for path in made:
        print(path, f"{path.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
