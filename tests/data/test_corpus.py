"""Vocabulary and split, against hand-made examples and the counts of the real corpora."""

import time

import numpy as np
import pytest
import torch
from helpers.console import REAL_DATA, needs_corpora

from charcmp.data.chunks import to_chunks
from charcmp.data.corpus import (
    WARM_UP_CHARS,
    corpus_from_bytes,
    fitting_sizes,
    num_train_chars,
    split_corpus,
)
from charcmp.errors import UserError


def text_of(corpus, rows_BC) -> list[str]:
    return ["".join(chr(corpus.vocabulary[s]) for s in row) for row in rows_BC]


def test_vocabulary_is_the_sorted_distinct_bytes() -> None:
    corpus = corpus_from_bytes("x", b"banana\r\n\xef")
    assert corpus.vocabulary == b"\n\rabn\xef"
    assert corpus.symbols_N.tolist() == [3, 2, 4, 2, 4, 2, 1, 0, 5]


def test_columns_by_hand() -> None:
    # 42 characters, 2 rows x 5 chunks of 4 columns; the tail of 2 is cut off.
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP"
    corpus = corpus_from_bytes("x", letters)
    splits = split_corpus(corpus, "columns", [60, 20, 20], batch_size=2, unroll_steps=4)
    assert text_of(corpus, splits.train.x_BC) == ["abcdefghijkl", "uvwxyzABCDEF"]
    assert text_of(corpus, splits.train.y_BC) == ["bcdefghijklm", "vwxyzABCDEFG"]
    assert text_of(corpus, splits.val.x_BC) == ["mnop", "GHIJ"]
    assert text_of(corpus, splits.test.x_BC) == ["qrst", "KLMN"]
    # A row's last target is the next row's first character; the last of all, the text's next.
    assert text_of(corpus, splits.test.y_BC) == ["rstu", "LMNO"]


