"""The command line: what it prints, and one clear line for everything that can be wrong."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from helpers.console import TINY, Charcmp, in_turn
from helpers.runs import write_run

from charcmp.cli.commands import COMMANDS


def one_line(error: str) -> str:
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("charcmp: ")]
    assert len(lines) == 1, error
    return lines[0]


def test_the_configuration_is_printed_without_torch(tmp_path: Path) -> None:
    (done,) = in_turn(["train", "--cfg", "job"], cwd=tmp_path)
    assert "\ncell:\n" in done.stdout
    assert "torch" not in done.loaded


def test_the_paper_is_the_default(charcmp: Charcmp) -> None:
    shown = charcmp("train", "--cfg", "job").stdout
    assert shown == charcmp("train", "experiment=paper", "--cfg", "job").stdout
    for line in ("epochs: 50", "batch_size: null", "unroll_steps: null", "clip: 5.0", "lr: 0.002"):
        assert line in shown


def test_params_of_the_whole_grid(charcmp: Charcmp) -> None:
    rows = json.loads(charcmp("params", "--json", CHARCMP_DATA="").stdout)
    assert len(rows) == 72
    assert set(rows[0]) == {
        *("dataset", "task", "cell", "layers", "budget", "hidden_size", "num_params"),
        *("target_params", "deviation_percent"),
    }
    assert max(abs(row["deviation_percent"]) for row in rows) < 1.2  # as docs/protocol.md says
    assert rows[0]["num_params"] == rows[0]["target_params"] == 44_823


def test_params_need_neither_corpus_nor_network(charcmp: Charcmp) -> None:
    shown = charcmp("params", "dataset=wp", "budget=50k", "cell=gru", "layers=2", "--json")
    row = json.loads(shown.stdout)[0]
    assert (row["hidden_size"], row["num_params"], row["target_params"]) == (53, 44_448, 44_823)
    assert row["deviation_percent"] == pytest.approx(-0.837, abs=1e-3)


def test_params_of_a_download_whose_symbols_are_not_known(charcmp: Charcmp) -> None:
    shown = charcmp("params", "dataset=text", "dataset.source=download", "dataset.name=x")
    assert shown.returncode == 2
    assert len(shown.stderr.splitlines()) == 1


def test_params_of_a_class_with_arguments(charcmp: Charcmp) -> None:
    """As docs/your_own_cell.md has them; a grid over them, too."""
    grid = ["cell=module", "cell.target=torch.nn.GRU", "layers=1", "budget=50k", "dataset=wp"]
    found = [
        json.loads(charcmp("params", *grid, f"cell.kwargs={kwargs}", "--json").stdout)
        for kwargs in ("{bias: false}", "{bias:true},{bias:false}")
    ]
    assert [len(rows) for rows in found] == [1, 2]
    assert found[0][0] == found[1][1]
    assert found[1][0]["num_params"] != found[1][1]["num_params"]
    shown = charcmp("train", *grid, "cell.kwargs={bias: false}", "--cfg", "job").stdout
    assert "\n  kwargs:\n    bias: false\n" in shown


def test_params_of_any_number(charcmp: Charcmp) -> None:
    table = charcmp("params", "dataset=wp", "cell=rnn", "layers=1,2", "budget=60000").stdout
    assert len(table.splitlines()) == 4
    assert " 60000 " in table


def test_a_table_of_sizes_fits_80_columns(charcmp: Charcmp) -> None:
    cells = "cell=lstm_cascaded_gate,gru"
    table = charcmp("params", "dataset=wp,lk", cells, "budget=50k,1300k", "task=lm").stdout
    assert max(map(len, table.splitlines())) <= 80
    assert table.splitlines()[-2:] == [
        "wp: 50k = 44,823, 1300k = 1,275,479 parameters",
        "lk: 50k = 49,317, 1300k = 1,311,333 parameters",
    ]


def test_data_lists_what_is_there(charcmp: Charcmp) -> None:
    lines = charcmp("data", CHARCMP_DATA="").stdout.splitlines()
    assert any(re.match(r"pysrc +2,000,000 +\d+  [0-9a-f]{64}$", line) for line in lines)
    assert any(line.startswith("wp ") and "charcmp data fetch wp" in line for line in lines)


BAD = {
    "cell": (["cell=elman"], "cell=elman: one of gru, gru_reset_after, lstm", "rnn"),
    "dataset": (["dataset=bible"], "dataset=bible: one of lk, pydocs", "wp"),
    "a cell mistyped": (["cell=gur"], "cell=gur: one of gru", "did you mean gru?"),
    "a choice mistyped": (["init=xavir"], "one of uniform, xavier", "did you mean xavier?"),
    "an activation mistyped": (["cell.activation=tahn"], "tahn: lstm has", "did you mean tanh?"),
    "key": (["layer=2"], "unknown key 'layer'; did you mean layers?", "--help lists the keys"),
    "added key": (["+layer=2"], "unknown key 'layer'; did you mean layers?", ""),
    "no such key": (["xyz=2"], "unknown key 'xyz'; charcmp train --help lists the keys", ""),
    "a group's key alone": (["lr=0.1"], "unknown key 'lr'; did you mean optimizer.lr?", ""),
    "... mistyped": (["warmup_epoch=1"], "did you mean optimizer.warmup_epochs?", ""),
    "... in its group": (["optimizer.shedule=x"], "did you mean optimizer.schedule?", ""),
    "added to a group": (["+optimizer.momentum=0.9"], "unknown key 'optimizer.momentum'", ""),
    "added to a cell": (["cell=gru", "+cell.forget_bias=1"], "key 'cell.forget_bias'", ""),
    "deleted key": (["~epochs"], "missing key 'epochs'", "--help lists the keys"),
    "deleted choice": (["~cell"], "missing key 'cell'", "--help lists the keys"),
    "no cell": (["cell=null"], "cell needs a choice", "--help lists them"),
    "type": (["layers=two"], "layers=two: Value 'two'", "converted to Integer"),
    "option of another cell": (["cell=rnn", "cell.forget_bias=1"], "no forget_bias", ""),
    "option of a variant": (["cell.open_bias=1"], "this cell has no open_bias", ""),
    "activation": (["cell.activation=relu"], "cell.activation=relu: lstm has tanh, softsign", ""),
    "no activation": (["cell=gru_reset_after", "cell.activation=softsign"], "has tanh", ""),
    "bias": (["cell.forget_bias=nan"], "forget_bias=nan: must be a finite number, or null", ""),
    "init": (["init=zeros"], "init=zeros: one of uniform, xavier, orthogonal", ""),
    "init_range": (["init_range=inf"], "init_range=inf: must be positive", "finite"),
    "zero layers": (["layers=0"], "layers=0: must be at least 1", ""),
    "selecting a dropout": (["dropout=select"], "several runs", "charcmp sweep dropout=select"),
    "dropout": (["dropout=1"], "dropout=1.0: must be in [0, 1)", ""),
    "layout": (["dataset.layout=rows"], "one of columns, contiguous", ""),
    "split": (["dataset.split=[80,10]"], "three positive percentages", ""),
    "precision": (["precision=int4"], "one of float32, tf32", "the paper's is float32"),
    "tf32 on a CPU": (["precision=tf32"], "precision=tf32: needs a GPU", "uses the cpu"),
    "both sizes": (["budget=50k", "hidden_size=64"], "give one of them", ""),
    "budget": (["budget=lots"], "neither a named budget", "60000"),
    "small budget": (["budget=60"], "budget=60: no hidden size meets it", "hidden_size=1"),
    "device": (["device=tpu"], "device=tpu", "auto, cpu, cuda"),
    "a name that is a path": (["dataset.name=../x"], "dataset.name=../x: letters", "names folders"),
    "no results folder": (["results_dir="], "results_dir=: name a folder", ""),
    "unknown name of a cell": (["cell.name=elman"], "unknown cell 'elman': one of rnn", ""),
    "name of another cell": (["cell.name=gru"], "choose the cell with cell=gru instead", ""),
    "optimizer": (["optimizer=lion"], "optimizer=lion: one of adagrad", "adamw"),
    "name of another optimizer": (["optimizer=adam", "optimizer.name=sgd"], "name=sgd: ", "adamw"),
    "option of another optimizer": (["optimizer=sgd", "optimizer.alpha=1"], "has no alpha", ""),
    "learning rate": (["optimizer.lr=inf"], "optimizer.lr=inf: must be positive and finite", ""),
    "schedule": (["optimizer.schedule=step"], "one of exponential, cosine, constant", ""),
    "warm-up": (["optimizer.warmup_epochs=3"], "warmup_epochs=3: must be fewer", ""),
    "sizes of an update": (
        ["dataset.layout=columns", "train_batch_size=4"],
        "must be a divisor of batch_size=18",
        "",
    ),
    "an update of one stream": (
        ["dataset.layout=contiguous", "train_batch_size=1"],
        "train_batch_size=1: in a contiguous text give it or batch_size, not both",
        "",
    ),
    "an update of one step, filled in": (
        ["dataset.layout=columns", "task=fill", "train_unroll_steps=1"],
        "train_unroll_steps=1: only task=lm can use it",
        "",
    ),
    "warm-up of another unit": (
        ["optimizer.rate_per=update", "optimizer.warmup_epochs=1"],
        "with rate_per=update the warm-up is set by warmup_updates",
        "",
    ),
    "betas": (["optimizer=adam", "optimizer.betas=[0.9]"], "betas=[0.9]: must be two, each", ""),
    "nesterov": (["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], "needs", ""),
    "weight decay": (["optimizer=adamw", "optimizer.weight_decay=-1"], "must be 0 or more", ""),
    "reset state": (["reset_state=chunk"], "reset_state=chunk: one of never, epoch", ""),
    "clip mode": (["clip_mode=global"], "clip_mode=global: one of value, norm", ""),
    "clip": (["clip=inf"], "clip=inf: must be positive and finite, or null", ""),
    "patience": (["patience=0"], "patience=0: must be at least 1", ""),
    "no path": (["dataset=text"], "dataset.path=my.txt", ""),
    "several runs": (["layers=1,2"], "layers=1,2 is several runs: charcmp sweep layers=1,2", ""),
    "several to print": (
        ["layers=1,2", "--cfg", "job"],
        "layers=1,2 is several runs, and --cfg prints the configuration of one",
        "",
    ),
    "a range of runs": (["seed=range(0,3)"], "is several runs: charcmp sweep seed=range(0,3)", ""),
    "no value": (["layers"], "layers: no such file; keys are set by key=value", ""),
    "grammar": (["clip=["], "clip=[: not understood", "at input '['"),
    "flag": (["--dryrun"], "train has no --dryrun; its flags: --cfg, --config-dir", ""),
    "flag mistyped": (["--config-dri=x"], "train has no --config-dri", "mean --config-dir?"),
    "Hydra's flag for several": (
        ["-m"],
        "train has no -m: charcmp sweep trains a grid of runs",
        "",
    ),
    "Hydra's completion": (["-sc"], "train has no -sc; its flags: --cfg", ""),
    "Hydra's help": (["--hydra-help"], "train has no --hydra-help", ""),
    "flag of another command": (["--json"], "train has no --json", ""),
    "unknown name": (["layers=${x}"], "layers: Interpolation key 'x' not found", ""),
    "unknown name in a part": (["cell.activation=${x}"], "cell.activation: Interpolation", ""),
    "itself": (["layers=${layers}"], "layers: ", "interpolation"),
    "name of another type": (["layers=${cell}"], "layers: ", ""),
    "no such variable": (["progress=${oc.env:NOT_SET}"], "progress: ", "'NOT_SET' not found"),
    "choice by a number": (["cell=1"], "Got int", "--help lists the choices"),
    "choice by a number, experiment": (["experiment=1"], "Got int", "--help lists the choices"),
    "no experiment": (["experiment=null"], "experiment needs a choice", "--help lists them"),
    "empty experiment": (["experiment="], "experiment needs a choice", "--help lists them"),
    "no hydra": (["hydra=null"], "Got NoneType", "--help lists the choices"),
    "resolve": (["--resolve"], "--resolve needs --cfg job", ""),
    "nothing to print": (["--cfg"], "argument --cfg/-c: expected one argument", "--help"),
    "something else to print": (["--cfg", "x"], "invalid choice: 'x'", "--help"),
    "short flag": (["-x"], "train has no -x", ""),
    "rerun": (["--experimental-rerun", "x"], "train has no --experimental-rerun", ""),
    "seed twice the same": (["seed=4294967296"], "seed=4294967296: must be in [0, 2^32)", ""),
    "huge seed": (["seed=18446744073709551616"], "must be in [0, 2^32)", ""),
    "negative seed": (["seed=-1"], "seed=-1: must be in [0, 2^32)", ""),
    "huge model": (["hidden_size=1000000"], "1,000,0", "weights and gradients alone take"),
    "larger still": (["hidden_size=1048577"], "at least 1 and at most 1,048,576, or null", ""),
    "many layers": (["layers=1001"], "layers=1001: must be at least 1 and at most 1,000", ""),
    "many threads": (["threads=1000000000"], "threads=1000000000: must be at least 1 and", ""),
    "endless budget": (["budget=" + "9" * 5000], "Exceeds the limit (4300 digits)", ""),
    "letters": (["optimizer.lr=私"], "such characters need quotes", "optimizer.lr='私'"),
    "config folder": (["--config-dir=/no/such"], "--config-dir=/no/such: no such folder", ""),
}


@pytest.mark.parametrize(("overrides", "complaint", "advice"), BAD.values(), ids=list(BAD))
def test_bad_overrides(
    charcmp: Charcmp, tiny_text: Path, overrides: list[str], complaint: str, advice: str
) -> None:
    text = [] if any("dataset=" in o for o in overrides) else ["dataset=text"]
    path = [f"dataset.path={tiny_text}"] if text else []
    tiny = [o for o in TINY if not o.startswith("hidden_size")]
    done = charcmp("train", *text, *path, *tiny, *overrides)
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert complaint in line
    assert advice in line


def test_hydras_own_traceback_when_asked_for(charcmp: Charcmp) -> None:
    done = charcmp("train", "cell=elman", HYDRA_FULL_ERROR="1")
    assert "Traceback" in done.stderr
    assert "MissingConfigException" in done.stderr


@pytest.mark.skipif(
    subprocess.run(["nvidia-smi"], capture_output=True, shell=True).returncode == 0,
    reason="this machine has a CUDA device",
)
def test_cuda_asked_for_and_absent(charcmp: Charcmp, tiny_text: Path, tmp_path: Path) -> None:
    text = ["dataset=text", f"dataset.path={tiny_text}", *TINY]
    done = charcmp("train", *text, "device=cuda")
    assert done.returncode == 2
    assert "finds no CUDA device; device=cpu" in one_line(done.stderr)
    done = charcmp("sweep", *text, "device=cuda", f"results_dir={tmp_path / 'none'}")
    assert done.returncode == 2
    assert "device=cuda: no CUDA device here; device=cpu" in one_line(done.stderr)
    assert not (tmp_path / "none" / "runs").exists()  # nothing is left that seems to wait


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--no-cost"], "--no-cost needs --dry-run"),
        (["--dry-run", "--fail-fast"], "--fail-fast ends a sweep, and --dry-run begins none"),
        (["--multirun"], "sweep has no --multirun: charcmp sweep trains a grid of runs"),
    ],
)
def test_flags_of_a_sweep_that_would_have_no_effect(
    charcmp: Charcmp, tiny_text: Path, flags: list[str], complaint: str
) -> None:
    done = charcmp("sweep", *flags, str(tiny_text), *TINY)
    assert done.returncode == 2
    assert complaint in one_line(done.stderr)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the file is empty"),
        (b"aaaaaaaaaaaaaaaaaaaa", "a single distinct byte"),
        (b"abc" * 50, "at least 1,000 are needed"),
        (None, "a folder, not a file"),
    ],
)
def test_texts_that_cannot_be_used(
    charcmp: Charcmp, tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "bad.txt"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    for command in ("train", "sweep"):
        done = charcmp(
            command, "dataset=text", f"dataset.path={path}", "hidden_size=4", "layers=1", "cell=rnn"
        )
        assert done.returncode == 2
        assert complaint in one_line(done.stderr)
    assert not list(tmp_path.rglob("runs/*"))  # which would be failed for good


TEXTS = {
    "binary": bytes(range(256)) * 16,
    "japanese": "私はその人を常に先生と呼んでいた。".encode() * 80,
    "one long line": b"never a line end " * 250,
    "crlf": b"one line\r\nand another one\r\n" * 150,
}


@pytest.mark.parametrize("content", TEXTS.values(), ids=list(TEXTS))
def test_texts_that_must_simply_work(charcmp: Charcmp, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a path with spaces" / "it's, mine = 100%.txt"
    path.parent.mkdir()
    path.write_bytes(content)
    quoted = str(path).replace("'", r"\'")
    done = charcmp("train", "dataset=text", f"dataset.path='{quoted}'", "cell=rnn", *TINY)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "work" / "results" / "runs").iterdir()
    assert run.name.startswith("it-s-mine-100-rnn-1x8-")
    assert json.loads((run / "result.json").read_text())["status"] == "done"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_results_folder_not_writable(charcmp: Charcmp, tiny_text: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    text = ["dataset=text", f"dataset.path={tiny_text}", f"results_dir={closed}"]
    done = charcmp("train", *text, *TINY)
    assert done.returncode == 2
    assert "cannot be written (Permission denied); results_dir=" in one_line(done.stderr)


def test_results_folder_that_is_a_file(charcmp: Charcmp, tiny_text: Path) -> None:
    for command in ("train", "sweep"):
        text = ["dataset=text", f"dataset.path={tiny_text}", f"results_dir={tiny_text}"]
        done = charcmp(command, *text, *TINY, "cell=rnn", "layers=1")
        assert done.returncode == 2
        assert "cannot be written (Not a directory)" in one_line(done.stderr)


def test_no_network_and_no_file(charcmp: Charcmp) -> None:
    unreachable = "dataset.url=http://127.0.0.1:9/wp.txt"
    started = time.monotonic()
    done = charcmp("train", "dataset=wp", unreachable, CHARCMP_DATA="")
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert "CHARCMP_DATA" in line
    assert "dataset=pydocs" in line
    assert time.monotonic() - started < 60


def test_unknown_command(charcmp: Charcmp) -> None:
    done = charcmp("trian")
    assert done.returncode == 2
    line = "unknown command 'trian'; did you mean train? charcmp --help lists them"
    assert line in one_line(done.stderr)


def test_every_option_of_a_cell_in_one_deep_run(charcmp: Charcmp, tiny_text: Path) -> None:
    text = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "epochs=1", "layers=7"]
    options = ["activation=softsign", "open_bias=3", "forget_bias=1"]
    cell = ["cell=lstm_cascaded_gate", *(f"cell.{option}" for option in options)]
    done = charcmp("train", *text, *cell, "init=orthogonal", "init_range=0.2")
    assert done.returncode == 0, done.stderr
    assert "note: no effect: init_range=0.2: init=orthogonal does not use it" in done.stdout


BAD_OF_OTHERS = {
    "report's flags": (["report", "--out", "x"], "report has no --out", "did you mean --output?"),
    "report without a value": (["report", "--format="], "--format needs a value", ""),
    "... bare": (["report", "--format"], "--format needs a value", ""),
    "report into nothing": (["report", "--output="], "--output needs a value", ""),
    "report's format": (["report", "--format", "html,pdf"], "--format pdf: one or more of csv", ""),
    "report among the runs": (["report", "--output", "R/runs"], "--output R/runs: it holds", ""),
    "report in a run": (["report", "--output", "R/runs/x"], "--output R/runs/x: it holds", ""),
    "report of nothing": (
        ["report", "results_dir=TYPO"],
        "TYPO/runs: no finished run",
        "published",
    ),
    "report's filter": (
        ["report", "layers=two"],
        "layers=two: Value 'two'",
        "converted to Integer",
    ),
    "report's budget": (["report", "budget=lots"], "budget=lots: neither a named budget", ""),
    "report's interval": (["report", "seed=interval(0,1)"], "a list of values as in 1,2", ""),
    "status of nothing": (["status", "results_dir=TYPO"], "TYPO/runs: no runs; charcmp sweep", ""),
    "status's filter": (["status", "cell=gru"], "no run matches cell=gru; there are 1", ""),
    "status's value": (["status", "seed=${x}"], "seed=${x}: not a number", ""),
    "status's flag": (["status", "--dry-run"], "status has no --dry-run", "--watch, --json"),
    "a grid over groups": (["params", "cell=gru,1"], "Got int", "lists the choices"),
    "a grid over names": (["params", "dataset=wp", "layers=1,${x}"], "layers: Interpolation", ""),
    "a grid over an interval": (["params", "layers=interval(1,2)"], "a grid needs values", ""),
    "no key of Hydra's": (["status", "hydra.sweeper.x=1"], "unknown key 'hydra.sweeper.x'", ""),
    "a flag of Hydra's run": (["params", "--run"], "params has no --run", ""),
    "a flag of Hydra's print": (["report", "--resolve"], "--resolve needs --cfg job", ""),
    "status's folder": (
        ["status", "--config-dir=/no/such"],
        "--config-dir=/no/such: no such folder",
        "",
    ),
    "params without a choice": (["params", "dataset=null"], "dataset needs a choice", ""),
    "a flag and a word": (["params", "dataset=wp", "--cfg", "x"], "invalid choice: 'x'", ""),
    "data's words": (["data", "fetch-all"], "data fetch-all: not understood", "data --help"),
    "data's flags": (["data", "--json"], "data --json: not understood", "data --help"),
}


@pytest.mark.parametrize(
    ("args", "complaint", "advice"), BAD_OF_OTHERS.values(), ids=list(BAD_OF_OTHERS)
)
def test_bad_lines_of_the_other_commands(
    charcmp: Charcmp, tmp_path: Path, args: list[str], complaint: str, advice: str
) -> None:
    write_run(tmp_path / "work" / "R", 1.5)
    reads_runs = args[0] in ("report", "status") and "results_dir=TYPO" not in args
    done = charcmp(args[0], *(["results_dir=R"] if reads_runs else []), *args[1:])
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert complaint in line
    assert advice in line
    assert not (tmp_path / "work" / "TYPO").exists()


ONE_RUN = ["dataset=text", "dataset.path=TEXT", *TINY, "cell=rnn", "layers=1"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["status", "results_dir=LONG"], "runs: no runs"),
        (["report", "results_dir=LONG"], "runs: no finished run"),
        (["status", "results_dir=R"], "runs: no runs"),
        (["report", "results_dir=R"], "runs: no finished run"),
        (["sample", "run=any", "results_dir=R"], "no run id in R/runs begins with this"),
        (["params", "--config-dir", "LONG"], "no such folder"),
        (["sweep", *ONE_RUN, "results_dir=LONG"], "cannot be written (File name too long)"),
        (["baselines", *ONE_RUN, "results_dir=LONG"], "cannot be written (File name too long)"),
    ],
)
def test_folders_that_cannot_be_looked_at(
    charcmp: Charcmp, tmp_path: Path, tiny_text: Path, args: list[str], said: str
) -> None:
    """A name that is too long for a file system, and a link in runs/ to such a one."""
    long = "x" * 300
    runs = tmp_path / "work" / "R" / "runs"
    runs.mkdir(parents=True)
    (runs / "odd").symlink_to(long)
    args = [arg.replace("LONG", long).replace("TEXT", str(tiny_text)) for arg in args]
    done = charcmp(*args)
    assert done.returncode == 2
    assert said in one_line(done.stderr)
    if args[0] == "sweep":
        assert charcmp("sweep", "--dry-run", "--no-cost", *args[1:]).returncode == 0


def test_flags_and_overrides_in_any_order(charcmp: Charcmp) -> None:
    for args in (["--cfg", "job", "seed=3"], ["seed=3", "--cfg", "job", "layers=2"]):
        shown = charcmp("train", "gpus=0,1", *args)
        assert shown.returncode == 0, shown.stderr
        assert "\nseed: 3\n" in shown.stdout


def test_other_launchers_and_folders_may_stand_on_any_line(
    charcmp: Charcmp, tmp_path: Path
) -> None:
    """Hydra's own launcher: its plugins are looked for only then."""
    (tmp_path / "work" / "more" / "experiment").mkdir(parents=True)
    (tmp_path / "work" / "more" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [override /hydra/launcher: basic]\n"
        "hydra: {sweeper: {params: {layers: '1,2', cell: rnn}}}\n"
    )
    mine = ["--config-dir", "more", "experiment=mine", "dataset=wp", "budget=50k"]
    rows = json.loads(charcmp("params", *mine, "--json").stdout)
    assert [(row["cell"], row["layers"]) for row in rows] == [("rnn", 1), ("rnn", 2)]


