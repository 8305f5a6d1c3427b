"""The built wheel: carries conf/ and the plugins, and works in any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers.console import CHECKOUT


@pytest.mark.long
def test_the_wheel_works_in_any_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(tmp_path), str(CHECKOUT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert (site / "charcmp" / "conf" / "experiment" / "paper.yaml").is_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    args = ["params", "dataset=wp", "budget=50k", "cell=lstm", "layers=1"]
    where = "import charcmp.files as f; print(f.config_dir())"
    env = {**os.environ, "PYTHONPATH": str(site)}
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=elsewhere, env=env, capture_output=True, text=True
    )
    assert Path(found.stdout.strip()) == site / "charcmp" / "conf"
    shown = subprocess.run(
        [sys.executable, "-m", "charcmp", *args],
        cwd=elsewhere,
        env=env,
        capture_output=True,
        text=True,
    )
    assert "44,823" in shown.stdout, shown.stderr
