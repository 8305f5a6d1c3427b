"""Which runs are together in a table, and which runs a report is narrowed to."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.console import Charcmp
from helpers.runs import losses, report_texts, tables_of, write_run

from charcmp.config.compose import compose_line
from charcmp.config.rules import typed
from charcmp.config.spec import resolve
from charcmp.errors import UserError
from charcmp.report.analysis.wording import cell_label
from charcmp.report.candidates import expected_lead
from charcmp.report.figures.pictures import figure_names
from charcmp.report.filters import Filters
from charcmp.report.load import load_runs
from charcmp.report.tables import MANY_MODELS, make_tables

EPOCH = {"epoch": 1, "train_nats_per_char": 1.5, "val_nats_per_char": 1.5}

# What stands together.


@pytest.mark.parametrize(
    ("experiment", "heading"),
    [
        (["experiment=fast"], "wp, 10 epochs, experiment=fast"),
        (["experiment=census"], "wp, 10 epochs, experiment=fast"),
        (
            ["experiment=fast", "train_batch_size=20", "clip=1"],
            "wp, 10 epochs, experiment=fast, clip=1.0, train_batch_size=20",
        ),
        (
            ["experiment=fast", "optimizer.warmup_updates=0"],
            "wp, 10 epochs, optimizer.rate_per=update, optimizer.schedule=cosine, "
            "train_batch_size=50, train_unroll_steps=50",
        ),
    ],
    ids=str,
)
def test_the_fast_training_is_named_in_a_heading(
    tmp_path: Path, experiment: list[str], heading: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be\n" * 100_000)
    line = [*experiment, f"dataset.path={text}", "dataset=text", "dataset.layout=columns"]
    identity = resolve(typed(compose_line(["hydra.job.name=x"]).compose(line))).identity()
    keys = ("optimizer.", "train_", "clip", "epochs")
    training = {key: value for key, value in identity.items() if key.startswith(keys)}
    write_run(tmp_path, 1.4, epochs=identity["epochs"], extra=training)
    (table,) = tables_of(tmp_path)
    assert table.heading == heading


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 3, "extra": {"epochs": 3}},
        {"layout": "contiguous"},
        {"split": [90.0, 5.0, 5.0]},
        {"corpus_sha256": "f" * 64},
        {"protocol_version": 2},
        {"num_test_chars": 10_000},
        {"batch_size": 50, "extra": {"batch_size": 50}},
        {"unroll_steps": 50, "extra": {"unroll_steps": 50}},
        {"precision": "tf32", "extra": {"precision": "tf32"}},
        {"extra": {"optimizer.lr": 0.001}},
        {"extra": {"init": "xavier"}},
        {"extra": {"clip": None}},
        {"dataset": "lk"},
    ],
    ids=str,
)
def test_protocols_are_never_mixed(tmp_path: Path, other: dict[str, Any]) -> None:
    write_run(tmp_path, 1.4)
    write_run(tmp_path, 1.2, **other)
    tables = tables_of(tmp_path)
    assert sorted(entry.test_nats for table in tables for entry in table.done()) == [1.2, 1.4]
    assert len({table.heading for table in tables}) == 2


def test_options_of_a_cell_are_a_column(tmp_path: Path) -> None:
    write_run(tmp_path, 1.4)
    write_run(tmp_path, 1.3, extra={"cell.forget_bias": 1.0})
    (table,) = tables_of(tmp_path)
    assert table.columns[:2] == [("lstm", 1), ("lstm", 2)]
    variant = table.entries["50k", "lstm(forget_bias=1.0)", 1]
    assert (variant.test_nats, variant.paper_nats) == (1.3, None)
    assert len(tables_of(tmp_path, cell="lstm")[0].entries) == 2
    report_texts(tmp_path)
    assert "LSTM (forget_bias=1.0) 1" in (tmp_path / "report" / "table_nats.md").read_text()


@pytest.mark.parametrize("cell", ["lstm_softmax_gate", "lstm_cascaded_gate"])
def test_readings_of_ours_are_called_so(tmp_path: Path, cell: str) -> None:
    write_run(tmp_path, 1.4)
    report_texts(tmp_path)
    table = tmp_path / "report" / "table_nats.md"
    assert "our reading" not in table.read_text()
    write_run(tmp_path, 1.3, cell=cell)
    report_texts(tmp_path)
    assert "gates: our reading of what S. Asakawa announced in 2016" in table.read_text()


def test_headings_say_what_is_different(tmp_path: Path) -> None:
    write_run(tmp_path, 1.4)
    write_run(tmp_path, 1.4, epochs=3)
    write_run(tmp_path, 1.4, extra={"optimizer.lr": 0.001})
    write_run(tmp_path, 1.4, dataset="pydocs", layout="contiguous", epochs=1)
    write_run(tmp_path, 1.4, corpus_sha256="abcdef12" * 8, epochs=3)
    assert {table.heading for table in tables_of(tmp_path)} == {
        "wp, 50 epochs",
        "wp, 50 epochs, optimizer.lr=0.001",
        "wp, 3 epochs, text wp000000",
        "wp, 3 epochs, text abcdef12",
        "pydocs, contiguous, 1 epoch",
    }


@pytest.mark.parametrize(
    ("run", "rows"),
    [
        ({"hidden_size": 64, "budget": "44823"}, ["50k"]),
        ({"hidden_size": 77, "cell": "gru", "budget": "45132"}, ["45132"]),
        ({"budget": "60000"}, ["60000"]),
        ({"hidden_size": 70, "budget": "50k"}, ["50697"]),  # named so by an older solver, say
        ({"cell": "gru", "layers": 3, "budget": "1300k"}, ["1300k"]),
    ],
    ids=str,
)
def test_a_run_counts_where_the_solver_puts_it(
    tmp_path: Path, run: dict[str, Any], rows: list[str]
) -> None:
    write_run(tmp_path, **run)
    (table,) = tables_of(tmp_path)
    assert list(table.rows) == rows
    assert len(table.entries) == len(rows)


def test_a_budget_of_another_training_adds_no_row(tmp_path: Path) -> None:
    """The solver has the same LSTM for 45,000 parameters as for 50k."""
    write_run(tmp_path)
    write_run(tmp_path, cell="gru")
    write_run(tmp_path, budget="45000", epochs=10)
    rows = {table.epochs: list(table.rows) for table in tables_of(tmp_path)}
    assert rows == {50: ["50k"], 10: ["45000"]}


def test_other_cells_of_a_numeric_budget_share_its_row(tmp_path: Path) -> None:
    write_run(tmp_path, budget="60000")
    write_run(tmp_path, cell="gru", layers=2, budget="60000")
    (table,) = tables_of(tmp_path)
    assert set(table.entries) == {("60000", "lstm", 1), ("60000", "gru", 2)}


def test_dropout_is_chosen_by_validation(tmp_path: Path) -> None:
    # By the mean validation loss of the common seeds 0.2 wins; by test loss 0.5 would.
    for dropout, seed, val, test in [
        (0.0, 0, 1.40, 1.30),
        (0.0, 1, 1.50, 1.30),
        (0.2, 0, 1.44, 1.41),
        (0.2, 1, 1.44, 1.43),
        (0.5, 0, 1.60, 1.20),
        (0.5, 1, 1.60, 1.20),
        (0.5, 2, 0.10, 1.20),  # not a seed of the others
    ]:
        write_run(tmp_path, test, dropout=dropout, seed=seed, val_nats_per_char=val)
    write_run(tmp_path, 1.6, cell="gru")
    (table,) = tables_of(tmp_path)
    entry = table.entries["50k", "lstm", 1]
    assert (entry.dropout, entry.dropout_candidates) == (0.2, [0.0, 0.2, 0.5])
    assert entry.test_nats == pytest.approx(1.42)
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert "Dropout chosen by validation loss: LSTM 1 at 50k: 0.2 of 0, 0.2, 0.5." in text


RATES = {  # model -> rate -> (validation, test) by seed; None: diverged
    ("lstm", 1): {0.002: [(1.5, 1.6), (1.5, 1.6)], 0.006: [(1.4, 1.8), (1.4, 1.8), (9.0, 9.0)]},
    ("gru", 1): {0.002: [(1.3, 1.4), (1.3, 1.4)], 0.006: [(1.2, 1.3), None]},
    ("rnn", 1): {0.006: [(1.1, 1.2), (1.1, 1.2)]},
}


def write_rates(folder: Path) -> None:
    for (cell, layers), by_rate in RATES.items():
        for rate, of_rate in by_rate.items():
            for seed, nats in enumerate(of_rate):
                write_run(
                    folder,
                    nats and nats[1],
                    cell=cell,
                    layers=layers,
                    seed=seed,
                    val_nats_per_char=nats and nats[0],
                    extra={"optimizer.lr": rate} if rate != 0.002 else {},
                )


def test_each_at_its_own_rate(tmp_path: Path) -> None:
    """Validation loss over the seeds that all rates have chooses a rate.

    A rate with a diverged run comes last. A model that lacks one of the rates is left out.
    """
    write_rates(tmp_path)
    protocol, own = tables_of(tmp_path)
    assert protocol.heading == "wp, 50 epochs"
    assert set(protocol.entries) == {("50k", "lstm", 1), ("50k", "gru", 1)}
    assert own.heading == "wp, 50 epochs, each at its own learning rate"
    assert set(own.entries) == {("50k", "lstm", 1), ("50k", "gru", 1)}
    lstm, gru = own.entries["50k", "lstm", 1], own.entries["50k", "gru", 1]
    assert (lstm.rate, lstm.rate_candidates) == (0.006, [0.002, 0.006])
    assert lstm.test_nats == pytest.approx((1.8 + 1.8 + 9) / 3)  # the mean is over all its seeds
    assert (gru.rate, gru.test_nats) == (0.002, pytest.approx(1.4))
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert "Rates tried at 50k: 0.002, 0.006." in text
    assert "LSTM 1 at 50k: 0.006" in text
    assert "GRU 1 at 50k: 0.002" in text
    assert (
        "1 run diverged, over all dropouts and learning rates tried"
        in (tmp_path / "report" / "statistics.md").read_text()
    )
    assert "is the lowest or highest one tried" in text
    # Of two rates compared by two of its three seeds: 0.564 · √2 / 3.
    assert "flatters a mean by up to 0.27 of the SD over seeds" in text
    assert "Not shown, as their search for a rate is not over: RNN 1 at 50k (0.006)." in text
    assert "another training may rank them differently" in text.split("own learning rate")[-1]
    entries = pd.read_csv(tmp_path / "report" / "entries.csv")
    assert set(entries["learning_rate"]) == {0.002, 0.006}


@pytest.mark.parametrize(
    ("nats_by_rate", "chosen"),
    [
        # The best two by seed 0 are compared again by three seeds.
        ({0.003: [1.5], 0.006: [1.32, 1.33, 1.31], 0.012: [1.30, 1.40, 1.41]}, 0.006),
        # A worse rate has further seeds and a better one has not: seed 0 decides.
        ({0.003: [1.4, 1.2, 1.2], 0.006: [1.32], 0.012: [1.30, 1.40, 1.41]}, 0.012),
        # They share no further seed.
        ({0.003: [1.5], 0.006: [1.32, 1.2], 0.012: [1.30, None, 1.41]}, 0.012),
        # Only the best one has further seeds: it stays the best.
        ({0.003: [1.5], 0.006: [1.32], 0.012: [1.30, 1.40, 1.41]}, 0.012),
    ],
)
def test_the_best_rates_are_compared_again_by_further_seeds(
    tmp_path: Path, nats_by_rate: dict[float, list[float | None]], chosen: float
) -> None:
    for rate, by_seed in nats_by_rate.items():
        for seed, nats in enumerate(by_seed):
            if nats is not None:
                extra = {"optimizer.lr": rate}
                write_run(tmp_path, nats, seed=seed, extra=extra)
                write_run(tmp_path, nats, seed=seed, extra=extra, cell="gru")
    (own,) = tables_of(tmp_path)
    assert own.entries["50k", "lstm", 1].rate == chosen


@pytest.mark.parametrize(("epochs", "is_shown"), [(1, False), (2, True)])
def test_short_tries_of_a_census_have_no_table(epochs: int, is_shown: bool, tmp_path: Path) -> None:
    """They chose rates, a tenth as long; their losses say only how fast models learn."""
    for cell in ("lstm", "gru"):
        for rate in (0.003, 0.006, 0.012):
            write_run(tmp_path, 2.0, cell=cell, epochs=epochs, extra={"optimizer.lr": rate})
        for rate in (0.003, 0.006):
            write_run(tmp_path, 1.5, cell=cell, epochs=10, extra={"optimizer.lr": rate})
    tables = {table.epochs: table for table in tables_of(tmp_path)}
    assert {*tables} == ({epochs, 10} if is_shown else {10})
    assert all(entry.rates_given_up == [0.012] for entry in tables[10].done())


def test_a_rate_given_up_after_a_shorter_training(tmp_path: Path) -> None:
    """Such a rate counts as tried; the training that gave it up has a block of its own."""

    def write(cell: str, nats: dict[float, float], **length) -> None:
        extra = {"optimizer.schedule": "cosine"}
        if "updates_per_epoch" in length:
            extra["updates_per_epoch"] = length.pop("updates_per_epoch")
        for rate, loss in nats.items():
            write_run(tmp_path, loss, cell=cell, extra=extra | {"optimizer.lr": rate}, **length)

    write("lstm", {0.003: 2.3, 0.006: 2.2, 0.012: 2.1}, epochs=1, updates_per_epoch=400)
    write("gru", {0.003: 2.1, 0.006: 2.2, 0.012: 2.3}, epochs=1, updates_per_epoch=400)
    write("rnn", {0.006: 2.3, 0.012: 2.4}, epochs=1, updates_per_epoch=400)
    write("lstm", {0.006: 1.5, 0.012: 1.4}, epochs=10)
    write("gru", {0.003: 1.3, 0.006: 1.35}, epochs=10)
    write("rnn", {0.006: 1.4, 0.012: 1.5}, epochs=10)
    write("lstm", {0.003: 1.6}, epochs=20)  # longer: it gives nothing up
    (own,) = [table for table in tables_of(tmp_path) if "10 epochs" in table.heading]
    assert own.heading.endswith("each at its own learning rate, optimizer.schedule=cosine")
    assert {entry.cell for entry in own.done()} == {"lstm", "gru"}  # the RNN never had 0.003
    lstm, gru = own.entries["50k", "lstm", 1], own.entries["50k", "gru", 1]
    assert (lstm.rate, lstm.rates_given_up) == (0.012, [0.003])
    assert (gru.rate, gru.rates_given_up) == (0.003, [0.012])
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert "Rates tried at 50k: 0.003, 0.006, 0.012." in text
    assert "at all of these rates are shown; some rates were tried only for a shorter time." in text
    assert "look better" not in text  # one seed each


def test_an_interrupted_sweep_of_rates_admits_no_model_early(tmp_path: Path) -> None:
    """Not even one whose best rate lies between others, or that had a shorter training."""
    rates = {0.003: 1.5, 0.006: 1.3, 0.012: 1.4, 0.024: 1.6}
    done = {"lstm": 4, "gru": 4, "rnn": 3, "gru_reset_after": 2}  # rates
    for cell, num_rates in done.items():
        for rate, nats in list(rates.items())[:num_rates]:
            write_run(tmp_path, nats, cell=cell, extra={"optimizer.lr": rate})
    for rate in (0.0015, 0.003):
        extra = {"optimizer.lr": rate}
        write_run(tmp_path, 2.0, cell="gru_reset_after", epochs=3, extra=extra)
    own = tables_of(tmp_path)[0]
    assert {entry.cell for entry in own.done()} == {"lstm", "gru"}
    assert {entry.cell: entry.rates_tried for entry in own.left_out} == {
        "rnn": [0.003, 0.006, 0.012],
        "gru_reset_after": [0.0015, 0.003, 0.006],
    }


def test_filters_do_not_change_which_rates_were_tried(tmp_path: Path) -> None:
    """The best two rates had a second seed; the third is as much a rate that was tried."""
    for cell in ("lstm", "gru"):
        for rate, nats in {0.003: 1.5, 0.006: 1.3, 0.012: 1.4}.items():
            for seed in (0,) if rate == 0.003 else (0, 1):
                extra = {"optimizer.lr": rate}
                write_run(tmp_path, nats, cell=cell, seed=seed, extra=extra)
    (own,) = tables_of(tmp_path, seed="1")
    assert [entry.rate_candidates for entry in own.done()] == [[0.003, 0.006, 0.012]] * 2
    write_run(tmp_path, 2.0, cell="rnn", budget="130k", extra={"optimizer.lr": 0.003})
    report_texts(tmp_path, Filters({"seed": {"1"}}))
    (text,) = (tmp_path / "report").glob("*/table_nats.md")
    assert "Rates tried at 50k: 0.003, 0.006, 0.012." in text.read_text()
    assert "lowest or highest one tried" not in text.read_text()


RUNGS = (
    {"epochs": 1, "updates_per_epoch": 300},
    {"epochs": 1, "updates_per_epoch": 800},
    {"epochs": 3},
)
# Races as they go: (cell, layers) -> validation loss by rate in each rung that the model was in.
RACES: dict[str, dict[tuple[str, int], list[dict[float, float]]]] = {
    "the winner never had the rate of another": {
        ("rnn", 2): [{0.003: 2.0, 0.006: 1.9, 0.012: 1.95}, {0.006: 1.7, 0.003: 1.75},
                     {0.006: 1.4}],
        ("gru", 1): [
            {0.006: 2.2, 0.012: 2.1, 0.024: 2.0, 0.048: 2.3},
            {0.024: 1.72, 0.012: 1.73},
            {0.024: 1.45},
        ],
        ("gru", 2): [{0.006: 2.0, 0.012: 1.9, 0.024: 2.1}, {0.012: 1.7, 0.006: 1.8}, {0.012: 1.43}],
        ("lstm", 1): [{0.006: 2.3, 0.012: 2.2, 0.024: 2.4}],
    },
    "no model had every rate": {
        ("rnn", 2): [{0.003: 2.0, 0.006: 1.9, 0.012: 1.95}, {0.006: 1.72, 0.003: 1.7},
                     {0.003: 1.4}],
        ("gru", 1): [{0.006: 2.0, 0.012: 1.9, 0.024: 2.1}, {0.012: 1.7, 0.006: 1.8}, {0.012: 1.43}],
        ("lstm", 1): [{0.006: 2.3, 0.012: 2.2, 0.024: 2.4}],
    },
    "all chose the same rate": {
        ("rnn", 2): [{0.003: 2.0, 0.006: 1.9, 0.012: 1.85, 0.024: 2.0},
                     {0.012: 1.7, 0.006: 1.72}, {0.012: 1.4}],
        ("gru", 1): [{0.006: 2.0, 0.012: 1.9, 0.024: 2.1}, {0.012: 1.7, 0.006: 1.8}, {0.012: 1.43}],
        ("lstm", 1): [{0.006: 2.3, 0.012: 2.2, 0.024: 2.4}],
    },
    "a longer training made a lower rate necessary": {
        ("rnn", 2): [{0.003: 2.0, 0.006: 1.9, 0.012: 1.95}, {0.006: 1.7, 0.003: 1.75},
                     {0.006: 1.8, 0.003: 1.4}],
        ("gru", 1): [{0.006: 2.0, 0.012: 1.9, 0.024: 2.1}, {0.012: 1.7, 0.006: 1.8}, {0.012: 1.43}],
        ("lstm", 1): [{0.006: 2.3, 0.012: 2.2, 0.024: 2.4}],
    },
}  # fmt: skip


@pytest.mark.parametrize("race", RACES.values(), ids=list(RACES))
def test_a_race_has_a_block_for_each_length(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    race: dict[tuple[str, int], list[dict[float, float]]],
) -> None:
    """It has all models that were trained for that long, each at the best of its own rates."""
    for (cell, layers), searches in race.items():
        for rung, (length, search) in enumerate(zip(RUNGS, searches, strict=False)):
            cut = {key: value for key, value in length.items() if key != "epochs"}
            for rate, nats in search.items():
                for seed in range(3 if rung == 2 else 1):
                    extra = {"optimizer.schedule": "cosine", "optimizer.lr": rate, **cut}
                    write_run(tmp_path, nats, cell=cell, layers=layers, seed=seed, extra=extra,
                              epochs=length["epochs"])  # fmt: skip
    tables = tables_of(tmp_path)
    assert [table.has_own_rates for table in tables] == [True] * 3
    by_rung = sorted(tables, key=lambda table: (table.epochs, table.settings.get(
        "updates_per_epoch", 0)))  # fmt: skip
    for rung, table in enumerate(by_rung):
        searches = {model: rungs[rung] for model, rungs in race.items() if len(rungs) > rung}
        assert {entry.column: entry.rate for entry in table.done()} == {
            model: min(search, key=search.__getitem__) for model, search in searches.items()
        }
        assert table.left_out == []
    report_texts(tmp_path)
    out = " ".join(capsys.readouterr().out.split())
    assert "50k: RNN, 2 layers, 1.400" in out
    assert "nothing else was trained" not in out.lower()
    tried = sorted({rate for search in race["rnn", 2] for rate in search})
    assert f"RNN 2 at 50k: {', '.join(f'{rate:g}' for rate in tried)}" in out


def test_tries_of_a_longer_training_are_no_table_of_their_own(tmp_path: Path) -> None:
    """As in results/fast: what was given up after two epochs is not each model's own rate."""
    for cell in ("lstm", "gru"):
        for rate, nats, epochs in [(0.003, 1.9, 2), (0.006, 1.5, 10), (0.012, 1.4, 10),
                                   (0.024, 2.0, 2)]:  # fmt: skip
            extra = {"optimizer.lr": rate}
            write_run(tmp_path, nats, cell=cell, epochs=epochs, extra=extra)
        write_run(tmp_path, 2.1, cell=cell, epochs=2)  # the protocol's rate has its own table
    assert [table.heading for table in tables_of(tmp_path)] == [
        "wp, 10 epochs, each at its own learning rate",
        "wp, 2 epochs",
    ]
    entry = tables_of(tmp_path)[0].entries["50k", "gru", 1]
    assert entry.rates_tried == [0.002, 0.003, 0.006, 0.012, 0.024]
    (alone,) = [table for table in tables_of(tmp_path, epochs="2") if table.has_own_rates]
    assert alone.entries["50k", "gru", 1].rate == 0.003  # asked for by themselves


