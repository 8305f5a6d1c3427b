"""Checks that this code trains as an earlier commit did, to the last bit of weights and losses.

    python scripts/compare_checkouts.py fa72f44

Both versions of the code train each cell for two epochs on a text made here, in both layouts and as
a fill-in model, single-threaded, with this Python's packages. Exit status 1 if a run id, a weight
or a test loss differs.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from checkouts import CHECKOUT, worktree

CELLS = (
    *("rnn", "gru", "gru_reset_after", "lstm", "lstm_peephole", "lstm_softmax_gate"),
    "lstm_cascaded_gate",
)
OPTIONS = {
    "columns": ["dataset.layout=columns"],
    "contiguous": ["dataset.layout=contiguous", "optimizer=adam", "clip_mode=norm", "dropout=0.2"],
    "fill": ["dataset.layout=columns", "task=fill"],
}
COMPARED = ("best.safetensors", "test_nll.npy")


def write_text(file: Path) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 7))) for _ in range(200)]
    file.write_text(" ".join(rng.choices(words, k=20_000)))


def train(source: Path, folder: Path, text: Path) -> dict[str, bytes]:
    """Trains everything with the code in `source`; returns contents by run id and file name."""
    environment = {**os.environ, "PYTHONPATH": str(source / "src")}
    for cell in CELLS:
        for options in OPTIONS.values():
            command = [
                *(sys.executable, "-m", "charcmp", "train", f"cell={cell}", *options),
                *("dataset=text", f"dataset.path={text}", "epochs=2", "layers=2", "hidden_size=20"),
                *("batch_size=40", "unroll_steps=40"),
                *("device=cpu", "threads=1", f"results_dir={folder}"),
            ]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{' '.join(command)}: {done.stderr}")
    return {
        f"{run.name}/{name}": (run / name).read_bytes()
        for run in sorted((folder / "runs").iterdir())
        for name in COMPARED
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit")
    commit = parser.parse_args().commit
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        text = folder / "text.txt"
        write_text(text)
        with worktree(commit) as earlier:
            before = train(earlier, folder / "before", text)
        after = train(CHECKOUT, folder / "after", text)
    differing = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    for key in sorted(differing):
        print(f"differs: {key}")
    print(
        f"{len(before)} files of {commit}, {len(after)} of this checkout, {len(differing)} differ"
    )
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
