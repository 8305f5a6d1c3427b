"""Asks NVIDIA's driver and torch's build about GPUs, mostly without the slow import of torch."""

from __future__ import annotations

import os
import subprocess
import warnings
from importlib import metadata

from charcmp.errors import UserError

ANSWER_SECONDS = 30.0  # nvidia-smi may have to wake the driver


def torch_is_for_cpus() -> bool:
    """Returns whether this build of torch has no GPU support."""
    return metadata.version("torch").endswith("+cpu")


def nvidia_smi(*args: str) -> list[str]:
    """Runs nvidia-smi and returns the lines it prints; none if it is missing or fails."""
    try:
        asked = subprocess.run(
            ["nvidia-smi", *args], capture_output=True, text=True, timeout=ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return asked.stdout.splitlines() if asked.returncode == 0 else []


def gpus_of_the_driver() -> list[str]:
    """Returns the GPUs that nvidia-smi lists, one line each."""
    return [line.strip() for line in nvidia_smi("-L") if line.startswith("GPU ")]


def driver_version() -> str | None:
    """Returns the driver's version; None if nvidia-smi does not tell it."""
    lines = nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    return lines[0].strip() if lines else None


def require_no_idle_gpu() -> None:
    """Raises UserError if nvidia-smi lists a GPU. Called when torch sees none.

    Does nothing if CUDA_VISIBLE_DEVICES, which says which GPUs this process may use, names none:
    the user has chosen the CPU.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles"):
        return
    if gpus := gpus_of_the_driver():
        name = gpus[0].split(" (UUID")[0]
        raise UserError(
            f"nvidia-smi lists {name}, but {why_torch_sees_no_gpu()}; device=cpu trains without it"
        )


def why_torch_sees_no_gpu() -> str:
    """Returns why torch sees no GPU and what to do about it, as part of a sentence."""
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
        warnings.simplefilter("ignore")  # torch's warning has the same text as the error
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
