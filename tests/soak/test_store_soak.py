"""The store under a hundred kills and eight writers at once (make soak)."""

from pathlib import Path

import pytest
from store_checks import makes_each_once, survives_kills

pytestmark = pytest.mark.soak


def test_a_hundred_kills_lose_nothing_and_damage_nothing(tmp_path: Path) -> None:
    leftovers = survives_kills(tmp_path, kills=100, seed=1)
    assert leftovers, "no kill came in the middle of a write, so this has shown nothing"


@pytest.mark.parametrize("role", ["make_each", "make_batches"])
def test_eight_processes_make_nothing_twice(tmp_path: Path, role: str) -> None:
    makes_each_once(tmp_path, role, processes=8, count=2000)
