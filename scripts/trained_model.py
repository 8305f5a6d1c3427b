"""The model of a finished run, for the scripts beside this file."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from charcmp.config import DatasetConfig
from charcmp.corpus import split_corpus
from charcmp.evaluate import Chunks, to_chunks
from charcmp.model import CharModel
from charcmp.runs import RunFolder
from charcmp.sources import load_corpus


def load(folder: RunFolder) -> tuple[CharModel, Chunks]:
    """A run's model with its best weights, and its validation text, from the run's own files."""
    config = yaml.safe_load(folder.config.read_text())
    options = config["cell"]
    cell = options.pop("name")
    corpus = load_corpus(DatasetConfig(**config["dataset"]), config["data_dir"])
    model = CharModel(cell, config["layers"], config["hidden_size"], corpus.num_symbols, **options)
    model.load_state_dict(load_file(folder.best))
    dataset, batch_size, steps = config["dataset"], config["batch_size"], config["unroll_steps"]
    splits = split_corpus(corpus, dataset["layout"], dataset["split"], batch_size, steps)
    return model.eval(), to_chunks(splits.val, steps, torch.device("cpu"))


def finished(results_dir: Path, names: list[str]) -> list[RunFolder]:
    """Runs of a results folder that have weights and whose ids match one of the patterns."""
    paths = sorted({path for name in names for path in (results_dir / "runs").glob(name)})
    return [folder for folder in map(RunFolder, paths) if folder.best.is_file()]
