"""A corpus as symbols, and its split into the streams that a model is trained and tested on.

Shape suffixes: N characters, B streams (the batch), C columns, T steps of a chunk.
"""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from charcmp.errors import UserError

Symbols = NDArray[np.uint8]
Value = TypeVar("Value", bound=np.generic)

PAPER_SIZE = 100  # streams of a batch, and steps of a chunk
MIN_UPDATES = 20  # per epoch; where the paper's sizes would leave fewer, they shrink
MIN_CHARS = 1000  # of a contiguous text; by default a tenth of it is test text
# Read before the scored characters. Without context, a model's loss is far above its usual level
# for some 80 characters (LOG.md, "War and Peace, 130k, seed 0").
WARM_UP_CHARS = 200


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as indices into its vocabulary, the sorted distinct bytes."""

    name: str
    symbols_N: Symbols
    vocabulary: bytes
    sha256: str
    note: str | None = None  # what a reader of the results must know: it is a stand-in

    @property
    def num_chars(self) -> int:
        return len(self.symbols_N)

    @property
    def num_symbols(self) -> int:
        return len(self.vocabulary)

    def record(self) -> dict[str, Any]:
        """Returns what is stored about the corpus with each run."""
        return {
            "name": self.name,
            "num_chars": self.num_chars,
            "num_symbols": self.num_symbols,
            "sha256": self.sha256,
            "note": self.note,
        }


def corpus_from_bytes(name: str, text: bytes, note: str | None = None) -> Corpus:
    """Encodes a text. A character is a byte, as in the paper's code.

    Raises:
        UserError: if the text is empty or a single byte repeated.
    """
    if not text:
        raise UserError(f"{name}: the file is empty")
    bytes_N = np.frombuffer(text, dtype=np.uint8)
    present = np.zeros(256, dtype=bool)
    present[bytes_N] = True  # not bincount, which converts each byte to an int64
    if present.sum() < 2:
        raise UserError(f"{name}: a single distinct byte; there is nothing to predict")
    index_of_byte = (np.cumsum(present) - 1).astype(np.uint8)
    return Corpus(
        name=name,
        symbols_N=index_of_byte[bytes_N],
        vocabulary=bytes(np.flatnonzero(present).astype(np.uint8)),
        sha256=hashlib.sha256(text).hexdigest(),
        note=note,
    )


@dataclass(frozen=True, eq=False)
class Streams:
    """B streams of text, read in parallel: y is what follows x, character by character."""

    x_BC: Symbols
    y_BC: Symbols
    warm_up: int = 0  # columns at the beginning that are read, but not scored
    num_scored: int | None = None  # of the remaining ones, taken stream after stream; None: all

    @property
    def num_chars(self) -> int:
        """Characters that are scored."""
        return self.x_BC.size if self.num_scored is None else self.num_scored

    def num_chunks(self, unroll_steps: int) -> int:
        return self.x_BC.shape[1] // unroll_steps

    def scored(self, values_BC: NDArray[Value]) -> NDArray[Value]:
        """Returns the values of the scored characters of y, (num_chars,), stream after stream."""
        return values_BC[:, self.warm_up :].flatten()[: self.num_chars]

    def in_streams(self, num_streams: int) -> Streams:
        """Returns the same text as fewer, longer streams; `num_streams` must divide their number.

        Streams that lie far apart in the text (`columns`) are then joined at a seam.
        """
        x, y = (part.reshape(num_streams, -1) for part in (self.x_BC, self.y_BC))
        return Streams(x, y, self.warm_up, self.num_scored)


@dataclass(frozen=True)
class Splits:
    """Training, validation and test text, each as streams (B, C); C is a multiple of unroll_steps.

    All have the same B, except that a text that is scored whole may have fewer (see `_to_score`).
    """

    train: Streams
    val: Streams
    test: Streams

    def num_chunks(self, unroll_steps: int) -> int:
        """Returns the number of chunks in each stream of the shortest part."""
        parts = (self.train, self.val, self.test)
        return min(part.num_chunks(unroll_steps) for part in parts)


def split_corpus(
    corpus: Corpus,
    layout: str,
    percent: list[float],
    batch_size: int,
    unroll_steps: int,
    min_chunks: int = 1,
    scored_whole: bool = False,
) -> Splits:
    """Cuts a corpus into training, validation and test text.

    Args:
        layout: "columns", the paper's: the text as `batch_size` streams, each cut into chunks of
            `unroll_steps`, the first chunks of every stream for training, the next for
            validation, the rest for test. "contiguous": the beginning, the next part and the end
            of the text, each then laid out as streams.
        percent: of train, validation and test; chunks (or characters) are floored, test is the
            rest.
        min_chunks: how many every stream of every part must have: 2 for a fill-in model, which
            reads beyond the edge of every chunk but the last.
        scored_whole: for "contiguous": score every character of validation and test text, after a
            warm-up (see `_to_score`). Otherwise they are cut like training text.

    Raises:
        UserError: if a part would be shorter than that, or a text scored whole than MIN_CHARS.
    """
    shares = [Fraction(str(part)) / 100 for part in percent]
    is_contiguous = layout == "contiguous"
    if scored_whole and corpus.num_chars < MIN_CHARS:
        raise UserError(
            f"{corpus.name}: {corpus.num_chars:,} characters are too few to learn from and to be "
            f"tested on; at least {MIN_CHARS:,} are needed"
        )

    def cut(batch_size: int, unroll_steps: int) -> Splits | None:
        layout_of = partial(_contiguous, scored_whole=scored_whole) if is_contiguous else _columns
        splits = layout_of(corpus.symbols_N, shares, batch_size, unroll_steps)
        return splits if splits and splits.num_chunks(unroll_steps) >= min_chunks else None

    splits = cut(batch_size, unroll_steps)
    if splits is None:
        raise UserError(_too_short(corpus, cut, batch_size, unroll_steps, min_chunks))
    return splits


def _shifted(symbols_N: Symbols, start: int, length: int) -> Symbols:
    """Returns the character after each of [start, start + length); after the last, the first."""
    stop = start + length + 1
    if stop <= len(symbols_N):
        return symbols_N[start + 1 : stop]
    return np.append(symbols_N[start + 1 :], symbols_N[:1])


def num_train_chars(
    num_chars: int, layout: str, percent: list[float], batch_size: int, unroll_steps: int
) -> int:
    """Returns how many characters of a corpus of `num_chars` `split_corpus` gives to training."""
    chunk = batch_size * unroll_steps
    if layout == "columns":
        return training_part(num_chars // chunk, percent) * chunk
    return training_part(num_chars, percent) // chunk * chunk


def training_part(whole: int, percent: list[float]) -> int:
    """Returns how many of `whole` characters or chunks are for training."""
    return int(whole * Fraction(str(percent[0])) / 100)


def _columns(
    symbols_N: Symbols, shares: list[Fraction], batch_size: int, unroll_steps: int
) -> Splits | None:
    num_chunks = len(symbols_N) // (batch_size * unroll_steps)
    num_train, num_val = (int(num_chunks * share) for share in shares[:2])
    num_test = num_chunks - num_train - num_val
    if min(num_train, num_val, num_test) < 1:
        return None
    length = num_chunks * batch_size * unroll_steps
    x_BC = symbols_N[:length].reshape(batch_size, -1)
    y_BC = _shifted(symbols_N, 0, length).reshape(batch_size, -1)
    edges = [0, num_train * unroll_steps, (num_train + num_val) * unroll_steps, x_BC.shape[1]]
    return Splits(*(Streams(x_BC[:, a:b], y_BC[:, a:b]) for a, b in itertools.pairwise(edges)))


def _contiguous(
    symbols_N: Symbols,
    shares: list[Fraction],
    batch_size: int,
    unroll_steps: int,
    scored_whole: bool,
) -> Splits | None:
    num_train, num_val = (int(len(symbols_N) * share) for share in shares[:2])
    edges = [0, num_train, num_train + num_val, len(symbols_N)]
    parts: list[Streams] = []
    for start, stop in itertools.pairwise(edges):
        if parts and scored_whole:
            if start == stop:
                return None
            parts.append(_to_score(symbols_N, start, stop, batch_size, unroll_steps))
            continue
        num_chunks = (stop - start) // (batch_size * unroll_steps)
        if num_chunks < 1:
            return None
        length = num_chunks * batch_size * unroll_steps
        x_BC = symbols_N[start : start + length].reshape(batch_size, -1)
        parts.append(Streams(x_BC, _shifted(symbols_N, start, length).reshape(batch_size, -1)))
    return Splits(*parts)


def _to_score(
    symbols_N: Symbols, start: int, stop: int, batch_size: int, unroll_steps: int
) -> Streams:
    """Lays out the characters [start, stop), each scored once, in up to `batch_size` streams.

    Each stream begins with at least WARM_UP_CHARS of the text before it. They are read but not
    scored, so that a model that starts from a zero state has settled when scoring begins. For the
    first stream they are the end of the preceding part. The last stream may have fewer characters
    to score than the others; it is padded after the last of them.
    """
    num_scored = stop - start
    num_streams = max(1, min(batch_size, num_scored // WARM_UP_CHARS))
    length = -(-num_scored // num_streams)
    num_streams = -(-num_scored // length)
    num_columns = -(-(WARM_UP_CHARS + length) // unroll_steps) * unroll_steps
    warm_up = num_columns - length
    first_B1 = start - warm_up + length * np.arange(num_streams)[:, np.newaxis]
    # Beyond either end the outermost character is repeated.
    places_BC = (first_B1 + np.arange(num_columns)).clip(0, stop - 1)
    y_BC = symbols_N[(places_BC + 1) % len(symbols_N)]
    return Streams(symbols_N[places_BC], y_BC, warm_up, num_scored)


def fitting_sizes(
    num_train_chars: int,
    batch_size: int | None,
    unroll_steps: int | None,
    most_streams: int = PAPER_SIZE,
    most_steps: int = PAPER_SIZE,
) -> tuple[int, int]:
    """Returns the batch size and the unroll steps for so much contiguous text.

    Sizes that are given stay. The others are at most `most_streams` and `most_steps`, and shrink
    until an epoch has MIN_UPDATES updates: first the batch, then the steps.
    """
    steps = unroll_steps or most_steps
    if batch_size is None:
        batch_size = max(1, min(most_streams, num_train_chars // (steps * MIN_UPDATES)))
    if unroll_steps is None:
        steps = max(1, min(most_steps, num_train_chars // (batch_size * MIN_UPDATES)))
    return batch_size, steps


def _too_short(
    corpus: Corpus,
    cut: Callable[[int, int], Splits | None],
    batch_size: int,
    unroll_steps: int,
    min_chunks: int,
) -> str:
    fill, chunks = ("", "one chunk") if min_chunks == 1 else ("task=fill ", f"{min_chunks} chunks")
    complaint = (
        f"{corpus.name}: {corpus.num_chars:,} characters are too few for "
        f"{fill}batch_size={batch_size} unroll_steps={unroll_steps}, which need at least {chunks} "
        f"of {batch_size * unroll_steps:,} characters in each of train, validation and test"
    )

    def fails(steps: int, size: int) -> bool:
        return cut(size, steps) is None

    for steps in (unroll_steps, 20, 5, 1):
        if steps > unroll_steps:
            continue
        # If a batch works, all smaller ones do: their streams are longer.
        sizes = range(1, min(batch_size, corpus.num_chars) + 1)
        largest = bisect_left(sizes, True, key=partial(fails, steps))
        if largest > 0:
            also = "" if steps == unroll_steps else f" unroll_steps={steps}"
            return f"{complaint}; batch_size={largest}{also} works"
    return f"{complaint}; no batch size works on so short a text"
