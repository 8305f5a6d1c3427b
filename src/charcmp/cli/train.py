"""`charcmp train`: one run."""

from __future__ import annotations

from charcmp.cli.line import SELECT_DROPOUT, read_line, run_hydra
from charcmp.output import fail


def train(args: list[str]) -> None:
    """`charcmp train`."""
    if SELECT_DROPOUT[0] in args:
        fail("dropout=select is several runs: charcmp sweep dropout=select ...")
    run_hydra(read_line("train", args).hydra)
