"""The sequence of every LSTM here, fused; the gates' equations are in the cells' files.

    a = W x + b     u = U h + b'     p = w ⊙ c (w ⊙ c' for o); none without peepholes
    i, f, o = y(a, u, p)     g = φ(a_g + u_g)     c' = f ⊙ c + i ⊙ g     h' = o ⊙ φ(c')

The name of the gates says what y is:
    sum         σ(a + u + p)                    ../lstm.py, ../lstm_peephole.py
    softmax     σ(3 (α_a a + α_u u + α_p p))    ../lstm_softmax_gate.py
    cascaded    σ(a) σ(u) σ(p)                  ../lstm_cascaded_gate.py
Two launches a step in each direction: the product, and one kernel. The backward kernel computes the
gates again from a, u and c, which costs less than storing and loading all that their slopes need.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from charcmp.models.cells.fused.elementwise import BLOCK, activation, grid, launching, place, slope


@triton.jit
def gate(a, u, p, GATES: tl.constexpr):
    """Computes y(a, u, p), ∂y/∂a, ∂y/∂u and ∂y/∂p."""
    if GATES == "sum":
        y = tl.sigmoid(a + u + p)
        slope_a = y * (1.0 - y)
        slope_u = slope_a
        slope_p = slope_a
    elif GATES == "softmax":
        top = tl.maximum(a, tl.maximum(u, p))
        e_a, e_u, e_p = tl.exp(a - top), tl.exp(u - top), tl.exp(p - top)
        total = e_a + e_u + e_p
        v = (e_a * a + e_u * u + e_p * p) / total
        y = tl.sigmoid(3.0 * v)
        slope_e = 3.0 * y * (1.0 - y) / total
        slope_a = slope_e * e_a * (1.0 + a - v)
        slope_u = slope_e * e_u * (1.0 + u - v)
        slope_p = slope_e * e_p * (1.0 + p - v)
    else:
        tl.static_assert(GATES == "cascaded")
        open_a, open_u, open_p = tl.sigmoid(a), tl.sigmoid(u), tl.sigmoid(p)
        y = open_a * open_u * open_p
        slope_a = y * (1.0 - open_a)
        slope_u = y * (1.0 - open_u)
        slope_p = y * (1.0 - open_p)
    return y, slope_a, slope_u, slope_p


@triton.jit
def load_four(sums_G, H, exists):
    """Loads the four sums of a hidden unit, from a pointer to the first."""
    return (
        tl.load(sums_G, mask=exists),
        tl.load(sums_G + H, mask=exists),
        tl.load(sums_G + 2 * H, mask=exists),
        tl.load(sums_G + 3 * H, mask=exists),
    )


@triton.jit
def load_sources(a_TBG, u_TBG, b_G, row, unit, H, exists):
    """Loads a and u of i, f, g, o. u_TBG holds U h, without b'."""
    a_i, a_f, a_g, a_o = load_four(a_TBG + row * (4 * H) + unit, H, exists)
    u_i, u_f, u_g, u_o = load_four(u_TBG + row * (4 * H) + unit, H, exists)
    b_i, b_f, b_g, b_o = load_four(b_G + unit, H, exists)
    return a_i, a_f, a_g, a_o, u_i + b_i, u_f + b_f, u_g + b_g, u_o + b_o


@triton.jit
def load_peepholes(w_PH, unit, H, exists):
    """Loads w_i, w_f, w_o; zeros if the cell has none."""
    if w_PH is None:
        w_i = 0.0
        w_f = 0.0
        w_o = 0.0
    else:
        w_i = tl.load(w_PH + unit, mask=exists)
        w_f = tl.load(w_PH + H + unit, mask=exists)
        w_o = tl.load(w_PH + 2 * H + unit, mask=exists)
    return w_i, w_f, w_o


