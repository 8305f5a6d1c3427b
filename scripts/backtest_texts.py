"""Makes the texts of the back-test of `charcmp recommend` from packages of Debian 12 and of Python.

    python scripts/backtest_texts.py FOLDER

Needs `apt-get download` and `dpkg-deb`; installs nothing. Prints the number of bytes and the sha256
of every text: another release of a package gives another text, hence another back-test.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from charcmp.data.dataset import DatasetConfig
from charcmp.data.sources import load_corpus

MAX_BYTES = 6_000_000


class Text(NamedTuple):
    package: str  # of Debian
    files: str  # pattern of paths in the package
    max_bytes: int = MAX_BYTES


TEXTS = {
    "anarchism": Text("anarchism", "usr/share/doc/anarchism/html/*.html"),  # English, HTML removed
    "fortunes_bg": Text("fortunes-bg", "usr/share/games/fortunes/bg/*"),
    "fortunes_de": Text("fortunes-de", "usr/share/games/fortunes/de/*"),
    "fortunes_es": Text("fortunes-es", "usr/share/games/fortunes/es/*"),
    "fortunes_it": Text("fortunes-it", "usr/share/games/fortunes/it/*"),
    "fortunes_pl": Text("fortunes-pl", "usr/share/games/fortunes/pl/*"),
    "fortunes_ru": Text("fortunes-ru", "usr/share/games/fortunes/ru/*", 1_000_000),
    "perl_doc": Text("perl-doc", "usr/share/perl/*/pod/*.pod", 2_000_000),
    "emacs_lisp": Text("emacs-el", "usr/share/emacs/*/lisp/*.el.gz", 3_000_000),
    "cpp_headers": Text("libstdc++-12-dev", "usr/include/c++/12/bits/*", 2_000_000),
}
OF_PYTHON = ("pydocs", "pysrc")
TAG = re.compile(rb"<[^>]*>")


def contents(file: Path) -> bytes:
    text = file.read_bytes()
    if file.suffix == ".gz":
        text = gzip.decompress(text)
    return TAG.sub(b"", text) if file.suffix == ".html" else text


def is_text(file: Path) -> bool:
    """Returns whether a file is text, rather than, say, the index of a file of fortunes."""
    return file.is_file() and not file.is_symlink() and file.suffix not in (".dat", ".u8")


def joined(files: Iterable[Path], max_bytes: int) -> bytes:
    """Joins the contents of the text files, in order of name, up to `max_bytes`."""
    return b"".join(contents(file) for file in sorted(files) if is_text(file))[:max_bytes]


def from_debian(text: Text) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["apt-get", "download", "-q", text.package],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (package,) = Path(folder).glob("*.deb")
        root = Path(folder) / "root"
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
        return joined(root.glob(text.files), text.max_bytes)


def of_python(source: str) -> bytes:
    corpus = load_corpus(DatasetConfig(name=source, source=source, layout="contiguous"), None)
    return bytes(corpus.vocabulary[symbol] for symbol in corpus.symbols_N)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: from_debian(text) for name, text in TEXTS.items()}
    made |= {name: of_python(name) for name in OF_PYTHON}
    for name, text in sorted(made.items()):
        (folder / f"{name}.txt").write_bytes(text)
        print(f"{name}.txt  {len(text):>9,} bytes  {hashlib.sha256(text).hexdigest()}")


if __name__ == "__main__":
    main()
