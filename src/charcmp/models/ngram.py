"""Interpolated modified Kneser-Ney n-grams of characters (Chen & Goodman 1999, section 3).

A gram is a string of characters that occurs in the training text. The grams of one length are
numbered in the order of (number of the gram without its last character, last character). An int64,
the key, packs this pair, so a binary search in the sorted keys finds a gram; no string is stored.

The probability of character w after context h, whose number is that of the gram h:

    p(w | h) = share(hw) + rest(h) p(w | h')        h' is h without its first character
    share(hw) = (c(hw) - D(c(hw))) / sum_v c(hv)    rest(h) = 1 - sum_v share(hv)

D is one of three discounts. c counts occurrences for the longest grams; for shorter ones it counts
the distinct characters that stand before the gram. Below single characters, p is uniform.

Shape suffixes: B streams of text side by side, C characters of a stream, G grams of one length,
H grams that are one character shorter, which are the contexts of those G.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# For texts with too few rare grams to estimate discounts from. KenLM falls back to these, too.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
# Each pass of `prune` chooses again, under the model that the last choice led to. On War and Peace
# (44,823 counts, 5 characters of context) the passes reach 1.393, 1.362, 1.357 and 1.354 validation
# nats; more passes gain nothing.
PRUNING_PASSES = 4


@dataclass(frozen=True, eq=False)
class Grams:
    """All grams of one length in a text."""

    num_symbols: int
    keys_G: Integers  # sorted: number of the context * num_symbols + last character
    suffixes_G: Integers  # number of the gram without its first character
    counts_G: Integers  # how often it occurs
    starts_G: Integers  # how often at the beginning of a stream, with no character before it

    def __len__(self) -> int:
        return len(self.keys_G)

    @property
    def contexts_G(self) -> Integers:
        return self.keys_G // self.num_symbols


def grams_of(text_BC: Symbols, num_symbols: int) -> Iterator[Grams]:
    """Yields the grams of length 1, 2, ... up to C. None crosses the edge of a stream."""
    # Numbers of the strings that end before each character; at first these are empty.
    ids_BC: Integers = np.zeros((len(text_BC), text_BC.shape[1] + 1), dtype=np.int64)
    for length in range(1, text_BC.shape[1] + 1):
        keys_BC: Integers = ids_BC[:, :-1] * num_symbols + text_BC[:, length - 1 :]
        keys_G, ids, counts_G = np.unique(keys_BC, return_inverse=True, return_counts=True)
        suffixes_BC, ids_BC = ids_BC[:, 1:], ids.reshape(keys_BC.shape)
        suffixes_G = np.empty_like(keys_G)
        suffixes_G[ids_BC] = suffixes_BC
        starts_G = np.bincount(ids_BC[:, 0], minlength=len(keys_G))
        yield Grams(num_symbols, keys_G, suffixes_G, counts_G, starts_G)


@dataclass(frozen=True, eq=False)
class Order:
    """What the grams of one length say about the character after a context."""

    keys_G: Integers
    shares_G: Floats
    rests_H: Floats  # what is left to shorter contexts; 1 if no gram continues the context


def discounts(counts_G: Integers) -> Floats:
    """Returns (0, D1, D2, D3+), what to subtract from counts of 0, 1, 2, and 3 or more.

    Chen & Goodman 1999, equation 17, which uses how many grams have each of the counts 1 to 4.
    """
    n1, n2, n3, n4 = np.bincount(counts_G.clip(max=5), minlength=5)[1:5].tolist()
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        if all(0 < discount < count for discount, count in zip(found, (1, 2, 3), strict=True)):
            return np.array([0, *found])
    return np.array([0, *FALLBACK_DISCOUNTS])


def rests(contexts_G: Integers, shares_G: Floats, num_contexts: int) -> Floats:
    """Returns what the shares leave over in each context, (H,)."""
    taken_H = np.bincount(contexts_G, shares_G, minlength=num_contexts)
    return np.asarray(1 - taken_H, dtype=np.float64)


def make_order(grams: Grams, counts_G: Integers, num_contexts: int) -> Order:
    """Returns the order of grams with these counts, which need not be their occurrences."""
    contexts_G = grams.contexts_G
    totals_H = np.bincount(contexts_G, counts_G, minlength=num_contexts)
    remaining_G = counts_G - discounts(counts_G)[counts_G.clip(max=3)]
    shares_G = remaining_G / totals_H[contexts_G]
    return Order(grams.keys_G, shares_G, rests(contexts_G, shares_G, num_contexts))


def lower_counts(shorter: Grams, longer: Grams, passed_G: Integers | None = None) -> Integers:
    """Returns Kneser-Ney's counts of the shorter grams.

    Args:
        shorter: the grams to count.
        longer: those with one more character in front. Each adds 1 to its suffix, so that a gram
            counts the distinct characters before it, plus its occurrences at the beginning of a
            stream.
        passed_G: what each longer gram adds instead of 1.
    """
    passed = np.bincount(longer.suffixes_G, passed_G, minlength=len(shorter))
    return passed.astype(np.int64) + shorter.starts_G


class Reading:
    """A text's probabilities under a model that grows order by order, the shortest grams first.

    Args:
        text_BC: streams of text. The context of a character stays within its stream.
    """

    def __init__(self, text_BC: Symbols, num_symbols: int) -> None:
        self.text_BC = text_BC
        self.num_symbols = num_symbols
        self.probabilities_BC = np.full(text_BC.shape, 1 / num_symbols)
        self.contexts_BC = np.zeros(text_BC.shape, dtype=np.int64)  # -1: not in the training text
        self.grams_BC = self.contexts_BC  # the same for the gram that ends with each character

    def find(self, keys_G: Integers) -> None:
        """Looks up the gram that ends with each character, for `with_order` and `take_in`."""
        keys_BC = self.contexts_BC * self.num_symbols + self.text_BC
        places_BC = np.searchsorted(keys_G, keys_BC).clip(max=len(keys_G) - 1)
        is_there = (keys_G[places_BC] == keys_BC) & (self.contexts_BC >= 0)
        self.grams_BC = np.where(is_there, places_BC, -1)

    def with_order(self, order: Order) -> Floats:
        """Returns the probability of each character with this order added, (B, C)."""
        shares_BC = np.where(self.grams_BC >= 0, order.shares_G[self.grams_BC], 0)
        rests_BC = np.where(self.contexts_BC >= 0, order.rests_H[self.contexts_BC], 1)
        return shares_BC + rests_BC * self.probabilities_BC

    def take_in(self, order: Order) -> None:
        """Adds this order to the model; the contexts become one character longer."""
        self.probabilities_BC = self.with_order(order)
        self.contexts_BC = np.full_like(self.grams_BC, -1)
        self.contexts_BC[:, 1:] = self.grams_BC[:, :-1]


def nats_of(probabilities_BC: Floats) -> Floats:
    """Returns nats of each character but the first of each stream, (B, C - 1)."""
    return -np.log(probabilities_BC[:, 1:])


def nats_under(orders: Sequence[Order], text_BC: Symbols, num_symbols: int) -> Floats:
    """Returns nats of each character but the first of each stream under a model, (B, C - 1)."""
    reading = Reading(text_BC, num_symbols)
    for order in orders:
        reading.find(order.keys_G)
        reading.take_in(order)
    return nats_of(reading.probabilities_BC)


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores on several texts of the model with contexts of up to `context` characters."""

    context: int
    num_counts: int  # grams of all lengths: what the model stores
    nats: list[Floats]  # of each text, (B, C - 1)


