"""Finds the text that a run was trained on, by what the run's files say of it."""

from __future__ import annotations

from pathlib import Path

from charcmp.data.corpus import Corpus
from charcmp.data.dataset import DatasetConfig
from charcmp.data.sources import data_folders, load_corpus
from charcmp.errors import UserError
from charcmp.files import is_there
from charcmp.runs.folder import RunFolder
from charcmp.runs.reading import CorruptFileError
from charcmp.runs.result import Result, StoredConfig, read_environment


def corpus_of(
    folder: RunFolder, result: Result, config: StoredConfig, data_dir: str | None = None
) -> Corpus:
    """Loads the corpus that a run's files name, if it is on this machine.

    A run's files never cause a download. The sha256 tells whether it is the right text.

    Args:
        data_dir: a folder to look in besides; see `_places`.

    Raises:
        UserError: if no file is the run's text.
    """
    run_id, stored = result.run_id, config.dataset
    if stored is None:
        raise UserError(f"{run_id}: its configuration names no corpus")
    if stored.source in ("pydocs", "pysrc"):
        corpus = load_corpus(DatasetConfig(name=stored.source, source=stored.source))
        if corpus.sha256 != result.corpus_sha256:
            raise UserError(f"{run_id}: {stored.source} of this Python is not the run's text")
        return corpus
    places = _places(folder, result, config, data_dir)
    problems = []
    for file in filter(is_there, places):
        dataset = DatasetConfig(name=result.dataset, source="file", path=str(file))
        try:
            corpus = load_corpus(dataset)
        except UserError as error:  # an empty file, a folder: the next place may have the text
            problems.append(f"{file} cannot be used ({error})")
            continue
        if corpus.sha256 == result.corpus_sha256:
            return corpus
        problems.append(f"{file} is not the run's text")
    if not problems:
        tried = ", ".join(map(str, places))
        raise UserError(
            f"{run_id}: its text was not found; looked for {tried}; set data_dir= to its folder"
        )
    raise UserError(
        f"{run_id}: {'; '.join(problems)}; set data_dir= to the folder of the right one, whose "
        f"sha256 begins with {result.corpus_sha256[:8]}"
    )


def _places(
    folder: RunFolder, result: Result, config: StoredConfig, data_dir: str | None
) -> list[Path]:
    """Returns the paths where a run's text may be.

    These are: the path where the run read it, that path relative to the current folder, and the
    text's name in a folder of data. The files of a published run name no folder.
    """
    try:
        start = read_environment(folder.environment).working_dir
    except CorruptFileError:
        start = None
    starts = [*([Path(start)] if start else []), Path()]
    path = config.dataset and config.dataset.path
    places = [begin / path for begin in starts if path]
    name = f"{result.dataset}.txt"
    if data_dir is None and config.data_dir:
        places += [begin / config.data_dir / name for begin in starts]
    places += [where / name for where in data_folders(data_dir)]
    return list(dict.fromkeys(places))
