"""The command line as a user runs it, and small texts to run it on."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from charcmp.cli.main import main

CHECKOUT = Path(__file__).resolve().parents[2]
STARTUP = Path(__file__).parent / "startup"  # its sitecustomize.py runs in a process that starts
Charcmp = Callable[..., "subprocess.CompletedProcess[str]"]
REAL_DATA = Path(os.environ.get("CHARCMP_DATA") or "no-such-folder")
needs_corpora = pytest.mark.skipif(
    not (REAL_DATA / "wp.txt").is_file(), reason="CHARCMP_DATA names no folder with wp.txt, lk.txt"
)
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2)
# A model so small that an epoch on the tiny text takes a fraction of a second: 18 updates, which
# leave so little of the text over that no note mentions it.
TINY = ["hidden_size=8", "epochs=3", "batch_size=18", "unroll_steps=10", "device=cpu", "threads=1"]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "charcmp", *args]


@contextmanager
def left_as_it_was() -> Iterator[None]:
    """Restores what a command changes in its process."""
    folder, environment, argv = Path.cwd(), dict(os.environ), sys.argv
    handlers = {signum: signal.getsignal(signum) for signum in HANDLED}
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = argv
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def call(*args: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs `charcmp ARGS` in this process, which has torch imported already."""
    stdout, stderr = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace") for _ in range(2)
    )
    status: object = 0
    with left_as_it_was(), redirect_stdout(stdout), redirect_stderr(stderr):
        os.chdir(cwd)
        os.environ.update(env)
        sys.argv = ["charcmp", *args]
        try:
            main()
        except SystemExit as leaving:
            status = leaving.code or 0
        except Exception:  # a bug of ours: show it as Python does
            traceback.print_exc()
            status = 1
    assert isinstance(status, int)
    printed = []
    for stream in (stdout, stderr):
        stream.flush()
        printed.append(stream.buffer.getvalue().decode(errors="replace"))
    return subprocess.CompletedProcess(["charcmp", *args], status, *printed)


class Ended(NamedTuple):
    """How a command of `in_turn` ended."""

    returncode: int
    stdout: str
    stderr: str
    loaded: set[str]  # the modules that this process has imported by then


IN_TURN = """
import json, sys
from charcmp.cli.main import main

for sys.argv[1:] in json.loads(sys.argv[1]):
    status = 0
    try:
        main()
    except SystemExit as leaving:
        status = leaving.code or 0
    print(end=f"\\x1e{status}\\x1e", flush=True)
    print(end="\\x1e" + " ".join(sys.modules) + "\\x1e", file=sys.stderr, flush=True)
"""


def in_turn(*lines: Sequence[str], cwd: Path, env: dict[str, str] | None = None) -> list[Ended]:
    """Runs `charcmp LINE` for each line in one new process, which imports torch once at most."""
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(lines, ensure_ascii=False)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100", **(env or {})},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    printed, said = (stream.split("\x1e") for stream in (done.stdout, done.stderr))
    return [
        Ended(int(status), stdout, stderr, set(loaded.split()))
        for stdout, status, stderr, loaded in zip(
            printed[:-1:2], printed[1::2], said[:-1:2], said[1::2], strict=True
        )
    ]


def loaded_by(code: str) -> set[str]:
    """Returns the modules that a new Python has imported after this code."""
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write_tiny_text(path: Path) -> Path:
    """Writes four thousand characters with something to learn in them."""
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "the", "dog", "ran", "to", "the", "sun"]
    rng = random.Random(0)
    path.write_text(" ".join(rng.choice(words) for _ in range(1100)))
    return path


def run_of(trained: Path, text: str) -> Path:
    (run,) = (trained / "runs").glob(f"{text}-*")
    return run


def load_script(name: str) -> ModuleType:
    """Imports a file of scripts/ as a module."""
    file = CHECKOUT / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up the module they are defined in here
    spec.loader.exec_module(module)
    return module


def python_example(document: str) -> str:
    """The first Python block of a document."""
    found = re.search(r"```python\n(.*?)```", (CHECKOUT / "docs" / document).read_text(), re.S)
    assert found is not None
    return found[1]
