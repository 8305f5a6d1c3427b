"""Measures how long one layer's chunk takes on a GPU, with and without the fused kernels.

    python scripts/bench_kernels.py
    python scripts/bench_kernels.py --cells gru lstm --hidden-sizes 64 128 256 512

One chunk is forward and backward of a first layer, with T = B = 100 over 87 symbols. Each form is
captured as a CUDA graph and replayed; the two take turns. Without the kernels a layer runs by cuDNN
if that has its equations, else by separate torch calls. Prints microseconds per chunk (median over
rounds), and how many times as fast the fused form is.

On a CPU there is no graph, and TRITON_INTERPRET=1 is needed. That only shows that the script runs.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from tabulate import tabulate
from turns import seconds_of, take_turns

from charcmp.models.cells.fused import dispatch as fused
from charcmp.models.cells.modes import forced
from charcmp.models.cells.registry import CELLS, cell_config, make_layer

V = 87
MODES: tuple[fused.Mode, ...] = ("never", "always")


def chunk_of(
    cell_name: str, activation: str, H: int, steps: int, batch: int, device: torch.device
) -> tuple[Callable[[], None], bool]:
    """Returns a function that runs one chunk, and whether cuDNN has the cell."""
    cell = make_layer(cell_config(cell_name, activation=activation), V, H).to(device)
    x_TB = torch.randint(V, (steps, batch), device=device)
    state_SBH = torch.zeros(cell.num_states, batch, H, device=device)
    grad_h_TBH = torch.randn(steps, batch, H, device=device)
    parameters = list(cell.parameters())

    def chunk() -> None:
        h_TBH, _ = cell(x_TB, state_SBH)
        torch.autograd.grad(h_TBH, parameters, grad_h_TBH)

    return chunk, cell.in_cudnn


def captured(
    chunk: Callable[[], None], mode: fused.Mode, device: torch.device
) -> Callable[[], None]:
    """Returns a function that runs the chunk in one of the forms; on a GPU it replays a graph."""
    if device.type == "cpu":

        def plain() -> None:
            with forced(fused, mode):
                chunk()

        return plain
    stream = torch.cuda.Stream()
    with forced(fused, mode):
        with torch.cuda.stream(stream):
            for _ in range(3):
                chunk()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            chunk()
    return graph.replay


def microseconds(run: Callable[[], None], repeats: int, device: torch.device) -> float:
    def runs() -> None:
        for _ in range(repeats):
            run()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 1e6 * seconds_of(runs) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [name for name in CELLS if name != "gru_reset_after"]
    parser.add_argument("--cells", nargs="+", default=names, choices=names)
    parser.add_argument("--activation", default="tanh", choices=["tanh", "softsign"])
    parser.add_argument("--hidden-sizes", nargs="+", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=10, help="chunks in a round")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    args = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False  # as in the trainer
    rows = []
    for name in args.cells:
        for H in args.hidden_sizes:
            shape = args.steps, args.batch
            chunk, in_cudnn = chunk_of(name, args.activation, H, *shape, args.device)
            forms = {
                mode: partial(
                    microseconds, captured(chunk, mode, args.device), args.repeats, args.device
                )
                for mode in MODES
            }
            times = take_turns(forms, args.rounds)
            without, with_kernels = map(statistics.median, times.values())
            label = "cuDNN" if in_cudnn and args.device.type == "cuda" else "torch calls"
            rows.append(
                {
                    "cell": name,
                    "H": H,
                    "without": label,
                    "without, µs": without,
                    "fused, µs": with_kernels,
                    "times as fast": without / with_kernels,
                }
            )
    print(tabulate(rows, headers="keys", floatfmt=".2f", tablefmt="pipe"))


if __name__ == "__main__":
    main()
