"""Where a run on Ray keeps what it has done: beside the entries of the store that all nodes see."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hb_tta.cluster.rows import FAILURE, KEY
from hb_tta.errors import UserError
from hb_tta.store import Store, TieredStore

FOLDER = ".ray"  # in the store's; no namespace, so that nothing takes it for entries


class Place:
    """A run's folder: Ray's checkpoint, and the rows that are done.

    Args:
        store: a folder that all nodes see, or an address.
        run: names the run, the same when it is resumed.

    Raises:
        UserError: the store's address is asked nothing just now.
    """

    def __init__(self, store: Store | TieredStore, run: str) -> None:
        self.filesystem, root = _opened(store)
        self._folder = f"{root}/{FOLDER}/{run}"

    @property
    def checkpoint(self) -> str:
        """The folder of Ray's checkpoint."""
        return f"{self._folder}/checkpoint"

    @property
    def done(self) -> str:
        """The folder of the tables of rows that are done."""
        return f"{self._folder}/done"

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint of an earlier run."""
        from pyarrow.fs import FileType

        return self.filesystem.get_file_info(self.checkpoint).type != FileType.NotFound

    def failures(self) -> dict[str, str]:
        """The keys of rows that failed, and why."""
        import pyarrow.dataset as tables
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.done, allow_not_found=True, recursive=True)
        files = [it.path for it in self.filesystem.get_file_info(selector) if it.is_file]
        if not files:
            return {}
        read = tables.dataset(files, filesystem=self.filesystem, format="parquet")
        failed = read.to_table([KEY, FAILURE], filter=tables.field(FAILURE).is_valid())
        return dict(zip(*failed.to_pydict().values(), strict=True))

    def remove(self) -> None:
        """Forget the run; the store keeps what it made."""
        with suppress(OSError):
            self.filesystem.delete_dir(self._folder)


def _opened(store: Store | TieredStore) -> tuple[Any, str]:
    from pyarrow import fs

    if isinstance(store, Store):
        return fs.LocalFileSystem(), store.root.as_posix()
    system = store.system()
    if system is None:
        raise UserError(
            f"HB_TTA_STORE_OFFLINE is set: what Ray's nodes make would not reach {store.root}: "
            "unset it"
        )
    opened, root = system
    return fs.PyFileSystem(fs.FSSpecHandler(opened)), root
