"""`charcmp sweep`: trains a grid of runs by Hydra's sweeper, or lists them with --dry-run."""

from __future__ import annotations

from charcmp.cli.line import read_line, run_composed, run_hydra
from charcmp.config.compose import Composer

# These flags are passed to Hydra's sweeper as keys of its own: hydra_plugins/charcmp/sweeper.py.
SWEEPER_FLAGS = {"--retry-failed": "retry_failed", "--fail-fast": "fail_fast"}


def sweep(args: list[str]) -> None:
    """Runs `charcmp sweep`."""
    line = read_line("sweep", args)
    if line.only_prints:
        run_hydra(line.hydra)
    elif "--dry-run" in line.flags:
        run_composed(line, lambda composer: plan(composer, line.flags))
    else:
        keys = [key for flag, key in SWEEPER_FLAGS.items() if flag in line.flags]
        rest = [word for word in line.hydra if word not in ("--multirun", "-m")]
        run_hydra(["--multirun", *(f"hydra.sweeper.{key}=true" for key in keys), *rest])


def plan(composer: Composer, flags: frozenset[str]) -> None:
    from charcmp.sweeping.grid import make_grid
    from charcmp.sweeping.plan import print_plan

    print_plan(make_grid(composer), "--no-cost" not in flags, "--retry-failed" in flags)
