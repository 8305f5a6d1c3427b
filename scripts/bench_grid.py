"""Measures how long the paper's grid takes by a plain loop over torch.nn modules and by charcmp.

    python scripts/bench_grid.py                         (one GPU: under ten minutes)
    python scripts/bench_grid.py --device cpu --budgets 50k   (two cores: about three minutes)

Prints characters per second of training for each of the 36 shapes on War and Peace, and the time
that the whole grid's 50 epochs then take:
  (a) plain     one-hot input, nn.LSTM / nn.RNN / nn.GRU, RMSprop; one run after another. Its GRU is
                torch.nn's, which resets after the product: the paper's has no torch.nn module.
  (b) charcmp   the same, one run after another
  (c) charcmp   as a sweep runs it: in 1, 8, 16, 24 lanes on a GPU (or --lanes), in a process per
                core on a CPU. In lanes all shapes train the same share of their steps, the longest
                run first, and the time is taken until the last one ends; "busy" is the share of
                that time in which nvidia-smi saw a kernel at work.
On a CPU (a) and (b) have all cores. Symbols are drawn at random, since speed does not depend on
them. The grid's time counts an evaluated character as a third of a trained one.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from bench_trainer import TorchModel
from tabulate import tabulate
from torch import nn

from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.schema import Config
from charcmp.config.spec import RunSpec, resolve_with
from charcmp.data.chunks import Chunks, random_chunks
from charcmp.data.corpus import corpus_from_bytes
from charcmp.data.dataset import DatasetConfig
from charcmp.machine import available_cores
from charcmp.models.cells.registry import cell_config
from charcmp.sweeping.cost import FLOPS_PER_PARAM, makespan, run_seconds
from charcmp.sweeping.slots import LANE_ENVIRONMENT, make_slots
from charcmp.training.cuda_graph import wait_for
from charcmp.training.cuda_streams import at_work_on
from charcmp.training.device import device_name, keep_freed_memory, set_up
from charcmp.training.step import Step

CELLS, LAYERS = ("lstm", "rnn", "gru"), (1, 2, 3)
BUDGETS = ("50k", "130k", "400k", "1300k")
WP_CHARS, WP_SYMBOLS = 3_258_246, 87
WARM_UP_STEPS = 3


def with_evaluation(spec: RunSpec) -> float:
    """Returns how many times as long as its training a whole run takes."""
    update = spec.train_batch_size * spec.train_unroll_steps
    return run_seconds(spec, 1.0) / (spec.config.epochs * spec.updates_per_epoch * update)


def shapes(budgets: list[str], device: str) -> list[RunSpec]:
    """Returns the grid's runs, the largest first, on a text as long and varied as War and Peace."""
    text = corpus_from_bytes("wp", bytes(itertools.islice(itertools.cycle(range(87)), WP_CHARS)))
    specs = []
    for budget, layers, cell in itertools.product(budgets, LAYERS, CELLS):
        config = Config(
            cell=cell_config(cell),
            dataset=DatasetConfig("wp", "file"),
            optimizer=RMSpropConfig("rmsprop"),
            layers=layers,
            budget=budget,
            device=device,
        )
        specs.append(resolve_with(config, text))
    return sorted(specs, key=lambda spec: -spec.num_params * spec.config.layers)


def name(spec: RunSpec) -> str:
    config = spec.config
    return f"{config.budget} {config.cell.name} {config.layers}x{spec.hidden_size}"


def drawn(spec: RunSpec, device: torch.device) -> Chunks:
    return random_chunks(WP_SYMBOLS, (4, spec.unroll_steps, spec.batch_size), device)


class PlainStep:
    """A training step of (a), as one would write it with torch.nn in a minute; the text is on the
    device beforehand."""

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        self.model = TorchModel(spec.shape).to(device)
        self.parameters = list(self.model.parameters())
        for parameter in self.parameters:
            nn.init.uniform_(parameter, -0.08, 0.08)
        self.optimizer = torch.optim.RMSprop(self.parameters, lr=2e-3, alpha=0.95, eps=1e-8)
        self.chunks = itertools.cycle(drawn(spec, device).x_KTB.long())
        self.state: Any = None

    def __call__(self) -> None:
        x_TB = next(self.chunks)
        logits, state = self.model(x_TB, self.state)
        loss = F.cross_entropy(logits.flatten(0, 1), x_TB.flatten(), reduction="sum")
        self.optimizer.zero_grad()
        (loss / x_TB.shape[1]).backward()
        nn.utils.clip_grad_value_(self.parameters, 5.0)
        self.optimizer.step()
        is_pair = isinstance(state, tuple)
        self.state = tuple(s.detach() for s in state) if is_pair else state.detach()


