"""A process that augments, for the tests that kill it or run several of it on one store.

    python augment_process.py SETTINGS.json LOG
    python augment_process.py --fork             for every such pair on stdin, a line each

Every entry that it puts into the store is a line of LOG. With ``--fork`` each pair is a process of
its own, too, but one that finds everything imported: its number is printed, and at its end its
exit status, negative the signal that killed it.
"""

import json
import os
import sys
from pathlib import Path

from hb_tta import Augmenter, MultimodalContext
from hb_tta.store import Store


class LoggingStore(Store):
    """A store that tells what is put into it."""

    log = ""

    def put_group(self, namespace, entries):
        super().put_group(namespace, entries)
        with open(self.log, "a") as file:  # one short write: lines of several processes stay whole
            file.write("".join(f"{namespace} {entry.key}\n" for entry in entries))


def augment(file: str, log: str) -> None:
    """Do what the settings say, and print the views' keys."""
    LoggingStore.log = log
    settings = json.loads(Path(file).read_text())
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


def fork_each() -> None:
    """One after the other: a process, its number, its end."""
    import diffusers  # noqa: F401  what every process would import again
    import torch  # noqa: F401
    import transformers  # noqa: F401

    import hb_tta.generators.pipeline
    import hb_tta.generators.sampling  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        file, log = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            augment(file, log)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    fork_each() if sys.argv[1:] == ["--fork"] else augment(*sys.argv[1:])
