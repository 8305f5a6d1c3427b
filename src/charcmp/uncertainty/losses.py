"""Losses of single test characters: the standard errors they give, and their packed form.

A run keeps all of them (test_nll.npy, 1.3 MB on War and Peace); a published run keeps sums of
blocks (test_blocks.npz). Both give the same `LossSummary`, and so the same figures.

Shape suffixes: N test characters, R series, J base blocks of a series, K = R·J blocks, S sampled
positions.
"""

from __future__ import annotations

import io
import math
import os
import zlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from charcmp.errors import first_line
from charcmp.runs.reading import CorruptFileError, open_file, read_file
from charcmp.runs.result import Result

BLOCK_CHARS = 100
NUM_SAMPLED = 10_000
SAMPLE_SEED = 1506_02078
BLOCKS_FILE = "test_blocks.npz"
MEMBERS = {  # the arrays in that file, and their types
    "block_sums": "float32",
    "sum_of_squares": "float64",
    "block_length": "int64",
    "positions": "uint32",
    "nll_at_positions": "float16",
}
MAX_TEST_CHARS = 1 << 28  # no more losses are read: a gigabyte
MAX_BLOCKS_BYTES = 1 << 26
MAX_NPY_HEADER = 1 << 13
MEAN_TOLERANCE = 1e-3  # nats; a mean of sums kept as float32 is good to 1e-5


@dataclass(frozen=True)
class LossSummary:
    """What is needed to compute the standard errors of a mean loss."""

    block_sums_K: NDArray[np.float32]  # nats, each of `block_length` characters of one series
    sum_of_squares: float  # of the nats of single characters
    block_length: int
    num_series: int  # see the function of this name
    positions_S: NDArray[np.uint32]  # ascending
    nll_S: NDArray[np.float16]  # nats of the characters there
    rest: int = 0  # extra characters in the last block

    @property
    def num_chars(self) -> int:
        return len(self.block_sums_K) * self.block_length + self.rest

    @property
    def block_means_RJ(self) -> NDArray[np.float64]:
        """Mean nats of each base block, series by series."""
        means_K = self.block_sums_K.astype(np.float64) / self.block_length
        means_K[-1] *= self.block_length / (self.block_length + self.rest)
        return means_K.reshape(self.num_series, -1)

    @property
    def rise_at_start(self) -> float:
        """Mean nats per character of the series' first blocks minus that of the others; 0 if none.

        Evaluation starts each series from a zero state; training has one only at its first step.
        """
        means_RJ = self.block_means_RJ
        if means_RJ.shape[1] == 1:
            return 0.0
        return float(means_RJ[:, 0].mean() - means_RJ[:, 1:].mean())

    @property
    def cost_of_start(self) -> float:
        """What rise_at_start adds to the mean loss."""
        return self.rise_at_start / self.block_means_RJ.shape[1]

    @property
    def probabilities_S(self) -> NDArray[np.float64]:
        """The probabilities that the model gave the correct character at the sampled positions."""
        return np.exp(-self.nll_S.astype(np.float64))

    @property
    def sd_chars(self) -> float:
        """Bootstrap SD of the mean when single characters are resampled, as the paper does.

        In closed form: the mean of n draws with replacement has variance σ²/n, where σ² is that of
        the sample itself (divided by n, not n - 1).
        """
        mean = float(self.block_sums_K.sum(dtype=np.float64)) / self.num_chars
        variance = max(self.sum_of_squares / self.num_chars - mean**2, 0.0)
        return math.sqrt(variance / self.num_chars)


def num_series(result: Result) -> int:
    """Returns the number of series that a run's test losses form.

    The streams of `columns` lie far apart in the text, so each is a series; those of `contiguous`
    follow each other and are one.
    """
    return 1 if result.layout == "contiguous" else result.batch_size


