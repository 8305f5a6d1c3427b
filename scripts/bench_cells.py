"""Measures how fast cells that torch.nn lacks train, compared with those that it has.

    python scripts/bench_cells.py                                      (ten minutes on one core)
    python scripts/bench_cells.py --budgets 50k --layers 1 --cells gru

One chunk is forward, loss and backward with T = B = 100 over War and Peace's 87 symbols, on one
thread. Every model has the hidden size that the solver gives it for the budget, so all have about
the same number of parameters. The models of a table take turns in one process, which keeps freed
memory as the trainer does. torch.nn's models read one-hot vectors (bench_trainer.TorchModel);
charcmp's run as they do in the trainer.

Prints milliseconds per chunk (median over rounds) and, for each base, the base's time divided by
the cell's (median of the rounds' ratios). torch.nn.GRU is the reset-after one: the paper's form has
no torch.nn module.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from bench_trainer import TorchModel
from tabulate import tabulate
from torch import nn
from turns import seconds_of, take_turns

from charcmp.models.budget import Shape, solve, target_params
from charcmp.models.cells.registry import cell_config
from charcmp.models.language_model import CharModel
from charcmp.training.device import keep_freed_memory

T, B, V = 100, 100, 87
CELLS = {
    "gru": {},
    "lstm_peephole": {},
    "lstm_softmax_gate": {},
    "lstm_cascaded_gate": {},
    "lstm softsign": {"activation": "softsign"},
    "gru softsign": {"activation": "softsign"},
    "rnn softsign": {"activation": "softsign"},
}
BASES = {"torch.nn.LSTM": "lstm", "torch.nn.GRU": "gru", "torch.nn.RNN": "rnn", "our lstm": "lstm"}


def chunk_of(model: nn.Module, state: object) -> Callable[[], None]:
    """Returns a function that runs one training chunk, all but the optimiser's step."""
    x_TB, y_TB = torch.randint(V, (2, T, B))

    def chunk() -> None:
        logits, _ = model(x_TB, state)
        loss = F.cross_entropy(logits.flatten(0, 1), y_TB.flatten(), reduction="sum") / B
        model.zero_grad(set_to_none=True)
        loss.backward()

    return chunk


def charcmp_chunk(shape: Shape) -> Callable[[], None]:
    model = CharModel(shape)
    model.initialize(0.08, seed=0)
    return chunk_of(model, model.zero_state(B))


def torch_chunk(shape: Shape) -> Callable[[], None]:
    model = TorchModel(shape)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.08, 0.08)
    return chunk_of(model, None)


def measure(budget: str, layers: int, cells: list[str], rounds: int) -> list[dict[str, Any]]:
    """Measures one table: the bases and the cells at one budget and depth."""
    target = target_params(budget, V)
    sizes, chunks = {}, {}
    for name in [*BASES, *cells]:
        cell = BASES.get(name, name.split()[0])
        shape = solve(Shape(cell_config(cell, **CELLS.get(name, {})), layers, 1, V), target)
        sizes[name] = shape.hidden_size
        chunks[name] = torch_chunk(shape) if name.startswith("torch") else charcmp_chunk(shape)
    timed = {name: partial(seconds_of, chunk) for name, chunk in chunks.items()}
    seconds = take_turns(timed, rounds, warm_up=1)
    rows = []
    for name, times in seconds.items():
        row = {"budget": budget, "layers": layers, "cell": name, "H": sizes[name]}
        row["ms"] = 1e3 * statistics.median(times)
        for base in BASES:
            ratios = (b / t for b, t in zip(seconds[base], times, strict=True))
            row[f"/ {base}"] = statistics.median(ratios)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--budgets", nargs="+", default=["50k", "400k"])
    parser.add_argument("--layers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    for budget in args.budgets:
        for layers in args.layers:
            rows = measure(budget, layers, args.cells, args.rounds)
            print(tabulate(rows, headers="keys", floatfmt=".2f", tablefmt="pipe"), flush=True)


if __name__ == "__main__":
    main()
