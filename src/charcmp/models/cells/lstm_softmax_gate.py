"""The LSTM whose gates' sources compete: a softmax over them says which one the gate listens to.

    a = W x + b     u = U h + b'     p = w ⊙ c (w ⊙ c' for o)
    α = softmax over {a, u, p}, for each unit and gate
    y(a, u, p) = σ(3 (α_a a + α_u u + α_p p))
    i = y(a_i, u_i, p_i)     f = y(a_f, u_f, p_f)
    g = φ(a_g + u_g)
    c' = f ⊙ c + i ⊙ g
    o = y(a_o, u_o, p_o)
    h' = o ⊙ φ(c')

If the sources are equal, each α is 1/3. The factor 3 makes the gate the peephole LSTM's
σ(a + u + p) then.

S. Asakawa (2016) announced a "softmax gate" LSTM without equations. This is our reading, based on
the peephole LSTM (lstm_peephole.py, which also explains φ and the weights' order).
Shape suffixes: see base.py and source_gates.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charcmp.models.cells.lstm import by_step
from charcmp.models.cells.source_gates import SourceCell, SourceGates

THREE = torch.tensor(3.0)  # less than half the cost of a Python number


class SoftmaxGates(SourceGates):
    """y = σ(3 v) with v = α_a a + α_u u + α_p p.

    As ∂α_k/∂s_j = α_k (δ_kj − α_j), the slope of v in a source s is α_s (1 + s − v). That of y is
    3 y (1 − y) times as large.
    """

    def __init__(self, a_TBGH: Tensor) -> None:
        T, B, _, H = a_TBGH.shape
        new_empty = a_TBGH.new_empty
        self.alpha = [new_empty(T, 3, B, K, H) for K in (2, 1)]
        self.v = [new_empty(T, B, K, H) for K in (2, 1)]
        self.sources = [new_empty(3, B, K, H) for K in (2, 1)]
        self.steps = [
            list(by_step(alpha, *alpha.unbind(1), v))
            for alpha, v in zip(self.alpha, self.v, strict=True)
        ]

    def begin(self, t: int, u_BGH: Tensor) -> None:
        """Does nothing: each gate's sources meet in `write`."""

    def write(
        self, part: int, t: int, a_BKH: Tensor, u_BKH: Tensor, p_BKH: Tensor, y_BKH: Tensor
    ) -> None:
        alpha, alpha_a, alpha_u, alpha_p, v = self.steps[part][t]
        sources = self.sources[part]
        torch.stack((a_BKH, u_BKH, p_BKH), out=sources)
        torch.softmax(sources, dim=0, out=alpha)
        torch.mul(alpha_a, a_BKH, out=v)
        v.addcmul_(alpha_u, u_BKH).addcmul_(alpha_p, p_BKH)
        torch.mul(v, THREE, out=y_BKH).sigmoid_()

    def slopes(
        self, part: int, block: slice, a: Tensor, u: Tensor, p: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        slope_v = torch.addcmul(y, y, y, value=-1).mul_(3)
        offset = 1 - self.v[part][block]
        slope_a, slope_u, slope_p = (
            (source + offset).mul_(alpha).mul_(slope_v)
            for source, alpha in zip((a, u, p), self.alpha[part][block].unbind(1), strict=True)
        )
        return slope_a, slope_u, slope_p


class LSTMSoftmaxGate(SourceCell):
    """One layer of the LSTM with softmax gates, run by our whole-sequence form, fused on a GPU."""

    gates_of = SoftmaxGates
    fused_gates = "softmax"

    def gate(self, a_BH: Tensor, u_BH: Tensor, p_BH: Tensor) -> Tensor:
        sources = torch.stack((a_BH, u_BH, p_BH))
        return torch.sigmoid(3 * (torch.softmax(sources, dim=0) * sources).sum(0))
