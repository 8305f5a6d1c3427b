"""precision=bf16: which products are rounded, and how a run with it differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training import folder_of, history_of, quiet, tiny_spec
from torch.utils._python_dispatch import TorchDispatchMode

from charcmp.data.chunks import to_chunks
from charcmp.data.corpus import split_corpus
from charcmp.models.cells.registry import CELLS
from charcmp.training.device import set_up
from charcmp.training.precision import Bfloat16Products
from charcmp.training.session import Session
from charcmp.training.step import Step
from charcmp.training.train import train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def float32_after() -> Iterator[None]:
    yield
    set_up(CPU, "float32")


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """To the nearest number with 8 significant bits, by arithmetic."""
    mantissa, exponent = torch.frexp(tensor.double())
    return torch.ldexp(torch.round(mantissa * 2**8) / 2**8, exponent)


def test_factors_are_rounded_and_sums_are_not() -> None:
    torch.manual_seed(0)
    a, b, start = torch.randn(5, 7), torch.randn(7, 3), torch.randn(5, 3)
    product = rounded(a) @ rounded(b)
    out = torch.empty(5, 3)
    with Bfloat16Products():
        forms = [
            (a @ b, product),
            (torch.mm(a, b, out=out), product),
            (torch.nn.functional.linear(a, b.t().contiguous(), start[0]), start[0] + product),
            (torch.addmm(start, a, b, beta=2, alpha=-1), 2 * start - product),
            (torch.addmm(start, a, b, out=torch.empty(5, 3)), start + product),
            (start.clone().addmm_(a, b), start + product),
        ]
        exact = a.double() @ b.double()
    for value, expected in forms:
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected.double(), rtol=1e-6, atol=1e-6)
    assert torch.equal(exact, a.double() @ b.double())  # float64 is left as it is
    assert not torch.allclose(product.float(), a @ b, rtol=1e-4)


class Products(TorchDispatchMode):
    """Notes what multiplies matrices, and that its factors are rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(part in func.name() for part in ("mm", "matmul", "linear", "lstm", "gru", "rnn")):
            self.names.add(func.name())
            assert all(torch.equal(factor, factor.bfloat16().float()) for factor in args[:2])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("cell", CELLS)
def test_no_product_of_a_step_escapes(tiny_text: Path, cell: str) -> None:
    spec = tiny_spec(tiny_text, cell, layers=2, precision="bf16")
    set_up(CPU, "bf16")
    stream = split_corpus(spec.corpus, "contiguous", [80, 10, 10], 4, 10).train
    step = Step(spec, CPU, to_chunks(stream, 10, CPU))
    with Products() as seen:  # sees what the rounding calls
        step()
    assert seen.names == {"aten::mm"}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_run_learns_the_same_a_little_less_exactly(
    tiny_text: Path, tmp_path: Path, cell: str
) -> None:
    spec = tiny_spec(tiny_text, cell, layers=2)
    rounding = tiny_spec(tiny_text, cell, layers=2, precision="bf16")
    assert rounding.run_id != spec.run_id
    exact = train(spec, folder_of(tmp_path, "float32"), Session(say=quiet))
    result = train(rounding, folder_of(tmp_path, "bf16"), Session(say=quiet))
    assert result.precision == "bf16"
    differences = [
        abs(one["train_nats_per_char"] - other["train_nats_per_char"])
        for one, other in zip(
            history_of(folder_of(tmp_path, "float32")),
            history_of(folder_of(tmp_path, "bf16")),
            strict=True,
        )
    ]
    assert 0 < max(differences) < 0.02
    assert result.test_nats_per_char != exact.test_nats_per_char


@pytest.mark.cuda
@pytest.mark.parametrize("cell", CELLS)
def test_cuda_rounds_as_the_cpu_does(tiny_text: Path, tmp_path: Path, cell: str) -> None:
    results = []
    for device in ("cpu", "cuda"):
        spec = tiny_spec(tiny_text, cell, layers=2, precision="bf16", device=device)
        results.append(train(spec, folder_of(tmp_path, device), Session(say=quiet)))
        assert torch.backends.cudnn.enabled is False
    assert results[1].test_nats_per_char == pytest.approx(results[0].test_nats_per_char, abs=5e-3)