def test_filters_leave_each_model_its_own_rate(tmp_path: Path) -> None:
    """What is not shown still says which rates were tried, and that a search is over."""
    for cell, best in (("lstm", 0.006), ("gru", 0.012)):
        for rate in (0.003, 0.006, 0.012):
            for layers in (1, 2):
                nats = 1.4 + abs(rate - best)
                write_run(tmp_path, nats, cell=cell, layers=layers, epochs=10,
                          extra={"optimizer.lr": rate})  # fmt: skip
        for rate in (0.024, 0.048):
            write_run(tmp_path, 1.9, cell=cell, epochs=2, extra={"optimizer.lr": rate})
    write_run(tmp_path, 1.9, epochs=2, extra={"optimizer.lr": 0.003, "cell.forget_bias": 1.0})
    for filters in ({"epochs": "10"}, {"cell": "gru"}, {"cell": "gru", "layers": "2"}):
        (table,) = tables_of(tmp_path, **filters)
        assert table.has_own_rates
        assert {entry.rate for entry in table.done() if entry.cell == "gru"} == {0.012}
    (table,) = tables_of(tmp_path, epochs="10")
    assert table.entries["50k", "gru", 1].rates_tried == [0.003, 0.006, 0.012, 0.024, 0.048]
    lstm, gru = (tables_of(tmp_path, cell=cell)[0].only_shorter for cell in ("lstm", "gru"))
    assert (lstm, gru) == ([("lstm(forget_bias=1.0)", 1)], [])


