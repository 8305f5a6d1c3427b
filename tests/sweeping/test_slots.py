"""Slots: the shares of a machine, without the machine."""

import pytest

from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.schema import Config
from charcmp.data.dataset import DatasetConfig
from charcmp.errors import UserError
from charcmp.machine import available_cores
from charcmp.models.cells.options import CellConfig
from charcmp.sweeping.slots import Slot, gpu_slots, make_slots


def config(**keys: object) -> Config:
    parts = {"dataset": DatasetConfig(), "optimizer": RMSpropConfig("rmsprop")}
    return Config(cell=CellConfig("rnn"), **parts, **keys)


@pytest.mark.parametrize(
    ("keys", "num_slots", "threads"),
    [
        ({}, available_cores(), 1),
        ({"jobs": 1}, 1, available_cores()),
        ({"jobs": 3}, 3, max(1, available_cores() // 3)),
        ({"threads": available_cores()}, 1, available_cores()),
        ({"jobs": 2, "threads": 5}, 2, 5),
    ],
)
def test_cpu(keys: dict, num_slots: int, threads: int) -> None:
    slots = make_slots(config(device="cpu", **keys))
    assert len(slots) == num_slots
    assert {slot.threads for slot in slots} == {threads}
    assert slots[0].overrides == {"threads": str(threads)}


def seen(slots: list[Slot]) -> list[str]:
    return [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots]


@pytest.mark.parametrize(
    ("keys", "visible", "ids"),
    [
        ({}, None, ["0", "1", "2"]),
        ({"gpus": "2,0"}, None, ["2", "0"]),
        ({"jobs": 4}, None, ["0", "1", "2", "0"]),
        ({"jobs_per_gpu": "2"}, None, ["0", "1", "2", "0", "1", "2"]),
        ({"jobs_per_gpu": "3", "gpus": "1"}, None, ["1", "1", "1"]),
        ({"jobs_per_gpu": "3", "jobs": 4}, None, ["0", "1", "2", "0"]),
        ({"device": "cuda:1"}, None, ["1"]),
        ({}, "4,5,7", ["4", "5", "7"]),  # what a cluster gave us to see
        ({"gpus": "2"}, "4,5,GPU-8a", ["GPU-8a"]),
    ],
)
def test_a_child_sees_its_gpu_only(keys: dict, visible: str | None, ids: list[str]) -> None:
    slots = gpu_slots(config(**keys), ["a GPU"] * 3, [20] * 3, visible)
    assert seen(slots) == ids
    assert slots[0].overrides == {"device": "cuda"}


@pytest.mark.parametrize(
    ("keys", "lanes"),
    [({}, 8), ({"jobs_per_gpu": "3"}, 3), ({"jobs_per_gpu": "1"}, 1), ({"jobs": 5}, 5)],
)
def test_lanes_of_a_gpu(keys: dict, lanes: int) -> None:
    slots = gpu_slots(config(**keys), ["H200"], [132], None)
    assert [slot.lanes for slot in slots] == [lanes] * lanes
    assert {slot.key for slot in slots} == {f"H200, {lanes} lanes" if lanes > 1 else "H200"}


@pytest.mark.parametrize("keys", [{"gpus": "3"}, {"gpus": "0,9"}, {"device": "cuda:5"}])
def test_a_gpu_that_is_not_there(keys: dict) -> None:
    with pytest.raises(UserError, match=r"no GPU \d here: there are 3, counted from 0"):
        gpu_slots(config(**keys), ["a GPU"] * 3, [20] * 3, None)


def test_a_gpu_named_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"^gpus=0,1,0: names a GPU twice; jobs_per_gpu= sets how"):
        gpu_slots(config(gpus="0,1,0"), ["a GPU"] * 3, [20] * 3, None)


def test_gpus_without_any() -> None:
    with pytest.raises(UserError, match="gpus=0: no CUDA device here"):
        make_slots(config(device="cpu", gpus="0"))
