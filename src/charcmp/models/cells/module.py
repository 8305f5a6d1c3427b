"""Any torch module as a cell: a layer like torch.nn.RNN, or a step like torch.nn.RNNCell.

    layer   Layer(input_size, hidden_size)   y, state = layer(x, state)   x (T, B, I), y (T, B, H)
    step    Cell(input_size, hidden_size)    state = cell(x, state)       x (B, I), h (B, H)

A state is a tensor, or nested tuples of tensors, of any shapes; the first tensor of a step's state
is h. A trial finds out which of the two a class is and what its state looks like. The rest of
charcmp carries a state (S, B, H), so the tensors are packed into as many vectors of width H as they
fill.

Shape suffixes: see base.py.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from charcmp.errors import UserError, WidthError, one_line
from charcmp.models.cells.base import Layer
from charcmp.models.cells.options import MAX_STATES, ModuleConfig
from charcmp.models.cells.target import load_target
from charcmp.models.initialization import seeded

# Sizes of a trial. No two are equal, so a shape shows which dimension is which. There are more
# streams than states, so a class that unpacks its states cannot mistake streams for them.
TRIAL_STEPS, TRIAL_BATCHES = 5, (7, 4)
NO_SHAPE = (
    "its parameter {} has no shape before the first call (torch.nn.LazyLinear?), so its parameters "
    "cannot be counted"
)


@dataclass(frozen=True)
class Form:
    """How a module is called, and what its state looks like."""

    kind: str  # layer | step
    template: Any  # a state as the module returns it
    batch_dims: tuple[int, ...]  # which dimension of each tensor is the batch

    @property
    def width(self) -> int:
        """Numbers in the state of one stream."""
        return sum(
            leaf.numel() // leaf.shape[dim]
            for leaf, dim in zip(leaves(self.template), self.batch_dims, strict=True)
        )

    def pack(self, state: Any, num_states: int, hidden_size: int) -> Tensor:
        """Returns the state as vectors (S, B, H), padded with zeros at the end."""
        flat = [
            leaf.movedim(dim, 0).flatten(1) if leaf.dim() > 1 else leaf.unsqueeze(1)
            for leaf, dim in zip(leaves(state), self.batch_dims, strict=True)
        ]
        packed_BN = torch.cat(flat, dim=1)
        missing = num_states * hidden_size - packed_BN.shape[1]
        packed_BN = nn.functional.pad(packed_BN, (0, missing)) if missing else packed_BN
        return packed_BN.unflatten(1, (num_states, hidden_size)).transpose(0, 1)

    def unpack(self, state_SBH: Tensor) -> Any:
        """Returns the state in the module's own form."""
        packed_BN = state_SBH.transpose(0, 1).flatten(1)
        parts = []
        for leaf, dim in zip(leaves(self.template), self.batch_dims, strict=True):
            shape = [*leaf.shape[:dim], *leaf.shape[dim + 1 :]]
            size = leaf.numel() // leaf.shape[dim]
            part_BN, packed_BN = packed_BN[:, :size], packed_BN[:, size:]
            parts.append(part_BN.unflatten(1, shape) if shape else part_BN.squeeze(1))
        moved = (
            part.movedim(0, dim).contiguous()
            for part, dim in zip(parts, self.batch_dims, strict=True)
        )
        return _like(self.template, moved)


def leaves(state: Any) -> list[Tensor]:
    """Returns the tensors of a state, in order; TypeError if it contains anything else."""
    if isinstance(state, Tensor):
        return [state]
    if not isinstance(state, tuple | list):
        raise TypeError(f"its state has a {type(state).__name__} where a tensor should be")
    return [leaf for part in state for leaf in leaves(part)]


