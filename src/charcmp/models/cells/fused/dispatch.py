"""The fused forms of the layers for CUDA devices: one Triton kernel between two matrix products.

A step of a small recurrent layer is a product or two and a handful of element-wise operations. On a
GPU each torch call is a kernel that costs some microseconds however little it does, so here all
element-wise work between two products is one kernel. rnn.py, gru.py and lstm.py hold the kernels
and the autograd Functions that launch them, elementwise.py what they share. The equations are in
each cell's own file, whose results the kernels reproduce up to rounding.

Everything is launched on the current CUDA stream, on buffers whose shapes depend only on T, B and
H, and nothing waits for the device. So after one step has compiled the kernels, a step can be
captured as a CUDA graph.

Triton is optional. Nothing here imports it before `fused_on` is asked about a CUDA tensor, or a
check or benchmark has forced them.
"""

from __future__ import annotations

import importlib.util
import threading
from functools import cache

import torch
from torch import Tensor

from charcmp.errors import first_line
from charcmp.models.cells.modes import Mode

# auto: on a CUDA device where Triton works, for what cuDNN lacks or runs slowly. always (also on a
# CPU, for Triton's interpreter) and never are for checks and benchmarks: see modes.forced.
mode: Mode = "auto"


def fused_on(x: Tensor, best_in_cudnn: bool = False) -> bool:
    """Returns whether a layer with input x is to run by its fused form.

    Args:
        x: the input, for its device.
        best_in_cudnn: whether cuDNN has the layer's equations, and is faster at its width.
    """
    if mode != "auto":
        return mode == "always"
    return x.is_cuda and not best_in_cudnn and why_not(x.device) is None


def why_not(device: torch.device) -> str | None:
    """Returns why the kernels do not run on this CUDA device, in one line; None if they do.

    The first call on a device compiles and runs the forward kernels of the paper's grid, since
    Triton also needs a C compiler and a GPU that it supports. One thread does so at a time, as a
    kernel's first launch is not thread-safe. Autograd launches the backward kernels, from a thread
    of its own.
    """
    with _one_at_a_time:
        return _tried(torch.device(device.type, device.index or 0))


_one_at_a_time = threading.Lock()


@cache
def _tried(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install 'charcmp[triton]')"
    try:
        from charcmp.models.cells.fused.gru import FusedGRU
        from charcmp.models.cells.fused.lstm import FusedLSTM
        from charcmp.models.cells.fused.rnn import FusedRNN

        def ones(*shape: int) -> Tensor:
            return torch.ones(shape, device=device)

        h = ones(1, 1)
        float(FusedRNN.apply(ones(1, 1, 1), h, ones(1, 1), "tanh"))
        float(FusedGRU.apply(ones(1, 1, 3), h, ones(3, 1), "tanh"))
        sums, weights = ones(1, 1, 4), ones(4, 1)
        float(FusedLSTM.apply(sums, h, h, weights, ones(4), None, "tanh", "sum")[0])
    except Exception as error:  # whatever it is, the run can do without Triton
        return f"Triton does not work here ({first_line(error)})"
    return None


def note(device: torch.device, in_cudnn: bool) -> str | None:
    """Returns a note for the user if this cell runs slowly on this device, else None."""
    if device.type == "cuda" and not in_cudnn and (reason := why_not(device)):
        return f"{reason}: this cell runs as separate torch calls, one kernel each"
    return None
