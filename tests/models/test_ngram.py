"""N-grams: against a slow model that reads like the formulas, by hand, and against the paper."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from helpers.console import REAL_DATA, needs_corpora

from charcmp.data.corpus import Splits, Streams, corpus_from_bytes, split_corpus
from charcmp.models.ngram import (
    FALLBACK_DISCOUNTS,
    Order,
    Symbols,
    by_context,
    discounts,
    grams_of,
    nats_under,
    prune,
)
from charcmp.report.paper import REFERENCE

V = 5


def text(num_rows: int, num_columns: int, seed: int) -> Symbols:
    """Symbols of which some pairs are far more frequent than others."""
    rng = np.random.default_rng(seed)
    steps = rng.choice(V, size=(num_rows, num_columns), p=[0.5, 0.3, 0.1, 0.07, 0.03])
    return (steps.cumsum(axis=1) % V).astype(np.uint8)


TRAIN_BC, TEST_BC = text(3, 150, seed=0), text(2, 30, seed=1)


class SlowModel:
    """The formulas of ngram.py's docstring, on strings.

    Args:
        rows: of the training text.
        longest: length of the longest grams.
        kept: the grams that the model stores; all unless given.
    """

    def __init__(
        self, rows: Iterable[Sequence[int]], longest: int, kept: set[tuple[int, ...]] | None = None
    ) -> None:
        rows = [tuple(row) for row in rows]
        self.counts: dict[int, Counter[tuple[int, ...]]] = defaultdict(Counter)
        for row in rows:
            for end in range(longest, len(row) + 1):
                self.counts[longest][row[end - longest : end]] += 1
        for length in range(longest - 1, 0, -1):
            for gram, count in self.counts[length + 1].items():
                is_kept = kept is None or gram in kept
                self.counts[length][gram[1:]] += 1 if is_kept else count
            for row in rows:
                self.counts[length][row[:length]] += 1
        self.kept = {gram for counts in self.counts.values() for gram in counts}
        if kept is not None:
            self.kept = kept

    def share(self, gram: tuple[int, ...]) -> float:
        counts = self.counts[len(gram)]
        if gram not in self.kept:
            return 0.0
        total = sum(counts[(*gram[:-1], symbol)] for symbol in range(V))
        discount = discounts(np.array(list(counts.values())))[min(3, counts[gram])]
        return float(counts[gram] - discount) / total

    def p(self, symbol: int, context: tuple[int, ...]) -> float:
        lower = self.p(symbol, context[1:]) if context else 1 / V
        rest = 1 - sum(self.share((*context, other)) for other in range(V))
        return self.share((*context, symbol)) + rest * lower

    def nats(self, rows: Iterable[Sequence[int]], max_context: int) -> list[list[float]]:
        p = cache(self.p)
        return [
            [
                -np.log(p(row[place], tuple(row[max(0, place - max_context) : place])))
                for place in range(1, len(row))
            ]
            for row in np.asarray(rows).tolist()
        ]


def strings(orders: Sequence[Order]) -> set[tuple[int, ...]]:
    """The grams that a model stores."""
    found: set[tuple[int, ...]] = set()
    shorter: list[tuple[int, ...]] = [()]
    for order in orders:
        shorter = [(*shorter[key // V], key % V) for key in order.keys_G.tolist()]
        found.update(shorter)
    return found


def pruned(num_counts: int, longest: int = 4) -> list[Order]:
    return prune(list(islice(grams_of(TRAIN_BC, V), longest)), num_counts)


@pytest.mark.parametrize("context", range(5))
def test_every_order_is_the_slow_model(context: int) -> None:
    scored = list(islice(by_context(TRAIN_BC, [TEST_BC, TRAIN_BC], V), context + 1))[context]
    slow = SlowModel(TRAIN_BC.tolist(), context + 1)
    assert scored.context == context
    assert scored.num_counts == len(slow.kept)
    for rows, nats_BC in zip((TEST_BC, TRAIN_BC), scored.nats, strict=True):
        np.testing.assert_allclose(nats_BC, slow.nats(rows, context), rtol=1e-9)


def test_by_hand() -> None:
    """abab: a follows the beginning and b, b follows a; too few grams to estimate discounts from.

    p(a) = (2 - 1)/3 + 1/2 · 1/2 = 7/12, p(b) = (1 - 1/2)/3 + 1/2 · 1/2 = 5/12;
    p(b | a) = (2 - 1)/2 + 1/2 · 5/12 = 17/24, p(a | b) = (1 - 1/2)/1 + 1/2 · 7/12 = 19/24.
    """
    train = np.array([[0, 1, 0, 1]], dtype=np.uint8)
    test = np.array([[0, 1, 0, 0]], dtype=np.uint8)
    _, bigrams = islice(by_context(train, [test], 2), 2)
    np.testing.assert_allclose(np.exp(-bigrams.nats[0]), [[17 / 24, 19 / 24, 7 / 24]])
    assert bigrams.num_counts == 4  # a, b, ab, ba


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # n1 = 4, n2 = 2, n3 = 2, n4 = 1: Y = 4/8, D1 = 1 - 2·2/4/2, D2 = 2 - 3/2, D3+ = 3 - 4/4
        ([1, 1, 1, 1, 2, 2, 3, 3, 4, 9], (0, 0.5, 0.5, 2.0)),
        ([1, 1, 2, 5], (0, *FALLBACK_DISCOUNTS)),  # no gram occurs three times
        ([1, 2, 3, 3, 3, 3], (0, *FALLBACK_DISCOUNTS)),  # D2 = 2 - 3/3·4 would be below 0
        ([], (0, *FALLBACK_DISCOUNTS)),
    ],
)
def test_discounts(counts: list[int], expected: tuple[float, ...]) -> None:
    assert discounts(np.array(counts, dtype=np.int64)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("num_counts", [1, 3, 10, 60, 10_000])
def test_probabilities_sum_to_one(num_counts: int) -> None:
    """After every context of up to four characters that the test text has, known or not."""
    orders = pruned(num_counts)
    for length in range(1, 5):
        contexts = np.lib.stride_tricks.sliding_window_view(TEST_BC, length, axis=1)
        rows = contexts.reshape(-1, length).repeat(V, axis=0)
        nexts = np.tile(np.arange(V, dtype=np.uint8), len(rows) // V)[:, np.newaxis]
        nats = nats_under(orders, np.hstack([rows, nexts]), V)[:, -1]
        np.testing.assert_allclose(np.exp(-nats).reshape(-1, V).sum(axis=1), 1)


@pytest.mark.parametrize("num_counts", [1, 10, 60, 200])
def test_a_pruned_model_is_the_slow_model_of_its_grams(num_counts: int) -> None:
    orders = pruned(num_counts)
    kept = strings(orders)
    assert len(kept) == num_counts
    assert all(gram[:-1] in kept for gram in kept if len(gram) > 1)
    slow = SlowModel(TRAIN_BC.tolist(), 4, kept)
    np.testing.assert_allclose(nats_under(orders, TEST_BC, V), slow.nats(TEST_BC, 3), rtol=1e-9)


def test_with_room_for_all_counts_nothing_is_pruned() -> None:
    unpruned = list(islice(by_context(TRAIN_BC, [TEST_BC], V), 4))[3]
    orders = pruned(unpruned.num_counts)
    assert len(strings(orders)) == unpruned.num_counts
    np.testing.assert_allclose(nats_under(orders, TEST_BC, V), unpruned.nats[0], rtol=1e-9)


def test_the_most_valuable_grams_are_kept() -> None:
    """After b comes a alone, and otherwise all symbols alike: what to store is `ba`."""
    rng = np.random.default_rng(0)
    symbols = rng.integers(1, V, size=2000)
    row = np.array([part for symbol in symbols for part in ((1, 0) if symbol == 1 else (symbol,))])
    orders = prune(list(islice(grams_of(row[np.newaxis].astype(np.uint8), V), 3)), 7)
    assert (1, 0) in strings(orders)


# On the paper's corpus.


def wp() -> Splits:
    corpus = corpus_from_bytes("wp", (Path(REAL_DATA) / "wp.txt").read_bytes())
    return split_corpus(corpus, "columns", [80.0, 10.0, 10.0], 100, 100)


def rows_of(streams: Streams) -> Symbols:
    return np.concatenate([streams.x_BC[:, :1], streams.y_BC], axis=1)


@needs_corpora
def test_the_papers_table_2() -> None:
    """Contexts of 1 to 9 characters on War and Peace; and with few counts, no more than stated."""
    splits = wp()
    lines = [line.split(",") for line in (REFERENCE / "table2_ngram.csv").read_text().splitlines()]
    papers = {int(line[1]): float(line[2]) for line in lines if line[0] == "wp"}
    ours = islice(by_context(rows_of(splits.train), [rows_of(splits.test)], 87), 10)
    for scored in ours:
        if scored.context:
            nats = splits.test.scored(scored.nats[0]).mean()
            assert nats == pytest.approx(papers[scored.context], abs=0.005)
    orders = prune(list(islice(grams_of(rows_of(splits.train), 87), 6)), 44_823)
    assert sum(len(order.keys_G) for order in orders) == 44_823
    assert nats_under(orders, rows_of(splits.test), 87).mean() == pytest.approx(1.349, abs=0.001)
