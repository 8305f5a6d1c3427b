"""The LSTM with peepholes: each gate also sees the memory cell, through a vector of weights.

    a = W x + b     u = U h + b'     the sources that i, f, g and o share
    i = σ(a_i + u_i + w_i ⊙ c)
    f = σ(a_f + u_f + w_f ⊙ c)
    g = φ(a_g + u_g)
    c' = f ⊙ c + i ⊙ g
    o = σ(a_o + u_o + w_o ⊙ c')
    h' = o ⊙ φ(c')

i and f look at the c of the previous step, o at the new one; the candidate g has no peephole. φ is
tanh, or softsign with `cell.activation=softsign`, in both places. The weights' gate order is
i, f, g, o; the peepholes' is i, f, o.

Source: Gers, Schraudolph & Schmidhuber 2002. Here it is the starting point of the gate variants
that S. Asakawa announced in 2016 without equations (lstm_softmax_gate.py, lstm_cascaded_gate.py),
whose three sources are a, u and p = w ⊙ c in our reading. Shape suffixes: see base.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from charcmp.models.cells.activations import Activation
from charcmp.models.cells.base import Trace
from charcmp.models.cells.lstm import LSTMBackward, LSTMLayer, by_step, lstm_trace


class PeepholeCell(LSTMLayer):
    """The parts that LSTM layers with peepholes share: peepholes, and a reference by sources."""

    peepholes_PH: nn.Parameter

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        activation: str = "tanh",
        forget_bias: float | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, activation, forget_bias)
        self.peepholes_PH = nn.Parameter(torch.zeros(3, hidden_size))

    def gate(self, a_BH: Tensor, u_BH: Tensor, p_BH: Tensor) -> Tensor:
        """Returns a gate's value from its sources, as in the equations."""
        raise NotImplementedError

    def reference(self, x_TBI: Tensor, state_SBH: Tensor) -> Trace:
        W_i, W_f, W_g, W_o = self.per_gate("weight_ih")
        U_i, U_f, U_g, U_o = self.per_gate("weight_hh")
        b_i, b_f, b_g, b_o = self.per_gate("bias_ih")
        c_i, c_f, c_g, c_o = self.per_gate("bias_hh")  # the equations' b'
        w_i, w_f, w_o = self.peepholes_PH
        h, c = state_SBH
        steps = []
        for x in x_TBI:
            i = self.gate(x @ W_i.t() + b_i, h @ U_i.t() + c_i, w_i * c)
            f = self.gate(x @ W_f.t() + b_f, h @ U_f.t() + c_f, w_f * c)
            g = self.activation.function(x @ W_g.t() + b_g + h @ U_g.t() + c_g)
            c = f * c + i * g
            o = self.gate(x @ W_o.t() + b_o, h @ U_o.t() + c_o, w_o * c)
            h = o * self.activation.function(c)
            steps.append((h, i, f, o))
        return lstm_trace(steps, c)


