"""`charcmp baselines`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.console import Charcmp


def test_for_the_texts_and_budgets_of_a_grid(
    charcmp: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    text = ["dataset=text", f"dataset.path={tiny_text}", "results_dir=mine"]
    told = charcmp("baselines", *text, "dataset.layout=contiguous", "budget=400,500")
    assert told.returncode == 0, told.stderr
    assert "tiny, contiguous: " in told.stdout
    for name in ("n-gram, ", "zlib", "bz2", "lzma"):
        assert name in told.stdout
    (file,) = (tmp_path / "work" / "mine" / "baselines").iterdir()
    assert file.name.startswith("tiny-contiguous-")
    assert json.loads(file.read_text())["budgets"] == [400, 500]
    again = charcmp("baselines", *text, "dataset.layout=contiguous", "budget=400")
    assert again.stdout == told.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["task=fill"], "task=fill: baselines read forward only"),
        (["dataset=text", "dataset.path=nowhere.txt"], "no such file"),
        (["--json"], "baselines has no --json"),
        (["budget=many"], "budget=many: neither a named budget"),
    ],
)
def test_mistakes(charcmp: Charcmp, args: list[str], message: str) -> None:
    told = charcmp("baselines", "dataset=pydocs", *args)
    assert told.returncode == 2
    (line,) = told.stderr.splitlines()
    assert message in line
