"""How far the gates of a model stand open on text: 0 is closed, 1 open."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from charcmp.cells.base import Cell
from charcmp.evaluate import Chunks
from charcmp.model import CharModel


@torch.no_grad()
def mean_gates(model: CharModel, chunks: Chunks) -> list[dict[str, float]]:
    """The mean value of every gate over characters, rows and units, for each layer from below.

    Gates are named as in the cell's equations: i, f, o in an LSTM, r, z in a GRU; an RNN has none.
    Computed by the cells' references, from a zero state that is carried over the whole text: as
    slow as they are.
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
