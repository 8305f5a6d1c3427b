"""Compiles every fused kernel for a GPU, without needing one, and counts what each consists of.

    python scripts/compile_kernels.py                  (an H100 or H200; half a minute)
    python scripts/compile_kernels.py --capability 80  (an A100)

Triton includes its compiler and NVIDIA's assembler. Prints for each kernel and form, in float32:
global loads and stores, exponentials and divisions of one element in the PTX, and the bytes of
machine code.
"""

from __future__ import annotations

import argparse
from typing import Any

import triton
from tabulate import tabulate
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from charcmp.models.cells.fused import gru, lstm, rnn
from charcmp.models.cells.fused.elementwise import BLOCK
from charcmp.models.cells.registry import CELLS

WITHOUT_PEEPHOLES = {"w_PH": None, "grad_w_BPH": None}
PTX = {"loads": "ld.global", "stores": "st.global", "exponentials": "ex2.", "divisions": "div."}


def forms() -> list[tuple[Any, dict[str, Any]]]:
    """Returns every kernel with each set of constants that cells give it."""
    found: list[tuple[Any, dict[str, Any]]] = []
    for activation in CELLS["rnn"].activations:
        found += [(k, {"ACTIVATION": activation}) for k in (rnn.rnn_step, rnn.rnn_step_back)]
    found += [(gru.gru_gates, {}), (gru.gru_gates_back, {})]
    for activation in CELLS["gru"].activations:
        found += [(k, {"ACTIVATION": activation}) for k in (gru.gru_state, gru.gru_state_back)]
    for activation in CELLS["lstm"].activations:
        for gates, absent in (
            *(("sum", WITHOUT_PEEPHOLES), ("sum", {})),
            *(("softmax", {}), ("cascaded", {})),
        ):
            constants = {"GATES": gates, "ACTIVATION": activation, **absent}
            found += [(k, constants) for k in (lstm.lstm_step, lstm.lstm_step_back)]
    return found


def compiled(kernel: Any, constants: dict[str, Any], capability: int) -> dict[str, Any]:
    """Returns one row of the table; raises if Triton or the assembler refuses the kernel."""
    known = {"BLOCK": BLOCK, **constants}
    constexprs = {name: known[name] for name in kernel.arg_names if name in known}
    types = {"t": "i32", "H": "i32", **dict.fromkeys(constexprs, "constexpr")}
    signature = {name: types.get(name, "*fp32") for name in kernel.arg_names}
    target = GPUTarget("cuda", capability, 32)
    asm = triton.compile(ASTSource(kernel, signature, constexprs), target=target).asm
    form = " ".join(["no peepholes" if v is None else v for v in constants.values()][:3])
    row = {"kernel": kernel.__name__, "form": form, "bytes": len(asm["cubin"])}
    return row | {name: asm["ptx"].count(text) for name, text in PTX.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--capability", type=int, default=90, help="compute capability, times ten")
    args = parser.parse_args()
    rows = [compiled(kernel, constants, args.capability) for kernel, constants in forms()]
    print(tabulate(rows, headers="keys", tablefmt="pipe"))


if __name__ == "__main__":
    main()
