"""The compiled forms of the layers on a CPU, beside torch's calls, whose results they reproduce."""

import importlib.util
import inspect
import math
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch
from helpers.console import TINY, in_turn, write_tiny_text
from numba import njit
from numba.core import caching
from torch import Tensor

from charcmp.models.cells.compiled import dispatch, steps
from charcmp.models.cells.compiled.steps import (
    numbers_at_once,
    part_of_thread,
    to_sigmoid,
    to_tanh,
)
from charcmp.models.cells.modes import forced
from charcmp.models.cells.registry import cell_config, make_layer

I = 7  # noqa: E741 - inputs, as in the package
# Elsewhere torch's functions round differently, or have not been tried.
TO_THE_BIT = platform.machine() in (
    "x86_64",
    "AMD64",
) and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
names = pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
# T, B, H: those of the short training; arrays that leave a remainder of each size class; a single
# stream, as sampling has; a wide layer.
SHAPES = [(5, 50, 77), (4, 50, 64), (3, 7, 45), (6, 1, 19), (2, 3, 5), (1, 1, 1), (3, 4, 97)]


def agree(found: Tensor, wanted: Tensor) -> bool:
    if TO_THE_BIT:
        return torch.equal(found, wanted)
    return torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.fixture
def _always_compiled() -> Iterator[None]:
    with forced(dispatch, "always"):
        yield


def results(name: str, x: Tensor, state: Tensor, expected: str) -> list[Tensor]:
    """h, the last state, and the gradients of a weighted sum of h at weights, state and x."""
    torch.manual_seed(1)
    cell = make_layer(cell_config(name), I, state.shape[2])
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.uniform_(-1, 1).mul_(3 / state.shape[2] ** 0.5)
    h_TBH, last = cell(x, state)
    assert type(h_TBH.grad_fn).__name__.startswith(expected)
    weighed = (h_TBH * torch.randn(h_TBH.shape)).sum()
    at = [*cell.parameters(), state, *([x] if x.is_floating_point() else [])]
    return [h_TBH, last, *torch.autograd.grad(weighed, at)]


