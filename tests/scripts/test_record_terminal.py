"""scripts/record_terminal.py: what a terminal shows, frame by frame, as an SVG."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from helpers.console import CHECKOUT, load_script

SVG = "{http://www.w3.org/2000/svg}"
PROGRAM = "import time; print('early', flush=True); time.sleep(0.3); print('\\x1b[Flate')"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("record_terminal")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a\nb", "a\nb"),
        ("50 %\r75 %", "75 %"),
        ("table\nof three\nlines\n\x1b[2F\x1b[Jnew", "table\nnew"),
        ("longer\rshort\x1b[K", "short"),
        ("\x1b[31mr\x1b[0mest", "\x1b[31mr\x1b[0mest"),
    ],
)
def test_a_screen(script: ModuleType, written: str, shown: str) -> None:
    screen = script.Screen()
    screen.write(written)
    assert str(screen) == shown


def test_the_last_screens_of_equal_times_are_kept(script: ModuleType) -> None:
    screens = [(float(second), f"{second}") for second in range(100)]
    kept = script.thinned(screens, 11)
    assert len(kept) == 11
    assert (kept[0], kept[-1]) == (screens[0], screens[-1])


def test_a_recording(tmp_path: Path) -> None:
    program, output = tmp_path / "program.py", tmp_path / "recording.svg"
    program.write_text(PROGRAM)
    record = [sys.executable, str(CHECKOUT / "scripts" / "record_terminal.py")]
    options = ["--output", str(output), "--columns", "60", "--frames", "500"]
    subprocess.run([*record, *options, "--", sys.executable, str(program)], check=True)
    frames = ElementTree.parse(output).getroot().findall(f"{SVG}svg")
    first, *_, last = ("".join(frame.itertext()) for frame in frames[1:])
    assert ("early" in first, "late" in first) == (True, False)
    assert ("early" in last, "late" in last) == (False, True)
    assert len({frame.get("viewBox") for frame in frames}) == 1