def speed(step: Any, chars_per_step: int, device: torch.device, seconds: float) -> float:
    """Returns characters per second of a step, which is called for some seconds."""
    for _ in range(WARM_UP_STEPS):
        step()
    wait_for(device)
    num_steps, begun = 0, time.perf_counter()
    while num_steps < 3 or time.perf_counter() - begun < seconds:
        for _ in range(3):
            step()
        wait_for(device)
        num_steps += 3
    return num_steps * chars_per_step / (time.perf_counter() - begun)


def one_after_another(specs: list[RunSpec], kind: str, threads: int, seconds: float) -> list[float]:
    """Measures (a) or (b): returns characters per second of each shape, all in this process."""
    device = prepare(specs[0], threads, is_ours=kind == "charcmp")
    speeds = []
    for spec in specs:
        chars = spec.batch_size * spec.unroll_steps
        if kind == "plain":
            speeds.append(speed(PlainStep(spec, device), chars, device, seconds))
            continue
        with at_work_on(device), closing(Step(spec, device, drawn(spec, device))) as step:
            speeds.append(speed(step, chars, device, seconds))
    return speeds


def prepare(spec: RunSpec, threads: int, is_ours: bool) -> torch.device:
    device = torch.device(spec.config.device)
    torch.set_num_threads(threads)
    set_up(device, "float32")  # (a) has the same settings
    if is_ours:
        keep_freed_memory()
    return device


@dataclass(frozen=True)
class InLanes:
    """The measurement of (c) on a GPU."""

    seconds: float  # for the same share of every run
    set_up_seconds: float  # the part of these for what each run does once: its tensors, its graph
    utilization: (
        float | None
    )  # percent of the time in which a kernel was at work, as nvidia-smi says


def in_lanes(
    specs: list[RunSpec], num_lanes: int, seconds: dict[str, float], share: float
) -> InLanes:
    """Measures (c) on a GPU: trains this share of every run, in lanes of one process.

    As in a sweep, each lane captures its run's graph while others replay theirs, and then frees it.
    """
    device = prepare(specs[0], 1, is_ours=True)
    set_up_seconds = []

    def train(spec: RunSpec) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device.index or 0)
        begun = time.perf_counter()
        with at_work_on(device), closing(Step(spec, device, drawn(spec, device))) as step:
            step()
            wait_for(device)
            set_up_seconds.append(time.perf_counter() - begun)
            chunks_per_epoch = 0.8 * WP_CHARS / (spec.batch_size * spec.unroll_steps)
            for number in range(max(3, round(share * spec.config.epochs * chunks_per_epoch))):
                step()
                if number % 100 == 99:
                    wait_for(device)  # like the trainer, which never runs far ahead of the GPU
            wait_for(device)

    longest_first = sorted(specs, key=lambda spec: -seconds[name(spec)])
    with Utilization() as utilization:
        begun = time.perf_counter()
        with ThreadPoolExecutor(num_lanes) as lanes:
            list(lanes.map(train, longest_first))
        took = time.perf_counter() - begun
    return InLanes(took, sum(set_up_seconds) / num_lanes, utilization.percent)


class Utilization:
    """The utilization of the first GPU that this process may use, by nvidia-smi twice a second."""

    def __enter__(self) -> Utilization:
        self.percent: float | None = None
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "500"]
        try:
            self.asked: subprocess.Popen[str] | None = subprocess.Popen(
                ["nvidia-smi", "-i", gpu, *query], stdout=subprocess.PIPE, text=True
            )
        except OSError:
            self.asked = None
        return self

    def __exit__(self, *args: object) -> None:
        if self.asked is not None:
            self.asked.terminate()
            numbers = [line for line in self.asked.communicate()[0].split() if line.isdecimal()]
            self.percent = fmean(map(float, numbers)) if numbers else None


