"""The store: what is dear to make, on disk or at an address, under content keys."""

from hb_tta.store.any_store import AnyStore
from hb_tta.store.entries import NewEntry, content_key
from hb_tta.store.layout import EXTENSIONS, Entry, default_store_root
from hb_tta.store.memory import MemoryStore
from hb_tta.store.store import Store
from hb_tta.store.tiered import TieredStore, open_store
from hb_tta.store.upkeep import Damage, Pruned, StoreInfo, Usage, size_told

__all__ = [
    "EXTENSIONS",
    "AnyStore",
    "Damage",
    "Entry",
    "MemoryStore",
    "NewEntry",
    "Pruned",
    "Store",
    "StoreInfo",
    "TieredStore",
    "Usage",
    "content_key",
    "default_store_root",
    "open_store",
    "size_told",
]