def test_the_same_text_in_fewer_rows() -> None:
    corpus = corpus_from_bytes("x", b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP")
    train = split_corpus(corpus, "columns", [60, 20, 20], batch_size=2, unroll_steps=4).train
    assert text_of(corpus, train.in_streams(1).x_BC) == ["abcdefghijkluvwxyzABCDEF"]
    assert text_of(corpus, train.in_streams(1).y_BC) == ["bcdefghijklmvwxyzABCDEFG"]
    chunks = to_chunks(train.in_streams(1), 3, torch.device("cpu"))
    assert len(chunks) == 8
    assert text_of(corpus, chunks.x_KTB[:, :, 0])[:2] == ["abc", "def"]


def test_columns_wrap_to_the_first_character_where_no_text_is_left() -> None:
    corpus = corpus_from_bytes("x", b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN")
    splits = split_corpus(corpus, "columns", [60, 20, 20], batch_size=2, unroll_steps=4)
    assert text_of(corpus, splits.test.y_BC) == ["rstu", "LMNa"]


def test_contiguous_by_hand() -> None:
    corpus = corpus_from_bytes("x", b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP")
    splits = split_corpus(corpus, "contiguous", [60, 20, 20], batch_size=2, unroll_steps=4)
    # 42 characters: 25 to train on, 8 for validation, 9 to test on; each cut to whole batches.
    assert text_of(corpus, splits.train.x_BC) == ["abcdefghijkl", "mnopqrstuvwx"]
    assert text_of(corpus, splits.train.y_BC) == ["bcdefghijklm", "nopqrstuvwxy"]
    assert text_of(corpus, splits.val.x_BC) == ["zABC", "DEFG"]
    assert text_of(corpus, splits.test.x_BC) == ["HIJK", "LMNO"]
    assert text_of(corpus, splits.test.y_BC) == ["IJKL", "MNOP"]


@pytest.mark.parametrize("layout", ["columns", "contiguous"])
@pytest.mark.parametrize("num_chars", [1000, 1234, 4099])
@pytest.mark.parametrize("percent", [[80.0, 10.0, 10.0], [33.3, 33.3, 33.4]], ids=str)
def test_the_length_of_the_training_text(layout: str, num_chars: int, percent: list[float]) -> None:
    corpus = corpus_from_bytes("x", bytes(number % 7 for number in range(num_chars)))
    splits = split_corpus(corpus, layout, percent, 3, 10)
    assert num_train_chars(num_chars, layout, percent, 3, 10) == splits.train.num_chars


def test_no_character_is_in_two_parts() -> None:
    corpus = corpus_from_bytes("x", bytes(range(256)) * 64)
    position = np.arange(corpus.num_chars)
    for layout in ("columns", "contiguous"):
        marked = corpus_from_bytes("x", bytes(range(256)) * 64)
        object.__setattr__(marked, "symbols_N", position)
        splits = split_corpus(marked, layout, [80, 10, 10], batch_size=10, unroll_steps=13)
        parts = [set(s.x_BC.ravel().tolist()) for s in (splits.train, splits.val, splits.test)]
        assert sum(map(len, parts)) == len(set.union(*parts))
        for stream in (splits.train, splits.val, splits.test):
            following = (stream.x_BC.ravel() + 1) % corpus.num_chars
            assert np.array_equal(stream.y_BC.ravel(), following)


def advised(corpus, layout: str, batch_size: int, unroll_steps: int) -> tuple[int, int] | None:
    """The batch size and the steps that the error on too short a text names."""
    with pytest.raises(UserError, match="too few") as caught:
        split_corpus(corpus, layout, [80, 10, 10], batch_size, unroll_steps)
    words = str(caught.value).split("; ")[-1].split()
    if words[-1] != "works":
        return None
    sizes = dict(word.split("=") for word in words[:-1])
    return int(sizes["batch_size"]), int(sizes.get("unroll_steps", unroll_steps))


@pytest.mark.parametrize("layout", ["columns", "contiguous"])
@pytest.mark.parametrize("num_chars", [10, 57, 530, 2500])
def test_too_short_names_the_largest_batch_that_works(layout: str, num_chars: int) -> None:
    corpus = corpus_from_bytes("short", bytes(number % 7 for number in range(num_chars)))
    found = advised(corpus, layout, num_chars, 30)
    assert found is not None
    batch_size, steps = found
    split_corpus(corpus, layout, [80, 10, 10], batch_size, steps)
    larger = advised(corpus, layout, batch_size + 1, steps)
    assert larger == (batch_size, steps)


def test_too_short_for_a_batch_as_long_as_the_text() -> None:
    """The answer takes some cuts of the text, not one for each size of a batch."""
    corpus = corpus_from_bytes("short", b"abcdefghij" * 2_000_000)
    begun = time.process_time()
    assert advised(corpus, "columns", corpus.num_chars, 100) == (20_000, 100)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"", "empty"), (b"aaaa", "single distinct byte"), (b"ab", "no batch size")],
)
def test_hopeless_texts(text: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_corpus(corpus_from_bytes("x", text), "columns", [80, 10, 10], 100, 100)


@needs_corpora
@pytest.mark.parametrize(
    ("name", "percent", "num_symbols", "chunks"),
    [("wp", [80, 10, 10], 87, (260, 32, 33)), ("lk", [90, 5, 5], 101, (558, 31, 31))],
)
def test_real_corpora(name: str, percent, num_symbols: int, chunks) -> None:
    corpus = corpus_from_bytes(name, (REAL_DATA / f"{name}.txt").read_bytes())
    assert corpus.num_symbols == num_symbols
    splits = split_corpus(corpus, "columns", percent, 100, 100)
    assert tuple(s.num_chunks(100) for s in (splits.train, splits.val, splits.test)) == chunks


@pytest.mark.parametrize("num_chars", [1000, 1_500, 4_099, 30_000, 150_000])
@pytest.mark.parametrize(("batch_size", "unroll_steps"), [(1, 60), (7, 10), (100, 100)])
def test_contiguous_text_is_scored_whole_after_a_warm_up(
    num_chars: int, batch_size: int, unroll_steps: int
) -> None:
    text = np.random.default_rng(num_chars).integers(97, 123, num_chars, dtype=np.uint8)
    corpus = corpus_from_bytes("x", text.tobytes())
    try:
        splits = split_corpus(
            corpus, "contiguous", [80, 10, 10], batch_size, unroll_steps, scored_whole=True
        )
    except UserError:
        assert batch_size * unroll_steps > 0.8 * num_chars  # no chunk to train on
        return
    num_train, num_val = int(0.8 * num_chars), int(0.1 * num_chars)
    followers = np.append(corpus.symbols_N[1:], corpus.symbols_N[0])
    for part, start, stop in (
        (splits.val, num_train, num_train + num_val),
        (splits.test, num_train + num_val, num_chars),
    ):
        assert part.num_chars == stop - start
        chunks = to_chunks(part, unroll_steps, torch.device("cpu"))
        # Each character once, in the order of the text.
        assert chunks.scored(chunks.x_KTB).tolist() == corpus.symbols_N[start:stop].tolist()
        assert chunks.scored(chunks.y_KTB).tolist() == followers[start:stop].tolist()
        assert part.warm_up >= WARM_UP_CHARS
        length = part.x_BC.shape[1] - part.warm_up
        for row, x_C in enumerate(part.x_BC):
            first = start + row * length  # before it, the very text that stands there
            before = corpus.symbols_N[max(0, first - part.warm_up) : first]
            assert x_C[part.warm_up - len(before) : part.warm_up].tolist() == before.tolist()


def test_sizes_that_fit_a_text() -> None:
    assert fitting_sizes(200_000, None, None) == (100, 100)
    assert fitting_sizes(120_000, None, None) == (60, 100)
    assert fitting_sizes(1_200, None, None) == (1, 60)
    assert fitting_sizes(1_200, 100, None) == (100, 1)  # what is given stays
    assert fitting_sizes(1_200, 100, 100) == (100, 100)


def test_a_text_below_the_minimum_is_told_what_is_needed() -> None:
    corpus = corpus_from_bytes("x", b"ab" * 450)
    with pytest.raises(UserError, match=r"900 characters are too few .* at least 1,000 are needed"):
        split_corpus(corpus, "contiguous", [80, 10, 10], 1, 10, scored_whole=True)
