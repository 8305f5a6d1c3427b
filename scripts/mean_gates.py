"""Measures how far the gates of trained models are open on their validation text, from 0 to 1.

    python scripts/mean_gates.py results
    python scripts/mean_gates.py results --runs '*-lstm_cascaded_gate-*' --output mean_gates.csv

Prints one line for each run and layer: the mean value of every gate over characters, streams and
units, where 0 is closed and 1 is open. Writes OUTPUT (run, layer, gate, mean), if it is given.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from charcmp.data.chunks import Chunks
from charcmp.errors import UserError
from charcmp.files import write_bytes
from charcmp.inference.trained import TrainedRun, runs_with_weights
from charcmp.models.cells.base import Cell
from charcmp.models.language_model import CharModel


@torch.no_grad()
def mean_gates(model: CharModel, chunks: Chunks) -> list[dict[str, float]]:
    """Returns each layer's mean value of every gate over characters, streams and units.

    The lowest layer is the first. Gates are named as in the cell's equations: i, f, o in an LSTM,
    r, z in a GRU; an RNN has none. They are computed by the cells' references, which are slow, from
    a zero state that is carried over the whole text.
    """
    state = model.zero_state(chunks.x_KTB.shape[2])
    sums: list[defaultdict[str, float]] = [defaultdict(float) for _ in model.cells]
    for x_TB in chunks.x_KTB:
        layer_input: Tensor = x_TB.long()
        for layer, cell in enumerate(model.cells):
            assert isinstance(cell, Cell)
            trace = cell.reference(cell.dense_input(layer_input), state[layer])
            layer_input, state[layer] = trace.h_TBH, trace.state_SBH
            for gate, values_TBH in trace.gates.items():
                sums[layer][gate] += float(values_TBH.double().mean())
    return [{gate: total / len(chunks) for gate, total in gates.items()} for gates in sums]


def gates_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Returns one line for each run, layer (the lowest is 1) and gate: run, layer, gate, mean.

    Raises:
        UserError: if the text of a run is missing.
    """
    rows = [
        (run.run_id, layer, gate, mean)
        for run in runs
        for layer, gates in enumerate(mean_gates(run.model(), run.chunks("val")), start=1)
        for gate, mean in gates.items()
    ]
    return pd.DataFrame(rows, columns=["run", "layer", "gate", "mean"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results_dir", type=Path)
    parser.add_argument("--runs", nargs="+", default=["*"], help="patterns of run ids")
    parser.add_argument("--output", type=Path, help="a CSV file")
    args = parser.parse_args()
    table = gates_table(runs_with_weights(args.results_dir, args.runs))
    wide = table.pivot_table("mean", ["run", "layer"], "gate", sort=False).reset_index()
    print(wide.to_markdown(index=False, tablefmt="simple", floatfmt=".3f"))
    if args.output is not None:
        text = table.to_csv(index=False, float_format="%.6f")
        write_bytes(args.output, text.encode())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"mean_gates: {error}")
