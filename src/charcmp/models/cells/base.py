"""The interface of every recurrent layer, and the input product that all cells share.

Shape suffixes here and in the cells: T steps, B batch, I inputs, H hidden units, G gate sums,
S state vectors (1 for h; 2 for h and c), P peephole vectors.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charcmp.models.cells.activations import ACTIVATIONS


class Trace(NamedTuple):
    """What a cell's reference computes over a chunk."""

    h_TBH: Tensor
    state_SBH: Tensor  # after the last step
    gates: dict[str, Tensor]  # every gate's values by its letter, each (T, B, H); an RNN has none


class Layer(nn.Module):
    """One recurrent layer over a whole chunk, as the language model runs it."""

    num_states: int = 1
    in_cudnn: bool = False  # whether a GPU can run it well without our kernels
    one_hot_II: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        # For layers that read symbols: row v is the one-hot vector of symbol v. Gathering from it
        # makes the dense input without the device synchronisation of F.one_hot.
        self.register_buffer("one_hot_II", torch.eye(input_size), persistent=False)

    def forward(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the layer over T steps.

        Args:
            x: symbols (T, B), int64, read as one-hot vectors; or features (T, B, I).
            state_SBH: the state before the first step.

        Returns:
            h of every step (T, B, H) and the state after the last (S, B, H).
        """
        raise NotImplementedError

    def set_initial_values(self, generator: torch.Generator) -> None:
        """Overwrites, after the general initialisation, the values that the cell's options set."""

    def dense_input(self, x: Tensor) -> Tensor:
        """Returns features (T, B, I) as they are, symbols (T, B) as one-hot vectors."""
        return x if x.is_floating_point() else F.embedding(x, self.one_hot_II)


class Cell(Layer):
    """A layer of one of charcmp's cells.

    Subclasses hold their weights in `self.weights`, a torch.nn recurrent module of one layer, so
    that names, shapes and gate order are torch's: weight_ih_l0 (G·H, I), weight_hh_l0 (G·H, H) and
    two biases (G·H). `forward` may run that module or equations of its own over the same weights.
    """

    cudnn_activations: ClassVar[tuple[str, ...]] = ()  # those with which cuDNN has this cell
    # Widest layer that runs in cuDNN rather than by our kernels. On an H200, cuDNN is faster for an
    # LSTM of 128 units and an RNN of 256, our kernels for 256 and 512 (LOG.md); the limits between
    # are guesses.
    widest_in_cudnn: ClassVar[int] = 0
    has_kernels: ClassVar[bool] = True  # whether fused/ has kernels for it
    weights: nn.RNNBase

    def __init__(self, weights: nn.RNNBase, activation: str = "tanh") -> None:
        super().__init__(weights.input_size, weights.hidden_size)
        self.weights = weights
        self.activation_name = activation
        self.activation = ACTIVATIONS[activation]
        self.in_cudnn = activation in self.cudnn_activations  # a GPU can run `weights` itself
        self.best_in_cudnn = self.in_cudnn and self.hidden_size <= self.widest_in_cudnn

    def reference(self, x_TBI: Tensor, state_SBH: Tensor) -> Trace:
        """Runs the equations as written, slowly, a step at a time; autograd differentiates them."""
        raise NotImplementedError

    def input_sums(self, x: Tensor, both_biases: bool = True) -> Tensor:
        """Returns W x + b + b' for every step, (T, B, G·H); without b' unless `both_biases`.

        The product of W with a symbol's one-hot vector is a column of W. On a CPU it is gathered,
        which saves a third of a narrow model's arithmetic. On a GPU a gather's gradient sorts the
        symbols and, on an H200, differed from run to run; the product with one-hot vectors does
        neither.
        """
        weight_ih, _, bias_ih, bias_hh = self.weights.parameters()
        bias = bias_ih + bias_hh if both_biases else bias_ih
        if x.is_cuda or x.is_floating_point():
            return F.linear(self.dense_input(x), weight_ih, bias)
        return F.embedding(x, weight_ih.t() + bias)

    def per_gate(self, name: str) -> tuple[Tensor, ...]:
        """Returns a parameter ("weight_ih", "bias_hh", ...) cut into one part for each gate sum."""
        parameter = self.weights.get_parameter(f"{name}_l0")
        return parameter.split(self.hidden_size)
