"""An attempt at a run: leases its folder, trains it, and records a failure."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from charcmp.config.schema import Config
from charcmp.errors import (
    EXIT_DIVERGED,
    EXIT_INTERRUPTED,
    BusyError,
    Interrupted,
    StorageError,
    UserError,
    exit_status,
    require,
)
from charcmp.runs.result import Result
from charcmp.training.session import Session

if TYPE_CHECKING:
    from charcmp.config.spec import RunSpec


def attempt(config: Config, session: Session, planned_id: str) -> int:
    """Trains a run as `train_one` does; returns the exit status that `charcmp train` would have.

    If it was interrupted, or a UserError ended it, tells the session why. Raises all other errors.
    """
    try:
        result = train_one(config, session, planned_id)
    except Interrupted as stop:
        session.say(f"charcmp: {stop}; the same command resumes the run")
        return EXIT_INTERRUPTED
    except UserError as error:
        session.say(f"charcmp: {error}")
        return exit_status(error)
    return EXIT_DIVERGED if result.status == "diverged" else 0


def train_one(
    config: Config,
    session: Session,
    planned_id: str | None = None,
) -> Result:
    """Trains a run, or goes on with it; returns its result.

    Records in the run's folder why it failed, unless it was interrupted, another process has it, or
    the disk failed. Raises what charcmp.training.train does.

    Args:
        config: the run's configuration.
        session: the process around it.
        planned_id: the run's id when a sweep planned it; None if no sweep did.

    Raises:
        UserError: also if the configuration now leads to another run than the planned one.
    """
    from charcmp.config.spec import notes_on
    from charcmp.runs.folder import RunFolder, runs_dir
    from charcmp.training.device import is_gpu_trouble

    say = session.say
    spec = _resolved(config, session, planned_id)
    for text in notes_on(spec):
        say(f"note: {text}")
    if spec.corpus.note:
        say(f"note: {spec.corpus.name} is a {spec.corpus.note}")
    folder = RunFolder(runs_dir(config.results_dir) / spec.run_id, config.lease_seconds)
    folder.create()
    with folder.leased(session.should_stop):
        folder.forget_failure()
        result = folder.usable_result(say)
        if result is None:
            from charcmp.training.train import train

            say(f"{spec.run_id}: {spec.num_params:,} parameters, hidden size {spec.hidden_size}")
            try:
                result = train(spec, folder, session)
            except (Interrupted, BusyError, StorageError):
                raise
            except UserError as error:
                folder.write_failure(str(error), retry=True, is_users=True)
                raise
            except Exception as error:
                folder.write_failure(
                    f"{type(error).__name__}: {error}",
                    traceback.format_exc(),
                    retry=is_gpu_trouble(error),
                )
                raise
    say(summary_line(result, folder.path))
    return result


def _resolved(config: Config, session: Session, planned_id: str | None) -> RunSpec:
    """Resolves the configuration, and checks that memory and text suffice for it.

    A sweep looks for failures in the planned run's folder. So a user's mistake is recorded there,
    to be tried again once it is corrected.
    """
    from charcmp.config.spec import resolve, split_of
    from charcmp.models.cells.options import ModuleConfig
    from charcmp.runs.folder import RunFolder, runs_dir
    from charcmp.training.memory import require_memory

    try:
        spec = resolve(config)
        what = "the text or the class" if isinstance(config.cell, ModuleConfig) else "the text"
        require(
            planned_id in (None, spec.run_id),
            f"{planned_id}: {what} has changed since this run was planned; run the same "
            "command again to plan it anew",
        )
        require_memory(spec)
        split_of(spec)  # here, since too short a text deserves no folder of a failed run
    except UserError as error:
        if planned_id is not None:
            folder = RunFolder(runs_dir(config.results_dir) / planned_id, config.lease_seconds)
            with folder.leased(session.should_stop):
                folder.write_failure(str(error), retry=True, is_users=True)
        raise
    return spec


def summary_line(result: Result, path: Path) -> str:
    if result.status == "diverged":
        why = "a loss or the state was not finite, or a loss was far above that of guessing"
        return f"{result.run_id}: diverged ({why}); recorded in {path}"
    return (
        f"{result.run_id}: test {result.test_nats_per_char:.4f} nats/char, perplexity "
        f"{result.test_perplexity:.3f}, {result.test_bits_per_char:.3f} bits/char "
        f"(best epoch {result.best_epoch}); {path}"
    )
