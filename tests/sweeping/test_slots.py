"""Slots: the shares of a machine, without the machine."""

from pathlib import Path

import pytest
import torch
from helpers.training import tiny_spec

from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.schema import Config
from charcmp.data.dataset import DatasetConfig
from charcmp.data.sources import MEMORY_PER_CHAR
from charcmp.errors import UserError
from charcmp.machine import available_cores, memory_bytes
from charcmp.models.cells.options import CellConfig
from charcmp.sweeping.slots import Slot, gpu_slots, make_slots
from charcmp.training.memory import LEAST_BYTES_PER_PARAM, training_bytes


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
    slots = make_slots(config(device="cpu", **keys), 0)
    assert len(slots) == num_slots
    assert {slot.threads for slot in slots} == {threads}
    assert slots[0].overrides == {"threads": str(threads)}


def test_as_many_runs_as_the_memory_holds(capsys: pytest.CaptureFixture[str]) -> None:
    half = memory_bytes() // 2
    slots = make_slots(config(device="cpu"), half // available_cores())
    assert len(slots) == available_cores()
    assert capsys.readouterr().out == ""
    (alone,) = make_slots(config(device="cpu"), half + 1)
    assert alone.threads == available_cores()
    if available_cores() > 1:
        assert capsys.readouterr().out.startswith(f"note: 1 at once, not {available_cores()}: each")
    assert len(make_slots(config(device="cpu", jobs=3), half)) == 3  # as asked for
    assert capsys.readouterr().out == ""


def test_what_a_run_takes_grows_with_its_text_and_its_model(tmp_path: Path) -> None:
    texts = [tmp_path / "short.txt", tmp_path / "long.txt"]
    for text, times in zip(texts, (1, 100), strict=True):
        text.write_bytes(b"ab cd. " * 1000 * times)
    short, long = (training_bytes(tiny_spec(text)) for text in texts)
    assert long - short == MEMORY_PER_CHAR * 7 * 1000 * 99
    wide = tiny_spec(texts[0], hidden_size=600)
    more = wide.num_params - tiny_spec(texts[0]).num_params
    assert training_bytes(wide) - short > LEAST_BYTES_PER_PARAM * more


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


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=rf"^device={device}: no CUDA device here; device=cpu"):
        make_slots(config(device=device), 0)


def test_gpus_without_any() -> None:
    with pytest.raises(UserError, match="gpus=0: no CUDA device here"):
        make_slots(config(device="cpu", gpus="0"), 0)
