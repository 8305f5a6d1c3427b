"""The recurrence of an LSTM whose gates see their three sources separately, forward and backward.

    a = W x + b     u = U h + b'     p = w ⊙ c (w ⊙ c' for o)
    i, f, o = y(a, u, p)
    g = φ(a_g + u_g)
    c' = f ⊙ c + i ⊙ g
    h' = o ⊙ φ(c')

Each cell has its own y: see lstm_softmax_gate.py and lstm_cascaded_gate.py. Shape suffixes: see
base.py; K gates side by side (2 for i and f, 1 for o).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charcmp.models.cells.activations import Activation
from charcmp.models.cells.lstm import LSTMBackward, by_step
from charcmp.models.cells.lstm_peephole import PeepholeCell

# Gates that are computed together, as slices of the four sums: i and f from c, then o from c'.
PARTS = (slice(0, 2), slice(3, 4))


class SourceGates(ABC):
    """The gates of T steps: their values, and their slopes from what was kept of the values.

    `part` 0 is i and f (K = 2), `part` 1 is o (K = 1).
    """

    @abstractmethod
    def __init__(self, a_TBGH: Tensor) -> None:
        """Allocates buffers, and does what can be done for all steps at once."""

    @abstractmethod
    def begin(self, t: int, u_BGH: Tensor) -> None:
        """Does what can be done for all gates of step t at once."""

    @abstractmethod
    def write(
        self, part: int, t: int, a_BKH: Tensor, u_BKH: Tensor, p_BKH: Tensor, y_BKH: Tensor
    ) -> None:
        """Writes the gates of step t to y."""

    @abstractmethod
    def slopes(
        self, part: int, block: slice, a: Tensor, u: Tensor, p: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns ∂y/∂a, ∂y/∂u, ∂y/∂p of a block of steps, each (T', B, K, H)."""


