"""Compares how long a sweep of twelve small runs takes, in this checkout and an earlier commit.

    python scripts/bench_sweep.py --against fa72f44      (two cores: about five minutes)

This shows mainly what a sweep adds to the training of its runs: importing torch, composing
configurations, starting processes, writing records. The two checkouts sweep in turn, several times,
with the packages of this Python; all sweeps must end with the same losses.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from checkouts import CHECKOUT, worktree
from turns import take_turns

GRID = ["cell=lstm,rnn,gru", "layers=1,2", "seed=0,1"]
SIZES = ["hidden_size=8", "batch_size=8", "unroll_steps=50", "device=cpu", "progress=false"]


def sweep_seconds(checkout: Path, results_dir: Path, overrides: list[str]) -> float:
    """Returns the seconds that the sweep takes with the code of a checkout."""
    args = ["sweep", *GRID, *SIZES, *overrides, f"results_dir={results_dir}"]
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "charcmp", *args],
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - begun


def losses(results_dir: Path) -> dict[str, str]:
    """Returns by run id a hash of the losses of the run's test text."""
    files = sorted(results_dir.glob("runs/*/test_nll.npy"))
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", metavar="COMMIT", default="HEAD")
    parser.add_argument("--epochs", type=int, default=8, help="about two seconds of training")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-sweep-") as name:
        folder = Path(name)
        text = folder / "text.txt"
        text.write_text("".join(random.Random(0).choices("etaoin shrdlu\n", k=20_000)))
        with worktree(options.against) as earlier:
            compare(folder, {options.against: earlier, "this checkout": CHECKOUT}, text, options)


def compare(
    folder: Path, checkouts: dict[str, Path], text: Path, options: argparse.Namespace
) -> None:
    overrides = ["dataset=text", f"dataset.path={text}"]
    overrides += [f"epochs={options.epochs}", f"jobs={options.jobs}"]
    found: list[dict[str, str]] = []

    def sweep(name: str) -> float:
        results_dir = folder / f"results-{len(found)}"
        seconds = sweep_seconds(checkouts[name], results_dir, overrides)
        found.append(losses(results_dir))
        print(f"{name}: {seconds:.1f} s", flush=True)
        return seconds

    seconds = take_turns({name: partial(sweep, name) for name in checkouts}, options.repeats)
    before, after = (statistics.median(values) for values in seconds.values())
    print(f"median of {options.repeats}: {before:.1f} s, then {after:.1f} s; {after / before:.2f}")
    if any(other != found[0] for other in found):
        sys.exit("the losses differ")
    print(f"the losses of all {len(found[0])} runs are equal to the last bit")


if __name__ == "__main__":
    main()
