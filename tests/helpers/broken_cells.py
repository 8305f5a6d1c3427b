"""Classes for cell=module: a step and a layer that work, and one for each way to go wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Step(nn.Module):
    """A step: state = cell(x, state)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.x, self.h = nn.Linear(input_size, hidden_size), nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.x(x) + self.h(h))


class Layer(Step):
    """A layer: y, state = layer(x, state)."""

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore
        h = x.new_zeros(1, x.shape[1], self.hidden_size) if h is None else h
        steps = []
        for one in x:
            h = super().forward(one, h)
            steps.append(h)
        return torch.cat(steps), h


class TwoStates(Step):
    """A step whose state is two tensors, which the caller must supply."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore
        h, slow = state
        return super().forward(x, h + slow), 0.9 * slow + 0.1 * h


class LooksAhead(Layer):
    """A layer with a convolution over the steps that is not causal, as a published one has."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.convolution = nn.Conv1d(input_size, input_size, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(self.convolution(x.permute(1, 2, 0)).permute(2, 0, 1), h)


class DropsState(Layer):
    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, last = super().forward(x, None)
        return y, last


class ReturnsNoState(Layer):
    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:  # type: ignore
        return super().forward(x, h)[0]


class ReturnsNone(Layer):
    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, None]:  # type: ignore
        return super().forward(x, h)[0], None


class MixesStreams(Layer):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.norm = nn.BatchNorm1d(hidden_size, track_running_stats=False)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, h = super().forward(x, h)
        return torch.stack([self.norm(one) for one in y]), h


class Draws(Layer):
    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(nn.functional.dropout(x, 0.5), h)


class Remembers(Step):
    """A step that keeps its state inside, behind the caller's back."""

    kept: Tensor | float = 0.0

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        h = super().forward(x, h + self.kept)
        self.kept = h.detach().mean()
        return h


class DividesByZero(Step):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return super().forward(x, h / h.norm(dim=-1, keepdim=True))


class Grows(TwoStates):
    """A step whose second state overflows after some sixty steps; its outputs stay finite."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, large = state
        return Step.forward(self, x, h + torch.tanh(large)), 4 * large + 1


class CarriesInfinity(TwoStates):
    """A step with an infinite state, as if it kept a logarithm that is of zero at first."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, logarithm = state
        return Step.forward(self, x, h), torch.zeros_like(logarithm).log()


class Größe(Step):
    """A step whose name no run's folder can have."""


class NoGradient(Step):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.unused = nn.Parameter(torch.zeros(100))


class HasHeads(Step):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        if hidden_size % 4:
            raise ValueError("hidden_size must be a multiple of 4\nby design")
        super().__init__(input_size, hidden_size)


class lstm(Step):
    """A step whose name is taken."""


class NotAModule:
    def __init__(self, input_size: int, hidden_size: int) -> None:
        pass