def _like(template: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(template, Tensor):
        return next(tensors)
    parts = [_like(part, tensors) for part in template]
    if hasattr(template, "_fields"):  # a named tuple
        return type(template)(*parts)
    return parts if isinstance(template, list) else tuple(parts)


class ModuleCell(Layer):
    """One layer of a class from outside charcmp.

    Raises:
        UserError: if the class cannot be imported, built or called.
    """

    in_cudnn = True  # it has no fused kernels, so no note need say that they are missing

    def __init__(self, config: ModuleConfig, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.config = config
        with seeded(0):
            self.module = build(config, input_size, hidden_size)
        self.form = form_of(config, input_size, hidden_size)
        self.num_states = -(-self.form.width // hidden_size)

    def forward(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        x_TBI = self.dense_input(x)
        state = self.form.unpack(state_SBH)
        if self.form.kind == "layer":
            h_TBH, state = self.module(x_TBI, state)
        else:
            steps = []
            for x_BI in x_TBI.unbind(0):
                state = self.module(x_BI, state)
                steps.append(leaves(state)[0])
            h_TBH = torch.stack(steps)
        return h_TBH, self.form.pack(state, self.num_states, self.hidden_size)

    @torch.no_grad()
    def set_initial_values(self, generator: torch.Generator) -> None:
        """With init=own, sets the values that the class itself draws."""
        seed = int(torch.randint(1 << 62, (), generator=generator))
        if self.config.init == "own":
            with seeded(seed):
                fresh = build(self.config, self.input_size, self.hidden_size)
            self.module.load_state_dict(fresh.state_dict())


def build(config: ModuleConfig, input_size: int, hidden_size: int) -> nn.Module:
    """Builds the module on torch's current default device, usually the CPU.

    Raises:
        WidthError: if it cannot be built in this size.
        UserError: if it is no module, does not take its arguments, lacks a package, or has
            parameters without a shape.
    """
    make = load_target(config.target).make
    try:
        module = make(input_size, hidden_size, **config.kwargs)
    except Exception as error:  # of anyone's code
        # Another width would not help if it does not take its arguments, or lacks something.
        kind = UserError if isinstance(error, TypeError | ImportError | OSError) else WidthError
        raise kind(
            f"cell.target={config.target}: cannot be built with input_size={input_size} "
            f"hidden_size={hidden_size} ({one_line(error)})"
        ) from None
    if not isinstance(module, nn.Module):
        raise UserError(f"cell.target={config.target}: not a torch.nn.Module")
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise UserError(f"cell.target={config.target}: {NO_SHAPE.format(name)}")
    return module


def _key(config: ModuleConfig) -> str:
    """Returns all options as a key for caches; the config itself is not hashable."""
    parts = config.target, config.kind, config.states, config.init, config.kwargs
    return json.dumps(parts, sort_keys=True)


def _config(key: str) -> ModuleConfig:
    target, kind, states, init, kwargs = json.loads(key)
    return ModuleConfig("module", target, kind, states, init, kwargs)


def layer_params(config: ModuleConfig, input_size: int, hidden_size: int) -> int:
    """Counts the parameters of one layer, on the meta device, where they take no memory."""
    return _layer_params(_key(config), input_size, hidden_size)


@cache
def _layer_params(key: str, input_size: int, hidden_size: int) -> int:
    config = _config(key)
    load_target(config.target)  # first: under meta, the tensors of its module would be made there
    try:
        with torch.device("meta"):
            module = build(config, input_size, hidden_size)
    except UserError:  # some draw initial values by operations that the meta device lacks
        with seeded(0):
            module = build(config, input_size, hidden_size)
    return sum(parameter.numel() for parameter in module.parameters())


def identity(config: ModuleConfig, input_size: int, hidden_size: int) -> dict[str, Any]:
    """Returns what identifies the cell: the class, how it is called, its options."""
    target = load_target(config.target)
    form = form_of(config, input_size, hidden_size)
    return {
        "cell.name": target.name,
        "cell.origin": target.origin,
        "cell.kind": form.kind,
        "cell.states": len(form.batch_dims),
        "cell.init": config.init,
        **{f"cell.kwargs.{name}": value for name, value in config.kwargs.items()},
    }


def form_of(config: ModuleConfig, input_size: int, hidden_size: int) -> Form:
    """Finds out by trial how the class is called.

    Raises:
        UserError: if it is neither a layer nor a step, or keeps no state that can be carried.
    """
    return _form_of(_key(config), input_size, hidden_size)


@cache
def _form_of(key: str, input_size: int, hidden_size: int) -> Form:
    config = _config(key)
    with seeded(0), torch.no_grad():
        module = build(config, input_size, hidden_size)
        has_shape = {name for name, _ in module.named_parameters()}
        trial = Trial(module, input_size, hidden_size, config.states)
        kinds = {"layer": trial.as_layer, "step": trial.as_step}
        reasons = []
        for kind in [config.kind] if config.kind else kinds:
            try:
                states = [kinds[kind](batch) for batch in TRIAL_BATCHES]
                if without_shape := dict(module.named_parameters()).keys() - has_shape:
                    raise Refused(NO_SHAPE.format(min(without_shape)))
                return Form(kind, states[0], _batch_dims(*states))
            except Refused as error:
                raise UserError(f"cell.target={config.target}: {error}") from None
            except Exception as error:  # of anyone's code
                reasons.append(f"as a {kind}: {one_line(error)}")
    raise UserError(
        f"cell.target={config.target}: neither y, state = layer(x, state) nor state = "
        f"step(x, state) works; {'; '.join(reasons)}"
    )


class Refused(Exception):
    """A reason to refuse the class that no other way of calling it would remove."""


def _batch_dims(first: Any, second: Any) -> tuple[int, ...]:
    """Returns which dimension of each tensor grows with the batch."""
    dims = []
    for a, b in zip(leaves(first), leaves(second), strict=True):
        if a.dim() == 0:
            raise Refused(
                "its state has a tensor without a batch dimension; each stream has a state of its "
                "own, so give it the shape (batch,)"
            )
        grown = [dim for dim, sizes in enumerate(zip(a.shape, b.shape, strict=True))
                 if sizes == TRIAL_BATCHES]  # fmt: skip
        if len(grown) != 1:
            raise Refused(
                "its state does not grow with the batch, so the streams of a batch are not "
                "independent; x is (steps, batch, inputs), and batch_first must be off"
            )
        dims += grown
    return tuple(dims)


def _shapes(state: Any) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for leaf in leaves(state)]


class Trial:
    """Trial calls of a module, as a layer and as a step."""

    def __init__(
        self, module: nn.Module, input_size: int, hidden_size: int, num_states: int | None
    ) -> None:
        self.module = module
        self.input_size, self.hidden_size = input_size, hidden_size
        self.num_states = num_states

    def as_layer(self, batch: int) -> Any:
        """Returns the state of a layer after a few steps."""
        x_TBI = torch.randn(TRIAL_STEPS, batch, self.input_size)
        y_shape = (TRIAL_STEPS, batch, self.hidden_size)
        out = self._call(x_TBI, (1, batch, self.hidden_size))
        if isinstance(out, Tensor) and out.shape == y_shape:
            self._refuse_without_state(x_TBI, out)
        y, state = out
        if isinstance(y, Tensor) and y.shape == (*y_shape[:2], 2 * self.hidden_size):
            raise Refused("y is twice as wide as hidden_size; is it bidirectional?")
        if not isinstance(y, Tensor) or y.shape != y_shape:
            raise TypeError(f"y is not a tensor of shape {y_shape}")
        if state is None:
            raise Refused("it returns no state, so none is carried from chunk to chunk")
        if any(leaf.shape == y.shape for leaf in leaves(state)):
            raise TypeError("its second value is as long as the text: a step's state, perhaps")
        _, again = self.module(x_TBI, state)
        if _shapes(again) != _shapes(state):
            raise TypeError("called with its own state, it returns a state of other shapes")
        return state

    def _refuse_without_state(self, x_TBI: Tensor, y_TBH: Tensor) -> None:
        """Refuses a layer that returns no state: its later outputs depend on the first input.

        A step made of products also accepts a whole text, but then no output depends on another
        step's input.
        """
        state_shape = (1, *y_TBH.shape[1:])
        is_repeatable = torch.equal(self._call(x_TBI, state_shape), y_TBH)
        x_TBI = x_TBI.clone()
        x_TBI[0] += 1
        changed_TBH = self._call(x_TBI, state_shape)
        if is_repeatable and not torch.equal(changed_TBH[1:], y_TBH[1:]):
            raise Refused("it returns no state, so none is carried from chunk to chunk")

    def as_step(self, batch: int) -> Any:
        """Returns the state of a step module after a step."""
        x_BI = torch.randn(batch, self.input_size)
        state = self._call(x_BI, (batch, self.hidden_size))
        again = self.module(x_BI, state)
        if _shapes(state) != _shapes(again) or _shapes(state)[0] != (batch, self.hidden_size):
            shape = (batch, self.hidden_size)
            raise TypeError(
                f"its state must begin with a tensor of shape {shape} and keep its shapes"
            )
        return state

    def _call(self, x: Tensor, state_shape: tuple[int, ...]) -> Any:
        """Calls the module without a state or, if that fails, with a state of zeros."""
        zeros = x.new_zeros(state_shape)
        # What to try as its second argument: a tensor, a tuple of two, a tuple of three.
        states: list[tuple[Any, ...]] = [
            (zeros,) if number == 1 else ((zeros,) * number,) for number in range(1, MAX_STATES + 1)
        ]
        ways = [(), *states] if self.num_states is None else [states[self.num_states - 1]]
        for arguments in ways[:-1]:
            with contextlib.suppress(Exception):
                return self.module(x, *arguments)
        return self.module(x, *ways[-1])
