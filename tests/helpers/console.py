"""The command line as a user runs it, and small texts to run it on."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
Charcmp = Callable[..., "subprocess.CompletedProcess[str]"]
REAL_DATA = Path(os.environ.get("CHARCMP_DATA") or "no-such-folder")
needs_corpora = pytest.mark.skipif(
    not (REAL_DATA / "wp.txt").is_file(), reason="CHARCMP_DATA names no folder with wp.txt, lk.txt"
)
# A model and a text so small that an epoch takes a fraction of a second.
TINY = ["hidden_size=8", "epochs=3", "batch_size=4", "unroll_steps=10", "device=cpu", "threads=1"]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "charcmp", *args]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def write_tiny_text(path: Path) -> Path:
    """Four thousand characters with something to learn in them."""
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "the", "dog", "ran", "to", "the", "sun"]
    rng = random.Random(0)
    path.write_text(" ".join(rng.choice(words) for _ in range(1100)))
    return path


def run_of(trained: Path, text: str) -> Path:
    (run,) = (trained / "runs").glob(f"{text}-*")
    return run


def load_script(name: str) -> ModuleType:
    """A file of scripts/ as a module."""
    file = CHECKOUT / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for the module that they are written in
    spec.loader.exec_module(module)
    return module
