"""The sequence of the plain RNN with compiled steps; equations and notation in ../rnn.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charcmp.models.cells.compiled.steps import (
    numbers_at_once,
    part_of_thread,
    rnn_back,
    rnn_state,
)


class CompiledRNN(torch.autograd.Function):
    """The recurrence over T steps, as RNNSequence has it, with tanh."""

    @staticmethod
    def forward(ctx: Any, sums_TBH: Tensor, h_BH: Tensor, U_HH: Tensor) -> Tensor:
        T, B, H = sums_TBH.shape
        h_all = sums_TBH.new_empty(T + 1, B, H)  # h_all[t] is h before step t
        h_all[0] = h_BH
        U_t = U_HH.t()
        h, h_steps = h_all.numpy(), h_all.unbind(0)
        part, at_once = part_of_thread(B * H), numbers_at_once()
        for t, sums in enumerate(sums_TBH.unbind(0)):
            torch.addmm(sums, h_steps[t], U_t, out=h_steps[t + 1])
            rnn_state(h, t, part, at_once)
        ctx.save_for_backward(h_all, U_HH)
        return h_all[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_TBH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h_all, U_HH = ctx.saved_tensors
        T, B, H = grad_h_TBH.shape
        grad_sums_TBH = grad_h_TBH.new_empty(T, B, H)
        grad_h, grad_sums = grad_h_TBH.unbind(0), grad_sums_TBH.unbind(0)
        h, sums = h_all.numpy(), grad_sums_TBH.numpy()
        last = T - 1
        grad_sums[last].copy_(grad_h[last])
        rnn_back(sums, h, last)
        for t in range(last - 1, -1, -1):
            torch.addmm(grad_h[t], grad_sums[t + 1], U_HH, out=grad_sums[t])
            rnn_back(sums, h, t)
        grad_U_HH = grad_sums_TBH.flatten(0, 1).t() @ h_all[:-1].flatten(0, 1)
        return grad_sums_TBH, grad_sums[0] @ U_HH, grad_U_HH
