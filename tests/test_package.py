"""What installing and importing the package promises."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import hb_tta

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"hb_tta": "hb_tta", "hb_tta.training": "training", "hb_tta.integrations": "integrations"}
RECIPE = "hb_tta.training.pocket_family"  # of a checkout alone: it made what is bundled
HEAVY = ("torch", "diffusers", "transformers", "peft", "open_clip", "accelerate")
LIGHT = (
    "hb_tta",
    "hb_tta.cli",
    "hb_tta.cli.augment",
    "hb_tta.cli.demo",
    "hb_tta.cli.listing",
    "hb_tta.cli.mumu",
    "hb_tta.cli.report",
    "hb_tta.cli.store",
    "hb_tta.experiments.plan",
    "hb_tta.report.cells",
    "hb_tta.report.contact_sheet",
    "hb_tta.report.document",
    "hb_tta.report.renderers",
    "hb_tta.context",
    "hb_tta.describe",
    "hb_tta.families",
    "hb_tta.weights",
    "hb_tta.generators",
    "hb_tta.images",
    "hb_tta.metrics",
    "hb_tta.mumu",
    "hb_tta.describe.templates",
    "hb_tta.report.page",
    "hb_tta.integrations.lmms_eval.results",
    "hb_tta.tpt.results",
    "hb_tta.tpt.table",
    "hb_tta.store",
)


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def heavy_after(code: str) -> str:
    """The heavy packages that a fresh interpreter has imported after ``code``."""
    return run_python(f"{code}\nimport sys\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))")


def test_light_modules_import_no_torch():
    assert heavy_after("\n".join(f"import {module}" for module in LIGHT)).strip() == ""


@pytest.mark.parametrize("command", ["--help", "--version", "augment --help", "list --json"])
def test_light_commands_import_no_torch(command):
    code = f"""
from hb_tta.cli import main
try:
    main({command.split()!r})
except SystemExit as done:
    assert not done.code
"""
    assert heavy_after(code).splitlines()[-1] == ""


def test_the_check_for_heavy_imports_sees_them():
    assert heavy_after("import torch").strip() == "torch"


def test_every_public_name_imports():
    for name in hb_tta.__all__:
        assert getattr(hb_tta, name) is not None
    assert set(hb_tta.__all__) <= set(dir(hb_tta))


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Augmentor'"):
        hb_tta.Augmentor  # noqa: B018


def packages_on_disk() -> set[str]:
    found = set()
    for package, folder in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *parts)))
    return found


def test_every_folder_of_code_is_installed_but_the_pocket_recipe():
    setuptools = PYPROJECT["tool"]["setuptools"]
    assert set(setuptools["packages"]) == packages_on_disk() - {RECIPE}
    assert setuptools["package-dir"] == FOLDERS


@pytest.mark.parametrize("package", sorted(FOLDERS))
def test_mapped_folders_import_under_the_package(package):
    module = import_module(package)
    assert Path(module.__file__ or "").parent == ROOT / FOLDERS[package]


def test_the_pocket_recipe_runs_from_a_checkout():
    command = [sys.executable, "-m", RECIPE, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    assert "--stage" in done.stdout


def build_wheel(folder: Path) -> Path:
    """A wheel of a copy of the sources, which a build folder in the checkout cannot stain."""
    for name in FOLDERS.values():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "sources" / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "sources")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "./sources"], cwd=folder, check=True, capture_output=True)
    (wheel,) = folder.glob(f"hb_tta-{hb_tta.__version__}-*.whl")
    return wheel


def test_wheel_holds_code_weights_and_licence(tmp_path):
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for package in packages_on_disk() - {RECIPE}:
        assert package.replace(".", "/") + "/__init__.py" in names
    assert not any(name.startswith(RECIPE.replace(".", "/")) for name in names)
    weights = ROOT / "hb_tta" / "pocket" / "weights"
    bundled = {f.relative_to(ROOT).as_posix() for f in weights.rglob("*") if f.is_file()}
    assert bundled, "the pocket weights are missing"
    assert bundled <= names
    pages = {f"hb_tta/{part}/page.{kind}" for part in ("report", "serve") for kind in ("css", "js")}
    assert {"hb_tta/py.typed", *pages} <= names
    assert any(name.endswith("/LICENSE") for name in names)
    assert not any(name.startswith(("training/", "integrations/", "tests/")) for name in names)
