"""A finished run's model to use: found by name, read as plain data.

Nothing in a run's folder can execute: weights are safetensors, configuration and result are read
as YAML and JSON, and no interpolation in them is resolved. No torch before `model()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

from charcmp.budget import NUM_STACKS, num_params
from charcmp.config import DatasetConfig
from charcmp.corpus import Corpus, Symbols, split_corpus
from charcmp.errors import UserError
from charcmp.records import (
    CorruptFileError,
    Result,
    StoredConfig,
    open_file,
    printable,
    read_config,
)
from charcmp.runs import VOCABULARY_KEY, RunFolder, runs_dir
from charcmp.sources import find, load_corpus

if TYPE_CHECKING:
    from charcmp.evaluate import Chunks
    from charcmp.model import CharModel

MAX_NAMED = 8  # runs or bytes that a message names
MAX_LOADED_PARAMS = 1 << 32
MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run with a result, and the bytes that its symbols stand for."""

    folder: RunFolder
    result: Result
    config: StoredConfig
    vocabulary: bytes

    @property
    def run_id(self) -> str:
        return self.result.run_id

    @property
    def task(self) -> str:
        return self.result.task

    @property
    def right_context(self) -> int | None:
        """Bytes that a fill-in model reads beyond a chunk's edge; None for a language model."""
        if self.task == "lm":
            return None
        context = self.result.identity["fill_context"]
        assert isinstance(context, int)  # Result checks it
        return context

    def encode(self, text: bytes) -> Symbols:
        """Bytes as symbols.

        Raises:
            UserError: names the bytes that the run's corpus does not have.
        """
        bytes_N = np.frombuffer(text, dtype=np.uint8)
        is_known_N = np.isin(bytes_N, list(self.vocabulary))
        if not is_known_N.all():
            unknown = np.unique(bytes_N[~is_known_N])
            names = " ".join(f"0x{byte:02x}" for byte in unknown[:MAX_NAMED])
            more = ", ..." if len(unknown) > MAX_NAMED else ""
            raise UserError(f"{names}{more}: not among the {len(self.vocabulary)} bytes of "
                            f"{self.run_id}'s corpus")  # fmt: skip
        return np.searchsorted(list(self.vocabulary), bytes_N).astype(np.uint8)

    def known(self, text: bytes) -> bytes:
        """A text without the bytes that the run's corpus does not have."""
        return text.translate(None, bytes(set(range(256)) - set(self.vocabulary)))

    def corpus(self, data_dir: str | None = None) -> Corpus:
        """The corpus that the run was trained on.

        Raises:
            UserError: if it is not here, or is not the same any more.
        """
        return _corpus(self.result, self.config, data_dir)

    def chunks(self, part: str, data_dir: str | None = None) -> Chunks:
        """The train, val or test text, on the CPU, in the rows and chunks that the run read it in.

        Raises:
            UserError: if the corpus is not here or has changed.
        """
        import torch

        from charcmp.evaluate import to_chunks

        result = self.result
        sizes = result.batch_size, result.unroll_steps
        splits = split_corpus(self.corpus(data_dir), result.layout, result.split, *sizes)
        stream = {"train": splits.train, "val": splits.val, "test": splits.test}[part]
        device = torch.device("cpu")
        return to_chunks(stream, result.unroll_steps, device, self.right_context)

    def model(self) -> CharModel:
        """The run's model with its best weights, on the CPU, dropout off.

        Sets torch to one thread: the products of a single stream are too small to share out (two
        threads had a tenth of the speed on a busy machine).

        Raises:
            UserError: if weights and configuration do not fit together.
        """
        import torch
        from safetensors.torch import load_file

        from charcmp.fill import make_model

        options = dict(self.config.cell)
        cell, layers = str(options.pop("name")), self.result.layers
        try:
            weights = load_file(self.folder.best)
            num_symbols, hidden_size = weights["decoder.weight"].shape
            hidden_size //= NUM_STACKS[self.task]
            count = sum(weight.numel() for weight in weights.values())
            # Before anything is built by numbers that are not the weights' own.
            wanted = num_params(cell, layers, hidden_size, num_symbols, self.task)
            if count != wanted:
                raise ValueError(f"{count:,} weights for {wanted:,} parameters")
            if num_symbols != len(self.vocabulary):
                raise ValueError(f"{num_symbols} symbols, {len(self.vocabulary)} in the vocabulary")
            model = make_model(
                self.right_context, cell, layers, hidden_size, num_symbols, **options
            )
            model.load_state_dict(weights)
            for name, weight in weights.items():
                if weight.dtype != torch.float32 or not weight.isfinite().all():
                    raise ValueError(f"{name}: not all of it finite float32")
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = printable(str(error).partition("\n")[0])[:200]
            raise UserError(
                f"{self.folder.best}: weights and configuration do not fit together ({reason})"
            ) from None
        torch.set_num_threads(1)
        return model.eval()


