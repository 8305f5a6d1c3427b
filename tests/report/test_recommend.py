"""Which model the report says to use, how sure that is, and what it says of speed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import tables_of, write_grid, write_run

from charcmp.report.analysis.comparisons import analyse
from charcmp.report.analysis.recommend import Recommendation, recommendations

EPYC = {"device_name": "AMD EPYC", "threads": 1, "lanes": 1}


def advice_of(results_dir: Path) -> Recommendation:
    (table,) = tables_of(results_dir)
    (advice,) = recommendations([analyse(table, 10)])
    return advice


def put_on(machine: dict[str, Any], folders: Sequence[Path]) -> None:
    for folder in folders:
        (folder / "environment.json").write_text(json.dumps(machine))


# How sure the choice is.


def test_the_line_counts_seeds_that_diverged(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.4004}, seeds=2, sd=0.004)
    for cell in ("lstm", "gru"):
        write_run(tmp_path, None, cell=cell, seed=2)
    advice = advice_of(tmp_path)
    assert advice.line() == (
        "50k: LSTM, 1 layer, 1.400 (1 of 3 seeds diverged); no significant difference to GRU 1 "
        "(1 of 3 seeds diverged)"
    )
    assert "leave out the seeds that diverged, which flatters a model" in advice.text()


@pytest.mark.parametrize(
    ("second", "certainty"),
    [
        (1.4004, "no significant difference to RNN 2; 1 of 3 others compared, the rest have one "
         "seed"),
        (1.47, "significantly better than 1 of the other 3; the rest have one seed"),
    ],
)  # fmt: skip
def test_it_says_what_was_not_compared(tmp_path: Path, second: float, certainty: str) -> None:
    write_grid(tmp_path, {("rnn", 3): 1.40, ("rnn", 2): second}, sd=0.004)
    write_grid(tmp_path, {("lstm", 1): 1.43, ("gru", 1): 1.44}, seeds=1)
    advice = advice_of(tmp_path)
    assert advice.line() == f"50k: RNN, 3 layers, 1.400; {certainty}"
    assert (
        "Of the other 3 models, 1 could be compared with it over seeds; the rest have one seed."
        in advice.text()
    )


def test_the_only_model_of_a_block(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40})
    assert advice_of(tmp_path).line().endswith("; the only model at this budget in this block")
    write_run(tmp_path, None, cell="gru")
    advice = advice_of(tmp_path)
    assert advice.line().endswith("; the only model at this budget that did not diverge")
    assert "Every other model at this budget in this block diverged." in advice.text()


# Speed.


@pytest.mark.parametrize(
    ("machine", "is_offered"),
    [
        (EPYC, True),
        (EPYC | {"device_name": "Xeon"}, False),
        (EPYC | {"threads": 2}, False),
        (EPYC | {"lanes": 4}, False),
        (EPYC | {"threads": None}, False),
    ],
)
def test_speeds_compare_only_on_equal_machines(
    tmp_path: Path, machine: dict[str, Any], is_offered: bool
) -> None:
    slow = write_grid(tmp_path, {("lstm", 1): 1.40}, sd=0.004, chars_per_second=50_000)
    fast = write_grid(tmp_path, {("gru", 1): 1.4004}, sd=0.004, chars_per_second=90_000)
    put_on(EPYC, slow)
    put_on(machine, fast)
    text = advice_of(tmp_path).text()
    assert "Not significantly worse: GRU 1." in text
    said = (
        "Of these GRU 1 trains quicker: at best 90,000 characters a second against 50,000 (AMD "
        "EPYC, 1 thread)."
    )
    assert (said in text) == is_offered
    assert ("quicker" in text) == is_offered


def test_the_best_speed_of_a_model_counts_at_whichever_rate_it_was_seen(tmp_path: Path) -> None:
    """Runs beside other work are slower, which nothing records: those of the chosen rate may be."""
    for (cell, rate), (nats, speed) in {
        ("lstm", 0.002): (1.40, 50_000),
        ("lstm", 0.004): (1.50, 200_000),
        ("gru", 0.002): (1.4004, 90_000),
        ("gru", 0.004): (1.50, 90_000),
    }.items():
        extra = {} if rate == 0.002 else {"optimizer.lr": rate}
        folders = write_grid(
            tmp_path, {(cell, 1): nats}, sd=0.004, chars_per_second=speed, extra=extra
        )
        put_on(EPYC, folders)
    advice = {
        table.heading: recommendations([analyse(table, 10)])[0] for table in tables_of(tmp_path)
    }
    at_one_rate = advice["wp, 50 epochs"]
    at_own_rates = advice["wp, 50 epochs, each at its own learning rate"]
    assert (at_one_rate.chosen.cell, at_own_rates.chosen.cell) == ("lstm", "lstm")
    assert at_one_rate.quicker is not None
    assert at_own_rates.quicker is None


@pytest.mark.parametrize(
    ("nats", "sd", "is_offered"),
    [
        (1.4004, 0.004, True),
        (1.412, 0.004, False),  # its plain interval leaves out 0
        (1.44, 0.03, False),  # its interval is wide: it may be far behind
    ],
)
def test_only_a_model_that_is_as_good_is_offered_for_its_speed(
    tmp_path: Path, nats: float, sd: float, is_offered: bool
) -> None:
    put_on(EPYC, write_grid(tmp_path, {("lstm", 1): 1.40}, sd=0.004, chars_per_second=50_000))
    put_on(EPYC, write_grid(tmp_path, {("gru", 1): nats}, sd=sd, chars_per_second=90_000))
    advice = advice_of(tmp_path)
    assert [entry.cell for entry in advice.tied] == ["gru"]
    assert (advice.quicker is not None) == is_offered


def test_a_time_that_mixes_machines_says_which(tmp_path: Path) -> None:
    first, *others = write_grid(tmp_path, {("lstm", 1): 1.40}, seconds_train=60.0)
    put_on(EPYC, others)
    put_on(EPYC | {"device_name": "Xeon", "threads": 2}, [first])
    assert (
        ", the mean over different machines (AMD EPYC, 1 thread; Xeon, 2 threads)."
        in advice_of(tmp_path).text()
    )


def test_a_model_that_is_better_on_test_is_not_said_to_be_level(tmp_path: Path) -> None:
    """Validation chose the other one; the line says what the test text says."""
    for folder in write_grid(tmp_path, {("lstm", 1): 1.45, ("gru", 1): 1.40}):
        result = json.loads((folder / "result.json").read_text())
        result["val_nats_per_char"] = {"lstm": 1.40, "gru": 1.41}[result["cell"]]
        (folder / "result.json").write_text(json.dumps(result))
    line = advice_of(tmp_path).line()
    assert line.endswith("; chosen by validation, but significantly worse on test than GRU 1")
