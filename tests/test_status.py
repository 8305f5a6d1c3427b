"""Status: every state a run can be in, from real runs."""

import json
from pathlib import Path

from conftest import TINY, Charcmp, wait_for


def test_every_state(charcmp: Charcmp, start, tiny_text: Path, tmp_path: Path) -> None:
    none = charcmp("status")
    assert none.returncode == 2
    assert "no runs; charcmp sweep" in none.stderr

    text = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "cell=rnn"]
    charcmp("train", *text, "seed=1")
    charcmp("train", *text, "seed=2", "optimizer.lr=1e38", "clip=null")
    runs = tmp_path / "work" / "results" / "runs"
    sweep = start("sweep", *text, "seed=3,4", "layers=1", "epochs=5000")
    wait_for(lambda: len(list(runs.glob("*-s[34]-*/progress.json"))) == 2)

    def states() -> dict[str, dict]:
        listed = json.loads(charcmp("status", "--json").stdout)
        return {run["run_id"].split("-")[4]: run for run in listed}

    running = states()
    assert running["s1"]["state"] == "done"
    assert running["s1"]["test_nats_per_char"] > 0
    assert running["s2"]["state"] == "diverged"
    assert running["s3"]["state"] == running["s4"]["state"] == "running"
    assert running["s3"]["epochs"] == 5000
    assert running["s3"]["seconds_left"] > 0

    sweep.terminate()
    sweep.wait(60)
    (run_3,) = runs.glob("*-s3-*")
    (run_3 / "failure.json").write_text(json.dumps({"reason": "killed by SIGKILL"}))
    (run_1,) = runs.glob("*-s1-*")
    (run_1 / "result.json").write_text("{")
    stopped = states()
    assert stopped["s1"]["state"] == "corrupt"
    assert stopped["s3"]["state"] == "failed"
    assert stopped["s4"]["state"] == "interrupted"
    printed = charcmp("status").stdout
    assert "4 runs: 1 failed, 1 interrupted, 1 corrupt, 1 diverged" in printed
    assert "killed by SIGKILL" in printed
