"""The functions that the compiled steps share, on single float32 numbers and on rows of them.

They compute what torch's functions compute on an x86 CPU, in the same order and with the same
roundings, so a layer's results are equal to the last bit there; elsewhere, within rounding.
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
    """Returns σ(x), as torch computes it where numbers fill no vector; see `remainder`."""
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
def to_sigmoid(x: Any, num_single: int) -> None:
    """Overwrites each x by σ(x), the last `num_single` one by one.

    A vector is one array here and not two, which the compiler would have to suppose to overlap.
    """
    vectors = len(x) - num_single
    for j in range(vectors):
        x[j] = sigmoid(x[j])
    for j in range(vectors, len(x)):
        x[j] = sigmoid_of_one(x[j])


@njit(**OPTIONS)
def to_tanh(x: Any, num_single: int) -> None:
    """Overwrites each x by tanh x, the last `num_single` one by one."""
    vectors = len(x) - num_single
    for j in range(vectors):
        x[j] = doubled_less_one(sigmoid(x[j] + x[j]))
    for j in range(vectors, len(x)):
        x[j] = doubled_less_one(sigmoid_of_one(x[j] + x[j]))


@cache
def _numbers_at_once() -> int:
    """Returns how many float32 numbers torch's vectorised functions take at once: two vectors."""
    return 32 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 16


def remainder(num_elements: int) -> int:
    """Returns how many of an array's last numbers torch computes one by one."""
    return num_elements % _numbers_at_once()
