"""Initial values of a model's parameters, by `init=`.

    uniform      all of them, biases included, uniform in [-init_range, init_range]; the paper's
    xavier       matrices uniform in ±√(6 / (columns + rows)); biases and peepholes 0
    orthogonal   recurrent matrices orthogonal, the other matrices as by xavier; the rest 0

A layer's weights lie on top of one another, one matrix for each gate; xavier and orthogonal draw
each of these by itself: its rows are the H units that its sums feed, not G·H.

Sources: [paper, code] for uniform; Glorot & Bengio 2010; Saxe, McClelland & Ganguli 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def draw(model: nn.Module, hidden_size: int, init: str, init_range: float, seed: int) -> None:
    """Overwrites the parameters of a model whose layers have `hidden_size` units.

    Drawn on the CPU from a generator of its own: the same weights on every device.
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
    """The matrices that a parameter consists of: none in a bias or in peepholes."""
    if "weight_ih" in name or "weight_hh" in name:
        return values.split(hidden_size)
    return (values,) if name == "decoder.weight" else ()
