"""The same evaluation in lmms-eval directly, and through the server by its ``async_openai``."""

from __future__ import annotations

from lmms_eval_runs import evaluate, small_tasks
from serving import pocket, served

SETTINGS = {"n": 2, "preset": "paper"}


def answers(results: dict) -> dict[int, str]:
    ((_, found),) = results["samples"].items()
    return {one["doc_id"]: one["filtered_resps"][0].strip() for one in found}


def test_the_answers_are_the_same(tmp_path):
    tasks = small_tasks(tmp_path / "tasks")
    model = pocket()
    asked = {"task": "pocket_mme_dev", "limit": 6}
    direct = evaluate(
        tasks, model="llava_hf", augment="jitter", augment_args="n=2,preset=paper",
        model_args=f"pretrained={model.names[1]},device_map=cpu", **asked,
    )  # fmt: skip
    with served(model, "jitter", SETTINGS) as place:
        through = evaluate(
            tasks, model="async_openai",
            model_args=f"model_version=pocket,base_url={place}/v1,api_key=none,num_cpus=4",
            **asked,
        )  # fmt: skip
    assert len(answers(direct)) == 6 and answers(through) == answers(direct)
