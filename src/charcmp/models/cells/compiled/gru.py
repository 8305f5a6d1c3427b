"""The sequence of the paper's GRU with compiled steps; equations and notation in ../gru.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charcmp.models.cells.compiled.steps import (
    gru_gates,
    gru_gates_back,
    gru_state,
    gru_state_back,
    numbers_at_once,
    part_of_thread,
)
from charcmp.models.cells.gru import gradient_of_U


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
        part_rz, part_n = part_of_thread(B * 2 * H), part_of_thread(B * H)
        at_once = numbers_at_once()
        h, rz, n, rh = (x.numpy() for x in (h_all, rz_TBG, n_TBH, rh_TBH))
        steps = zip(
            sums_TBG[:, :, : 2 * H].unbind(0),
            sums_TBG[:, :, 2 * H :].unbind(0),
            *(rz_TBG.unbind(0), n_TBH.unbind(0), rh_TBH.unbind(0), h_all[:-1].unbind(0)),
            strict=True,
        )
        for t, (sums_rz, sums_n, rz_t, n_t, rh_t, h_t) in enumerate(steps):
            torch.addmm(sums_rz, h_t, U_rz_t, out=rz_t)
            gru_gates(rz, h, rh, t, part_rz, at_once)
            torch.addmm(sums_n, rh_t, U_n_t, out=n_t)
            gru_state(rz, n, h, t, part_n, at_once)
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
