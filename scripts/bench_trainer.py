"""Measures what the trainer costs over a bare loop, and what our cells gain over torch.nn's.

    python scripts/bench_trainer.py            (about five minutes on one core)

For each shape four loops over the same text take turns, one epoch each, single-threaded, each in a
process of its own:
  torch.nn       one-hot input, nn.LSTM / nn.RNN / nn.GRU, nn.Linear, clip_grad_value_, RMSprop
  bare           the same loop around charcmp's model
  bare + memory  like bare, with charcmp.training.device.keep_freed_memory, as in the trainer
  charcmp        charcmp.training.train.train as a user runs it, with progress notes and checkpoints
Prints milliseconds per step (median over rounds of the mean over an epoch) and the ratios of
charcmp's time to the others'; the last ratio is what the trainer itself costs.
torch.nn's GRU is the reset-after one: the paper's form has no torch.nn module.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn
from turns import take_turns

from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.schema import Config
from charcmp.config.spec import RunSpec, resolve
from charcmp.data.chunks import to_chunks
from charcmp.data.corpus import split_corpus
from charcmp.data.dataset import DatasetConfig
from charcmp.models.budget import Shape
from charcmp.models.cells.registry import cell_config
from charcmp.models.language_model import CharModel
from charcmp.runs.folder import RunFolder
from charcmp.training.device import keep_freed_memory
from charcmp.training.session import Session
from charcmp.training.train import train

SHAPES = [("lstm", 1, 64), ("lstm", 2, 128), ("gru", 1, 77), ("rnn", 1, 141)]
KINDS = ("torch.nn", "bare", "bare + memory", "charcmp")


class TorchModel(nn.Module):
    """The model that one would write with torch.nn in a minute."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        make = {"lstm": nn.LSTM, "rnn": nn.RNN, "gru": nn.GRU}[shape.cell.name]
        self.recurrent = make(shape.num_symbols, shape.hidden_size, shape.layers)
        self.decoder = nn.Linear(shape.hidden_size, shape.num_symbols)
        self.num_symbols = shape.num_symbols

    def forward(self, x_TB: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        one_hot = F.one_hot(x_TB, self.num_symbols).float()
        h, state = self.recurrent(one_hot, state)
        return self.decoder(h), state


def bare_loop(model: nn.Module, chunks: list[tuple[Tensor, Tensor]], state: Any) -> float:
    """Returns the seconds per step of a loop that does nothing besides the training."""
    parameters = list(model.parameters())
    optimizer = torch.optim.RMSprop(parameters, lr=2e-3, alpha=0.95, eps=1e-8)
    started = 0.0
    for number, (x, y) in enumerate(chunks):
        if number == 1:
            started = time.perf_counter()  # the first step is the warm-up
        logits, state = model(x, state)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / x.shape[1]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(parameters, 5.0)
        optimizer.step()
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
    return (time.perf_counter() - started) / (len(chunks) - 1)


def trainer(spec: RunSpec) -> float:
    """Returns the seconds per step of the real trainer, from its first step to its last."""
    times: list[float] = []

    def should_stop() -> bool:
        times.append(time.perf_counter())
        return False

    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path) / "run")
        folder.create()
        train(spec, folder, Session(should_stop, lambda line: None))
    return (times[-1] - times[0]) / (len(times) - 1)


def measure(kind: str, cell: str, layers: int, hidden_size: int) -> float:
    """Returns the seconds per step of one epoch of one loop."""
    torch.set_num_threads(1)
    config = Config(
        cell=cell_config(cell),
        dataset=DatasetConfig(name="pydocs", source="pydocs", layout="contiguous"),
        optimizer=RMSpropConfig(name="rmsprop"),
        layers=layers,
        hidden_size=hidden_size,
        epochs=1,
        device="cpu",
        threads=1,
    )
    spec = resolve(config)
    if kind == "charcmp":
        return trainer(spec)
    streams = split_corpus(spec.corpus, "contiguous", [80, 10, 10], 100, 100)
    cut = to_chunks(streams.train, 100, torch.device("cpu"))
    chunks = [(x.long(), y.long()) for x, y in zip(cut.x_KTB, cut.y_KTB, strict=True)]
    make: type[nn.Module] = TorchModel if kind == "torch.nn" else CharModel
    model = make(spec.shape)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.08, 0.08)
    if kind == "bare + memory":
        keep_freed_memory()
    return bare_loop(model, chunks, model.zero_state(100) if isinstance(model, CharModel) else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    rows = []
    # A process per measurement, so that what one loop did to the allocator does not help the next.
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for shape in SHAPES:
            loops = {kind: partial(pool.apply, measure, (kind, *shape)) for kind in KINDS}
            seconds = take_turns(loops, rounds)
            median = {kind: statistics.median(values) for kind, values in seconds.items()}
            ratio = {kind: median["charcmp"] / median[kind] for kind in KINDS}
            rows.append(
                {
                    "model": f"{shape[0]} {shape[1]}x{shape[2]}",
                    **{kind: f"{1e3 * value:.1f} ms" for kind, value in median.items()},
                    **{f"/ {kind}": f"{ratio[kind]:.3f}" for kind in KINDS if kind != "charcmp"},
                }
            )
    print(tabulate(rows, headers="keys", disable_numparse=True))


if __name__ == "__main__":
    main()
