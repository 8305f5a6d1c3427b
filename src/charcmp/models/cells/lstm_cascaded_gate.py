"""The LSTM whose gates are cascades: each source of a gate has a gate of its own, in series.

    a = W x + b     u = U h + b'     p = w ⊙ c (w ⊙ c' for o)
    i = σ(a_i) ⊙ σ(u_i) ⊙ σ(p_i)
    f = σ(a_f) ⊙ σ(u_f) ⊙ σ(p_f)
    g = φ(a_g + u_g)
    c' = f ⊙ c + i ⊙ g
    o = σ(a_o) ⊙ σ(u_o) ⊙ σ(p_o)
    h' = o ⊙ φ(c')

The sources co-operate: any one of them can close the gate. With all sources at 0 a gate is at 1/8,
where a plain gate is at 1/2, and p has no bias; that is a handicap of this reading.
`cell.open_bias` is the initial value of the biases b and b' of i, f and o (3 puts σ(a)·σ(u) at
0.91).

S. Asakawa (2016) announced a "cascaded gates" LSTM without equations. This is our reading, based on
the peephole LSTM (lstm_peephole.py, which also explains φ and the weights' order).
Shape suffixes: see base.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charcmp.models.cells.lstm import by_step
from charcmp.models.cells.source_gates import PARTS, SourceCell, SourceGates


class CascadedGates(SourceGates):
    """y = σ(a) σ(u) σ(p), whose slope in each source s is y (1 − σ(s))."""

    def __init__(self, a_TBGH: Tensor) -> None:
        T, B, _, H = a_TBGH.shape
        self.open_a, self.open_u = torch.sigmoid(a_TBGH), torch.empty_like(a_TBGH)
        self.open_p = a_TBGH.new_empty(T, B, 2, H), a_TBGH.new_empty(T, B, 1, H)
        self.open_u_steps = self.open_u.unbind(0)
        self.steps = [
            list(by_step(self.open_a[:, :, gates], self.open_u[:, :, gates], open_p))
            for gates, open_p in zip(PARTS, self.open_p, strict=True)
        ]

    def begin(self, t: int, u_BGH: Tensor) -> None:
        torch.sigmoid(u_BGH, out=self.open_u_steps[t])  # g too: whole rows are faster

    def write(
        self, part: int, t: int, a_BKH: Tensor, u_BKH: Tensor, p_BKH: Tensor, y_BKH: Tensor
    ) -> None:
        open_a, open_u, open_p = self.steps[part][t]
        torch.sigmoid(p_BKH, out=open_p)
        torch.mul(open_a, open_u, out=y_BKH).mul_(open_p)

    def slopes(
        self, part: int, block: slice, a: Tensor, u: Tensor, p: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        slope_a, slope_u, slope_p = (
            torch.addcmul(y, y, opened[block], value=-1)
            for opened in (
                self.open_a[:, :, PARTS[part]],
                self.open_u[:, :, PARTS[part]],
                self.open_p[part],
            )
        )
        return slope_a, slope_u, slope_p


class LSTMCascadedGate(SourceCell):
    """One layer of the LSTM with cascaded gates, run by our whole-sequence form, fused on a GPU."""

    gates_of = CascadedGates
    fused_gates = "cascaded"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        activation: str = "tanh",
        forget_bias: float | None = None,
        open_bias: float | None = None,
    ) -> None:
        """Makes a layer; two options set initial values.

        Args:
            open_bias: the initial b and b' of i, f and o.
            forget_bias: the initial b and b' of f, instead of `open_bias`; both vectors, since one
                source alone cannot open a cascade.
        """
        super().__init__(input_size, hidden_size, activation, forget_bias)
        self.open_bias = open_bias

    def gate(self, a_BH: Tensor, u_BH: Tensor, p_BH: Tensor) -> Tensor:
        return torch.sigmoid(a_BH) * torch.sigmoid(u_BH) * torch.sigmoid(p_BH)

    @torch.no_grad()
    def set_initial_values(self, generator: torch.Generator) -> None:
        forget_bias = self.open_bias if self.forget_bias is None else self.forget_bias
        for name in ("bias_ih", "bias_hh"):
            b_i, b_f, _, b_o = self.per_gate(name)
            for bias, value in ((b_i, self.open_bias), (b_f, forget_bias), (b_o, self.open_bias)):
                if value is not None:
                    bias.fill_(value)
