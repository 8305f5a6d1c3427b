"""The recurrent cells. This module knows their sizes only, so that matching needs no torch.

Every cell here has G gate sums, each with an input matrix (H x I), a recurrent matrix (H x H) and
two bias vectors (H), as torch.nn counts them (the paper's code has both vectors too). Some have
peephole vectors (H) besides.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from charcmp.errors import UserError


@dataclass(frozen=True)
class CellInfo:
    """What the solver, the tables and the checks need to know of a cell."""

    module: str
    class_name: str
    label: str
    num_gates: int
    num_peepholes: int = 0
    activations: tuple[str, ...] = ("tanh", "softsign")
    remark: str | None = None  # to be said wherever its results are shown

    def num_params(self, input_size: int, hidden_size: int) -> int:
        """Parameters of one layer: G·H·(I + H + 2), and H for each peephole vector."""
        gate = hidden_size * (input_size + hidden_size + 2)
        return self.num_gates * gate + self.num_peepholes * hidden_size


OUR_READING = "{}: our reading of what S. Asakawa announced in 2016 without equations."
CELLS = {
    "rnn": CellInfo(
        "charcmp.models.cells.rnn",
        "RNN",
        "RNN",
        num_gates=1,
        activations=("tanh", "softsign", "relu"),
    ),
    "lstm": CellInfo("charcmp.models.cells.lstm", "LSTM", "LSTM", num_gates=4),
    "gru": CellInfo("charcmp.models.cells.gru", "GRU", "GRU", num_gates=3),
    "gru_reset_after": CellInfo(
        "charcmp.models.cells.gru_reset_after",
        "GRUResetAfter",
        "GRU, reset after",
        num_gates=3,
        activations=("tanh",),
    ),
    "lstm_peephole": CellInfo(
        "charcmp.models.cells.lstm_peephole",
        "LSTMPeephole",
        "LSTM, peepholes",
        num_gates=4,
        num_peepholes=3,
    ),
    "lstm_softmax_gate": CellInfo(
        "charcmp.models.cells.lstm_softmax_gate",
        "LSTMSoftmaxGate",
        "LSTM, softmax gates",
        num_gates=4,
        num_peepholes=3,
        remark=OUR_READING.format("LSTM, softmax gates"),
    ),
    "lstm_cascaded_gate": CellInfo(
        "charcmp.models.cells.lstm_cascaded_gate",
        "LSTMCascadedGate",
        "LSTM, cascaded gates",
        num_gates=4,
        num_peepholes=3,
        remark=OUR_READING.format("LSTM, cascaded gates"),
    ),
}


def cell_info(name: str) -> CellInfo:
    """Sizes of the cell called `name`; UserError if there is none."""
    try:
        return CELLS[name]
    except KeyError:
        raise UserError(f"unknown cell '{name}': one of {', '.join(CELLS)}") from None


def check_activation(cell: str, activation: str) -> None:
    """UserError where the cell has no such activation."""
    if activation not in (known := cell_info(cell).activations):
        raise UserError(f"cell.activation={activation}: {cell} has {', '.join(known)}")


def cell_class(name: str) -> Callable[..., Any]:
    """The subclass of base.Cell that implements the cell: (input_size, hidden_size, **options)."""
    info = cell_info(name)
    cls: Callable[..., Any] = getattr(importlib.import_module(info.module), info.class_name)
    return cls
