"""docs/options.md has the commands and keys of the code as it stands."""

import subprocess
import sys

from helpers.console import CHECKOUT


def test_the_document_is_of_this_code() -> None:
    script = CHECKOUT / "scripts" / "write_options.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "run scripts/write_options.py"
