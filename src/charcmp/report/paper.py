"""The figures of Karpathy, Johnson & Fei-Fei 2015 (arXiv 1506.02078)."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from charcmp.models.budget import BUDGETS

CELLS = ("lstm", "rnn", "gru")
COLUMNS = [(cell, layers) for cell in CELLS for layers in (1, 2, 3)]
EPOCHS = 50
LEARNING_RATE = 0.002
SPLITS = {"wp": [80.0, 10.0, 10.0], "lk": [90.0, 5.0, 5.0]}  # percent
REFERENCE = Path(__file__).parent / "reference"
SOURCE_NOTE = (
    "Figures of the paper (Karpathy, Johnson & Fei-Fei 2015, Tables 1 and 2): written down from "
    "memory twice, independently, not re-read from the PDF."
)


def _reference(name: str) -> list[dict[str, str]]:
    """Returns the lines of one of the paper's tables, without comments (#)."""
    text = (REFERENCE / name).read_text()
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@cache
def table1() -> dict[tuple[str, str, str, int], float]:
    """Returns test nats per character by (dataset, budget, cell, layers).

    There are 66 of 72: the paper has no RNN at 512.
    """
    name_of_width = {str(width): name for name, width in BUDGETS.items()}
    return {
        (line["dataset"], name_of_width[line["size_row"]], line["cell"], int(line["layers"])): (
            float(line["test_nats_per_char"])
        )
        for line in _reference("table1.csv")
    }


def test_nats(dataset: str, row: str, cell: str, layers: int) -> float | None:
    """Returns the paper's test nats per character for a model, or None if it has none."""
    return table1().get((dataset, row, cell, layers))


@cache
def best_ngram(dataset: str) -> tuple[int, float] | None:
    """Returns (context length, nats per character) of the paper's best n-gram model (Table 2)."""
    found = [
        (int(line["context_chars"]), float(line["test_nats_per_char"]))
        for line in _reference("table2_ngram.csv")
        if line["dataset"] == dataset
    ]
    return min(found, key=lambda pair: pair[1], default=None)
