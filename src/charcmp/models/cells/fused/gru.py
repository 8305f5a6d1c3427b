"""The sequence of the paper's GRU, fused; equations and notation in ../gru.py.

Four launches a step in each direction: two products, and a kernel after each (forward) or before
each (backward).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from charcmp.models.cells.fused.elementwise import BLOCK, activation, grid, launching, place, slope


@triton.jit(do_not_specialize=["t", "H"])
def gru_gates(sums_TBG, gates_TBG, h_all, rh_TBH, t, H, BLOCK: tl.constexpr):
    """Overwrites r and z, which hold U h, by σ(sums + U h); then computes r ⊙ h."""
    row, unit, exists = place(t, H, BLOCK)
    here, wide = row * H + unit, row * (3 * H) + unit
    r_at, z_at = gates_TBG + wide, gates_TBG + wide + H
    r = tl.sigmoid(tl.load(sums_TBG + wide, mask=exists) + tl.load(r_at, mask=exists))
    z = tl.sigmoid(tl.load(sums_TBG + wide + H, mask=exists) + tl.load(z_at, mask=exists))
    tl.store(r_at, r, mask=exists)
    tl.store(z_at, z, mask=exists)
    tl.store(rh_TBH + here, r * tl.load(h_all + here, mask=exists), mask=exists)


@triton.jit(do_not_specialize=["t", "H"])
def gru_state(sums_TBG, gates_TBG, h_all, t, H, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """Overwrites n, which holds U (r ⊙ h), by φ(sums + U (r ⊙ h)); then computes h'."""
    row, unit, exists = place(t, H, BLOCK)
    wide = row * (3 * H) + unit
    n_at = gates_TBG + wide + 2 * H
    s_n = tl.load(sums_TBG + wide + 2 * H, mask=exists) + tl.load(n_at, mask=exists)
    n = activation(s_n, ACTIVATION)
    z = tl.load(gates_TBG + wide + H, mask=exists)
    h = tl.load(h_all + row * H + unit, mask=exists)
    tl.store(n_at, n, mask=exists)
    tl.store(h_all + (row + tl.num_programs(0)) * H + unit, h + z * (n - h), mask=exists)


@triton.jit(do_not_specialize=["t", "H"])
def gru_state_back(
    grad_h_TBH,
    grad_h_BH,
    gates_TBG,
    h_all,
    grad_sums_TBG,
    t,
    H,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes ∂L/∂s_z and ∂L/∂s_n from g, which comes from above and from the next step."""
    row, unit, exists = place(t, H, BLOCK)
    here, wide = row * H + unit, row * (3 * H) + unit
    g = tl.load(grad_h_TBH + here, mask=exists)
    g += tl.load(grad_h_BH + tl.program_id(0) * H + unit, mask=exists)
    z = tl.load(gates_TBG + wide + H, mask=exists)
    n = tl.load(gates_TBG + wide + 2 * H, mask=exists)
    h = tl.load(h_all + here, mask=exists)
    tl.store(grad_sums_TBG + wide + H, g * (n - h) * (z * (1.0 - z)), mask=exists)
    tl.store(grad_sums_TBG + wide + 2 * H, g * z * slope(n, ACTIVATION), mask=exists)


@triton.jit(do_not_specialize=["t", "H"])
def gru_gates_back(
    grad_h_TBH, grad_h_BH, q_BH, gates_TBG, h_all, grad_sums_TBG, t, H, BLOCK: tl.constexpr
):
    """Computes ∂L/∂s_r; overwrites what came from the next step by g ⊙ (1 − z) + q ⊙ r."""
    row, unit, exists = place(t, H, BLOCK)
    here, wide = row * H + unit, row * (3 * H) + unit
    in_batch = tl.program_id(0) * H + unit
    g = tl.load(grad_h_TBH + here, mask=exists) + tl.load(grad_h_BH + in_batch, mask=exists)
    q = tl.load(q_BH + in_batch, mask=exists)
    r = tl.load(gates_TBG + wide, mask=exists)
    z = tl.load(gates_TBG + wide + H, mask=exists)
    h = tl.load(h_all + here, mask=exists)
    tl.store(grad_sums_TBG + wide, q * h * (r * (1.0 - r)), mask=exists)
    tl.store(grad_h_BH + in_batch, g * (1.0 - z) + q * r, mask=exists)


class FusedGRU(torch.autograd.Function):
    """`GRUSequence`, fused; the activation is given by name."""

    @staticmethod
    def forward(ctx: Any, sums_TBG: Tensor, h_BH: Tensor, U_GH: Tensor, activation: str) -> Tensor:
        sums_TBG = sums_TBG.contiguous()
        T, B, G = sums_TBG.shape
        H = G // 3
        h_all = sums_TBG.new_empty(T + 1, B, H)  # h_all[t] is h before step t
        h_all[0] = h_BH
        gates_TBG = torch.empty_like(sums_TBG)  # r, z, n
        rh_TBH = sums_TBG.new_empty(T, B, H)
        U_rz_t, U_n_t = U_GH[: 2 * H].t(), U_GH[2 * H :].t()
        with launching(sums_TBG, "gru", activation):
            for t in range(T):
                torch.mm(h_all[t], U_rz_t, out=gates_TBG[t, :, : 2 * H])
                gru_gates[grid(h_BH)](sums_TBG, gates_TBG, h_all, rh_TBH, t, H, BLOCK)
                torch.mm(rh_TBH[t], U_n_t, out=gates_TBG[t, :, 2 * H :])
                gru_state[grid(h_BH)](sums_TBG, gates_TBG, h_all, t, H, activation, BLOCK)
        ctx.save_for_backward(h_all, gates_TBG, rh_TBH, U_GH)
        ctx.activation = activation
        return h_all[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_TBH: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        h_all, gates_TBG, rh_TBH, U_GH = ctx.saved_tensors
        grad_h_TBH = grad_h_TBH.contiguous()
        T, B, H = grad_h_TBH.shape
        U_rz, U_n = U_GH[: 2 * H], U_GH[2 * H :]
        grad_sums_TBG = torch.empty_like(gates_TBG)
        grad_h_BH = grad_h_TBH.new_zeros(B, H)  # gradient from the steps after t
        q_BH = torch.empty_like(grad_h_BH)
        with torch.cuda.device_of(grad_h_TBH):
            for t in reversed(range(T)):
                grads = grad_h_TBH, grad_h_BH
                values = gates_TBG, h_all
                gru_state_back[grid(q_BH)](
                    *grads, *values, grad_sums_TBG, t, H, ctx.activation, BLOCK
                )
                torch.mm(grad_sums_TBG[t, :, 2 * H :], U_n, out=q_BH)
                gru_gates_back[grid(q_BH)](*grads, q_BH, *values, grad_sums_TBG, t, H, BLOCK)
                grad_h_BH.addmm_(grad_sums_TBG[t, :, : 2 * H], U_rz)
        grad_U_GH = torch.empty_like(U_GH)
        grad_rows_NG = grad_sums_TBG.flatten(0, 1).t()
        torch.mm(grad_rows_NG[: 2 * H], h_all[:-1].flatten(0, 1), out=grad_U_GH[: 2 * H])
        torch.mm(grad_rows_NG[2 * H :], rh_TBH.flatten(0, 1), out=grad_U_GH[2 * H :])
        return grad_sums_TBG, grad_h_BH, grad_U_GH, None
