"""Lanes: several runs at once in one process, each in a thread; on a GPU each has its own stream.

A small model leaves most of a GPU idle, and several processes would only take turns on it. The
sweep sends runs down a pipe to one process per GPU and is told how each ended; children.py has the
sweep's side. A lane that fails or diverges does not affect the others. A failure of the whole
process (a CUDA error, a kill) is charged to no run: the sweep continues all of its runs in a fresh
process and, if that fails too, each in a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

from charcmp.config.schema import Config
from charcmp.errors import EXIT_AGAIN, EXIT_ALONE, EXIT_FAILED, EXIT_STORAGE, StorageError
from charcmp.files import write_error
from charcmp.sweeping.processes import LOG_ENCODING
from charcmp.training.attempt import attempt
from charcmp.training.session import Session
from charcmp.training.stop import StopRequest

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class LaneOrder:
    """One run for a lane."""

    config: Config
    planned_id: str  # the id that the sweep planned for this run
    log: Path
    command: str  # which would train the same run alone, for its record
    num_lanes: int  # of the process


@dataclass(frozen=True)
class Ending:
    """How a run ended: the exit status that a process of its own would have had."""

    log: Path
    code: int


def work(connection: Connection) -> None:
    """Takes orders and sends endings until the pipe is closed or a signal asks it to stop."""
    import charcmp.training.preload  # noqa: F401  here, not in several threads at once

    should_stop = StopRequest()
    endings: queue.SimpleQueue[Ending] = queue.SimpleQueue()
    lanes: set[threading.Thread] = set()
    with contextlib.suppress(EOFError, OSError):  # the sweep is gone
        while not should_stop():
            if connection.poll(POLL_SECONDS):
                order = connection.recv()
                lane = threading.Thread(target=_run, args=(order, should_stop, endings))
                lane.start()
                lanes.add(lane)
            while not endings.empty():
                connection.send(endings.get())
            lanes = {lane for lane in lanes if lane.is_alive()}
    for lane in lanes:
        lane.join()
    with contextlib.suppress(OSError):
        while not endings.empty():
            connection.send(endings.get())


def _run(
    order: LaneOrder,
    should_stop: Callable[[], bool],
    endings: queue.SimpleQueue[Ending],
) -> None:
    """Trains one run, in a thread. Always reports an ending: without one the sweep would take the
    run for hung and kill the whole process."""
    try:
        with order.log.open("a", 1, LOG_ENCODING, "backslashreplace") as log:
            code = _run_logged(order, should_stop, log)
    except OSError as error:  # no run can do without its log
        trouble = write_error(order.log, error)
        print(f"charcmp: {trouble}", file=sys.stderr, flush=True)
        code = EXIT_STORAGE if isinstance(trouble, StorageError) else EXIT_ALONE
    endings.put(Ending(order.log, code))


def _run_logged(order: LaneOrder, should_stop: Callable[[], bool], log: TextIO) -> int:
    """Trains the run; returns its exit status."""
    import torch

    from charcmp.training.device import is_gpu_trouble

    def say(line: str) -> None:
        print(line, file=log)

    try:
        session = Session(should_stop, say, order.command, order.num_lanes)
        return attempt(order.config, session, order.planned_id)
    except torch.AcceleratorError as error:  # after it, CUDA fails in the whole process
        say(f"charcmp: {error}")
        print(f"{order.log}: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_AGAIN)
    except Exception as error:
        log.write(traceback.format_exc())
        say(f"charcmp: {type(error).__name__}: {error}")
        return EXIT_ALONE if is_gpu_trouble(error) else EXIT_FAILED
