"""Describes how and where a run is trained: versions, device, commit, command, folder, no host."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from charcmp import __version__
from charcmp.data.corpus import Corpus
from charcmp.training.device import device_name


@cache
def git_state() -> dict[str, Any]:
    """Returns the commit of the checkout that this code runs from, and whether the code differs.

    The state is read once, before the process trains: it does not run later edits.
    """
    package = Path(__file__).resolve().parents[1]
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
    """Returns the command as typed; sys.argv, as Hydra sees it, lacks the subcommand."""
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


def describe(device: torch.device, corpus: Corpus, num_lanes: int) -> dict[str, Any]:
    """Returns the contents of a run's environment.json."""
    packages = ("torch", "numpy", "hydra-core", "omegaconf", "pandas", "safetensors")
    return {
        "charcmp": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "triton": optional_version("triton"),
        "numba": optional_version("numba"),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": device_name(device),
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "lanes": num_lanes,
        **git_state(),
        "corpus": corpus.record(),
        "command": command_line(),
        "working_dir": str(Path.cwd()),  # the configuration's paths are relative to it; unpublished
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
