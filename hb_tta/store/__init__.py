"""The store: what is dear to make, on disk under content keys."""

from hb_tta.store.entries import content_key
from hb_tta.store.store import (
    EXTENSIONS,
    Damage,
    Entry,
    Pruned,
    Store,
    StoreInfo,
    Usage,
    default_store_root,
)

__all__ = [
    "EXTENSIONS",
    "Damage",
    "Entry",
    "Pruned",
    "Store",
    "StoreInfo",
    "Usage",
    "content_key",
    "default_store_root",
]
