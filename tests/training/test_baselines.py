"""Baselines of a split: chosen by validation, computed once, kept in the results folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.console import loaded_by, write_tiny_text

from charcmp.config.optimizers import OPTIMIZERS
from charcmp.config.schema import Config
from charcmp.config.spec import RunSpec, resolve, split_of
from charcmp.data.dataset import DatasetConfig
from charcmp.errors import UserError
from charcmp.models.cells.options import CellConfig
from charcmp.training import baselines as module
from charcmp.training.baselines import baselines, baselines_of

SPLIT = [80.0, 10.0, 10.0]


def spec_of(folder: Path, layout: str = "contiguous", **changed: Any) -> RunSpec:
    file = folder / "tiny.txt"
    if not file.exists():
        write_tiny_text(file)
    dataset = DatasetConfig(source="file", path=str(file), layout=layout, split=SPLIT)
    return resolve(
        Config(
            cell=CellConfig(name="gru"),
            dataset=dataset,
            optimizer=OPTIMIZERS["rmsprop"](name="rmsprop"),
            hidden_size=8,
            results_dir=str(folder / "results"),
            **{"batch_size": 4, "unroll_steps": 10, **changed},
        )
    )


def files(folder: Path) -> list[Path]:
    return sorted((folder / "results" / "baselines").iterdir())


def test_what_is_found(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    unpruned, pruned, *compressors = baselines(split_of(spec), spec.corpus.vocabulary, [100, 10**6])
    assert unpruned.size is not None
    assert (pruned.size, pruned.budget) == (100, 100)  # and a million has room for all
    assert [one.name for one in compressors] == ["zlib", "bz2", "lzma"]
    # Words of a small vocabulary, drawn at random: n-grams know most of it, compressors much.
    assert 0.3 < unpruned.nats_per_char < pruned.nats_per_char < 1.5
    assert all(0.5 < one.nats_per_char < 2.5 for one in compressors)
    assert [one.note for one in compressors] == [None, None, None]  # so short a text spans all


@pytest.mark.parametrize("layout", ["contiguous", "columns"])
def test_test_text_chooses_nothing(tmp_path: Path, layout: str) -> None:
    spec = spec_of(tmp_path, layout)
    splits = split_of(spec)
    noise = np.random.default_rng(0).integers(0, spec.corpus.num_symbols, splits.test.x_BC.shape)
    noisy = replace(splits.test, x_BC=noise.astype(np.uint8), y_BC=noise.astype(np.uint8))
    found, other = (
        baselines(one, spec.corpus.vocabulary, [50, 200])
        for one in (splits, replace(splits, test=noisy))
    )
    assert [(one.name, one.size) for one in found] == [(one.name, one.size) for one in other]
    assert all(a.nats_per_char < b.nats_per_char for a, b in zip(found, other, strict=True))


def test_computed_once_and_for_further_budgets(tmp_path: Path) -> None:
    first = baselines_of(spec_of(tmp_path), [100])
    (file,) = files(tmp_path)
    file.write_text(file.read_text().replace('"name": "zlib"', '"name": "as stored"'))
    # Neither cell, seed, nor, in `contiguous`, the batch make another test text.
    stored = baselines_of(spec_of(tmp_path, seed=3, layers=2, batch_size=5), [100])
    assert "as stored" in [one.name for one in stored.baselines]
    more = baselines_of(spec_of(tmp_path), [50])
    assert more.budgets == [50, 100]
    assert [one.budget for one in more.baselines] == [None, 50, 100, None, None, None]
    assert first.baselines[1] in more.baselines
    assert files(tmp_path) == [file]
    baselines_of(spec_of(tmp_path, "columns"), [])
    baselines_of(spec_of(tmp_path, "columns", batch_size=5), [])
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("contents", ["{", "{}", '{"version": 0}'])
def test_a_corrupt_file_is_computed_again(
    tmp_path: Path, contents: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = baselines_of(spec_of(tmp_path), [100])
    (file,) = files(tmp_path)
    file.write_text(contents)
    assert baselines_of(spec_of(tmp_path), [100]) == first
    assert json.loads(file.read_text())["budgets"] == [100]
    (line,) = capsys.readouterr().out.splitlines()
    assert str(file) in line
    assert "computed again" in line


def test_long_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path)
    whole = baselines(split_of(spec), spec.corpus.vocabulary, [])
    monkeypatch.setattr(module, "MAX_TRAIN_CHARS", 1000)
    part = baselines(split_of(spec), spec.corpus.vocabulary, [])
    assert all("of the last " in str(one.note) for one in part)
    assert all(a.nats_per_char < b.nats_per_char for a, b in zip(whole, part, strict=True))
    monkeypatch.setattr(module, "MAX_CHARS", 4000)
    with pytest.raises(UserError, match="at most 4,000"):
        baselines_of(spec, [])


def test_a_results_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        baselines_of(spec_of(tmp_path), [])


def test_without_torch() -> None:
    assert "torch" not in loaded_by("import charcmp.training.baselines")
