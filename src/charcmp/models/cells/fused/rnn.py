"""The plain recurrent network's sequence, fused; equations and notation in ../rnn.py.

Two launches a step in each direction: the product, and one kernel.
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
def rnn_step(sums_TBH, h_all, t, H, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """Overwrites h', which holds U h, by φ(sums + U h)."""
    row, unit, exists = place(t, H, BLOCK)
    sums = tl.load(sums_TBH + row * H + unit, mask=exists)
    h_next = h_all + (row + tl.num_programs(0)) * H + unit
    tl.store(h_next, activation(sums + tl.load(h_next, mask=exists), ACTIVATION), mask=exists)


@triton.jit(do_not_specialize=["t", "H"])
def rnn_step_back(
    grad_h_TBH,
    grad_h_BH,
    h_all,
    grad_sums_TBH,
    t,
    H,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes ∂L/∂s = φ'(s) ⊙ ∂L/∂h'; ∂L/∂h' comes from above and from the next step."""
    row, unit, exists = place(t, H, BLOCK)
    here = row * H + unit
    grad_h = tl.load(grad_h_TBH + here, mask=exists)
    grad_h += tl.load(grad_h_BH + tl.program_id(0) * H + unit, mask=exists)
    h_next = tl.load(h_all + (row + tl.num_programs(0)) * H + unit, mask=exists)
    tl.store(grad_sums_TBH + here, grad_h * slope(h_next, ACTIVATION), mask=exists)


class FusedRNN(torch.autograd.Function):
    """`RNNSequence`, fused; the activation is given by name."""

    @staticmethod
    def forward(ctx: Any, sums_TBH: Tensor, h_BH: Tensor, U_HH: Tensor, activation: str) -> Tensor:
        sums_TBH = sums_TBH.contiguous()
        T, B, H = sums_TBH.shape
        h_all = sums_TBH.new_empty(T + 1, B, H)  # h_all[t] is h before step t
        h_all[0] = h_BH
        U_t = U_HH.t()
        with launching(sums_TBH, "rnn", activation):
            for t in range(T):
                torch.mm(h_all[t], U_t, out=h_all[t + 1])
                rnn_step[grid(h_BH)](sums_TBH, h_all, t, H, activation, BLOCK)
        ctx.save_for_backward(h_all, U_HH)
        ctx.activation = activation
        return h_all[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_TBH: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        h_all, U_HH = ctx.saved_tensors
        grad_h_TBH = grad_h_TBH.contiguous()
        T, B, H = grad_h_TBH.shape
        grad_sums_TBH = torch.empty_like(grad_h_TBH)
        grad_h_BH = grad_h_TBH.new_zeros(B, H)  # gradient from the steps after t
        with torch.cuda.device_of(grad_h_TBH):
            for t in reversed(range(T)):
                rnn_step_back[grid(grad_h_BH)](
                    grad_h_TBH, grad_h_BH, h_all, grad_sums_TBH, t, H, ctx.activation, BLOCK
                )
                torch.mm(grad_sums_TBH[t], U_HH, out=grad_h_BH)
        grad_U_HH = grad_sums_TBH.flatten(0, 1).t() @ h_all[:-1].flatten(0, 1)
        return grad_sums_TBH, grad_h_BH, grad_U_HH, None
