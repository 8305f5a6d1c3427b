"""Gives each run at work in this process a CUDA stream of its own.

torch.cuda.Stream() hands out 32 streams in turn: the thirty-third is the first again. Two runs on
one stream would capture each other's work, and their graphs would share one cuBLAS workspace. So
CUDA streams are made once and kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from charcmp.training.gate import GATE

Stream = TypeVar("Stream")


class CudaStreamPool(Generic[Stream]):
    """A pool of CUDA streams, each lent to one run at a time.

    Args:
        make: makes another stream.
        identity: returns what two objects for the same stream have in common.
    """

    def __init__(self, make: Callable[[], Stream], identity: Callable[[Stream], Hashable]) -> None:
        self._make, self._identity = make, identity
        self._lock = threading.Lock()
        self._known: set[Hashable] = set()
        self._idle: list[Stream] = []

    @contextmanager
    def lent(self) -> Iterator[Stream]:
        """Lends a CUDA stream that no other run has, until the block ends."""
        with self._lock:
            stream = self._idle.pop() if self._idle else self._new()
        try:
            yield stream
        finally:
            with self._lock:
                self._idle.append(stream)

    def _new(self) -> Stream:
        stream = self._make()
        identity = self._identity(stream)
        if identity in self._known:
            raise RuntimeError(f"more than {len(self._known)} runs on one GPU in one process")
        self._known.add(identity)
        return stream


_streams: dict[int, CudaStreamPool[torch.cuda.Stream]] = {}  # by the number of the GPU
_streams_lock = threading.Lock()


@contextmanager
def at_work_on(device: torch.device) -> Iterator[None]:
    """Holds, for all that a run does on a GPU, a CUDA stream of its own and a share of the gate.

    Does nothing on a CPU. A device without a number is this thread's current GPU.
    """
    if device.type != "cuda":
        yield
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    with _streams_lock:
        streams = _streams.setdefault(
            index,
            CudaStreamPool(lambda: torch.cuda.Stream(index), lambda stream: stream.cuda_stream),
        )
    with (
        GATE.shared(),
        torch.cuda.device(index),
        streams.lent() as stream,
        torch.cuda.stream(stream),
    ):
        yield
