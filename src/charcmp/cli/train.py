"""`charcmp train`: trains one run."""

from __future__ import annotations

from charcmp.cli.commands import SELECT
from charcmp.cli.line import read_line, run_hydra
from charcmp.output import fail


def train(args: list[str]) -> None:
    """Runs `charcmp train`."""
    for several in SELECT.keys() & set(args):
        fail(f"{several} is several runs: charcmp sweep {several} ...")
    run_hydra(read_line("train", args).hydra)
