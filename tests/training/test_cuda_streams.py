"""CUDA streams that are lent: nobody's but the borrower's, and used again."""

import threading
from itertools import count

import pytest
import torch

from charcmp.training.cuda_streams import CudaStreamPool, at_work_on
from charcmp.training.gate import GATE


def pool(size: int) -> CudaStreamPool[list[int]]:
    """Streams as torch hands them out: after `size` of them the first one again."""
    numbers = count()
    return CudaStreamPool(lambda: [next(numbers) % size], lambda stream: stream[0])


def test_each_has_its_own_and_the_next_has_it_again() -> None:
    streams = pool(32)
    with streams.lent() as one, streams.lent() as other:
        assert one != other
    with streams.lent() as again:
        assert again is one
    for _ in range(100):  # runs one after another: no further stream is made
        with streams.lent() as stream:
            assert stream in (one, other)


def test_never_one_stream_for_two() -> None:
    streams = pool(2)
    with (
        streams.lent(),
        streams.lent(),
        pytest.raises(RuntimeError, match="more than 2 runs on one GPU"),
        streams.lent(),
    ):
        pass


def test_a_lane_that_fails_gives_its_stream_back() -> None:
    streams = pool(1)
    with pytest.raises(ValueError, match="diverged"), streams.lent():
        raise ValueError("diverged")
    with streams.lent() as stream:
        assert stream == [0]


def test_by_many_threads_at_once() -> None:
    streams, lock = pool(8), threading.Lock()
    in_use: set[int] = set()
    clashes = []

    def run() -> None:
        for _ in range(200):
            with streams.lent() as (number,):
                with lock:
                    clashes.extend([number] if number in in_use else [])
                    in_use.add(number)
                with lock:
                    in_use.remove(number)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes


def test_a_cpu_needs_neither_stream_nor_gate() -> None:
    with at_work_on(torch.device("cpu")):
        assert not GATE.is_shared_by_me()