class SourceSequence(torch.autograd.Function):
    """The recurrence over T steps, forward and backward written out.

    Inputs: a_TBG = W x + b for i, f, g, o; the initial h_BH and c_BH; U (4H, H) and b' (4H); the
    peepholes (3, H). Outputs: h_TBH and the last c_BH, which takes no gradient (see lstm.py).

    With e = ∂L/∂h', q = ∂L/∂c' and a source s = a, u or p of a gate:
        ∂L/∂s_o = e ⊙ φ(c') ⊙ ∂o/∂s             q += e ⊙ o ⊙ φ'(c') + (∂L/∂p_o) ⊙ w_o
        ∂L/∂s_i = q ⊙ g ⊙ ∂i/∂s                 ∂L/∂s_f = q ⊙ c ⊙ ∂f/∂s
        ∂L/∂a_g = ∂L/∂u_g = q ⊙ i ⊙ φ'          ∂L/∂h = (∂L/∂u) U
        ∂L/∂c = q ⊙ f + (∂L/∂p_i) ⊙ w_i + (∂L/∂p_f) ⊙ w_f
    Each of these is q or e times a factor, so `LSTMBackward` walks the steps, with u for its sums.
    What is not serial is computed for a block of steps at once: ∂L/∂a, and ∂L/∂w, the sum of
    (∂L/∂p) ⊙ c over steps and streams, with c' for o.
    """

    @staticmethod
    def forward(
        ctx: Any,
        a_TBG: Tensor,
        h_BH: Tensor,
        c_BH: Tensor,
        U_GH: Tensor,
        b_G: Tensor,
        w_PH: Tensor,
        activation: Activation,
        gates_of: type[SourceGates],
    ) -> tuple[Tensor, Tensor]:
        T, B, G = a_TBG.shape
        H = G // 4
        h_all, c_all = a_TBG.new_empty(T + 1, B, H), a_TBG.new_empty(T + 1, B, H)
        h_all[0], c_all[0] = h_BH, c_BH  # h_all[t], c_all[t] are the state before step t
        a_TBGH = a_TBG.unflatten(2, (4, H))
        u_TBGH = torch.empty_like(a_TBGH)
        y_if_TBKH, y_o_TBKH = a_TBG.new_empty(T, B, 2, H), a_TBG.new_empty(T, B, 1, H)
        g_TBH, phi_c_TBH = a_TBG.new_empty(2, T, B, H)
        p_if, p_o = a_TBG.new_empty(B, 2, H), a_TBG.new_empty(B, 1, H)
        w_if, w_o = w_PH[:2], w_PH[2:]
        U_t = U_GH.t()
        gates = gates_of(a_TBGH)
        activate = activation.into
        steps = zip(
            by_step(a_TBGH[:, :, :2], a_TBGH[:, :, 2], a_TBGH[:, :, 3:]),
            by_step(u_TBGH, u_TBGH.flatten(2), u_TBGH[:, :, :2], u_TBGH[:, :, 2], u_TBGH[:, :, 3:]),
            by_step(y_if_TBKH, *y_if_TBKH.unbind(2), g_TBH, y_o_TBKH, y_o_TBKH[:, :, 0]),
            by_step(c_all[:-1].unsqueeze(2), c_all[1:].unsqueeze(2), c_all[:-1], c_all[1:]),
            by_step(h_all[:-1], h_all[1:], phi_c_TBH),
            strict=True,
        )
        for t, (
            (a_if, a_g, a_o),
            (u_BGH, u_BG, u_if, u_g, u_o),
            (y_if, i, f, g, y_o, o),
            (c_B1H, c_next_B1H, c, c_next),
            (h, h_next, phi_c),
        ) in enumerate(steps):
            torch.addmm(b_G, h, U_t, out=u_BG)
            gates.begin(t, u_BGH)
            torch.mul(c_B1H, w_if, out=p_if)
            gates.write(0, t, a_if, u_if, p_if, y_if)
            torch.add(a_g, u_g, out=g)
            activate(g, g)
            torch.mul(f, c, out=c_next).addcmul_(i, g)
            torch.mul(c_next_B1H, w_o, out=p_o)
            gates.write(1, t, a_o, u_o, p_o, y_o)
            activate(c_next, phi_c)
            torch.mul(o, phi_c, out=h_next)
        saved = (a_TBG, h_all, c_all, u_TBGH, y_if_TBKH, y_o_TBKH, g_TBH, phi_c_TBH, U_GH, w_PH)
        ctx.save_for_backward(*saved)
        ctx.activation, ctx.gates = activation, gates
        c_last = c_all[-1].clone()
        ctx.mark_non_differentiable(c_last)
        return h_all[1:], c_last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_TBH: Tensor, _grad_c: Tensor) -> tuple[Tensor | None, ...]:
        a_TBG, h_all, c_all, u_TBGH, *values, U_GH, w_PH = ctx.saved_tensors
        y_if_TBKH, y_o_TBKH, g_TBH, phi_c_TBH = values
        a_TBGH = a_TBG.view_as(u_TBGH)
        slope = ctx.activation.slope
        grad_a_TBGH = torch.empty_like(a_TBGH)
        grad_w_PH = torch.zeros_like(w_PH)
        grads = LSTMBackward(grad_h_TBH, U_GH)
        for block in grads.blocks():
            a, u = a_TBGH[block], u_TBGH[block]
            y_if, y_o = y_if_TBKH[block], y_o_TBKH[block]
            (i, f), o = y_if.unbind(2), y_o[:, :, 0]
            g, phi_c = g_TBH[block], phi_c_TBH[block]
            c, c_next = c_all[block].unsqueeze(2), c_all[1:][block].unsqueeze(2)

            # From slopes of the gates to slopes of c' (through i and f) and of h' (through o).
            if_a, if_u, if_p = ctx.gates.slopes(
                0, block, a[:, :, :2], u[:, :, :2], c * w_PH[:2], y_if
            )
            o_a, o_u, o_p = ctx.gates.slopes(
                1, block, a[:, :, 3:], u[:, :, 3:], c_next * w_PH[2:], y_o
            )
            g_and_c = torch.stack((g, c.squeeze(2)), dim=2)
            ifg, out = grads.new_factors(block)
            torch.mul(if_u, g_and_c, out=ifg[:, :, :2])
            torch.mul(i, slope(g), out=ifg[:, :, 2])
            torch.mul(o_u.squeeze(2), phi_c, out=out)
            if_p.mul_(g_and_c)
            o_p.mul_(phi_c.unsqueeze(2))
            to_c = slope(phi_c).mul_(o).addcmul_(o_p.squeeze(2), w_PH[2])
            keep = torch.addcmul(f, if_p[:, :, 0], w_PH[0]).addcmul_(if_p[:, :, 1], w_PH[1])
            grads.walk(block, ifg, out, to_c, keep)

            e = grads.h_all[1:][block].unsqueeze(2)
            q = grads.c_all[1:][block].unsqueeze(2)
            torch.mul(if_a.mul_(g_and_c), q, out=grad_a_TBGH[block, :, :2])
            grad_a_TBGH[block, :, 2] = grads.sums_TBGH[block, :, 2]
            torch.mul(o_a.mul_(phi_c.unsqueeze(2)), e, out=grad_a_TBGH[block, :, 3:])
            grad_w_PH[:2] += if_p.mul_(q).mul_(c).sum((0, 1))
            grad_w_PH[2:] += o_p.mul_(e).mul_(c_next).sum((0, 1))
        grad_u_NG = grads.sums_TBG.flatten(0, 1)
        grad_U_GH = grad_u_NG.t() @ h_all[:-1].flatten(0, 1)
        grad_state = grads.h_all[0], grads.c_all[0]
        grad_a_TBG = grad_a_TBGH.flatten(2)
        return grad_a_TBG, *grad_state, grad_U_GH, grad_u_NG.sum(0), grad_w_PH, None, None


class SourceCell(PeepholeCell):
    """A layer whose gates see their three sources separately."""

    gates_of: ClassVar[type[SourceGates]]

    def torch_form(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        h_TBH, c_BH = SourceSequence.apply(
            self.input_sums(x, both_biases=False),
            *state_SBH,
            self.weights.get_parameter("weight_hh_l0"),
            self.weights.get_parameter("bias_hh_l0"),
            self.peepholes_PH,
            self.activation,
            self.gates_of,
        )
        return h_TBH, torch.stack((h_TBH[-1], c_BH))
