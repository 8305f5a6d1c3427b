"""Checks that a device computes what it should, on the machine that trains: `charcmp doctor`.

    torch     every cell by torch's own operations, on a GPU by cuDNN's, against its equations
    compiled  the LSTM, the GRU and the RNN by their compiled forms, on a CPU where Numba works
    kernels   every cell by our kernels, on a GPU
    graph     twenty steps by a captured graph against the same steps by calls, on a GPU
    lanes     two runs at once, while a third captures its graphs and an older one frees its own
    resume    an interrupted run against an uninterrupted one, on a CPU

torch, compiled and kernels compare the values and every gradient of a chunk with `Cell.reference`
in float64 on the CPU. Meanwhile newly allocated memory is filled with NaN, so that reading it
before it is written shows in the result.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.schema import Config
from charcmp.config.spec import RunSpec, resolve_with
from charcmp.data.chunks import random_chunks
from charcmp.data.corpus import corpus_from_bytes
from charcmp.data.dataset import DatasetConfig
from charcmp.errors import Interrupted, one_line
from charcmp.models.cells.compiled import dispatch as compiled
from charcmp.models.cells.fused import dispatch as fused
from charcmp.models.cells.lstm import WIDEST_SEQUENCE
from charcmp.models.cells.modes import forced
from charcmp.models.cells.registry import CELLS, cell_config, make_layer
from charcmp.runs.folder import RunFolder
from charcmp.training.checks import CheckResult
from charcmp.training.cuda_streams import at_work_on
from charcmp.training.device import is_gpu_trouble
from charcmp.training.session import Session
from charcmp.training.step import Step
from charcmp.training.train import train
from charcmp.training.verify import MAX_GRAPH_DIFFERENCE, relative_difference

# cuDNN's LSTM in float32 is off by 1.2e-5 on an H200; TF32's factors are 1,000 times coarser.
MAX_ERROR = {"float32": 5e-5, "tf32": 3e-3}
NUM_SYMBOLS = 87
# (T, B, H): first a chunk of the grid's size with an odd width, then a layer wider than one program
# of our kernels.
SIZES = {"cuda": ((100, 100, 53), (10, 10, 150)), "cpu": ((10, 4, 37), (3, 4, 130))}
NUM_STEPS = 20
LANE_STEPS = 50
# Repeating a run may change its numbers slightly, since some libraries sum in varying order. Lanes
# may differ by this many times that; memory overwritten by another run would show as more.
TIMES_REPEATED = 10
# Sizes of the grid: a fault in the memory that libraries keep for large products shows only there.
IN_LANES = {"hidden_size": 128, "batch_size": 100, "unroll_steps": 100}

Poisoned = (torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty,
            torch.ops.aten.empty_strided, torch.ops.aten.new_empty_strided)  # fmt: skip


class Poison(TorchDispatchMode):
    """A mode in which newly allocated, unwritten floating-point memory holds NaN."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in Poisoned and result.is_floating_point():
            result.fill_(float("nan"))
        return result


def examine(device: torch.device, precision: str = "float32") -> Iterator[CheckResult]:
    """Runs the checks that apply to this device, which must be set up; the quick ones first."""
    on_gpu = device.type == "cuda"
    with at_work_on(device):
        yield result_of("torch", lambda: forms(device, precision, "torch"))
        if not on_gpu and compiled.why_not() is None:
            yield result_of("compiled", lambda: forms(device, precision, "compiled"))
        if on_gpu and fused.why_not(device) is None:
            yield result_of("kernels", lambda: forms(device, precision, "kernels"))
        if on_gpu:
            yield result_of("graph", lambda: graph(device))
    yield result_of("lanes", lambda: lanes(device)) if on_gpu else result_of("resume", resume)


def result_of(check: str, run: Callable[[], CheckResult]) -> CheckResult:
    """Runs a check and returns its result; a check that raises an error has failed."""
    try:
        return run()
    except Exception as error:
        return CheckResult(check, False, one_line(error), may_pass=is_gpu_trouble(error))


