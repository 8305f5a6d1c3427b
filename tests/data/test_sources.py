"""Where corpora come from: real files, a real web server, Python itself."""

import hashlib
import http.server
import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.console import REAL_DATA, Charcmp, needs_corpora

from charcmp.data import sources
from charcmp.data.dataset import DatasetConfig, builtin_datasets, safe_name
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
        source="download",
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


def test_a_slip_in_the_numbers_costs_no_download(tmp_path, monkeypatch) -> None:
    """A file of the length and the number of symbols of War and Peace lies in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(sources.DATA_VARIABLE, raising=False)
    known = builtin_datasets()["wp"]
    assert known.num_chars is not None
    file = tmp_path / "charcmp" / "wp.txt"
    file.parent.mkdir()
    file.write_bytes((bytes(range(87)) * 40_000)[: known.num_chars])
    mistyped = replace(known, num_chars=known.num_chars - 1)
    with pytest.raises(UserError, match=r"dataset=wp, but dataset\.num_chars=3258245 .*leave them"):
        sources.load_corpus(mistyped)
    assert file.exists()
    assert sources.load_corpus(known).num_symbols == 87


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


def test_build_lk_leaves_the_papers_own_text(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "a.c").write_text("int a;\n")
    lk = builtin_datasets()["lk"]
    assert lk.num_chars is not None
    assert lk.num_symbols is not None
    text = bytes(range(lk.num_symbols)).ljust(lk.num_chars, b"\0")
    (tmp_path / "lk.txt").write_bytes(text)
    with pytest.raises(UserError, match=r"lk\.txt: the paper's own text"):
        sources.build_lk(tmp_path, tmp_path)
    assert (tmp_path / "lk.txt").read_bytes() == text


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
    [
        ("my book", "my-book"),
        ("日本語", "text"),
        ("Война и мир", "text"),
        ("../../etc", "etc"),
        ("a.b_c-d", "a.b_c-d"),
    ],
)
def test_safe_names(stem: str, safe: str) -> None:
    assert safe_name(stem) == safe


def test_a_file_of_ones_own(tmp_path) -> None:
    file = tmp_path / "some book.txt"
    file.write_bytes("日本語のテキスト".encode() * 5)
    dataset = DatasetConfig(source="file", path=str(file))
    corpus = sources.load_corpus(dataset)
    assert corpus.name == "some book"
    assert sources.load_corpus(replace(dataset, name="mine")).name == "mine"
    for path, message in ((tmp_path, "a folder"), (Path("nowhere.txt"), "no such file")):
        with pytest.raises(UserError, match=message):
            sources.load_corpus(replace(dataset, path=str(path)))
    with pytest.raises(UserError, match=r"dataset\.path=my\.txt"):
        sources.load_corpus(replace(dataset, path=None))


@pytest.mark.parametrize(
    ("file", "title"),
    [
        ("a/Война и мир.txt", "Война и мир"),
        ("戦争.txt", "戦争"),
        ("my book.tar.gz", "my book.tar"),
        ("a\x1b[31m\u202eb.txt", "a\ufffd[31m\ufffdb"),  # an escape sequence, text turned round
        (os.fsdecode(b"\xff.txt"), "\ufffd"),
        (" .txt", "text"),
        ("x" * 200, "x" * 80),
        ("my/wp.txt", "wp (file)"),  # not the paper's text
    ],
)
def test_titles(file: str, title: str) -> None:
    assert sources.file_title(file) == title


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


NO_TEXTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "a pipe, not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "a device, not a regular file"),
    "a folder": (Path.mkdir, "a folder, not a file"),
    "a socket": (a_socket, "No such device or address"),
    "a link to itself": (lambda path: path.symlink_to(path), "symbolic links"),
    "a link to nothing": (lambda path: path.symlink_to(path.with_name("gone")), "no such file"),
    "too large": (
        lambda path: (path.touch(), os.truncate(path, 2_000_000_001)),
        "2,000,000,001 bytes, but .* has room for at most .*head -c",
    ),
}


@pytest.mark.parametrize(("make", "complaint"), NO_TEXTS.values(), ids=list(NO_TEXTS))
def test_what_is_no_text(tmp_path: Path, make: Callable[[Path], object], complaint: str) -> None:
    """By every way to a text; nothing waits for a pipe's writer or reads a device to its end."""
    file = tmp_path / "pp.txt"
    make(file)
    own = DatasetConfig(source="file", path=str(file))
    with pytest.raises(UserError, match=complaint) as raised:
        sources.load_corpus(own)
    assert "\n" not in str(raised.value)
    if complaint in ("symbolic links", "no such file"):
        return  # there is no file: the paper's would be downloaded
    named = DatasetConfig(name="pp", source="download", num_chars=5, num_symbols=2)
    with pytest.raises(UserError, match=complaint):
        sources.load_corpus(named, str(tmp_path))


