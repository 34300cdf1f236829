"""All tables and figures as one folder of pages, each a file that needs no other to be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hb_tta.disk import write_aside
from hb_tta.errors import UserError
from hb_tta.experiments.carrying import Tell, reproduce, to_stderr
from hb_tta.experiments.checking import missing
from hb_tta.experiments.claims import claims_table
from hb_tta.experiments.pages import contents, page
from hb_tta.experiments.reproduction import Experiment, Finding, Options, Shown
from hb_tta.experiments.tables import findings_table
from hb_tta.reading import read_json
from hb_tta.report import renderers
from hb_tta.report.cells import Table
from hb_tta.report.document import document, visible

INDEX, CLAIMS = "index.html", "claims.md"
PAGES = ".pages.json"  # what a site has of ours: nothing else in its folder is touched
LEAD = (
    "Every table and figure of Hummingbird and of MUMU, run again. Ours have their intervals, the\n"
    "papers' numbers stand below them; they are of other models and other pictures, and not to be\n"
    "met, but compared in what they say."
)


@dataclass(frozen=True)
class Made:
    """An experiment on the site: what it shows, or why it shows nothing."""

    experiment: Experiment
    shown: Shown | None
    why: str = ""


def build(experiments: Sequence[Experiment], options: Options, tell: Tell = to_stderr) -> Path:
    """Run what is missing of each, and write the pages; the index's place.

    What lacks weights or data is named on the site in its place. An experiment that is stopped
    leaves its finished runs: the same command again goes on.
    """
    made = [_made(one, options, tell) for one in experiments]
    folder = options.out / "site"
    links = navigation([one.experiment.name for one in made if one.shown])
    for one in made:
        if one.shown is not None:
            text = page(one.experiment, one.shown, options, links)
            write_aside(folder / f"{one.experiment.name}.html", text.encode())
            for name, content in one.shown.files.items():
                if name.endswith(".html"):  # no key of a survey on what others read
                    write_aside(folder / name, content)
    write_aside(folder / INDEX, index(made, options).encode())
    claims = f"{_how(options)}\n\n{renderers.markdown(_claims(made))}\n"
    write_aside(folder / CLAIMS, claims.encode())
    _take_away_others(folder, made)
    return folder / INDEX


def _made(experiment: Experiment, options: Options, tell: Tell) -> Made:
    lacking = missing(experiment, options)
    needed = [one for one in lacking if not one.method or not options.skip_missing]
    if needed:
        return Made(experiment, None, str(needed[0]))
    try:
        return Made(experiment, reproduce(experiment, options, tell))
    except UserError as error:
        return Made(experiment, None, str(error))


def navigation(names: Sequence[str]) -> str:
    """Links to every page."""
    links = "".join(f'<a href="{name}.html">{name}</a>' for name in names)
    return f'<nav><a href="{INDEX}">all</a>{links}</nav>'


def index(made: Sequence[Made], options: Options) -> str:
    """What the papers claim and what holds here, the pages, and what could not be run."""
    rows = [
        (
            f"{one.experiment.name}.html",
            f"{one.experiment.name}: {one.experiment.title}",
            _said(one),
        )
        for one in made
        if one.shown
    ]
    parts = [
        f"<p>{visible(_how(options))}</p>",
        renderers.html(_claims(made)),
        "<h2>Tables and figures</h2>",
        contents(rows),
        renderers.html(findings_table(found)) if (found := _findings(made)) else "",
        _not_run(made),
    ]
    return document("The papers, run again", "\n".join(parts), lead=LEAD)


def _claims(made: Sequence[Made]) -> Table:
    found = {one.experiment.name: one.shown.findings for one in made if one.shown}
    return claims_table(found, {one.experiment.name: _said(one) for one in made})


def _findings(made: Sequence[Made]) -> list[Finding]:
    return [finding for one in made if one.shown for finding in one.shown.findings]


def _how(options: Options) -> str:
    """What the site was made with, where it is not what the tables have by themselves."""
    told = [f"Models: {options.family.name}", f"split: {options.split}"]
    if options.methods is not None:
        told.append(f"methods: {', '.join(options.methods)} alone")
    if options.limit is not None:
        told.append(f"{options.limit} images a category or tasks a part")
    if options.views is not None:
        told.append(f"views: {options.views} of an image")
    if options.seed:
        told.append(f"seed: {options.seed}")
    if options.mllms:
        told.append(f"answers by {', '.join(options.mllms)}")
    if changed := {**options.settings, **dict(one.split("=", 1) for one in options.training)}:
        told.append("with " + ", ".join(f"{name}={value}" for name, value in changed.items()))
    if options.quick:
        told.append("a quick run of few images")
    return "; ".join(told) + "."


def _said(one: Made) -> str:
    return "; ".join(one.shown.missing) if one.shown else one.why


def _not_run(made: Sequence[Made]) -> str:
    items = "".join(
        f"<li>{visible(one.experiment.name)}: {visible(one.experiment.title)} "
        f"<small>{visible(one.why)}</small></li>"
        for one in made
        if one.shown is None
    )
    return f'<h2>Not run</h2><ul class="contents">{items}</ul>' if items else ""


def _take_away_others(folder: Path, made: Sequence[Made]) -> None:
    """Pages of an earlier run that this one does not have."""
    ours = {INDEX, CLAIMS, *(f"{one.experiment.name}.html" for one in made if one.shown)}
    ours |= {name for one in made if one.shown for name in one.shown.files}
    earlier = read_json(folder / PAGES) if (folder / PAGES).exists() else []
    for name in {Path(name).name for name in earlier} - ours:
        (folder / name).unlink(missing_ok=True)
    write_aside(folder / PAGES, json.dumps(sorted(ours)).encode())
