"""Compares how long the commands that train nothing take, in this checkout and an earlier commit.

    python scripts/bench_commands.py --against fa72f44      (about two minutes)

The two checkouts run each command in turn, several times, with the packages of this Python, and
should print the same. Prints seconds of the clock and of the processor; if the machine does other
work, look at the latter. CHARCMP_DATA must name the folder of the paper's corpora, since a grid's
plan reads them.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from checkouts import CHECKOUT, worktree
from tabulate import tabulate
from turns import take_turns

EXAMPLE = CHECKOUT / "results" / "example"
COMMANDS = (
    ["params"],
    ["sweep", "--dry-run", "--no-cost"],
    ["status", f"results_dir={EXAMPLE}"],
    ["report", f"results_dir={EXAMPLE}", "--format", "csv", "--output", "report"],
)


class Timed(NamedTuple):
    """A command's seconds of the clock and of the processor, and what it printed."""

    clock: float
    processor: float
    printed: str


def timed(checkout: Path, args: list[str], folder: Path) -> Timed:
    """Runs a command with the code of a checkout, in a folder."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "charcmp", *args],
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed(seconds, used, done.stdout)


def compare(args: list[str], checkouts: list[Path], repeats: int) -> dict[str, str]:
    """Returns a command's medians in two checkouts, and their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {path: partial(timed, path, args, Path(folder)) for path in checkouts}
        found = take_turns(runs, repeats).values()
    row = {"command": args[0]}
    for name in ("clock", "processor"):
        then, now = (statistics.median(getattr(run, name) for run in runs) for runs in found)
        row[name] = f"{then:.1f} s, then {now:.1f} s"
        row[f"{name}: ratio"] = f"{now / then:.2f}"
    printed = {run.printed for runs in found for run in runs}
    return row | {"printed": "the same" if len(printed) == 1 else "differs"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", metavar="COMMIT", default="HEAD")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with worktree(options.against) as earlier:
        rows = [compare(args, [earlier, CHECKOUT], options.repeats) for args in COMMANDS]
    print(tabulate(rows, headers="keys", disable_numparse=True))


if __name__ == "__main__":
    main()
