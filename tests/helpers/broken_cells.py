"""Classes for cell=module: a step and a layer that work, and one for each way to go wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
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


class LeaksALittle(Layer):
    """A layer that shows the next byte through a gate which is all but closed at first."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.gate = nn.Parameter(torch.full((hidden_size,), -10.0))

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, h = super().forward(x, h)
        following = torch.cat([x[1:], torch.zeros_like(x[:1])])
        return y + torch.sigmoid(self.gate) * torch.tanh(self.x(following)), h


class LeaksRarely(Layer):
    """A layer that shows the next byte after one symbol alone."""

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        following = torch.cat([x[1:], torch.zeros_like(x[:1])])
        return super().forward(x + x[..., :1] * following, h)


class LeaksInEvaluation(Layer):
    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(x if self.training else x + x.roll(-1, 0), h)


class _OwnKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        if ctx.needs_input_grad[0]:
            raise NotImplementedError("no gradient of the inputs")
        (x,) = ctx.saved_tensors
        return None, grad.t() @ x


class OwnKernel(Step):
    """A step that computes no gradient of its inputs: as a first layer it needs none."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(_OwnKernel.apply(x, self.x.weight) + self.x.bias + self.h(h))


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


class KeepsState(Step):
    """A step with a second state inside, which it forgets when the caller's begins anew."""

    slow: Tensor | None = None

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        if self.slow is None or self.slow.shape != h.shape or not h.any():
            self.slow = torch.zeros_like(h)
        h = super().forward(x, h + self.slow)
        self.slow = (0.9 * self.slow + 0.1 * h).detach()
        return h


class DrawsByNumpy(Step):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        values = np.random.default_rng().standard_normal(hidden_size)
        self.h.bias.data = torch.from_numpy(values.astype("float32"))


class MasksByNumpy(Step):
    """A step with a random mask that no state dict has."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.mask = torch.from_numpy(np.random.default_rng().random(hidden_size, dtype="float32"))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return super().forward(x, self.mask * h)


class SeedsItself(Step):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        torch.manual_seed(42)
        super().__init__(input_size, hidden_size)


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


class NoWidth(Step):
    """A step that cannot be built, whatever the width."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        raise ValueError("not today")


class NoSmallWidth(Step):
    """A step that can be built only in widths that are larger than anyone asks for."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        raise ValueError(f"hidden_size must be at least a million, not {hidden_size}")


class Squeezes(Layer):
    """A layer that drops the dimensions of size one of whatever it returns."""

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, h = super().forward(x, h)
        return y.squeeze(), h


class SqueezesState(Step):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return super().forward(x, h).squeeze()


class OverflowsAndLooksAhead(LooksAhead):
    """A layer whose outputs are not finite once its parameters are moved by a tenth."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.log_scale = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, h = super().forward(x, h)
        return y * torch.exp(3000 * self.log_scale.abs()), h


class Experts(Step):
    """A step of eight experts, one of which acts at a time."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.choice = nn.Linear(input_size, 8)
        self.experts = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(8))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        h = super().forward(x, h)
        weight, chosen = self.choice(x).softmax(-1).max(-1)
        outputs = torch.stack([expert(h) for expert in self.experts])
        return torch.tanh(outputs[chosen, torch.arange(len(x))] * weight.unsqueeze(1))


class LearnsItsStart(Step):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.start = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        return super().forward(x, self.start.expand(len(x), -1) if h is None else h)


class Detaches(Step):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return super().forward(x, h.detach())


class LooksFarAhead(LooksAhead):
    """A layer whose convolution reads what comes sixteen steps later."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.convolution = nn.Conv1d(input_size, input_size, 3, padding=16, dilation=16)