def summarize(nll_N: NDArray[np.float32], num_series: int, unroll_steps: int) -> LossSummary:
    """Sums losses in blocks that stay within a series; see `_block_length`.

    If there is one series, the characters after its last whole block are added to that block.
    """
    block_length = _block_length(len(nll_N), num_series, unroll_steps)
    exact_N = nll_N.astype(np.float64)
    rest = len(nll_N) % block_length if num_series == 1 else 0
    starts_K = np.arange(0, len(nll_N) - rest, block_length)
    positions_S = sampled_positions(len(nll_N))
    return LossSummary(
        block_sums_K=np.add.reduceat(exact_N, starts_K).astype(np.float32),
        # Not exact_N @ exact_N, which takes 70 times as long, as it waits for BLAS's threads.
        sum_of_squares=float(np.square(exact_N).sum()),
        block_length=block_length,
        num_series=num_series,
        positions_S=positions_S,
        nll_S=nll_N[positions_S].astype(np.float16),
        rest=rest,
    )


def _block_length(num_chars: int, num_series: int, unroll_steps: int) -> int:
    """Returns 100, or the steps of a chunk if there are several series that 100 does not divide."""
    series_length = num_chars // num_series
    if num_series == 1:
        return min(BLOCK_CHARS, series_length)
    return BLOCK_CHARS if series_length % BLOCK_CHARS == 0 else unroll_steps


def read_losses(
    folder: Path, num_test_chars: int, num_series: int, unroll_steps: int
) -> LossSummary | None:
    """Returns a run's loss summary: from all its losses, else from the published sums, else None.

    Raises:
        CorruptFileError: if the file is there but is not what the run says it is.
    """
    length = _block_length(num_test_chars, num_series, unroll_steps)
    if os.path.lexists(file := folder / "test_nll.npy"):
        nll_N = read_nll(file, num_test_chars)
        _check_series(file, num_test_chars, num_series, length)
        return summarize(nll_N, num_series, unroll_steps)
    if os.path.lexists(file := folder / BLOCKS_FILE):
        return read_blocks(file, num_test_chars, num_series, length)
    return None


def check_mean(losses: LossSummary, test_nats: float, folder: Path) -> None:
    """Raises CorruptFileError if the test loss in a result is not the mean of the kept losses."""
    mean = float(losses.block_sums_K.sum(dtype=np.float64)) / losses.num_chars
    if abs(mean - test_nats) > MEAN_TOLERANCE:
        raise CorruptFileError(
            f"{folder}: result.json says {test_nats:.4f} nats per test character, but the losses "
            f"stored beside it average {mean:.4f}: one of them is not this run's"
        )


def read_nll(file: Path, num_test_chars: int) -> NDArray[np.float32]:
    """Reads the nats of every test character, float32 (N,); CorruptFileError for anything else."""
    most = 4 * min(num_test_chars, MAX_TEST_CHARS) + MAX_NPY_HEADER
    if (contents := read_file(file, most)) is None:
        raise CorruptFileError(f"{file}: no such file")
    nll_N = read_array(contents, file, "float32")
    if nll_N.shape != (num_test_chars,):
        raise CorruptFileError(f"{file}: shape {nll_N.shape}, not ({num_test_chars},)")
    _check_losses(file, nll_N)
    return nll_N


def read_array(contents: bytes, file: Path, dtype: str) -> NDArray[Any]:
    """Reads an array of at most one dimension from an .npy file, whose header is checked first.

    Args:
        contents: the bytes of the file, or of an entry of an .npz.
        file: the file to name in messages.
        dtype: the type that the array must have.

    Raises:
        CorruptFileError: if the contents are not such an array.
    """
    opened = io.BytesIO(contents)
    try:
        version = npy.read_magic(opened)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, found = read(opened, max_header_size=MAX_NPY_HEADER)
    except Exception as error:  # the header is a Python literal, whose parsers fail in many ways
        raise CorruptFileError(f"{file}: unreadable ({first_line(error)})") from None
    if found != np.dtype(dtype) or len(shape) > 1:
        raise CorruptFileError(f"{file}: shape {shape} of {found}, not one row of {dtype}")
    if math.prod(shape) * found.itemsize != len(contents) - opened.tell():
        raise CorruptFileError(f"{file}: {len(contents):,} bytes, not shape {shape} of {found}")
    return np.frombuffer(contents, found, offset=opened.tell()).reshape(shape)


