"""Parquet: a row an entry, views as ``datasets`` knows images. Needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hb_tta.errors import UserError
from hb_tta.reading import parse_json
from hb_tta.sharing.entries import LARGEST, SHARD_BYTES, Damage, SharedEntry
from hb_tta.views.proof import method_of

_ROWS = 64  # in memory at a time


class Tables:
    """See ``Container``.

    Raises:
        UserError: pyarrow is not installed.
    """

    suffix = ".parquet"

    def __init__(self) -> None:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(
                'Parquet needs pyarrow: pip install "hb-tta[train]", or use --format webdataset'
            ) from None

    def write(self, path: Path, namespace: str, entries: Iterator[SharedEntry]) -> int:
        """See ``Container.write``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _schema(namespace)
        count, size = 0, 0
        with pq.ParquetWriter(path, schema) as writer:
            while size < SHARD_BYTES and (some := list(islice(entries, _ROWS))):
                rows = [_row(entry) for entry in some]
                writer.write_table(pa.Table.from_pylist(rows, schema))
                count += len(some)
                size += sum(len(entry.payload) for entry in some)
        return count

    def read(self, path: Path) -> Iterator[SharedEntry | Damage]:
        """See ``Container.read``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path, thrift_string_size_limit=LARGEST) as file:
                for batch in file.iter_batches(_ROWS):
                    for row in batch.to_pylist():
                        yield _entry(path, row)
        except (pa.ArrowException, OSError, ValueError) as error:
            yield Damage(path.name, f"it is damaged or cut short ({str(error)[:100]})")


def _schema(namespace: str) -> Any:
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("key", "namespace", "sha256", "meta")]
    if namespace != "views":
        return pa.schema([*texts, ("payload", pa.string())])
    more = [(name, pa.string()) for name in ("pixels", "method", "description")]
    image = ("image", pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    # How `datasets` is told that a struct is a picture.
    features = {name: {"dtype": "string", "_type": "Value"} for name, _ in [*texts, *more]}
    features |= {"image": {"_type": "Image"}, "seed": {"dtype": "uint64", "_type": "Value"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([image, *texts, *more, ("seed", pa.uint64())], metadata=about)


def _row(entry: SharedEntry) -> dict[str, Any]:
    meta = entry.meta
    row: dict[str, Any] = {
        "key": entry.key,
        "namespace": entry.namespace,
        "sha256": entry.sha256,
        "meta": json.dumps(dict(meta)),
    }
    if entry.namespace != "views":
        return {**row, "payload": entry.payload.decode()}
    return {
        **row,
        "image": {"bytes": entry.payload, "path": None},
        "pixels": meta.get("pixels"),
        "method": method_of(meta),
        "description": meta.get("description"),
        "seed": meta.get("seed"),
    }


def _entry(path: Path, row: dict[str, Any]) -> SharedEntry | Damage:
    try:
        payload = row["payload"].encode() if "payload" in row else row["image"]["bytes"]
        meta = parse_json(row["meta"])
        return SharedEntry(row["namespace"], row["key"], payload, meta, row["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return Damage(f"{path.name}/{str(row.get('key'))[:64]}", "its row cannot be read")