def by_context(train_BC: Symbols, texts: Sequence[Symbols], num_symbols: int) -> Iterator[Scored]:
    """Scores the unpruned models with contexts of 0, 1, 2, ... characters.

    Each shares all orders but its last with the models after it, so all of them together cost
    little more than the largest alone.
    """
    readings = [Reading(text_BC, num_symbols) for text_BC in texts]
    num_counts, num_contexts = 0, 1
    lengths = itertools.pairwise(grams_of(train_BC, num_symbols))
    for context, (grams, longer) in enumerate(lengths):
        num_counts += len(grams)
        longest = make_order(grams, grams.counts_G, num_contexts)
        inner = make_order(grams, lower_counts(grams, longer), num_contexts)
        nats = []
        for reading in readings:
            reading.find(grams.keys_G)
            nats.append(nats_of(reading.with_order(longest)))
            reading.take_in(inner)
        yield Scored(context, num_counts, nats)
        num_contexts = len(grams)


def prune(lengths: Sequence[Grams], num_counts: int) -> list[Order]:
    """Returns a model of the `num_counts` most valuable grams, or of all if there are fewer.

    A gram's value is the log-likelihood that the training text loses without it (the weighted
    difference of Seymore & Rosenfeld 1996). A pruned gram's whole count is added to its suffix, not
    just 1 (revised Kneser pruning: Siivola, Hirsimäki & Virpioja 2007), and the model is fitted
    again.

    Args:
        lengths: the grams of length 1, 2, ..., without a gap.
        num_counts: at least 1.
    """
    kept = [np.ones(len(grams), dtype=np.bool_) for grams in lengths]
    for _ in range(PRUNING_PASSES):
        values = _values(lengths, _fit(lengths, kept), kept)
        kept = _most_valuable(lengths, values, num_counts)
    return _without_the_rest(lengths, _fit(lengths, kept), kept)


