"""Verdicts where runs diverged, have no interval, are short, or are on versions of one text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.runs import (
    add_records,
    losses,
    paired_losses,
    tables_of,
    write_grid,
    write_run,
)

from charcmp.report.analysis.comparisons import analyse
from charcmp.report.analysis.verdicts import FAILS, HOLDS, UNDECIDED, Verdict, needs, verdicts
from charcmp.report.figures.forest import forest_figures
from charcmp.report.writing.layout import unusual_notes
from charcmp.report.writing.sections import difference_row

CLEAR = {("lstm", 1): 1.40, ("gru", 1): 1.40, ("rnn", 1): 1.45}  # claim 1 holds


def verdict_on(claim: str, results_dir: Path) -> Verdict:
    found = verdicts([analyse(table, 10) for table in tables_of(results_dir)])
    (verdict,) = [one for one in found if one.claim.startswith(claim)]
    return verdict


@pytest.mark.parametrize(("rnn", "verdict"), [(1.45, HOLDS), (1.35, FAILS)])
def test_a_pair_without_its_diverged_seeds_decides_nothing(
    tmp_path: Path, rnn: float, verdict: str
) -> None:
    write_grid(tmp_path, CLEAR | {("rnn", 1): rnn}, dataset="mine")
    assert verdict_on("1", tmp_path).verdict == verdict
    for cell in ("lstm", "gru"):
        write_run(tmp_path, None, cell=cell, seed=3, dataset="mine")
    found = verdict_on("1", tmp_path)
    assert found.verdict == UNDECIDED
    assert "Open, as means leave out seeds that diverged: 2 comparisons (" in found.evidence
    assert ", LSTM 1: 1 of 4 seeds diverged; GRU 1 - RNN 1 at 50k: " in found.evidence
    assert found.decided_by.startswith("A training in which no run diverges")


def test_predictions_of_the_seeds_that_are_left_decide_nothing(tmp_path: Path) -> None:
    for seed in range(3):
        for cell in ("lstm", "gru", "rnn"):
            nll = losses(1.5, seed=7 if cell == "rnn" else 0) * (1 + 0.001 * seed)
            nats = float(nll.mean())
            write_run(tmp_path, nats, cell=cell, seed=seed, nll=nll, dataset="mine")
    assert verdict_on("4", tmp_path).verdict == HOLDS
    write_run(tmp_path, None, cell="gru", seed=3, dataset="mine")
    found = verdict_on("4", tmp_path)
    assert found.verdict == UNDECIDED
    assert "(open, as diverged seeds are left out)" in found.evidence
    assert found.decided_by == "a training in which no run diverges"


def test_a_model_that_diverged_was_run(tmp_path: Path) -> None:
    write_grid(tmp_path, CLEAR | {("lstm", 2): 1.39}, dataset="mine")
    write_run(tmp_path, None, cell="rnn", layers=2, dataset="mine")
    found = verdict_on("1", tmp_path)
    assert found.verdict == UNDECIDED
    assert "Every run of a model diverged: 2 comparisons (LSTM 2 - RNN 2 at 50k; " in found.evidence
    assert "Not run" not in found.evidence
    assert found.decided_by == (
        "A training in which no run diverges, such as one at a lower learning rate."
    )


@pytest.mark.parametrize("axes", [{"budget": "50k"}, {"seed": "0,1"}], ids=str)
def test_runs_that_filters_keep_out_are_not_called_missing(
    tmp_path: Path, axes: dict[str, str]
) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.4, ("rnn", 1): 1.5})
    write_run(tmp_path, 1.3, budget="130k")
    (table,) = tables_of(tmp_path, **axes)
    (first,) = verdicts([analyse(table, 10)])
    assert "Not in this report: " in first.evidence
    assert "Not run" not in first.evidence
    assert first.decided_by == "A report of all runs: filters keep some out of this one."
    assert unusual_notes(table)[0].startswith("Not in this report: ")
    (whole,) = tables_of(tmp_path, dataset="wp")
    assert unusual_notes(whole)[0].startswith("No finished run yet: ")


@pytest.mark.parametrize(
    ("num_chars", "wanted"),
    [(100, "A longer test text: a single block"), (None, "Runs that keep their losses")],
)
def test_no_interval_is_not_taken_for_one_seed(
    tmp_path: Path, num_chars: int | None, wanted: str
) -> None:
    """No number of seeds gives an interval over a text of one block, or without losses."""
    for (cell, layers), nats in CLEAR.items():
        for seed in range(3):
            own: dict[str, Any] = {"cell": cell, "layers": layers, "seed": seed, "dataset": "mine"}
            if num_chars is not None:
                nll = paired_losses(nats, seed, num_chars)
                own |= {"nll": nll, "num_test_chars": num_chars, "batch_size": 1}
                own["extra"] = {"batch_size": 1}
            write_run(tmp_path, nats if num_chars is None else float(nll.mean()), **own)
    found = verdict_on("1", tmp_path)
    assert found.verdict == UNDECIDED
    assert "one seed" not in found.evidence
    assert "Without an interval over text, 2 comparisons, which decide nothing." in found.evidence
    assert found.decided_by.startswith(wanted)
    assert "more seeds" not in found.decided_by
    (table,) = tables_of(tmp_path)
    (drawn, *_) = forest_figures(analyse(table, 10), print)
    labels = [label.get_text() for label in drawn.figure.axes[0].get_yticklabels()]
    assert labels == ["50k", "LSTM 1 - GRU 1  [no interval]"]


def test_one_seed_against_one_is_not_called_significant(tmp_path: Path) -> None:
    write_grid(tmp_path, CLEAR, seeds=1)
    (table,) = tables_of(tmp_path)
    analysis = analyse(table, 10)
    rows = [difference_row(analysis, one) for one in analysis.differences]
    assert {row["Holm, 5 %"] for row in rows} == {
        "these runs differ on this text",
        "these runs may not differ on this text",
    }
    found = verdict_on("1", tmp_path)
    assert "With one seed, 2 comparisons, which decide nothing: on this text 2 for it" in (
        found.evidence
    )
    assert all("significant" not in one.evidence for one in verdicts([analysis]))


@pytest.mark.parametrize(
    ("rnn", "sds", "text"),
    [
        (1.43, (0.004, 0.0001), "3 seeds would usually have found this; one or two more should "
         "settle it"),
        (1.42, (0.004, 0.004), "about 1 more seed of each, if the true difference is as large as "
         "measured"),
        (1.402, (0.01, 0.01), "more seeds than is practical (over 30), if the true difference is "
         "as large as measured"),
    ],
)  # fmt: skip
def test_how_many_more_seeds(
    tmp_path: Path, rnn: float, sds: tuple[float, float], text: str
) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40}, sd=sds[0])
    write_grid(tmp_path, {("rnn", 1): rnn}, sd=sds[1])
    (table,) = tables_of(tmp_path)
    analysis = analyse(table, 10)
    (difference,) = analysis.differences_of("rnn")
    assert difference.both is not None
    assert not difference.both.significant
    assert needs(difference, analysis.family_size("rnn")) == text


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        ({"dataset": "yours"}, HOLDS),
        ({"dataset": "mine", "corpus_sha256": "e" * 64}, UNDECIDED),  # the text was edited
        ({"dataset": "copy", "corpus_sha256": f"{'mine':0<64}"}, UNDECIDED),
        ({"dataset": "yours", "protocol_version": 2}, UNDECIDED),
    ],
)
def test_versions_of_one_text_are_no_two_corpora(
    tmp_path: Path, other: dict[str, Any], verdict: str
) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.46, ("gru", 1): 1.44}, dataset="mine")
    write_grid(tmp_path, {("lstm", 1): 1.30, ("gru", 1): 1.44}, **other)
    found = verdicts([analyse(table, 10) for table in tables_of(tmp_path)])
    on_corpora = [one for one in found if one.claim.startswith("3")]
    assert {one.verdict for one in on_corpora} == {verdict}
    is_one_group = "protocol_version" not in other
    assert len(on_corpora) == (1 if is_one_group else 2)
    if verdict == UNDECIDED and is_one_group:
        assert "Not counted, as each corpus counts once: " in on_corpora[0].evidence
        assert "another corpus with the same settings" in on_corpora[0].decided_by


@pytest.mark.parametrize(("updates", "verdict"), [(15, HOLDS), (2, UNDECIDED)])
def test_epochs_that_are_cut_short_are_counted_by_what_they_read(
    tmp_path: Path, updates: int, verdict: str
) -> None:
    """12 epochs of 2 of the text's 16 updates read it 1.5 times."""
    extra = {"updates_per_epoch": updates}
    write_grid(tmp_path, CLEAR, dataset="mine", epochs=12, extra=extra)
    for folder in (tmp_path / "runs").iterdir():
        add_records(folder)  # the text has 200,000 characters
    found = verdict_on("1", tmp_path)
    assert found.verdict == verdict
    said = "These epochs are cut short: a run reads its text 1.5 times."
    assert (said in found.evidence) == (verdict == UNDECIDED)


