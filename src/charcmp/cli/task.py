"""The task that Hydra runs: trains one run with the configuration that Hydra has composed."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from charcmp.cli.one_line import one_line_errors
from charcmp.config.rules import typed
from charcmp.config.schema import register_schemas
from charcmp.errors import EXIT_DIVERGED, Interrupted
from charcmp.training.attempt import train_one
from charcmp.training.session import Session
from charcmp.training.stop import StopRequest

# Launchers other than ours unpickle the task in a new process, so this module registers the schemas
# that the task needs.
register_schemas()


def train_task(cfg: DictConfig) -> None:
    """Trains the run of `charcmp train`, or a job of a sweep on a launcher other than ours.

    Such a launcher reports exceptions and takes an exit for a crash, so a job does not exit.
    """
    should_stop = StopRequest()
    is_launchers = HydraConfig.get().mode == RunMode.MULTIRUN
    with nullcontext() if is_launchers else one_line_errors():
        try:
            result = train_one(typed(cfg), Session(should_stop))
        except Interrupted:
            should_stop.pass_on()
            raise
    if result.status == "diverged" and not is_launchers:
        sys.exit(EXIT_DIVERGED)
