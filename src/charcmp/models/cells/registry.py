"""The recurrent cells, one row each, and `cell=module`. Imports no cell: the solver needs no torch.

To add a cell, write its file and its row here; `cell=NAME`, its options, sizes and label follow.

Every cell here has G gate sums, each with an input matrix (H x I), a recurrent matrix (H x H) and
two bias vectors (H), as torch.nn counts them (the paper's code has both vectors too). Some have
peephole vectors (H) as well.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from charcmp.errors import UserError, require
from charcmp.models.cells.options import (
    CascadedGateConfig,
    CellConfig,
    LSTMConfig,
    ModuleConfig,
    PlainConfig,
)
from charcmp.values import Rule, did_you_mean, rules_of


@dataclass(frozen=True)
class CellInfo:
    """What the solver, the tables and the checks need to know about a cell."""

    module: str
    class_name: str
    label: str
    num_gates: int
    num_peepholes: int = 0
    options: type[CellConfig] = PlainConfig
    activations: tuple[str, ...] = ("tanh", "softsign")
    note: str | None = None  # shown wherever its results are shown

    def num_params(self, input_size: int, hidden_size: int) -> int:
        """Returns the parameters of one layer: G·H·(I + H + 2), and H for each peephole vector."""
        gate = hidden_size * (input_size + hidden_size + 2)
        return self.num_gates * gate + self.num_peepholes * hidden_size


MODULE = "module"  # cell=module: any class that can be imported
OUR_READING = "{}: our reading of what S. Asakawa announced in 2016 without equations."
CELLS = {
    "rnn": CellInfo(
        "charcmp.models.cells.rnn",
        "RNN",
        "RNN",
        num_gates=1,
        activations=("tanh", "softsign", "relu"),
    ),
    "lstm": CellInfo("charcmp.models.cells.lstm", "LSTM", "LSTM", num_gates=4, options=LSTMConfig),
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
        options=LSTMConfig,
    ),
    "lstm_softmax_gate": CellInfo(
        "charcmp.models.cells.lstm_softmax_gate",
        "LSTMSoftmaxGate",
        "LSTM, softmax gates",
        num_gates=4,
        num_peepholes=3,
        options=LSTMConfig,
        note=OUR_READING.format("LSTM, softmax gates"),
    ),
    "lstm_cascaded_gate": CellInfo(
        "charcmp.models.cells.lstm_cascaded_gate",
        "LSTMCascadedGate",
        "LSTM, cascaded gates",
        num_gates=4,
        num_peepholes=3,
        options=CascadedGateConfig,
        note=OUR_READING.format("LSTM, cascaded gates"),
    ),
}


def cell_info(name: str) -> CellInfo:
    """Returns the row of the cell called `name`; UserError if there is none."""
    try:
        return CELLS[name]
    except KeyError:
        meant = did_you_mean(name, list(CELLS))
        raise UserError(f"unknown cell '{name}': one of {', '.join(CELLS)}{meant}") from None


def cell_label(name: str) -> str:
    """Returns what a cell is called in tables and advice: `GRU`; a class goes by its name."""
    return CELLS[name].label if name in CELLS else name


def cell_options() -> dict[str, type[CellConfig]]:
    """Returns the cells that `cell=` can choose, and the options class of each."""
    return {name: info.options for name, info in CELLS.items()} | {MODULE: ModuleConfig}


def _options_of(name: str) -> type[CellConfig]:
    return ModuleConfig if name == MODULE else cell_info(name).options


def cell_config(name: str, **options: Any) -> CellConfig:
    """Returns the configuration of the cell `name` with some of its options set.

    Raises:
        UserError: if there is no such cell, or an option cannot have this value.
        TypeError: if the cell has no such option.
    """
    config = _options_of(name)(name=name, **options)
    check_cell(config)
    return config


def check_cell(cell: CellConfig) -> None:
    """Raises UserError if there is no such cell, or one of its options cannot have its value."""
    require(
        type(cell) is _options_of(cell.name),
        f"cell.name={cell.name}: choose the cell with cell={cell.name} instead",
    )
    for key, rule in cell_rules(cell.name).items():
        if problem := rule.problem(f"cell.{key}", getattr(cell, key)):
            raise UserError(problem)


def cell_rules(name: str) -> dict[str, Rule]:
    """Returns the rules for a cell's options, by option."""
    if name == MODULE:
        return rules_of(ModuleConfig)
    info = cell_info(name)
    has = f"{name} has {', '.join(info.activations)}"
    activation = Rule(info.activations.__contains__, has, info.activations)
    return rules_of(info.options) | {"activation": activation}


def layer_params(cell: CellConfig, input_size: int, hidden_size: int) -> int:
    """Returns the parameters of one layer: by formula, or counted for `cell=module`."""
    if isinstance(cell, ModuleConfig):
        count: int = _module_cells().layer_params(cell, input_size, hidden_size)
        return count
    return cell_info(cell.name).num_params(input_size, hidden_size)


def cell_title(cell: CellConfig) -> str:
    """Returns the cell's name; for `cell=module` the class's, without importing it."""
    if isinstance(cell, ModuleConfig):
        return cell.target.replace(":", ".").rpartition(".")[2]
    return cell.name


def cell_identity(cell: CellConfig, input_size: int, hidden_size: int) -> dict[str, Any]:
    """Returns what identifies a cell, `cell.name` and its options: part of a run's identity.

    For `cell=module` the name is the class's; the sizes, of the first layer, serve for a trial.
    """
    if isinstance(cell, ModuleConfig):
        identity: dict[str, Any] = _module_cells().identity(cell, input_size, hidden_size)
        return identity
    return {f"cell.{key}": value for key, value in asdict(cell).items()}


def make_layer(cell: CellConfig, input_size: int, hidden_size: int) -> Any:
    """Builds one layer of a cell, a charcmp.models.cells.base.Layer.

    Raises:
        UserError: if there is no such cell, or one of its options cannot have its value.
    """
    check_cell(cell)
    if isinstance(cell, ModuleConfig):
        return _module_cells().ModuleCell(cell, input_size, hidden_size)
    info = cell_info(cell.name)
    make: Callable[..., Any] = getattr(importlib.import_module(info.module), info.class_name)
    options = asdict(cell)
    del options["name"]
    return make(input_size, hidden_size, **options)


def _module_cells() -> Any:
    return importlib.import_module("charcmp.models.cells.module")
