"""Measures how much the compiled forms on a CPU save of a whole update, for the paper's grid.

    python scripts/bench_compiled.py                                  (two minutes on one core)
    python scripts/bench_compiled.py --budget 400k --streams 100 --steps 100

An update is forward, loss, backward, clipping and the optimiser's step, on one thread, over random
symbols. The update with and the one without compiled forms take turns in one process. Prints
milliseconds per update (medians), the median of the rounds' ratios (above 1: the compiled form is
faster), and whether the weights are equal to the last bit afterwards.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch
from tabulate import tabulate
from turns import seconds_of, take_turns

from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.schema import Config
from charcmp.config.spec import resolve_with
from charcmp.data.chunks import random_chunks
from charcmp.data.corpus import Corpus
from charcmp.data.dataset import DatasetConfig
from charcmp.models.cells.compiled import dispatch
from charcmp.models.cells.modes import forced
from charcmp.models.cells.registry import cell_config
from charcmp.training.device import keep_freed_memory
from charcmp.training.step import Step

UPDATES = 10  # of a round
CPU = torch.device("cpu")
SYMBOLS = bytes(range(87))  # as many as War and Peace has
MODES: tuple[dispatch.Mode, ...] = ("never", "auto")


def milliseconds(step: Step, mode: dispatch.Mode) -> float:
    """Returns the milliseconds of an update, by a round of them."""

    def updates() -> None:
        for _ in range(UPDATES):
            step()

    with forced(dispatch, mode):
        return 1000 * seconds_of(updates) / UPDATES


def measure(cell: str, layers: int, args: argparse.Namespace) -> list[object]:
    """Returns a row of the table."""
    config = Config(
        cell=cell_config(cell),
        dataset=DatasetConfig(name="random", layout="columns"),
        optimizer=RMSpropConfig(name="rmsprop"),
        layers=layers,
        budget=args.budget,
        batch_size=args.streams,
        unroll_steps=args.steps,
        device="cpu",
    )
    size = (UPDATES, args.steps, args.streams)
    chunks = random_chunks(len(SYMBOLS), size, CPU)
    text = chunks.x_KTB.flatten().numpy()
    spec = resolve_with(config, Corpus("random", text, SYMBOLS, ""))
    steps = {mode: Step(spec, CPU, chunks) for mode in MODES}
    timed = {mode: partial(milliseconds, step, mode) for mode, step in steps.items()}
    old, new = take_turns(timed, args.rounds, warm_up=1).values()
    ratio = statistics.median(a / b for a, b in zip(old, new, strict=True))
    equal = all(map(torch.equal, *(step.parameters for step in steps.values())))
    name = f"{cell} {layers} x {spec.hidden_size}"
    ms = [f"{statistics.median(each):.1f}" for each in (old, new)]
    return [name, *ms, f"{ratio:.2f}", "equal" if equal else "differ"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", default="50k")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    if reason := dispatch.why_not():
        parser.error(reason)
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for cell in ("lstm", "gru", "rnn"):
        for layers in (1, 2, 3):
            rows.append(measure(cell, layers, args))
    headers = ["model", "torch's calls, ms", "compiled, ms", "ratio", "bits"]
    print(tabulate(rows, headers, tablefmt="github"))


if __name__ == "__main__":
    main()
