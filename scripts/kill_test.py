"""Kills a sweep at random moments, restarts it each time and compares it with an undisturbed one.

    python scripts/kill_test.py [--kills 50] [--epochs 30] [--seed 0] [--folder /tmp/kill-test]

The sweep has twelve small runs, one per core at once. SIGKILL goes in turn to the sweep itself and
to its children, --kills times in all; then the sweep runs to its end. Exit status 1 unless every
figure, weight and loss equals the undisturbed sweep's, and no run that had a checkpoint began from
scratch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

GRID = ["cell=rnn,lstm,gru", "layers=1,2", "seed=0,1"]
TINY = ["hidden_size=8", "batch_size=10", "unroll_steps=20", "device=cpu", "checkpoint_seconds=0.2"]
COMPARED = ("best.safetensors", "test_nll.npy")


def sweep(results_dir: Path, epochs: int) -> list[str]:
    text = results_dir.parent / "text.txt"  # 40,000 characters that every Python comes with
    text.write_text("".join(topics.values())[:40_000])
    overrides = [*GRID, *TINY, "dataset=text", f"dataset.path={text}", f"epochs={epochs}"]
    overrides.append(f"results_dir={results_dir}")
    return [sys.executable, "-m", "charcmp", "sweep", *overrides, "--retry-failed"]


def children_of(pid: int) -> list[int]:
    """Returns the processes of a sweep's runs, which its server has forked."""
    server = started_by(pid, "forkserver import")
    return started_by(server[0]) if server else []


def started_by(pid: int, words: str = "") -> list[int]:
    """Returns the child processes that have these words in their command line."""
    ps = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)]
    listed = subprocess.run(ps, capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in listed if words in line]


def outcome(results_dir: Path) -> dict[str, Any]:
    """Returns all results of a sweep, except for times."""
    found: dict[str, Any] = {}
    for run in sorted((results_dir / "runs").iterdir()):
        result = json.loads((run / "result.json").read_text())
        del result["seconds_train"], result["chars_per_second"], result["seconds_per_sampled_char"]
        found[run.name] = [result, *((run / name).read_bytes() for name in COMPARED)]
    return found


def restarted_in_spite_of_a_checkpoint(results_dir: Path) -> list[str]:
    """Returns the runs that began from scratch though an earlier attempt had a checkpoint."""
    bad = []
    for log in (results_dir / "runs").glob("*/log.txt"):
        attempts = log.read_text().split(" parameters, hidden size ")[1:]
        for before, after in itertools.pairwise(attempts):
            if "epoch 1/" in before and "resuming" not in after:
                bad.append(log.parent.name)
    return bad


def disturb(results_dir: Path, epochs: int, num_kills: int, rng: random.Random) -> tuple[int, int]:
    """Starts and kills the sweep repeatedly; returns (kills of the sweep, kills of children)."""
    kills = {"sweep": 0, "child": 0}
    for victim in itertools.cycle(kills):
        if sum(kills.values()) >= num_kills:
            return kills["sweep"], kills["child"]
        process = subprocess.Popen(sweep(results_dir, epochs), stdout=subprocess.DEVNULL)
        while not children_of(process.pid) and process.poll() is None:
            time.sleep(0.05)
        while process.poll() is None:
            time.sleep(rng.uniform(0, 4))
            children = children_of(process.pid)
            if victim == "sweep" and process.poll() is None:
                process.kill()
                process.wait()
                kills["sweep"] += 1
            elif children:
                os.kill(rng.choice(children), signal.SIGKILL)
                kills["child"] += 1
                if sum(kills.values()) >= num_kills or rng.random() < 0.5:
                    process.send_signal(signal.SIGTERM)
                    process.wait()
        if process.returncode == 0:
            raise SystemExit(
                f"finished after {sum(kills.values())} kills: more --epochs are needed"
            )
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-test-"))
    folder.mkdir(parents=True, exist_ok=True)
    alone, disturbed = folder / "alone", folder / "disturbed"
    begun = time.monotonic()
    subprocess.run(sweep(alone, options.epochs), check=True, stdout=subprocess.DEVNULL)
    print(f"undisturbed: {len(outcome(alone))} runs, {time.monotonic() - begun:.0f} s")
    begun = time.monotonic()
    kills = disturb(disturbed, options.epochs, options.kills, random.Random(options.seed))
    subprocess.run(sweep(disturbed, options.epochs), check=True, stdout=subprocess.DEVNULL)
    print(
        f"disturbed: {kills[0]} kills of the sweep, {kills[1]} of a child, "
        f"{time.monotonic() - begun:.0f} s"
    )
    differing = [name for name, it in outcome(alone).items() if outcome(disturbed).get(name) != it]
    anew = restarted_in_spite_of_a_checkpoint(disturbed)
    print(f"runs that differ: {differing or 'none'}")
    print(f"runs that began anew in spite of a checkpoint: {anew or 'none'}")
    if options.folder is None:
        shutil.rmtree(folder)
    sys.exit(bool(differing or anew))


if __name__ == "__main__":
    main()
