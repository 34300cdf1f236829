"""What holds for every test: one thread, no network, and a store and a cache of its own."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# Two torch threads on a busy machine are slower than one. Set before torch is imported, and
# inherited by the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from hb_tta import device

torch.set_num_threads(1)


def pytest_generate_tests(metafunc: pytest.Metafunc):
    """Sets are ordered anew in every process, and two of pytest-xdist then disagree."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        if len(mark.args) > 1 and isinstance(mark.args[1], (set, frozenset)):
            raise pytest.UsageError(
                f"{metafunc.definition.nodeid}: parametrize over a sorted list, not over a set."
            )


@pytest.fixture(autouse=True, scope="session")
def _own_store(tmp_path_factory: pytest.TempPathFactory):
    """Tests neither see nor change what the person who runs them keeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HB_TTA_STORE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture
def no_gpu(monkeypatch) -> Iterator[None]:
    """A machine without one, wherever the tests run."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    device._visible_gpu.cache_clear()
    yield
    device._visible_gpu.cache_clear()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch) -> Iterator[None]:
    """The other package as pip leaves it: its modules, and metadata with its entry point."""
    site = shutil.copytree(Path(__file__).parent / "test_package_plugin", tmp_path / "site")
    info = site / "hb_tta_mirror-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hb-tta-mirror\nVersion: 0.1.0\n")
    entry = "[hb_tta.generators]\nmirror = hb_tta_mirror:MirrorSpec\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("HB_TTA_STORE", str(tmp_path / "store"))
    yield
    sys.modules.pop("hb_tta_mirror", None)
