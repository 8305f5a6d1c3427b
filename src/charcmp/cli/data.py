"""`charcmp data`: lists, downloads and builds corpora."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from charcmp.cli.one_line import one_line_errors
from charcmp.data.dataset import builtin_datasets, is_fetched
from charcmp.errors import UserError
from charcmp.files import is_there
from charcmp.output import note


def data(args: list[str]) -> None:
    """Runs `charcmp data`."""
    with one_line_errors():
        match args:
            case []:
                list_data()
            case ["fetch", *names]:
                fetch_data(names)
            case ["build-lk", tree, *rest] if len(rest) <= 1:
                from charcmp.data import sources

                folder = Path(rest[0]) if rest else sources.data_folders()[0]
                print(
                    f"wrote {sources.build_lk(Path(tree), folder)}, a stand-in for the paper's LK"
                )
            case _:
                raise UserError(f"data {' '.join(args)}: not understood; charcmp data --help")


def list_data() -> None:
    from charcmp.data import sources

    folder = sources.data_folders()[0]
    if os.environ.get(sources.DATA_VARIABLE) and not is_there(folder, stat.S_ISDIR):
        note(f"{sources.DATA_VARIABLE}={folder}: no such folder")
    print(f"{'dataset':8} {'bytes':>10} {'distinct':>8}  sha256")
    for name, dataset in builtin_datasets().items():
        if is_fetched(dataset) and sources.find(name) is None:
            print(
                f"{name:8} not here: charcmp data fetch {name}, or {sources.DATA_VARIABLE}=folder"
            )
            continue
        try:
            corpus = sources.load_corpus(dataset)
        except UserError as error:
            print(f"{name:8} {error}")
            continue
        line = f"{name:8} {corpus.num_chars:10,} {corpus.num_symbols:8}  {corpus.sha256}"
        print(line + (f"  ({corpus.note})" if corpus.note else ""))


def fetch_data(names: list[str]) -> None:
    from charcmp.data import sources

    datasets = {name: each for name, each in builtin_datasets().items() if is_fetched(each)}
    for name in names or datasets:
        if name not in datasets:
            raise UserError(f"data fetch {name}: only {' and '.join(datasets)} can be fetched")
        corpus = sources.load_corpus(datasets[name])
        print(f"{name}: {corpus.num_chars:,} bytes, sha256 {corpus.sha256}")