@triton.jit(do_not_specialize=["t", "H"])
def lstm_step(
    a_TBG,
    u_TBG,
    b_G,
    w_PH,
    c_all,
    h_all,
    t,
    H,
    GATES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes c' and h' from a, U h and c."""
    row, unit, exists = place(t, H, BLOCK)
    here, after = row * H + unit, (row + tl.num_programs(0)) * H + unit
    a_i, a_f, a_g, a_o, u_i, u_f, u_g, u_o = load_sources(a_TBG, u_TBG, b_G, row, unit, H, exists)
    w_i, w_f, w_o = load_peepholes(w_PH, unit, H, exists)
    c = tl.load(c_all + here, mask=exists)
    i, _, _, _ = gate(a_i, u_i, w_i * c, GATES)
    f, _, _, _ = gate(a_f, u_f, w_f * c, GATES)
    c_next = f * c + i * activation(a_g + u_g, ACTIVATION)
    o, _, _, _ = gate(a_o, u_o, w_o * c_next, GATES)
    tl.store(c_all + after, c_next, mask=exists)
    tl.store(h_all + after, o * activation(c_next, ACTIVATION), mask=exists)


@triton.jit(do_not_specialize=["t", "H"])
def lstm_step_back(
    grad_h_TBH,
    grad_h_BH,
    grad_c_BH,
    a_TBG,
    u_TBG,
    b_G,
    w_PH,
    c_all,
    grad_a_TBG,
    grad_u_TBG,
    grad_w_BPH,
    t,
    H,
    GATES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes ∂L/∂a and ∂L/∂u, overwrites grad_c by ∂L/∂c, adds to ∂L/∂w (e, q: ../lstm.py)."""
    row, unit, exists = place(t, H, BLOCK)
    here, wide = row * H + unit, row * (4 * H) + unit
    in_batch = tl.program_id(0) * H + unit
    a_i, a_f, a_g, a_o, u_i, u_f, u_g, u_o = load_sources(a_TBG, u_TBG, b_G, row, unit, H, exists)
    w_i, w_f, w_o = load_peepholes(w_PH, unit, H, exists)
    c = tl.load(c_all + here, mask=exists)
    c_next = tl.load(c_all + here + tl.num_programs(0) * H, mask=exists)
    i, i_a, i_u, i_p = gate(a_i, u_i, w_i * c, GATES)
    f, f_a, f_u, f_p = gate(a_f, u_f, w_f * c, GATES)
    o, o_a, o_u, o_p = gate(a_o, u_o, w_o * c_next, GATES)
    g = activation(a_g + u_g, ACTIVATION)
    phi_c = activation(c_next, ACTIVATION)

    e = tl.load(grad_h_TBH + here, mask=exists) + tl.load(grad_h_BH + in_batch, mask=exists)
    q = tl.load(grad_c_BH + in_batch, mask=exists) + e * o * slope(phi_c, ACTIVATION)
    grad_o = e * phi_c
    q += grad_o * o_p * w_o
    grad_i = q * g
    grad_f = q * c
    grad_g = q * i * slope(g, ACTIVATION)
    grad_c = q * f + grad_i * i_p * w_i + grad_f * f_p * w_f

    tl.store(grad_c_BH + in_batch, grad_c, mask=exists)
    tl.store(grad_u_TBG + wide, grad_i * i_u, mask=exists)
    tl.store(grad_u_TBG + wide + H, grad_f * f_u, mask=exists)
    tl.store(grad_u_TBG + wide + 2 * H, grad_g, mask=exists)
    tl.store(grad_u_TBG + wide + 3 * H, grad_o * o_u, mask=exists)
    if GATES != "sum":  # else both are the same array
        tl.store(grad_a_TBG + wide, grad_i * i_a, mask=exists)
        tl.store(grad_a_TBG + wide + H, grad_f * f_a, mask=exists)
        tl.store(grad_a_TBG + wide + 2 * H, grad_g, mask=exists)
        tl.store(grad_a_TBG + wide + 3 * H, grad_o * o_a, mask=exists)
    if w_PH is not None:  # each stream sums its own steps: no other program writes here
        grad_w = grad_w_BPH + tl.program_id(0) * (3 * H) + unit
        grad_w_i = tl.load(grad_w, mask=exists) + grad_i * i_p * c
        grad_w_f = tl.load(grad_w + H, mask=exists) + grad_f * f_p * c
        grad_w_o = tl.load(grad_w + 2 * H, mask=exists) + grad_o * o_p * c_next
        tl.store(grad_w, grad_w_i, mask=exists)
        tl.store(grad_w + H, grad_w_f, mask=exists)
        tl.store(grad_w + 2 * H, grad_w_o, mask=exists)


class FusedLSTM(torch.autograd.Function):
    """The recurrence over T steps, forward and backward written out.

    Inputs: a_TBG = W x + b for i, f, g, o; the initial h_BH and c_BH; U (4H, H) and b' (4H); the
    peepholes (3, H) or None; the names of the activation and of the gates (above). Outputs: h_TBH
    and the last c_BH, which takes no gradient (see ../lstm.py).
    """

    @staticmethod
    def forward(
        ctx: Any,
        a_TBG: Tensor,
        h_BH: Tensor,
        c_BH: Tensor,
        U_GH: Tensor,
        b_G: Tensor,
        w_PH: Tensor | None,
        activation: str,
        gates: str,
    ) -> tuple[Tensor, Tensor]:
        a_TBG = a_TBG.contiguous()
        T, B, G = a_TBG.shape
        H = G // 4
        h_all, c_all = a_TBG.new_empty(T + 1, B, H), a_TBG.new_empty(T + 1, B, H)
        h_all[0], c_all[0] = h_BH, c_BH  # h_all[t], c_all[t] are the state before step t
        u_TBG = torch.empty_like(a_TBG)
        U_t = U_GH.t()
        weights = b_G, w_PH
        with launching(a_TBG, "lstm", activation, gates, w_PH is None):
            for t in range(T):
                torch.mm(h_all[t], U_t, out=u_TBG[t])
                lstm_step[grid(h_BH)](
                    a_TBG, u_TBG, *weights, c_all, h_all, t, H, gates, activation, BLOCK
                )
        ctx.save_for_backward(a_TBG, u_TBG, h_all, c_all, U_GH, *weights)
        ctx.activation, ctx.gates = activation, gates
        c_last = c_all[-1].clone()
        ctx.mark_non_differentiable(c_last)
        return h_all[1:], c_last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h_TBH: Tensor, _grad_c: Tensor) -> tuple[Tensor | None, ...]:
        a_TBG, u_TBG, h_all, c_all, U_GH, b_G, w_PH = ctx.saved_tensors
        grad_h_TBH = grad_h_TBH.contiguous()
        T, B, H = grad_h_TBH.shape
        grad_h_BH, grad_c_BH = grad_h_TBH.new_zeros(2, B, H)  # gradients from the steps after t
        grad_u_TBG = torch.empty_like(u_TBG)
        grad_a_TBG = grad_u_TBG if ctx.gates == "sum" else torch.empty_like(u_TBG)
        grad_w_BPH = None if w_PH is None else grad_h_TBH.new_zeros(B, *w_PH.shape)
        with torch.cuda.device_of(grad_h_TBH):
            for t in reversed(range(T)):
                lstm_step_back[grid(grad_h_BH)](
                    *(grad_h_TBH, grad_h_BH, grad_c_BH),
                    *(a_TBG, u_TBG, b_G, w_PH, c_all),
                    *(grad_a_TBG, grad_u_TBG, grad_w_BPH),
                    *(t, H, ctx.gates, ctx.activation, BLOCK),
                )
                torch.mm(grad_u_TBG[t], U_GH, out=grad_h_BH)
        grad_u_NG = grad_u_TBG.flatten(0, 1)
        grad_U_GH = grad_u_NG.t() @ h_all[:-1].flatten(0, 1)
        grad_w_PH = None if grad_w_BPH is None else grad_w_BPH.sum(0)
        state = grad_h_BH, grad_c_BH
        return grad_a_TBG, *state, grad_U_GH, grad_u_NG.sum(0), grad_w_PH, None, None
