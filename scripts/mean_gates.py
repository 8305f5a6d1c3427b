"""How far the gates of trained models stand open on their validation text.

    python scripts/mean_gates.py results
    python scripts/mean_gates.py results --runs '*-lstm_cascaded_gate-*'

Prints one line for each run and layer: the mean value of every gate over characters, rows and
units (charcmp.gates.mean_gates).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tabulate import tabulate

from charcmp.errors import UserError
from charcmp.gates import mean_gates
from charcmp.trained import runs_with_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results_dir", type=Path)
    parser.add_argument("--runs", nargs="+", default=["*"], help="patterns of run ids")
    args = parser.parse_args()
    rows = []
    for run in runs_with_weights(args.results_dir, args.runs):
        model, chunks = run.model(), run.chunks("val")
        for layer, gates in enumerate(mean_gates(model, chunks), start=1):
            rows.append({"run": run.run_id, "layer": layer, **gates})
    print(tabulate(rows, headers="keys", floatfmt=".3f"))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"mean_gates: {error}")
