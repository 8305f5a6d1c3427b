"""The long short-term memory, without peepholes.

    i = σ(W_i x + b_i + U_i h + b'_i)
    f = σ(W_f x + b_f + U_f h + b'_f)
    g = φ(W_g x + b_g + U_g h + b'_g)
    o = σ(W_o x + b_o + U_o h + b'_o)
    c' = f ⊙ c + i ⊙ g
    h' = o ⊙ φ(c')

φ is tanh in the paper; `cell.activation=softsign` replaces it in the candidate and in the output,
and leaves the gates' σ. Gate order in the weights: i, f, g, o, as in torch.nn.LSTM, whose equations
these are if φ is tanh.

Source: Karpathy, Johnson & Fei-Fei 2015, section 3.1. Shape suffixes: see base.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from charcmp.models.cells.activations import Activation
from charcmp.models.cells.base import Cell, Trace
from charcmp.models.cells.compiled.dispatch import compiled_on
from charcmp.models.cells.fused.dispatch import fused_on

# Up to this width, a first layer on a CPU runs by our whole-sequence form. There torch.nn.LSTM must
# multiply by the one-hot vectors, and takes 1.24 to 1.37 times as long with the default allocator,
# about as long where freed memory is kept. Above the first layer torch.nn.LSTM is faster (LOG.md).
WIDEST_SEQUENCE = 100

# The backward pass prepares its factors for so many elements of (T, B, H) at once: enough for few
# calls, few enough for the arrays to stay in the cache (LOG.md).
BLOCK_ELEMENTS = 128_000
PRODUCT_TILE = 16  # columns


class LSTMLayer(Cell):
    """The parts that all LSTM layers share: weights, options, and the form that a GPU runs."""

    num_states = 2
    fused_gates: ClassVar[str]  # the name of its gates in fused/lstm.py
    peepholes_PH: nn.Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        activation: str = "tanh",
        forget_bias: float | None = None,
    ) -> None:
        """Makes a layer; `forget_bias`, if given, is the initial b_f (the paper has none)."""
        super().__init__(nn.LSTM(input_size, hidden_size), activation)
        self.forget_bias = forget_bias
        self.register_parameter("peepholes_PH", None)

    def forward(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        if not fused_on(x, self.best_in_cudnn):
            return self.torch_form(x, state_SBH)
        from charcmp.models.cells.fused.lstm import FusedLSTM

        h_TBH, c_BH = FusedLSTM.apply(
            self.input_sums(x, both_biases=False),
            *state_SBH,
            self.weights.get_parameter("weight_hh_l0"),
            self.weights.get_parameter("bias_hh_l0"),
            self.peepholes_PH,
            self.activation_name,
            self.fused_gates,
        )
        return h_TBH, torch.stack((h_TBH[-1], c_BH))

    def torch_form(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        """Runs `forward` without Triton."""
        raise NotImplementedError

    @torch.no_grad()
    def set_initial_values(self, generator: torch.Generator) -> None:
        if self.forget_bias is not None:
            self.per_gate("bias_ih")[1].fill_(self.forget_bias)


class LSTM(LSTMLayer):
    """One layer: torch.nn.LSTM, except with softsign, in narrow first layers on a CPU and in wide
    layers on a GPU."""

    cudnn_activations = ("tanh",)
    widest_in_cudnn = 192
    fused_gates = "sum"

    def torch_form(self, x: Tensor, state_SBH: Tensor) -> tuple[Tensor, Tensor]:
        narrow = self.hidden_size <= WIDEST_SEQUENCE
        first_on_cpu = not x.is_cuda and not x.is_floating_point()
        if self.activation_name != "tanh" or (narrow and first_on_cpu):
            inputs = (*state_SBH, self.weights.get_parameter("weight_hh_l0"))
            if compiled_on(x, state_SBH, self.activation_name):
                from charcmp.models.cells.compiled.lstm import CompiledLSTM

                h_TBH, c_BH = CompiledLSTM.apply(self.input_sums(x), *inputs)
            else:
                h_TBH, c_BH = LSTMSequence.apply(self.input_sums(x), *inputs, self.activation)
            return h_TBH, torch.stack((h_TBH[-1], c_BH))
        state = state_SBH.unsqueeze(1).unbind(0)
        h_TBH, (h_1BH, c_1BH) = self.weights(self.dense_input(x), state)
        return h_TBH, torch.cat((h_1BH, c_1BH))

    def reference(self, x_TBI: Tensor, state_SBH: Tensor) -> Trace:
        W_i, W_f, W_g, W_o = self.per_gate("weight_ih")
        U_i, U_f, U_g, U_o = self.per_gate("weight_hh")
        b_i, b_f, b_g, b_o = self.per_gate("bias_ih")
        c_i, c_f, c_g, c_o = self.per_gate("bias_hh")  # the equations' b'
        h, c = state_SBH
        steps = []
        for x in x_TBI:
            i = torch.sigmoid(x @ W_i.t() + b_i + h @ U_i.t() + c_i)
            f = torch.sigmoid(x @ W_f.t() + b_f + h @ U_f.t() + c_f)
            g = self.activation.function(x @ W_g.t() + b_g + h @ U_g.t() + c_g)
            o = torch.sigmoid(x @ W_o.t() + b_o + h @ U_o.t() + c_o)
            c = f * c + i * g
            h = o * self.activation.function(c)
            steps.append((h, i, f, o))
        return lstm_trace(steps, c)


class LSTMSequence(torch.autograd.Function):
    """The recurrence over T steps, forward and backward written out.

    Inputs: sums_TBG = W x + b + b' for i, f, g, o; the initial h_BH and c_BH; U (4H, H).
    Outputs: h_TBH and the last c_BH. The last c takes no gradient: truncated back-propagation stops
    at the state that is carried on.

    With e = ∂L/∂h', q = ∂L/∂c' and pre-activations s:
        q += e ⊙ o ⊙ φ'(c')                     ∂L/∂s_o = e ⊙ φ(c') ⊙ o ⊙ (1 − o)
        ∂L/∂s_i = q ⊙ g ⊙ i ⊙ (1 − i)           ∂L/∂s_f = q ⊙ c ⊙ f ⊙ (1 − f)
        ∂L/∂s_g = q ⊙ i ⊙ φ'(s_g)               ∂L/∂c = q ⊙ f,   ∂L/∂h = (∂L/∂s) U
    The slopes φ' come from the saved values (1 − g² for tanh). `LSTMBackward` walks the steps.
    """

    @staticmethod
    def forward(
        ctx: Any,
        sums_TBG: Tensor,
        h_BH: Tensor,
        c_BH: Tensor,
        U_GH: Tensor,
        activation: Activation,
    ) -> tuple[Tensor, Tensor]:
        T, B, G = sums_TBG.shape
        H = G // 4
        h_all, c_all = sums_TBG.new_empty(T + 1, B, H), sums_TBG.new_empty(T + 1, B, H)
        h_all[0], c_all[0] = h_BH, c_BH  # h_all[t], c_all[t] are the state before step t
        gates_TBG = torch.empty_like(sums_TBG)
        s_BG = sums_TBG.new_empty(B, G)
        s_g = s_BG[:, 2 * H : 3 * H]
        phi_c_TBH = sums_TBG.new_empty(T, B, H)
        U_t = U_GH.t()
        activate = activation.into
        views = (
            *(sums_TBG, gates_TBG, *gates_TBG.split(H, dim=2)),
            *(phi_c_TBH, c_all[:-1], c_all[1:], h_all[:-1], h_all[1:]),
        )
        for sums, gates, i, f, g, o, phi_c, c, c_next, h, h_next in by_step(*views):
            torch.addmm(sums, h, U_t, out=s_BG)
            torch.sigmoid(s_BG, out=gates)  # g too, overwritten next: whole rows are faster
            activate(s_g, g)
            torch.mul(f, c, out=c_next).addcmul_(i, g)
            activate(c_next, phi_c)
            torch.mul(o, phi_c, out=h_next)
        ctx.save_for_backward(h_all, c_all, gates_TBG, phi_c_TBH, U_GH)
        ctx.activation = activation
        c_last = c_all[-1].clone()
        ctx.mark_non_differentiable(c_last)
        return h_all[1:], c_last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_h_TBH: Tensor, _grad_c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        h_all, c_all, gates_TBG, phi_c_TBH, U_GH = ctx.saved_tensors
        slope = ctx.activation.slope
        grads = LSTMBackward(grad_h_TBH, U_GH)
        for block in grads.blocks():
            i, f, g, o = gates_TBG[block].chunk(4, dim=2)
            phi_c = phi_c_TBH[block]
            ifg, out = grads.new_factors(block)
            torch.mul(g, i - i * i, out=ifg[:, :, 0])
            torch.mul(c_all[block], f - f * f, out=ifg[:, :, 1])
            torch.mul(i, slope(g), out=ifg[:, :, 2])
            torch.mul(phi_c, o - o * o, out=out)
            grads.walk(block, ifg, out, to_c=slope(phi_c).mul_(o), keep=f)
        grad_U_GH = grads.sums_TBG.flatten(0, 1).t() @ h_all[:-1].flatten(0, 1)
        return grads.sums_TBG, grads.h_all[0], grads.c_all[0], grad_U_GH, None


class LSTMBackward:
    """Back-propagation through the steps of an LSTM: the serial part.

    The LSTMs here differ only in their factors. With e = ∂L/∂h', q = ∂L/∂c' and s the sums that
    hold U h, one step is
        q += e ⊙ to_c     ∂L/∂s_ifg = q ⊙ ifg     ∂L/∂s_o = e ⊙ out
        ∂L/∂c = q ⊙ keep      ∂L/∂h = (∂L/∂s) U + what reaches h from above
    The factors (to_c, ifg, out, keep) do not depend on gradients, so they are computed outside the
    loop, for a block of steps at once.

    Attributes:
        sums_TBG: ∂L/∂s for i, f, g, o.
        h_all, c_all: (T + 1, B, H); row t is the gradient at the state before step t, so row t + 1
            holds the e and q of step t.
    """

    def __init__(self, grad_h_TBH: Tensor, U_GH: Tensor) -> None:
        T, B, H = grad_h_TBH.shape
        # Zeros up to a multiple of the product's tile make it 1.0 to 1.6 times as fast (LOG.md).
        more = -H % PRODUCT_TILE
        self.U_wide = F.pad(U_GH, (0, more))
        self.h_wide = F.pad(grad_h_TBH, (0, more, 0, 0, 1, 0))  # row 0, in front, is zeros
        self.h_all = self.h_wide[:, :, :H]
        self.c_all = grad_h_TBH.new_empty(T + 1, B, H)
        self.c_all[T] = 0
        self.sums_TBGH = grad_h_TBH.new_empty(T, B, 4, H)
        self.sums_TBG = self.sums_TBGH.flatten(2)
        self.steps_per_block = max(1, BLOCK_ELEMENTS // (B * H))

    def blocks(self) -> Iterator[slice]:
        """Yields the steps in blocks, the last ones first."""
        for end in range(len(self.sums_TBG), 0, -self.steps_per_block):
            yield slice(max(0, end - self.steps_per_block), end)

    def new_factors(self, block: slice) -> tuple[Tensor, Tensor]:
        """Allocates a block's ifg (T', B, 3, H) and out (T', B, H)."""
        _, B, _, H = self.sums_TBGH.shape
        num_steps = block.stop - block.start
        new_empty = self.sums_TBGH.new_empty
        return new_empty(num_steps, B, 3, H), new_empty(num_steps, B, H)

    def walk(self, block: slice, ifg: Tensor, out: Tensor, to_c: Tensor, keep: Tensor) -> None:
        """Walks through one block of steps, the last one first."""
        e, q = self.h_all[1:][block], self.c_all[1:][block]
        sums = self.sums_TBGH[block]
        steps = zip(
            by_step(e, q, q.unsqueeze(2)),
            by_step(ifg, out, to_c, keep),
            by_step(sums[:, :, :3], sums[:, :, 3], sums.flatten(2)),
            by_step(self.h_wide[block], self.c_all[block]),
            strict=True,
        )
        for (
            (e_t, q_t, q_B1H),
            (ifg_t, out_t, to_c_t, keep_t),
            (sums_ifg, sums_o, sums_t),
            (h_before, c_before),
        ) in reversed(list(steps)):
            q_t.addcmul_(e_t, to_c_t)
            torch.mul(q_B1H, ifg_t, out=sums_ifg)
            torch.mul(e_t, out_t, out=sums_o)
            torch.mul(q_t, keep_t, out=c_before)
            h_before.addmm_(sums_t, self.U_wide)


def by_step(*arrays: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Iterates over the arrays' rows step by step; the views are made once, before the loop."""
    return zip(*(array.unbind(0) for array in arrays), strict=True)


def lstm_trace(steps: Sequence[tuple[Tensor, ...]], c_BH: Tensor) -> Trace:
    """Returns the trace of an LSTM from (h, i, f, o) of every step and the last c."""
    h_TBH, i_TBH, f_TBH, o_TBH = map(torch.stack, zip(*steps, strict=True))
    gates = {"i": i_TBH, "f": f_TBH, "o": o_TBH}
    return Trace(h_TBH, torch.stack((h_TBH[-1], c_BH)), gates)
