"""CONTRIBUTING.md: a cell, an optimiser, a figure, an option, a dataset, added as it says."""

import os
import re
import shutil
from pathlib import Path

import pytest
from helpers.console import CHECKOUT, STARTUP, TINY, in_turn, write_tiny_text

TITLED_BLOCK = re.compile(r'^```(\w+) title="(.+?)"\n(.*?)^```', re.MULTILINE | re.DOTALL)


def apply_diff(text: str, diff: str) -> str:
    """`text` with a block's lines that are not marked + replaced by those that are not marked -."""
    lines = diff.splitlines(keepends=True)
    before, after = (
        "".join(line[1:] for line in lines if line[0] in marks) for marks in (" -", " +")
    )
    assert text.count(before) == 1, f"not once in the file: {before}"
    return text.replace(before, after)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the repository's code with everything added that CONTRIBUTING.md shows."""
    checkout = tmp_path / "checkout"
    for folder in ("src", "conf"):
        shutil.copytree(CHECKOUT / folder, checkout / folder)
    blocks = TITLED_BLOCK.findall((CHECKOUT / "CONTRIBUTING.md").read_text())
    assert len(blocks) == 10
    for language, name, contents in blocks:
        file = checkout / name
        if language == "diff":
            file.write_text(apply_diff(file.read_text(), contents))
        else:
            with file.open("a") as opened:
                opened.write(f"\n\n{contents}")
    return checkout


@pytest.mark.long
def test_one_of_each_is_added_as_the_guide_says(tmp_path: Path, checkout: Path) -> None:
    write_tiny_text(tmp_path / "mine.txt")
    chosen = ["cell=elman", "optimizer=adamax", "dataset=mine", "layers=1", *TINY, "epochs=1"]
    choices, texts, fetched, trained, refused, smoothed, reported, none = in_turn(
        ["train", "--help"],
        ["data"],
        ["data", "fetch", "mine"],
        ["train", *chosen],
        ["train", *chosen, "label_smoothing=1"],
        ["train", *chosen, "label_smoothing=0.5"],
        ["report"],
        ["report", "dataset=text"],
        cwd=tmp_path,
        env={
            "PYTHONPATH": f"{checkout}/src{os.pathsep}{STARTUP}",
            "CHARCMP_DATA": str(tmp_path),
        },
    )
    for done in (choices, texts, fetched, trained, smoothed, reported):
        assert done.returncode == 0, done.stderr
    listed = " ".join(choices.stdout.split())
    for choice in ("elman", "adamax", "mine", "label_smoothing=0"):
        assert f" {choice}" in listed
    assert "optimizer.lr=0.002 learning rate" in listed
    assert "[adagrad: 0.05; adam, adamw, sgd: 0.01]" in listed  # adamax has the first one's
    assert "mine" in texts.stdout
    assert "mine: " in fetched.stdout
    assert "test " in trained.stdout
    assert "label_smoothing=1.0: must be in [0, 1)" in refused.stderr
    report = tmp_path / "results" / "report"
    page = (report / "report.html").read_text()
    assert "Elman" in page
    assert "label_smoothing" in page  # a block of its own: the numbers are others
    figures = sorted((report / "figures").glob("mine-*-seconds.svg"))
    assert len(figures) == 2
    assert all("mine-elman-1x" in figure.read_text() for figure in figures)
    # The new text is built in: not one of those that dataset=text stands for.
    assert "no finished run matches" in none.stderr
