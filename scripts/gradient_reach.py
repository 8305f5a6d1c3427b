"""Measures how far back a trained model's gradient reaches: the norm of ∂loss_t/∂h_{t−k} by k.

    python scripts/gradient_reach.py results                            every run with weights
    python scripts/gradient_reach.py results --runs 'wp-*-1x*-50k-s0-*' --output docs/gradient_reach

For each run, on its validation text, takes the loss at the last step t of each chunk and its
gradient with respect to the hidden state h after step t − k (of all layers together, if there are
several) and to the memory cell c, if there is one: the Euclidean norm over units, the mean over
chunks and streams. The weights are the run's; the state is carried from chunk to chunk, as in the
run. The gradient with respect to h is taken at fixed c, so it leaves out what flows along c.

Writes OUTPUT.csv (run, state, k, mean_norm) and OUTPUT.svg. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from torch import Tensor

from charcmp.data.chunks import Chunks
from charcmp.errors import UserError
from charcmp.inference.trained import TrainedRun, runs_with_weights
from charcmp.models.cells.base import Cell
from charcmp.models.cells.registry import CELLS
from charcmp.models.language_model import CharModel

STATES = ("h", "c")


def unroll(model: CharModel, x_TB: Tensor, state_LSBH: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Returns the logits after the last step (B, V) and every step's state, through which the
    whole gradient flows."""
    states = []
    for x_B in x_TB:
        layer_input, layers = x_B.unsqueeze(0), []
        for cell, state_SBH in zip(model.cells, state_LSBH, strict=True):
            assert isinstance(cell, Cell)
            layers.append(cell.reference(cell.dense_input(layer_input), state_SBH).state_SBH)
            layer_input = layers[-1][:1]
        state_LSBH = torch.stack(layers)
        states.append(state_LSBH)
    return model.decoder(state_LSBH[-1, 0]), states


def reach(model: CharModel, chunks: Chunks) -> Tensor:
    """Returns mean norms (S, T): row s is the s-th state vector, column k is k steps before the
    loss."""
    _, T, B = chunks.x_KTB.shape
    state = model.zero_state(B)
    total_ST = torch.zeros(len(state[0]), T)
    for x_TB, y_TB in zip(chunks.x_KTB, chunks.y_KTB, strict=True):
        logits_BV, states = unroll(model, x_TB.long(), state.detach())
        # Streams do not mix, so the gradient of the sum contains each stream's own gradient.
        loss = F.cross_entropy(logits_BV, y_TB[-1].long(), reduction="sum")
        gradients_TLSBH = torch.stack(torch.autograd.grad(loss, states))
        norms_TSB = gradients_TLSBH.permute(0, 2, 3, 1, 4).flatten(3).norm(dim=3)
        total_ST += norms_TSB.mean(2).flip(0).t()
        state = states[-1]
    return total_ST / len(chunks)


def reach_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Returns one line for each run, state vector and k: run, label, state, k, mean_norm.

    Raises:
        UserError: if the text of a run is missing.
    """
    rows = []
    for run in runs:
        model, chunks = run.model(), run.chunks("val")
        result = run.result
        label = f"{CELLS[result.cell].label} {result.layers}x{result.hidden_size}"
        print(label, run.run_id, flush=True)
        for state, norms_T in zip(STATES, reach(model, chunks).tolist(), strict=False):
            rows += [(run.run_id, label, state, k, norm) for k, norm in enumerate(norms_T)]
    return pd.DataFrame(rows, columns=["run", "label", "state", "k", "mean_norm"])


def draw(table: pd.DataFrame, file: Path) -> None:
    """Draws one line for each run and state vector."""
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    colors: dict[str, str] = {}
    for key, line in table.groupby(["label", "state"], sort=False):
        label, state = map(str, cast(tuple, key))
        color = colors.setdefault(label, f"C{len(colors)}")
        style = {"h": "-", "c": "--"}[state]
        name = f"{label}, ∂loss/∂{state}"
        line = line[line["mean_norm"] > 0]  # at k = 0 and fixed h, the loss does not depend on c
        axes.semilogy(line["k"], line["mean_norm"], style, color=color, label=name)
    axes.set_xlabel("k, characters before the loss")
    axes.set_ylabel("mean norm of the gradient, nats per unit")
    axes.set_xlim(0, table["k"].max())
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results_dir", type=Path)
    parser.add_argument("--runs", nargs="+", default=["*"], help="patterns of run ids")
    parser.add_argument("--output", type=Path, default=Path("gradient_reach"))
    args = parser.parse_args()
    plt.rcParams["svg.hashsalt"] = "charcmp"  # so that the same figure gives the same file
    table = reach_table(runs_with_weights(args.results_dir, args.runs))
    table.drop(columns="label").to_csv(
        args.output.with_suffix(".csv"), index=False, float_format="%.4g"
    )
    draw(table, args.output.with_suffix(".svg"))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"gradient_reach: {error}")
