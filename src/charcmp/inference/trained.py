"""Loads the model of a finished run, which is found by name and read as plain data.

Nothing in a run's folder is executed: weights are safetensors, configuration and result are read
as YAML and JSON, and interpolations in them are not resolved. torch is imported only by methods
that need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

from charcmp.config.schema import is_scored_whole
from charcmp.data.corpus import Corpus, Symbols, split_corpus
from charcmp.errors import UserError, first_line
from charcmp.inference.corpus import corpus_of
from charcmp.inference.find import find_run
from charcmp.models.budget import NUM_STACKS, Shape
from charcmp.models.cells.options import ModuleConfig
from charcmp.models.cells.registry import MODULE, cell_config, check_cell
from charcmp.models.cells.target import load_target
from charcmp.runs.folder import VOCABULARY_KEY, RunFolder, runs_dir
from charcmp.runs.reading import CorruptFileError, open_file, printable
from charcmp.runs.result import Result, StoredConfig, read_config
from charcmp.runs.status import run_status

if TYPE_CHECKING:
    from charcmp.data.chunks import Chunks
    from charcmp.models.language_model import CharModel

MAX_NAMED = 8  # most bytes that a message names
MAX_LOADED_PARAMS = 1 << 32
MAX_HEADER_BYTES = 1 << 20
MAX_BUFFER_BYTES = 1 << 28  # of a user's class


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished run with weights, and the bytes that its symbols stand for."""

    folder: RunFolder
    result: Result
    config: StoredConfig
    vocabulary: bytes
    module_cell: ModuleConfig | None = None  # for a run of cell=module

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
        """Encodes bytes as symbols.

        Raises:
            UserError: if the run's corpus does not have some of the bytes; names them.
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
        """Returns a text without the bytes that the run's corpus does not have."""
        return text.translate(None, bytes(set(range(256)) - set(self.vocabulary)))

    def corpus(self, data_dir: str | None = None) -> Corpus:
        """Loads the corpus that the run was trained on.

        Raises:
            UserError: if it is not on this machine, or has changed.
        """
        return corpus_of(self.folder, self.result, self.config, data_dir)

    def chunks(self, part: str, data_dir: str | None = None) -> Chunks:
        """Returns the train, val or test text, on the CPU, in an evaluation's streams and chunks.

        It is all of that text, whatever sizes the training's updates had and however much of it an
        epoch read.

        Raises:
            UserError: if the corpus is not on this machine or has changed.
        """
        import torch

        from charcmp.data.chunks import to_chunks

        result = self.result
        splits = split_corpus(
            self.corpus(data_dir),
            result.layout,
            result.split,
            result.batch_size,
            result.unroll_steps,
            scored_whole=is_scored_whole(result.protocol_version),
        )
        stream = {"train": splits.train, "val": splits.val, "test": splits.test}[part]
        device = torch.device("cpu")
        return to_chunks(stream, result.unroll_steps, device, self.right_context)

    def model(self) -> CharModel:
        """Loads the run's model with its best weights, on the CPU, dropout off.

        Sets torch to one thread: the matrix products of a single stream are too small to be shared
        between threads (on a busy machine, two threads had a tenth of the speed).

        Raises:
            UserError: if weights and configuration do not fit together.
        """
        import torch
        from safetensors.torch import load_file

        from charcmp.models.fill_in import make_model

        try:
            weights = load_file(self.folder.best)
            num_symbols, hidden_size = weights["decoder.weight"].shape
            hidden_size //= NUM_STACKS[self.task]
            count = sum(weight.numel() for weight in weights.values())
            # Checked before a model is built whose size the weights do not have. A class may have
            # buffers besides, and stores a weight with two names twice: loading is strict.
            options = dict(self.config.cell)
            name = str(options.pop("name"))
            cell = self.module_cell or cell_config(name)
            shape = Shape(cell, self.result.layers, hidden_size, num_symbols, self.task)
            wanted = shape.num_params
            if count < wanted or (count > wanted and self.module_cell is None):
                raise ValueError(f"{count:,} weights for {wanted:,} parameters")
            if num_symbols != len(self.vocabulary):
                raise ValueError(f"{num_symbols} symbols, {len(self.vocabulary)} in the vocabulary")
            if self.module_cell is None:
                shape = replace(shape, cell=cell_config(name, **options))
            model = make_model(shape, self.right_context)
            model.load_state_dict(weights)
            for key, parameter in model.named_parameters():
                if weights[key].dtype != torch.float32 or not parameter.isfinite().all():
                    raise ValueError(f"{key}: not all values are finite float32")
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = printable(first_line(error))[:200]
            raise UserError(
                f"{self.folder.best}: weights and configuration do not fit together ({reason})"
            ) from None
        torch.set_num_threads(1)
        return model.eval()


