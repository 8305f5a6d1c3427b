"""All functions that Numba compiles: the steps of the sequences, and what the steps share.

The shared ones work on single float32 numbers and on rows of them. They compute what torch's
functions compute on an x86 CPU with AVX2, in the same order and with the same roundings, so a
layer's results are equal to the last bit there; elsewhere, within rounding.

They are in one file, which uses nothing of ours: Numba keeps a function's machine code, that of the
functions it calls included, until the function's own file changes, and would run old code after a
change in another one. tests/models/test_compiled.py holds this.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit


def _can_cache() -> bool:
    """Returns whether compiled code can be kept: else each process compiles for some seconds."""

    def probe() -> None:
        pass

    try:
        njit(cache=True)(probe)
    except RuntimeError:  # no folder for it can be written
        return False
    return True


# A product and a sum are fused into one rounding where `fma` says so, and nowhere else. Sums keep
# their order, NaN and infinity their meaning.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "cache": _can_cache()}
# Signatures, for compilation at import: float32 arrays of two and three dimensions, whole numbers.
F2, F3, INT = "f4[:,::1]", "f4[:,:,::1]", "i8"


def step(*arguments: str) -> Any:
    """Returns a decorator that compiles a step of a sequence, for arguments of these types."""
    return njit(f"void({', '.join(arguments)})", **OPTIONS)


HALF, ONE, TWO = map(np.float32, (0.5, 1.0, 2.0))
LOG2_E = np.float32(1.442695040888963407359924681001892137426645954152985934135449406931)
LN2_HIGH, LN2_LOW = np.float32(0.693145751953125), np.float32(1.428606765330187045e-06)
# The polynomial of expf in SLEEF (Shibata & Petrogalli 2020), which torch uses: from the highest
# power down, for (e^s - 1 - s) / s^2 on |s| <= ln 2 / 2.
EXP_5, EXP_4, EXP_3, EXP_2, EXP_1 = map(
    np.float32,
    (
        0.000198527617612853646278381,
        0.00139304355252534151077271,
        0.00833336077630519866943359,
        0.0416664853692054748535156,
        0.166666671633720397949219,
    ),
)
EXP_LIMIT = np.float32(104.0)  # beyond it e^x is infinite, and e^-x is 0
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)


@njit(fastmath={"contract"}, **OPTIONS)
def fma(a: Any, b: Any, c: Any) -> Any:
    """Returns a·b + c, rounded once."""
    return a * b + c


@njit(**OPTIONS)
def power_of_two(exponent: Any) -> Any:
    """Returns 2^exponent, by writing the bits of the number."""
    return np.int32((exponent + EXPONENT_BIAS) << MANTISSA_BITS).view(np.float32)


@njit(**OPTIONS)
def exp(x: Any) -> Any:
    """Returns e^x, as 2^q · e^s with s = x − q ln 2."""
    if x > EXP_LIMIT:  # written so that NaN stays NaN
        x = EXP_LIMIT
    if x < -EXP_LIMIT:
        x = -EXP_LIMIT
    q = np.rint(x * LOG2_E)
    s = fma(q, -LN2_LOW, fma(q, -LN2_HIGH, x))
    u = fma(fma(fma(fma(fma(EXP_5, s, EXP_4), s, EXP_3), s, EXP_2), s, EXP_1), s, HALF)
    u = ONE + fma(s * s, u, s)
    exponent = np.int32(q)
    half = exponent >> np.int32(1)  # 2^q alone may be no float32
    return u * power_of_two(half) * power_of_two(exponent - half)


@njit(**OPTIONS)
def sigmoid(x: Any) -> Any:
    return ONE / (ONE + exp(-x))


@njit(**OPTIONS)
def sigmoid_of_one(x: Any) -> Any:
    """Returns σ(x), as torch computes it where numbers fill no vector."""
    return ONE / (ONE + np.float32(math.exp(-x)))


@njit(**OPTIONS)
def doubled_less_one(y: Any) -> Any:
    """Returns 2y − 1: with y = σ(2x), tanh x as activations.py computes it."""
    return fma(y, TWO, -ONE)


@njit(**OPTIONS)
def sigmoid_slope(y: Any) -> Any:
    """Returns y − y², the slope of σ where its value is y."""
    return y - y * y


@njit(**OPTIONS)
def tanh_slope(y: Any) -> Any:
    """Returns 1 − y², the slope of tanh where its value is y."""
    return fma(-y, y, ONE)


@njit(**OPTIONS)
def part_to_sigmoid(x: Any, at_once: int) -> None:
    """Overwrites each x by σ(x), `at_once` at a time and what is left at the end one by one.

    A vector is one array here and not two, which the compiler would have to suppose to overlap.
    """
    vectors = len(x) - len(x) % at_once
    for j in range(vectors):
        x[j] = sigmoid(x[j])
    for j in range(vectors, len(x)):
        x[j] = sigmoid_of_one(x[j])


@njit(**OPTIONS)
def part_to_tanh(x: Any, at_once: int) -> None:
    """Overwrites each x by tanh x, likewise."""
    vectors = len(x) - len(x) % at_once
    for j in range(vectors):
        x[j] = doubled_less_one(sigmoid(x[j] + x[j]))
    for j in range(vectors, len(x)):
        x[j] = doubled_less_one(sigmoid_of_one(x[j] + x[j]))


# Loops over parts in functions of their own: one within the other, they take a quarter longer.
@njit(**OPTIONS)
def to_sigmoid(x: Any, part: int, at_once: int) -> None:
    """Overwrites each x by σ(x), in parts of so many numbers; see `part_of_thread`."""
    for start in range(0, len(x), part):
        part_to_sigmoid(x[start : start + part], at_once)


@njit(**OPTIONS)
def to_tanh(x: Any, part: int, at_once: int) -> None:
    """Overwrites each x by tanh x, likewise."""
    for start in range(0, len(x), part):
        part_to_tanh(x[start : start + part], at_once)


@cache
def numbers_at_once() -> int:
    """Returns how many float32 numbers torch's vectorised functions take at once: two vectors."""
    return 32 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 16


