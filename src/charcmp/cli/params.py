"""`charcmp params`: prints hidden sizes and parameter counts, and trains nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from charcmp.cli.line import read_line, run_composed
from charcmp.config.compose import Composer
from charcmp.config.schema import Config
from charcmp.config.spec import resolve_size
from charcmp.data.dataset import is_fetched
from charcmp.data.sources import find, load_corpus
from charcmp.models.budget import BUDGETS, deviation_percent
from charcmp.models.cells.registry import cell_title
from charcmp.sweeping.grid import make_grid


@dataclass(frozen=True)
class SizeRow:
    """The size that a configuration leads to, and how far it is off the budget."""

    dataset: str | None
    task: str
    cell: str
    layers: int
    budget: str
    hidden_size: int
    num_params: int
    target_params: int
    deviation_percent: float


def params(args: list[str]) -> None:
    """Runs `charcmp params`."""
    line = read_line("params", args)
    run_composed(line, lambda composer: print_params(composer, "--json" in line.flags))


def print_params(composer: Composer, as_json: bool) -> None:
    # Runs that differ in seed, say, have the same row, which is shown once.
    rows = list(dict.fromkeys(map(size_row, make_grid(composer).configs())))
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print(tabulate(list(map(_printed, rows)), headers="keys", intfmt=",", floatfmt="+.2f"))
        for line in _targets(rows):
            print(line)


def _printed(row: SizeRow) -> dict[str, Any]:
    """Returns a row with short headings that fit into 80 columns."""
    return {
        "dataset": row.dataset,
        **({} if row.task == "lm" else {"task": row.task}),
        "cell": row.cell,
        "layers": row.layers,
        "budget": row.budget,
        "hidden": row.hidden_size,
        "params": row.num_params,
        "off %": row.deviation_percent,
    }


def _targets(rows: Iterable[SizeRow]) -> list[str]:
    """Returns a line for each corpus on its named budgets: `wp: 50k = 44,823 parameters`."""
    targets: dict[str | None, dict[str, int]] = {}
    for row in rows:
        if row.budget in BUDGETS:
            targets.setdefault(row.dataset, {})[row.budget] = row.target_params
    lines = []
    for dataset, of_text in targets.items():
        budgets = ", ".join(f"{name} = {count:,}" for name, count in of_text.items())
        lines.append(f"{dataset}: {budgets} parameters")
    return lines


def size_row(config: Config) -> SizeRow:
    name, num_symbols = _vocabulary(config)
    size = resolve_size(config, num_symbols)
    count = size.shape.num_params
    return SizeRow(
        dataset=name,
        task=config.task,
        cell=cell_title(config.cell),
        layers=config.layers,
        budget=size.budget,
        hidden_size=size.shape.hidden_size,
        num_params=count,
        target_params=size.target_params,
        deviation_percent=round(deviation_percent(count, size.target_params), 3),
    )


def _vocabulary(config: Config) -> tuple[str | None, int]:
    """Returns a corpus's name and number of symbols.

    For the paper's corpora these are known even if their files are not here.
    """
    dataset = config.dataset
    is_here = dataset.path or not is_fetched(dataset) or find(str(dataset.name), config.data_dir)
    if not is_here and dataset.num_symbols is not None:
        return dataset.name, dataset.num_symbols
    corpus = load_corpus(dataset, config.data_dir)
    return corpus.name, corpus.num_symbols
