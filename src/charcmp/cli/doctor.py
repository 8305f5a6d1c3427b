"""`charcmp doctor`: what this machine can do, and that its results are right."""

from __future__ import annotations

import json
import platform
import sys
import time

from charcmp.cli.one_line import one_line_errors
from charcmp.errors import UserError

DOCTOR_USAGE = """\
charcmp doctor [device=auto] [precision=float32] [--json] [--cached]

  Checks this machine: each cell's fast form against its equations; on a GPU also captured graphs
  and runs side by side, on a CPU a run that is interrupted. Exit status 1 if a check fails.

  device=auto          or cpu, cuda, cuda:1
  precision=float32    or tf32, on a GPU
  --json               for programs
  --cached             what an earlier doctor found of this GPU, driver and software, if it did
"""
EXIT_FAILED = 1
KEYS = {"device": "auto", "precision": "float32"}


def doctor(args: list[str]) -> None:
    """`charcmp doctor`."""
    if args and args[0] in ("--help", "-h"):
        print(DOCTOR_USAGE, end="")
        return
    with one_line_errors():
        flags = {arg for arg in args if arg in ("--json", "--cached")}
        keys = dict(KEYS)
        for arg in args:
            key, equals, value = arg.partition("=")
            if arg in flags:
                continue
            if not equals or key not in keys:
                raise UserError(f"doctor {arg}: not understood; charcmp doctor --help")
            keys[key] = value
        if keys["precision"] not in ("float32", "tf32"):
            raise UserError(f"precision={keys['precision']}: one of float32, tf32")
        passed = run(keys["device"], keys["precision"], "--json" in flags, "--cached" in flags)
    if not passed:
        sys.exit(EXIT_FAILED)


def run(device_name: str, precision: str, as_json: bool, cached: bool) -> bool:
    """Whether the device passes all checks; what was found is printed, and kept for a GPU."""
    import torch

    from charcmp.training import device as devices
    from charcmp.training.doctor import examine
    from charcmp.training.environment import optional_version
    from charcmp.training.verdicts import Verdict, record_of

    device = devices.resolve_device(device_name)
    torch.set_num_threads(1)  # tensors are small here: several threads wait for one another
    devices.set_up(device, precision)
    if not as_json:
        print(f"{devices.device_name(device)}; Python {platform.python_version()}, {sys.platform}")
        gpus = f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU"
        triton = optional_version("triton")
        cuda = torch.version.cuda or "none"
        print(f"torch {torch.__version__} (CUDA: {cuda}), Triton {triton}: sees {gpus}")
    verdicts: list[Verdict] = []
    record = record_of(device, precision)
    if record is not None and cached:
        verdicts = record.read()
    if not verdicts:
        begun = time.perf_counter()
        for verdict in examine(device, precision):
            verdicts.append(verdict)
            if not as_json:
                seconds, begun = time.perf_counter() - begun, time.perf_counter()
                print(f"{verdict.line} ({seconds:.1f} s)", flush=True)
        if record is not None:
            record.write(verdicts)
    if as_json:
        print(json.dumps([vars(verdict) for verdict in verdicts]))
    return all(verdict.passed for verdict in verdicts)
