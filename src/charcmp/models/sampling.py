"""Sampling of text from a model, one byte at a time.

Shape suffixes: T steps, B batch (1), V vocabulary, K candidates.
"""

from __future__ import annotations

import codecs
import itertools
import statistics
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charcmp.models.language_model import CharModel

SPEED_CHARS = 200


@torch.no_grad()
def generate(
    model: CharModel,
    prime_N: NDArray[np.uint8],
    length: int,
    temperature: float,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Draws symbols that continue a text.

    Args:
        model: in eval mode, on the CPU.
        prime_N: the text so far, read from a zero state. If it is empty, the first of the `length`
            symbols is drawn uniformly, as in the paper's code.
        length: how many symbols to draw.
        temperature: divides the logits; towards 0 the most likely symbol becomes certain.
        top_k: how many of the most likely symbols to draw from; None for all.
        seed: of every draw.
    """
    generator = torch.Generator().manual_seed(seed)
    state = model.zero_state(1)
    num_symbols = model.decoder.out_features
    x_TB = torch.tensor(prime_N, dtype=torch.int64).unsqueeze(1)
    for _ in range(length):
        if len(x_TB):
            logits_TBV, state = model(x_TB, state)
            symbol = draw(logits_TBV[-1, 0], temperature, top_k or num_symbols, generator)
        else:
            symbol = int(torch.randint(num_symbols, (), generator=generator))
        yield symbol
        x_TB = torch.tensor([[symbol]])


def seconds_per_char(model: CharModel) -> float:
    """Returns the median time to draw a character, over SPEED_CHARS, on one thread of this CPU.

    Args:
        model: in eval mode, on the CPU.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would only wait for each other
    prime_N = np.zeros(1, np.uint8)
    try:
        times = [time.perf_counter() for _ in generate(model, prime_N, SPEED_CHARS, 1.0)]
    finally:
        torch.set_num_threads(threads)
    return statistics.median(after - before for before, after in itertools.pairwise(times))


def draw(logits_V: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    """Draws a symbol from softmax(logits / temperature) over the `top_k` largest."""
    logits_K, symbols_K = logits_V.double().topk(min(top_k, len(logits_V)))
    # Relative to the largest, so that no temperature overflows; the others can only vanish.
    weights_K = ((logits_K - logits_K[0]) / temperature).exp()
    return int(symbols_K[torch.multinomial(weights_K, 1, generator=generator)])


def write(symbols: Iterable[int], vocabulary: bytes, prime: bytes, raw: bool) -> None:
    """Writes a prime and the symbols after it to standard output as they come.

    Args:
        symbols: indices into the vocabulary.
        raw: write the bytes themselves. Otherwise they are decoded, and a terminal gets no control
            characters.
    """
    pieces = itertools.chain([prime], (vocabulary[symbol : symbol + 1] for symbol in symbols))
    if raw:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return
    to_terminal = sys.stdout.isatty()
    for text in decoded(pieces):
        sys.stdout.write(harmless(text) if to_terminal else text)
        sys.stdout.flush()
    if to_terminal:
        sys.stdout.write("\n")


def decoded(pieces: Iterable[bytes]) -> Iterator[str]:
    """Decodes UTF-8, each character as soon as it is whole; U+FFFD for invalid bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    yield decoder.decode(b"", final=True)


def harmless(text: str) -> str:
    """Returns a text with its control characters (escape sequences begin with one) written out.

    Newlines and tabs stay. Carriage returns are removed: they would overwrite the line.
    """
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) == "Cc" and char not in "\n\t" else char
        for char in text.replace("\r", "")
    )
