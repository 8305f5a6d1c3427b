"""Decides who may use the GPU: many runs at once, or one run that captures a graph, never both.

While a graph is captured, CUDA allows no other work on any thread of the process. So each run holds
a share of the gate for as long as it works on the GPU, and lets captures go first between steps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """A lock that threads share or hold alone, first come, first served.

    The order is fair: a run that waits to capture is not kept waiting by others that replay, and
    those are not kept waiting by many captures in a row.
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
        """Holds a share of the gate for a whole run, which must call `let_others` now and then."""
        assert not self.is_shared_by_me(), "a thread shares the gate once"
        self._enter(alone=False)
        self._mine.shares = True
        try:
            yield
        finally:
            if self.is_shared_by_me():  # not if a signal ended the wait to take the share back
                self._mine.shares = False
                self._leave(alone=False)

    def let_others(self) -> None:
        """Lets waiting threads go first; the caller must hold a share."""
        assert self.is_shared_by_me()
        if self._queue:  # read without the lock: a thread that joins just now waits one more step
            with self.stood_back():
                pass

    @contextmanager
    def stood_back(self) -> Iterator[None]:
        """Gives up the thread's share, if it has one, and takes it back when the block ends."""
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
        """Holds the gate alone. A thread that has a share gives it up meanwhile."""
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
            finally:  # also reached if a signal's exception ended the wait
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _leave(self, alone: bool) -> None:
        with self._changed:
            if alone:
                self._is_taken = False
            else:
                self._num_sharing -= 1
            self._changed.notify_all()


GATE = Gate()  # one for the process, since CUDA's rule holds for all of it
