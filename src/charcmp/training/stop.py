"""Asks a run to stop: after a signal, or when the sweep that started it has ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """The answer to `should_stop`: true after a signal, or when the sweep that started it has died.

    A scheduler's worker may have its own handler for SIGUSR1 or SIGUSR2; submitit's requeues the
    job. That handler is called only after the checkpoint is written: see `pass_on`.

    sweeping/processes.py blocks STOP_SIGNALS until a StopRequest exists to handle them; creating
    one unblocks them.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.sweep = parent_process()  # None: not in a process that a sweep started
        self.scheduler: dict[int, Callable[[int, FrameType | None], Any]] = {}
        if threading.current_thread() is not threading.main_thread():
            return  # as in some launchers' workers; only a main thread may handle signals
        for signum in (signal.SIGUSR1, signal.SIGUSR2):
            if callable(handler := signal.getsignal(signum)):
                self.scheduler[signum] = handler
        for stopping in (*STOP_SIGNALS, *self.scheduler):
            signal.signal(stopping, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.requested = signum

    def __call__(self) -> bool:
        is_orphan = self.sweep is not None and not self.sweep.is_alive()
        return self.requested is not None or is_orphan

    def pass_on(self) -> None:
        """Calls the scheduler's own handler, which may end the process."""
        if self.requested in self.scheduler:
            self.scheduler[self.requested](self.requested, None)