class LSTMPeephole(PeepholeCell):
    """One peephole layer, run by our whole-sequence form, fused on a GPU."""

    fused_gates = "sum"

    def gate(self, a_BH: Tensor, u_BH: Tensor, p_BH: Tensor) -> Tensor:
        return torch.sigmoid(a_BH + u_BH + p_BH)

    def torch_form(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        h_TBH, c_BH = PeepholeSequence.apply(
            self.input_sums(x),
            *state_SBH,
            self.weights.get_parameter("weight_hh_l0"),
            self.peepholes_PH,
            self.activation,
        )
        return h_TBH, torch.stack((h_TBH[-1], c_BH))


class PeepholeSequence(torch.autograd.Function):
    """The recurrence over T steps, forward and backward written out.

    Inputs: sums_TBG = a + b' for i, f, g, o; the initial h_BH and c_BH; U (4H, H); the peepholes
    (3, H). Outputs: h_TBH and the last c_BH, which takes no gradient (see lstm.py).

    With e = ∂L/∂h', q = ∂L/∂c' and pre-activations s:
        ∂L/∂s_o = e ⊙ φ(c') ⊙ o ⊙ (1 − o)       q += e ⊙ o ⊙ φ'(c') + (∂L/∂s_o) ⊙ w_o
        ∂L/∂s_i = q ⊙ g ⊙ i ⊙ (1 − i)           ∂L/∂s_f = q ⊙ c ⊙ f ⊙ (1 − f)
        ∂L/∂s_g = q ⊙ i ⊙ φ'(s_g)               ∂L/∂h = (∂L/∂s) U
        ∂L/∂c = q ⊙ f + (∂L/∂s_i) ⊙ w_i + (∂L/∂s_f) ⊙ w_f
    ∂L/∂w is the sum of (∂L/∂s) ⊙ c over steps and streams, with c' for o. ∂L/∂s is q or e times a
    factor, and so are the terms with w: `LSTMBackward` walks the steps.
    """

    @staticmethod
    def forward(
        ctx: Any,
        sums_TBG: Tensor,
        h_BH: Tensor,
        c_BH: Tensor,
        U_GH: Tensor,
        w_PH: Tensor,
        activation: Activation,
    ) -> tuple[Tensor, Tensor]:
        T, B, G = sums_TBG.shape
        H = G // 4
        h_all, c_all = sums_TBG.new_empty(T + 1, B, H), sums_TBG.new_empty(T + 1, B, H)
        h_all[0], c_all[0] = h_BH, c_BH  # h_all[t], c_all[t] are the state before step t
        ifg_TBG = torch.empty_like(sums_TBG)  # its last quarter is not used
        o_TBH, phi_c_TBH = sums_TBG.new_empty(2, T, B, H)
        s_BG = sums_TBG.new_empty(B, G)
        s_if_B2H, s_g, s_o = (
            s_BG[:, : 2 * H].view(B, 2, H),
            s_BG[:, 2 * H : 3 * H],
            s_BG[:, 3 * H :],
        )
        U_t = U_GH.t()
        w_if, w_o = w_PH[:2], w_PH[2]
        activate = activation.into
        views = (
            *(sums_TBG, ifg_TBG, *ifg_TBG.split(H, dim=2)[:3], o_TBH, phi_c_TBH),
            *(c_all[:-1].unsqueeze(2), c_all[:-1], c_all[1:], h_all[:-1], h_all[1:]),
        )
        for sums, ifg, i, f, g, o, phi_c, c_B1H, c, c_next, h, h_next in by_step(*views):
            torch.addmm(sums, h, U_t, out=s_BG)
            s_if_B2H.addcmul_(c_B1H, w_if)
            torch.sigmoid(s_BG, out=ifg)  # g and o too: whole rows are faster
            activate(s_g, g)
            torch.mul(f, c, out=c_next).addcmul_(i, g)
            torch.addcmul(s_o, c_next, w_o, out=o).sigmoid_()
            activate(c_next, phi_c)
            torch.mul(o, phi_c, out=h_next)
        ctx.save_for_backward(h_all, c_all, ifg_TBG, o_TBH, phi_c_TBH, U_GH, w_PH)
        ctx.activation = activation
        c_last = c_all[-1].clone()
        ctx.mark_non_differentiable(c_last)
        return h_all[1:], c_last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_h_TBH: Tensor, _grad_c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, None]:
        h_all, c_all, ifg_TBG, o_TBH, phi_c_TBH, U_GH, w_PH = ctx.saved_tensors
        slope = ctx.activation.slope
        w_i, w_f, w_o = w_PH
        grad_w_PH = torch.zeros_like(w_PH)
        grads = LSTMBackward(grad_h_TBH, U_GH)
        for block in grads.blocks():
            i, f, g, _ = ifg_TBG[block].chunk(4, dim=2)
            o, phi_c = o_TBH[block], phi_c_TBH[block]
            c, c_next = c_all[block], c_all[1:][block]
            ifg, out = grads.new_factors(block)
            torch.mul(g, i - i * i, out=ifg[:, :, 0])
            torch.mul(c, f - f * f, out=ifg[:, :, 1])
            torch.mul(i, slope(g), out=ifg[:, :, 2])
            torch.mul(phi_c, o - o * o, out=out)
            to_c = slope(phi_c).mul_(o).addcmul_(out, w_o)
            keep = torch.addcmul(f, ifg[:, :, 0], w_i).addcmul_(ifg[:, :, 1], w_f)
            grads.walk(block, ifg, out, to_c, keep)
            s_i, s_f, _, s_o = grads.sums_TBG[block].chunk(4, dim=2)
            for grad_w_H, s, seen in zip(grad_w_PH, (s_i, s_f, s_o), (c, c, c_next), strict=True):
                grad_w_H += (s * seen).sum((0, 1))
        grad_U_GH = grads.sums_TBG.flatten(0, 1).t() @ h_all[:-1].flatten(0, 1)
        return grads.sums_TBG, grads.h_all[0], grads.c_all[0], grad_U_GH, grad_w_PH, None
