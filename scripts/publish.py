"""Packs finished runs into results/paper/, and rewrites the report there from all its runs.

    python scripts/publish.py RESULTS_DIR [--to results/paper] [--allow-dirty] [--without-losses]
                              [--with-weights]

Publishes small files of each finished run, in which no folder of the machine is named: result.json,
config.yaml, environment.json, history.json and, unless the run diverged, test_blocks.npz; and all
of baselines/. Running it again changes nothing, and nothing published is ever deleted. Exit status
1 if a run was refused: not of a clean commit, say, or if a folder of the machine is left in it.

--without-losses leaves out test_blocks.npz and the report, for runs that are published for the
table of another script. --with-weights adds best.safetensors (4 bytes a parameter), so that the
published run can be used by charcmp sample and score, mean_gates.py and gradient_reach.py.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from charcmp.config.literal import PATH_KEYS
from charcmp.errors import UserError
from charcmp.files import as_json, write_bytes
from charcmp.report.load import check_result
from charcmp.report.make import FORMATS, PUBLISHED, make_report
from charcmp.runs.baselines import baselines_dir, read_baselines
from charcmp.runs.folder import RunFolder, run_folders, runs_dir
from charcmp.runs.reading import CorruptFileError
from charcmp.uncertainty.losses import BLOCKS_FILE, num_series, pack, read_nll

# Keys that say where and how fast a run was computed, but do not change what it is.
MACHINE_KEYS = (*PATH_KEYS, "jobs", "threads")
FOLDER_FLAGS = ("--config-dir", "--config-path", "-cd", "-cp")
ABSOLUTE_PATH = re.compile(r"""(^|[\s=:,'"({[])/[^\s/]""")


def packed_files(
    run: RunFolder,
    allow_dirty: bool = False,
    with_losses: bool = True,
    with_weights: bool = False,
) -> dict[str, bytes] | None:
    """Returns the files of a run to publish, by name; None if it is not finished.

    Raises:
        UserError: if the run may not be published; says why.
    """
    try:
        if (result := run.read_result()) is None:
            return None
        check_result(result, run.result)
        if not allow_dirty and (result.git_dirty is not False or not result.git_commit):
            raise UserError("not of a clean commit (--allow-dirty publishes it all the same)")
        files = {
            "result.json": run.result.read_bytes(),
            "config.yaml": without_machine(run.config).encode(),
            "environment.json": as_json(without_paths(json.loads(run.environment.read_text()))),
            "history.json": run.history.read_bytes(),
        }
        if with_losses and result.status == "done":
            nll_N = read_nll(run.test_nll, result.num_test_chars)
            files[BLOCKS_FILE] = pack(nll_N, num_series(result), result.unroll_steps)
        if with_weights and result.status == "done":
            files[run.best.name] = run.best.read_bytes()
    except (CorruptFileError, OSError, json.JSONDecodeError) as error:
        raise UserError(str(error)) from None
    for name in ("config.yaml", "environment.json"):
        for line in files[name].decode().splitlines():
            if ABSOLUTE_PATH.search(line):
                raise UserError(f"{name} names a folder of this machine: {line.strip()}")
    return files


def without_machine(config_file: Path) -> str:
    """Returns the resolved configuration without the machine's keys, headed by the run's id."""
    config = OmegaConf.load(config_file)
    assert isinstance(config, DictConfig)
    for key in MACHINE_KEYS:
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        node.pop(leaf, None)
    if (target := OmegaConf.select(config, "cell.target")) is not None:
        config.cell.target = without_folder(target)
    header = config_file.read_text().splitlines()[0]
    return f"{header}\n{OmegaConf.to_yaml(config)}"


def without_paths(environment: dict[str, Any]) -> dict[str, Any]:
    """Returns an environment and those of the run's earlier starts without any paths."""
    cleaned = {key: value for key, value in environment.items() if key != "working_dir"}
    if "command" in cleaned:
        cleaned["command"] = shlex.join(words_without_paths(shlex.split(cleaned["command"])))
    if "earlier_starts" in cleaned:
        cleaned["earlier_starts"] = [without_paths(start) for start in cleaned["earlier_starts"]]
    return cleaned


def words_without_paths(words: Iterable[str]) -> Iterator[str]:
    """Yields the words of a command, without those that name a folder; files by their names."""
    left = iter(words)
    for word in left:
        key, equals, value = word.partition("=")
        if key in FOLDER_FLAGS:
            if not equals:
                next(left, None)  # the folder
        elif key.lstrip("+") == "cell.target":
            yield f"{key}={without_folder(value)}"
        elif key.lstrip("+") not in PATH_KEYS:
            yield Path(word).name if word.startswith("/") else word  # the text: train /a/my.txt


def without_folder(target: str) -> str:
    """Returns a `cell.target` with only the name of its file, if it names one."""
    return Path(target.strip("'\"")).name if ".py:" in target else target


def write_if_changed(folder: Path, files: dict[str, bytes]) -> bool:
    """Writes the files that are missing or differ; returns whether there were any."""

    changed = {
        name: contents
        for name, contents in files.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != contents
    }
    for name, contents in changed.items():
        write_bytes(folder / name, contents)
    return bool(changed)


def publish(
    results_dir: Path,
    to: Path,
    allow_dirty: bool = False,
    formats: Sequence[str] = FORMATS,
    with_losses: bool = True,
    with_weights: bool = False,
) -> int:
    """Packs the finished runs of a folder; returns how many were refused.

    Raises:
        UserError: if there is no run, or `to` cannot be written.
    """
    num_published = num_unchanged = num_refused = num_unfinished = 0
    for path in run_folders(runs_dir(results_dir)):
        try:
            files = packed_files(RunFolder(path), allow_dirty, with_losses, with_weights)
        except UserError as error:
            print(f"refused: {path.name}: {error}")
            num_refused += 1
            continue
        if files is None:
            num_unfinished += 1
            continue
        target = RunFolder(runs_dir(to) / path.name)
        target.create()
        if write_if_changed(target.path, files):
            size = sum(map(len, files.values()))
            print(f"published: {path.name} ({size / 1000:.0f} KB)")
            num_published += 1
        else:
            num_unchanged += 1
    print(
        f"{num_published} runs published, {num_unchanged} unchanged, {num_refused} refused, "
        f"{num_unfinished} not finished"
    )
    publish_baselines(results_dir, to)
    if with_losses:
        make_report(to, out=to / "report", formats=formats)
    return num_refused


def publish_baselines(results_dir: Path, to: Path) -> None:
    """Copies the files of `charcmp baselines`; leaves out those that cannot be read."""
    for file in sorted(baselines_dir(results_dir).glob("*.json")):
        try:
            if read_baselines(file) is None:
                continue
        except CorruptFileError as error:
            print(f"refused: {error}")
            continue
        baselines_dir(to).mkdir(parents=True, exist_ok=True)
        if write_if_changed(baselines_dir(to), {file.name: file.read_bytes()}):
            print(f"published: {file.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results_dir", type=Path, help="holds runs/")
    parser.add_argument("--to", type=Path, default=PUBLISHED, help="default: %(default)s")
    parser.add_argument("--allow-dirty", action="store_true", help="also runs of uncommitted code")
    parser.add_argument(
        "--without-losses", action="store_true", help="no test_blocks.npz, and no report"
    )
    parser.add_argument(
        "--with-weights", action="store_true", help="best.safetensors too, of each run"
    )
    options = parser.parse_args()
    try:
        num_refused = publish(
            options.results_dir,
            options.to,
            options.allow_dirty,
            with_losses=not options.without_losses,
            with_weights=options.with_weights,
        )
        sys.exit(num_refused > 0)
    except UserError as error:
        sys.exit(f"publish: {error}")


if __name__ == "__main__":
    main()