def test_a_download_that_does_not_say_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "pp.txt"
    file.write_bytes(b"ababa")
    path = str(file)
    nameless = DatasetConfig(source="download", path=path, num_chars=5, num_symbols=2)
    with pytest.raises(UserError, match=r"^dataset\.name=null: a download needs a name: "):
        sources.load_corpus(nameless)
    for known in ({"num_chars": 5}, {"num_symbols": 2}):
        with pytest.raises(UserError, match=r"pp\.txt: .* without dataset\.num_chars= and "):
            sources.load_corpus(DatasetConfig("pp", "download", path, **known))
    assert file.exists()
    stand_ins = {hashlib.sha256(b"ababa").hexdigest(): "of another edition"}
    known_otherwise = DatasetConfig("pp", "download", path, stand_ins=stand_ins)
    assert sources.load_corpus(known_otherwise).note == "stand-in: of another edition"


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "/dev/null/x"])
def test_impossible_names(path: str) -> None:
    with pytest.raises(UserError):
        sources.load_corpus(DatasetConfig(source="file", path=path))
    assert sources.find(path, path) is None


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    """Somebody else writes, as a download does; the reader needs longer than a line takes."""
    file = tmp_path / "growing.txt"
    file.write_bytes(b"line\n" * 10_000_000)
    stop = threading.Event()

    def write() -> None:
        with file.open("ab", buffering=0) as opened:
            while not stop.is_set():
                opened.write(b"more\n" * 100)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(UserError, match="changed while it was read"):
            sources.read_file(file)
    finally:
        stop.set()
        writer.join()


def test_the_largest_text_fits_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources.max_text_bytes() <= sources.MAX_TEXT_BYTES
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 1000))
    assert sources.max_text_bytes() == 512_000


@pytest.mark.parametrize(
    "record", ["[" * 100_000, "null", '{"sha256": 5}', "\udcff", '{"note": "x\\u001b"}'], ids=repr
)
def test_a_record_beside_lk_that_is_none(tmp_path: Path, record: str) -> None:
    (tmp_path / "lk.txt").write_bytes(TEXT)
    sha256 = hashlib.sha256(TEXT).hexdigest()
    text = record.replace('{"note"', f'{{"sha256": "{sha256}", "note"')
    (tmp_path / "lk.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="truncated or altered"):
        sources.load_corpus(builtin_datasets()["lk"], str(tmp_path))


def test_charcmp_data_in_odd_folders(charcmp: Charcmp, tmp_path: Path) -> None:
    (tmp_path / "wp.txt").mkdir()
    os.mkfifo(tmp_path / "lk.txt")
    done = charcmp("data", CHARCMP_DATA=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"wp       {tmp_path}/wp.txt: a folder, not a file\n" in done.stdout
    assert f"lk       {tmp_path}/lk.txt: a pipe, not a regular file\n" in done.stdout
    assert "pydocs" in done.stdout
    for nowhere in ("no-such-folder", "x" * 5000):
        done = charcmp("data", CHARCMP_DATA=nowhere)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"note: CHARCMP_DATA={nowhere}: no such folder\n" in done.stdout


def test_build_lk_from_odd_trees(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.mkdir()
    (kernel / "a.c").write_text("int a;\n")
    os.mkfifo(kernel / "b.c")  # not read
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "lk.txt").mkdir(parents=True)
    for folder, complaint in (("file", "File exists"), ("taken", "lk.txt: cannot be written")):
        with pytest.raises(UserError, match=complaint):
            sources.build_lk(tmp_path, tmp_path / folder)
    assert not (tmp_path / "taken" / "lk.json").exists()  # nor is an earlier one replaced
    assert sources.build_lk(tmp_path, tmp_path / "out").read_text() == "int a;\n"
    os.truncate(kernel / "a.c", 2_000_000_001)
    with pytest.raises(UserError, match="has room for at most"):
        sources.build_lk(tmp_path, tmp_path / "out")


def test_a_text_is_named_after_the_path_that_was_given_even_if_it_is_a_link(tmp_path: Path) -> None:
    stored = tmp_path / "SHA256-ab12.bin"
    stored.write_bytes(TEXT * 10)
    (tmp_path / "my.txt").symlink_to(stored)
    linked, itself = (
        sources.load_corpus(DatasetConfig(source="file", path=str(path)))
        for path in (tmp_path / "my.txt", stored)
    )
    assert (linked.name, itself.name) == ("my", "SHA256-ab12")
    assert linked.sha256 == itself.sha256
