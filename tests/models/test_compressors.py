"""Compressors: what they can and cannot know of the text before."""

from __future__ import annotations

import math
import random

import pytest

from charcmp.models.compressors import COMPRESSORS, ZLIB_WINDOW, nats_given

NOISE = random.Random(0).randbytes(1_200_000)  # nothing can compress it


@pytest.mark.parametrize("name", COMPRESSORS)
def test_noise_has_eight_bits_a_byte(name: str) -> None:
    compress, _ = COMPRESSORS[name]
    bits = nats_given(NOISE[:50_000], NOISE[50_000:100_000], compress) / math.log(2)
    assert bits == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_text_seen_before_costs_little_within_the_window_alone(name: str) -> None:
    compress, window = COMPRESSORS[name]
    text = NOISE[:10_000]
    near, far = NOISE[:20_000], NOISE[: (window or 0) + 250_000]
    assert nats_given(near, text, compress) < (3 if name == "bz2" else 0.2)
    cost = nats_given(far, text, compress)
    assert cost < 0.2 if window is None else cost > 5


def test_windows_are_the_librarys() -> None:
    compress, _ = COMPRESSORS["zlib"]
    text = NOISE[:1000]
    for distance, is_seen in ((ZLIB_WINDOW - 2000, True), (ZLIB_WINDOW + 2000, False)):
        cost = nats_given(NOISE[:distance], text, compress)
        assert (cost < 1) == is_seen
