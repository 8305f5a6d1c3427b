"""Measuring the speed of shapes: side by side, as in a sweep."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.console import wait_for
from helpers.sweeps import children_of
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


class Deadly:
    """Ends the process that it is sent to."""

    def __reduce__(self) -> tuple:
        return os._exit, (1,)


def test_a_process_that_is_killed_is_told_of_in_a_line() -> None:
    with pytest.raises(UserError, match=r"was killed \(out of memory\?\)"):
        list(measure_shapes([Deadly()], [Slot("CPU", 1)]))  # type: ignore[list-item]


MEASURES_FOR_EVER = """
import os, sys, time
from charcmp.sweeping.measure import measure_shapes
from charcmp.sweeping.slots import Slot

class Does:
    def __init__(self, *what):
        self.what = what

    def __reduce__(self):
        return self.what[0], self.what[1:]

list(measure_shapes([Does(time.sleep, 100), Does(os.mkdir, sys.argv[1])], [Slot("CPU", 1)] * 2))
"""


def test_the_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """One of them measures, the other has nothing left to do."""
    told = tmp_path / "told"
    with subprocess.Popen([sys.executable, "-c", MEASURES_FOR_EVER, str(told)]) as process:
        try:
            wait_for(told.exists, 20)
            children = children_of(process.pid)
            assert len(children) == 2
        finally:
            process.kill()
    wait_for(lambda: not any(map(is_running, children)), 20)


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