def test_what_stands_against_a_claim_without_being_significant_is_counted(tmp_path: Path) -> None:
    """By the plain interval RNN 1 is ahead of both; Holm, over 24 comparisons, is not convinced."""
    write_grid(tmp_path, {("lstm", 1): 1.403, ("gru", 1): 1.403, ("rnn", 1): 1.40})
    found = verdict_on("1", tmp_path)
    counts = "0 significantly against it (Holm, 5 %), 2 against it by the plain interval alone"
    assert counts in found.evidence
    assert "Against it by the plain interval alone: LSTM 1 - RNN 1 at 50k: +0.00" in found.evidence
    assert found.verdict == UNDECIDED


@pytest.mark.parametrize(("nats", "family"), [(1.3975, 1), (1.4025, 24)])
def test_a_claim_needs_plain_intervals_and_holm_is_for_what_is_against_it(
    tmp_path: Path, nats: float, family: int
) -> None:
    write_grid(tmp_path, {("lstm", 1): nats, ("rnn", 1): 1.40}, sd=0.0015)
    (table,) = tables_of(tmp_path)
    analysis = analyse(table, 10)
    (difference,) = analysis.differences_of("rnn")
    assert difference.both is not None
    assert difference.both.plain_sign == 0
    found = verdict_on("1", tmp_path)
    assert f"LSTM 1 - RNN 1 at 50k: {needs(difference, family)}." in found.decided_by
    assert needs(difference, 1) != needs(difference, 24)


