"""What docs/serve.md says can be typed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from serving import pocket, served

PAGE = Path(__file__).parents[1] / "docs" / "serve.md"


def test_the_pages_lines_do_what_it_says(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "bash", "python"]
    space: dict = {"__name__": "__main__"}
    settings = {"family": "pocket", "n": 2, "num_inference_steps": 2}
    with served(pocket(), "hummingbird", settings) as place:
        for language, block in blocks:
            lines = block.replace("http://127.0.0.1:8000", place)
            if language == "python":
                exec(compile(lines, PAGE.name, "exec"), space)
            else:
                done = subprocess.run(["bash", "-euc", lines], capture_output=True, check=True)
                told = json.loads(done.stdout)
    assert told["choices"][0]["message"]["content"] in ("Yes", "No")
    rows = text.partition("## What comes back")[2].partition("Seeds may")[0]
    named = {name for row in rows.splitlines() if row.startswith("| `")
             for name in re.findall(r"`(\w+)`", row.split("|")[1])}  # fmt: skip
    assert named == set(told["hb_tta"])
    answer = space["answer"].choices[0].message.content
    assert capfd.readouterr().out.splitlines()[-1].startswith(answer)
    from hb_tta.serve.offer import OVERRIDES

    said = text.partition("of these alone:")[2].partition("; and")[0]
    assert tuple(re.findall(r"`(\w+)`", said)) == OVERRIDES
