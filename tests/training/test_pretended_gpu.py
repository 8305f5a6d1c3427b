"""A step as Python arranges it on a GPU, without one: see helpers/pretended_gpu.py."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.console import CHECKOUT

pytest.importorskip("triton")


@pytest.mark.slow  # forty seconds
def test_steps_on_a_pretended_gpu() -> None:
    cases = Path(__file__).with_name("pretended_gpu_cases.py")
    args = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(cases)]
    done = subprocess.run(
        [sys.executable, *args], cwd=CHECKOUT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
