"""Work on a GPU recorded once, as a CUDA graph, and replayed; on a CPU the same work, called.

These models' kernels take a few microseconds each, less than a launch from Python costs. A graph
launches thousands of them at once.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import Generic, TypeVar

import torch
from torch import Tensor

from charcmp.training.gate import GATE

MOST_AHEAD = 8  # replays of one graph that wait on the device
# A capture cannot make the allocator give back what it keeps: below this share of a GPU's memory it
# does so beforehand.
ENOUGH_FREE = 0.25
WARM_UP_CALLS = 3  # before a capture: libraries set up, kernels compiled, optimiser's state made
Tag = TypeVar("Tag")


class Replayed:
    """Work without arguments over tensors that stay where they are.

    On a CPU, or with `capture=False`, a call does the work. On a GPU the first call captures it,
    and every call replays the graph. All of that happens on the caller's stream, always the same
    one and nobody else's: see streams.at_work_on.
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
        self.device = device
        self.capture = capture and device.type == "cuda"
        self.graph: torch.cuda.CUDAGraph | None = None
        self.ahead: deque[torch.cuda.Event] = deque()  # each behind a replay

    def __call__(self) -> None:
        if not self.capture:
            self.work()
            return
        assert GATE.is_shared_by_me(), "a graph is captured and replayed inside at_work_on(device)"
        if self.graph is None:
            self.graph = self._captured()
        GATE.let_others()
        self.graph.replay()
        self._keep_near()

    def _keep_near(self) -> None:
        """Waits where the host is too far ahead of the device: a launch into a full queue would
        wait inside the driver, and other runs' launches with it."""
        event = torch.cuda.Event(blocking=True)
        if len(self.ahead) == MOST_AHEAD:
            event = self.ahead.popleft()
            event.synchronize()
        event.record()
        self.ahead.append(event)

    def by_graph_and_by_calls(
        self, read: Callable[[], Sequence[Tensor]]
    ) -> list[list[Tensor]] | None:
        """What one call computes by the graph and, from the same start, without; None without one.

        Nothing is changed by it.

        Args:
            read: the tensors to compare.
        """
        if self.graph is None:
            return None
        results = []
        for compute in (self.graph.replay, self.work):
            with self.unchanged():
                compute()
                results.append([tensor.detach().clone() for tensor in read()])
        return results

    def close(self) -> None:
        """Frees the graph. With it goes its memory, now and not whenever Python finds the circle
        of a graph, its work and the step that the work belongs to."""
        if self.graph is not None:
            # Whatever error ended the run, on this stream or in this process, is the one to tell.
            with suppress(RuntimeError):
                wait_for(self.device)
                self.graph.reset()
            self.graph = None
        self.ahead.clear()
        self.work = _closed
        self.changes = list

    def _captured(self) -> torch.cuda.CUDAGraph:
        with self.unchanged():
            for _ in range(WARM_UP_CALLS):
                self.work()
        graph = torch.cuda.CUDAGraph()
        # A no-op in torch to come, where every generator registers itself.
        register = getattr(graph, "register_generator_state", None)
        if self.generator is not None and register is not None:
            register(self.generator)
        wait_for(self.device)
        with GATE.alone(), _no_garbage_collection():
            free, total = torch.cuda.mem_get_info(self.device)
            if free < ENOUGH_FREE * total:  # graphs that are gone have left theirs to the allocator
                torch.cuda.empty_cache()
            # thread_local: the backward pass runs in a thread of autograd's, on the same stream.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self.work()
            except BaseException:
                # Where this fails, the process is past mending, and its AcceleratorError says so.
                graph.capture_end()
                raise
            graph.capture_end()
        return graph

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Puts back, at the end, all that work changes and what it draws from."""
        before = [tensor.detach().clone() for tensor in self.changes()]
        drawn = None if self.generator is None else self.generator.get_state()
        yield
        with torch.no_grad():
            for tensor, value in zip_longest(self.changes(), before):
                tensor.zero_() if value is None else tensor.copy_(value)
        if self.generator is not None and drawn is not None:
            self.generator.set_state(drawn)


def _closed() -> None:
    raise AssertionError("the graph is closed")


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Garbage may hold tensors and graphs, and freeing those is no part of a capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has done what this run has asked of it, without keeping a core busy."""
    if device.type == "cuda":
        event = torch.cuda.Event(blocking=True)
        event.record()
        event.synchronize()


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
        event = torch.cuda.Event(blocking=True)  # else waiting for it keeps a core busy
        event.record()
        self.asked = event, tag
        return late
