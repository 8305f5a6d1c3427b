"""The compiled forms of the layers for CPUs: one Numba function between two matrix products.

A step of a narrow recurrent layer is a product or two and a handful of element-wise operations.
Each torch call costs some microseconds however little it does, and reads its operands from memory
again. So here all element-wise work between two products is one function, compiled for this CPU.
steps.py holds these functions; rnn.py, gru.py and lstm.py the autograd Functions that call them.
The equations are in each cell's own file, whose results these forms reproduce: on x86 CPUs with
AVX2 to the last bit, with any number of threads, so there a run does not depend on whether it has
them.

Compiling takes some seconds, once: Numba keeps the machine code in a cache folder. Loading it takes
a second or two, so small chunks, as in sampling and in tiny models, are left to torch's calls.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

from charcmp.errors import first_line
from charcmp.models.cells.modes import Mode

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# auto: on a CPU where Numba works, for chunks that are worth it. always (also for small ones) and
# never are for checks and benchmarks: see modes.forced.
mode: Mode = "auto"
FORMS = ("gru", "lstm", "rnn")
WORTH_IT = 20_000  # values of h in a chunk, T·B·H


def compiled_on(x: Tensor, state_SBH: Tensor, activation: str) -> bool:
    """Returns whether a layer is to run by its compiled form.

    Args:
        x: the layer's input, (T, B) or (T, B, I).
        state_SBH: the layer's, for its device, type and size.
        activation: of the layer; the compiled forms have tanh only.
    """
    if mode == "never" or activation != "tanh" or state_SBH.device.type != "cpu":
        return False
    is_float32 = state_SBH.is_floating_point() and state_SBH.element_size() == 4
    is_worth_it = mode == "always" or len(x) * state_SBH[0].numel() >= WORTH_IT
    return is_float32 and is_worth_it and why_not() is None


def may_compile(cell: str, num_values: int) -> bool:
    """Returns whether a cell has a compiled form and chunks of so many values are worth it."""
    return cell in FORMS and num_values >= WORTH_IT


@cache
def why_not() -> str | None:
    """Returns why this machine does not run the compiled forms, in one line; None if it does.

    The first call compiles them, or loads them from the cache.
    """
    try:
        for form in FORMS:
            importlib.import_module(f"charcmp.models.cells.compiled.{form}")
    except Exception as error:  # whatever it is, the run can do without Numba
        return f"Numba does not work here ({first_line(error)})"
    return None


def note(device: torch.device) -> str | None:
    """Returns a note for the user if a cell with a compiled form runs without it, else None."""
    if device.type == "cpu" and (reason := why_not()):
        return f"{reason}: the cells run as separate torch calls, at about two thirds of the speed"
    return None