def write_adam(folder: Path, has_config: bool) -> None:
    """Writes two cells at three rates of Adam, of which an identity leaves out the default."""
    for cell in ("lstm", "gru"):
        for rate, nats in {0.003: 1.5, 0.01: 1.3, 0.03: 1.4}.items():
            extra = {"optimizer.name": "adam"} | ({"optimizer.lr": rate} if rate != 0.01 else {})
            run = write_run(folder, nats, cell=cell, extra=extra)
            if has_config and cell == "gru":  # one run's file is enough
                stored = {"cell": {"name": cell}, "optimizer": {"name": "adam", "lr": rate}}
                (run / "config.yaml").write_text(json.dumps(stored))


def test_an_optimisers_default_rate_is_one_of_those_tried(tmp_path: Path) -> None:
    write_adam(tmp_path, has_config=True)
    (own,) = tables_of(tmp_path)
    for entry in own.done():
        assert (entry.rate, entry.rates_tried) == (0.01, [0.003, 0.01, 0.03])
    report_texts(tmp_path)
    entries = pd.read_csv(tmp_path / "report" / "entries.csv")
    assert set(entries["learning_rate"]) == {0.01}


def test_a_rate_that_no_file_has_is_not_compared(tmp_path: Path) -> None:
    write_adam(tmp_path, has_config=False)
    default, own = tables_of(tmp_path)
    assert {(entry.rate, *entry.rates_tried) for entry in own.done()} == {(0.03, 0.003, 0.03)}
    assert {entry.test_nats for entry in default.done()} == {1.3}
    report_texts(tmp_path)
    assert "nan" not in (tmp_path / "report" / "table_nats.md").read_text()