def load_trained(name: str, results_dir: str, data_dir: str | None = None) -> TrainedRun:
    """The finished run called `name`: see `find_run`.

    Raises:
        UserError: if there is no such run, it has no weights (not finished, diverged, published
            without them), or its files are damaged.
    """
    folder = RunFolder(find_run(name, results_dir))
    try:
        result = folder.read_result()
    except CorruptFileError as error:
        raise UserError(str(error)) from None
    if result is None:
        if not folder.config.exists():
            raise UserError(f"run={name}: {folder.path} is not a run's folder")
        raise UserError(f"run={name}: not finished; charcmp status shows how far it is")
    if result.status == "diverged":
        raise UserError(f"run={name}: diverged, and so has no weights")
    if not folder.best.exists():
        raise UserError(
            f"run={name}: no {folder.best.name} in {folder.path} (published runs come without)"
        )
    try:
        config = read_config(folder.config)
        if (weights := open_file(folder.best, max_weight_bytes(result))) is not None:
            weights.close()  # read by its path, now that it is known to be a file of such a size
    except CorruptFileError as error:
        raise UserError(str(error)) from None
    if config is None:
        raise UserError(f"run={name}: no {folder.config.name} in {folder.path}")
    return TrainedRun(folder, result, config, _vocabulary(folder, result, config, data_dir))


def max_weight_bytes(result: Result) -> int:
    """The most that the file of weights has: float32, names and shapes."""
    return 4 * min(result.num_params, MAX_LOADED_PARAMS) + MAX_HEADER_BYTES


def runs_with_weights(results_dir: Path, patterns: Sequence[str]) -> list[TrainedRun]:
    """Finished language models of a results folder whose ids match one of the patterns (`*-gru-*`).

    Raises:
        UserError: if there is none, or a run's files are damaged.
    """
    folder = runs_dir(results_dir)
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    names = [path.name for path in paths if RunFolder(path).best.is_file()]
    runs = [load_trained(name, str(results_dir)) for name in names]
    if not (models := [run for run in runs if run.task == "lm"]):
        raise UserError(f"{folder}: no language model with weights matches {' '.join(patterns)}")
    return models


def find_run(name: str, results_dir: str) -> Path:
    """The folder of a run: its id, a beginning that no other id has, or else a path to it.

    Raises:
        UserError: if there is none, or several ids begin so.
    """
    folder = runs_dir(results_dir)
    ids = sorted(path.name for path in folder.glob("*") if path.is_dir())
    matches = [name] if name in ids else [run_id for run_id in ids if run_id.startswith(name)]
    if len(matches) == 1:
        return folder / matches[0]
    if matches:
        more = ", ..." if len(matches) > MAX_NAMED else ""
        listed = printable(", ".join(matches[:MAX_NAMED])) + more
        raise UserError(f"run={name}: {len(matches)} runs begin so: {listed}")
    if Path(name).is_dir():
        return Path(name)
    raise UserError(f"run={name}: no run in {folder} begins so, and it is no folder")


def _vocabulary(
    folder: RunFolder, result: Result, config: StoredConfig, data_dir: str | None
) -> bytes:
    """The sorted bytes, from the weights' metadata; for runs older than that, from the corpus."""
    try:
        with safe_open(folder.best, framework="np") as weights:
            stored = (weights.metadata() or {}).get(VOCABULARY_KEY)
        if stored is None:
            return _corpus(result, config, data_dir).vocabulary
        vocabulary = bytes.fromhex(stored)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder.best}: unreadable ({printable(str(error))[:200]})") from None
    except UserError as error:
        raise UserError(f"{folder.best}: of a version that stored no vocabulary; {error}") from None
    except ValueError:
        raise UserError(f"{folder.best}: its vocabulary is no hexadecimal number") from None
    if not vocabulary or list(vocabulary) != sorted(set(vocabulary)):
        raise UserError(f"{folder.best}: its vocabulary is not sorted")
    return vocabulary


def _corpus(result: Result, config: StoredConfig, data_dir: str | None) -> Corpus:
    """The corpus a run's files name, if it is here: a run's files cause no download, and whether it
    is the right text, its sha256 says, not what they expect of it."""
    if (stored := config.dataset) is None:
        raise UserError(f"{result.run_id}: its configuration names no corpus")
    data_dir = data_dir or config.data_dir
    dataset = DatasetConfig(name=stored.name, source=stored.source, path=stored.path)
    if stored.source == "paper":
        file = stored.path or find(str(stored.name), data_dir)
        if file is None:
            where = data_dir or "the data folder"
            raise UserError(f"dataset {stored.name}: {stored.name}.txt is not in {where}")
        dataset.source, dataset.path = "file", str(file)
    elif stored.source == "file" and stored.path is None:
        raise UserError(f"{result.run_id}: its configuration names no corpus")
    corpus = load_corpus(dataset, data_dir)
    if corpus.sha256 != result.corpus_sha256:
        raise UserError(f"{result.run_id}: its corpus {corpus.name} is another text now")
    return corpus
