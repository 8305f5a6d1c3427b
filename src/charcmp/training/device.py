"""The device that a run trains on: chooses, names and sets it up."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable

import torch

from charcmp.config.schema import Config
from charcmp.errors import UserError
from charcmp.machine import available_cores
from charcmp.training.cpu import cpu_name
from charcmp.training.nvidia import require_no_idle_gpu

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
BYTES_KEPT = 2_000_000_000
MAX_THRESHOLD = 1 << 25  # of older releases of glibc: HEAP_MAX_SIZE / 2, malloc/arena.c


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory instead of returning it to the system after every step.

    Each step allocates and frees the same tens of megabytes. By default glibc returns them to the
    system, which hands them out again page by page, zeroed; that took a fifth of the time of a
    2-layer LSTM of 128 units (LOG.md). Does nothing except on Linux with glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        set_thresholds(ctypes.CDLL(None).mallopt)


def set_thresholds(mallopt: Callable[[int, int], int]) -> None:
    """Sets the sizes from which glibc returns freed memory at once.

    Args:
        mallopt: glibc's function; it returns 0 if it refuses a value. Older releases refuse an mmap
            threshold above MAX_THRESHOLD.
    """
    # Each of these settings stops glibc from adjusting the mmap threshold to what is freed. If that
    # stayed at 128 KB, where it begins, more memory would be returned than without any setting.
    if mallopt(M_MMAP_THRESHOLD, BYTES_KEPT // 2) or mallopt(M_MMAP_THRESHOLD, MAX_THRESHOLD):
        mallopt(M_TRIM_THRESHOLD, BYTES_KEPT)
        mallopt(M_TOP_PAD, 1 << 26)


def resolve_device(name: str) -> torch.device:
    """Returns the device called auto, cpu, cuda or cuda:N.

    Raises:
        UserError: if there is no such device here; for auto, if there is a GPU that torch cannot
            use: a run that takes a minute on it would take an hour on the CPU.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        require_no_idle_gpu()
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name}: one of auto, cpu, cuda, cuda:0, cuda:1, ...") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                f"device={name}: this torch ({torch.__version__}) finds no CUDA device; "
                "device=cpu trains without one"
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise UserError(f"device={name}: only {torch.cuda.device_count()} CUDA devices here")
    elif device.type != "cpu":
        raise UserError(f"device={name}: only cpu and cuda are supported")
    return device


def set_up(device: torch.device, precision: str) -> None:
    """Makes a GPU this thread's current device and sets this process's precision.

    Matrices are multiplied in float32, or with factors in TF32. Sums, gates, losses and the
    optimiser are float32 in both.

    Raises:
        UserError: if the precision is tf32 and the device is not a GPU.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # streams and graphs belong to the current device
        # By default cuBLAS, also within cuDNN's recurrent layers, may sum a product in another
        # order when other streams are at work (documentation of torch.nn.LSTM).
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2")
    elif precision == "tf32":
        raise UserError(f"precision=tf32: needs a GPU, but this run uses the {device}")
    # Set for both libraries: by torch's defaults cuDNN rounds to TF32 and cuBLAS does not.
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def prepare(config: Config, threads: int | None) -> torch.device:
    """Sets this process up to train on the configuration's device, which it returns.

    Args:
        config: the run's configuration.
        threads: number of CPU threads; None: torch's default, at most `available_cores`.

    Raises:
        UserError: if there is no such device here, or it does not have this precision.
    """
    device = resolve_device(config.device)
    if threads is None and torch.get_num_threads() > available_cores():
        threads = available_cores()  # torch counts the cores, but not a container's share of them
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    set_up(device, config.precision)
    return device


def is_gpu_trouble(error: BaseException) -> bool:
    """Returns whether an error came from the GPU or its libraries, so that a retry may succeed.

    Examples are running out of memory beside other runs, a library that could not initialise, and a
    fault of another run in the same process. torch raises most of these as plain RuntimeErrors.
    Tensors on two devices are a mistake in a class of the user's, although "cuda" is in the error.
    """
    if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
        return True
    if type(error).__module__.partition(".")[0] == "triton":
        return True
    said, names = str(error).lower(), ("cuda", "cublas", "cudnn", "triton")
    is_named = any(name in said for name in names) and "same device" not in said
    return isinstance(error, RuntimeError) and is_named


def device_name(device: torch.device) -> str:
    """Returns the name of the hardware."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