@pytest.mark.parametrize(("num", "lead"), [(1, 0.0), (2, 0.5642), (3, 0.8463), (5, 1.1630)])
def test_the_lead_of_the_best_of_equals(num: int, lead: float) -> None:
    """Against the expected order statistics of the normal distribution, as tables have them."""
    assert expected_lead(num) == pytest.approx(lead, abs=1e-3)


def test_many_models_have_their_speed_beside_their_loss(tmp_path: Path) -> None:
    for number in range(MANY_MODELS):
        extra = {"cell.forget_bias": float(number)}
        write_run(tmp_path, 1.5, extra=extra, chars_per_second=1000 + number)
    write_run(tmp_path, 1.5, budget="130k", cell="gru", chars_per_second=5)
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    (line,) = [line for line in text.splitlines() if "| characters/s" in line]
    assert {"1,000", "1,009"} <= {*line.replace("|", " ").split()}
    assert "Speeds are the highest that a run of a model had on cpu." in text


def test_one_model_at_several_rates_is_no_table_of_own_rates(tmp_path: Path) -> None:
    for rate in (0.006, 0.01):
        write_run(tmp_path, extra={"optimizer.lr": rate})
    write_run(tmp_path, cell="gru", extra={"optimizer.lr": 0.01})
    assert {table.heading for table in tables_of(tmp_path)} == {
        "wp, 50 epochs, optimizer.lr=0.006",
        "wp, 50 epochs, optimizer.lr=0.01",
    }


