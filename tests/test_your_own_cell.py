"""docs/your_own_cell.md: its file and its commands, as they stand there."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

DOC = Path(__file__).parents[1] / "docs" / "your_own_cell.md"


@pytest.mark.long
def test_the_document_does_what_it_says(charcmp, tmp_path: Path, tiny_text: Path) -> None:
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```", DOC.read_text(), re.M | re.S))
    work = tmp_path / "work"
    (work / "my_cell.py").write_text(blocks["python"])
    shutil.copy(tiny_text, work / "my.txt")
    shown = []
    for line in blocks["sh"].splitlines():
        program, *args = shlex.split(line)
        assert program == "charcmp"
        done = charcmp(*args)
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout)
    _, swept, reported, sampled = shown
    assert "cell.target=my_cell.py:MyCell: cell.kind=step cell.states=1" in swept
    assert "2 of 2 runs finished" in swept
    for name in ("MyCell", "LSTM", "GRU (origin=torch "):
        assert name in (work / "results" / "report" / "report.html").read_text()
    one_line = " ".join(reported.split())
    assert re.search(r"own, not the protocol's: GRU \(origin=torch [\d.]+\), MyCell\.", one_line)
    assert len(sampled) >= 100
