"""CLIP_benchmark's own command with our model type, on an image folder, and its results."""

import csv
import json
import sys

import open_clip
import pytest
import torch

pytest.importorskip("clip_benchmark")

from clip_benchmark import cli, models
from clip_benchmark.metrics import zeroshot_classification

from hb_tta.cli import main
from hb_tta.datasets import image_folder
from hb_tta.errors import UserError
from hb_tta.families import get_family
from hb_tta.images import load_image
from hb_tta.integrations import clip_benchmark as adapter
from hb_tta.pocket.objects import CLASSES, pocket_objects

NAMES = ["blue square", "red circle", "white cross"]
DATASET = "imagenet1k-unverified"  # CLIP_benchmark's reader of any folder of class folders


@pytest.fixture
def folder(tmp_path):
    """Four images a class, in folders, and a file of their names."""
    count = dict.fromkeys(NAMES, 0)
    for sample in pocket_objects("pocket_objects_r", limit=400):
        name = CLASSES[sample.label]
        if name in count and count[name] < 4:
            place = tmp_path / "data" / "val" / name.replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            sample.image.save(place / f"{count[name]}.png")
            count[name] += 1
    assert set(count.values()) == {4}
    (tmp_path / "names.json").write_text(json.dumps({DATASET: NAMES}))
    return tmp_path


def evaluate(folder, *options):
    line = ["eval", "--dataset", DATASET, "--dataset_root", str(folder / "data")]
    line += ["--model", "pocket", "--custom_classname_file", str(folder / "names.json")]
    line += ["--output", str(folder / "new" / "out.json"), "--batch_size", "5", "--quiet"]
    assert main(["clip-benchmark", *line, "--pretrained", "bundled", *options]) == 0
    return json.loads((folder / "new" / "out.json").read_text())


def test_eval_tunes_and_build_reads_its_output(folder):
    argv = list(sys.argv)
    result = evaluate(
        folder, "--augment", "randaugment", "-n", "3", "--crops", "2", "--selection", "0.5"
    )
    metrics = result["metrics"]
    assert set(metrics) >= {"acc1", "mean_per_class_recall", "acc1 zero-shot", "acc1 mta"}
    assert 0 <= metrics["acc1"] <= 1
    assert metrics["acc1"] > 1 / len(NAMES)
    assert (result["method"], result["views"], result["crops"]) == ("randaugment", 3, 2)
    assert (result["filter"], result["seed"]) == ("tpt", 0)
    assert result["weights"] == get_family("pocket").weights("clip").fingerprint()
    assert result["view_settings"]["method"] == "randaugment" and result["view_settings"]["n"] == 3
    assert result["tuning"]["selection"] == 0.5
    table = folder / "benchmark.csv"
    assert (
        main(["clip-benchmark", "build", str(folder / "new" / "out.json"), "--output", str(table)])
        == 0
    )
    with open(table, newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["acc1"]) == metrics["acc1"]
    assert row["model_fullname"] == "pocket bundled"
    assert (row["method"], row["views"], row["weights"]) == ("randaugment", "3", result["weights"])
    assert sys.argv == argv


def test_the_zero_shot_figure_is_clip_benchmarks_own(folder):
    """With TPT's template their plain evaluation of the same CLIP gives our untuned accuracy."""
    ours = evaluate(folder, "--crops", "2")["metrics"]["acc1 zero-shot"]
    where = f"local-dir:{get_family('pocket').weights('clip').location}"
    model, _, preprocess = open_clip.create_model_and_transforms(where)
    data = image_folder(folder / "data" / "val")
    samples = Named((preprocess(load_image(image)), label) for image, label in data.images)
    loader = torch.utils.data.DataLoader(samples, batch_size=5)
    theirs = zeroshot_classification.evaluate(
        model.eval(),
        loader,
        open_clip.get_tokenizer(where),
        NAMES,
        ["a photo of a {c}."],
        "cpu",
        amp=False,
    )
    assert theirs["acc1"] == pytest.approx(ours)


def test_accuracy_is_theirs_where_theirs_works():
    torch.manual_seed(0)
    logits, target = torch.randn(50, 7), torch.randint(7, (50,))
    best = logits.topk(5, 1, True, True)[1].t().eq(target.view(1, -1))
    expected = [best[:k].any(0).float().mean().item() for k in (1, 5)]
    assert adapter.accuracy(logits, target, (1, 5)) == pytest.approx(expected)


def test_what_is_patched_is_still_there():
    assert "open_clip" in models.TYPE2FUNC
    assert "open_clip" in models.MODEL_TYPES
    assert callable(zeroshot_classification.evaluate)
    assert callable(zeroshot_classification.accuracy)
    assert callable(cli.json.dump)


def test_other_versions_and_other_model_types_are_refused(monkeypatch, capsys):
    assert main(["clip-benchmark", "eval", "--model_type", "open_clip"]) == 1
    assert "--model_type is hb_tta here" in capsys.readouterr().err
    monkeypatch.setattr(adapter.metadata, "version", lambda name: "1.7.0")
    with pytest.raises(UserError, match="1.7.0 is not supported"):
        adapter.check_version()


class Named(list):
    """Samples with the attribute that CLIP_benchmark reads."""

    classes = NAMES