class DropsFarState(Layer):
    """A layer whose convolution reads what came sixteen steps before, in the same call alone."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.convolution = nn.Conv1d(input_size, input_size, 2, padding=16, dilation=16)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        earlier = self.convolution(x.permute(1, 2, 0)).permute(2, 0, 1)[: len(x)]
        return super().forward(earlier, h)


class IsChaotic(Step):
    """A layer that carries all its state, but rounds otherwise in a text of another length, as
    products of other sizes may, and makes that error large within a hundred steps."""

    gain = 3

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore
        h = x.new_zeros(1, x.shape[1], self.hidden_size) if h is None else h
        steps = []
        for one in self.x(x) * (1 + torch.finfo(x.dtype).eps * (len(x) % 4 // 2)):
            h = torch.tanh(one + self.gain * self.h(h))
            steps.append(h)
        return torch.cat(steps), h


class IsVeryChaotic(IsChaotic):
    """The same within a few steps."""

    gain = 100


class ComplexState(Step):
    """A layer whose state is turned in the complex plane; its outputs are real."""

    def forward(self, x: Tensor, turned: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore
        turned = x.new_zeros(1, x.shape[1], self.hidden_size) if turned is None else turned
        steps = []
        for one in x:
            turned = 0.9j * turned + self.x(one)
            steps.append(torch.tanh(self.h(turned.real)))
        return torch.cat(steps), turned


class Pair(NamedTuple):
    h: Tensor
    slow: Tensor


class NamedStates(Step):
    """A step whose state is a named tuple."""

    def forward(self, x: Tensor, state: Pair | None = None) -> Pair:  # type: ignore
        state = Pair(*x.new_zeros(2, len(x), self.hidden_size)) if state is None else state
        h = super().forward(x, state.h + state.slow)
        return Pair(h, 0.9 * state.slow + 0.1 * h)


class Counts(Step):
    """A step that counts its steps, for each stream, in whole numbers."""

    def forward(self, x: Tensor, state: Any = None) -> Any:
        zeros = x.new_zeros(len(x), self.hidden_size), torch.zeros(len(x), dtype=torch.int64)
        h, count = zeros if state is None else state
        return Step.forward(self, x, h) * (1 + 0.1 * count.sin().unsqueeze(-1)), count + 1


class CountsOnce(Step):
    """A step that counts its steps for all streams at once."""

    def forward(self, x: Tensor, state: Any = None) -> Any:
        zeros = x.new_zeros(len(x), self.hidden_size), torch.zeros(())
        h, count = zeros if state is None else state
        return super().forward(x, h) * (1 + 0.1 * count.sin()), count + 1


class ComplexParameter(Step):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.turn = nn.Parameter(torch.full((hidden_size,), 0.5 + 0.5j))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return super().forward(x, (self.turn * h).real)


class HalfPrecision(Step):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.scale = nn.Parameter(torch.ones(hidden_size, dtype=torch.float16))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return super().forward(x, self.scale * h)


class WithoutGradient(Step):
    @torch.no_grad()
    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return super().forward(x, h)


class BreaksItsGradient(Step):
    """A step that overwrites what its gradient would need."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        h = super().forward(x, h)
        return h.mul_(0.5) if h.requires_grad else h * 0.5


class Lazy(Step):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.x = nn.LazyLinear(hidden_size)


class BuildsItselfLate(nn.Module):
    """A step that makes its parameters in its first call."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.sizes = input_size, hidden_size

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        if not hasattr(self, "step"):
            self.step = Step(*self.sizes)
        return self.step(x, h)


class ExtraState(Step):
    """A step that keeps a setting beside its tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 2}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


class NeverAlone(Step):
    """A step that fails where a text is sampled from it, and nowhere before."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        if not self.training and len(x) == 1:
            raise RuntimeError("needs company")
        return super().forward(x, h)


class Buffers(Layer):
    """A layer that has more in its state dict than parameters: an infinite mask, a number of
    another type, and a matrix that has two names."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.register_buffer("mask", torch.full((5, 5), -torch.inf).triu(1))
        self.register_buffer("version", torch.tensor(3))
        self.again = self.h


class AsManyStates(Step):
    """A step with as many states as the caller hands it; with one, if there is a choice."""

    def forward(self, x: Tensor, state: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:  # type: ignore
        h, *slow = state if isinstance(state, tuple) else (state,)
        new = super().forward(x, h + sum(slow))
        return (new, *(0.9 * one + 0.1 * h for one in slow)) if slow else new


class IndependentUnits(nn.Module):
    """A step whose recurrence is a vector, under the name of a matrix."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.randn(hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.rand(hidden_size))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight_ih.t() + self.weight_hh * h)
