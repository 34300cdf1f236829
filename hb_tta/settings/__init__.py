"""Which views: one value, spelled in one way at every door.

    ViewSettings("hummingbird", {"lora": None}, n=8)                           # Python
    hb-tta augment IMAGE --method hummingbird -n 8 --lora none                 # our commands
    lmms-eval … --augment hummingbird --augment_args n=8,lora=none             # key=value,…
    … --augment_args '{"n": 8, "lora": null}'      … --augment_args @views.json

``ViewSettings.parse`` reads what a person wrote, ``augmenter()`` makes what they asked for, and
``to_json()`` writes it down. A field of ``ViewSettings`` is an option at all of these doors
(options.py). A method's own settings are the fields of its spec.

Importing this package imports no torch.
"""

from hb_tta.settings.asked import by_name, own_settings
from hb_tta.settings.command_line import add_arguments, by_arguments, settings_table
from hb_tta.settings.options import OPTIONS, options_of, read_option
from hb_tta.settings.several import each, refuse_gate, refuse_share
from hb_tta.settings.value import ViewSettings

__all__ = [
    "OPTIONS", "ViewSettings", "add_arguments", "by_arguments", "by_name", "each", "options_of",
    "own_settings", "read_option", "refuse_gate", "refuse_share", "settings_table",
]  # fmt: skip
