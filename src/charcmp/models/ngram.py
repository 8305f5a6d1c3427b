"""Interpolated modified Kneser-Ney n-grams of characters (Chen & Goodman 1999, section 3).

A gram is a string of characters that the training text has. The grams of one length are numbered in
the order of (number of the gram without its last character, last character), so a gram is found by
one binary search for the integer that packs the two, and no string is ever stored.

Shape suffixes: B rows of text side by side, C characters of a row, G grams of one length, H grams
one shorter, which are the contexts of those G.
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

# What Chen & Goodman's estimate becomes where too few grams occur once to four times (KenLM's).
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True, eq=False)
class Grams:
    """All grams of one length in a text."""

    num_symbols: int
    keys_G: Integers  # number of the gram without its last character * num_symbols + that character
    suffixes_G: Integers  # number of the gram without its first character
    counts_G: Integers  # how often it occurs
    starts_G: Integers  # how often at the beginning of a row, where nothing stands before it

    @property
    def contexts_G(self) -> Integers:
        return self.keys_G // self.num_symbols

    def __len__(self) -> int:
        return len(self.keys_G)


def grams_of(text_BC: Symbols, num_symbols: int) -> Iterator[Grams]:
    """The grams of length 1, 2, ..., up to that of a row; none crosses the edge of a row."""
    ids_BC = np.zeros((len(text_BC), text_BC.shape[1] + 1), dtype=np.int64)  # of the empty string
    for length in range(1, text_BC.shape[1] + 1):
        keys_BC = ids_BC[:, :-1] * num_symbols + text_BC[:, length - 1 :]
        keys_G, ids_N, counts_G = np.unique(keys_BC, return_inverse=True, return_counts=True)
        suffixes_BC, ids_BC = ids_BC[:, 1:], ids_N.reshape(keys_BC.shape)
        suffixes_G = np.empty_like(keys_G)
        suffixes_G[ids_BC] = suffixes_BC
        starts_G = np.bincount(ids_BC[:, 0], minlength=len(keys_G))
        yield Grams(num_symbols, keys_G, suffixes_G, counts_G, starts_G)


def discounts(counts_G: Integers) -> Floats:
    """(0, D1, D2, D3+) of Chen & Goodman 1999, equation 17, from the counts of counts."""
    n1, n2, n3, n4 = np.bincount(counts_G.clip(max=5), minlength=5)[1:5]
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        if all(0 < discount < most for discount, most in zip(found, (1, 2, 3), strict=True)):
            return np.array([0, *found])
    return np.array([0, *FALLBACK_DISCOUNTS])


@dataclass(frozen=True, eq=False)
class Order:
    """What grams of one length add to the probabilities of shorter contexts.

    p(w | h) = shares[hw] + rests[h] * p(w | h without its first character)
    """

    num_symbols: int
    keys_G: Integers
    shares_G: Floats
    rests_H: Floats  # 1 for a context that nothing follows

    @property
    def contexts_G(self) -> Integers:
        return self.keys_G // self.num_symbols


def discounted(grams: Grams, counts_G: Integers, num_contexts: int) -> Order:
    """The order whose grams have these counts: occurrences, or Kneser-Ney's of what precedes."""
    contexts_G = grams.contexts_G
    totals_H = np.bincount(contexts_G, counts_G, minlength=num_contexts)
    amounts_G = discounts(counts_G)[counts_G.clip(max=3)]
    shares_G = (counts_G - amounts_G) / totals_H[contexts_G]
    rests_H = np.bincount(contexts_G, amounts_G, minlength=num_contexts)
    rests_H = np.divide(rests_H, totals_H, out=np.ones(num_contexts), where=totals_H > 0)
    return Order(grams.num_symbols, grams.keys_G, shares_G, rests_H)


def preceding_counts(longer: Grams, num_grams: int, starts_G: Integers) -> Integers:
    """Kneser-Ney's count of a gram: how many distinct characters stand before it.

    The beginning of a row precedes too, each time.
    """
    return np.bincount(longer.suffixes_G, minlength=num_grams) + starts_G


class Reading:
    """A text read by a model whose orders come one after the other, the shortest first."""

    def __init__(self, text_BC: Symbols, num_symbols: int) -> None:
        self.text_BC = text_BC
        self.contexts_BC = np.zeros(text_BC.shape, dtype=np.int64)  # numbers; -1 for an unknown one
        self.probabilities_BC = np.full(text_BC.shape, 1 / num_symbols)  # of each character
        self.places_BC = self.contexts_BC

    def find(self, order_keys_G: Integers, num_symbols: int) -> None:
        """Looks up the gram that ends at each character."""
        keys_BC = self.contexts_BC * num_symbols + self.text_BC
        places_BC = np.searchsorted(order_keys_G, keys_BC).clip(max=len(order_keys_G) - 1)
        is_found = (order_keys_G[places_BC] == keys_BC) & (self.contexts_BC >= 0)
        self.places_BC = np.where(is_found, places_BC, -1)

    def with_order(self, order: Order) -> Floats:
        """The probabilities that the characters have with one order more."""
        shares_BC = np.where(self.places_BC >= 0, order.shares_G[self.places_BC], 0)
        rests_BC = np.where(self.contexts_BC >= 0, order.rests_H[self.contexts_BC], 1)
        return shares_BC + rests_BC * self.probabilities_BC

    def go_on(self, order: Order) -> None:
        """Takes the order in: the next one's contexts are a character longer."""
        self.probabilities_BC = self.with_order(order)
        self.contexts_BC = np.full_like(self.places_BC, -1)
        self.contexts_BC[:, 1:] = self.places_BC[:, :-1]
