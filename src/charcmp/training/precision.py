"""How a process multiplies matrices: in float32, as the paper, or with factors rounded.

Sums, states, gates, losses and the optimiser are float32 in all three. A gather is no product: the
first layer's columns of W are never rounded by bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from charcmp.errors import UserError

aten = torch.ops.aten


def set_precision(device: torch.device, precision: str) -> None:
    """Tells this process how to multiply; for bf16, `multiplying` does the rest.

    Raises:
        UserError: for tf32 elsewhere than on a GPU.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError(f"precision=tf32: only GPUs have it, and this run is for the {device}")
    # Never left to torch's defaults: by them cuDNN rounds and cuBLAS does not.
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    # Their recurrent layers are one operation whose products cannot be reached from outside.
    torch.backends.cudnn.enabled = precision != "bf16"
    torch.backends.mkldnn.set_flags(precision != "bf16")


def multiplying(work: Callable[[], None], precision: str) -> Callable[[], None]:
    """Forward and backward passes, computed in this precision."""
    if precision != "bf16":
        return work

    def rounding() -> None:
        with Bfloat16Products():
            work()

    return rounding


class Bfloat16Products(TorchDispatchMode):
    """Matrix products whose float32 factors are rounded to bfloat16 (8 significant bits), of the
    forward and the backward pass alike; float32 sums.

    On a GPU they run on its bfloat16 units. A CPU computes the same numbers, to the order of
    summation, from rounded float32 factors: the product of two bfloat16 is a float32.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rounded = ROUNDED.get(func)
        if rounded is None or any(tensor.dtype != torch.float32 for tensor in args):
            return func(*args, **(kwargs or {}))
        return rounded(*args, **(kwargs or {}))


def _mm(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    a_MK, b_KN = a_MK.bfloat16(), b_KN.bfloat16()
    if a_MK.is_cuda:
        return torch.mm(a_MK, b_KN, out_dtype=torch.float32)
    return torch.mm(a_MK.float(), b_KN.float())


def _mm_out(a_MK: Tensor, b_KN: Tensor, *, out: Tensor) -> Tensor:
    return out.copy_(_mm(a_MK, b_KN))


def _addmm(sum_MN: Tensor, a_MK: Tensor, b_KN: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    return torch.add(beta * sum_MN, _mm(a_MK, b_KN), alpha=alpha)


def _addmm_(sum_MN: Tensor, a_MK: Tensor, b_KN: Tensor, **factors: float) -> Tensor:
    return sum_MN.copy_(_addmm(sum_MN, a_MK, b_KN, **factors))


def _addmm_out(
    sum_MN: Tensor, a_MK: Tensor, b_KN: Tensor, *, out: Tensor, **factors: float
) -> Tensor:
    return out.copy_(_addmm(sum_MN, a_MK, b_KN, **factors))


ROUNDED: dict[Any, Callable[..., Tensor]] = {
    aten.mm.default: _mm,
    aten.mm.out: _mm_out,
    aten.addmm.default: _addmm,
    aten.addmm_.default: _addmm_,
    aten.addmm.out: _addmm_out,
}
