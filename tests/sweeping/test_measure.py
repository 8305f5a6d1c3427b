"""Measuring the speed of shapes: side by side, as in a sweep."""

from pathlib import Path

import pytest
import torch
from helpers.training import tiny_spec

from charcmp.errors import UserError
from charcmp.models.cells.registry import cell_config
from charcmp.sweeping.measure import measure_in_lanes, measure_shapes
from charcmp.sweeping.slots import Slot


def test_shapes_in_lanes_are_measured_together(tiny_text: Path) -> None:
    """Three shapes in two lanes; one that fails ends the others' wait for it."""
    specs = [tiny_spec(tiny_text, cell) for cell in ("rnn", "gru", "lstm")]
    assert all(measure_in_lanes(specs, 2, device="cpu"))
    odd = tiny_spec(tiny_text, "rnn", precision="tf32")
    with pytest.raises(UserError, match="tf32"):  # not the barrier that it broke for the other
        measure_in_lanes([specs[0], odd], 2, device="cpu")


class Broken(torch.nn.Module):
    """A cell that can be built, and fails when it is trained."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = torch.nn.GRUCell(input_size, hidden_size)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("Expected all tensors to be on the same device")
        return self.cell(x, h)


def test_a_class_that_fails_is_measured_as_none_and_the_others_all_the_same(
    tiny_text: Path,
) -> None:
    """Its own run will say why."""
    broken = tiny_spec(
        tiny_text, cell_config("module", target=f"{__file__}:Broken", kind="step", states=1)
    )
    specs = [broken, tiny_spec(tiny_text, "rnn"), tiny_spec(tiny_text, "gru"), broken]
    found = measure_in_lanes(specs, 2, device="cpu")
    assert [speed is None for speed in found] == [True, False, False, True]
    on_cpu = list(measure_shapes(specs[:2], [Slot("CPU", 1)]))
    assert [speed is None for speed in on_cpu] == [True, False]
