"""Lanes: several runs at once in one process, each in a thread; on a GPU each has its own stream.

A small model leaves most of a GPU idle, and processes only take turns on it. The sweep sends runs
down a pipe to one process per GPU and hears how each ended; see children.py for its side. A lane
that fails or diverges leaves the others alone. What breaks the whole process (a CUDA error, a
kill) is charged to no run: the sweep goes on with all that was in it in a fresh process, and when
that breaks too, with each run in a process of its own.
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
from charcmp.errors import EXIT_AGAIN, EXIT_ALONE, EXIT_STORAGE, StorageError
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
    planned_id: str  # of the run that this is to be
    log: Path
    command: str  # that trains the same run alone, for its record
    num_lanes: int  # that the process has


@dataclass(frozen=True)
class Ending:
    """How it ended: what the exit status of a process of its own would have been."""

    log: Path
    code: int


def work(connection: Connection) -> None:
    """What the process does: orders in, endings out, until the pipe is closed or a signal comes."""
    import charcmp.training.train  # noqa: F401  here, not in several threads at once

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
    """One run, in a thread. It always says how it ended: the sweep would wait, then kill all."""
    try:
        with order.log.open("a", 1, LOG_ENCODING, "backslashreplace") as log:
            code = _run_logged(order, should_stop, log)
    except OSError as error:  # no run can do without its log
        trouble = write_error(order.log, error)
        print(f"charcmp: {trouble}", file=sys.stderr, flush=True)
        code = EXIT_STORAGE if isinstance(trouble, StorageError) else EXIT_ALONE
    endings.put(Ending(order.log, code))


def _run_logged(order: LaneOrder, should_stop: Callable[[], bool], log: TextIO) -> int:
    """The run; returns its exit status."""
    import torch

    from charcmp.training.device import is_gpu_trouble

    def say(line: str) -> None:
        print(line, file=log)

    try:
        session = Session(should_stop, say, order.command, order.num_lanes)
        return attempt(order.config, session, order.planned_id)
    except torch.AcceleratorError as error:  # after it, nothing in this process can go on
        say(f"charcmp: {error}")
        print(f"{order.log}: {error}", file=sys.stderr, flush=True)
        os._exit(EXIT_AGAIN)
    except Exception as error:
        log.write(traceback.format_exc())
        say(f"charcmp: {type(error).__name__}: {error}")
        return EXIT_ALONE if is_gpu_trouble(error) else 1
