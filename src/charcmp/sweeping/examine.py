"""A GPU examined before runs train on it, once for each set of software: `charcmp doctor`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from charcmp.config.schema import Config
from charcmp.errors import UserError
from charcmp.sweeping.slots import Slot, make_slots
from charcmp.training.checks import FALLBACKS, CheckResult


def examined_slots(config: Config) -> list[Slot]:
    """`make_slots`, less what the doctor has to say against.

    Raises:
        UserError: as `make_slots` does, and if a GPU cannot be relied on.
    """
    return examined(make_slots(config), config.precision)


def examined(slots: Sequence[Slot], precision: str) -> list[Slot]:
    """Those of these slots that runs can be trained in; see `usable`. CPUs are not examined."""
    gpus = {slot.gpu: slot for slot in slots if slot.on_gpu}
    return usable(slots, {gpu: ask_doctor(slot, precision) for gpu, slot in gpus.items()})


def usable(slots: Sequence[Slot], results: Mapping[str, Sequence[CheckResult]]) -> list[Slot]:
    """All slots, but only one of a GPU whose lanes failed their check.

    A run heeds the other checks itself (training/checks.py). What failed is noted.

    Raises:
        UserError: if a GPU, or its libraries, cannot be relied on.
    """
    left: list[Slot] = []
    alone: set[str] = set()
    for slot in slots:
        failed = {one.check: one for one in results.get(slot.gpu, ()) if not one.passed}
        if "torch" in failed:
            raise UserError(f"{slot.machine}: {FALLBACKS['torch']}")
        if "lanes" not in failed:
            left.append(slot)
        elif slot.gpu not in alone:
            left.append(replace(slot, lanes=1))
            alone.add(slot.gpu)
    machines = {slot.gpu: slot.machine for slot in slots}
    for gpu, found in results.items():
        for result in found:
            if not result.passed:
                print(f"note: {machines[gpu]}: {result.line}")
    return left


def ask_doctor(slot: Slot, precision: str) -> list[CheckResult]:
    """What the doctor finds of a slot's device, or has found before.

    In a process of its own: the sweep itself holds nothing of a GPU.

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
        return msgspec.convert(json.loads(asked.stdout), list[CheckResult])
    except ValueError:
        said = (asked.stderr.strip() or f"exit status {asked.returncode}").splitlines()[-1]
        raise UserError(
            f"{slot.machine}: charcmp doctor ends with '{said}'; device=cpu trains without it"
        ) from None
