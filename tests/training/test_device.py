"""The device: never a CPU where a GPU lies idle; errors that are a GPU's and not the run's."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.console import TINY, Charcmp

from charcmp.machine import available_cores
from charcmp.training.device import (
    M_MMAP_THRESHOLD,
    is_gpu_trouble,
    resolve_device,
    set_thresholds,
)
from charcmp.training.nvidia import gpus_of_the_driver

GPU = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5d1f)"
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")


def nvidia_smi(folder: Path, script: str) -> dict[str, str]:
    """An environment with an nvidia-smi of ours on the PATH, before all others."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@no_gpu
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_gpu_that_torch_does_not_see_ends_it_in_one_line(
    charcmp: Charcmp, tiny_text: Path, tmp_path: Path, command: str
) -> None:
    path = nvidia_smi(tmp_path / "bin", f"echo '{GPU}'")
    tiny = [key for key in TINY if not key.startswith("device")]
    args = [command, "dataset=text", f"dataset.path={tiny_text}", *tiny, "epochs=1", "cell=rnn"]
    args.append("layers=1")
    done = charcmp(*args, **path)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("charcmp: nvidia-smi lists GPU 0: NVIDIA H100 80GB HBM3, but torch 2.")
    assert line.endswith("device=cpu trains without it")
    assert "TORCH_ARGS" in line or "update the driver" in line
    assert not list((tmp_path / "work").rglob("checkpoint.pt"))


@no_gpu
@pytest.mark.parametrize(
    ("keys", "env"), [(["device=cpu"], {}), ([], {"CUDA_VISIBLE_DEVICES": ""})], ids=str
)
def test_who_asks_for_the_cpu_gets_it(
    charcmp: Charcmp, tiny_text: Path, tmp_path: Path, keys: list[str], env: dict[str, str]
) -> None:
    path = nvidia_smi(tmp_path / "bin", f"echo '{GPU}'")
    tiny = [key for key in TINY if not key.startswith("device")]
    text = ["dataset=text", f"dataset.path={tiny_text}"]
    done = charcmp("train", *text, *tiny, "epochs=1", "cell=rnn", *keys, **path, **env)
    assert done.returncode == 0, done.stderr


@no_gpu
@pytest.mark.parametrize(
    "script",
    [
        "echo 'NVIDIA-SMI has failed because it could not communicate with the driver'; exit 9",
        "echo 'No devices were found'",
        "",
    ],
)
def test_an_nvidia_smi_without_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path, script)["PATH"])
    assert gpus_of_the_driver() == []
    assert resolve_device("auto") == torch.device("cpu")


def test_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus_of_the_driver() == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_a_gpus_error_is_worth_another_attempt(error: Exception) -> None:
    assert is_gpu_trouble(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu!"),
        ValueError("cuda"),
        KeyError("x"),
    ],
    ids=str,
)
def test_a_mistake_of_ours_is_not(error: Exception) -> None:
    assert not is_gpu_trouble(error)


ONE_CORE_LEFT = """
import os, torch
from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.schema import Config
from charcmp.data.dataset import DatasetConfig
from charcmp.models.cells.options import CellConfig
from charcmp.training.device import prepare
parts = {"dataset": DatasetConfig(), "optimizer": RMSpropConfig("rmsprop")}
config = Config(cell=CellConfig("rnn"), device="cpu", **parts)
before = torch.get_num_threads()
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
prepare(config, None)
print(before > 1, torch.get_num_threads())
prepare(config, 3)
print(torch.get_num_threads())
"""


@pytest.mark.long
@pytest.mark.skipif(available_cores() < 2, reason="one core is all there is")
def test_a_run_has_no_more_threads_than_cores_unless_asked_to() -> None:
    """torch counts the cores when it is imported; this process then loses all but one."""
    run = [sys.executable, "-c", ONE_CORE_LEFT]
    assert subprocess.run(run, check=True, capture_output=True).stdout == b"True 1\n3\n"


class Glibc:
    """What a release of glibc does with mallopt's calls."""

    def __init__(self, max_threshold: int) -> None:
        self.max_threshold, self.settings = max_threshold, {}

    def mallopt(self, parameter: int, value: int) -> int:
        if parameter == M_MMAP_THRESHOLD and value > self.max_threshold:
            return 0
        self.settings[parameter] = value
        return 1


@pytest.mark.parametrize(
    ("max_threshold", "threshold"), [(1 << 31, 1_000_000_000), (1 << 25, 1 << 25), (0, None)]
)
def test_freed_memory_is_kept_by_every_glibc(max_threshold: int, threshold: int | None) -> None:
    """Nothing is set rather than the rest alone: that would leave the threshold at 128 KB."""
    glibc = Glibc(max_threshold)
    set_thresholds(glibc.mallopt)
    assert glibc.settings.get(M_MMAP_THRESHOLD) == threshold
    assert len(glibc.settings) == (3 if threshold else 0)
