"""`charcmp sample`: generates text from a trained run."""

from __future__ import annotations

import codecs
import itertools
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator

from charcmp.cli.one_line import one_line_errors
from charcmp.errors import UserError
from charcmp.output import counted, note


def sample(args: list[str]) -> None:
    """Runs `charcmp sample`."""
    from charcmp.cli.options import SampleOptions, parse

    with one_line_errors():
        options = parse(args, SampleOptions)
        if options.raw and sys.stdout.isatty():
            raise UserError("raw=true writes to a file or a pipe, not to a terminal")
        from charcmp.inference.trained import load_trained

        run = load_trained(options.run, options.results_dir, options.data_dir, options.target)
        if run.task == "fill":
            raise UserError(
                f"{run.run_id}: a fill-in model reads the text on both sides of a byte, so it "
                "cannot generate text from left to right; use charcmp score"
            )
        prime = os.fsencode(options.prime)  # the bytes as typed, UTF-8 or not
        try:
            prime_N = run.encode(prime)
        except UserError as error:
            raise UserError(f"prime={options.prime!r}: {error}") from None
        if options.top_k is not None and options.top_k >= len(run.vocabulary):
            note(
                f"top_k={options.top_k} has no effect: the run's vocabulary has only "
                f"{counted(len(run.vocabulary), 'byte')}",
                sys.stderr,
            )
        from charcmp.models.sampling import generate

        symbols = generate(
            run.model(), prime_N, options.length, options.temperature, options.top_k, options.seed
        )
        write(symbols, run.vocabulary, prime, options.raw)


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
    try:
        for text in decoded(pieces):
            sys.stdout.write(harmless(text) if to_terminal else text)
            sys.stdout.flush()
    finally:
        if to_terminal:  # so that an error, too, begins on a line of its own
            print(flush=True)


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
