"""The picture of the packages is that of the code as it stands."""

import subprocess
import sys

from helpers.console import CHECKOUT


def test_the_picture_is_of_this_code() -> None:
    script = CHECKOUT / "scripts" / "draw_packages.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "run scripts/draw_packages.py"
