"""What the trainer costs over the bare loop, and what our cells gain over torch.nn's.

    python scripts/bench_trainer.py            (about five minutes on one core)

For each shape three loops over the same text take turns, one epoch each, single-threaded:
  torch.nn  one-hot input, nn.LSTM / nn.RNN / nn.GRU, nn.Linear, clip_grad_value_, RMSprop: no more
  bare      the same loop around charcmp's model
  charcmp   charcmp.train.train as a user runs it, progress notes and checkpoints included
Printed: milliseconds per step (median over rounds of the mean over an epoch) and the ratios
charcmp / torch.nn (the issue's "no more than 5 %") and charcmp / bare (the trainer alone).
torch.nn's GRU is the reset-after one: the paper's form has no torch.nn module.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn

from charcmp.config import CellConfig, Config, DatasetConfig, LSTMConfig, RMSpropConfig
from charcmp.corpus import split_corpus
from charcmp.evaluate import to_chunks
from charcmp.model import CharModel
from charcmp.runs import RunFolder
from charcmp.spec import RunSpec, resolve
from charcmp.train import train

SHAPES = [("lstm", 1, 64), ("lstm", 2, 128), ("gru", 1, 77), ("rnn", 1, 141)]
Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class TorchModel(nn.Module):
    """What one would write with torch.nn in a minute."""

    def __init__(self, cell: str, layers: int, hidden_size: int, num_symbols: int) -> None:
        super().__init__()
        make = {"lstm": nn.LSTM, "rnn": nn.RNN, "gru": nn.GRU}[cell]
        self.recurrent = make(num_symbols, hidden_size, layers)
        self.decoder = nn.Linear(hidden_size, num_symbols)
        self.num_symbols = num_symbols

    def forward(self, x_TB: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        one_hot = F.one_hot(x_TB, self.num_symbols).float()
        h, state = self.recurrent(one_hot, state)
        return self.decoder(h), state


def bare_loop(model: nn.Module, chunks: list[tuple[Tensor, Tensor]], state: Tensor | None) -> float:
    """Seconds per step of a loop without anything beside the training."""
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
        assert state is not None
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
    return (time.perf_counter() - started) / (len(chunks) - 1)


def trainer(spec: RunSpec) -> float:
    """Seconds per step of the real trainer, from its first step to its last."""
    times: list[float] = []

    def should_stop() -> bool:
        times.append(time.perf_counter())
        return False

    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(Path(path) / "run")
        folder.create()
        train(spec, folder, should_stop, say=lambda line: None)
    return (times[-1] - times[0]) / (len(times) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rows = []
    for cell, layers, hidden_size in SHAPES:
        config = Config(
            cell=LSTMConfig(name=cell) if cell == "lstm" else CellConfig(name=cell),
            dataset=DatasetConfig(name="pydocs", source="pydocs", layout="contiguous"),
            optimizer=RMSpropConfig(name="rmsprop"),
            layers=layers,
            hidden_size=hidden_size,
            epochs=1,
            device="cpu",
            threads=1,
        )
        spec = resolve(config)
        V = spec.corpus.num_symbols
        streams = split_corpus(spec.corpus, "contiguous", [80, 10, 10], 100, 100)
        cut = to_chunks(streams.train, 100, torch.device("cpu"))
        chunks = [(x.long(), y.long()) for x, y in zip(cut.x_KTB, cut.y_KTB, strict=True)]
        seconds: dict[str, list[float]] = {"torch.nn": [], "bare": [], "charcmp": []}
        for _ in range(rounds):
            torch_model = TorchModel(cell, layers, hidden_size, V)
            model = CharModel(cell, layers, hidden_size, V)
            for built in (torch_model, model):
                for parameter in built.parameters():
                    nn.init.uniform_(parameter, -0.08, 0.08)
            seconds["torch.nn"].append(bare_loop(torch_model, chunks, None))
            seconds["bare"].append(bare_loop(model, chunks, model.zero_state(100)))
            seconds["charcmp"].append(trainer(spec))

        def ratio(over: str, measured: dict[str, list[float]] = seconds) -> float:
            pairs = zip(measured["charcmp"], measured[over], strict=True)
            return statistics.median(ours / theirs for ours, theirs in pairs)

        row = {"model": f"{cell} {layers}x{hidden_size}"}
        row |= {k: f"{1e3 * statistics.median(v):.1f} ms" for k, v in seconds.items()}
        row |= {"charcmp/torch.nn": f"{ratio('torch.nn'):.3f}"}
        row |= {"charcmp/bare": f"{ratio('bare'):.3f}"}
        rows.append(row)
    print(tabulate(rows, headers="keys", disable_numparse=True))


if __name__ == "__main__":
    main()