def forms(device: torch.device, precision: str, form: str) -> CheckResult:
    """Checks all layers in a `form` against their float64 equations on the CPU.

    Args:
        form: torch (every cell), compiled or kernels (the cells that have it).
    """
    worst, where, number = 0.0, "", 0
    for name, activation, size, reads in layers_with(form, device):
        error = form_error(name, activation, size, reads, device, form)
        number += 1
        if not error <= worst:  # also true for NaN
            worst, where = error, f"{name}, {activation}, H = {size[2]}, {reads}"
    limit = MAX_ERROR[precision]
    measured = f"{number} forms, largest error {worst:.1e} ({where}), limit {limit:.0e}"
    return CheckResult(form, worst < limit, measured)


def layers_with(
    form: str, device: torch.device
) -> Iterator[tuple[str, str, tuple[int, int, int], str]]:
    """Yields cell, activation, size and kind of input of each layer that has this form."""
    for name, info in CELLS.items():
        for activation in info.activations:
            cell = make_layer(cell_config(name, activation=activation), NUM_SYMBOLS, 3)
            if form == "kernels" and not cell.has_kernels:
                continue
            if form == "compiled" and (name not in compiled.FORMS or activation != "tanh"):
                continue
            for size in SIZES[device.type]:
                for reads in ("symbols", "features"):
                    by_torch = name == "lstm" and (size[2] > WIDEST_SEQUENCE or reads == "features")
                    if form != "compiled" or not by_torch:
                        yield name, activation, size, reads


