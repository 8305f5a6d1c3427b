"""Where corpora come from: a download, a folder, a file of the user's, or Python itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import stat
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from charcmp.data.corpus import Corpus, corpus_from_bytes
from charcmp.data.dataset import DatasetConfig, builtin_datasets, file_title
from charcmp.errors import UserError
from charcmp.files import (
    cache_dir,
    is_there,
    make_folder,
    read_error,
    read_text,
    write_bytes,
    write_json,
)
from charcmp.machine import memory_bytes

DATA_VARIABLE = "CHARCMP_DATA"
PYSRC_MAX_BYTES = 2_000_000
DOWNLOAD_TIMEOUT_SECONDS = 20
BUILT_BY = "charcmp data build-lk"
# A character takes about six bytes of memory: one in the file, one as a symbol, and inputs and
# targets twice, in the order of the text and on the device. The limit is below 2^31, so that a
# position fits in 32 bits.
MAX_TEXT_BYTES = 2_000_000_000
MEMORY_PER_CHAR = 8
MAX_RECORD_BYTES = 1 << 16  # of lk.json


class _Expected(NamedTuple):
    """What a download must be; hashable, so that a text that was read is kept."""

    url: str | None
    num_chars: int | None
    num_symbols: int | None
    stand_ins: str  # JSON


def load_corpus(dataset: DatasetConfig, data_dir: str | None = None) -> Corpus:
    """Finds, fetches or builds the text of a dataset and encodes it.

    Raises:
        UserError: if it cannot be found or read, or is not what the dataset says it is.
    """
    if dataset.path and "\0" in dataset.path:
        raise UserError(f"dataset.path={dataset.path!r}: no file can have this name")
    path = os.path.realpath(dataset.path) if dataset.path else None
    where = str(data_folders(data_dir)[0])
    name = dataset.name
    if name is None and dataset.source == "file" and dataset.path:
        name = file_title(dataset.path)  # of the path that was given, even if that is a link
    expected = _Expected(
        dataset.url, dataset.num_chars, dataset.num_symbols, json.dumps(dataset.stand_ins)
    )
    return _load(dataset.source, name, path, where, expected)


@lru_cache(maxsize=16)
def _load(
    source: str,
    name: str | None,
    path: str | None,
    data_dir: str | None,
    expected: _Expected,
) -> Corpus:
    if source == "pydocs":
        return corpus_from_bytes(name or source, pydocs())
    if source == "pysrc":
        return corpus_from_bytes(name or source, pysrc())
    if source == "file":
        if path is None or name is None:
            raise UserError("dataset=text needs a file: dataset.path=my.txt")
        return corpus_from_bytes(name, read_file(Path(path)))
    assert source == "download"
    if name is None:
        raise UserError("dataset.name=null: a download needs a name: its file is named after it")
    file = Path(path) if path else find_or_fetch(name, data_dir, expected.url)
    text = read_file(file)
    stand_ins = json.loads(expected.stand_ins)
    note = judge(file, text, expected.num_chars, expected.num_symbols, stand_ins)
    return corpus_from_bytes(name, text, note)


def read_file(path: Path) -> bytes:
    """Reads a text; UserError if it cannot, or if the text is too large for this machine."""
    return read_text(path, max_text_bytes())


def max_text_bytes() -> int:
    """Returns the size of the largest text that this machine can train on."""
    return min(MAX_TEXT_BYTES, memory_bytes() // MEMORY_PER_CHAR)


def data_folders(data_dir: str | None = None) -> list[Path]:
    """Lists where corpora are looked for: data_dir= or $CHARCMP_DATA if given, then the cache."""
    named = data_dir or os.environ.get(DATA_VARIABLE)
    return [*([Path(named)] if named else []), cache_dir()]


def find(name: str, data_dir: str | None = None) -> Path | None:
    """Returns the corpus's file; None if it is not on this machine."""
    for folder in data_folders(data_dir):
        file = folder / f"{name}.txt"
        if is_there(file):
            return file
    return None


def find_or_fetch(name: str, data_dir: str | None, url: str | None) -> Path:
    """Returns the corpus's file, downloading it into the cache folder if it is not here yet."""
    if (file := find(name, data_dir)) is not None:
        return file
    if url is None:
        raise UserError(f"dataset {name}: {name}.txt is not in {data_dir or 'the data folder'}")
    return fetch(name, url)


def fetch(name: str, url: str) -> Path:
    """Downloads a corpus with a progress bar; an unfinished file never has the final name."""
    import logging

    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        file = pooch.retrieve(
            url,
            known_hash=None,  # size and number of symbols decide: see judge()
            fname=f"{name}.txt",
            path=cache_dir(),
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=DOWNLOAD_TIMEOUT_SECONDS),
        )
    except (requests.RequestException, OSError) as error:
        raise UserError(
            f"{name}.txt is in no data folder and could not be downloaded "
            f"({type(error).__name__}). Get it from {url}, save it as {name}.txt and name "
            f"its folder in {DATA_VARIABLE} or data_dir=; or use dataset=pydocs, which needs "
            "no network"
        ) from None
    return Path(file)


