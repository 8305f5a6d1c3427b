"""The sequence of the LSTM with compiled steps; equations and notation in ../lstm.py."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from charcmp.models.cells.compiled.steps import (
    lstm_back,
    lstm_state,
    numbers_at_once,
    part_of_thread,
)
from charcmp.models.cells.lstm import PRODUCT_TILE


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
        parts = part_of_thread(B * G), part_of_thread(B * H), numbers_at_once()
        gates, g, phi_c, c, h = (x.numpy() for x in (gates_TBG, g_BH, phi_c_TBH, c_all, h_all))
        steps = zip(sums_TBG.unbind(0), h_all[:-1].unbind(0), gates_TBG.unbind(0), strict=True)
        for t, (sums_t, h_t, gates_t) in enumerate(steps):
            torch.addmm(sums_t, h_t, U_t, out=gates_t)
            lstm_state(gates, g, phi_c, c, h, t, *parts)
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