def form_error(
    name: str,
    activation: str,
    size: tuple[int, int, int],
    reads: str,
    device: torch.device,
    form: str,
) -> float:
    """Returns the largest error of a cell's values and gradients.

    The error of a tensor is relative to its largest element.
    """
    T, B, H = size
    I = NUM_SYMBOLS if reads == "symbols" else H  # noqa: E741
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1

    cell = make_layer(cell_config(name, activation=activation), I, H).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(random(*parameter.shape) / H**0.5)
    state_SBH = random(cell.num_states, B, H) / 2
    weigh_TBH = random(T, B, H)
    x = random(T, B, I)
    if reads == "symbols":
        x = torch.randint(I, (T, B), generator=generator)

    def results(run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], to: Any) -> list[Tensor]:
        inputs = x if reads == "symbols" else x.to(to.dtype)
        inputs = inputs.to(to.device)
        state = state_SBH.to(to.device, to.dtype).requires_grad_()
        h_TBH, last_SBH = run(inputs, state)
        loss = (h_TBH * weigh_TBH.to(to.device, to.dtype)).sum()
        gradients = torch.autograd.grad(loss, [state, *cell.parameters()])
        return [t.detach().cpu() for t in (h_TBH, last_SBH, *gradients)]

    def reference(inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        trace = cell.reference(cell.dense_input(inputs), state)
        return trace.h_TBH, trace.state_SBH

    expected = results(reference, weigh_TBH)
    cell.to(device, torch.float32)
    with in_form(form), Poison():
        found = results(cell, torch.empty((), device=device, dtype=torch.float32))
    return relative_difference(found, expected)


@contextmanager
def in_form(form: str) -> Iterator[None]:
    """Runs cells in a form, and those that do not have it by torch's operations, in the block."""
    with (
        forced(fused, "always" if form == "kernels" else "never"),
        forced(compiled, "always" if form == "compiled" else "never"),
    ):
        yield


def tiny_spec(cell: str, **changed: Any) -> RunSpec:
    """Returns a run that takes seconds, on a text made up here."""
    text = corpus_from_bytes("doctor", bytes(range(32, 119)) * 60)
    config = Config(
        cell=cell_config(cell),
        dataset=DatasetConfig("doctor", "file", layout="contiguous"),
        optimizer=RMSpropConfig("rmsprop"),
        **{"layers": 2, "hidden_size": 53, "dropout": 0.2, "epochs": 2, "batch_size": 20,
           "unroll_steps": 20, "progress": False, **changed},
    )  # fmt: skip
    return resolve_with(config, text)


def make_step(spec: RunSpec, device: torch.device, capture: bool) -> Step:
    size = (4, spec.unroll_steps, spec.batch_size)
    return Step(spec, device, random_chunks(NUM_SYMBOLS, size, device), capture)


def after_steps(
    cell: str, device: torch.device, capture: bool, steps: int, **changed: Any
) -> list[Tensor]:
    """Trains for some steps; returns all tensors that training changes, on the CPU."""
    with closing(make_step(tiny_spec(cell, **changed), device, capture)) as step:
        for _ in range(steps):
            step()
        return [tensor.detach().cpu() for tensor in step.replay.changes()]


def graph(device: torch.device) -> CheckResult:
    """Checks steps by a graph against steps by calls, with cuDNN and our kernels: bit for bit."""
    differences = {
        cell: relative_difference(
            after_steps(cell, device, True, NUM_STEPS), after_steps(cell, device, False, NUM_STEPS)
        )
        for cell in ("lstm", "gru")
    }
    found = ", ".join(f"{cell} {value:.1e}" for cell, value in differences.items())
    measured = f"{NUM_STEPS} steps, graph against calls: largest difference {found}, limit 0"
    return CheckResult("graph", not any(differences.values()), measured)


def lanes(device: torch.device) -> CheckResult:
    """Checks two runs, side by side while others capture and free graphs, against each alone."""
    cells = ("lstm", "gru")
    alone: dict[str, list[Tensor]] = {}
    alone_again: dict[str, list[Tensor]] = {}
    beside: dict[str, list[Tensor]] = {}
    is_over = threading.Event()
    errors: list[BaseException] = []

    def train_one(cell: str, into: dict[str, list[Tensor]]) -> None:
        with at_work_on(device):
            into[cell] = after_steps(cell, device, True, LANE_STEPS, **IN_LANES)

    def come_and_go() -> None:
        """Keeps starting runs; frees each one's graph after the next has captured its own."""
        with at_work_on(device), ExitStack() as older:
            while not is_over.is_set():
                step = make_step(tiny_spec("rnn"), device, True)
                step()
                older.close()
                older.enter_context(closing(step))

    def in_thread(work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    for into in (alone, alone_again):
        for cell in cells:
            train_one(cell, into)
    other = in_thread(come_and_go)
    for thread in [in_thread(lambda cell=cell: train_one(cell, beside)) for cell in cells]:  # type: ignore[misc]
        thread.join()
    is_over.set()
    other.join()
    if errors:
        raise errors[0]
    repeated = max(relative_difference(alone_again[cell], alone[cell]) for cell in cells)
    worst = max(relative_difference(beside[cell], alone[cell]) for cell in cells)
    limit = TIMES_REPEATED * repeated
    measured = (
        f"two runs of {LANE_STEPS} steps: beside others and alone they differ by {worst:.1e}, "
        f"limit {limit:.1g}; repeated alone by {repeated:.1e}, limit {MAX_GRAPH_DIFFERENCE:.0e}"
    )
    return CheckResult("lanes", repeated < MAX_GRAPH_DIFFERENCE and worst <= limit, measured)


def resume() -> CheckResult:
    """Checks that a run that is interrupted five times writes the same bytes as one that is not."""
    spec = tiny_spec("gru", device="cpu", hidden_size=8)
    weights = []
    with tempfile.TemporaryDirectory() as parent:
        for name, num_stops in (("whole", 0), ("broken", 5)):
            folder = RunFolder(Path(parent) / name)
            folder.create()
            for _ in range(num_stops):
                stops = iter([False, False, True])  # after three steps
                with suppress(Interrupted):
                    train(spec, folder, Session(stops.__next__, _silent))
            train(spec, folder, Session(say=_silent))
            weights.append(folder.best.read_bytes() + folder.test_nll.read_bytes())
    is_same = weights[0] == weights[1]
    measured = f"{'the same bytes' if is_same else 'different bytes'} after five interruptions"
    return CheckResult("resume", is_same, measured)


def _silent(line: str) -> None:
    pass
