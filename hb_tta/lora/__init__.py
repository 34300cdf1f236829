"""LoRAs on disk: one reader and one writer of their formats, for every door. Imports no torch."""

from hb_tta.lora.plain import Lora
from hb_tta.lora.read import read_lora, read_peft
from hb_tta.lora.write import FORMATS, write_lora

__all__ = ["FORMATS", "Lora", "read_lora", "read_peft", "write_lora"]
