"""The plain recurrent network.

    h' = φ(W x + b + U h + b')

`cell.activation` is φ: tanh, as in the paper, softsign or relu.

Source: Karpathy, Johnson & Fei-Fei 2015, section 3.1. Shape suffixes: see base.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from charcmp.models.cells.activations import Activation
from charcmp.models.cells.base import Cell, Trace
from charcmp.models.cells.compiled.dispatch import compiled_on
from charcmp.models.cells.fused.dispatch import fused_on


class RNN(Cell):
    """One layer, run by our whole-sequence form; on a GPU fused, or by torch.nn.RNN where cuDNN is
    faster.

    On a CPU the whole-sequence form is 1.2 to 1.7 times as fast as torch.nn.RNN over the 50k and
    130k rows of the grid (LOG.md), and never slower.
    """

    cudnn_activations = ("tanh", "relu")
    widest_in_cudnn = 384

    def __init__(self, input_size: int, hidden_size: int, activation: str = "tanh") -> None:
        nonlinearity = "relu" if activation == "relu" else "tanh"
        super().__init__(nn.RNN(input_size, hidden_size, nonlinearity=nonlinearity), activation)

    def forward(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        U_HH = self.weights.get_parameter("weight_hh_l0")
        if fused_on(x, self.best_in_cudnn):
            from charcmp.models.cells.fused.rnn import FusedRNN

            h_TBH = FusedRNN.apply(self.input_sums(x), state_SBH[0], U_HH, self.activation_name)
        elif x.is_cuda and self.in_cudnn:
            h_TBH, _ = self.weights(self.dense_input(x), state_SBH)
        elif compiled_on(x, state_SBH, self.activation_name):
            from charcmp.models.cells.compiled.rnn import CompiledRNN

            h_TBH = CompiledRNN.apply(self.input_sums(x), state_SBH[0], U_HH)
        else:
            h_TBH = RNNSequence.apply(self.input_sums(x), state_SBH[0], U_HH, self.activation)
        return h_TBH, h_TBH[-1:]

    def reference(self, x_TBI: Tensor, state_SBH: Tensor) -> Trace:
        W, U, b, b_ = self.weights.parameters()
        (h,) = state_SBH
        outputs = []
        for x in x_TBI:
            h = self.activation.function(x @ W.t() + b + h @ U.t() + b_)
            outputs.append(h)
        return Trace(torch.stack(outputs), h.unsqueeze(0), {})


class RNNSequence(torch.autograd.Function):
    """The recurrence over T steps, forward and backward written out.

    Inputs: sums_TBH = W x + b + b', the initial h_BH, and U (H, H). Output: h_TBH.

    With s = W x + b + U h + b' and h' = φ(s):  ∂L/∂s = φ'(s) ⊙ ∂L/∂h',  where φ' comes from h'. The
    step before receives (∂L/∂s) U. Only those products are serial; ∂L/∂U is one product after the
    loop.
    """

    @staticmethod
    def forward(
        ctx: Any, sums_TBH: Tensor, h_BH: Tensor, U_HH: Tensor, activation: Activation
    ) -> Tensor:
        T, B, H = sums_TBH.shape
        h_all = sums_TBH.new_empty(T + 1, B, H)  # h_all[t] is h before step t
        h_all[0] = h_BH
        h = h_all.unbind(0)
        U_t = U_HH.t()
        activate = activation.into
        for t, sums in enumerate(sums_TBH.unbind(0)):
            torch.addmm(sums, h[t], U_t, out=h[t + 1])
            activate(h[t + 1], h[t + 1])
        ctx.save_for_backward(h_all, U_HH)
        ctx.activation = activation
        return h_all[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_TBH: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        h_all, U_HH = ctx.saved_tensors
        slope_TBH = ctx.activation.slope(h_all[1:])
        grad_sums_TBH = torch.empty_like(slope_TBH)
        grad_h, slope, grad_sums = (x.unbind(0) for x in (grad_h_TBH, slope_TBH, grad_sums_TBH))
        torch.mul(grad_h[-1], slope[-1], out=grad_sums[-1])
        for t in range(len(grad_h) - 2, -1, -1):
            torch.addmm(grad_h[t], grad_sums[t + 1], U_HH, out=grad_sums[t]).mul_(slope[t])
        grad_U_HH = grad_sums_TBH.flatten(0, 1).t() @ h_all[:-1].flatten(0, 1)
        return grad_sums_TBH, grad_sums[0] @ U_HH, grad_U_HH, None
