"""The options of the cells: a class each, with defaults and rules. It needs no torch.

A run's identity leaves out options at their default, so a default here may change only together
with the protocol's version.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from charcmp.values import FINITE, MISSING, Rule, one_of, option, or_null, whole_up_to

MAX_KWARGS, MAX_KWARG, MAX_TEXT = 40, 80, 1000  # within what runs/result.py accepts


@dataclass
class CellConfig:
    name: str = MISSING


@dataclass
class PlainConfig(CellConfig):
    """`charcmp train cell=rnn cell.activation=relu`; registry.py lists a cell's activations."""

    activation: str = option(
        "tanh",
        "nonlinearity of the candidate, and of an LSTM's output; "
        "only rnn has relu; gru_reset_after has only tanh",
    )


@dataclass
class LSTMConfig(PlainConfig):
    """`charcmp train cell=lstm cell.forget_bias=1`"""

    forget_bias: float | None = option(
        None,
        "initial bias of the forget gate; null: drawn like the others, as in the paper",
        or_null(FINITE),
    )


@dataclass
class CascadedGateConfig(LSTMConfig):
    """`charcmp train cell=lstm_cascaded_gate cell.open_bias=3`

    Cascaded gates start at about 1/8, plain ones at 1/2; `open_bias` starts them open.
    """

    open_bias: float | None = option(
        None, "initial biases of the gates i, f and o; 3 starts them open", or_null(FINITE)
    )


def _is_plain(value: Any) -> bool:
    """Returns whether a run's record can hold the value and be read back."""
    match value:
        case float():
            return math.isfinite(value)
        case str():
            return value.isprintable() and len(value) <= MAX_TEXT
        case list():
            return not any(isinstance(part, list) for part in value) and all(map(_is_plain, value))
        case _:
            return value is None or isinstance(value, bool | int)


PLAIN_VALUES = Rule(
    lambda kwargs: (
        len(kwargs) <= MAX_KWARGS
        and all(len(name) <= MAX_KWARG for name in kwargs)
        and all(map(_is_plain, kwargs.values()))
    ),
    "finite numbers, short printable texts, true or false, or lists of them",
)
TARGET = Rule(
    # The class stands after a dotted name or a file's name; MISSING has neither.
    lambda target: (
        target.rpartition(":" if ".py:" in target else ".")[0]
        and not target.endswith(".py")
        and target != MISSING
    ),
    "a class to import: package.Class, or a class in a file: my_cell.py:MyCell",
)


MAX_STATES = 3


@dataclass
class ModuleConfig(CellConfig):
    """`charcmp train cell=module cell.target=torchrecurrent.MGU` (docs/your_own_cell.md)."""

    target: str = option(MISSING, "the class: package.Class, or my_cell.py:MyCell", TARGET)
    kind: str | None = option(
        None,
        "called as torch.nn.RNN (layer) or RNNCell (step); null: found by trial",
        or_null(one_of(("layer", "step"))),
    )
    states: int | None = option(
        None,
        "number of state tensors, if the class creates none itself; null: found by trial",
        or_null(whole_up_to(MAX_STATES)),
    )
    init: str = option(
        "own", "initial values, the class's own or charcmp's", one_of(("own", "charcmp"))
    )
    kwargs: dict[str, Any] = option({}, "further arguments of the class: {key:value}", PLAIN_VALUES)
