"""The gated recurrent unit as torch.nn.GRU and cuDNN have it, for comparison; not the paper's.

    r = σ(W_r x + b_r + U_r h + b'_r)
    z = σ(W_z x + b_z + U_z h + b'_z)
    n = tanh(W_n x + b_n + r ⊙ (U_n h + b'_n))
    h' = (1 − z) ⊙ n + z ⊙ h

The reset gate acts after the recurrent product, so that one product serves all three gates, and z
keeps the old state. tanh is the only activation, as in torch.
Source: the documentation of torch.nn.GRU. Shape suffixes: see base.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from charcmp.models.cells.base import Cell, Trace


class GRUResetAfter(Cell):
    """One layer of torch.nn.GRU."""

    cudnn_activations = ("tanh",)
    has_kernels = False

    def __init__(self, input_size: int, hidden_size: int, activation: str = "tanh") -> None:
        super().__init__(nn.GRU(input_size, hidden_size), activation)

    def forward(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        h_TBH, h_1BH = self.weights(self.dense_input(x), state_SBH)
        return h_TBH, h_1BH

    def reference(self, x_TBI: Tensor, state_SBH: Tensor) -> Trace:
        W_r, W_z, W_n = self.per_gate("weight_ih")
        U_r, U_z, U_n = self.per_gate("weight_hh")
        b_r, b_z, b_n = self.per_gate("bias_ih")
        c_r, c_z, c_n = self.per_gate("bias_hh")  # the equations' b'
        (h,) = state_SBH
        steps = []
        for x in x_TBI:
            r = torch.sigmoid(x @ W_r.t() + b_r + h @ U_r.t() + c_r)
            z = torch.sigmoid(x @ W_z.t() + b_z + h @ U_z.t() + c_z)
            n = torch.tanh(x @ W_n.t() + b_n + r * (h @ U_n.t() + c_n))
            h = (1 - z) * n + z * h
            steps.append((h, r, z))
        h_TBH, r_TBH, z_TBH = map(torch.stack, zip(*steps, strict=True))
        return Trace(h_TBH, h.unsqueeze(0), {"r": r_TBH, "z": z_TBH})
