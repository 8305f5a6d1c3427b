"""Work on a GPU recorded once, as a CUDA graph, and replayed; on a CPU the same work, called.

These models' kernels take a few microseconds each, less than a launch from Python costs. A graph
launches thousands of them at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Generic, TypeVar

import torch
from torch import Tensor

WARM_UP_CALLS = 3  # before a capture: libraries set up, kernels compiled, optimiser's state made
# Captures come one at a time: what other lanes do meanwhile goes to streams of their own.
_capturing = threading.Lock()
Tag = TypeVar("Tag")


class Replayed:
    """Work without arguments over tensors that stay where they are.

    On a CPU, or with `capture=False`, a call does the work. On a GPU the first call captures it,
    and every call replays the graph, on the caller's stream.
    """

    def __init__(
        self,
        work: Callable[[], None],
        device: torch.device,
        changes: Callable[[], Sequence[Tensor]],
        generator: torch.Generator | None = None,
        capture: bool = True,
    ) -> None:
        """
        Args:
            work: what is done; no synchronisation, no allocation that depends on values.
            device: where.
            changes: the tensors that work changes, those that its first call makes at the end and
                with zeros before. Capturing leaves them as they were.
            generator: what work draws from.
            capture: whether a GPU captures it.
        """
        self.work = work
        self.changes = changes
        self.generator = generator
        self.capture = capture and device.type == "cuda"
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if not self.capture:
            self.work()
            return
        if self.graph is None:
            with _capturing:
                self.graph = self._captured()
        self.graph.replay()

    def _captured(self) -> torch.cuda.CUDAGraph:
        before = [tensor.detach().clone() for tensor in self.changes()]
        drawn = self.generator.get_state() if self.generator is not None else None
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_CALLS):
                self.work()
        here.wait_stream(aside)
        with torch.no_grad():
            for tensor, value in zip_longest(self.changes(), before):
                tensor.zero_() if value is None else tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        if self.generator is not None and drawn is not None:
            self.generator.set_state(drawn)
            graph.register_generator_state(self.generator)
        # thread_local: what other threads, other lanes, ask of the device meanwhile is legal.
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            self.work()
        return graph


class Late(Generic[Tag]):
    """A number on the device, read one call late.

    The device so never waits for the host, and the host is never further ahead of it than from one
    call to the next. On a CPU there is nothing to wait for: the number as it is.
    """

    def __init__(self, number: Tensor) -> None:
        self.number = number
        self.copy = torch.zeros_like(number, device="cpu", pin_memory=number.is_cuda)
        self.asked: tuple[torch.cuda.Event, Tag] | None = None

    def read(self, tag: Tag) -> tuple[float, Tag] | None:
        """The number and the tag of the call before; None at the first call."""
        if not self.number.is_cuda:
            return float(self.number), tag
        late = None
        if self.asked is not None:
            event, asked_tag = self.asked
            event.synchronize()
            late = float(self.copy), asked_tag
        self.copy.copy_(self.number, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.asked = event, tag
        return late
