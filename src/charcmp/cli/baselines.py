"""`charcmp baselines`: scores n-grams and compressors on the test texts of a grid."""

from __future__ import annotations

from tabulate import tabulate

from charcmp.cli.line import read_line, run_composed
from charcmp.config.compose import Composer
from charcmp.config.schema import Config
from charcmp.config.spec import resolve_size, resolve_with
from charcmp.data.sources import load_corpus
from charcmp.errors import require
from charcmp.output import bits
from charcmp.runs.baselines import Baselines
from charcmp.sweeping.grid import make_grid
from charcmp.training.baselines import baselines_of


def baselines(args: list[str]) -> None:
    """Runs `charcmp baselines`."""
    run_composed(read_line("baselines", args), compute)


def compute(composer: Composer) -> None:
    """Computes what is missing for the grid's texts and budgets, and prints all of it."""
    texts: dict[tuple[object, ...], tuple[Config, set[int]]] = {}
    for config in make_grid(composer).configs():
        require(
            config.task == "lm",
            "task=fill: baselines read forward only and cannot be compared with fill-in models",
        )
        corpus = load_corpus(config.dataset, config.data_dir)
        layout = (config.dataset.layout, *config.dataset.split)
        text = (corpus.sha256, *layout, config.batch_size, config.unroll_steps)
        _, budgets = texts.setdefault(text, (config, set()))
        budgets.add(resolve_size(config, corpus.num_symbols).target_params)
    for config, budgets in texts.values():
        spec = resolve_with(config, load_corpus(config.dataset, config.data_dir))
        print_baselines(baselines_of(spec, budgets))
    print("charcmp report --full shows them beside the models")


def print_baselines(found: Baselines) -> None:
    text = found.test_text
    print(f"{found.dataset}, {text.layout}: {text.num_chars:,} test characters")
    rows = [
        {
            "baseline": baseline.name,
            "stored counts": baseline.size,
            "test nats per character": baseline.nats_per_char,
            "bits": bits(baseline.nats_per_char),
        }
        for baseline in found.baselines
    ]
    print(tabulate(rows, headers="keys", intfmt=",", floatfmt=".3f"))
    for baseline in found.baselines:
        if baseline.note:
            print(f"{baseline.name}: {baseline.note}")
    print()
