"""``hb-tta clip-benchmark``: CLIP_benchmark's own command line, with prompt tuning."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from hb_tta.errors import UserError
from hb_tta.settings import settings_table

DESCRIPTION = """\
`eval` tunes prompts for every image on its views, whatever else the options of
clip_benchmark say (--no_amp and --num_workers 0 are put in); --model takes a family's
name (pocket), open_clip's names with --pretrained, or a folder with --pretrained "".
`build` is passed on.

options of hb-tta:
  --augment METHOD       who makes views, see `hb-tta list` (default: crops alone)
  -n N                   generated views of an image (default: 4)
  --family NAME          the models that make views: sdxl or pocket (default: sdxl)
  --preset NAME, --gate P    which images are shown them: safe (hummingbird's: where the zero-shot
                         probability is below the gate), paper (all); see `hb-tta tpt --help`
  --store DIR            where views and features are kept
  --augment_args KEY=VALUE,…     any setting of the views by name, the method's own too:
                         key=value,…, a JSON object, or @file.json
  --crops N              random crops of an image (default: the filter's, 63 of tpt and 64 of
                         difftpt)
  --filter NAME          tpt, difftpt-paper or difftpt-code (default: tpt)
  --selection SHARE      of views that are trusted (default: the filter's)
  --generated-selection SHARE    a quota of their own for generated views
  --steps N, --lr X      of tuning (default: 1, 0.005)
  --prompt TEXT          to start from (default: 'a photo of a')

The results have the accuracies without tuning beside the tuned ones: zero-shot, average,
zero and mta."""

EXAMPLES = """\
examples:
  hb-tta clip-benchmark eval --dataset cifar10 --dataset_root data --model ViT-B-16-quickgelu \\
      --pretrained openai --output "results/{dataset}_{model}.json"
  hb-tta clip-benchmark build results --output benchmark.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``run`` reads."""
    parser.usage = "hb-tta clip-benchmark {eval,build} [options of clip_benchmark]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.set_defaults(notes=settings_table)
    parser.set_defaults(passes_on=True)  # all that follows goes to clip_benchmark as it stands


def run(arguments: argparse.Namespace) -> int:
    """Run CLIP_benchmark; it ends the process by itself where its command line is wrong."""
    if find_spec("clip_benchmark") is None:
        raise UserError('CLIP_benchmark is not installed: pip install "hb-tta[clip-benchmark]"')
    from hb_tta.integrations import clip_benchmark

    clip_benchmark.run(arguments.passed_on)
    return 0
