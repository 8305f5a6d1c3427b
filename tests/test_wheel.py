"""The built wheel: carries conf/ and the plugins, and works in any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers.console import CHECKOUT, python_example


@pytest.mark.long
def test_the_wheel_works_in_any_folder(tmp_path: Path, tiny_text: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(tmp_path), str(CHECKOUT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert (site / "charcmp" / "conf" / "experiment" / "paper.yaml").is_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {**os.environ, "PYTHONPATH": str(site)}

    def python(*args: str) -> str:
        command = [sys.executable, *args]
        done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = python("-c", "import charcmp.files as f; print(f.config_dir())")
    assert Path(where.strip()) == site / "charcmp" / "conf"
    shown = python("-m", "charcmp", "params", "dataset=wp", "budget=50k", "cell=lstm", "layers=1")
    assert "44,823" in shown

    # A class of one's own against one of a package, from file to table.
    pytest.importorskip("torchrecurrent")
    (elsewhere / "my_cell.py").write_text(python_example("your_own_cell.md"))
    shutil.copy(tiny_text, elsewhere / "my.txt")
    targets = "cell.target=my_cell.py:MyCell,torchrecurrent.MGU"
    small = ["my.txt", "epochs=2", "budget=1500", "batch_size=10", "unroll_steps=10", "device=cpu"]
    python("-m", "charcmp", "sweep", "cell=module", targets, *small)
    assert {"MyCell", "MGU"} <= set(python("-m", "charcmp", "report", "--full").split())
