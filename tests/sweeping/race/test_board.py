"""The leaderboard: what it says of each model when the race is over."""

import numpy as np
import pytest

from charcmp.sweeping.race.arms import Arm, Model
from charcmp.sweeping.race.board import Board
from charcmp.sweeping.race.decide import Outcome
from charcmp.sweeping.race.race import Entry

GRU, LSTM, RNN = (Model("50k", cell, 1) for cell in ("gru", "lstm", "rnn"))


def test_states_at_the_end() -> None:
    board = Board([GRU, LSTM, RNN], updates_per_epoch=100, until=0.0)
    for model, nats in ((GRU, 1.4), (LSTM, 1.41), (RNN, 1.6)):
        board.ran(Entry(Arm(model, 0.012), 50, 0), Outcome(nats))
    board.out([RNN])
    board.ran(Entry(Arm(GRU, 0.012), 200, 0), Outcome(1.38))
    board.ran(Entry(Arm(LSTM, 0.012), 200, 0), Outcome(1.39))
    assert [row["state"] for row in board.rows()] == ["racing", "racing", "out"]
    board.ended({GRU: "chosen", LSTM: "tied"})
    assert [row["state"] for row in board.rows()] == ["chosen", "tied", "out"]
    assert [row["epochs"] for row in board.rows()] == ["2", "2", "0.5"]


def test_the_table_fits_a_terminal_and_is_cleared_whole_where_it_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [Model("50k", cell, layers) for cell in ("gru", "lstm", "rnn") for layers in (1, 2, 3)]
    board = Board(models, updates_per_epoch=100, until=0.0)
    series = np.random.default_rng(0).normal(1.4, 0.1, (1, 100))
    for number, model in enumerate(models):
        board.ran(Entry(Arm(model, 0.0015), 1050, 0), Outcome(1.4 + number, series + number))
    board.ended(dict.fromkeys(models, "unstable"))
    lines = board.table().splitlines()
    assert max(map(len, lines)) <= 80
    board.is_table, board.shown_at = True, -1e9
    monkeypatch.setenv("COLUMNS", "40")
    board.show()
    wrapped = sum(1 + (len(line) - 1) // 40 for line in [*lines, "0 s left"])
    capsys.readouterr()
    board.note("said above it")
    assert capsys.readouterr().out.startswith(f"\x1b[{wrapped}F\x1b[Jsaid")
