"""What a race reads of itself when it goes on."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from charcmp.errors import LostLeaseError, StorageError, UserError
from charcmp.runs.folder import RunFolder
from charcmp.sweeping.race.state import StateFile


def begun(file: Path) -> StateFile:
    state = StateFile(RunFolder(file.parent), "0" * 64, {})
    state.length_of(0, lambda: 400)
    return state


def test_a_state_that_the_disk_does_not_deliver_is_not_called_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "race.json"
    begun(file)
    really_open = os.open

    def open_or_fail(path: Any, *args: Any, **options: Any) -> int:
        if path == file:
            raise OSError(errno.EIO, "Input/output error")
        return really_open(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_or_fail)
        with pytest.raises(StorageError, match=r"race\.json: Input/output error; nothing was"):
            begun(file)
    assert begun(file).state.lengths == [400]


def test_a_broken_state_is_named_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "race.json"
    file.write_text('{"version": 2')
    with pytest.raises(UserError, match=r"race\.json: .*; move it away to begin a new race"):
        begun(file)
    assert file.read_text() == '{"version": 2'


def test_a_rung_is_over_when_the_next_has_begun_even_if_the_race_is_started_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "race.json"
    state = begun(file)
    assert not state.is_over(0)
    state.length_of(1, lambda: 1200)
    assert [begun(file).is_over(rung) for rung in (0, 1)] == [True, False]
    assert state.length_of(2, lambda: None) is None
    assert not begun(file).is_over(1)
    state.length_of(2, lambda: 3600)
    assert [begun(file).is_over(rung) for rung in (1, 2)] == [True, False]
    state.seeds_begin()
    assert begun(file).is_over(2)
    old = json.loads(file.read_text())
    del old["seeds_begun"]  # as an earlier charcmp wrote it
    file.write_text(json.dumps(old))
    assert not begun(file).is_over(2)


def test_a_race_that_another_process_has_taken_over_writes_nothing_more(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.leased():
        state = StateFile(folder, "0" * 64, {})
        state.length_of(0, lambda: 400)
        folder.lease.path.unlink()
        with pytest.raises(LostLeaseError, match="has taken it over"):
            state.note_time()
    assert json.loads(state.file.read_text())["seconds_spent"] == 0
