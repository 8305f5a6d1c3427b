"""The doctor: what passes on this CPU, what a wrong form or a bad record comes to."""

import json
import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.console import Charcmp
from torch import Tensor

from charcmp.errors import UserError
from charcmp.models.cells import rnn
from charcmp.models.cells.compiled import dispatch as compiled
from charcmp.models.cells.compiled.gru import CompiledGRU
from charcmp.models.cells.compiled.lstm import CompiledLSTM
from charcmp.models.cells.compiled.rnn import CompiledRNN
from charcmp.models.cells.fused import dispatch as fused
from charcmp.models.cells.registry import CELLS
from charcmp.sweeping.examine import ask_doctor, examined, usable
from charcmp.sweeping.slots import Slot
from charcmp.training import checks
from charcmp.training.checks import (
    FALLBACKS,
    CheckResult,
    DoctorRecord,
    apply_fallbacks,
    failed_checks,
)
from charcmp.training.doctor import Poison, form_error, forms, layers_with, result_of, resume

torch.set_num_threads(1)
CPU = torch.device("cpu")
SMALL = (4, 3, 5)


def test_of_this_machine(charcmp: Charcmp) -> None:
    done = charcmp("doctor", "device=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    _, software, torchs, by_numba, resumed = done.stdout.splitlines()
    assert f"torch {torch.__version__}" in software
    assert torchs.startswith("torch    passed")
    assert by_numba.startswith("compiled passed   9 forms, largest error ")
    assert resumed.startswith("resume   passed   the same bytes after five interruptions")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["device=tpu"], "device=tpu: one of auto, cpu, cuda"),
        (["my.txt"], "my.txt: not understood; charcmp doctor --help"),
        (["precision=tf3"], "precision=tf3: one of float32, tf32; the paper's is float32; did you"),
        (["precision=bf16"], "precision=bf16: one of float32, tf32"),
        (["precision=tf32", "device=cpu"], "precision=tf32: needs a GPU"),
        (["--fast"], "doctor has no --fast; its flags: --json, --cached"),
        (["--josn"], "doctor has no --josn; did you mean --json?"),
        (["devise=cpu"], "devise=cpu: not understood; did you mean device? charcmp doctor"),
        (["--cfg", "job"], "--cfg: not understood; charcmp doctor --help"),
    ],
)
def test_a_users_mistake(charcmp: Charcmp, args: list[str], reason: str) -> None:
    done = charcmp("doctor", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"charcmp: {reason}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("reads", ["symbols", "features"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_form_is_near_its_equations(cell: str, reads: str) -> None:
    assert 0 < form_error(cell, "tanh", SMALL, reads, CPU, "torch") < 1e-5


@pytest.mark.parametrize("check", ["torch", "compiled"])
def test_a_wrong_form_is_found(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slope a thousandth too steep; memory that is read before it is written."""
    form: Any = {"torch": rnn.RNNSequence, "compiled": CompiledRNN}[check]
    right = form.backward

    def steep(ctx, grad_h_TBH):
        return right(ctx, grad_h_TBH * 1.001)

    with monkeypatch.context() as patch:
        patch.setattr(form, "backward", staticmethod(steep))
        error = form_error("rnn", "tanh", SMALL, "features", CPU, check)
        assert error == pytest.approx(1e-3, rel=0.1)
        assert not forms(CPU, "float32", check).passed
    with Poison():
        assert torch.empty(3).isnan().all()
        assert torch.empty_like(torch.zeros(2)).isnan().all()
        assert torch.zeros(2).new_empty(2, 2).isnan().all()
        torch.empty(3, dtype=torch.int64)

    def unwritten(ctx, grad_h_TBH):
        grad_sums, *others = right(ctx, grad_h_TBH)
        return torch.empty_like(grad_sums), *others

    monkeypatch.setattr(form, "backward", staticmethod(unwritten))
    assert form_error("rnn", "tanh", SMALL, "features", CPU, check) == math.inf
    assert fused.mode == compiled.mode == "auto"


def test_every_compiled_form_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of LSTMs only a narrow first layer has one."""
    ran: list[str] = []

    def count(form: Any) -> None:
        forward = form.forward

        def counted(ctx: Any, *inputs: Tensor) -> Any:
            ran.append(form.__name__)
            return forward(ctx, *inputs)

        monkeypatch.setattr(form, "forward", staticmethod(counted))

    for form in (CompiledRNN, CompiledGRU, CompiledLSTM):
        count(form)
    assert forms(CPU, "float32", "compiled").passed
    assert Counter(ran) == {"CompiledRNN": 4, "CompiledGRU": 4, "CompiledLSTM": 1}
    assert len(list(layers_with("compiled", CPU))) == 9


def test_without_numba_the_compiled_forms_are_not_checked(
    charcmp: Charcmp, unloaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it fails
    done = charcmp("doctor", "device=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    *_, note, torchs, resumed = done.stdout.splitlines()
    assert note.startswith("note: Numba does not work here (")
    assert note.endswith(
        "): the cells run as separate torch calls, at about two thirds of the speed"
    )
    assert (torchs[:6], resumed[:6]) == ("torch ", "resume")


def test_resume() -> None:
    assert resume().passed


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DoctorRecord:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return DoctorRecord({"device": "H100", "driver": "580.1"})


def test_results_are_kept_for_one_machine_and_software(record: DoctorRecord) -> None:
    assert record.read() == []
    found = [CheckResult("torch", True, "3e-7"), CheckResult("lanes", False, "differ by 0.1")]
    record.write(found)
    assert record.read() == found
    assert DoctorRecord({"device": "H100", "driver": "580.1"}).read() == found
    assert DoctorRecord({"device": "H100", "driver": "581.0"}).read() == []


def test_an_error_that_may_pass_is_not_kept(record: DoctorRecord) -> None:
    """Else a GPU whose memory other work had taken for a moment would be refused for ever."""
    record.write(found := [CheckResult("torch", True, "3e-7")])

    def out_of_memory() -> CheckResult:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    def wrong() -> CheckResult:
        raise ValueError("shapes differ")

    passing, lasting = result_of("torch", out_of_memory), result_of("torch", wrong)
    assert (passing.passed, passing.may_pass) == (False, True)
    assert (lasting.passed, lasting.may_pass) == (False, False)
    record.write([passing])
    assert record.read() == found
    record.write([lasting])
    assert record.read() == [lasting]


@pytest.mark.parametrize("contents", ["", "[1", '{"verdicts": [{"check": 3}]}', "[]", "{}"])
def test_a_record_that_cannot_be_read(record: DoctorRecord, contents: str) -> None:
    record.write([])
    record.file.write_text(contents)
    assert record.read() == []


def test_a_cache_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/charcmp: cannot be written \(Not a directory\)"):
        DoctorRecord({"device": "H100"}).write([])


def test_runs_do_without_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "mode", "auto")
    assert failed_checks(CPU, "float32") == set()
    assert apply_fallbacks(set())
    assert fused.mode == "auto"
    assert not apply_fallbacks({"graph", "kernels"})
    assert fused.mode == "never"
    with pytest.raises(UserError, match="so no run may use it; charcmp doctor makes it again"):
        apply_fallbacks({"torch"})
    line = CheckResult("kernels", False, "error 0.1").line
    assert line == f"kernels  FAILED   error 0.1; {FALLBACKS['kernels']}"


def gpu(number: int, lanes: int) -> list[Slot]:
    return [Slot("H100", None, {"CUDA_VISIBLE_DEVICES": str(number)}, lanes)] * lanes


def test_slots_of_a_gpu_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = CheckResult("lanes", True, "equal"), CheckResult("lanes", False, "differ by 0.1")
    slots = [*gpu(0, 3), *gpu(1, 3)]
    left = usable(slots, {slots[0].gpu: [bad], slots[-1].gpu: [good]})
    assert left == [replace(slots[0], lanes=1), *slots[3:]]
    assert capsys.readouterr().out.startswith(
        "note: H100: lanes    FAILED   differ by 0.1; one run"
    )
    wrong = [good, CheckResult("torch", False, "error 0.1")]
    with pytest.raises(UserError, match=r"H100: error 0\.1; this GPU or its libraries fail"):
        usable(slots, {slots[0].gpu: wrong, slots[-1].gpu: [good]})


def test_cpus_are_not_examined() -> None:
    on_cpu = [Slot("CPU", 1)] * 2
    assert examined(on_cpu, "float32") == on_cpu


@pytest.mark.long
def test_the_doctor_is_asked_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Here on a CPU; where it cannot answer, its last word is told."""
    cpu = Slot("CPU", 1, {"XDG_CACHE_HOME": str(tmp_path)})
    assert [one.check for one in ask_doctor(cpu, "float32")] == ["torch", "compiled", "resume"]
    with pytest.raises(UserError, match=r"CPU: charcmp doctor failed with .*needs a GPU"):
        ask_doctor(cpu, "tf32")


@pytest.mark.cuda
def test_this_gpu(charcmp: Charcmp) -> None:
    done = charcmp("doctor", "device=cuda", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["check"]: one["passed"] for one in json.loads(done.stdout)}
    assert found == {"torch": True, "kernels": True, "graph": True, "lanes": True}


def test_what_is_recorded_is_told_without_another_examination(
    charcmp: Charcmp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a GPU: of a CPU nothing is recorded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    record = DoctorRecord({"device": "made up"})
    record.write([CheckResult("torch", True, "1e-7"), CheckResult("graph", False, "0.1")])
    monkeypatch.setattr(checks, "record_of", lambda device, precision: record)
    done = charcmp("doctor", "device=cpu", "--cached")
    assert done.returncode == 1
    assert "torch    passed   1e-7\n" in done.stdout
    assert f"graph    FAILED   0.1; {FALLBACKS['graph']}\n" in done.stdout
    record.file.write_bytes(b'{"verdicts": [{"check": 1}]}')
    assert record.read() == []
    found = json.loads(charcmp("doctor", "device=cpu", "--cached", "--json").stdout)
    assert [one["check"] for one in found] == ["torch", "compiled", "resume"]
