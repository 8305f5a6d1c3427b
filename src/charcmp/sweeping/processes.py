"""Starts the processes of a sweep: forked from a server that has torch imported, or fresh.

Importing torch takes seconds, as long as training a small run. The server is multiprocessing's: it
imports PRELOADED, uses no threads and no GPU, and forks a process whenever the sweep asks for one.
It lives as long as the sweep or one of its children does. All that it forks execute the code of the
moment when it started, and record the commit of that moment (training/preload.py).
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from charcmp.errors import exit_status
from charcmp.files import write_error
from charcmp.output import make_lasting
from charcmp.training.stop import STOP_SIGNALS

# Every optimizer of torch imports torch._dynamo, which takes as long as all the rest.
PRELOADED = ["charcmp.sweeping.children", "charcmp.training.preload", "torch._dynamo"]
COMPILED = "charcmp.models.cells.compiled.preload"  # a second or two; more where it compiles
# The exit status that multiprocessing reports for a child if the server, which knew it, was killed.
EXIT_UNKNOWN = 255
LOG_ENCODING = "utf-8"  # of a run's log, whatever the terminal's encoding


@cache
def start_server(compiled: bool = False) -> bool:
    """Starts the server, which imports in the background; returns whether there is one.

    It imports the compiled forms of the cells if the first call asks for them.

    There is none if forking is not safe (macOS) or not possible, or if no socket can be made in the
    temporary folder (too long a name, no room).
    """
    if sys.platform != "linux":
        return False
    forkserver.set_forkserver_preload([*PRELOADED, *([COMPILED] if compiled else [])])
    try:
        with _signals_held():
            forkserver.ensure_running()
    except OSError:
        return False
    return True


def start(
    work: Callable[..., int],
    args: tuple[Any, ...],
    log: Path,
    environment: dict[str, str],
    forked: bool,
) -> BaseProcess:
    """Starts a process in a session of its own, so that Ctrl-C reaches only the sweep.

    Args:
        work: what the process does; returns the exit status. SIGINT and SIGTERM are held back until
            `work` makes a StopRequest, which also notices the end of the sweep.
        args: of `work`.
        log: the file that standard output and standard error are appended to.
        environment: variables in addition to the sweep's, set before the process imports torch or,
            if it is forked, before it uses a GPU.
        forked: whether it may be forked from the server.
    """
    context: ForkServerContext | SpawnContext = get_context("spawn")
    if forked and start_server():
        context = get_context("forkserver")
    environment = {**os.environ, **environment}  # the server has those of the time it was started
    process = context.Process(target=_begin, args=(work, args, log.resolve(), environment))
    with _signals_held():
        process.start()
    return process


@contextmanager
def _signals_held() -> Iterator[None]:
    """Blocks SIGINT and SIGTERM, also in the processes that are started within.

    The server thus survives a signal that stops the sweep, and can report how the children end. A
    child loses no signal that arrives before it has a handler.
    """
    # multiprocessing's resource tracker unblocks these signals when it starts: start it before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(
    work: Callable[..., int], args: tuple[Any, ...], log: Path, environment: dict[str, str]
) -> None:
    """Prepares a new process, then does its work."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    except OSError as error:
        sys.exit(exit_status(write_error(log, error)))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding=LOG_ENCODING, line_buffering=True)  # type: ignore[union-attr]
    make_lasting(essential=False)
    faulthandler.enable()  # the sweep sends SIGABRT to a run that hangs: the log then says where
    sys.exit(work(*args))