@pytest.mark.long
def test_only_a_sweep_loads_plugins(tmp_path: Path) -> None:
    write_run(tmp_path / "R", 1.5)
    *others, report = in_turn(
        ["params", "dataset=wp", "seed=0,1"],
        ["status", "results_dir=R"],
        ["sweep", "--dry-run", "--no-cost", "dataset=pydocs", "device=cpu"],
        ["report", "results_dir=R", "--format", "csv"],  # the last: it may load pandas
        cwd=tmp_path,
    )
    for done in (*others, report):
        assert done.returncode == 0, done.stderr
        assert not {"hydra_plugins.charcmp", "torch"} & done.loaded
    assert not any("pandas" in done.loaded for done in others)


COMPOSED = [command.name for command in COMMANDS.values() if command.is_composed]


@pytest.mark.parametrize("command", COMPOSED)
def test_hydra_prints_for_every_command(charcmp: Charcmp, command: str) -> None:
    shown = charcmp(command, "seed=3", "-c", "job", "--package", "optimizer")
    assert shown.stdout.startswith("# @package optimizer\nname: rmsprop\n"), shown.stderr


@pytest.mark.parametrize("text", ["my.txt", "a=b.txt"])
def test_what_a_race_of_a_text_is_made_of(charcmp: Charcmp, tmp_path: Path, text: str) -> None:
    """A folder of choices, and the word that is no flag's value."""
    folder = tmp_path / "work" / "more" / "optimizer"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults: [/schema/optimizer@_here_: adam]\nname: adam\n")
    (tmp_path / "work" / text).write_text("any")
    flags = ["--config-dir", "more", "--cfg", "job", "optimizer=mine"]
    shown = charcmp("recommend", text, *flags)
    assert shown.returncode == 0, shown.stderr
    assert f"\n  path: {text}\n" in shown.stdout
    assert "\n  name: adam\n" in shown.stdout
    assert charcmp("recommend", *flags, text).stdout == shown.stdout
