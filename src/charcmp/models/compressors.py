"""How well general compressors do on a text, given another: a yardstick everybody has at hand.

The bytes that a text adds to the compressed text before it, C(before + text) - C(before), are the
compressor's estimate of the text's information, which can be compared with a model's loss.
"""

from __future__ import annotations

import bz2
import lzma
import math
import zlib
from collections.abc import Callable

# How far back zlib (level 9) and bz2 (level 9) can refer, in bytes.
ZLIB_WINDOW = 1 << 15
BZ2_BLOCK = 900_000


def lzma_spanning(text: bytes) -> bytes:
    """Compresses by LZMA with a dictionary as long as the text, and settings made for text."""
    options = {
        "id": lzma.FILTER_LZMA2,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": max(4096, len(text)),
        "lc": 4,  # bits of the previous byte that select a literal's probabilities
        "pb": 0,  # text has no alignment
    }
    return lzma.compress(text, lzma.FORMAT_RAW, filters=[options])


# name -> (compress, how far back it can refer in bytes; None: without limit)
COMPRESSORS: dict[str, tuple[Callable[[bytes], bytes], int | None]] = {
    "zlib": (lambda text: zlib.compress(text, 9), ZLIB_WINDOW),
    "bz2": (lambda text: bz2.compress(text, 9), BZ2_BLOCK),
    "lzma": (lzma_spanning, None),
}


def nats_given(before: bytes, text: bytes, compress: Callable[[bytes], bytes]) -> float:
    """Returns the nats per character of `text` for a reader who has seen `before`."""
    num_bytes = len(compress(before + text)) - len(compress(before))
    return 8 * math.log(2) * num_bytes / len(text)
