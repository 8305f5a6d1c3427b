"""Who may use the GPU: many runs at once, or one that captures a graph, never both.

CUDA allows no other work in the process, on any thread, while a graph is captured. So a run holds
the gate, shared, for as long as it works on the GPU, and lets captures pass between two steps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """A lock that threads share or hold alone, first come, first served.

    First come, first served: a run that waits to capture is not kept waiting by others that replay,
    nor are those kept waiting by a row of captures.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._num_sharing = 0
        self._is_taken = False  # by one thread alone
        self._mine = threading.local()

    def is_shared_by_me(self) -> bool:
        return getattr(self._mine, "shares", False)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Beside others, for a whole run; call `let_others` now and then."""
        assert not self.is_shared_by_me(), "a thread shares the gate once"
        self._enter(alone=False)
        self._mine.shares = True
        try:
            yield
        finally:
            if self.is_shared_by_me():  # not if a signal ended its wait to have it again
                self._mine.shares = False
                self._leave(alone=False)

    def let_others(self) -> None:
        """Lets those who wait go first; the caller shares the gate."""
        assert self.is_shared_by_me()
        if self._queue:  # read without the lock: whoever comes a moment later waits for the next
            with self.stood_back():
                pass

    @contextmanager
    def stood_back(self) -> Iterator[None]:
        """Without the share that the thread may have; it has it again afterwards."""
        if not self.is_shared_by_me():
            yield
            return
        self._mine.shares = False
        self._leave(alone=False)
        try:
            yield
        finally:
            self._enter(alone=False)
            self._mine.shares = True

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Without others. A thread that shares the gate gives its share up meanwhile."""
        with self.stood_back():
            self._enter(alone=True)
            try:
                yield
            finally:
                self._leave(alone=True)

    def _enter(self, alone: bool) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(
                    lambda: (
                        self._queue[0] is ticket
                        and not self._is_taken
                        and not (alone and self._num_sharing)
                    )
                )
                self._is_taken = alone
                self._num_sharing += not alone
            finally:  # also if a signal's exception ended the wait
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _leave(self, alone: bool) -> None:
        with self._changed:
            if alone:
                self._is_taken = False
            else:
                self._num_sharing -= 1
            self._changed.notify_all()


GATE = Gate()  # CUDA's rule is for the whole process
