"""A process that augments, for the tests that kill it or run several of it on one store.

    python augment_process.py SETTINGS.json LOG

Every entry that it puts into the store is a line of LOG.
"""

import json
import sys

from hb_tta import Augmenter, MultimodalContext
from hb_tta.store import Store


class LoggingStore(Store):
    """A store that tells what is put into it."""

    log = sys.argv[2]

    def put_group(self, namespace, entries):
        super().put_group(namespace, entries)
        with open(self.log, "a") as file:  # one short write: lines of several processes stay whole
            file.write("".join(f"{namespace} {entry.key}\n" for entry in entries))


def main() -> None:
    with open(sys.argv[1]) as file:
        settings = json.load(file)
    augmenter = Augmenter.from_pretrained(
        settings["method"],
        family="pocket",
        **settings["models"],
        store=LoggingStore(settings["store"]),
        batch_size=settings["batch_size"],
    )
    contexts = [MultimodalContext(image, question) for image, question in settings["contexts"]]
    augmentations = augmenter.augment(contexts, n=settings["n"])
    keys = [key for augmentation in augmentations for key in augmentation.keys]
    heavy = sorted({"torch", "diffusers", "transformers", "tokenizers"} & sys.modules.keys())
    print(json.dumps({"keys": keys, "imported": heavy}))


if __name__ == "__main__":
    main()
