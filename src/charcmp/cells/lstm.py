"""The long short-term memory, without peepholes.

    i = σ(W_i x + b_i + U_i h + b'_i)
    f = σ(W_f x + b_f + U_f h + b'_f)
    g = tanh(W_g x + b_g + U_g h + b'_g)
    o = σ(W_o x + b_o + U_o h + b'_o)
    c' = f ⊙ c + i ⊙ g
    h' = o ⊙ tanh(c')

Gate order in the weights: i, f, g, o, as in torch.nn.LSTM, whose equations these are.

Source: Karpathy, Johnson & Fei-Fei 2015, section 3.1. Shape suffixes: see base.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from charcmp.cells.base import Cell

# Up to this width, on a CPU, a first layer is faster by our whole-sequence form (1.24 to 1.37 times
# torch.nn.LSTM, which must multiply by the one-hot vectors); beyond it, and above the first layer,
# torch.nn.LSTM is (LOG.md).
WIDEST_SEQUENCE = 100


class LSTM(Cell):
    """One LSTM layer: torch.nn.LSTM, but for narrow first layers on a CPU (WIDEST_SEQUENCE)."""

    num_states = 2

    def __init__(self, input_size: int, hidden_size: int, forget_bias: float | None = None) -> None:
        """`forget_bias`, where given, is the initial value of b_f (the paper has none)."""
        super().__init__(nn.LSTM(input_size, hidden_size))
        self.forget_bias = forget_bias

    def forward(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        narrow = self.hidden_size <= WIDEST_SEQUENCE
        if narrow and not x.is_cuda and not x.is_floating_point():
            h_TBH, c_BH = LSTMSequence.apply(
                self.input_sums(x), *state_SBH, self.weights.get_parameter("weight_hh_l0")
            )
            return h_TBH, torch.stack((h_TBH[-1], c_BH))
        state = state_SBH.unsqueeze(1).unbind(0)
        h_TBH, (h_1BH, c_1BH) = self.weights(self.dense_input(x), state)
        return h_TBH, torch.cat((h_1BH, c_1BH))

    @torch.no_grad()
    def set_initial_values(self) -> None:
        if self.forget_bias is not None:
            bias = self.weights.get_parameter("bias_ih_l0")
            bias[self.hidden_size : 2 * self.hidden_size] = self.forget_bias


class LSTMSequence(torch.autograd.Function):
    """The recurrence over T steps, forward and backward written out.

    Inputs: sums_TBG = W x + b + b' for i, f, g, o; the initial h_BH and c_BH; U (4H, H).
    Outputs: h_TBH and the last c_BH. No gradient flows into the last c: the state that is carried
    on is cut off by truncated back-propagation.

    With p = ∂L/∂h', q = ∂L/∂c' and pre-activations s:
        q += p ⊙ o ⊙ (1 − tanh² c')             ∂L/∂s_o = p ⊙ tanh c' ⊙ o ⊙ (1 − o)
        ∂L/∂s_i = q ⊙ g ⊙ i ⊙ (1 − i)           ∂L/∂s_f = q ⊙ c ⊙ f ⊙ (1 − f)
        ∂L/∂s_g = q ⊙ i ⊙ (1 − g²)              ∂L/∂c = q ⊙ f,   ∂L/∂h = (∂L/∂s) U
    """

    @staticmethod
    def forward(
        ctx: Any, sums_TBG: Tensor, h_BH: Tensor, c_BH: Tensor, U_GH: Tensor
    ) -> tuple[Tensor, Tensor]:
        T, B, G = sums_TBG.shape
        H = G // 4
        h_all, c_all = sums_TBG.new_empty(T + 1, B, H), sums_TBG.new_empty(T + 1, B, H)
        h_all[0], c_all[0] = h_BH, c_BH  # h_all[t], c_all[t] are the state before step t
        gates_TBG = torch.empty_like(sums_TBG)
        tanh_c_TBH = sums_TBG.new_empty(T, B, H)
        U_t = U_GH.t()
        views = (
            *(sums_TBG, gates_TBG, gates_TBG[:, :, : 2 * H]),
            *gates_TBG.split(H, dim=2),
            *(tanh_c_TBH, c_all[:-1], c_all[1:], h_all[:-1], h_all[1:]),
        )
        steps = zip(*(view.unbind(0) for view in views), strict=True)
        for sums, gates, i_f, i, f, g, o, tanh_c, c, c_next, h, h_next in steps:
            torch.addmm(sums, h, U_t, out=gates)
            i_f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(f, c, out=c_next).addcmul_(i, g)
            torch.tanh(c_next, out=tanh_c)
            torch.mul(o, tanh_c, out=h_next)
        ctx.save_for_backward(h_all, c_all, gates_TBG, tanh_c_TBH, U_GH)
        c_last = c_all[-1].clone()
        ctx.mark_non_differentiable(c_last)
        return h_all[1:], c_last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_h_TBH: Tensor, _grad_c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h_all, c_all, gates_TBG, tanh_c_TBH, U_GH = ctx.saved_tensors
        T, B, H = tanh_c_TBH.shape
        i, f, g, o = gates_TBG.split(H, dim=2)
        slope_o = tanh_c_TBH * (o * (1 - o))
        slope_c = o * (1 - tanh_c_TBH * tanh_c_TBH)
        slope_ifg = gates_TBG.new_empty(T, B, 3, H)
        torch.mul(g, i * (1 - i), out=slope_ifg[:, :, 0])
        torch.mul(c_all[:-1], f * (1 - f), out=slope_ifg[:, :, 1])
        torch.mul(i, 1 - g * g, out=slope_ifg[:, :, 2])
        grad_sums_TBGH = gates_TBG.new_empty(T, B, 4, H)
        grad_h_BH = grad_h_TBH[-1].clone()
        grad_c_BH = torch.zeros_like(grad_h_BH)
        views = (
            *(slope_ifg, slope_o, slope_c, f),
            *(grad_sums_TBGH[:, :, :3], grad_sums_TBGH[:, :, 3], grad_sums_TBGH.flatten(2)),
        )
        steps = list(zip(*(view.unbind(0) for view in views), strict=True))
        grad_h = grad_h_TBH.unbind(0)
        for t in range(T - 1, -1, -1):
            slope_ifg_t, slope_o_t, slope_c_t, f_t, grad_ifg, grad_o, grad_sums = steps[t]
            grad_c_BH.addcmul_(grad_h_BH, slope_c_t)
            torch.mul(grad_c_BH.unsqueeze(1), slope_ifg_t, out=grad_ifg)
            torch.mul(grad_h_BH, slope_o_t, out=grad_o)
            grad_c_BH.mul_(f_t)
            if t:
                torch.addmm(grad_h[t - 1], grad_sums, U_GH, out=grad_h_BH)
            else:
                torch.mm(grad_sums, U_GH, out=grad_h_BH)
        grad_sums_TBG = grad_sums_TBGH.flatten(2)
        grad_U_GH = grad_sums_TBG.flatten(0, 1).t() @ h_all[:-1].flatten(0, 1)
        return grad_sums_TBG, grad_h_BH, grad_c_BH, grad_U_GH


def reference(x_TBI: Tensor, state_SBH: Tensor, weights: nn.RNNBase) -> tuple[Tensor, Tensor]:
    """The equations, a step at a time, as slowly as they read."""
    W_i, W_f, W_g, W_o = weights.get_parameter("weight_ih_l0").chunk(4)
    U_i, U_f, U_g, U_o = weights.get_parameter("weight_hh_l0").chunk(4)
    b_i, b_f, b_g, b_o = weights.get_parameter("bias_ih_l0").chunk(4)
    c_i, c_f, c_g, c_o = weights.get_parameter("bias_hh_l0").chunk(4)  # the equations' b'
    h, c = state_SBH
    outputs = []
    for x in x_TBI:
        i = torch.sigmoid(x @ W_i.t() + b_i + h @ U_i.t() + c_i)
        f = torch.sigmoid(x @ W_f.t() + b_f + h @ U_f.t() + c_f)
        g = torch.tanh(x @ W_g.t() + b_g + h @ U_g.t() + c_g)
        o = torch.sigmoid(x @ W_o.t() + b_o + h @ U_o.t() + c_o)
        c = f * c + i * g
        h = o * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs), torch.stack((h, c))
