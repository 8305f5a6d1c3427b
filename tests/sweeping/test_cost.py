"""Costs: which runs are of one shape, and when the last of them ends."""

import json
from pathlib import Path

import pytest
from helpers.runs import write_run
from helpers.training import tiny_spec

from charcmp.errors import UserError
from charcmp.sweeping.cost import Speeds, assumed_speed, makespan, speed_key
from charcmp.sweeping.slots import machine_key

IDENTITY = {"cell.name": "gru", "layers": 2, "hidden_size": 53, "seed": 0, "corpus_sha256": "ab"}
MACHINE = machine_key("CPU", 1, 1)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 1}, True),
        ({"corpus_sha256": "cd"}, True),
        ({"dropout": 0.2}, True),
        ({"layers": 3}, False),
        ({"hidden_size": 54}, False),
        ({"cell.name": "lstm"}, False),
        ({"batch_size": 10}, False),
        ({"optimizer.name": "sgd"}, False),
    ],
)
def test_what_makes_a_shape(change: dict, same: bool) -> None:
    key = speed_key(IDENTITY, 87, MACHINE)
    assert (speed_key(IDENTITY | change, 87, MACHINE) == key) is same


def test_machines_and_vocabularies_tell_shapes_apart() -> None:
    keys = {
        speed_key(IDENTITY, symbols, machine)
        for symbols in (87, 101)
        for machine in (MACHINE, machine_key("CPU", 2, 1), machine_key("H200", None, 8))
    }
    assert len(keys) == 6


def test_finished_runs_tell_their_speed(tmp_path: Path) -> None:
    key = speed_key(IDENTITY, 87, MACHINE)
    speeds = Speeds(tmp_path)
    assert speeds.find(key) is None
    speeds.add(key, 50.0)
    assert Speeds(tmp_path).find(key) == (50.0, "measured")
    environment = json.dumps({"device": "cpu", "device_name": "CPU", "threads": 1})
    # The first one's environment does not tell where it ran.
    for seed, (speed, text) in enumerate(((100, "[1"), (1000, environment), (120, environment))):
        folder = write_run(tmp_path, cell="gru", layers=2, seed=seed, chars_per_second=speed)
        (folder / "environment.json").write_text(text)
    assert Speeds(tmp_path).find(key) == (560.0, "past runs")
    (tmp_path / "speeds.json").write_text("torn")
    assert Speeds(tmp_path).measured == {}


def test_a_speed_that_cannot_be_kept_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"results: cannot be written \(Not a directory\)"):
        Speeds(tmp_path / "file" / "results").add("key", 1.0)


@pytest.mark.parametrize(
    ("seconds", "slots", "end"),
    [([5, 4, 3, 3, 3], 2, 10), ([7], 3, 7), ([1, 1, 1, 1], 2, 2), ([], 2, 0)],
)
def test_when_the_last_run_ends(seconds: list[float], slots: int, end: float) -> None:
    assert makespan(seconds, slots) == end


def test_what_rules_on_a_gpu_is_the_steps_of_small_models(tiny_text: Path) -> None:
    """The narrow deep model has fewer parameters and takes longer; on a CPU it is the faster."""
    deep, wide = (
        tiny_spec(tiny_text, "lstm", layers=layers, hidden_size=size, batch_size=100)
        for layers, size in ((3, 32), (1, 80))
    )
    assert deep.num_params < wide.num_params
    assert assumed_speed(deep, on_gpu=True) < assumed_speed(wide, on_gpu=True)
    assert assumed_speed(deep, on_gpu=False) > assumed_speed(wide, on_gpu=False)