GRAIN = 32_768  # torch's threads share an array of more numbers (ATen/TensorIterator.h)


def part_of_thread(num_elements: int) -> int:
    """Returns how many of an array's numbers a thread of torch's takes; the last may take fewer.

    As in ATen/ParallelOpenMP.h. Each thread computes one by one what is left at the end of its
    part, too little for two vectors, by a function that rounds differently.
    """
    num_parts = min(torch.get_num_threads(), -(-num_elements // GRAIN))
    return -(-num_elements // num_parts)


@step(F3, INT, INT, INT)
def rnn_state(h_all: Any, t: int, part: int, at_once: int) -> None:
    """Overwrites the sums by h' = tanh."""
    h_next = h_all[t + 1].ravel()
    to_tanh(h_next, part, at_once)


@step(F3, F3, INT)
def rnn_back(grad_sums_TBH: Any, h_all: Any, t: int) -> None:
    """Overwrites ∂L/∂h' by ∂L/∂s."""
    grad, h_next = grad_sums_TBH[t].ravel(), h_all[t + 1].ravel()
    for j in range(len(grad)):
        grad[j] *= tanh_slope(h_next[j])


@step(F3, F3, F3, INT, INT, INT)
def gru_gates(rz_TBG: Any, h_all: Any, rh_TBH: Any, t: int, part: int, at_once: int) -> None:
    """Overwrites the sums of r and z by their σ; then computes r ⊙ h."""
    _, B, H = rh_TBH.shape
    all_rz = rz_TBG[t].ravel()
    to_sigmoid(all_rz, part, at_once)
    for b in range(B):
        rz, h, rh = rz_TBG[t, b], h_all[t, b], rh_TBH[t, b]
        for j in range(H):
            rh[j] = rz[j] * h[j]


@step(F3, F3, F3, INT, INT, INT)
def gru_state(rz_TBG: Any, n_TBH: Any, h_all: Any, t: int, part: int, at_once: int) -> None:
    """Overwrites the sums of n by their tanh; then computes h'."""
    _, B, H = n_TBH.shape
    all_n = n_TBH[t].ravel()
    to_tanh(all_n, part, at_once)
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


@step(F3, F2, F3, F3, F3, INT, INT, INT, INT)
def lstm_state(
    gates_TBG: Any, g_BH: Any, phi_c_TBH: Any, c_all: Any, h_all: Any, t: int,
    part_gates: int, part_state: int, at_once: int,
) -> None:  # fmt: skip
    """Overwrites the gates' sums by i, f, g and o; then computes c', φ(c') and h'."""
    _, B, H = phi_c_TBH.shape
    for b in range(B):
        s_g, g = gates_TBG[t, b, 2 * H : 3 * H], g_BH[b]
        for j in range(H):
            g[j] = s_g[j]
    all_gates, all_g, all_phi_c = gates_TBG[t].ravel(), g_BH.ravel(), phi_c_TBH[t].ravel()
    # Of g too, which is overwritten next: whole arrays are faster.
    to_sigmoid(all_gates, part_gates, at_once)
    to_tanh(all_g, part_state, at_once)
    for b in range(B):
        gates, g, phi_c = gates_TBG[t, b], g_BH[b], phi_c_TBH[t, b]
        c, c_next = c_all[t, b], c_all[t + 1, b]
        for j in range(H):
            gates[2 * H + j] = g[j]
        for j in range(H):
            c_next[j] = fma(gates[j], g[j], gates[H + j] * c[j])
        for j in range(H):
            phi_c[j] = c_next[j]
    to_tanh(all_phi_c, part_state, at_once)
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
