"""The leaderboard: what it says of each model when the race is over."""

import math

import numpy as np
import pytest

from charcmp.sweeping.race.arms import Arm, Model
from charcmp.sweeping.race.board import Board
from charcmp.sweeping.race.decide import Outcome
from charcmp.sweeping.race.race import PlannedRun

GRU, LSTM, RNN = (Model("50k", cell, 1) for cell in ("gru", "lstm", "rnn"))


def test_states_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board([GRU, LSTM, RNN], updates_per_epoch=100, until=0.0)
    for model, nats in ((GRU, 1.4), (LSTM, 1.41), (RNN, 1.6)):
        board.ran(PlannedRun(Arm(model, 0.012), 50, 0), Outcome(nats))
    board.out([RNN], 50)
    assert capsys.readouterr().out.endswith("eliminated after 0.5 epochs: RNN 1\n")
    board.ran(PlannedRun(Arm(GRU, 0.012), 200, 0), Outcome(1.38))
    board.ran(PlannedRun(Arm(LSTM, 0.012), 200, 0), Outcome(1.39))
    assert [row["state"] for row in board.rows()] == ["racing", "racing", "out"]
    board.ended({GRU: "chosen", LSTM: "tied"}, 200)
    assert [row["state"] for row in board.rows()] == ["chosen", "tied", "out"]
    assert [row["epochs"] for row in board.rows()] == ["2", "2", "0.5"]


def test_the_table_stays_when_a_line_is_printed_above_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also right after the run that it is about."""
    board = Board([GRU, LSTM], updates_per_epoch=100, until=0.0)
    board.is_table = True
    for model in (GRU, LSTM):
        board.ran(PlannedRun(Arm(model, 0.012), 50, 0), Outcome(1.4))
    board.out([LSTM], 50)
    last = capsys.readouterr().out.partition("eliminated after")[2]
    assert board.table() in last


def test_a_model_that_the_end_cut_off_before_its_first_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    board = Board([GRU, LSTM, RNN], updates_per_epoch=100, until=0.0)
    board.ran(PlannedRun(Arm(GRU, 0.012), 50, 0), Outcome(1.4))
    assert [row["state"] for row in board.rows()] == ["racing", "waiting", "waiting"]
    board.ended({GRU: "chosen", LSTM: "cut off"}, 50)
    assert [row["model"] for row in board.rows()] == ["GRU 1", "LSTM 1", "RNN 1"]
    assert [row["epochs"] for row in board.rows()] == ["0.5", "", ""]
    assert [row["state"] for row in board.rows()] == ["chosen", "cut off", "not run"]


def test_finalists_are_shown_at_the_length_at_which_they_are_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Even if they were trained longer, and did worse; and a model that was out is below them."""
    board = Board([GRU, LSTM, RNN], updates_per_epoch=100, until=0.0)
    for model, nats in ((GRU, 1.4), (LSTM, 1.41), (RNN, 1.3)):
        board.ran(PlannedRun(Arm(model, 0.012), 50, 0), Outcome(nats))
    board.out([RNN], 50)
    board.ran(PlannedRun(Arm(GRU, 0.012), 200, 0), Outcome(1.5))
    board.longer_was_worse(200, 50)
    assert "longer training did worse: 2 epochs; further seeds have 0.5 epochs" in (
        capsys.readouterr().out
    )
    board.ended({GRU: "chosen", LSTM: "tied"}, 50)
    rows = board.rows()
    assert [row["model"] for row in rows] == ["GRU 1", "LSTM 1", "RNN 1"]
    assert [row["epochs"] for row in rows] == ["0.5", "0.5", "0.5"]
    assert [row["validation"] for row in rows] == ["1.4000", "1.4100", "1.3000"]


def test_the_table_fits_a_terminal_and_is_cleared_whole_where_it_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [Model("50k", cell, layers) for cell in ("gru", "lstm", "rnn") for layers in (1, 2, 3)]
    board = Board(models, updates_per_epoch=100, until=0.0)
    series = np.random.default_rng(0).normal(1.4, 0.1, (1, 100))
    for number, model in enumerate(models):
        board.ran(PlannedRun(Arm(model, 0.0015), 1050, 0), Outcome(1.4 + number, series + number))
    board.ended(dict.fromkeys(models, "unstable"), 1050)
    lines = board.table().splitlines()
    assert max(map(len, lines)) <= 80
    board.is_table, board.shown_at = True, -1e9
    monkeypatch.setenv("COLUMNS", "40")
    board.show()
    wrapped = sum(1 + (len(line) - 1) // 40 for line in [*lines, "0 s left"])
    capsys.readouterr()
    board.note("said above it")
    assert capsys.readouterr().out.startswith(f"\x1b[{wrapped}F\x1b[Jsaid")


def test_a_point_of_the_picture_is_the_mean_over_seeds_of_the_best_rate() -> None:
    """The lucky seed of a finalist is no better than the mean that the race decides by."""
    board = Board([GRU, LSTM], updates_per_epoch=100, until=0.0)
    for model, rate, updates, losses in (
        (GRU, 0.012, 50, [1.45]),
        (GRU, 0.024, 50, [1.43]),
        (GRU, 0.012, 200, [1.40, 1.30, 1.42]),
        (GRU, 0.006, 200, [1.41]),  # worse than the first seed of the other rate
        (LSTM, 0.012, 50, [1.5]),
        (LSTM, 0.012, 200, [1.39, math.inf]),
    ):
        for seed, nats in enumerate(losses):
            board.ran(PlannedRun(Arm(model, rate), updates, seed), Outcome(nats))
    assert board.losses_by_epochs(GRU) == pytest.approx({0.5: 1.43, 2.0: (1.40 + 1.30 + 1.42) / 3})
    assert board.losses_by_epochs(LSTM) == {0.5: 1.5}  # a seed diverged: no mean
    gru, lstm = board.rows()
    assert (gru["rate"], gru["seeds"], gru["validation"]) == ("0.012", 3, "1.3733")
    assert lstm["validation"] == "diverged"
