"""`charcmp sweep --dry-run`: what it refuses before it measures anything."""

from pathlib import Path

from helpers.console import TINY, Charcmp


def test_a_model_beyond_the_memory_is_not_built(charcmp: Charcmp, tiny_text: Path) -> None:
    args = ["dataset=text", f"dataset.path={tiny_text}", *TINY[1:], "cell=lstm", "layers=1"]
    planned = charcmp("sweep", "--dry-run", *args, "budget=50k,2000000000000")
    assert planned.returncode == 2
    (line,) = planned.stderr.splitlines()
    assert "weights and gradients alone take 16,000 GB, but this machine has" in line
    assert line.endswith("use a smaller hidden_size= or budget=")
