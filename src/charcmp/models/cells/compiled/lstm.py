"""The sequence of the LSTM with compiled steps; equations and notation in ../lstm.py."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from charcmp.models.cells.compiled.elementwise import (
    F2,
    F3,
    INT,
    fma,
    remainder,
    sigmoid_slope,
    step,
    tanh_slope,
    to_sigmoid,
    to_tanh,
)
from charcmp.models.cells.lstm import PRODUCT_TILE


@step(F3, F2, F3, F3, F3, INT, INT, INT)
def lstm_state(
    gates_TBG: Any, g_BH: Any, phi_c_TBH: Any, c_all: Any, h_all: Any, t: int,
    single_gates: int, single_state: int,
) -> None:  # fmt: skip
    """Overwrites the gates' sums by i, f, g and o; then computes c', φ(c') and h'."""
    _, B, H = phi_c_TBH.shape
    for b in range(B):
        s_g, g = gates_TBG[t, b, 2 * H : 3 * H], g_BH[b]
        for j in range(H):
            g[j] = s_g[j]
    all_gates, all_g, all_phi_c = gates_TBG[t].ravel(), g_BH.ravel(), phi_c_TBH[t].ravel()
    to_sigmoid(all_gates, single_gates)  # of g too, overwritten next: whole arrays are faster
    to_tanh(all_g, single_state)
    for b in range(B):
        gates, g, phi_c = gates_TBG[t, b], g_BH[b], phi_c_TBH[t, b]
        c, c_next = c_all[t, b], c_all[t + 1, b]
        for j in range(H):
            gates[2 * H + j] = g[j]
        for j in range(H):
            c_next[j] = fma(gates[j], g[j], gates[H + j] * c[j])
        for j in range(H):
            phi_c[j] = c_next[j]
    to_tanh(all_phi_c, single_state)
    for b in range(B):
        o, phi_c, h_next = gates_TBG[t, b, 3 * H :], phi_c_TBH[t, b], h_all[t + 1, b]
        for j in range(H):
            h_next[j] = o[j] * phi_c[j]


@step(F3, F3, F3, F3, F3, F3, INT)
def lstm_back(
    grad_h_all: Any, grad_c_all: Any, gates_TBG: Any, phi_c_TBH: Any, c_all: Any,
    grad_sums_TBG: Any, t: int,
) -> None:  # fmt: skip
    """Computes ∂L/∂s for i, f, g and o, and ∂L/∂c, from e = ∂L/∂h' and q = ∂L/∂c'."""
    _, B, H = phi_c_TBH.shape
    for b in range(B):
        gates, phi_c, c = gates_TBG[t, b], phi_c_TBH[t, b], c_all[t, b]
        i, f, g, o = gates[:H], gates[H : 2 * H], gates[2 * H : 3 * H], gates[3 * H :]
        e, q, grad_c = grad_h_all[t + 1, b], grad_c_all[t + 1, b], grad_c_all[t, b]
        grad_s = grad_sums_TBG[t, b]
        grad_i, grad_f = grad_s[:H], grad_s[H : 2 * H]
        grad_g, grad_o = grad_s[2 * H : 3 * H], grad_s[3 * H :]
        for j in range(H):
            q[j] = fma(e[j], tanh_slope(phi_c[j]) * o[j], q[j])
        for j in range(H):
            grad_i[j] = q[j] * (g[j] * sigmoid_slope(i[j]))
        for j in range(H):
            grad_f[j] = q[j] * (c[j] * sigmoid_slope(f[j]))
        for j in range(H):
            grad_g[j] = q[j] * (i[j] * tanh_slope(g[j]))
        for j in range(H):
            grad_o[j] = e[j] * (phi_c[j] * sigmoid_slope(o[j]))
        for j in range(H):
            grad_c[j] = q[j] * f[j]


class CompiledLSTM(torch.autograd.Function):
    """The recurrence over T steps, as LSTMSequence has it, with tanh."""

    @staticmethod
    def forward(
        ctx: Any, sums_TBG: Tensor, h_BH: Tensor, c_BH: Tensor, U_GH: Tensor
    ) -> tuple[Tensor, Tensor]:
        T, B, G = sums_TBG.shape
        H = G // 4
        h_all, c_all = sums_TBG.new_empty(T + 1, B, H), sums_TBG.new_empty(T + 1, B, H)
        h_all[0], c_all[0] = h_BH, c_BH  # h_all[t], c_all[t] are the state before step t
        gates_TBG = sums_TBG.new_empty(T, B, G)
        phi_c_TBH, g_BH = sums_TBG.new_empty(T, B, H), sums_TBG.new_empty(B, H)
        U_t = U_GH.t()
        single = remainder(B * G), remainder(B * H)
        gates, g, phi_c, c, h = (x.numpy() for x in (gates_TBG, g_BH, phi_c_TBH, c_all, h_all))
        steps = zip(sums_TBG.unbind(0), h_all[:-1].unbind(0), gates_TBG.unbind(0), strict=True)
        for t, (sums_t, h_t, gates_t) in enumerate(steps):
            torch.addmm(sums_t, h_t, U_t, out=gates_t)
            lstm_state(gates, g, phi_c, c, h, t, *single)
        ctx.save_for_backward(h_all, c_all, gates_TBG, phi_c_TBH, U_GH)
        c_last = c_all[-1].clone()
        ctx.mark_non_differentiable(c_last)
        return h_all[1:], c_last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_h_TBH: Tensor, _grad_c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h_all, c_all, gates_TBG, phi_c_TBH, U_GH = ctx.saved_tensors
        T, B, H = phi_c_TBH.shape
        more = -H % PRODUCT_TILE  # as in LSTMBackward
        U_wide = F.pad(U_GH, (0, more))
        grad_h_wide = F.pad(grad_h_TBH, (0, more, 0, 0, 1, 0))  # row 0, in front, is zeros
        grad_c_all = grad_h_TBH.new_empty(T + 1, B, H)
        grad_c_all[T] = 0
        grad_sums_TBG = gates_TBG.new_empty(T, B, 4 * H)
        arrays = (grad_h_wide, grad_c_all, gates_TBG, phi_c_TBH, c_all, grad_sums_TBG)
        views = [x.numpy() for x in arrays]
        steps = list(zip(grad_h_wide[:-1].unbind(0), grad_sums_TBG.unbind(0), strict=True))
        for t in range(T - 1, -1, -1):
            lstm_back(*views, t)
            h_before, sums_t = steps[t]
            h_before.addmm_(sums_t, U_wide)
        grad_U_GH = grad_sums_TBG.flatten(0, 1).t() @ h_all[:-1].flatten(0, 1)
        return grad_sums_TBG, grad_h_wide[0, :, :H], grad_c_all[0], grad_U_GH
