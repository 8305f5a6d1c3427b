"""The fill-in model: it predicts each byte from the text on both sides of it.

A bidirectional network trained as a language model would see the answer. Here two separate stacks,
one reading forward and one backward, meet only in the decoder; if their layers saw each other, they
would pass on what the other side has read. For the target y_t, the character after x_t, the
decoder gets

    the forward stack's top h after    ..., x_{t-1}, x_t
    the backward stack's top h after   ..., y_{t+2}, y_{t+1}

so the targets are the language model's, character by character, but only y_t itself is hidden from
its prediction. The two directions are Schuster & Paliwal's (1997).

The forward stack's state is carried from chunk to chunk, as in the language model. The backward
stack starts from a zero state R characters beyond each chunk's right edge; these R characters are
the right context. It stays within the targets of its stream: the last chunk of a stream has no
right context, since what follows in the text belongs to another part of the split or to another
stream. So training reads only what a language model trains on. R is at most T, so a chunk has
either all of its context or none.

Shape suffixes: T steps of a chunk, R of right context, W = T + 1 + R, K chunks, B streams, C
columns, V vocabulary, H hidden units, L layers, S state vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from charcmp.models.budget import Shape
from charcmp.models.initialization import seeded
from charcmp.models.language_model import CharModel, make_stack

NOTHING = -1  # in place of the right context where the stream has ended


class FillModel(CharModel):
    """A CharModel with a second stack that reads backward; `cells` and state are the forward one's.

    Args:
        shape, dropout: as for CharModel.
        right_context: R, at least 1.
    """

    def __init__(self, shape: Shape, right_context: int, dropout: float = 0.0) -> None:
        super().__init__(shape, dropout)
        self.backward_cells = nn.ModuleList(make_stack(shape))
        self.decoder = nn.Linear(2 * shape.hidden_size, shape.num_symbols)
        self.right_context = right_context

    def forward(self, x_WB: Tensor, state_LSBH: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits for each of y, the characters 1 to T of x.

        Args:
            x_WB: symbols, int64: the T characters that a language model would read, the last
                target, and R more, which are all NOTHING where the stream has ended.
            state_LSBH: the forward stack's state before the first step; see `zero_state`.

        Returns:
            Logits (T, B, V) and the forward stack's state after T steps (L, S, B, H).
        """
        T = len(x_WB) - 1 - self.right_context
        h_TBH, new_state_LSBH = self.run_stack(self.cells, x_WB[:T], state_LSBH)
        both_TBH = torch.cat([h_TBH, self._read_backward(x_WB[2:], T)], dim=2)
        return self.decoder(self._drop(both_TBH)), new_state_LSBH

    def _read_backward(self, right: Tensor, T: int) -> Tensor:
        """Returns the backward stack's top h (T, B, H); at step t it has read `right` from t on."""
        y_TB, context_RB = right[: T - 1], right[T - 1 :]
        is_text_B1 = (context_RB[0] != NOTHING).unsqueeze(1)
        h_RBH, state_LSBH = self.run_stack(
            self.backward_cells, context_RB.clamp_min(0).flip(0), self.zero_state(right.shape[1])
        )
        # Where there is no context, start from zeros here, so that every chunk has the same shape.
        state_LSBH = state_LSBH.where(is_text_B1, 0)
        h_TBH = h_RBH[-1:].where(is_text_B1, 0)
        if T > 1:
            h, _ = self.run_stack(self.backward_cells, y_TB.flip(0), state_LSBH)
            h_TBH = torch.cat([h_TBH, h])
        return h_TBH.flip(0)


def make_model(shape: Shape, right_context: int | None, dropout: float = 0.0) -> CharModel:
    """Returns a CharModel, or a FillModel if there is a right context."""
    with seeded(
        0
    ):  # even torch's own layers draw: not between the draws of a class in another lane
        if right_context is None:
            return CharModel(shape, dropout)
        return FillModel(shape, right_context, dropout)
