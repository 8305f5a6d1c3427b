"""The language model: recurrent layers over one-hot symbols, and a linear decoder on the top one.

Shape suffixes: T steps, B batch, V vocabulary, H hidden units, L layers, S state vectors.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from charcmp.models.budget import Shape
from charcmp.models.cells.base import Layer
from charcmp.models.cells.options import ModuleConfig
from charcmp.models.cells.registry import make_layer
from charcmp.models.initialization import draw


class CharModel(nn.Module):
    """L layers of one cell, dropout between and above them (never in the recurrence), a decoder."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        cells = make_stack(shape)
        self.cells = nn.ModuleList(cells)
        self.in_cudnn = cells[0].in_cudnn
        self.is_of_a_class = isinstance(shape.cell, ModuleConfig)  # of the user's
        num_states = max(cell.num_states for cell in cells)
        for cell in cells:  # the number may depend on the width of the input; use the largest
            cell.num_states = num_states
        self.state_shape = (shape.layers, num_states)
        self.hidden_size = shape.hidden_size
        self.decoder = nn.Linear(shape.hidden_size, shape.num_symbols)
        self.dropout = dropout
        self.generator: torch.Generator | None = None  # for dropout; None: the device's default

    def forward(self, x_TB: Tensor, state_LSBH: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits for the character after each of x.

        Args:
            x_TB: symbols, int64.
            state_LSBH: the state before the first step; see `zero_state`.

        Returns:
            Logits (T, B, V) and the state after the last step (L, S, B, H).
        """
        h_TBH, state_LSBH = self.run_stack(self.cells, x_TB, state_LSBH)
        return self.decoder(self._drop(h_TBH)), state_LSBH

    def run_stack(
        self, cells: nn.ModuleList, x_TB: Tensor, state_LSBH: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns h of the top layer at every step (T, B, H), and the state after the last."""
        h: Tensor = x_TB
        states = []
        for layer, (cell, state_SBH) in enumerate(zip(cells, state_LSBH, strict=True)):
            if layer > 0:
                h = self._drop(h)
            h, new_state_SBH = cell(h, state_SBH)
            states.append(new_state_SBH)
        return h, torch.stack(states)

    def _drop(self, h_TBH: Tensor) -> Tensor:
        """Applies dropout, drawn from the model's own generator (F.dropout takes none), so that
        runs that share a process do not disturb each other's draws."""
        if not self.training or self.dropout == 0:
            return h_TBH
        keep = torch.empty_like(h_TBH).bernoulli_(1 - self.dropout, generator=self.generator)
        return h_TBH * keep.div_(1 - self.dropout)

    def keeps_tensors(self) -> bool:
        """Returns whether a module keeps a tensor that is no parameter or buffer of the model."""
        known = {id(tensor) for tensor in (*self.parameters(), *self.buffers())}
        kept = (leaf for module in self.modules() for leaf in tree_leaves(vars(module)))
        return any(isinstance(leaf, Tensor) and id(leaf) not in known for leaf in kept)

    def zero_state(self, batch_size: int) -> Tensor:
        """Returns a state of zeros (L, S, B, H) on the model's device."""
        shape = (*self.state_shape, batch_size, self.hidden_size)
        return self.decoder.weight.new_zeros(shape)

    @torch.no_grad()
    def initialize(self, init_range: float, seed: int, init: str = "uniform") -> None:
        """Draws every parameter (see initialization.py), then sets what the cell's options ask for.

        Args:
            init_range: for init="uniform"; the others ignore it.
            seed: of every draw; nothing else is random.
            init: uniform | xavier | orthogonal.
        """
        draw(self, self.hidden_size, init, init_range, seed)
        generator = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, Layer):
                layer.set_initial_values(generator)


def make_stack(shape: Shape) -> list[Layer]:
    """Returns layers of equal width, the first one over symbols."""
    inputs = [shape.num_symbols, *[shape.hidden_size] * (shape.layers - 1)]
    return [make_layer(shape.cell, input_size, shape.hidden_size) for input_size in inputs]


def check_module_cells(shape: Shape, unroll_steps: int = 100) -> list[str]:
    """Runs the checks of cells/checks.py on a model of `cell=module`; UserError if one fails.

    It checks the first layer and the second; the layers above are like the second.

    Args:
        shape: the model.
        unroll_steps: steps that it reads at once; by default the paper's.

    Returns:
        Notes to the user on the class.
    """
    if not isinstance(shape.cell, ModuleConfig):
        return []
    from charcmp.models.cells.checks import check_layer

    layers = make_stack(replace(shape, layers=min(2, shape.layers)))
    notes = [check_layer(layer, unroll_steps) for layer in layers]
    return sorted({f"cell.target={shape.cell.target}: {note}" for note in notes if note})
