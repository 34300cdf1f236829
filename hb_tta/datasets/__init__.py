"""Data sets, a file each, read once for evaluation and training alike.

samples.py      what they are read as       tasks.py        tasks to score, by name
own.py          a person's own, in any form rows.py         what a row and its columns say
jsonl.py        JSON lines, an array        csv_rows.py     CSV, TSV
hub.py          Parquet, the hub; VQAv2, GQA
folders.py      a folder a class            imagenet.py     ImageNet and its variants
bongard_hoi.py  Bongard-HOI                 pocket.py       the pocket world
files.py        which files count           class_names.py  files that name classes
"""

from hb_tta.datasets.bongard_hoi import BONGARD_SPLITS, bongard_hoi
from hb_tta.datasets.class_names import class_names_file
from hb_tta.datasets.folders import image_folder
from hb_tta.datasets.imagenet import IMAGENET, imagenet
from hb_tta.datasets.pocket import OBJECT_TASKS
from hb_tta.datasets.samples import (
    Classification,
    Example,
    Examples,
    FewShot,
    HoiImage,
    HoiTask,
    LabelledImage,
)
from hb_tta.datasets.tasks import ALIASES, TASKS, load_tasks

__all__ = [
    "ALIASES",
    "BONGARD_SPLITS",
    "IMAGENET",
    "OBJECT_TASKS",
    "TASKS",
    "Classification",
    "Example",
    "Examples",
    "FewShot",
    "HoiImage",
    "HoiTask",
    "LabelledImage",
    "bongard_hoi",
    "class_names_file",
    "image_folder",
    "imagenet",
    "load_tasks",
]
