"""Losses of a model on text: one number per character, from a zero state, dropout off.

Shape suffixes: K chunks, T steps, B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from charcmp.corpus import Stream
from charcmp.fill import windows
from charcmp.graph import Replayed
from charcmp.model import CharModel
from charcmp.precision import multiplying


@dataclass(frozen=True)
class Chunks:
    """A stream on the device, cut for truncated back-propagation: x and y, uint8 (K, T, B).

    For a fill-in model x is longer, see charcmp.fill.windows.
    """

    x_KTB: Tensor
    y_KTB: Tensor
    warm_up: int = 0  # as of Stream
    num_scored: int | None = None

    def __len__(self) -> int:
        return len(self.x_KTB)

    @property
    def num_chars(self) -> int:
        """Characters that count."""
        return self.y_KTB.numel() if self.num_scored is None else self.num_scored

    def scored(self, nll_KTB: Tensor) -> Tensor:
        """What counts of a number for each character, (num_chars,), row after row."""
        nll_BC = nll_KTB.permute(2, 0, 1).flatten(1)
        return nll_BC[:, self.warm_up :].flatten()[: self.num_chars]

    def __getitem__(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """x and y, int64 (T, B), of the chunk whose number is in a tensor (1) on the device."""
        x_1TB, y_1TB = (part.index_select(0, chunk) for part in (self.x_KTB, self.y_KTB))
        return x_1TB[0].long(), y_1TB[0].long()


def to_chunks(
    stream: Stream, unroll_steps: int, device: torch.device, right_context: int | None = None
) -> Chunks:
    """Lays a stream out so that each chunk is one contiguous copy.

    `right_context` is that of a fill-in model, None for a language model.
    """

    def cut(rows_BC: Tensor) -> Tensor:
        B = rows_BC.shape[0]
        rows_BKT = rows_BC.reshape(B, -1, unroll_steps)
        return rows_BKT.permute(1, 2, 0).contiguous().to(device)

    y_KTB = cut(torch.tensor(stream.y_BC))
    if right_context is None:
        x_KTB = cut(torch.tensor(stream.x_BC))
    else:
        x_KTB = windows(stream, unroll_steps, right_context).to(device)
    return Chunks(x_KTB, y_KTB, stream.warm_up, stream.num_scored)


class Evaluation:
    """A model's losses on a stream, as often as asked; on a GPU a captured graph per chunk."""

    def __init__(
        self,
        model: CharModel,
        chunks: Chunks,
        capture: bool = True,
        precision: str = "float32",
    ) -> None:
        K, T, B = chunks.y_KTB.shape
        self.model, self.chunks = model, chunks
        self.state_LSBH = model.zero_state(B)
        device = self.state_LSBH.device
        self.nll_KTB = torch.empty(K, T, B, device=device)
        self.chunk = torch.zeros(1, dtype=torch.int64, device=device)
        changed = [self.state_LSBH, self.nll_KTB, self.chunk]
        work = multiplying(self._score_chunk, precision)
        self.replay = Replayed(work, device, lambda: changed, capture=capture)

    def _score_chunk(self) -> None:
        x_TB, y_TB = self.chunks[self.chunk]
        logits_TBV, state_LSBH = self.model(x_TB, self.state_LSBH)
        nll = F.cross_entropy(logits_TBV.flatten(0, 1), y_TB.flatten(), reduction="none")
        self.nll_KTB.index_copy_(0, self.chunk, nll.view(1, *y_TB.shape))
        self.state_LSBH.copy_(state_LSBH)
        self.chunk += 1

    @torch.no_grad()
    def __call__(self, before_chunk: Callable[[], None] = lambda: None) -> Tensor:
        """Nats of every character that counts, float32 (N,), row after row of the stream.

        The state is carried over the whole stream.

        `before_chunk` may end it by an exception.
        """
        was_training = self.model.training
        self.model.eval()
        self.state_LSBH.zero_()
        self.chunk.zero_()
        for _ in range(len(self.chunks)):
            before_chunk()
            self.replay()
        self.model.train(was_training)
        return self.chunks.scored(self.nll_KTB)


def losses(model: CharModel, chunks: Chunks) -> Tensor:
    """Nats of every character, once: see Evaluation."""
    return Evaluation(model, chunks, capture=False)()


def mean_loss(nll: Tensor) -> float:
    """Mean nats per character, summed in float64."""
    return float(nll.double().mean())
