"""The options that cells have, each class with its defaults and rules. No torch.

A run's identity leaves out what stands at its default here, so a default may move only together
with the protocol's version.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from charcmp.values import FINITE, MISSING, Rule, one_of, option, or_null, whole_up_to


@dataclass
class CellConfig:
    name: str = MISSING


@dataclass
class PlainConfig(CellConfig):
    """`charcmp train cell=rnn cell.activation=relu`; which ones a cell has, its row says."""

    activation: str = option("tanh", "nonlinearity of the candidate, and of an LSTM's output")


@dataclass
class LSTMConfig(PlainConfig):
    """`charcmp train cell=lstm cell.forget_bias=1`"""

    forget_bias: float | None = option(
        None,
        "forget gate's bias at the start; null: drawn as the others, as in the paper",
        or_null(FINITE),
    )


@dataclass
class CascadedGateConfig(LSTMConfig):
    """`charcmp train cell=lstm_cascaded_gate cell.open_bias=3`

    The gates of a cascade start at 1/8, not 1/2; open_bias starts them open.
    """

    open_bias: float | None = option(
        None, "biases of the gates i, f and o at the start; 3 starts them open", or_null(FINITE)
    )


def _is_plain(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(
        one is None or isinstance(one, bool | int | str) or _is_finite(one) for one in values
    )


def _is_finite(value: Any) -> bool:
    """Not an infinity: a run's id is made of JSON, which has none."""
    return isinstance(value, float) and math.isfinite(value)


PLAIN_VALUES = Rule(
    lambda kwargs: all(map(_is_plain, kwargs.values())),
    "finite numbers, texts, true or false, or lists of them",
)
TARGET = Rule(
    # A dotted name or a file's name before its class; MISSING is neither.
    lambda target: target.rpartition(":" if ".py:" in target else ".")[0] and target != MISSING,
    "a class to import, as package.Class, or of a file, as my_cell.py:MyCell",
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
        "tensors of its state, for a class that makes none itself; null: by trial",
        or_null(whole_up_to(MAX_STATES)),
    )
    init: str = option("own", "whose initial values it has", one_of(("own", "charcmp")))
    kwargs: dict[str, Any] = option({}, "further arguments of the class: {key:value}", PLAIN_VALUES)
