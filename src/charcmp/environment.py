"""The circumstances of a run: versions, device, commit, command, folder; no host."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from charcmp import __version__
from charcmp.config import Config
from charcmp.corpus import Corpus
from charcmp.errors import UserError
from charcmp.memory import keep_freed_memory
from charcmp.precision import set_precision
from charcmp.slots import num_lanes


def resolve_device(name: str) -> torch.device:
    """The device called auto, cpu, cuda or cuda:N.

    Raises:
        UserError: if there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    """Makes a GPU this thread's own, and tells this process how to multiply.

    Raises:
        UserError: if the device cannot multiply so.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # streams and graphs are the current device's
    set_precision(device, precision)


def prepare(config: Config, threads: int | None) -> torch.device:
    """The configuration's device, with this process set up to train on it.

    Args:
        config: of the run.
        threads: how many a CPU works with; None: as torch has it.

    Raises:
        UserError: if there is no such device here, or it cannot multiply as asked.
    """
    device = resolve_device(config.device)
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    set_up(device, config.precision)
    return device


def device_name(device: torch.device) -> str:
    """What the hardware calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_state() -> dict[str, Any]:
    """Commit of the checkout that this code runs from, and whether its code differs from it."""
    package = Path(__file__).resolve().parent
    top = package.parents[1]

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(top), *args], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if Path(git("rev-parse", "--show-toplevel") or "/") != top:
            return {"git_commit": None, "git_dirty": None}
        return {
            "git_commit": git("rev-parse", "HEAD") or None,
            "git_dirty": bool(git("status", "--porcelain", "--", "src", "conf")),
        }
    except OSError:  # no git on this machine
        return {"git_commit": None, "git_dirty": None}


def command_line() -> str:
    """The command as typed: Hydra's own view of sys.argv lacks the subcommand."""
    words = sys.orig_argv
    for index, word in enumerate(words):
        if Path(word).name == "charcmp" or word.endswith("charcmp/__main__.py"):
            return shlex.join(["charcmp", *words[index + 1 :]])
    return shlex.join(words)


def optional_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe(device: torch.device, corpus: Corpus) -> dict[str, Any]:
    """The record kept beside a run."""
    packages = ("torch", "numpy", "hydra-core", "omegaconf", "pandas", "safetensors")
    return {
        "charcmp": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "triton": optional_version("triton"),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": device_name(device),
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "lanes": num_lanes(),
        **git_state(),
        "corpus": corpus.record(),
        "command": command_line(),
        "working_dir": str(Path.cwd()),  # where the configuration's paths begin; not published
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
