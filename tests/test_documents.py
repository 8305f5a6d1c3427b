"""README.md, CONTRIBUTING.md, docs/ and Makefile: their commands run or parse, their links lead
somewhere."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from helpers.console import CHECKOUT, call, load_script, python_example, write_tiny_text
from markdown_it import MarkdownIt

from charcmp.cli.commands import RACE_DECIDES

build_docs = load_script("build_docs")
DOCUMENTS = [file for file in build_docs.documents() if file.name not in ("LOG.md", "CHANGELOG.md")]
EXTRAS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]
# Each is in a document as an example of what to type; the text says what belongs there.
PLACEHOLDER = re.compile(r"\b(COMMAND|TREE|FOLDER|COMMIT|FILE|RUN|linux-4\.1)\b|\.\.\.")
PROGRAMS = ("charcmp", "python", "bash", "make", "pip", "pytest")
OTHERS = (".", "eval", "head", "pre-commit", "source", "tensorboard")
NAMES = ((), ("sample",), ("score",), ("doctor",), ("params",))
FLAGS = ("--dry-run", "--no-cost", "--retry-failed", "--fail-fast", "--cfg", "job")
NOT_HERE = ("hydra", "gpus=", "minutes=")  # launchers, hardware; what a race alone has
TRAINING = ("train", "sweep", "recommend", "baselines")
NOTHING_YET = ("no finished run", "no runs", "is not the run's text")
AXES = {"cell": "lstm", "layers": "1", "budget": "50k", "seed": "0", "dataset": "wp"}


def commands(document: Path) -> list[str]:
    """The lines of its shell blocks, and what stands in the text as code and begins like one."""
    found = []
    for block in MarkdownIt("commonmark").enable("table").parse(document.read_text()):
        if block.type == "fence" and block.info == "sh":
            found += block.content.replace("\\\n", " ").splitlines()
        for token in block.children or []:
            if token.type == "code_inline" and token.content.split()[0] in PROGRAMS:
                found.append(token.content.replace("\n", " "))
    return [part.strip() for line in found for part in re.split(r"&&| \| ", line)]


MAKEFILE = (CHECKOUT / "Makefile").read_text()
OF_MAKEFILE = re.findall(r"\$\(BIN\)/(charcmp [^'\n]+)", MAKEFILE)
ALL = sorted({*OF_MAKEFILE, *(line for document in DOCUMENTS for line in commands(document))})


def words_of(program: str) -> list[list[str]]:
    """The arguments of every command that calls it with some."""
    lines = [shlex.split(line, comments=True) for line in ALL if not PLACEHOLDER.search(line)]
    found = {tuple(words[1:]) for words in lines if words and Path(words[0]).name == program}
    # As `charcmp sample` in a sentence, which needs a run.
    return [list(words) for words in sorted(found) if words not in NAMES]


def test_every_program_is_known() -> None:
    split = [shlex.split(line, comments=True) for line in ALL]
    first = {Path(words[0]).name or words[0] for words in split if words}
    assert first <= {*PROGRAMS, *OTHERS}
    assert sum(len(words_of(program)) for program in PROGRAMS) > 70


def test_what_the_commands_name_is_there() -> None:
    for target in (words[0] for words in words_of("make") if words):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for script in (words[0] for name in ("python", "bash") for words in words_of(name)):
        assert (CHECKOUT / script).is_file(), script
    for words in words_of("pip"):
        for extra in re.findall(r"\[(.*?)\]", words[-1]):
            assert set(extra.split(",")) <= EXTRAS.keys(), words
    markers = {words[words.index("-m") + 1] for words in words_of("pytest")}
    settings = (CHECKOUT / "pyproject.toml").read_text()
    assert all(f'"{marker}:' in settings for marker in markers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the documents talk of; the paper's texts by their size alone."""
    folder = tmp_path_factory.mktemp("documents")
    for name in ("my.txt", "another.txt"):
        write_tiny_text(folder / name)
    for name, size, distinct in (("wp", 3_258_246, 87), ("lk", 6_206_996, 101)):
        symbols = bytes(range(distinct))
        (folder / f"{name}.txt").write_bytes(
            symbols * (size // distinct) + symbols[: size % distinct]
        )
    (folder / "my_cell.py").write_text(python_example("your_own_cell.md"))
    return folder


def as_dry_run(args: list[str]) -> list[str]:
    """What lists the runs that a command would train: of axes that it does not name, one value."""
    if any(arg.startswith("cell.target=") for arg in args):  # in a race it goes with other cells
        args = [*(arg for arg in args if not arg.startswith("cell=")), "cell=module"]
    given = {"dataset" if arg == "my.txt" else arg.partition("=")[0] for arg in args}
    if "hidden_size" in given:
        given.add("budget")
    if "experiment" in given:  # its variants may have options of their cells
        given.add("cell")
    args = [*args, *(f"{key}={value}" for key, value in AXES.items() if key not in given)]
    args = [arg for arg in args if not arg.startswith(NOT_HERE) and arg not in FLAGS]
    return ["sweep", "--dry-run", "--no-cost", *args]


def with_a_run(args: list[str]) -> list[str]:
    """The arguments for a run that is here: the published LSTM in place of a user's own models."""
    args = [arg for arg in args if not arg.startswith(("target=", "results_dir="))]
    args = [
        "run=wp-lstm-1x64" if arg.startswith(("run=my-", "run=RUN_ID")) else arg for arg in args
    ]
    return [*args, f"results_dir={CHECKOUT / 'results' / 'weights'}"]


@pytest.mark.long
@pytest.mark.parametrize("args", words_of("charcmp"), ids=" ".join)
def test_the_command_is_understood(args: list[str], folder: Path) -> None:
    command, *rest = args
    if command == "recommend":
        keys = {arg.partition("=")[0] for arg in rest if arg != "experiment=fast"}
        assert not keys & set(RACE_DECIDES)
    if command in TRAINING and "--help" not in rest:
        args = as_dry_run(rest)
    elif command in ("sample", "score"):
        args = [command, *with_a_run(rest)]
    elif command == "doctor":  # of a GPU, or seconds of checks: it has tests of its own
        args = [command, "--help"]
    args = [arg for arg in args if arg not in ("--watch", "--published")]  # both take their time
    done = call(*args, cwd=folder, env={"CHARCMP_DATA": str(folder), "HOME": str(folder)})
    assert done.returncode == 0 or any(line in done.stderr for line in NOTHING_YET), done.stderr


def test_a_trained_model_continues_a_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CHECKOUT)
    threads = torch.get_num_threads()
    try:
        exec(python_example("trained_models.md"), {})
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out == "b'w'\n"


@pytest.mark.long
def test_the_site_builds_and_every_link_leads_somewhere() -> None:
    script = CHECKOUT / "scripts" / "build_docs.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (CHECKOUT / "build" / "site" / "index.html").is_file()


def test_the_readme_stays_short() -> None:
    assert (CHECKOUT / "README.md").stat().st_size <= 10_000
