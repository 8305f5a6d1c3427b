"""NVIDIA's driver and the build of torch, asked without importing torch, which takes seconds."""

from __future__ import annotations

import os
import subprocess
import warnings
from importlib import metadata

from charcmp.errors import UserError

ANSWER_SECONDS = 30.0  # nvidia-smi may have to wake the driver


def torch_is_for_cpus() -> bool:
    """Whether this build of torch knows no GPUs."""
    return metadata.version("torch").endswith("+cpu")


def nvidia_smi(*args: str) -> list[str]:
    """The lines of its answer; none where it is not installed or finds no driver."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", *args], capture_output=True, text=True, timeout=ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return asked.stdout.splitlines() if asked.returncode == 0 else []


def gpus_of_the_driver() -> list[str]:
    """What nvidia-smi lists, a line each."""
    return [line.strip() for line in nvidia_smi("-L") if line.startswith("GPU ")]


def driver_version() -> str | None:
    """None where nvidia-smi cannot be asked."""
    lines = nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    return lines[0].strip() if lines else None


def require_no_idle_gpu() -> None:
    """UserError for a GPU that nvidia-smi lists where torch sees none, unless it is hidden from us.

    Where CUDA_VISIBLE_DEVICES is set, it says which GPUs this process may use; where it names none,
    somebody has chosen the CPU.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles"):
        return
    if gpus := gpus_of_the_driver():
        name = gpus[0].split(" (UUID")[0]
        raise UserError(
            f"nvidia-smi lists {name}, but {why_torch_sees_no_gpu()}; device=cpu trains without it"
        )


def why_torch_sees_no_gpu() -> str:
    """Why, and what to do, in half a line."""
    without_cuda = (
        f"torch {metadata.version('torch')} is built without CUDA: install a CUDA build of it "
        "(make TORCH_ARGS=..., docs/gpu.md)"
    )
    if torch_is_for_cpus():
        return without_cuda
    import torch

    if torch.version.cuda is None:
        return without_cuda
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says the same
        try:
            torch.cuda.init()
        except RuntimeError as error:
            reason = str(error).strip().split(". ")[0].splitlines()[0]
        else:
            reason = "it gives no reason"
    return (
        f"torch {torch.__version__} with CUDA {torch.version.cuda} cannot use it ({reason}): "
        "update the driver, or install a build of torch for an older CUDA (docs/gpu.md)"
    )
