"""Measures how long the n-gram baselines take, step by step, and the losses that they reach.

    CHARCMP_DATA=folder python scripts/bench_ngram.py wp         (a minute on one core)
    python scripts/bench_ngram.py lk --budgets 50k --max-context 20

Seconds are processor time, counted from the beginning of each table. Losses are nats per character.
Corpora are split as the paper split them.
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import islice

from tabulate import tabulate

from charcmp.data.corpus import PAPER_SIZE, split_corpus
from charcmp.data.dataset import builtin_datasets
from charcmp.data.sources import load_corpus
from charcmp.models.budget import DEFAULT_BUDGET, target_params
from charcmp.models.ngram import by_context, grams_of, nats_under, prune
from charcmp.report.paper import SPLITS
from charcmp.training.baselines import mean_nats, text_of


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dataset", choices=list(SPLITS))
    parser.add_argument("--budgets", nargs="+", default=[DEFAULT_BUDGET, "130k"])
    parser.add_argument("--max-context", type=int, default=10)
    args = parser.parse_args()
    corpus = load_corpus(builtin_datasets()[args.dataset])
    splits = split_corpus(corpus, "columns", SPLITS[args.dataset], PAPER_SIZE, PAPER_SIZE)
    train_BC, val_BC, test_BC = map(text_of, (splits.train, splits.val, splits.test))
    lengths = args.max_context + 1

    begun, rows = time.process_time(), []
    for scored in islice(by_context(train_BC, [val_BC, test_BC], corpus.num_symbols), lengths):
        row = {"context": scored.context, "stored counts": f"{scored.num_counts:,}"}
        for name, nats_BC in zip(("val", "test"), scored.nats, strict=True):
            row[name] = mean_nats(getattr(splits, name), nats_BC)
        rows.append(row | {"seconds": time.process_time() - begun})
    print(tabulate(rows, headers="keys", floatfmt=("d", "", ".4f", ".4f", ".1f")), end="\n\n")

    begun, rows = time.process_time(), []
    grams = list(islice(grams_of(train_BC, corpus.num_symbols), lengths))
    for budget in args.budgets:
        num_counts = target_params(budget, corpus.num_symbols)
        for length in range(4, lengths + 1):
            orders = prune(grams[:length], num_counts)
            row = {"context": length - 1, "stored counts": f"{num_counts:,}"}
            for name, text_BC in (("val", val_BC), ("test", test_BC)):
                nats_BC = nats_under(orders, text_BC, corpus.num_symbols)
                row[name] = mean_nats(getattr(splits, name), nats_BC)
            rows.append(row | {"seconds": time.process_time() - begun})
    print(tabulate(rows, headers="keys", floatfmt=("d", "", ".4f", ".4f", ".1f")), end="\n\n")
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"most memory: {kilobytes / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
