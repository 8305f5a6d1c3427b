"""The report's losses against the paper's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from charcmp.report.tables import Table
from charcmp.report.paper import table1

MIN_FOR_CORRELATION = 3  # the ranks of two entries always agree or disagree wholly


@dataclass(frozen=True)
class Comparison:
    """Ours against the paper's, over the entries that both have."""

    heading: str
    num_models: int
    num_models_paper: int
    mean_difference: float  # ours - paper's, nats per character
    mean_absolute_difference: float
    median_absolute_difference: float  # one model that does not learn hardly moves it
    spearman: float | None  # rank correlation; None for fewer than three entries


def compare(tables: Sequence[Table]) -> list[Comparison]:
    """Returns a line per block at the paper's settings, and one over both corpora if there are two.

    If there are several such blocks of a corpus, as of two versions of its text, that line takes
    the fullest one of each.
    """
    lines = []
    fullest: dict[str, Table] = {}
    for table in tables:
        if not _pairs([table]):  # tables have the paper's losses only at the paper's settings
            continue
        lines.append(_comparison(table.heading, [table]))
        rival = fullest.get(table.dataset)
        if rival is None or len(_pairs([table])) > len(_pairs([rival])):
            fullest[table.dataset] = table
    if len(fullest) > 1:
        both = f"both corpora, {next(iter(fullest.values())).protocol}"
        lines.append(_comparison(both, list(fullest.values()), len(table1())))
    return lines


def _pairs(tables: Sequence[Table]) -> list[tuple[float, float]]:
    return [
        (entry.test_nats, entry.paper_nats)
        for table in tables
        for entry in table.done()
        if entry.paper_nats is not None
    ]


def _comparison(
    heading: str, tables: Sequence[Table], num_models_paper: int | None = None
) -> Comparison:
    pairs = pd.DataFrame(_pairs(tables), columns=["ours", "paper"])
    difference = pairs["ours"] - pairs["paper"]
    if num_models_paper is None:
        num_models_paper = sum(dataset == tables[0].dataset for dataset, *_ in table1())
    return Comparison(
        heading=heading,
        num_models=len(pairs),
        num_models_paper=num_models_paper,
        mean_difference=float(difference.mean()),
        mean_absolute_difference=float(difference.abs().mean()),
        median_absolute_difference=float(difference.abs().median()),
        spearman=spearman(pairs["ours"], pairs["paper"]),
    )


def spearman(a: pd.Series[float], b: pd.Series[float]) -> float | None:
    """Returns the rank correlation, with ties at their mean rank; None if it has no meaning."""
    if len(a) < MIN_FOR_CORRELATION:
        return None
    correlation = float(a.rank().corr(b.rank()))
    return None if math.isnan(correlation) else correlation  # NaN: all of one rank
