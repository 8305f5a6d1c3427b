"""Layers of other packages, made callable like torch.nn's for `cell=module`.

    charcmp train cell=module cell.target=charcmp.models.cells.adapters.MinGRU

Each imports its package when it is built. `adapts` names the package, whose version becomes part of
a run's identity.

Shape suffixes: see base.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinGRU(nn.Module):
    """minGRU in log space (Feng et al. 2024, "Were RNNs All We Needed?", appendix B), from the
    package minGRU-pytorch.

        z = σ(W_z x)    h' = g(W_h x)    h = (1 - z) ⊙ h + z ⊙ h'

    with g(a) = a + 0.5 where a ≥ 0, else σ(a). The package expects the batch as first dimension,
    and the width as a factor of the input size. It takes the logarithm of the state, so the zeros
    of a run's first state are raised to the smallest normal number.
    """

    adapts = "minGRU_pytorch"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        from minGRU_pytorch import minGRU

        super().__init__()
        # The package rounds the product of the two down, hence the half.
        self.layer = minGRU(input_size, (hidden_size + 0.5) / input_size, proj_out=False)

    def forward(self, x_TBI: Tensor, state_1BH: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if state_1BH is not None:
            state_1BH = state_1BH.transpose(0, 1).clamp_min(torch.finfo(x_TBI.dtype).tiny)
        y_BTH, state_B1H = self.layer(
            x_TBI.transpose(0, 1), state_1BH, return_next_prev_hidden=True
        )
        return y_BTH.transpose(0, 1), state_B1H.transpose(0, 1)


class SLSTM(nn.Module):
    """sLSTM (Beck et al. 2024, "xLSTM", section 2.2), from the package xlstm.

    Only its cell, in plain PyTorch, behind a matrix for the inputs of the four gates; without the
    block's convolution, norm and projections.
    """

    adapts = "xlstm"

    def __init__(self, input_size: int, hidden_size: int, num_heads: int = 1) -> None:
        from xlstm.blocks.slstm.cell import sLSTMCell, sLSTMCellConfig

        super().__init__()
        config = sLSTMCellConfig(
            hidden_size=hidden_size,
            num_heads=num_heads,
            backend="vanilla",
            dtype="float32",
            enable_automatic_mixed_precision=False,
            input_shape="SBGNH",
            output_shape="SBH",
        )
        self.gates = nn.Linear(input_size, 4 * hidden_size, bias=False)  # the cell has the biases
        self.cell = sLSTMCell(config)

    def forward(self, x_TBI: Tensor, state_SBH: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y_TBH, state_SBH = self.cell(self.gates(x_TBI), state_SBH)
        return y_TBH, state_SBH


class CfC(nn.Module):
    """Closed-form continuous-time network (Hasani et al. 2022), from the package ncps.

    ncps.torch.CfC with a time of 1 between characters, and the steps as first dimension.
    """

    adapts = "ncps"

    def __init__(self, input_size: int, hidden_size: int, mode: str = "default") -> None:
        from ncps.torch import CfC as StreamsFirst

        super().__init__()
        self.layer = StreamsFirst(input_size, hidden_size, batch_first=False, mode=mode)

    def forward(self, x_TBI: Tensor, state_BH: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y_TBH, state_BH = self.layer(x_TBI, state_BH)
        return y_TBH, state_BH
