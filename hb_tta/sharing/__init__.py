"""A store's entries on their way to others: shards that ``datasets`` opens, a card, and back.

entries.py   what is in a shard, and how it is proved whole
tars.py      WebDataset: tar files           tables.py   Parquet
exporting.py a store → a folder              importing.py a folder → a store
card.py      README.md, the data set card
"""

from hb_tta.sharing.entries import Exported
from hb_tta.sharing.exporting import export
from hb_tta.sharing.importing import Imported, import_set

__all__ = ["Exported", "Imported", "export", "import_set"]
