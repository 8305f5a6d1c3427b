"""`charcmp doctor`: shows what this machine can do, and checks that its results are right."""

from __future__ import annotations

import json
import platform
import sys
import time

from charcmp.cli.line import read_line
from charcmp.cli.one_line import one_line_errors
from charcmp.cli.options import DoctorOptions, parse
from charcmp.errors import EXIT_FAILED
from charcmp.output import note


def doctor(args: list[str]) -> None:
    """Runs `charcmp doctor`."""
    line = read_line("doctor", args)
    with one_line_errors():
        options, flags = parse(line.hydra, DoctorOptions), line.flags
        passed = run(options.device, options.precision, "--json" in flags, "--cached" in flags)
    if not passed:
        sys.exit(EXIT_FAILED)


def run(device_name: str, precision: str, as_json: bool, cached: bool) -> bool:
    """Runs and prints all checks; returns whether the device passes. Results of a GPU are kept."""
    import torch

    from charcmp.models.cells.compiled import dispatch as compiled
    from charcmp.training import device as devices
    from charcmp.training.checks import record_of
    from charcmp.training.doctor import examine
    from charcmp.training.environment import optional_version

    device = devices.resolve_device(device_name)
    torch.set_num_threads(1)  # tensors are small here: several threads wait for one another
    devices.set_up(device, precision)
    if not as_json:
        print(f"{devices.device_name(device)}; Python {platform.python_version()}, {sys.platform}")
        gpus = f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU"
        triton = optional_version("triton")
        cuda = torch.version.cuda or "none"
        print(f"torch {torch.__version__} (CUDA: {cuda}), Triton {triton}: sees {gpus}")
        if slower := compiled.note(device):
            note(slower)
    record = record_of(device, precision)
    results = record.read() if record is not None and cached else []
    if results:
        if not as_json:
            print("\n".join(result.line for result in results))
    else:
        begun = time.perf_counter()
        for result in examine(device, precision):
            results.append(result)
            if not as_json:
                seconds, begun = time.perf_counter() - begun, time.perf_counter()
                print(f"{result.line} ({seconds:.1f} s)", flush=True)
        if record is not None:
            record.write(results)
    if as_json:
        print(json.dumps([vars(result) for result in results]))
    return all(result.passed for result in results)
