"""Sets of very many texts."""

from __future__ import annotations

from hb_tta.seen import Seen


def test_what_was_seen_and_nothing_else():
    seen = Seen()
    assert len(seen) == 0 and "a" not in seen
    seen.update(["a", "b", "a", "ü", "\ud800"])
    assert len(seen) == 4 and all(text in seen for text in ("a", "b", "ü", "\ud800"))
    seen.update(["c", "a"])
    assert len(seen) == 5 and "c" in seen and "d" not in seen


def test_a_hundred_thousand_are_told_from_as_many_others():
    seen = Seen()
    for start in range(0, 100_000, 1000):
        seen.update(str(number) for number in range(start, start + 1000))
    assert len(seen) == 100_000
    assert all(str(number) in seen for number in range(0, 100_000, 7))
    assert not any(str(number) in seen for number in range(100_000, 200_000, 7))
