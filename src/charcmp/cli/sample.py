"""`charcmp sample`: generates text from a trained run."""

from __future__ import annotations

import os
import sys

from charcmp.cli.one_line import one_line_errors
from charcmp.errors import UserError


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
            print(
                f"note: top_k={options.top_k} has no effect: the run's vocabulary has only "
                f"{len(run.vocabulary)} bytes",
                file=sys.stderr,
            )
        from charcmp.models.sampling import generate, write

        symbols = generate(
            run.model(), prime_N, options.length, options.temperature, options.top_k, options.seed
        )
        write(symbols, run.vocabulary, prime, options.raw)
