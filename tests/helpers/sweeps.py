"""Jobs of a sweep, the processes that it starts, and the results that it leaves."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.schema import Config
from charcmp.config.spec import resolve
from charcmp.data.dataset import DatasetConfig
from charcmp.models.cells.registry import cell_config
from charcmp.runs.folder import RunFolder, runs_dir
from charcmp.sweeping.grid import Job
from charcmp.sweeping.pool import run_processes
from charcmp.sweeping.slots import Slot
from helpers.console import TINY
from helpers.training import TIMES


def results(folder: Path) -> dict[str, dict]:
    """Returns every result of a results folder: no times, but hashes of weights and losses."""
    found = {}
    for run in sorted((folder / "runs").iterdir()):
        result = json.loads((run / "result.json").read_text())
        for key in TIMES:
            result.pop(key, None)  # lanes do not time sampling
        result["weights"] = hash((run / "best.safetensors").read_bytes())
        result["losses"] = hash((run / "test_nll.npy").read_bytes())
        found[run.name] = result
    return found


def _started_by(pid: int) -> dict[int, str]:
    """Returns the command lines of the processes that a process has started, by process id."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True
    )
    pairs = (line.split(maxsplit=1) for line in listed.stdout.splitlines())
    return {int(child): args for child, args in pairs}


def servers_of(pid: int) -> list[int]:
    """Returns the servers that fork the processes of a sweep."""
    return [child for child, args in _started_by(pid).items() if "forkserver import" in args]


def children_of(pid: int) -> list[int]:
    """Returns the processes in which a sweep trains: forked from its server, or fresh."""
    fresh = [child for child, args in _started_by(pid).items() if "spawn_main" in args]
    return fresh + [child for server in servers_of(pid) for child in _started_by(server)]


LANES = [Slot("CPU", 1, {}, 3)] * 3


def make_jobs(
    text: Path, results_dir: Path, epochs: int = 8, lr: float = 2e-3, device: str = "cpu"
) -> list[Job]:
    """Returns jobs of five runs, each with the command line that means it to `charcmp train`."""
    jobs = []
    for cell, seed in (("lstm", 0), ("gru", 0), ("rnn", 0), ("rnn", 1), ("gru", 1)):
        config = Config(
            cell=cell_config(cell),
            dataset=DatasetConfig(None, "file", str(text), layout="contiguous", split=[80, 10, 10]),
            optimizer=RMSpropConfig("rmsprop", lr=lr if cell == "lstm" else 2e-3),
            **{"layers": 2, "dropout": 0.2, "hidden_size": 8, "batch_size": 18, "unroll_steps": 10},
            **{"device": device, "threads": 1, "progress": False, "checkpoint_seconds": 0.0},
            seed=seed,
            epochs=epochs,
            results_dir=str(results_dir),
        )
        given = [
            *("dataset=text", f"dataset.path={text}", *TINY[:1], *TINY[2:], f"epochs={epochs}"),
            *(f"cell={cell}", f"seed={seed}", f"optimizer.lr={config.optimizer.lr}"),
            *("layers=2", "dropout=0.2", f"results_dir={results_dir}", "checkpoint_seconds=0"),
        ]
        spec = resolve(config)
        folder = RunFolder(runs_dir(results_dir) / spec.run_id)
        jobs.append(Job(given, spec, folder))
    return jobs


def run(jobs: list[Job], slots: list[Slot] = LANES) -> None:
    run_processes(jobs, slots=slots)
