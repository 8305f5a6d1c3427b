"""Captures work on a GPU once, as a CUDA graph, and replays it; on a CPU, calls the same work.

These models' kernels take a few microseconds each, less than it costs to launch them from Python. A
graph launches thousands of them at once.
"""

from __future__ import annotations

import gc
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import Generic, TypeVar

import torch
from torch import Tensor

from charcmp.training.gate import GATE

MOST_AHEAD = 8  # replays of one graph that may wait on the device
# During a capture the allocator cannot return its cached memory to the GPU. So we empty its cache
# before a capture if less than this share of the GPU's memory is free.
ENOUGH_FREE = 0.25
# Calls before a capture, to set up libraries, compile kernels and make the optimiser's state.
WARM_UP_CALLS = 3
WAITED = "called a synchronizing CUDA operation"  # torch's error where it waits for the GPU
Tag = TypeVar("Tag")


class Replayed:
    """Work without arguments over tensors that stay where they are.

    On a CPU, or with `capture=False`, each call does the work. On a GPU the first call captures it
    as a graph, and every call replays the graph, unless no graph can hold the work. All of that
    happens on the caller's CUDA stream, which must always be the same and be used by no other run:
    see cuda_streams.at_work_on.
    """

    def __init__(
        self,
        work: Callable[[], None],
        device: torch.device,
        changes: Callable[[], Sequence[Tensor]],
        generator: torch.Generator | None = None,
        capture: bool = True,
        keeps_tensors: Callable[[], bool] | None = None,
    ) -> None:
        """
        Args:
            work: the function to call. It must not wait for the device, and the sizes it allocates
                must not depend on values.
            device: where it works.
            changes: returns the tensors that work changes; those that its first call makes come
                last and count as zeros before it. Capturing leaves all of them unchanged.
            generator: the random generator that work draws from.
            capture: whether to capture it on a GPU.
            keeps_tensors: for work that calls a class of the user's, which may do what no graph
                can hold: says, after a call, whether the class keeps tensors of its own.
        """
        self.work = work
        self.changes = changes
        self.generator = generator
        self.device = device
        self.capture = capture and device.type == "cuda"
        self.keeps_tensors = keeps_tensors
        self._must_be_called = None if keeps_tensors else False  # None: not tried yet
        self.graph: torch.cuda.CUDAGraph | None = None
        self.ahead: deque[torch.cuda.Event] = deque()  # one recorded after each replay

    def __call__(self) -> None:
        if not self.capture:
            self.work()
            return
        assert GATE.is_shared_by_me(), "a graph is captured and replayed inside at_work_on(device)"
        GATE.let_others()
        self.prepare()
        if self.graph is None:
            self.work()
            return
        self.graph.replay()
        self._keep_near()

    def prepare(self) -> None:
        """Captures the graph, if there is to be one; else the first call does."""
        if self.capture and self.graph is None and not self.must_be_called():
            self.graph = self._captured()

    def must_be_called(self) -> bool:
        """Returns whether no graph can hold the work, as may be if it calls a class of the user's.

        That is so if it waits for the GPU, because it reads a number from there (`.item()`, `if` on
        a tensor), or if it keeps a tensor of its own: later calls, with texts of other sizes, may
        replace it, and a graph would go on reading its memory. The first call tries this; it leaves
        the work's tensors as they were.
        """
        if self._must_be_called is None:
            self._must_be_called = self.capture and self._fails_trial()
        return self._must_be_called

    def _fails_trial(self) -> bool:
        # A capture that fails would leave torch's allocator and its random generators in the midst
        # of it. So torch is asked to raise an error where it waits. It would do so on any thread.
        with self.unchanged():
            self.work()  # the first call may wait for what it sets up
            if self.keeps_tensors is not None and self.keeps_tensors():
                return True
            with GATE.alone(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch calls this mode a prototype
                torch.cuda.set_sync_debug_mode("error")
                try:
                    self.work()
                except RuntimeError as error:
                    if WAITED not in str(error):
                        raise
                    return True
                finally:
                    torch.cuda.set_sync_debug_mode("default")
        return False

    def _keep_near(self) -> None:
        """Waits if the host is too many replays ahead of the device.

        A launch into a full queue would wait inside the driver and block other runs' launches.
        """
        event = torch.cuda.Event(blocking=True)
        if len(self.ahead) == MOST_AHEAD:
            event = self.ahead.popleft()
            event.synchronize()
        event.record()
        self.ahead.append(event)

    def by_graph_and_by_calls(
        self, read: Callable[[], Sequence[Tensor]]
    ) -> list[list[Tensor]] | None:
        """Computes one call by the graph and again, from the same start, without it.

        Changes nothing. Returns both calls' tensors; None if there is no graph.

        Args:
            read: returns the tensors to compare.
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
        """Frees the graph and its memory at once.

        The graph, its work and the step that the work belongs to form a reference cycle, which
        Python would collect only at some later time.
        """
        if self.graph is not None:
            # An error here would hide the one that ended the run.
            with suppress(RuntimeError):
                wait_for(self.device)
                self.graph.reset()
            self.graph = None
        self.ahead.clear()
        self.work, self.keeps_tensors = _closed, None
        self.changes = list

    def _captured(self) -> torch.cuda.CUDAGraph:
        with self.unchanged():
            for _ in range(WARM_UP_CALLS):
                self.work()
        graph = torch.cuda.CUDAGraph()
        # Does nothing in coming versions of torch, where every generator registers itself.
        register = getattr(graph, "register_generator_state", None)
        if self.generator is not None and register is not None:
            register(self.generator)
        wait_for(self.device)
        with GATE.alone(), _no_garbage_collection():
            free, total = torch.cuda.mem_get_info(self.device)
            if free < ENOUGH_FREE * total:  # the allocator has cached the memory of freed graphs
                torch.cuda.empty_cache()
            # thread_local: the backward pass runs in one of autograd's threads, on the same stream.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self.work()
            except BaseException:
                # If this fails too, CUDA is unusable in this process; its AcceleratorError says so.
                graph.capture_end()
                raise
            graph.capture_end()
        return graph

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Restores, at the end, all that work changes, and the state of the random generator."""
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
    """Disables garbage collection: it may free tensors and graphs, which a capture must not do."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has finished this run's work so far, without keeping a CPU core busy."""
    if device.type == "cuda":
        event = torch.cuda.Event(blocking=True)
        event.record()
        event.synchronize()


class Late(Generic[Tag]):
    """A number on the device, read one call late.

    So the device never waits for the host, and the host is never further ahead of the device than
    from one call to the next. On a CPU the number is read at once.
    """

    def __init__(self, number: Tensor) -> None:
        self.number = number
        self.copy = torch.zeros_like(number, device="cpu", pin_memory=number.is_cuda)
        self.asked: tuple[torch.cuda.Event, Tag] | None = None

    def read(self, tag: Tag) -> tuple[float, Tag] | None:
        """Returns the number and tag of the previous call, None at the first.

        On a CPU, returns those of this call.
        """
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
