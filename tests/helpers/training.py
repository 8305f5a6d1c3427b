"""Small specifications to train in this process, and helpers to compare what comes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.schema import Config
from charcmp.config.spec import RunSpec, resolve
from charcmp.data.dataset import DatasetConfig
from charcmp.models.cells.options import CellConfig
from charcmp.models.cells.registry import cell_config
from charcmp.runs.folder import RunFolder
from charcmp.runs.result import Result

TIMES = ("seconds_train", "chars_per_second", "seconds_per_sampled_char")


def tiny_spec(
    text: Path, cell: str | CellConfig = "lstm", layout: str = "contiguous", **changes
) -> RunSpec:
    config = Config(
        cell=cell_config(cell) if isinstance(cell, str) else cell,
        dataset=DatasetConfig(source="file", path=str(text), layout=layout),
        optimizer=RMSpropConfig(name="rmsprop"),
        hidden_size=6,
        epochs=3,
        batch_size=4,
        unroll_steps=10,
        device="cpu",
        threads=1,
        progress=False,
    )
    return resolve(replace(config, **changes))


def folder_of(tmp_path: Path, name: str) -> RunFolder:
    folder = RunFolder(tmp_path / name)
    folder.create()
    return folder


def without_times(result: Result | dict) -> dict:
    values = structs.asdict(result) if isinstance(result, Result) else result
    return {key: value for key, value in values.items() if key not in TIMES}


def history_of(folder: RunFolder) -> list[dict]:
    return [without_times(entry) for entry in json.loads(folder.history.read_text())]


def quiet(line: str) -> None:
    pass
