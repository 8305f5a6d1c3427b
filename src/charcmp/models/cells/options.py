"""The options that cells have, each class with its defaults and rules. No torch.

A run's identity leaves out what stands at its default here, so a default may move only together
with the protocol's version.
"""

from __future__ import annotations

from dataclasses import dataclass

from charcmp.values import FINITE, option, or_null

MISSING = "???"  # omegaconf.MISSING, without its import


@dataclass
class CellConfig:
    name: str = MISSING


@dataclass
class PlainConfig(CellConfig):
    """`charcmp train cell=rnn cell.activation=relu`; which ones a cell has, its row says."""

    activation: str = "tanh"  # of the candidate, and of an LSTM's output


@dataclass
class LSTMConfig(PlainConfig):
    """`charcmp train cell=lstm cell.forget_bias=1`"""

    # Initial value of the forget gate's bias; the paper: none.
    forget_bias: float | None = option(None, or_null(FINITE))


@dataclass
class CascadedGateConfig(LSTMConfig):
    """`charcmp train cell=lstm_cascaded_gate cell.open_bias=3`

    The gates of a cascade start at 1/8, not 1/2; open_bias starts them open.
    """

    open_bias: float | None = option(None, or_null(FINITE))  # both biases of i, f and o
