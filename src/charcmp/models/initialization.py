"""Initial values of a model's parameters, by `init=`.

    uniform      all of them, biases included, uniform in [-init_range, init_range]; as in the paper
    xavier       matrices uniform in ±√(6 / (columns + rows)); biases and peepholes 0
    orthogonal   recurrent matrices orthogonal, other matrices as with xavier; the rest 0

A layer's weight stacks one matrix for each gate. xavier and orthogonal draw these separately, so
that a matrix has H rows, not G·H.

Sources: [paper, code] for uniform; Glorot & Bengio 2010; Saxe, McClelland & Ganguli 2014.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_GENERATOR_IN_USE = threading.RLock()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's default generators, which modules draw from as they are built, and afterwards
    restores the CPU's. The lanes of a GPU are threads of one process and share that generator, so
    only one of them at a time may be in here."""
    with _GENERATOR_IN_USE, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def draw(model: nn.Module, hidden_size: int, init: str, init_range: float, seed: int) -> None:
    """Overwrites the parameters of a model whose layers have `hidden_size` units.

    The values are drawn on the CPU from a separate generator, so they are the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        values = torch.zeros(parameter.shape)
        if init == "uniform":
            values.uniform_(-init_range, init_range, generator=generator)
        else:
            for matrix in matrices(name, values, hidden_size):
                if init == "orthogonal" and "weight_hh" in name:
                    nn.init.orthogonal_(matrix, generator=generator)
                else:
                    nn.init.xavier_uniform_(matrix, generator=generator)
        parameter.copy_(values)


def matrices(name: str, values: Tensor, hidden_size: int) -> tuple[Tensor, ...]:
    """Returns the matrices that a parameter consists of: none for biases and peepholes.

    None either for a vector that a user's class calls weight_hh, as an independent recurrence has.
    """
    if values.dim() > 1 and ("weight_ih" in name or "weight_hh" in name):
        return values.split(hidden_size)
    return (values,) if name == "decoder.weight" else ()
