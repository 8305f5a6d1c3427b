"""The fused kernels, in Triton's interpreter on the CPU, or with `pytest -m cuda` on a GPU.

A process either interprets Triton's kernels or compiles them, and decides when they are defined.
Where there is no GPU this file asks for the interpreter; where there is one, so can you:
TRITON_INTERPRET=1 pytest tests/test_kernels.py.
"""

import importlib.util
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers.console import CHECKOUT, loaded_by
from helpers.models import shape
from torch import Tensor

from charcmp.models.cells.activations import ACTIVATIONS
from charcmp.models.cells.base import Cell
from charcmp.models.cells.fused import dispatch as fused
from charcmp.models.cells.modes import forced
from charcmp.models.cells.registry import CELLS, cell_config, make_layer
from charcmp.models.language_model import CharModel

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed (the extra called triton)", allow_module_level=True)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
torch.set_num_threads(1)

I = 7  # noqa: E741 - inputs, as in the package
VARIANTS = [
    (name, activation)
    for name in CELLS
    if name != "gru_reset_after"  # torch.nn's on every device
    for activation in CELLS[name].activations
]
variants = pytest.mark.parametrize(("name", "activation"), VARIANTS)
# T, B, H: more hidden units than one program has, and one of each.
shapes = pytest.mark.parametrize("shape", [(3, 3, 45), (2, 1, 77), (4, 3, 1), (1, 2, 130)], ids=str)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if (request.param == "cpu") != INTERPRETED:
        pytest.skip("this process interprets Triton's kernels" if INTERPRETED else "not so here")
    return request.param


def make(name: str, activation: str, shape: tuple[int, int, int], **to) -> tuple[Cell, Tensor]:
    """A cell and a state with random values in every place."""
    _, B, H = shape
    torch.manual_seed(0)
    cell = make_layer(cell_config(name, activation=activation), I, H).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.uniform_(-1, 1).mul_(2 / H**0.5)
    state = torch.randn(cell.num_states, B, H, dtype=torch.float64)
    return cell.to(**to), state.to(**to).requires_grad_()


def inputs(kind: str, shape: tuple[int, int, int], **to) -> Tensor:
    T, B, _ = shape
    if kind == "symbols":
        return torch.randint(I, (T, B), device=to["device"])
    return torch.randn(T, B, I, dtype=torch.float64).to(**to).requires_grad_()


def results(cell: Cell, x: Tensor, state: Tensor, how: str) -> list[Tensor]:
    """h, the last state, and the gradients of a weighed sum of h at the state, weights and x."""
    if how == "reference":
        h_TBH, last, _ = cell.reference(cell.dense_input(x), state)
    else:
        with forced(fused, "always" if how == "fused" else "never"):
            h_TBH, last = cell(x, state)
        assert type(h_TBH.grad_fn).__name__.startswith("Fused") == (how == "fused")
    weigh = torch.linspace(-1, 2, h_TBH.numel(), dtype=h_TBH.dtype, device=h_TBH.device)
    leaves = [state, *cell.parameters(), *([x] if x.is_floating_point() else [])]
    gradients = torch.autograd.grad((h_TBH * weigh.view_as(h_TBH)).sum(), leaves)
    return [h_TBH.detach(), last.detach(), *gradients]


@pytest.mark.long
@variants
@shapes
@pytest.mark.parametrize("other", ["reference", "torch"])
def test_fused_form_agrees(
    device: str, name: str, activation: str, shape: tuple[int, int, int], other: str
) -> None:
    to = {"device": device, "dtype": torch.float64}
    cell, state = make(name, activation, shape, **to)
    x = inputs("symbols" if other == "torch" else "features", shape, **to)
    found, expected = (results(cell, x, state, how) for how in ("fused", other))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@variants
def test_single_precision_is_as_near_as_torchs(device: str, name: str, activation: str) -> None:
    """Distance to the equations in float64: at most three times that of torch's own operations."""
    shape = 5, 3, 45
    exact_cell, exact_state = make(name, activation, shape, device=device)
    x = inputs("symbols", shape, device=device)
    exact = results(exact_cell, x, exact_state, "reference")
    to = {"device": device, "dtype": torch.float32}
    cell, state = make(name, activation, shape, **to)
    for ours, torchs, true in zip(
        *(results(cell, x, state, how) for how in ("fused", "reference")), exact, strict=True
    ):
        off, torch_off = ((got.double() - true).abs().max() for got in (ours, torchs))
        assert off <= 3 * torch_off + 1e-6 * true.abs().max()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-15)], ids=str
)
def test_activations_to_a_few_ulp(
    device: str, activation: str, dtype: torch.dtype, tolerance: float
) -> None:
    """Relative to the value, also near 0, where 2 σ(2s) − 1 and (1 − e) / (1 + e) lose digits."""
    from charcmp.models.cells.fused.rnn import FusedRNN

    size = torch.cat((torch.zeros(1), torch.logspace(-30, 2, 2047), torch.linspace(0.5, 20, 2048)))
    s = torch.cat((-size, size)).to(device, dtype)
    exact = s.double().requires_grad_()
    expected = ACTIVATIONS[activation].function(exact)
    (expected_slope,) = torch.autograd.grad(expected.sum(), exact)

    s = s.view(1, 64, 128).requires_grad_()  # one step of an RNN without recurrence: h' = φ(s)
    h = FusedRNN.apply(s, torch.zeros_like(s[0]), s.new_zeros(128, 128), activation)
    (slope,) = torch.autograd.grad(h.sum(), s)
    torch.testing.assert_close(h.flatten().double(), expected, rtol=tolerance, atol=0)
    torch.testing.assert_close(slope.flatten().double(), expected_slope, rtol=0, atol=tolerance)


