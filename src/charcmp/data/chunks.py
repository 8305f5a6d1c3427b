"""Streams of text cut into chunks, on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from charcmp.data.corpus import Streams
from charcmp.models.fill_in import NOTHING


@dataclass(frozen=True)
class Chunks:
    """Streams on the device, cut for truncated back-propagation: x and y, uint8 (K, T, B).

    For a fill-in model x is longer and int16; see `windows`.
    """

    x_KTB: Tensor
    y_KTB: Tensor
    warm_up: int = 0  # this and num_scored as in Streams
    num_scored: int | None = None

    def __len__(self) -> int:
        return len(self.x_KTB)

    @property
    def num_chars(self) -> int:
        """Characters that are scored."""
        return self.y_KTB.numel() if self.num_scored is None else self.num_scored

    def first(self, num_chunks: int) -> Chunks:
        """Returns only the first chunks of every stream."""
        return replace(self, x_KTB=self.x_KTB[:num_chunks], y_KTB=self.y_KTB[:num_chunks])

    def scored(self, nll_KTB: Tensor) -> Tensor:
        """Returns the values of the scored characters, (num_chars,), stream after stream."""
        nll_BC = nll_KTB.permute(2, 0, 1).flatten(1)
        return nll_BC[:, self.warm_up :].flatten()[: self.num_chars]

    def __getitem__(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x and y, int64 (T, B), of a chunk; its number is a tensor (1) on the device."""
        x_1TB, y_1TB = (part.index_select(0, chunk) for part in (self.x_KTB, self.y_KTB))
        return x_1TB[0].long(), y_1TB[0].long()


def to_chunks(
    streams: Streams, unroll_steps: int, device: torch.device, right_context: int | None = None
) -> Chunks:
    """Cuts streams into chunks that are each contiguous in memory.

    `right_context` is a fill-in model's; None for a language model.
    """

    def cut(streams_BC: Tensor) -> Tensor:
        B = streams_BC.shape[0]
        streams_BKT = streams_BC.reshape(B, -1, unroll_steps)
        return streams_BKT.permute(1, 2, 0).contiguous().to(device)

    y_KTB = cut(torch.tensor(streams.y_BC))
    if right_context is None:
        x_KTB = cut(torch.tensor(streams.x_BC))
    else:
        x_KTB = windows(streams, unroll_steps, right_context).to(device)
    return Chunks(x_KTB, y_KTB, streams.warm_up, streams.num_scored)


def windows(streams: Streams, unroll_steps: int, right_context: int) -> Tensor:
    """Returns what a FillModel reads for each chunk, int16 (K, W, B); see its `forward`."""
    assert 1 <= right_context <= unroll_steps
    text_BC = np.concatenate([streams.x_BC[:, :1], streams.y_BC], axis=1).astype(np.int16)
    beyond_BR = np.full((len(text_BC), right_context), NOTHING, dtype=np.int16)
    text = torch.tensor(np.concatenate([text_BC, beyond_BR], axis=1))
    windows_BKW = text.unfold(1, unroll_steps + 1 + right_context, unroll_steps)
    return windows_BKW.permute(1, 2, 0).contiguous()


def random_chunks(
    num_symbols: int,
    size: tuple[int, int, int],
    device: torch.device,
    seed: int = 0,
    right_context: int | None = None,
) -> Chunks:
    """Returns random text to time or check training steps with; each symbol is its own target.

    Args:
        num_symbols: symbols are drawn from 0 to this, exclusive, all alike; at most 256.
        size: chunks, steps of each, streams: (K, T, B).
        device: where the chunks are to be.
        seed: the same one gives the same text.
        right_context: a fill-in model's; None for a language model.
    """
    K, T, B = size
    drawn_BC = np.random.default_rng(seed).integers(num_symbols, size=(B, K * T), dtype=np.uint8)
    return to_chunks(Streams(drawn_BC, drawn_BC), T, device, right_context)
