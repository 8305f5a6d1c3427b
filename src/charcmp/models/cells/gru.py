"""The gated recurrent unit in the paper's form: the reset gate acts before the recurrent product.

    r = σ(W_r x + b_r + U_r h + b'_r)
    z = σ(W_z x + b_z + U_z h + b'_z)
    n = φ(W_n x + b_n + U_n (r ⊙ h) + b'_n)
    h' = z ⊙ n + (1 − z) ⊙ h

z multiplies the candidate. This is not torch.nn.GRU, which applies the reset gate after the product
and lets z keep the old state: see gru_reset_after.py. Gate order in the weights: r, z, n.
φ is tanh in the paper, softsign with `cell.activation=softsign`; the gates r and z keep their σ.

Source: Karpathy, Johnson & Fei-Fei 2015, section 3.1, and the author's published code.
Shape suffixes: see base.py.
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


class GRU(Cell):
    """One layer of the paper's GRU, run by our whole-sequence form, fused on a GPU.

    The torch.nn.GRU inside only holds the weights; their number, shapes and names are the same.
    """

    def __init__(self, input_size: int, hidden_size: int, activation: str = "tanh") -> None:
        super().__init__(nn.GRU(input_size, hidden_size), activation)

    def forward(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        U_GH = self.weights.get_parameter("weight_hh_l0")
        if fused_on(x):
            from charcmp.models.cells.fused.gru import FusedGRU

            h_TBH = FusedGRU.apply(self.input_sums(x), state_SBH[0], U_GH, self.activation_name)
        elif compiled_on(x, state_SBH, self.activation_name):
            from charcmp.models.cells.compiled.gru import CompiledGRU

            h_TBH = CompiledGRU.apply(self.input_sums(x), state_SBH[0], U_GH)
        else:
            h_TBH = GRUSequence.apply(self.input_sums(x), state_SBH[0], U_GH, self.activation)
        return h_TBH, h_TBH[-1:]

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
            n = self.activation.function(x @ W_n.t() + b_n + (r * h) @ U_n.t() + c_n)
            h = z * n + (1 - z) * h
            steps.append((h, r, z))
        h_TBH, r_TBH, z_TBH = map(torch.stack, zip(*steps, strict=True))
        return Trace(h_TBH, h.unsqueeze(0), {"r": r_TBH, "z": z_TBH})


def gradient_of_U(grad_sums_TBG: Tensor, h_TBH: Tensor, rh_TBH: Tensor) -> Tensor:
    """Returns ∂L/∂U (3H, H) from ∂L/∂s of all steps: U_r and U_z multiply h, U_n r ⊙ h."""
    H = h_TBH.shape[2]
    grad_U_GH = h_TBH.new_empty(3 * H, H)
    grad_rows_NG = grad_sums_TBG.flatten(0, 1).t()
    torch.mm(grad_rows_NG[: 2 * H], h_TBH.flatten(0, 1), out=grad_U_GH[: 2 * H])
    torch.mm(grad_rows_NG[2 * H :], rh_TBH.flatten(0, 1), out=grad_U_GH[2 * H :])
    return grad_U_GH


class GRUSequence(torch.autograd.Function):
    """The recurrence over T steps, forward and backward written out.

    Inputs: sums_TBG = W x + b + b' for r, z, n; the initial h_BH; U (3H, H). Output: h_TBH.

    With g = ∂L/∂h' and pre-activations s:
        ∂L/∂s_n = g ⊙ z ⊙ φ'(s_n)                 ∂L/∂s_z = g ⊙ (n − h) ⊙ z ⊙ (1 − z)
        q = (∂L/∂s_n) U_n, the gradient at r ⊙ h   ∂L/∂s_r = q ⊙ h ⊙ r ⊙ (1 − r)
        ∂L/∂h = g ⊙ (1 − z) + q ⊙ r + (∂L/∂s_r) U_r + (∂L/∂s_z) U_z
    φ' comes from n (1 − n² for tanh). The factors of g and q are computed for all steps at once
    before the loop, ∂L/∂U after it.
    """

    @staticmethod
    def forward(
        ctx: Any, sums_TBG: Tensor, h_BH: Tensor, U_GH: Tensor, activation: Activation
    ) -> Tensor:
        T, B, G = sums_TBG.shape
        H = G // 3
        h_all = sums_TBG.new_empty(T + 1, B, H)  # h_all[t] is h before step t
        h_all[0] = h_BH
        rz_TBG = sums_TBG.new_empty(T, B, 2 * H)
        n_TBH = sums_TBG.new_empty(T, B, H)
        rh_TBH = sums_TBG.new_empty(T, B, H)
        U_rz_t, U_n_t = U_GH[: 2 * H].t(), U_GH[2 * H :].t()
        activate = activation.into
        # Views are made once, before the loop: for narrow layers they cost as much as the work.
        steps = zip(
            sums_TBG[:, :, : 2 * H].unbind(0),
            sums_TBG[:, :, 2 * H :].unbind(0),
            rz_TBG.unbind(0),
            rz_TBG[:, :, :H].unbind(0),
            rz_TBG[:, :, H:].unbind(0),
            n_TBH.unbind(0),
            rh_TBH.unbind(0),
            h_all[:-1].unbind(0),
            h_all[1:].unbind(0),
            strict=True,
        )
        for sums_rz, sums_n, rz, r, z, n, rh, h, h_next in steps:
            torch.addmm(sums_rz, h, U_rz_t, out=rz).sigmoid_()
            torch.mul(r, h, out=rh)
            torch.addmm(sums_n, rh, U_n_t, out=n)
            activate(n, n)
            torch.lerp(h, n, z, out=h_next)
        ctx.save_for_backward(h_all, rz_TBG, n_TBH, rh_TBH, U_GH)
        ctx.activation = activation
        return h_all[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_TBH: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        h_all, rz_TBG, n_TBH, rh_TBH, U_GH = ctx.saved_tensors
        T, B, H = n_TBH.shape
        h_TBH = h_all[:-1]
        r_TBH, z_TBH = rz_TBG.split(H, dim=2)
        U_rz, U_n = U_GH[: 2 * H], U_GH[2 * H :]
        keep_TBH = 1 - z_TBH
        slope_n = ctx.activation.slope(n_TBH).mul_(z_TBH)
        slope_z = (n_TBH - h_TBH) * (z_TBH * keep_TBH)
        slope_r = rh_TBH * (1 - r_TBH)
        grad_sums_TBG = grad_h_TBH.new_empty(T, B, 3 * H)
        grad_h_BH = grad_h_TBH[-1].clone()
        q_BH = torch.empty_like(grad_h_BH)
        views = (
            grad_sums_TBG[:, :, :H],
            grad_sums_TBG[:, :, H : 2 * H],
            grad_sums_TBG[:, :, : 2 * H],
            grad_sums_TBG[:, :, 2 * H :],
            *(slope_r, slope_z, slope_n, keep_TBH, r_TBH),
        )
        steps = list(zip(*(view.unbind(0) for view in views), strict=True))
        grad_h = grad_h_TBH.unbind(0)
        for t in range(T - 1, -1, -1):
            grad_r, grad_z, grad_rz, grad_n, slope_r_t, slope_z_t, slope_n_t, keep, r = steps[t]
            torch.mul(grad_h_BH, slope_z_t, out=grad_z)
            torch.mul(grad_h_BH, slope_n_t, out=grad_n)
            torch.mm(grad_n, U_n, out=q_BH)
            torch.mul(q_BH, slope_r_t, out=grad_r)
            grad_h_BH.mul_(keep).addcmul_(q_BH, r).addmm_(grad_rz, U_rz)
            if t:
                grad_h_BH.add_(grad_h[t - 1])
        grad_U_GH = gradient_of_U(grad_sums_TBG, h_TBH, rh_TBH)
        return grad_sums_TBG, grad_h_BH, grad_U_GH, None
