"""Measuring the speed of shapes: side by side, as in a sweep."""

from pathlib import Path

import pytest
from helpers.training import tiny_spec

from charcmp.errors import UserError
from charcmp.sweeping.measure import measure_in_lanes


def test_shapes_in_lanes_are_measured_together(tiny_text: Path) -> None:
    """Three shapes in two lanes; one that fails ends the others' wait for it."""
    specs = [tiny_spec(tiny_text, cell) for cell in ("rnn", "gru", "lstm")]
    assert all(speed > 0 for speed in measure_in_lanes(specs, 2, device="cpu"))
    odd = tiny_spec(tiny_text, "rnn", precision="tf32")
    with pytest.raises(UserError, match="tf32"):  # not the barrier that it broke for the other
        measure_in_lanes([specs[0], odd], 2, device="cpu")
