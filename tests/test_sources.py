"""Where corpora come from: real files, a real web server, Python itself."""

import hashlib
import http.server
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REAL_DATA, needs_corpora

from charcmp import sources
from charcmp.commands import builtin_datasets
from charcmp.config import DatasetConfig
from charcmp.errors import UserError

TEXT = b"It is a truth universally acknowledged\r\n" * 20


@pytest.fixture
def paper_like(tmp_path, monkeypatch):
    """A dataset that a local server offers as the author's site offers War and Peace."""
    site, cache = tmp_path / "site", tmp_path / "cache"
    site.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv(sources.DATA_VARIABLE, raising=False)
    sources._load.cache_clear()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(site))

        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    dataset = DatasetConfig(
        name="pp",
        source="paper",
        url=f"http://127.0.0.1:{server.server_port}/pp.txt",
        num_chars=len(TEXT),
        num_symbols=len(set(TEXT)),
    )
    yield dataset, site / "pp.txt"
    server.shutdown()
    sources._load.cache_clear()


def test_fetched_once_then_from_the_cache(paper_like) -> None:
    dataset, offered = paper_like
    offered.write_bytes(TEXT)
    corpus = sources.load_corpus(dataset)
    assert (corpus.num_chars, corpus.note) == (len(TEXT), None)
    assert corpus.sha256 == hashlib.sha256(TEXT).hexdigest()
    offered.unlink()
    sources._load.cache_clear()
    assert sources.load_corpus(dataset).sha256 == corpus.sha256


@pytest.mark.parametrize("bad", [TEXT[:-5], TEXT.replace(b"I", b"i"), b"<html>not found</html>"])
def test_truncated_or_altered_download_is_refused_and_fetched_again(paper_like, bad) -> None:
    dataset, offered = paper_like
    offered.write_bytes(bad)
    with pytest.raises(UserError, match="truncated or altered; set aside"):
        sources.load_corpus(dataset)
    offered.write_bytes(TEXT)
    assert sources.load_corpus(dataset).num_chars == len(TEXT)


def test_no_network_and_no_file(paper_like) -> None:
    dataset, _ = paper_like
    nobody = replace(dataset, url="http://127.0.0.1:9/pp.txt")
    with pytest.raises(UserError, match=r"(?s)CHARCMP_DATA or data_dir=.*dataset=pydocs"):
        sources.load_corpus(nobody)


def test_found_in_the_named_folder_without_network(paper_like, tmp_path, monkeypatch) -> None:
    dataset = replace(paper_like[0], url="http://127.0.0.1:9/pp.txt")
    folder = tmp_path / "my data"
    folder.mkdir()
    (folder / "pp.txt").write_bytes(TEXT)
    assert sources.load_corpus(dataset, str(folder)).num_chars == len(TEXT)
    monkeypatch.setenv(sources.DATA_VARIABLE, str(folder))
    assert sources.load_corpus(dataset).num_chars == len(TEXT)


def test_a_users_own_bad_file_is_refused_but_stays(paper_like, tmp_path) -> None:
    (tmp_path / "pp.txt").write_bytes(TEXT + b"!")
    with pytest.raises(UserError, match=r"truncated or altered; .*dataset=text"):
        sources.load_corpus(paper_like[0], str(tmp_path))
    assert (tmp_path / "pp.txt").read_bytes() == TEXT + b"!"


def test_build_lk_makes_an_accepted_stand_in(tmp_path) -> None:
    kernel = tmp_path / "linux" / "kernel"
    (kernel / "sched").mkdir(parents=True)
    for number in range(5):
        (kernel / f"a{number}.c").write_text(f"int a{number};\n")
        (kernel / "sched" / f"b{number}.h").write_text(f"int b{number};\n")
    (kernel / "Makefile").write_text("obj-y")
    out = tmp_path / "out"
    file = sources.build_lk(tmp_path / "linux", out)
    text = file.read_text()
    assert sorted(text.splitlines()) == sorted([f"int {x}{n};" for x in "ab" for n in range(5)])
    assert text.splitlines() != sorted(text.splitlines())  # shuffled
    sources.build_lk(tmp_path / "linux", out)
    assert file.read_text() == text  # always the same way
    corpus = sources.load_corpus(builtin_datasets()["lk"], str(out))
    assert corpus.note is not None
    assert corpus.note.startswith("stand-in: kernel/ of a Linux tree, 10 files")
    record = json.loads((out / "lk.json").read_text())
    file.write_text(text + "tampered")
    sources._load.cache_clear()
    with pytest.raises(UserError, match="truncated or altered"):
        sources.load_corpus(builtin_datasets()["lk"], str(out))
    assert record["num_files"] == 10


def test_build_lk_wants_a_kernel_tree(tmp_path) -> None:
    with pytest.raises(UserError, match="no kernel/ folder"):
        sources.build_lk(tmp_path, tmp_path)


@needs_corpora
def test_real_files_are_what_they_are() -> None:
    datasets = builtin_datasets()
    assert sources.load_corpus(datasets["wp"], str(REAL_DATA)).note is None
    lk = sources.load_corpus(datasets["lk"], str(REAL_DATA))
    assert lk.note is not None
    assert lk.note.startswith("stand-in: kernel/ of Linux v4.1-rc6")


def test_pythons_own_texts() -> None:
    assert len(sources.pydocs()) > 300_000
    assert b"assert" in sources.pydocs()
    assert sources.pysrc() == sources.pysrc()
    assert len(sources.pysrc()) == sources.PYSRC_MAX_BYTES


@pytest.mark.parametrize(
    ("stem", "safe"),
    [("my book", "my-book"), ("日本語", "text"), ("../../etc", "etc"), ("a.b_c-d", "a.b_c-d")],
)
def test_safe_names(stem: str, safe: str) -> None:
    assert sources.safe_name(stem) == safe


def test_a_file_of_ones_own(tmp_path) -> None:
    file = tmp_path / "some book.txt"
    file.write_bytes("日本語のテキスト".encode() * 5)
    dataset = DatasetConfig(source="file", path=str(file))
    corpus = sources.load_corpus(dataset)
    assert corpus.name == "some-book"
    assert sources.load_corpus(replace(dataset, name="mine")).name == "mine"
    for path, message in ((tmp_path, "a folder"), (Path("nowhere.txt"), "no such file")):
        with pytest.raises(UserError, match=message):
            sources.load_corpus(replace(dataset, path=str(path)))
    with pytest.raises(UserError, match=r"dataset\.path=my\.txt"):
        sources.load_corpus(replace(dataset, path=None))
