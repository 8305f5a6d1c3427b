"""Our losses against the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.runs import only_entry, report_texts, tables_of, write_run

from charcmp.report.analysis.against_paper import compare, spearman
from charcmp.report.paper import table1

# Against the paper.


def test_the_papers_cells() -> None:
    figures = table1()
    assert len(figures) == 66
    assert figures["wp", "50k", "lstm", 1] == 1.449
    assert figures["lk", "1300k", "gru", 3] == 0.829
    assert ("wp", "1300k", "rnn", 1) not in figures


@pytest.mark.parametrize(
    "run",
    [
        {"layout": "contiguous"},
        {"dataset": "mine"},
        {"budget": "60000"},
        {"epochs": 10},
        {"extra": {"optimizer.lr": 0.006}},
    ],
    ids=str,
)
def test_the_paper_is_shown_only_where_it_has_the_cell(tmp_path: Path, run: dict[str, Any]) -> None:
    write_run(tmp_path, **run)
    assert only_entry(tmp_path).paper_nats is None
    report_texts(tmp_path)
    assert "paper" not in (tmp_path / "report" / "table_nats.csv").read_text()
    assert len((tmp_path / "report" / "against_paper.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("a", "b", "correlation"),
    [
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6·4 / (5·24)
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 2, 4], [1, 2, 3, 4], 0.948683),  # ties at 2.5: 4.5 / sqrt(4.5·5)
        ([1, 2], [1, 2], None),
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_spearman(a: list[float], b: list[float], correlation: float | None) -> None:
    found = spearman(pd.Series(a, dtype=float), pd.Series(b, dtype=float))
    assert found == (correlation if correlation is None else pytest.approx(correlation, abs=1e-6))


def test_summary_against_the_paper(tmp_path: Path) -> None:
    write_run(tmp_path, 1.449 + 0.01)
    write_run(tmp_path, 1.398 - 0.03, cell="gru")
    write_run(tmp_path, 1.446, cell="rnn")
    write_run(tmp_path, 0.9, budget="1300k", cell="rnn")  # the paper has none
    write_run(tmp_path, 1.355 + 0.08, dataset="lk")
    write_run(tmp_path, 3.0, epochs=3)  # not at the paper's settings
    lines = {line.heading: line for line in compare(tables_of(tmp_path))}
    wp, both = lines["wp, 50 epochs"], lines["both corpora, 50 epochs"]
    assert (wp.num_models, wp.num_models_paper, wp.spearman) == (3, 33, 1.0)
    assert wp.mean_absolute_difference == pytest.approx(0.04 / 3)
    assert wp.median_absolute_difference == pytest.approx(0.01)
    assert wp.mean_difference == pytest.approx(-0.02 / 3)
    assert (both.num_models, both.num_models_paper) == (4, 66)
    assert both.mean_absolute_difference == pytest.approx(0.12 / 4)
    assert {*lines} == {"wp, 50 epochs", "lk, 50 epochs", "both corpora, 50 epochs"}


def test_one_corpus_is_not_called_both(tmp_path: Path) -> None:
    write_run(tmp_path, 1.459)
    assert [line.heading for line in compare(tables_of(tmp_path))] == ["wp, 50 epochs"]