def test_diverged_shows_only_where_nothing_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, None, cell="rnn")
    write_run(tmp_path, None, seed=1)
    write_run(tmp_path, 1.5)
    report_texts(tmp_path)
    out = capsys.readouterr().out
    assert next(line for line in out.splitlines() if line.startswith("50k")).split()[2:] == (
        ["1.500", "—", "—", "diverged", "—", "—"]
    )
    assert "Diverged runs: LSTM 1 at 50k: 1, left out of its mean; RNN 1 at 50k: 1." in out
    entries = pd.read_csv(tmp_path / "report" / "entries.csv")
    assert list(entries["status"]) == ["done", "diverged"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"epochs": 3}, "not how good they become"),
        ({"epochs": 3}, "not at the paper's settings"),
        (
            {"dataset": "lk", "corpus_note": "stand-in: Linux 4.1"},
            "Text: stand-in: Linux 4.1. The stand-in has another file order",
        ),
        ({"dataset": "lk"}, "0.889 nats (n = 20"),
    ],
    ids=str,
)
def test_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: dict[str, Any], said: str
) -> None:
    write_run(tmp_path, **run)
    report_texts(tmp_path)
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_memory_that_ran_away_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for cell, largest in {"lstm": 90.0, "lstm_peephole": 24042.7}.items():
        folder = write_run(tmp_path, 1.5, cell=cell)
        (folder / "history.json").write_text(json.dumps([EPOCH | {"largest_state": largest}]))
    report_texts(tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "carried): LSTM, peepholes 1 at 50k: 24,043. Evaluation starts from a zero" in said


def test_a_model_that_is_lost_at_the_start_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nll_RC = losses(1.2).reshape(100, 200)
    write_run(tmp_path, 1.2, nll=nll_RC.ravel())
    nll_RC[:, :60] += 1.0
    write_run(tmp_path, 1.5, cell="gru", nll=nll_RC.ravel())
    report_texts(tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    first, rest = nll_RC[:, :100].mean(), nll_RC[:, 100:].mean()
    assert f"adds to their test loss: GRU 1 at 50k: {(first - rest) / 2:.3f}." in said


# Filters.


@pytest.mark.parametrize(
    ("axes", "kept"),
    [
        ({}, 7),
        ({"dataset": "wp"}, 4),
        ({"dataset": "text"}, 2),
        ({"dataset": "text,pydocs"}, 3),
        ({"dataset": "text", "dataset__name": "mine"}, 1),
        ({"dataset": "text", "dataset__path": "some/where/your text.txt"}, 1),
        ({"dataset": "wp,text", "dataset__name": "mine"}, 5),
        ({"dataset": "wp", "dataset__path": "a/file.txt"}, 4),  # the paper's, whatever the path
        ({"dataset": "wp", "cell": "lstm,gru"}, 3),
        ({"layers": "2"}, 1),
        ({"budget": "130k"}, 1),
        ({"dataset": "wp", "budget": "44823"}, 3),  # which is 50k there
        ({"budget": "60_000"}, 1),
        ({"seed": "1"}, 1),
        ({"dropout": "0.10"}, 1),
        ({"dataset": "wp", "budget": "50k", "layers": "1", "seed": "0"}, 1),
        ({"dataset": "nothing"}, 0),
    ],
    ids=str,
)
def test_filters(tmp_path: Path, axes: dict[str, str], kept: int) -> None:
    write_run(tmp_path)
    write_run(tmp_path, cell="gru", seed=1)
    write_run(tmp_path, cell="rnn", layers=2)
    write_run(tmp_path, budget="130k", dropout=0.1)
    write_run(tmp_path, dataset="pydocs")
    write_run(tmp_path, dataset="mine", budget="60000")
    write_run(tmp_path, dataset="your-text")
    assert sum(len(table.entries) for table in tables_of(tmp_path, **axes)) == kept


def test_a_file_called_like_a_built_in_text_is_found(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, dataset="wp-file")
    (mine,) = tables_of(tmp_path, dataset="text", dataset__path="my/wp.txt")
    assert mine.dataset == "wp-file"


def test_a_filter_that_is_no_number() -> None:
    with pytest.raises(UserError, match="layers=two: not a number"):
        Filters({"layers": {"two"}})


def test_the_command(charcmp: Charcmp, small_grid: Path) -> None:
    write_run(small_grid, 1.9, dataset="my-text", layout="contiguous")
    where = f"results_dir={small_grid}"
    done = charcmp(
        "report", where, "dataset=wp", "cell=lstm,gru", "layers=1", "budget=50k", "--format", "csv"
    )
    assert done.returncode == 0, done.stderr
    narrowed = small_grid / "report" / "budget-50k_cell-gru-lstm_dataset-wp_layers-1"
    assert str(narrowed) in done.stdout
    assert not (small_grid / "report" / "entries.csv").exists()  # the place of the full report
    entries = list(csv.DictReader((narrowed / "entries.csv").open()))
    assert [(entry["cell"], entry["layers"]) for entry in entries] == [("lstm", "1"), ("gru", "1")]
    assert "1.300" not in done.stdout
    done = charcmp(
        *("report", where, "dataset=text", "dataset.path=no/such/my text.txt", "clip=1"),
        *("--format=csv,md", "--output=~/it's here"),
        HOME=str(small_grid),
    )
    assert done.stdout.splitlines()[1] == "my-text, contiguous, 50 epochs"
    assert {file.suffix for file in (small_grid / "it's here").iterdir()} == {".csv", ".md"}
    assert "clip=1 does not narrow a report" in done.stderr
    line = ("report", where, "experiment=fast", "cell=rnn", "cell.activation=relu")
    done = charcmp(*line, "--format=csv")
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stderr.splitlines()] == [
        "experiment=fast", "cell.activation=relu",
    ]  # fmt: skip
    done = charcmp("report", where, "layers=7")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no finished run matches layers=7; there are 5" in done.stderr


def test_a_long_filter_has_a_short_folder() -> None:
    seeds = {str(seed) for seed in range(200)}
    slug = Filters({"seed": seeds}).slug
    assert len(slug) < 120
    assert slug != Filters({"seed": seeds - {"199"}}).slug
    long = ["a" * 50 + end for end in ("b", "c")]
    assert len({Filters({"dataset.name": {name}}).slug for name in long}) == 2
    assert Filters().slug == ""
    names = [Filters({"dataset.name": chosen}).slug for chosen in ({"a-b"}, {"a", "b"})]
    assert names[0] != names[1]


def test_names_of_texts_are_shown_as_they_are(tmp_path: Path) -> None:
    """There are two texts whose names no run id can hold, one named in markup, two of one name."""
    names = {"Война и мир": "a", "戦争": "b", "<b>*x*|y": "c", "book": "d"}
    for name, letter in names.items():
        write_run(tmp_path, 1.5, dataset=name, corpus_sha256=letter * 64)
    write_run(tmp_path, 1.4, dataset="book", corpus_sha256="e" * 64)
    for number, run in enumerate(sorted((tmp_path / "runs").glob("*"))):
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps(result | {"run_id": f"text-{number}"}))
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    for heading in (
        "### Война и мир, 50 epochs:",
        "### 戦争, 50 epochs:",
        r"### \<b\>\*x\*\|y, 50 epochs:",
        "### book, 50 epochs, text dddddddd:",
        "### book, 50 epochs, text eeeeeeee:",
    ):
        assert heading in text
    headings = [f"{name}, 50 epochs" for name in (*names, "my text", "My-Text")]
    assert len({*figure_names(headings).values()}) == len(headings)  # no figure replaces another's
    filters = [Filters({"dataset.path": {f"in/{name}.txt"}}) for name in ("Война и мир", "戦争")]
    assert len({one.slug for one in filters}) == 2
    for one in filters:
        assert len(make_tables(load_runs(tmp_path / "runs").runs, one)) == 1