@names
@pytest.mark.parametrize("kind", ["symbols", "features"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_they_compute_what_torchs_calls_compute(
    name: str, kind: str, shape: tuple[int, int, int]
) -> None:
    if name == "lstm" and kind == "features":
        pytest.skip("torch.nn.LSTM's, above the first layer")
    T, B, H = shape
    torch.manual_seed(0)
    symbols = kind == "symbols"
    x = torch.randint(I, (T, B)) if symbols else torch.randn(T, B, I).requires_grad_()
    state = torch.randn(2 if name == "lstm" else 1, B, H).requires_grad_()
    with forced(dispatch, "always"):
        found = results(name, x, state, "Compiled")
    with forced(dispatch, "never"):
        wanted = results(name, x, state, f"{name.upper()}Sequence")
    assert dispatch.mode == "auto"
    assert all(map(agree, found, wanted))


@pytest.mark.parametrize(
    ("name", "shape"), [("lstm", (3, 100, 83)), ("gru", (3, 100, 166)), ("rnn", (2, 100, 332))]
)
def test_also_where_torchs_threads_share_a_step(
    name: str,
    shape: tuple[int, int, int],
    threads: Callable[[int], None],
) -> None:
    threads(2)
    test_they_compute_what_torchs_calls_compute(name, "symbols", shape)


def test_only_chunks_that_are_worth_it_load_numba() -> None:
    script = (
        "import sys, torch\n"
        "from charcmp.models.cells.registry import cell_config, make_layer\n"
        "layer = make_layer(cell_config('gru'), 5, 40)\n"
        "for T, B in ((1, 1), (20, 20), (50, 50)):\n"
        "    h, _ = layer(torch.zeros(T, B, dtype=torch.int64), torch.zeros(1, B, 40))\n"
        "    print(type(h.grad_fn).__name__, 'numba' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    by_calls = "GRUSequenceBackward False\n"
    assert done.stdout == 2 * by_calls + "CompiledGRUBackward True\n", done.stderr


def test_a_run_of_a_tiny_model_loads_no_numba(tmp_path: Path) -> None:
    write_tiny_text(tmp_path / "tiny.txt")
    line = ["train", "dataset=text", "dataset.path=tiny.txt", *TINY]
    (done,) = in_turn([*line, "epochs=1", "hidden_size=4"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "numba" not in done.loaded


@pytest.mark.usefixtures("_always_compiled")
@pytest.mark.parametrize("name", ["rnn", "gru"])
def test_other_types_and_activations_run_by_torchs_calls(name: str) -> None:
    for cell, dtype in (
        (make_layer(cell_config(name, activation="softsign"), I, 5), torch.float32),
        (make_layer(cell_config(name), I, 5).double(), torch.float64),
    ):
        h_TBH, _ = cell(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(1, 2, 5, dtype=dtype))
        assert type(h_TBH.grad_fn).__name__.startswith(f"{name.upper()}Sequence")


@njit
def rows(x, part, at_once, tanh):
    if tanh:
        to_tanh(x, part, at_once)
    else:
        to_sigmoid(x, part, at_once)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, 33_178, 100_003])
def test_sigmoid_and_tanh_are_torchs_everywhere(
    size: int, num_threads: int, threads: Callable[[int], None]
) -> None:
    """Also of what no training should meet: infinities, NaN, results that are not normal.

    33,200 numbers are two threads' parts, and each leaves a rest that fills no two vectors.
    """
    threads(num_threads)
    torch.manual_seed(size)
    odd = [0.0, -0.0, math.inf, -math.inf, math.nan, 88.0, 88.8, 103.9, 104.1, 1e-40, 3e38]
    x = torch.cat([torch.randn(size) * 10, torch.tensor([*odd, *(-one for one in odd)])])
    for tanh in (False, True):
        wanted = (x + x).sigmoid() * 2 - 1 if tanh else x.sigmoid()
        found = x.numpy().copy()
        rows(found, part_of_thread(len(found)), numbers_at_once(), tanh)
        np.testing.assert_allclose(found, wanted.numpy(), rtol=3e-7, atol=1e-7)
        if TO_THE_BIT:
            np.testing.assert_array_equal(found, wanted.numpy())


@pytest.mark.usefixtures("_always_compiled")
def test_a_state_that_is_not_finite_stays_so() -> None:
    """A training that diverged must be seen to."""
    for name in ("rnn", "gru", "lstm"):
        cell = make_layer(cell_config(name), I, 33)
        state = torch.zeros(cell.num_states, 4, 33)
        state[0, 1, 2] = math.nan
        h_TBH, _ = cell(torch.zeros(3, 4, dtype=torch.int64), state)
        assert type(h_TBH.grad_fn).__name__.startswith("Compiled")
        assert not h_TBH[0, 1].isfinite().any() or name == "gru"
        assert not h_TBH[-1, 1].isfinite().any()
        assert h_TBH[:, 0].isfinite().all()


@pytest.mark.usefixtures("_always_compiled")
@pytest.mark.parametrize(
    ("broken", "reason"),
    [("numba", "import of numba halted"), ("njit", "'NoneType' object is not callable")],
)
def test_without_numba_the_cells_run_by_torchs_calls(
    broken: str,
    reason: str,
    unloaded: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if broken == "numba":
        monkeypatch.setitem(sys.modules, "numba", None)  # importing it fails
    else:
        monkeypatch.setattr(numba, "njit", None)
    layer = make_layer(cell_config("gru"), 5, 4)
    h_TBH, _ = layer(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(1, 2, 4))
    assert type(h_TBH.grad_fn).__name__ == "GRUSequenceBackward"
    note = dispatch.note(torch.device("cpu"))
    assert note is not None
    assert note.startswith("Numba does not work here (")
    assert reason in note
    assert len(note.splitlines()) == 1


def loaded_anew(file: Path) -> ModuleType:
    """Imports a copy of steps.py whose steps are compiled when called, which spares most of them.

    Their signatures, for which they would be compiled at once, are left out.
    """

    def lazy(*given: Any, **options: Any) -> Any:
        return njit(*(each for each in given if not isinstance(each, str)), **options)

    spec = importlib.util.spec_from_file_location("steps_anew", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba, "njit", lazy)
        spec.loader.exec_module(module)
    return module


def slope_at_zero(module: ModuleType) -> float:
    grad = np.ones((1, 1, 1), np.float32)
    module.rnn_back(grad, np.zeros((2, 1, 1), np.float32), 0)
    return grad.item()


def test_where_no_folder_can_be_written_they_are_compiled_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    module = loaded_anew(Path(steps.__file__))
    assert not module.OPTIONS["cache"]
    assert slope_at_zero(module) == 1


def test_a_changed_file_makes_new_machine_code(tmp_path: Path) -> None:
    """Also where what has changed is a function that a step calls."""
    file = tmp_path / "steps.py"
    shutil.copy(steps.__file__, file)
    for from_cache in (0, 1):
        module = loaded_anew(file)
        assert slope_at_zero(module) == 1
        assert sum(module.rnn_back.stats.cache_hits.values()) == from_cache
    file.write_text(file.read_text().replace("return fma(-y, y, ONE)", "return fma(-y, y, TWO)"))
    assert slope_at_zero(loaded_anew(file)) == 2


def test_all_that_numba_compiles_is_in_one_file() -> None:
    """Its cache sees a change only in the file of the function that is called."""
    files = set()
    for name in (*dispatch.FORMS, "steps"):
        module = importlib.import_module(f"charcmp.models.cells.compiled.{name}")
        compiled = [each.py_func for each in vars(module).values() if hasattr(each, "py_func")]
        assert compiled
        files |= {inspect.getfile(function) for function in compiled}
    assert files == {steps.__file__}
    source = inspect.getsource(steps)
    assert not re.search("^ *(from|import) charcmp", source, re.MULTILINE)  # constants neither
