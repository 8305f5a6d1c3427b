"""`charcmp params`: prints hidden sizes and parameter counts, and trains nothing."""

from __future__ import annotations

import json
from typing import Any

from tabulate import tabulate

from charcmp.cli.line import read_line, run_composed
from charcmp.config.compose import Composer
from charcmp.config.schema import Config
from charcmp.config.spec import resolve_size
from charcmp.data.dataset import is_fetched
from charcmp.data.sources import find, load_corpus
from charcmp.models.budget import BUDGETS
from charcmp.models.cells.registry import cell_title
from charcmp.sweeping.grid import make_grid


def params(args: list[str]) -> None:
    """Runs `charcmp params`."""
    line = read_line("params", args)
    run_composed(line, lambda composer: print_params(composer, "--json" in line.flags))


def print_params(composer: Composer, as_json: bool) -> None:
    rows: list[dict[str, Any]] = []
    for config in make_grid(composer).configs():
        row = size_row(config)
        if row not in rows:  # runs that differ in seed, say, have the same row
            rows.append(row)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        print(tabulate(list(map(_printed, rows)), headers="keys", intfmt=",", floatfmt="+.2f"))
        for line in _targets(rows):
            print(line)


def _printed(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row with short headings that fit into 80 columns."""
    return {
        "dataset": row["dataset"],
        **({} if row["task"] == "lm" else {"task": row["task"]}),
        "cell": row["cell"],
        "layers": row["layers"],
        "budget": row["budget"],
        "hidden": row["hidden_size"],
        "params": row["num_params"],
        "off %": row["deviation_percent"],
    }


def _targets(rows: list[dict[str, Any]]) -> list[str]:
    """Returns a line for each corpus on its named budgets: `wp: 50k = 44,823 parameters`."""
    targets: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["budget"] in BUDGETS:
            targets.setdefault(row["dataset"], {})[row["budget"]] = row["target_params"]
    lines = []
    for dataset, of_text in targets.items():
        budgets = ", ".join(f"{name} = {count:,}" for name, count in of_text.items())
        lines.append(f"{dataset}: {budgets} parameters")
    return lines


def size_row(config: Config) -> dict[str, Any]:
    """Returns the size that a configuration leads to, and how far it is off the budget."""
    name, num_symbols = _vocabulary(config)
    size = resolve_size(config, num_symbols)
    count = size.shape.num_params
    return {
        "dataset": name,
        "task": config.task,
        "cell": cell_title(config.cell),
        "layers": config.layers,
        "budget": size.budget,
        "hidden_size": size.shape.hidden_size,
        "num_params": count,
        "target_params": size.target_params,
        "deviation_percent": round(100 * (count / size.target_params - 1), 3),
    }


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
