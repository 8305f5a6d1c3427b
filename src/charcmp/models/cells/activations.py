"""The activations that a cell's candidate (and an LSTM's output) can have.

    tanh                                    y' = 1 − y²
    softsign   y = s / (1 + |s|)            y' = (1 − |y|)²
    relu       y = max(s, 0)                y' = 1 where y > 0, else 0

Each slope is a function of the value y, so the backward pass needs no pre-activation. Softsign
needs no exponential and approaches ±1 as 1 − 1/|s| does, tanh as 1 − 2·exp(−2|s|) does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """One activation, in the three forms that cells use."""

    function: Callable[[Tensor], Tensor]  # differentiable, for the references
    into: Callable[[Tensor, Tensor], object]  # (s, out): writes y to out, which may be s itself
    slope: Callable[[Tensor], Tensor]  # dy/ds from y


MINUS_ONE = torch.tensor(-1.0)


def _tanh_into(s: Tensor, out: Tensor) -> None:
    # tanh s = 2σ(2s) − 1. On a CPU torch's sigmoid is so much faster than its tanh that this takes
    # a third of the time. It is within 2e-7 of tanh in float32 (LOG.md).
    torch.add(MINUS_ONE, (s + s).sigmoid_(), alpha=2, out=out)


ACTIVATIONS = {
    "tanh": Activation(
        function=torch.tanh,
        into=_tanh_into,
        slope=lambda y: torch.addcmul(y.new_ones(()), y, y, value=-1),
    ),
    "softsign": Activation(
        function=F.softsign,
        into=lambda s, out: torch.div(s, s.abs().add_(1), out=out),
        slope=lambda y: torch.sub(1, y.abs()).square_(),
    ),
    "relu": Activation(
        function=torch.relu,
        into=lambda s, out: torch.clamp(s, min=0, out=out),
        slope=lambda y: (y > 0).to(y.dtype),
    ),
}