def test_a_complete_grid_without_a_verdict_says_what_would_give_one(tmp_path: Path) -> None:
    """Three layers win somewhere by the plain interval alone, two elsewhere significantly."""
    levels = {("lstm", 2): 1.4024, ("lstm", 3): 1.40, ("rnn", 2): 1.40, ("rnn", 3): 1.45}
    level = {("gru", 2): 1.41, ("gru", 3): 1.41}
    write_grid(tmp_path, levels | level, dataset="mine")
    found = verdict_on("2b", tmp_path)
    assert "1 for three layers (plain 95 % intervals), 1 significantly for two" in found.evidence
    assert found.verdict == UNDECIDED
    assert found.decided_by.startswith("LSTM 3 - LSTM 2 at 50k: ")


def test_the_shortest_training_decides_whether_corpora_can_be_compared(tmp_path: Path) -> None:
    """Epochs of 15 updates read one text 11 times, and the other, ten times as long, once."""
    extra = {"updates_per_epoch": 15}
    levels = {"mine": {("lstm", 1): 1.46, ("gru", 1): 1.44},
              "yours": {("lstm", 1): 1.30, ("gru", 1): 1.44}}  # fmt: skip
    for dataset, grid in levels.items():
        for folder in write_grid(tmp_path, grid, dataset=dataset, epochs=12, extra=extra):
            add_records(folder, num_chars=2_000_000 if dataset == "yours" else 200_000)
    found = verdict_on("3", tmp_path)
    assert found.verdict == UNDECIDED
    assert "These epochs are cut short" in found.evidence


def test_predictions_that_were_not_kept_are_not_called_missing_runs(tmp_path: Path) -> None:
    for cell in ("lstm", "gru", "rnn"):
        for seed in range(2):
            nll = losses(1.5, seed=seed)
            write_run(tmp_path, float(nll.mean()), cell=cell, seed=seed, nll=nll, dataset="mine")
            write_run(tmp_path, 1.4, cell=cell, layers=2, seed=seed, dataset="mine")
    found = verdict_on("4", tmp_path)
    assert "1 of the grid's 2 budgets and depths can be judged" in found.evidence
    assert "longer test texts, or runs that keep their losses" in found.decided_by
    assert "the other" not in found.decided_by