def load_trained(
    name: str, results_dir: str, data_dir: str | None = None, target: str | None = None
) -> TrainedRun:
    """Loads the finished run called `name`: see `find_run`.

    Args:
        target: the class, for a run of cell=module. What the run's files name is never imported.

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
        if not (folder.config.exists() or folder.failure.exists()):
            raise UserError(f"run={name}: {folder.path} is not a run's folder")
        status = run_status(folder)
        if status.state == "failed":
            raise UserError(f"run={name}: failed, so it has no weights: {status.reason}")
        raise UserError(
            f"run={name}: {status.state}, not finished; charcmp status shows how far it is"
        )
    if result.status == "diverged":
        raise UserError(f"run={name}: diverged, so it has no weights")
    if not folder.best.exists():
        raise UserError(
            f"run={name}: no {folder.best.name} in {folder.path} "
            "(of the published runs only those in results/weights have it)"
        )
    try:
        config = read_config(folder.config)
        if (weights := open_file(folder.best, max_weight_bytes(result))) is not None:
            weights.close()  # safetensors opens the path itself; type and size are checked now
    except CorruptFileError as error:
        raise UserError(str(error)) from None
    if config is None:
        raise UserError(f"run={name}: no {folder.config.name} in {folder.path}")
    if result.origin is not None and target is None:
        raise UserError(
            f"run={name}: its cell is the class {result.cell}; name that again, as in "
            f"target=package.{result.cell} or target=file.py:{result.cell} (charcmp never "
            "imports what a run's files name)"
        )
    if result.origin is None and target is not None:
        raise UserError(
            f"target={target}: the run's cell is charcmp's own {result.cell}, not a class"
        )
    vocabulary = _vocabulary(folder, result, config, data_dir)
    module_cell = None if target is None else _same_class(result, config, target)
    return TrainedRun(folder, result, config, vocabulary, module_cell)


def _same_class(result: Result, config: StoredConfig, target: str) -> ModuleConfig:
    """Returns the cell of a run of cell=module, made from the class that the user names.

    Raises:
        UserError: if that is not the run's class, or another version of it.
    """
    said = {key: value for key, value in result.identity.items() if key.startswith("cell.")}
    prefix = "cell.kwargs."
    # Not the identity's number, which counts the states of a class that makes its own, too.
    states = config.cell.get("states")
    cell = ModuleConfig(
        name=MODULE,
        target=target,
        kind=str(said.get("cell.kind")),
        states=states if isinstance(states, int) else None,
        init=str(said.get("cell.init", "own")),
        kwargs={key[len(prefix) :]: said[key] for key in said if key.startswith(prefix)},
    )
    check_cell(cell)
    found = load_target(target)
    for what, wanted in ((found.name, result.cell), (found.origin, result.origin)):
        if what != wanted:
            raise UserError(f"target={target}: {what}, but the run's is {wanted}")
    return cell


def max_weight_bytes(result: Result) -> int:
    """Returns the largest size that the file of weights can have: float32s, names and shapes.

    A class of the user's may also have buffers, or store a weight under several names.
    """
    others = MAX_HEADER_BYTES if result.origin is None else MAX_HEADER_BYTES + MAX_BUFFER_BYTES
    return 4 * min(result.num_params, MAX_LOADED_PARAMS) + others


def runs_with_weights(results_dir: Path, patterns: Sequence[str]) -> list[TrainedRun]:
    """Loads a results folder's finished language models whose ids match a pattern (`*-gru-*`).

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


def _vocabulary(
    folder: RunFolder, result: Result, config: StoredConfig, data_dir: str | None
) -> bytes:
    """Reads the sorted bytes from the weights' metadata; older runs lack it: from the corpus."""
    try:
        with safe_open(folder.best, framework="np") as weights:
            stored = (weights.metadata() or {}).get(VOCABULARY_KEY)
        if stored is None:
            return corpus_of(folder, result, config, data_dir).vocabulary
        vocabulary = bytes.fromhex(stored)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder.best}: unreadable ({printable(str(error))[:200]})") from None
    except UserError as error:
        raise UserError(
            f"{folder.best}: written by a version that stored no vocabulary; {error}"
        ) from None
    except ValueError:
        raise UserError(f"{folder.best}: its vocabulary is not hexadecimal") from None
    if not vocabulary or list(vocabulary) != sorted(set(vocabulary)):
        raise UserError(f"{folder.best}: its vocabulary is not sorted")
    return vocabulary
