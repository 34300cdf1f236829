"""Entries of the store: whatever lies in an entry's file, it is the entry or none."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzz import Part, Trial
from fuzz.mutating import edited, hostile_values, mutated, text_of
from hb_tta.cli import main
from hb_tta.errors import HbTtaWarning
from hb_tta.store import Store, content_key
from hb_tta.store.entries import _footer, seal

NAMESPACE, KEY = "descriptions", content_key({"entry": 1})
PAYLOAD, META = b'{"description": "a red circle"}', {"task": "vqa", "seeds": [1, 2.5, None]}
MANIFEST = {"namespace": NAMESPACE, "key": KEY, "meta": META}
ENTRY = seal(PAYLOAD, MANIFEST)


def sealed(manifest: Any) -> bytes:
    """An entry that proves itself whole, whose manifest is anything."""
    body = PAYLOAD + b"\n" + text_of(manifest).encode("utf-8", "surrogatepass")
    return body + _footer(body, len(PAYLOAD))


def entries() -> st.SearchStrategy[bytes]:
    return st.one_of(
        mutated(ENTRY),
        edited(MANIFEST).map(sealed),
        hostile_values().map(sealed),
        st.binary(max_size=200),
    )


def lay(entry: bytes, folder: Path) -> Trial:
    store = Store(folder / "store")
    store.put(NAMESPACE, KEY, PAYLOAD, META)
    [there] = store.entries()
    there.path.write_bytes(entry)

    def run() -> tuple[Any, list[str], list[int]]:
        with warnings.catch_warnings(record=True) as caught, redirect_stdout(io.StringIO()):
            warnings.simplefilter("always", HbTtaWarning)
            before = len(store.verify())
            found = store.read(NAMESPACE, KEY)
            statuses = [before, len(store.verify())]
            statuses.append(main(["store", "prune", "--verify", "--store", str(store.root)]))
        return found, [str(one.message) for one in caught], statuses

    def wrong(returned: tuple[Any, list[str], list[int]]) -> str | None:
        found, told, statuses = returned
        damaged = found is None
        if not damaged and found != (PAYLOAD, META) and entry == ENTRY:
            return f"a sound entry reads as {found}"
        if not damaged and found[0] != PAYLOAD:
            return f"the payload reads as {found}"
        if damaged and not any("is damaged" in one for one in told):
            return "an entry is gone without a word"
        if statuses != [1 if damaged else 0, 0, 0]:
            return f"verify, verify again and prune end with {statuses}"
        if store.has(NAMESPACE, KEY) == damaged:
            return "prune left a damaged entry or took a sound one"
        return None

    return Trial(run, wrong)


PART = Part("store", count=2000, inputs=entries(), lay=lay)
