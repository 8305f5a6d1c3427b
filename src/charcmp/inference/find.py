"""Finds the folder of a run by its name."""

from __future__ import annotations

import stat
from pathlib import Path

from charcmp.errors import UserError
from charcmp.files import is_there
from charcmp.runs.folder import RunFolder, run_folders, runs_dir
from charcmp.runs.status import run_status

MAX_NAMED = 8  # most runs that a message names


def find_run(name: str, results_dir: str) -> Path:
    """Finds the folder of a run.

    Args:
        name: the run's id; or a beginning of it that no other run's id has, or at least no other
            finished run's; or else the path of a folder.

    Raises:
        UserError: if there is none, or the beginning is ambiguous.
    """
    folder = runs_dir(results_dir)
    ids = [path.name for path in run_folders(folder)]
    matches = [name] if name in ids else [run_id for run_id in ids if run_id.startswith(name)]
    if len(matches) > 1:
        states = {run_id: run_status(RunFolder(folder / run_id)).state for run_id in matches}
        done = [run_id for run_id in matches if states[run_id] == "done"]
        if len(done) != 1:
            shown = done or [f"{run_id} ({states[run_id]})" for run_id in matches]
            listed = ", ".join(shown[:MAX_NAMED]) + (", ..." if len(shown) > MAX_NAMED else "")
            which = "finished runs" if done else "runs, none of them finished,"
            raise UserError(f"run={name}: {len(shown)} {which} begin with this: {listed}")
        matches = done
    if matches:
        return folder / matches[0]
    if is_there(Path(name), stat.S_ISDIR):
        return Path(name)
    raise UserError(f"run={name}: no run id in {folder} begins with this, and it is not a folder")
