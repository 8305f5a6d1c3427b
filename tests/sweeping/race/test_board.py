"""The leaderboard: what it says of each model when the race is over."""

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
    board.ended(GRU, [LSTM])
    assert [row["state"] for row in board.rows()] == ["taken", "tied", "out"]
    assert [row["epochs"] for row in board.rows()] == ["2", "2", "0.5"]
