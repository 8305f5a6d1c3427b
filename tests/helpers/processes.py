"""Functions that processes of a sweep run in tests of how they are started."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from charcmp.training.stop import StopRequest


def describe() -> int:
    """Prints the surroundings of a process before it imports anything."""
    server = Path(f"/proc/{os.getppid()}")
    print(
        json.dumps(
            {
                "has_torch": "torch" in sys.modules,
                "has_cuda_driver": "libcuda." in Path("/proc/self/maps").read_text(),
                "leads_its_session": os.getsid(0) == os.getpid(),
                "variable": os.environ.get("CHARCMP_TEST"),
                "working_dir": str(Path.cwd()),
                "threads": len(list(Path("/proc/self/task").iterdir())),
                "parents_threads": len(list((server / "task").iterdir())),
            }
        )
    )
    print("to standard error", file=sys.stderr)
    return 3


def describe_torch() -> int:
    """Prints how torch is set up."""
    import torch

    print(json.dumps([torch.get_num_threads(), torch.cuda.is_initialized()]))
    return 0


def kill_itself() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def fail() -> int:
    raise RuntimeError("a mistake of ours")


def sleep_for_ever() -> int:
    print("sleeping", flush=True)
    while True:
        time.sleep(60)


def answer_late() -> int:
    """Returns 7 if a signal is answered that came before there was a handler for it, else 8."""
    print("begun", flush=True)
    time.sleep(1)
    return 7 if StopRequest()() else 8


def run_until_told(told: Path) -> int:
    should_stop = StopRequest()
    told.write_text(str(os.getpid()))
    while not should_stop():
        time.sleep(0.01)
    return 0


def train_every_cell(text: Path, results_dir: Path) -> int:
    """Trains one small run of each cell, into folders named after the cells."""
    from charcmp.models.cells.registry import CELLS
    from charcmp.training.session import Session
    from charcmp.training.train import train
    from helpers.training import folder_of, quiet, tiny_spec

    for cell in CELLS:
        folder = folder_of(results_dir, cell)
        train(tiny_spec(text, cell, epochs=1), folder, Session(say=quiet))
    return 0