def judge(
    file: Path,
    text: bytes,
    num_chars: int | None,
    num_symbols: int | None,
    stand_ins: dict[str, str],
) -> str | None:
    """Decides whether a file is the corpus: by size and number of distinct bytes.

    A known stand-in (by its sha256, or by the record that `charcmp data build-lk` leaves beside its
    file) is accepted too.

    Returns:
        What a reader of the results must know about the text, or None.

    Raises:
        UserError: if it is neither. A bad file in the cache is set aside, so it is fetched again,
            unless it is the text of the built-in dataset of its name.
    """
    sha256 = hashlib.sha256(text).hexdigest()
    if sha256 in stand_ins:
        return f"stand-in: {stand_ins[sha256]}"
    if (note := built_note(file.with_suffix(".json"), sha256)) is not None:
        return f"stand-in: {note}"
    if num_chars is None or num_symbols is None:
        raise UserError(
            f"{file}: cannot check that this is the corpus without dataset.num_chars= and "
            "dataset.num_symbols=; to use any text, pass dataset=text dataset.path=..."
        )
    found = (len(text), len(set(text)))
    if found == (num_chars, num_symbols):
        return None
    has = f"{file}: {found[0]:,} bytes ({found[1]} distinct)"
    if _is_builtin(file.stem, found, sha256):
        raise UserError(
            f"{has}: the text of dataset={file.stem}, but dataset.num_chars={num_chars} "
            f"dataset.num_symbols={num_symbols} describe another; leave them out"
        )
    advice = "get it again, or use it as dataset=text dataset.path=..."
    if cache_dir() in file.parents:
        with contextlib.suppress(OSError):  # if the cache may not be written
            file.replace(file.with_suffix(".txt.bad"))
            advice = "set aside; the next command fetches it again"
    raise UserError(
        f"{has}, but the corpus has {num_chars:,} ({num_symbols} distinct): truncated or altered; "
        f"{advice}"
    )


def _is_builtin(name: str, found: tuple[int, int], sha256: str) -> bool:
    """Returns whether a text is one that the built-in dataset of this name accepts."""
    return any(
        found == (known.num_chars, known.num_symbols) or sha256 in known.stand_ins
        for known in builtin_datasets().values()
        if known.name == name
    )


def built_note(record_file: Path, sha256: str) -> str | None:
    """Returns the note that `charcmp data build-lk` left on the text with this sha256, if any."""
    try:
        record = json.loads(read_text(record_file, MAX_RECORD_BYTES))
    except (UserError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("sha256") != sha256:
        return None
    note = record.get("note")
    return note if isinstance(note, str) and note.isprintable() else None


def shuffled_sources(root: Path, patterns: tuple[str, ...], seed: int = 0) -> list[Path]:
    """Returns the files below `root` that match, shuffled; only names and seed decide the order."""
    files = sorted(
        {file for pattern in patterns for file in root.rglob(pattern) if file.is_file()},
        key=lambda file: file.relative_to(root).as_posix(),
    )
    random.Random(seed).shuffle(files)
    return files


def pydocs() -> bytes:
    """Returns the prose of Python's own language reference, as `help()` shows it."""
    from pydoc_data.topics import topics

    return "\n".join(topics[key] for key in sorted(topics)).encode()


def pysrc() -> bytes:
    """Returns the first 2 million bytes of Python's standard library, files in a shuffled order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "lib2to3",
        "__pycache__",
    }
    text = bytearray()
    for file in shuffled_sources(root, ("*.py",)):
        if skipped.isdisjoint(file.relative_to(root).parts):
            text += file.read_bytes()
        if len(text) >= PYSRC_MAX_BYTES:
            break
    if not text:
        raise UserError(f"pysrc: no .py files below {root}")
    return bytes(text[:PYSRC_MAX_BYTES])


def build_lk(tree: Path, folder: Path) -> Path:
    """Makes lk.txt by the paper's recipe: all *.c and *.h of a Linux tree's kernel/, shuffled.

    Writes lk.txt and, beside it, lk.json, which says what it is. Returns the path of lk.txt.

    Raises:
        UserError: if `tree` is not a kernel tree or cannot be read, or if the paper's own lk.txt
            is in `folder`.
        UserError, StorageError: if `folder` cannot be written.
    """
    root = tree / "kernel"
    if not is_there(root, stat.S_ISDIR):
        raise UserError(f"{tree}: no kernel/ folder in it; name the root of a Linux source tree")
    try:
        files = shuffled_sources(root, ("*.c", "*.h"))
    except OSError as error:  # a folder that may not be searched
        raise read_error(root, error) from None
    if not files:
        raise UserError(f"{root}: no .c or .h files in it")
    text = b"".join(map(read_file, files))
    record = {
        "note": f"kernel/ of a Linux tree, {len(files)} files, shuffled; built by {BUILT_BY}",
        "sha256": hashlib.sha256(text).hexdigest(),
        "num_files": len(files),
    }
    make_folder(folder)
    file = folder / "lk.txt"
    if _is_the_papers_lk(file):
        raise UserError(f"{file}: the paper's own text, better than a stand-in; move it away first")
    write_bytes(file, text)  # first: an earlier text needs its own record if the disk is full
    write_json(folder / "lk.json", record)
    return file


def _is_the_papers_lk(file: Path) -> bool:
    known = builtin_datasets()["lk"]
    if not is_there(file, stat.S_ISREG) or file.stat().st_size != known.num_chars:
        return False
    return len(set(read_file(file))) == known.num_symbols