def read_blocks(file: Path, num_test_chars: int, num_series: int, block_length: int) -> LossSummary:
    """Reads the published sums.

    Raises:
        CorruptFileError: if they are not of `num_test_chars` characters, or not of blocks of
            `block_length`, so that they would not stand beside those of other runs.
    """
    if (opened := open_file(file, MAX_BLOCKS_BYTES)) is None:
        raise CorruptFileError(f"{file}: no such file")
    try:
        with opened, ZipFile(opened) as packed:
            arrays = {key: _member(packed, key, file, dtype) for key, dtype in MEMBERS.items()}
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, BadZipFile, zlib.error,
            NotImplementedError) as error:  # fmt: skip
        if isinstance(error, CorruptFileError):
            raise
        raise CorruptFileError(f"{file}: unreadable ({first_line(error)})") from None
    scalars = ("sum_of_squares", "block_length")
    if any((arrays[key].ndim == 0) != (key in scalars) for key in MEMBERS):
        raise CorruptFileError(f"{file}: not the arrays of a summary")
    summary = LossSummary(
        block_sums_K=arrays["block_sums"],
        sum_of_squares=float(arrays["sum_of_squares"]),
        block_length=int(arrays["block_length"]),
        num_series=num_series,
        positions_S=arrays["positions"],
        nll_S=arrays["nll_at_positions"],
    )
    if summary.block_length != block_length:
        raise CorruptFileError(
            f"{file}: sums of {summary.block_length} characters, not of {block_length}"
        )
    rest = num_test_chars - summary.num_chars
    if num_series == 1 and 0 < rest < summary.block_length:
        summary = replace(summary, rest=rest)
    if summary.num_chars != num_test_chars:
        raise CorruptFileError(f"{file}: has {summary.num_chars} characters, not {num_test_chars}")
    num_positions, num_losses = len(summary.positions_S), len(summary.nll_S)
    if num_positions != num_losses:
        raise CorruptFileError(f"{file}: {num_losses:,} losses at {num_positions:,} positions")
    _check_series(file, num_test_chars, num_series, summary.block_length)
    if not np.array_equal(summary.positions_S, sampled_positions(num_test_chars)):
        raise CorruptFileError(f"{file}: sampled at positions other than those this version draws")
    for losses in (summary.block_sums_K, summary.nll_S, arrays["sum_of_squares"]):
        _check_losses(file, losses)
    return summary


def _member(packed: ZipFile, key: str, file: Path, dtype: str) -> NDArray[Any]:
    """Reads an array of an .npz; CorruptFileError if it is larger than published ones can be."""
    entry = packed.getinfo(f"{key}.npy")
    if entry.file_size > MAX_BLOCKS_BYTES:  # zipfile reads no more than an entry declares
        raise CorruptFileError(f"{file}: {key} unpacks to {entry.file_size:,} bytes")
    return read_array(packed.read(entry), file, dtype)


def _check_series(file: Path, num_test_chars: int, num_series: int, block_length: int) -> None:
    if num_series == 1:
        return  # a single series may have any length: its last block takes the rest
    if num_test_chars % num_series or num_test_chars // num_series % block_length:
        raise CorruptFileError(f"{file}: not {num_series} series of equal length")


def _check_losses(file: Path, losses: NDArray[Any]) -> None:
    if not np.isfinite(losses).all():
        raise CorruptFileError(f"{file}: has losses that are not finite")


@cache
def sampled_positions(num_test_chars: int) -> NDArray[np.uint32]:
    """Returns the positions whose losses are published one by one, the same for equal lengths."""
    generator = np.random.default_rng(SAMPLE_SEED)
    size = min(NUM_SAMPLED, num_test_chars)
    return np.sort(generator.choice(num_test_chars, size, replace=False)).astype(np.uint32)


def pack(nll_N: NDArray[np.float32], num_series: int, unroll_steps: int) -> bytes:
    """Returns the contents of test_blocks.npz: the same bytes for the same losses."""
    summary = summarize(nll_N, num_series, unroll_steps)
    arrays: dict[str, Any] = {
        "block_sums": summary.block_sums_K,
        "sum_of_squares": np.float64(summary.sum_of_squares),
        "block_length": np.int64(summary.block_length),
        "num_test_chars": np.int64(len(nll_N)),
        "positions": summary.positions_S,  # stored: numpy does not promise the same draw forever
        "nll_at_positions": summary.nll_S,
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