def test_classes_that_charcmp_does_not_bring(tmp_path: Path) -> None:
    """Rows and sizes come from their results; their names are made distinct where two collide."""

    def write(nats: float, cell: str, origin: str, **extra) -> None:
        told = {"cell.origin": origin, "cell.kind": "layer", "cell.states": 1, **extra}
        write_run(tmp_path, nats, cell=cell, extra=told, hidden_size=70, num_params=44_900)

    write_run(tmp_path, 1.50)
    write(1.49, "MGU", "zoo 0.2.5")
    write(1.48, "LSTM", "zoo 0.2.5")
    write(1.47, "Mine", f"sha256 {'1' * 64}")
    write(1.46, "Mine", f"sha256 {'2' * 64}", **{"cell.kwargs.bias": False})
    (table,) = tables_of(tmp_path)
    assert list(table.rows) == ["50k"]
    shown = [
        cell_label(cell) for cell, layers in table.columns if ("50k", cell, layers) in table.entries
    ]
    assert shown == [
        "LSTM",
        "LSTM (origin=zoo 0.2.5)",
        "MGU",
        "Mine (kwargs.bias=False, origin=sha256 22222222)",
        "Mine (origin=sha256 11111111)",
    ]
    assert table.entries["50k", "MGU", 1].num_params == 44_900
    assert {
        run.cell for entry in tables_of(tmp_path, cell="module")[0].done() for run in entry.runs
    } == {*("LSTM", "MGU", "Mine")}
    (narrowed,) = tables_of(tmp_path, cell="module", cell__target="package.MGU")
    assert [entry.cell for entry in narrowed.done()] == ["MGU"]


def test_a_cell_of_unknown_origin_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, 1.5, cell="elman", hidden_size=70)
    (complaint,) = load_runs(tmp_path / "runs").complaints
    assert "unknown cell 'elman'" in complaint
