"""A cell, an optimiser, a figure, a dataset: each is added in one place."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.console import TINY, write_tiny_text

SOURCE = Path(__file__).parents[1]

# A file of its own, and what is added to a file that lists such things.
CELL = '''
from charcmp.models.cells.rnn import RNN


class Elman(RNN):
    """The plain recurrent network, under the name of who proposed it."""
'''
CELL_ROW = """
CELLS["elman"] = CellInfo("charcmp.models.cells.elman", "Elman", "Elman", num_gates=1)
"""
OPTIMIZER = """

@dataclass
class AdamaxConfig(OptimizerConfig):
    torch_name = "Adamax"
    capturable = True

    lr: float = learning_rate(2e-3)
    eps: float = option(1e-8, "added to the largest gradient", POSITIVE)


OPTIMIZERS["adamax"] = AdamaxConfig
"""
OPTIMIZER_YAML = """
defaults:
  - /schema/optimizer@_here_: adamax
name: adamax
"""
FIGURE = '''
from matplotlib.figure import Figure

from charcmp.report.figures.style import Drawn


def seconds_figures(analysis, say):
    """Training time of each model."""
    figure = Figure()
    runs = [run for cell in analysis.table.done() for run in cell.runs]
    figure.subplots().barh([run.run_id for run in runs], [run.seconds_train for run in runs])
    yield Drawn("seconds", "training time in seconds", figure)
'''
FIGURE_ENTRY = """
from charcmp.report.figures.seconds import seconds_figures

FIGURES.append(seconds_figures)
"""
DATASET_YAML = """
defaults:
  - /schema/dataset@_here_: dataset
name: mine
source: download
url: https://example.org/mine.txt
num_chars: {num_chars}
num_symbols: {num_symbols}
layout: contiguous
split: [80, 10, 10]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of the package with one of each added."""
    site = tmp_path / "site"
    shutil.copytree(SOURCE / "src", site)
    package = site / "charcmp"
    shutil.copytree(SOURCE / "conf", package / "conf")
    text = write_tiny_text(tmp_path / "mine.txt").read_bytes()
    sizes = {"num_chars": len(text), "num_symbols": len(set(text))}
    for file, contents in {
        "models/cells/elman.py": CELL,
        "models/cells/registry.py": CELL_ROW,
        "config/optimizers.py": OPTIMIZER,
        "conf/optimizer/adamax.yaml": OPTIMIZER_YAML,
        "report/figures/seconds.py": FIGURE,
        "report/figures/pictures.py": FIGURE_ENTRY,
        "conf/dataset/mine.yaml": DATASET_YAML.format(**sizes),
    }.items():
        with (package / file).open("a") as opened:
            opened.write(contents)
    return site


@pytest.mark.processes
def test_one_of_each_in_one_place(tmp_path: Path, site: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(site), "CHARCMP_DATA": str(tmp_path)}

    def charcmp(*args: str) -> str:
        command = [sys.executable, "-m", "charcmp", *args]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = " ".join(charcmp("train", "--help").split())
    for choice in ("elman", "adamax", "mine"):
        assert f" {choice}" in listed
    assert "optimizer.lr=0.002 learning rate" in listed
    assert "[adagrad: 0.05; adam, adamw, sgd: 0.01]" in listed  # adamax has the first one's
    assert "mine" in charcmp("data")
    assert "mine: " in charcmp("data", "fetch", "mine")
    chosen = ["cell=elman", "optimizer=adamax", "dataset=mine", "layers=1"]
    assert "test " in charcmp("train", *chosen, *TINY, "epochs=1")
    charcmp("report")
    report = tmp_path / "results" / "report"
    assert "Elman" in (report / "report.html").read_text()
    (figure,) = (report / "figures").glob("mine-*-seconds.svg")
    assert "mine-elman-1x" in figure.read_text()
    # The new text is built in: not one of those that dataset=text stands for.
    command = [sys.executable, "-m", "charcmp", "report", "dataset=text"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "no finished run matches" in done.stderr
