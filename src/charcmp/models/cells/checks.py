"""Checks that a user's class can be compared at all, made before its first training step.

A layer that sees the byte it is to predict, or whose state does not carry the text on, gives losses
that mean nothing. Each check looks for one such fault. All but the first are made after moving the
parameters off their initial values, since a gate that starts at zero hides what is behind it.

Shape suffixes: see base.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from charcmp.errors import UserError
from charcmp.models.cells.base import Layer
from charcmp.models.cells.module import ModuleCell
from charcmp.models.initialization import seeded

NUM_STEPS, NUM_STREAMS = 12, 3
NOISE = 0.1  # standard deviation of the noise added to each parameter
TOLERANCE = 1e-4  # float32, relative to values of about 1


def check_layer(layer: Layer) -> None:
    """Raises UserError for the first check that the layer fails; its parameters stay unchanged."""
    assert isinstance(layer, ModuleCell)
    target = layer.config.target
    kept = {name: value.clone() for name, value in layer.module.state_dict().items()}
    try:
        with seeded(0):
            _check_start(layer)
            with torch.no_grad():
                for parameter in layer.module.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=NOISE)
            for check in CHECKS:
                if complaint := check(layer):
                    raise UserError(f"cell.target={target}: {complaint}")
    finally:
        layer.module.load_state_dict(kept)
        layer.module.zero_grad(set_to_none=True)


def _text(layer: ModuleCell) -> Tensor:
    return torch.randint(layer.input_size, (NUM_STEPS, NUM_STREAMS))


def _state(layer: ModuleCell, batch: int = NUM_STREAMS, scale: float = 0.0) -> Tensor:
    return scale * torch.randn(layer.num_states, batch, layer.hidden_size)


def _differ(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)


def _other_symbols(x: Tensor, layer: ModuleCell) -> Tensor:
    return (x + 1) % layer.input_size


def _check_start(layer: ModuleCell) -> None:
    """Raises UserError if outputs, gradients or state are not finite at the class's own start."""
    y_TBH, state_SBH = layer(_text(layer), _state(layer))
    y_TBH.square().sum().backward()
    gradients = [p.grad for p in layer.module.parameters() if p.grad is not None]
    if not all(value.isfinite().all() for value in [y_TBH, *gradients]):
        raise UserError(
            f"cell.target={layer.config.target}: from a state of zeros its outputs or their "
            "gradients are not finite"
        )
    if not state_SBH.isfinite().all():
        raise UserError(
            f"cell.target={layer.config.target}: after a few steps from zeros its state is not "
            "finite; checkpoints and records hold only finite numbers"
        )
    layer.module.zero_grad(set_to_none=True)


@torch.no_grad()
def is_not_repeatable(layer: ModuleCell) -> str | None:
    x, state = _text(layer), _state(layer)
    if _differ(layer(x, state)[0], layer(x, state)[0]):
        return (
            "not repeatable: the same text and state gave different outputs; it draws random "
            "numbers, or keeps something between calls"
        )
    return None


@torch.no_grad()
def looks_ahead(layer: ModuleCell) -> str | None:
    x, state = _text(layer), _state(layer)
    y_TBH, _ = layer(x, state)
    for t in range(1, NUM_STEPS):
        changed = x.clone()
        changed[t] = _other_symbols(x[t], layer)
        if _differ(layer(changed, state)[0][:t], y_TBH[:t]):
            return f"it looks ahead: byte {t} of a text changes the outputs before it"
    return None


@torch.no_grad()
def mixes_streams(layer: ModuleCell) -> str | None:
    x, state = _text(layer), _state(layer)
    changed = x.clone()
    changed[:, 0] = _other_symbols(x[:, 0], layer)
    if _differ(layer(changed, state)[0][:, 1:], layer(x, state)[0][:, 1:]):
        return (
            "the streams of a batch are not independent: changing the text of the first stream "
            "changes the outputs of the others (batch_first, or a norm over the batch)"
        )
    return None


@torch.no_grad()
def drops_state(layer: ModuleCell) -> str | None:
    x, middle = _text(layer), NUM_STEPS // 2
    whole_TBH, _ = layer(x, _state(layer))
    _, state = layer(x[:middle], _state(layer))
    second_TBH, _ = layer(x[middle:], state)
    if _differ(second_TBH, whole_TBH[middle:]):
        return (
            "its state is not carried on: a text read in two halves, with the state handed over, "
            "gives other outputs than the text read at once"
        )
    return None


def leaves_parameters_out(layer: ModuleCell) -> str | None:
    y_TBH, _ = layer(_text(layer), _state(layer, scale=1.0))
    (y_TBH * torch.randn_like(y_TBH)).sum().backward()
    for name, parameter in layer.module.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            return (
                f"its parameter {name} gets no gradient: it counts towards the budget but "
                "does not learn"
            )
    return None


CHECKS: list[Callable[[ModuleCell], str | None]] = [
    is_not_repeatable,
    looks_ahead,
    mixes_streams,
    drops_state,
    leaves_parameters_out,
]
