"""`charcmp sweep`: trains a grid of runs by Hydra's sweeper, or lists them with --dry-run."""

from __future__ import annotations

from charcmp.cli.line import read_line, run_composed, run_hydra
from charcmp.config.compose import Composer
from charcmp.output import fail

# These flags are passed to Hydra's sweeper as keys of its own: hydra_plugins/charcmp/sweeper.py.
SWEEPER_FLAGS = {"--retry-failed": "retry_failed", "--fail-fast": "fail_fast"}


def sweep(args: list[str]) -> None:
    """Runs `charcmp sweep`."""
    line = read_line("sweep", args)
    is_dry = "--dry-run" in line.flags
    if "--no-cost" in line.flags and not is_dry:
        fail("--no-cost needs --dry-run")
    if "--fail-fast" in line.flags and is_dry:
        fail("--fail-fast ends a sweep, and --dry-run begins none")
    if line.only_prints:
        run_hydra(line.hydra)
    elif is_dry:
        run_composed(line, lambda composer: plan(composer, line.flags))
    else:
        keys = [key for flag, key in SWEEPER_FLAGS.items() if flag in line.flags]
        run_hydra(["--multirun", *(f"hydra.sweeper.{key}=true" for key in keys), *line.hydra])


def plan(composer: Composer, flags: frozenset[str]) -> None:
    from charcmp.sweeping.grid import make_grid
    from charcmp.sweeping.plan import print_plan

    print_plan(make_grid(composer), "--no-cost" not in flags, "--retry-failed" in flags)
