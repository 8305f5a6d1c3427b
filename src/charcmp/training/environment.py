"""Describes how and where a run is trained: versions, device, commit, command, folder, no host."""

from __future__ import annotations

import os
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
    """Returns the commit of the code that this process executes, and whether its files differed.

    They are read once: in a sweep by the server that its runs are forked from (preload.py), else by
    the process itself when its first run begins, once that has imported what trains it. Later edits
    and commits change neither the code that is executed nor what is recorded of it.
    """
    return checkout_state(Path(__file__).resolve().parents[3])


def checkout_state(top: Path) -> dict[str, Any]:
    """Returns the commit of a checkout, and whether its src or conf differ from that commit.

    Both are None if `top` is not the top of a checkout, or there is no git on this machine.
    """

    def git(*args: str) -> str:
        # By default `git status` may lock the index, in which a commit made at that moment fails.
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        command = ["git", "-C", str(top), *args]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
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
