"""The compiled forms of the layers on a CPU, beside torch's calls, whose results they reproduce."""

import inspect
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.console import CHECKOUT, write_tiny_text
from numba import njit
from torch import Tensor

from charcmp.models.cells.compiled import dispatch, steps
from charcmp.models.cells.compiled.steps import remainder, to_sigmoid, to_tanh
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
def mode() -> Iterator[Callable[[str], None]]:
    def to(value: str) -> None:
        dispatch.mode = value  # type: ignore[assignment]

    yield to
    dispatch.mode = "auto"


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
    name: str, kind: str, shape: tuple[int, int, int], mode: Callable[[str], None]
) -> None:
    if name == "lstm" and kind == "features":
        pytest.skip("torch.nn.LSTM's, above the first layer")
    T, B, H = shape
    torch.manual_seed(0)
    symbols = kind == "symbols"
    x = torch.randint(I, (T, B)) if symbols else torch.randn(T, B, I).requires_grad_()
    state = torch.randn(2 if name == "lstm" else 1, B, H).requires_grad_()
    mode("always")
    found = results(name, x, state, "Compiled")
    mode("never")
    wanted = results(name, x, state, f"{name.upper()}Sequence")
    assert all(map(agree, found, wanted))


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
    script = (
        "import sys\n"
        "from charcmp.cli.main import dispatch\n"
        "sys.argv = ['charcmp', 'train', 'dataset=text', 'dataset.path=tiny.txt', 'epochs=1',\n"
        "            'hidden_size=4', 'batch_size=2', 'unroll_steps=10', 'device=cpu']\n"
        "dispatch()\n"
        "print('numba' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr


@pytest.mark.parametrize("name", ["rnn", "gru"])
def test_other_types_and_activations_run_by_torchs_calls(
    name: str, mode: Callable[[str], None]
) -> None:
    mode("always")
    for cell, dtype in (
        (make_layer(cell_config(name, activation="softsign"), I, 5), torch.float32),
        (make_layer(cell_config(name), I, 5).double(), torch.float64),
    ):
        h_TBH, _ = cell(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(1, 2, 5, dtype=dtype))
        assert type(h_TBH.grad_fn).__name__.startswith(f"{name.upper()}Sequence")


@njit
def rows(x, num_single, tanh):
    if tanh:
        to_tanh(x, num_single)
    else:
        to_sigmoid(x, num_single)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, 100_003])
def test_sigmoid_and_tanh_are_torchs_everywhere(size: int) -> None:
    """Also of what no training should meet: infinities, NaN, results that are not normal."""
    torch.manual_seed(size)
    odd = [0.0, -0.0, math.inf, -math.inf, math.nan, 88.0, 88.8, 103.9, 104.1, 1e-40, 3e38]
    x = torch.cat([torch.randn(size) * 10, torch.tensor([*odd, *(-one for one in odd)])])
    for tanh in (False, True):
        wanted = (x + x).sigmoid() * 2 - 1 if tanh else x.sigmoid()
        found = x.numpy().copy()
        rows(found, remainder(len(found)), tanh)
        np.testing.assert_allclose(found, wanted.numpy(), rtol=3e-7, atol=1e-7)
        if TO_THE_BIT:
            np.testing.assert_array_equal(found, wanted.numpy())


def test_a_state_that_is_not_finite_stays_so(mode: Callable[[str], None]) -> None:
    """A training that diverged must be seen to."""
    mode("always")
    for name in ("rnn", "gru", "lstm"):
        cell = make_layer(cell_config(name), I, 33)
        state = torch.zeros(cell.num_states, 4, 33)
        state[0, 1, 2] = math.nan
        h_TBH, _ = cell(torch.zeros(3, 4, dtype=torch.int64), state)
        assert type(h_TBH.grad_fn).__name__.startswith("Compiled")
        assert not h_TBH[0, 1].isfinite().any() or name == "gru"
        assert not h_TBH[-1, 1].isfinite().any()
        assert h_TBH[:, 0].isfinite().all()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("sys.modules['numba'] = None", "import of numba halted"),
        ("import numba; numba.njit = None", "'NoneType' object is not callable"),
    ],
)
def test_without_numba_the_cells_run_by_torchs_calls(statement: str, reason: str) -> None:
    script = (
        f"import sys; {statement}\n"
        "import torch\n"
        "from charcmp.models.cells.compiled import dispatch\n"
        "from charcmp.models.cells.registry import cell_config, make_layer\n"
        "dispatch.mode = 'always'\n"
        "layer = make_layer(cell_config('gru'), 5, 4)\n"
        "h, _ = layer(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(1, 2, 4))\n"
        "print(type(h.grad_fn).__name__, dispatch.note(torch.device('cpu')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("GRUSequenceBackward Numba does not work here ("), done.stderr
    assert reason in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_where_no_folder_can_be_written_they_are_compiled_anew() -> None:
    script = (
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from charcmp.models.cells.compiled import dispatch\n"
        "dispatch.FORMS = ('rnn',)\n"
        "print(dispatch.why_not())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=CHECKOUT
    )
    assert done.stdout == "None\n", done.stderr


PACKAGE = Path(dispatch.__file__).parent


def test_what_numba_compiles_is_in_one_file() -> None:
    """Its cache looks for changes only in the file of the function that is called."""
    uses_numba = [file.name for file in PACKAGE.glob("*.py") if "import njit" in file.read_text()]
    assert uses_numba == [Path(steps.__file__).name]
    assert "import charcmp" not in inspect.getsource(steps)
    assert "from charcmp" not in inspect.getsource(steps)


def test_a_changed_file_makes_new_machine_code(tmp_path: Path) -> None:
    """A function that a step calls is edited. Steps are compiled when called, which spares most."""
    copy = tmp_path / "charcmp/models/cells/compiled"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for parent in ("", "models", "models/cells"):
        (tmp_path / "charcmp" / parent / "__init__.py").touch()
    script = (
        "import sys, pathlib, numba, numpy as np\n"
        "njit = numba.njit\n"
        "numba.njit = lambda *given, **options: njit(\n"
        "    *(each for each in given if not isinstance(each, str)), **options)\n"
        "def slope_at_zero():\n"
        "    for name in [name for name in sys.modules if name.startswith('charcmp')]:\n"
        "        del sys.modules[name]\n"
        "    from charcmp.models.cells.compiled.rnn import rnn_back\n"
        "    grad = np.ones((1, 1, 1), np.float32)\n"
        "    rnn_back(grad, np.zeros((2, 1, 1), np.float32), 0)\n"
        "    print(grad.item(), sum(rnn_back.stats.cache_hits.values()))\n"
        "slope_at_zero()\n"
        "slope_at_zero()\n"
        "for file in pathlib.Path('charcmp/models/cells/compiled').glob('*.py'):\n"
        "    file.write_text(file.read_text().replace('fma(-y, y, ONE)', 'fma(-y, y, TWO)'))\n"
        "slope_at_zero()\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", script],  # -B: an edit within a second of the copy is seen
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout.splitlines() == ["1.0 0", "1.0 1", "2.0 0"], done.stderr
