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
from charcmp.model import CharModel


@dataclass(frozen=True)
class Chunks:
    """A stream on the device, cut for truncated back-propagation: x and y, uint8 (K, T, B)."""

    x_KTB: Tensor
    y_KTB: Tensor

    def __len__(self) -> int:
        return len(self.x_KTB)


def to_chunks(stream: Stream, unroll_steps: int, device: torch.device) -> Chunks:
    """Lays a stream out so that each chunk is one contiguous copy."""

    def cut(rows_BC: Tensor) -> Tensor:
        B = rows_BC.shape[0]
        rows_BKT = rows_BC.reshape(B, -1, unroll_steps)
        return rows_BKT.permute(1, 2, 0).contiguous().to(device)

    return Chunks(*(cut(torch.tensor(rows)) for rows in (stream.x_BC, stream.y_BC)))


@torch.no_grad()
def losses(
    model: CharModel, chunks: Chunks, before_chunk: Callable[[], None] = lambda: None
) -> Tensor:
    """Nats of every character, float32 (B, K·T): the state is carried over the whole stream.

    `before_chunk` may end it by an exception.
    """
    was_training = model.training
    model.eval()
    _, T, B = chunks.x_KTB.shape
    state = model.zero_state(B)
    nll_KTB = torch.empty(chunks.x_KTB.shape, device=state.device)
    for x_TB, y_TB, nll_TB in zip(chunks.x_KTB, chunks.y_KTB, nll_KTB, strict=True):
        before_chunk()
        logits_TBV, state = model(x_TB.long(), state)
        nll = F.cross_entropy(logits_TBV.flatten(0, 1), y_TB.long().flatten(), reduction="none")
        nll_TB.copy_(nll.view(T, B))
    model.train(was_training)
    return nll_KTB.permute(2, 0, 1).reshape(B, -1)


def mean_loss(nll: Tensor) -> float:
    """Mean nats per character, summed in float64."""
    return float(nll.double().mean())