def side_by_side(spec: RunSpec, seconds: float) -> float:
    """Measures (c) on a CPU: returns a shape's characters per second beside other processes."""
    return one_after_another([spec], "charcmp", 1, seconds)[0]


def product_flops(device: torch.device) -> float:
    """Returns float operations per second of a large float32 product: the machine's limit."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        a @ a
        wait_for(device)
        times.append(time.perf_counter() - begun)
    return 2 * size**3 / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budgets", default=",".join(BUDGETS))
    parser.add_argument("--lanes", default="1,8,16,24", help="on a GPU: numbers, or auto")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument(
        "--lanes-seconds",
        type=float,
        default=40.0,
        help="of the measurement of one number of lanes, were lanes no gain",
    )
    args = parser.parse_args()
    on_gpu = args.device.startswith("cuda")
    os.environ.update(LANE_ENVIRONMENT)
    specs = shapes(args.budgets.split(","), args.device)
    cores = available_cores()

    def fresh(processes: int = 1) -> Executor:
        # A fresh process, so that what one loop did to the allocator does not help the next.
        context = get_context("spawn")
        return ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1)

    speeds: dict[str, list[float]] = {}
    for kind in ("plain", "charcmp"):
        with fresh() as pool:
            measure = pool.submit(one_after_another, specs, kind, cores, args.seconds)
            speeds[kind] = measure.result()
        total = sum(map(run_seconds, specs, speeds[kind])) / 60
        print(f"{kind}: the grid in {total:,.1f} min", flush=True)
    runs = {kind: [*map(run_seconds, specs, values)] for kind, values in speeds.items()}
    grid = {kind: sum(values) for kind, values in runs.items()}
    if on_gpu:
        by_name = dict(zip(map(name, specs), runs["charcmp"], strict=True))
        config = replace(specs[0].config, device=args.device)
        auto = len(make_slots(config, run_bytes=0))
        for lanes in [auto] if args.lanes == "auto" else map(int, args.lanes.split(",")):
            share = args.lanes_seconds / grid["charcmp"]
            with fresh() as pool:
                measured = pool.submit(in_lanes, specs, lanes, by_name, share).result()
            training = (measured.seconds - measured.set_up_seconds) / share
            whole = measured.set_up_seconds + training * with_evaluation(specs[0])
            used = "" if measured.utilization is None else f", {measured.utilization:.0f} % busy"
            grid[f"{lanes} lanes{used}"] = whole
            print(f"{lanes} lanes{used}: the grid in {whole / 60:,.1f} min", flush=True)
    else:
        with fresh(cores) as pool:
            speeds["sweep"] = list(pool.map(partial(side_by_side, seconds=args.seconds), specs))
        runs["sweep"] = [*map(run_seconds, specs, speeds["sweep"])]
        grid[f"{cores} processes"] = makespan(runs["sweep"], cores)

    rows = [
        {
            "shape": name(spec),
            **{kind: f"{values[number] / 1e3:,.0f}" for kind, values in speeds.items()},
            "charcmp / plain": f"{speeds['charcmp'][number] / speeds['plain'][number]:.2f}",
        }
        for number, spec in enumerate(specs)
    ]
    device = torch.device(args.device)
    print(f"{device_name(device)}, torch {torch.__version__}; thousands of characters per second")
    print(tabulate(rows, headers="keys", disable_numparse=True, stralign="right"))
    limit = product_flops(device)
    chars = run_seconds(specs[0], 1.0)
    work = sum(FLOPS_PER_PARAM * spec.num_params * chars for spec in specs)
    print(f"these {len(specs)} runs, 50 epochs each, on a machine of {limit / 1e9:,.0f} GFLOP/s:")
    print(
        tabulate(
            [
                (kind, f"{s / 60:,.1f} min", f"{grid['plain'] / s:.2f}", f"{work / s / limit:.1%}")
                for kind, s in grid.items()
            ],
            headers=["", "time", "plain / this", "of the machine's limit"],
            disable_numparse=True,
        )
    )


if __name__ == "__main__":
    main()
