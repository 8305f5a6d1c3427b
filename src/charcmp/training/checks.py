"""The results of `charcmp doctor` for a device, and the file that keeps them for later runs.

This module does not import torch, since a sweep reads the results without it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from charcmp.errors import UserError
from charcmp.files import cache_dir, canonical_json, make_folder, write_json
from charcmp.runs.reading import CorruptFileError, read_json
from charcmp.training.nvidia import driver_version

if TYPE_CHECKING:
    import torch

MAX_BYTES = 1 << 20
# What a run does without if a check failed. If torch's own operations fail, nothing is left.
FALLBACKS = {
    "kernels": "every cell runs as separate torch calls, not in our kernels: slower",
    "graph": "steps are not captured as CUDA graphs: slower",
    "lanes": "one run at a time on a GPU, not several: slower",
    "torch": "this GPU or its libraries fail the check, so no run may use it; charcmp doctor makes "
    "it again, and device=cpu trains without the GPU",
}


@dataclass(frozen=True)
class CheckResult:
    """One check: whether a device passed it, and what was measured."""

    check: str
    passed: bool
    measured: str
    # Whether the check ended in an error that may pass, as when other work has taken the memory.
    may_pass: bool = False

    @property
    def line(self) -> str:
        text = f"{self.check:8} {'passed' if self.passed else 'FAILED'}   {self.measured}"
        fallback = "" if self.passed else FALLBACKS.get(self.check, "")
        return f"{text}; {fallback}" if fallback else text


class _File(msgspec.Struct):
    verdicts: list[CheckResult]  # a key named by earlier commits, kept to read their files


_FILE = msgspec.json.Decoder(_File)


@cache
def machine_and_software(device: torch.device) -> dict[str, str | None]:
    """Returns all that a check depends on: the device itself, its driver, versions, our source."""
    import torch

    from charcmp.training.environment import optional_version

    source = hashlib.sha256()
    package = Path(__file__).resolve().parents[1]
    for file in sorted([*package.glob("models/**/*.py"), *package.glob("training/*.py")]):
        source.update(file.read_bytes())
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "uuid": str(getattr(properties, "uuid", None)),
        "driver": driver_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()),
        "triton": optional_version("triton"),
        "source": source.hexdigest(),
    }


class DoctorRecord:
    """The results of a device's checks under one set of software, in a file of the cache folder.

    Args:
        about: what they depend on, as `machine_and_software` says; its hash names the file.
    """

    def __init__(self, about: dict[str, str | None]) -> None:
        key = hashlib.sha256(canonical_json(about).encode()).hexdigest()[:16]
        self.file = cache_dir() / f"doctor-{key}.json"
        self.about = about

    def read(self) -> list[CheckResult]:
        """Reads the results; returns [], so that the checks are made again, if it cannot."""
        try:
            found = read_json(self.file, _FILE, MAX_BYTES)
        except CorruptFileError:
            return []
        return found.verdicts if found else []

    def write(self, results: list[CheckResult]) -> None:
        """Replaces the results, unless one of them may pass: then all are to be made again.

        Raises:
            UserError, StorageError: if they cannot be written.
        """
        if any(result.may_pass for result in results):
            return
        make_folder(self.file.parent)
        contents = {"about": self.about, "verdicts": [vars(result) for result in results]}
        write_json(self.file, contents)


def record_of(device: torch.device, precision: str) -> DoctorRecord | None:
    """Returns the record of a GPU; None for a CPU, which has no record."""
    if device.type != "cuda":
        return None
    return DoctorRecord({**machine_and_software(device), "precision": precision})


def failed_checks(device: torch.device, precision: str) -> set[str]:
    """Returns the checks that the device has failed; none if it has not been examined."""
    record = record_of(device, precision)
    results = [] if record is None else record.read()
    return {result.check for result in results if not result.passed}


def apply_fallbacks(failed: set[str]) -> bool:
    """Makes this process do without what has failed; returns whether steps may be captured.

    Raises:
        UserError: if the device cannot be trained on at all.
    """
    from charcmp.models.cells.fused import dispatch as fused

    if "torch" in failed:
        raise UserError(f"charcmp doctor: {FALLBACKS['torch']}")
    if "kernels" in failed:
        fused.mode = "never"  # for the rest of this process
    return "graph" not in failed
