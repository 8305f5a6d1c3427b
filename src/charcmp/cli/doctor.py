"""`charcmp doctor`: shows what this machine can do, and checks that its results are right."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Sequence

from charcmp.cli.commands import COMMANDS
from charcmp.cli.line import read_line
from charcmp.cli.one_line import one_line_errors
from charcmp.errors import EXIT_FAILED, UserError, require
from charcmp.values import did_you_mean


def doctor(args: list[str]) -> None:
    """Runs `charcmp doctor`."""
    line = read_line("doctor", args)
    with one_line_errors():
        given = _values(line.hydra)
        flags = line.flags
        passed = run(given["device"], given["precision"], "--json" in flags, "--cached" in flags)
    if not passed:
        sys.exit(EXIT_FAILED)


def _values(words: Sequence[str]) -> dict[str, str]:
    """Returns the value of each of its keys.

    Raises:
        UserError: for a word that is not the key=value of one of them.
    """
    keys = {key.name: key for key in COMMANDS["doctor"].keys}
    given = {name: key.default for name, key in keys.items()}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in keys:
            meant = did_you_mean(name, list(keys)) or ";"
            raise UserError(f"doctor {word}: not understood{meant} charcmp doctor --help")
        require(bool(keys[name].rule.holds(value)), f"{word}: {keys[name].rule.wanted}")
        given[name] = value
    return given


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
        if note := compiled.note(device):
            print(f"note: {note}")
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
