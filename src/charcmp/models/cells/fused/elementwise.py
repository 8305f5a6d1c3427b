"""The parts that the kernels share: where an element lies, and the activations with their slopes.

Kernels take contiguous arrays whose names end in their shape (see ../base.py; G = k·H) and the step
t. The grid is (B, blocks of H): one program does BLOCK hidden units of one stream.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128

_launched: set[tuple[object, ...]] = set()
_first_launches = threading.Lock()


@contextmanager
def launching(x_TBG: Tensor, *form: object) -> Iterator[None]:
    """Makes the device of x the current one, for the launches of a forward pass.

    One thread at a time makes the first pass of a form with these sizes: a kernel's first launch
    loads it, and another thread that launches it meanwhile may find it half loaded. Backward passes
    need no such care, as autograd has one thread for each device.

    Args:
        x_TBG: the pass's input, for its sizes and its device.
        form: whatever else makes other kernels of the same source.
    """
    key = (x_TBG.device, x_TBG.dtype, x_TBG.shape, *form)
    with torch.cuda.device_of(x_TBG):
        if key in _launched:
            yield
            return
        with _first_launches:
            yield
            _launched.add(key)


def grid(h_BH: Tensor) -> tuple[int, int]:
    B, H = h_BH.shape
    return B, triton.cdiv(H, BLOCK)


@triton.jit
def place(t, H, BLOCK: tl.constexpr):
    """Returns the program's row of a (T·B, ...) array at step t, its units, and which exist.

    The row is 64 bits wide: T·B·G may exceed 2³¹.
    """
    row = t.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return row, unit, unit < H


@triton.jit
def tanh(s):
    """Computes tanh to a few ulp everywhere, in float32 or float64, if exp and division are exact.

    (1 − e) / (1 + e) cancels near 0; there tanh is s + s³ P(s²) / Q(s²), from S. Moshier's Cephes.
    """
    x = tl.abs(s)
    e = tl.exp(-2.0 * x)
    far = (1.0 - e) / (1.0 + e)
    z = s * s
    p = (-0.96439917942505224 * z - 99.287723100191859) * z - 1614.6876844170845
    q = ((z + 112.81167849163293) * z + 2235.4883906010045) * z + 4844.0630532512549
    return tl.where(x < 0.625, s + s * (z * (p / q)), tl.where(s < 0.0, -far, far))


@triton.jit
def activation(s, ACTIVATION: tl.constexpr):
    """Computes φ(s). A NaN stays NaN, so that divergence is noticed."""
    if ACTIVATION == "tanh":
        y = tanh(s)
    elif ACTIVATION == "softsign":
        y = s / (1.0 + tl.abs(s))
    else:
        tl.static_assert(ACTIVATION == "relu")
        y = tl.where(s < 0.0, 0.0, s)
    return y


@triton.jit
def slope(y, ACTIVATION: tl.constexpr):
    """Computes φ' from the value of φ; see ../activations.py."""
    if ACTIVATION == "tanh":
        d = 1.0 - y * y
    elif ACTIVATION == "softsign":
        d = (1.0 - tl.abs(y)) * (1.0 - tl.abs(y))
    else:
        tl.static_assert(ACTIVATION == "relu")
        d = tl.where(y > 0.0, 1.0, 0.0)
    return d
