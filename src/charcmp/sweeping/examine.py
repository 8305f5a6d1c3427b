"""Has `charcmp doctor` examine a GPU before runs train on it, once for each set of software."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from charcmp.config.schema import Config
from charcmp.errors import UserError
from charcmp.output import note
from charcmp.sweeping.slots import Slot, make_slots
from charcmp.training.checks import FALLBACKS, CheckResult


def examined_slots(config: Config, run_bytes: int) -> list[Slot]:
    """Returns the slots of `make_slots` in which the doctor allows runs.

    Raises:
        UserError: as `make_slots` does, and if a GPU gives wrong results.
    """
    return examined(make_slots(config, run_bytes), config.precision)


def examined(slots: Sequence[Slot], precision: str) -> list[Slot]:
    """Returns those of the slots that runs can train in (see `usable`). CPUs are not examined."""
    gpus = {slot.gpu: slot for slot in slots if slot.on_gpu}
    return usable(slots, {gpu: ask_doctor(slot, precision) for gpu, slot in gpus.items()})


def usable(slots: Sequence[Slot], results: Mapping[str, Sequence[CheckResult]]) -> list[Slot]:
    """Returns all slots, but only one of each GPU whose lanes failed their check.

    Runs themselves work around the other checks that failed (training/checks.py). Prints a note on
    every check that failed.

    Raises:
        UserError: if a GPU or its libraries give wrong results.
    """
    left: list[Slot] = []
    alone: set[str] = set()
    for slot in slots:
        failed = {result.check: result for result in results.get(slot.gpu, ()) if not result.passed}
        if "torch" in failed:
            raise UserError(f"{slot.machine}: {failed['torch'].measured}; {FALLBACKS['torch']}")
        if "lanes" not in failed:
            left.append(slot)
        elif slot.gpu not in alone:
            left.append(replace(slot, lanes=1))
            alone.add(slot.gpu)
    machines = {slot.gpu: slot.machine for slot in slots}
    for gpu, found in results.items():
        for result in found:
            if not result.passed:
                note(f"{machines[gpu]}: {result.line}")
    return left


def ask_doctor(slot: Slot, precision: str) -> list[CheckResult]:
    """Returns what the doctor finds out about a slot's device, or found out before.

    The doctor has a process of its own, so that the sweep itself holds no GPU memory.

    Raises:
        UserError: if the doctor ends without a result.
    """
    device = "cuda" if slot.on_gpu else "cpu"
    command = ["doctor", "--json", "--cached", f"precision={precision}", f"device={device}"]
    asked = subprocess.run(
        [sys.executable, "-m", "charcmp", *command],
        env={**os.environ, **slot.environment},
        capture_output=True,
        text=True,
    )
    try:
        return msgspec.json.decode(asked.stdout, type=list[CheckResult])
    except ValueError:
        said = (asked.stderr.strip() or f"exit status {asked.returncode}").splitlines()[-1]
        raise UserError(
            f"{slot.machine}: charcmp doctor failed with '{said}'; device=cpu trains without the "
            "GPU"
        ) from None
