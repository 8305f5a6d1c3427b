"""Measures how fast shapes of runs train on this machine, with as many side by side as in a sweep.

This module does not import torch before it measures: a sweep without new shapes does without it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import replace
from functools import partial
from multiprocessing import get_context, parent_process
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING

from tqdm import tqdm

from charcmp.errors import UserError
from charcmp.models.cells.options import ModuleConfig
from charcmp.sweeping.slots import LANE_ENVIRONMENT
from charcmp.training.gate import GATE

if TYPE_CHECKING:
    import torch

    from charcmp.config.spec import RunSpec
    from charcmp.sweeping.slots import Slot

WARM_UP_STEPS = 2
MAX_STEPS = 20
MAX_SECONDS = 2.0  # per shape: for large models, fewer than MAX_STEPS fit into it


def measure_shapes(specs: Sequence[RunSpec], slots: Sequence[Slot]) -> Iterator[float | None]:
    """Yields each shape's characters per second, measuring as many side by side as there are slots.

    Yields None for a class of the user's that cannot be trained: its run will say why. On a CPU
    each is measured in a process; with GPUs, in the lanes of a process that sees only the first of
    them.

    Raises:
        UserError: if such a process is killed.
    """
    if not specs:
        return
    on_gpu = slots[0].on_gpu
    pool = ProcessPoolExecutor(
        1 if on_gpu else len(slots),
        mp_context=get_context("spawn"),
        initializer=_set_up,
        initargs=(LANE_ENVIRONMENT | slots[0].environment,),
    )
    try:
        measured: Iterator[float | None]
        if on_gpu:
            measured = iter(pool.submit(measure_in_lanes, specs, slots[0].lanes).result())
        else:
            measured = pool.map(partial(_measure_or_none, threads=slots[0].threads), specs)
        yield from tqdm(
            measured, total=len(specs), desc="measuring shapes", disable=None, leave=False
        )
    except BrokenProcessPool:
        raise UserError(
            "a process that measured speeds was killed (out of memory?); jobs=1 takes less memory"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C no further shape is begun


def _set_up(environment: dict[str, str]) -> None:
    """Prepares a process that measures; Ctrl-C is a matter of its parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process with its parent. A process of a pool would wait for more work for ever: it
    holds the writing end of its own queue, so that the queue never ends."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _measure_or_none(spec: RunSpec, threads: int | None) -> float | None:
    try:
        return measure_speed(spec, threads)
    except Exception:
        if not isinstance(spec.config.cell, ModuleConfig):
            raise
        return None


def measure_in_lanes(
    specs: Sequence[RunSpec], num_lanes: int, device: str = "cuda"
) -> list[float | None]:
    """Runs `measure_speed` for several shapes at a time on the one GPU that this process sees.

    The clocks of a group start together, once each of its shapes has captured its graph: a capture
    stops all other lanes. A group has one precision, which is set for the whole process. None
    stands for a class of the user's that failed.
    """
    speeds: dict[int, float | None] = {}  # by the shape's place in specs
    by_precision: dict[str, list[int]] = {}
    for number, spec in enumerate(specs):
        by_precision.setdefault(spec.config.precision, []).append(number)
    with ThreadPoolExecutor(num_lanes) as lanes:
        for numbers in by_precision.values():
            for first in range(0, len(numbers), num_lanes):
                group = numbers[first : first + num_lanes]
                while group:
                    speeds |= _measure_group(lanes, {n: specs[n] for n in group}, device)
                    group = [number for number in group if number not in speeds]
    return [speeds[number] for number in range(len(specs))]


def _measure_group(
    lanes: ThreadPoolExecutor, group: Mapping[int, RunSpec], device: str
) -> dict[int, float | None]:
    """Returns the speeds of a group; if classes of the user's fail, None for these alone."""
    ready = Barrier(len(group))
    measure = partial(measure_speed, threads=None, device=device, ready=ready)
    futures = {number: lanes.submit(measure, spec) for number, spec in group.items()}
    errors = {number: error for number, future in futures.items() if (error := future.exception())}
    if not errors:
        return {number: future.result() for number, future in futures.items()}
    # One that fails breaks the barrier of the others: that says nothing.
    failed = {n: error for n, error in errors.items() if not isinstance(error, BrokenBarrierError)}
    for number, error in (failed or errors).items():
        if not failed or not isinstance(group[number].config.cell, ModuleConfig):
            raise error
    return dict.fromkeys(failed)


def measure_speed(
    spec: RunSpec, threads: int | None, device: str | None = None, ready: Barrier | None = None
) -> float:
    """Returns characters per second of training steps on random symbols, in this process.

    Args:
        spec: sizes and cell of the model.
        threads: of the CPU; None on a GPU.
        device: where to measure; None: on the device of its configuration.
        ready: waited for after the warm-up, before the clock starts.
    """
    from charcmp.training.checks import apply_fallbacks, failed_checks
    from charcmp.training.cuda_streams import at_work_on
    from charcmp.training.device import prepare

    try:
        where = prepare(replace(spec.config, device=device or spec.config.device), threads)
        capture = apply_fallbacks(failed_checks(where, spec.config.precision))
        with at_work_on(where):
            return _measure(spec, where, capture, ready)
    except BaseException:
        if ready is not None:
            ready.abort()  # else the others would wait for ever
        raise


def _measure(spec: RunSpec, device: torch.device, capture: bool, ready: Barrier | None) -> float:
    from charcmp.data.chunks import random_chunks
    from charcmp.training.step import Step

    size = (2, spec.train_unroll_steps, spec.train_batch_size)
    num_symbols, context = spec.corpus.num_symbols, spec.right_context
    chunks = random_chunks(num_symbols, size, device, right_context=context)
    with closing(Step(spec, device, chunks, capture)) as step:
        for _ in range(WARM_UP_STEPS):
            step()
        step.loss_sum.item()  # waits until a GPU has finished
        if ready is not None:
            with GATE.stood_back():  # others may still have to capture their graphs
                ready.wait()
        num_steps = 0
        begun = time.perf_counter()
        while num_steps < MAX_STEPS and time.perf_counter() - begun < MAX_SECONDS:
            step()
            step.loss_sum.item()
            num_steps += 1
        seconds = time.perf_counter() - begun
    return num_steps * spec.train_batch_size * spec.train_unroll_steps / seconds