def _num_contexts(lengths: Sequence[Grams]) -> list[int]:
    """Returns the number of contexts for each length; single characters have one, the empty one."""
    return [1, *map(len, lengths[:-1])]


def _fit(lengths: Sequence[Grams], kept: Sequence[Flags]) -> list[Order]:
    """Returns the orders of all grams; those not kept get the share that each would have."""
    counts = [lengths[-1].counts_G]
    for shorter, longer, is_kept_G in reversed(
        list(zip(lengths, lengths[1:], kept[1:], strict=False))
    ):
        passed_G = np.where(is_kept_G, 1, counts[0])
        counts.insert(0, lower_counts(shorter, longer, passed_G))
    return [
        make_order(*of_length)
        for of_length in zip(lengths, counts, _num_contexts(lengths), strict=True)
    ]


def _values(
    lengths: Sequence[Grams], orders: Sequence[Order], kept: Sequence[Flags]
) -> list[Floats]:
    """Returns the nats of training text that each gram saves, or would save if it were kept."""
    values = []
    lower_H = np.full(1, 1 / lengths[0].num_symbols)  # by suffix: p of its last character
    for grams, order, is_kept_G in zip(lengths, orders, kept, strict=True):
        contexts_G, shares_G = grams.contexts_G, order.shares_G
        kept_shares_G = np.where(is_kept_G, shares_G, 0)
        rests_G = rests(contexts_G, kept_shares_G, len(order.rests_H))[contexts_G]
        lower_G = lower_H[grams.suffixes_G]
        without_G = (rests_G + kept_shares_G) * lower_G
        with_G = without_G + shares_G * (1 - lower_G)
        values.append(grams.counts_G * np.log(with_G / without_G))
        lower_H = np.where(is_kept_G, with_G, without_G)
    return values


def _most_valuable(
    lengths: Sequence[Grams], values: Sequence[Floats], num_counts: int
) -> list[Flags]:
    """Returns which grams to keep; with each also its context, which a look-up goes through."""
    worth = [values_G.copy() for values_G in values]
    for place in range(len(worth) - 1, 0, -1):
        np.maximum.at(worth[place - 1], lengths[place].contexts_G, worth[place])
    all_worth = np.concatenate(worth)
    kept = np.zeros(len(all_worth), dtype=np.bool_)
    kept[np.argsort(-all_worth, kind="stable")[:num_counts]] = True  # ties go to the shorter
    return np.split(kept, np.cumsum([len(grams) for grams in lengths])[:-1])


def _without_the_rest(
    lengths: Sequence[Grams], orders: Sequence[Order], kept: Sequence[Flags]
) -> list[Order]:
    """Returns the orders of the kept grams, renumbered, up to the first length with none kept."""
    found = []
    is_context_H = np.ones(1, dtype=np.bool_)
    for grams, order, is_kept_G in zip(lengths, orders, kept, strict=True):
        if not is_kept_G.any():
            break
        contexts_G, shares_G = grams.contexts_G[is_kept_G], order.shares_G[is_kept_G]
        rests_H = rests(contexts_G, shares_G, len(is_context_H))[is_context_H]
        new_numbers_H = np.cumsum(is_context_H) - 1
        symbols_G = grams.keys_G[is_kept_G] % grams.num_symbols
        keys_G = new_numbers_H[contexts_G] * grams.num_symbols + symbols_G
        found.append(Order(keys_G, shares_G, rests_H))
        is_context_H = is_kept_G
    return found
