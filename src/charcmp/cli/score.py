"""`charcmp score`: computes the loss of a text under a trained run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from charcmp.cli.one_line import one_line_errors
from charcmp.output import counted, note

SCORE_TOLERANCE = 0.01  # nats; another device or precision changes a loss by less


def score(args: list[str]) -> None:
    """Runs `charcmp score`."""
    from charcmp.cli.options import ScoreOptions, parse

    with one_line_errors():
        options = parse([arg for arg in args if arg != "--json"], ScoreOptions)
        from charcmp.inference.score import score_file, score_split
        from charcmp.inference.trained import load_trained

        run = load_trained(options.run, options.results_dir, options.data_dir, options.target)
        if options.split is not None:
            found = score_split(run, options.split, options.data_dir)
        else:
            assert options.file is not None
            found = score_file(run, Path(options.file), options.unknown_bytes == "skip")
    if "--json" in args:
        print(json.dumps(asdict(found), indent=2, allow_nan=False))
        return
    perplexity = "too large" if found.perplexity is None else f"{found.perplexity:.3f}"
    print(
        f"{found.text}: {found.nats_per_char:.4f} nats/char, perplexity {perplexity}, "
        f"{found.bits_per_char:.3f} bits/char over {found.num_chars:,} characters, "
        f"under {found.run_id}"
    )
    if found.num_skipped:
        note(f"left out {counted(found.num_skipped, 'byte')} that the run's corpus does not have")
    recorded = run.result.test_nats_per_char if options.split == "test" else None
    if recorded is not None and abs(found.nats_per_char - recorded) > SCORE_TOLERANCE:
        note(
            f"its result.json says {recorded:.4f} nats/char, so it belongs to other weights or "
            "another text"
        )
