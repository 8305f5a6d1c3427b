"""The sequence of the paper's GRU with compiled steps; equations and notation in ../gru.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charcmp.models.cells.compiled.elementwise import (
    F2,
    F3,
    HALF,
    INT,
    ONE,
    fma,
    remainder,
    step,
    tanh_slope,
    to_sigmoid,
    to_tanh,
)
from charcmp.models.cells.gru import gradient_of_U


@step(F3, F3, F3, INT, INT)
def gru_gates(rz_TBG: Any, h_all: Any, rh_TBH: Any, t: int, num_single: int) -> None:
    """Overwrites the sums of r and z by their σ; then computes r ⊙ h."""
    _, B, H = rh_TBH.shape
    all_rz = rz_TBG[t].ravel()
    to_sigmoid(all_rz, num_single)
    for b in range(B):
        rz, h, rh = rz_TBG[t, b], h_all[t, b], rh_TBH[t, b]
        for j in range(H):
            rh[j] = rz[j] * h[j]


@step(F3, F3, F3, INT, INT)
def gru_state(rz_TBG: Any, n_TBH: Any, h_all: Any, t: int, num_single: int) -> None:
    """Overwrites the sums of n by their tanh; then computes h'."""
    _, B, H = n_TBH.shape
    all_n = n_TBH[t].ravel()
    to_tanh(all_n, num_single)
    for b in range(B):
        z, n, h, h_next = rz_TBG[t, b, H:], n_TBH[t, b], h_all[t, b], h_all[t + 1, b]
        for j in range(H):  # torch.lerp, which starts from the nearer end
            way = n[j] - h[j]
            h_next[j] = fma(z[j], way, h[j]) if z[j] < HALF else fma(z[j] - ONE, way, n[j])


@step(F2, F3, F3, F3, F3, F3, INT)
def gru_state_back(
    grad_h_BH: Any, above_TBH: Any, rz_TBG: Any, n_TBH: Any, h_all: Any, grad_sums_TBG: Any, t: int
) -> None:
    """Adds to g what comes from above, which makes it ∂L/∂h'; then computes ∂L/∂s_z and ∂L/∂s_n."""
    _, B, H = n_TBH.shape
    for b in range(B):
        g, z, n, h = grad_h_BH[b], rz_TBG[t, b, H:], n_TBH[t, b], h_all[t, b]
        above = above_TBH[t, b]
        for j in range(H):
            g[j] += above[j]
        grad_z, grad_n = grad_sums_TBG[t, b, H : 2 * H], grad_sums_TBG[t, b, 2 * H :]
        for j in range(H):
            grad_z[j] = g[j] * ((n[j] - h[j]) * (z[j] * (ONE - z[j])))
        for j in range(H):
            grad_n[j] = g[j] * (tanh_slope(n[j]) * z[j])


@step(F2, F2, F3, F3, F3, INT)
def gru_gates_back(
    q_BH: Any, grad_h_BH: Any, rz_TBG: Any, rh_TBH: Any, grad_sums_TBG: Any, t: int
) -> None:
    """Computes ∂L/∂s_r, and the part of ∂L/∂h that takes no product with U_rz, from q."""
    _, B, H = rh_TBH.shape
    for b in range(B):
        q, g = q_BH[b], grad_h_BH[b]
        r, z, rh = rz_TBG[t, b, :H], rz_TBG[t, b, H:], rh_TBH[t, b]
        grad_r = grad_sums_TBG[t, b, :H]
        for j in range(H):
            grad_r[j] = q[j] * (rh[j] * (ONE - r[j]))
        for j in range(H):
            g[j] = fma(q[j], r[j], g[j] * (ONE - z[j]))


class CompiledGRU(torch.autograd.Function):
    """The recurrence over T steps, as GRUSequence has it, with tanh."""

    @staticmethod
    def forward(ctx: Any, sums_TBG: Tensor, h_BH: Tensor, U_GH: Tensor) -> Tensor:
        T, B, G = sums_TBG.shape
        H = G // 3
        h_all = sums_TBG.new_empty(T + 1, B, H)  # h_all[t] is h before step t
        h_all[0] = h_BH
        rz_TBG = sums_TBG.new_empty(T, B, 2 * H)
        n_TBH, rh_TBH = sums_TBG.new_empty(T, B, H), sums_TBG.new_empty(T, B, H)
        U_rz_t, U_n_t = U_GH[: 2 * H].t(), U_GH[2 * H :].t()
        single_rz, single_n = remainder(B * 2 * H), remainder(B * H)
        h, rz, n, rh = (x.numpy() for x in (h_all, rz_TBG, n_TBH, rh_TBH))
        steps = zip(
            sums_TBG[:, :, : 2 * H].unbind(0),
            sums_TBG[:, :, 2 * H :].unbind(0),
            *(rz_TBG.unbind(0), n_TBH.unbind(0), rh_TBH.unbind(0), h_all[:-1].unbind(0)),
            strict=True,
        )
        for t, (sums_rz, sums_n, rz_t, n_t, rh_t, h_t) in enumerate(steps):
            torch.addmm(sums_rz, h_t, U_rz_t, out=rz_t)
            gru_gates(rz, h, rh, t, single_rz)
            torch.addmm(sums_n, rh_t, U_n_t, out=n_t)
            gru_state(rz, n, h, t, single_n)
        ctx.save_for_backward(h_all, rz_TBG, n_TBH, rh_TBH, U_GH)
        return h_all[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_TBH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h_all, rz_TBG, n_TBH, rh_TBH, U_GH = ctx.saved_tensors
        T, B, H = n_TBH.shape
        U_rz, U_n = U_GH[: 2 * H], U_GH[2 * H :]
        grad_sums_TBG = grad_h_TBH.new_empty(T, B, 3 * H)
        grad_h_BH, q_BH = grad_h_TBH.new_zeros(B, H), grad_h_TBH.new_empty(B, H)
        arrays = (grad_h_TBH.contiguous(), h_all, rz_TBG, n_TBH, rh_TBH)
        above, h, rz, n, rh, sums, g, q = (
            x.numpy() for x in (*arrays, grad_sums_TBG, grad_h_BH, q_BH)
        )
        grad_rz = grad_sums_TBG[:, :, : 2 * H].unbind(0)
        grad_n = grad_sums_TBG[:, :, 2 * H :].unbind(0)
        for t in range(T - 1, -1, -1):
            gru_state_back(g, above, rz, n, h, sums, t)
            torch.mm(grad_n[t], U_n, out=q_BH)
            gru_gates_back(q, g, rz, rh, sums, t)
            grad_h_BH.addmm_(grad_rz[t], U_rz)
        grad_U_GH = gradient_of_U(grad_sums_TBG, h_all[:-1], rh_TBH)
        return grad_sums_TBG, grad_h_BH, grad_U_GH
