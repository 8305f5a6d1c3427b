"""The figures of Karpathy, Johnson & Fei-Fei 2015 (arXiv 1506.02078), and ours against them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from charcmp.budget import BUDGETS

if TYPE_CHECKING:
    from charcmp.report.cells import Table

CELLS = ("lstm", "rnn", "gru")
COLUMNS = [(cell, layers) for cell in CELLS for layers in (1, 2, 3)]
EPOCHS = 50
SPLITS = {"wp": [80.0, 10.0, 10.0], "lk": [90.0, 5.0, 5.0]}  # percent
REFERENCE = Path(__file__).parent / "reference"
REMARK = (
    "Figures of the paper (Karpathy, Johnson & Fei-Fei 2015, Table 1): written down from memory "
    "twice, independently, not re-read from the PDF."
)
MIN_FOR_CORRELATION = 3  # the ranks of two numbers always agree or disagree wholly


def _reference(name: str) -> list[dict[str, str]]:
    """The lines of one of the paper's tables; those with # are remarks."""
    text = (REFERENCE / name).read_text()
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@cache
def table1() -> dict[tuple[str, str, str, int], float]:
    """Test nats per character by (dataset, budget, cell, layers). No RNN at 512: 66 of 72."""
    name_of_width = {str(width): name for name, width in BUDGETS.items()}
    return {
        (line["dataset"], name_of_width[line["size_row"]], line["cell"], int(line["layers"])): (
            float(line["test_nats_per_char"])
        )
        for line in _reference("table1.csv")
    }


def figure(dataset: str, layout: str, row: str, cell: str, layers: int) -> float | None:
    """The paper's test nats per character for a cell; None where it has none."""
    return table1().get((dataset, row, cell, layers)) if layout == "columns" else None


@cache
def best_ngram(dataset: str) -> tuple[int, float] | None:
    """(context length, nats per character) of the paper's best n-gram model, its Table 2."""
    found = [
        (int(line["context_chars"]), float(line["test_nats_per_char"]))
        for line in _reference("table2_ngram.csv")
        if line["dataset"] == dataset
    ]
    return min(found, key=lambda pair: pair[1], default=None)


@dataclass(frozen=True)
class Comparison:
    """Ours against the paper's, over the cells that both have."""

    of: str
    num_cells: int
    num_cells_paper: int
    mean_difference: float  # ours - paper's, nats per character
    mean_absolute_difference: float
    spearman: float | None  # rank correlation; None for fewer than three cells


def compare(tables: Sequence[Table]) -> list[Comparison]:
    """A line per block that has cells in common with the paper, and one over both corpora.

    Blocks of other settings (other epochs, say) are never pooled: there is one line over both
    corpora for each setting. Of several blocks of a corpus in it, the fullest counts.
    """
    lines = []
    pooled: dict[str, dict[str, Table]] = {}
    for table in tables:
        if not _pairs([table]):
            continue
        lines.append(_comparison(table.heading, [table]))
        of_dataset = pooled.setdefault(table.protocol, {})
        rival = of_dataset.get(table.dataset)
        if rival is None or len(_pairs([table])) > len(_pairs([rival])):
            of_dataset[table.dataset] = table
    for protocol, of_dataset in pooled.items():
        both = f"both corpora, {protocol}"
        lines.append(_comparison(both, list(of_dataset.values()), len(table1())))
    return lines


def _pairs(tables: Sequence[Table]) -> list[tuple[float, float]]:
    return [
        (cell.test_nats, cell.paper_nats)
        for table in tables
        for cell in table.done()
        if cell.paper_nats is not None
    ]


def _comparison(of: str, tables: Sequence[Table], num_cells_paper: int | None = None) -> Comparison:
    pairs = pd.DataFrame(_pairs(tables), columns=["ours", "paper"])
    difference = pairs["ours"] - pairs["paper"]
    if num_cells_paper is None:
        num_cells_paper = sum(dataset == tables[0].dataset for dataset, *_ in table1())
    return Comparison(
        of=of,
        num_cells=len(pairs),
        num_cells_paper=num_cells_paper,
        mean_difference=float(difference.mean()),
        mean_absolute_difference=float(difference.abs().mean()),
        spearman=spearman(pairs["ours"], pairs["paper"]),
    )


def spearman(a: pd.Series[float], b: pd.Series[float]) -> float | None:
    """Rank correlation, ties at their mean rank; None where it says nothing."""
    if len(a) < MIN_FOR_CORRELATION:
        return None
    correlation = float(a.rank().corr(b.rank()))
    return None if math.isnan(correlation) else correlation  # all of one rank