@variants
def test_what_is_not_a_number_stays_so(device: str, name: str, activation: str) -> None:
    """A run that diverges must be seen to."""
    shape = 2, 2, 3
    cell, state = make(name, activation, shape, device=device)
    x = inputs("symbols", shape, device=device)
    with torch.no_grad():
        cell.per_gate("bias_hh")[-1][1] = float("nan")
    found, expected = (results(cell, x, state, how)[0] for how in ("fused", "reference"))
    assert torch.equal(found.isnan(), expected.isnan())
    assert found.isnan().any()


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "lstm_peephole"])
def test_a_model_of_two_layers(device: str, name: str) -> None:
    """Symbols below and features above, and the gradient of every parameter."""
    torch.manual_seed(0)
    model = CharModel(shape(name, 2, 9, I, activation="softsign")).double().to(device)
    x, y = torch.randint(I, (2, 4, 3), device=device)
    gradients = {}
    for how in ("always", "never"):
        with forced(fused, how):
            logits, _ = model(x, model.zero_state(3))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
        gradients[how] = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(gradients["always"], gradients["never"], rtol=1e-10, atol=1e-12)


@pytest.mark.cuda
@variants
def test_replayed_as_a_graph(name: str, activation: str) -> None:
    """Forward and backward captured once give, over new contents, what a plain step gives."""
    if INTERPRETED:
        pytest.skip("this process interprets Triton's kernels")
    shape = 5, 3, 45
    cell, state = make(name, activation, shape, device="cuda", dtype=torch.float32)
    x = inputs("symbols", shape, device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        results(cell, x, state, "fused")  # compiles the kernels
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        captured = results(cell, x, state, "fused")
    x.copy_((x + 1) % I)
    with torch.no_grad():
        state.mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    expected = results(cell, x, state, "fused")
    for replayed, plain in zip(captured, expected, strict=True):
        torch.testing.assert_close(replayed, plain)


@pytest.mark.long
def test_every_kernel_compiles_for_a_gpu(tmp_path: Path) -> None:
    """To machine code, by the compiler and assembler that come with Triton; no GPU takes part."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = CHECKOUT / "scripts" / "compile_kernels.py"
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 + 3 * 2 + 2 + 2 * 2 + 2 * 4 * 2


@pytest.mark.long
def test_benchmark_runs_in_the_interpreter() -> None:
    script = CHECKOUT / "scripts" / "bench_kernels.py"
    small = "--cells gru --hidden-sizes 5 --steps 2 --batch 2 --rounds 1 --repeats 1 --device cpu"
    done = subprocess.run(
        [sys.executable, script, *small.split()],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    cell, hidden_size, without, *times = done.stdout.splitlines()[2].strip("|").split("|")
    assert (cell.strip(), int(hidden_size), without.strip()) == ("gru", 5, "torch calls")
    assert all(float(number) > 0 for number in times)


def test_why_a_gpu_cannot_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 99)
    assert fused.note(device, in_cudnn=True) is None
    assert fused.note(torch.device("cpu"), in_cudnn=False) is None
    fused._tried.cache_clear()
    assert "Triton does not work here (" in fused.note(device, in_cudnn=False)
    fused._tried.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)  # as where it is not installed
    assert "pip install 'charcmp[triton]'" in fused.note(device, in_cudnn=False)
    fused._tried.cache_clear()


@pytest.mark.long
def test_charcmp_does_not_import_triton_on_a_cpu() -> None:
    code = (
        "import torch; from charcmp.models.language_model import CharModel; "
        "from charcmp.models.budget import Shape; "
        "from charcmp.models.cells.registry import cell_config; "
        "m = CharModel(Shape(cell_config('gru'), 1, 3, 4)); "
        "m(torch.zeros(2, 2, dtype=torch.int64), m.zero_state(2))"
    )
    assert "triton" not in loaded_by(code)


def test_the_first_pass_of_a_form_has_its_kernels_to_itself() -> None:
    """A barrier that both threads must reach within their pass breaks the first time alone."""
    from charcmp.models.cells.fused.elementwise import launching

    x_TBG, form = torch.zeros(2, 3, 4), object()

    def met(at_once: threading.Barrier, seconds: float) -> bool:
        with launching(x_TBG, form):
            try:
                at_once.wait(seconds)
            except threading.BrokenBarrierError:
                return False
            return True

    with ThreadPoolExecutor(2) as lanes:
        for expected, seconds in ((False, 0.5), (True, 60)):
            at_once = threading.Barrier(2)
            assert [*lanes.map(met, [at_once] * 2, [seconds] * 2)] == [expected] * 2
