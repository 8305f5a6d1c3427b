"""Random text, to time and check training steps with."""

import torch

from charcmp.data.chunks import random_chunks

CPU = torch.device("cpu")
SIZE = K, T, B = 3, 40, 7


def test_random_text() -> None:
    chunks = random_chunks(256, SIZE, CPU, seed=1)
    assert chunks.x_KTB.shape == SIZE
    assert chunks.x_KTB.dtype == torch.uint8
    assert len(chunks.x_KTB.unique()) > 200  # of 840 draws
    assert torch.equal(chunks.y_KTB, chunks.x_KTB)
    assert torch.equal(random_chunks(256, SIZE, CPU, seed=1).x_KTB, chunks.x_KTB)
    assert not torch.equal(random_chunks(256, SIZE, CPU, seed=2).x_KTB, chunks.x_KTB)
    assert sorted(random_chunks(5, SIZE, CPU).x_KTB.unique().tolist()) == [0, 1, 2, 3, 4]


def test_random_text_for_a_fill_in_model() -> None:
    """It reads the character before a chunk, the chunk and its right context."""
    chunks = random_chunks(87, SIZE, CPU, right_context=9)
    assert chunks.x_KTB.shape == (K, 1 + T + 9, B)
    assert torch.equal(chunks.x_KTB[:, 1 : 1 + T], chunks.y_KTB.short())
