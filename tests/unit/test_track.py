"""A tracked run says where it comes from and how it ended, and the table reads it back."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tidebook.core.context import Record, note_input, recording
from tidebook.core.errors import StoreError, UnknownNameError, WrongUseError
from tidebook.learn import track as track_module
from tidebook.learn.runlog import read_run
from tidebook.learn.runs import Runs, as_series, column_names, machine_key, process_started, run_state, runs_table
from tidebook.learn.track import git_state, lightning_logger, track

from tests.environment import ROOT

GOLDEN = ROOT / "tests" / "data" / "wandb-0.31"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def origin(folder: Path, name: str) -> dict[str, Any]:
    (log,) = [log for log in Runs([folder]).logs() if log.name == name]
    found: dict[str, Any] = log.config["tidebook"]
    return found


# ---------------------------------------------------------------- track


def test_a_run_knows_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "model.py").write_text("depth = 3\n")
    git(tmp_path, "add", "model.py")
    git(tmp_path, "commit", "-q", "-m", "model")
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    with track(
        "clean", folder=runs, params={"lr": 0.1, "net": {"width": 64}}, lineage={"flights": "v3"}, notebook="a.ipynb"
    ):
        pass
    (tmp_path / "model.py").write_text("depth = 4\n")
    with track("dirty", folder=runs, params={"path": Path("x"), "rate": pl.Series([0.5]).to_numpy()[0]}):
        pass
    said = origin(runs, "clean")
    assert said["git"] == {"commit": git(tmp_path, "rev-parse", "HEAD").strip(), "dirty": False}
    assert (said["notebook"], said["data"]) == ("a.ipynb", {"flights": "v3"})
    assert said["parameters"] == {"lr": 0.1, "net": {"width": 64}}
    assert said["process"]["pid"] == os.getpid()
    assert len(said["environment"]) == 64
    assert origin(runs, "dirty")["git"]["dirty"] is True
    assert origin(runs, "dirty")["parameters"] == {"path": "x", "rate": 0.5}
    row = Runs([runs]).table().row(0, named=True)
    assert (row["config.lr"], row["config.net.width"], row["state"]) == (0.1, 64, "finished")
    assert row["config.tidebook.git.commit"] == said["git"]["commit"]


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path) == {}
    assert git_state(tmp_path / "missing") == {}
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    began = time.monotonic()
    assert git_state(tmp_path, timeout_s=0.2) == {}
    assert time.monotonic() - began < 10
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) == {}


def test_asking_git_runs_nothing_that_the_repository_names(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "empty")
    hook, proof = tmp_path / "hook.sh", tmp_path / "proof"
    hook.write_text(f"#!/bin/sh\ntouch {proof}\n")
    hook.chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(hook))
    assert git_state(tmp_path)["dirty"] is False
    assert not proof.exists()
    git(tmp_path, "status")
    assert proof.exists()  # it would have been run


def test_the_log_is_complete_when_the_block_ends(tmp_path: Path) -> None:
    with track("long", folder=tmp_path) as run:
        for i in range(3000):
            run.log({"loss": float(i)})
    (log,) = Runs([tmp_path]).logs()
    assert (len(log.steps), run_state(log), log.losses) == (3000, "finished", ())


def test_what_is_read_becomes_an_input_of_the_run_and_of_the_task_around_it(tmp_path: Path) -> None:
    task = Record("task", "train")
    with recording(task):
        note_input("dataset", "flights", 2, "aa")
        with track("fit", folder=tmp_path):
            note_input("dataset", "weather", 5, "bb")
            note_input("model", "delay", 1, "cc")
        note_input("dataset", "later", 1, "dd")
    said = origin(tmp_path, "fit")
    assert said["data"] == {"flights": "flights@v2", "weather": "weather@v5", "model delay": "delay@v1"}
    assert [item["digest"] for item in said["inputs"]] == ["aa", "bb", "cc"]
    assert [item.name for item in task.inputs] == ["flights", "weather", "delay", "later"]


@pytest.mark.parametrize(
    ("error", "state"), [(ValueError("x"), "failed"), (KeyboardInterrupt(), "failed"), (SystemExit(0), "finished")]
)
def test_an_exception_ends_the_run_and_goes_on(tmp_path: Path, error: BaseException, state: str) -> None:
    def work() -> None:
        with track("one", folder=tmp_path) as run:
            run.log({"loss": 1.0})
            note_input("dataset", "flights", 2, "aa")
            raise error

    with pytest.raises(type(error)):
        work()
    (log,) = Runs([tmp_path]).logs()
    assert run_state(log) == state
    assert log.history["loss",].values == [1]
    assert log.config["tidebook"]["data"] == {"flights": "flights@v2"}


def test_runs_that_are_open_together_stay_apart(tmp_path: Path) -> None:
    with track("first", folder=tmp_path) as first, track("second", folder=tmp_path) as second:
        for i in range(5):
            first.log({"loss": float(i)})
            second.log({"loss": 10.0 * i}, step=2 * i)
        first.summary(best=1)
        second.summary(best=2)
    history = Runs([tmp_path]).history("loss", runs=["second"])
    assert history.select("step", "value").rows() == [(2 * i, 10.0 * i) for i in range(5)]
    assert Runs([tmp_path]).table().sort("name")["summary.best"].to_list() == [1, 2]
    assert first.id != second.id
    assert Runs([tmp_path]).history("loss", runs=[first.id])["value"].to_list() == [0, 1, 2, 3, 4]


def test_steps(tmp_path: Path) -> None:
    with track("steps", folder=tmp_path) as run:
        run.log({"a": 1})
        run.log({"a": 2}, step=5)
        run.log({"b": 3}, step=5)  # joins the row of step 5
        with pytest.raises(WrongUseError, match="5 or more"):
            run.log({"a": 0}, step=4)
        run.log({"c": 4})  # the row of step 5 is done with this
        with pytest.raises(WrongUseError, match="6 or more"):
            run.log({"a": 0}, step=5)
        run.log({"a": 5})
    rows = Runs([tmp_path]).history(["a", "b", "c"]).sort("key", "step").select("key", "step", "value").rows()
    assert rows == [("a", 0, 1.0), ("a", 5, 2.0), ("a", 6, 5.0), ("b", 5, 3.0), ("c", 5, 4.0)]


def test_the_environment_cannot_send_a_run_elsewhere(tmp_path: Path) -> None:
    code = """
import os, sys, psutil
from pathlib import Path
from tidebook.learn.track import track
ids = []
for name in ("one", "two"):
    with track(name, folder=Path(sys.argv[1])) as run:
        assert run.experiment.offline
        service = [child.cmdline() for child in psutil.Process().children() if "wandb-core" in child.name()]
        ids.append(run.id)
assert len(set(ids)) == 2
assert service and all("--no-observability" in command for command in service), service
"""
    hostile = {
        "WANDB_MODE": "online",
        "WANDB_RUN_ID": "same",
        "WANDB_DIR": "/nowhere",
        "WANDB_BASE_URL": "http://127.0.0.1:1",
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "DO_NOT_TRACK"))} | hostile
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=120, env=environment)
    assert Runs([tmp_path]).table()["name"].to_list() == ["one", "two"]


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongUseError, match="tidebook"), track("x", folder=tmp_path, params={"tidebook": 1}):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"), track("x", folder=tmp_path / "file"):
        pass
    # a log that never says that it ended, as on a full disk
    monkeypatch.setattr(track_module, "has_ended", lambda path: False)
    monkeypatch.setattr(track_module._close, "__kwdefaults__", {"patience_s": 0.2})
    with pytest.raises(StoreError, match="has no end"), track("x", folder=tmp_path):
        pass
    with pytest.raises(ZeroDivisionError), track("y", folder=tmp_path):  # the first error is the one that is seen
        1 / 0  # noqa: B018


# ---------------------------------------------------------------- how a run stands


def test_a_killed_run_is_killed_and_keeps_its_rows(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from tidebook.learn.track import track
with track("killed", folder=Path(sys.argv[1]), params={"lr": .1}) as run:
    for i in range(10_000):
        run.log({"loss": float(i)})
        print(i, flush=True)
        time.sleep(.02)
"""
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = -1
        for line in process.stdout:
            last = int(line)
            if last == 100:
                assert Runs([tmp_path]).table()["state"].to_list() == ["running"]
                process.send_signal(signal.SIGKILL)
                break
        last = max([last, *map(int, process.stdout.read().split())])
    (log,) = Runs([tmp_path]).logs()
    assert run_state(log) == "killed"
    assert len(log.steps) >= last - 150  # a second of rows, and what a busy machine adds
    assert log.config["lr"] == 0.1


def test_state_goes_by_the_process_not_by_its_number() -> None:
    log = replace(read_run(GOLDEN / "golden01.wandb"), exit_code=None, host=socket.gethostname())
    here = {"pid": os.getpid(), "started": process_started(os.getpid()), "machine": machine_key()}
    boot, space = machine_key().split(" ")
    cases: list[tuple[Any, str]] = [
        (here, "running"),
        (here | {"started": 1}, "killed"),  # the number was given to another process
        (here | {"pid": 2**22 + 5}, "killed"),
        (here | {"machine": f"another-boot {space}"}, "killed"),  # this host has started anew
        (here | {"machine": f"{boot} another-container"}, "unknown"),
        (here | {"pid": "1"}, "unknown"),
        ("text", "unknown"),
        (None, "unknown"),
    ]
    for mark, state in cases:
        assert run_state(replace(log, config={"tidebook": {"process": mark}})) == state, mark
    elsewhere = here | {"machine": "another-boot another-container"}
    assert run_state(replace(log, host="elsewhere", config={"tidebook": {"process": elsewhere}})) == "unknown"
    assert run_state(replace(log, config={})) == "unknown"
    assert run_state(replace(log, config={"tidebook": 3})) == "unknown"
    assert [run_state(replace(log, exit_code=code)) for code in (0, 1, 255)] == ["finished", "failed", "failed"]


# ---------------------------------------------------------------- tables


def test_table_and_history_of_a_folder_as_it_is() -> None:
    runs = Runs([GOLDEN, GOLDEN / "missing", GOLDEN])
    frame = runs.table()
    said = json.loads((GOLDEN / "golden01.json").read_text())
    assert frame.height == 1  # a log that is found twice counts once
    assert frame.columns[:6] == ["id", "name", "group", "state", "started_at", "seconds"]
    assert frame.columns[6:] == sorted(frame.columns[6:])
    row = frame.row(0, named=True)
    assert (row["state"], row["summary.rows"], row["config.big"]) == ("failed", 2**61 + 1, 2**60 + 1)
    assert (row["config.net.layers"], row["config.net\\.layers"]) == ("[64, 32]", "a literal dot")
    assert (row["config.limit"], row["summary.valid.auc"]) == (-math.inf, said["summary"]["valid"]["auc"])
    assert math.isnan(row["summary.nan"])
    history = runs.history(["loss", "valid.auc", "is_best", "sparse", "note"])
    assert history.columns == ["run", "step", "key", "value"]
    assert history.filter(key="loss")["value"].to_list() == [1 / (i + 1) for i in range(40)]
    assert history.filter(key="is_best")["value"].to_list() == [float(i % 2 == 0) for i in range(40)]
    assert history.filter(key="sparse").rows() == [("golden01", 100, "sparse", 3.5)]
    assert history.filter(key="note").is_empty()
    with pytest.raises(UnknownNameError, match=r"valid\.auc"):
        runs.history("valid.auk")
    with pytest.raises(UnknownNameError, match="golden run"):
        runs.history("loss", runs=["golden rum"])


def test_no_runs_yet(tmp_path: Path) -> None:
    runs = Runs([tmp_path / "none"])
    assert runs.table().shape == (0, 6)
    assert runs.history(["loss"]).shape == (0, 4)
    assert runs.ls().to_json() == []


def test_a_damaged_log_is_named_and_hostile_names_do_nothing(tmp_path: Path) -> None:
    data = bytearray((GOLDEN / "golden01.wandb").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "run-a.wandb").write_bytes(data)
    assert "golden run (1: damaged bytes)" in Runs([tmp_path]).ls().note
    assert Runs([GOLDEN]).ls().note == ""
    log = replace(read_run(GOLDEN / "golden01.wandb"), name="<script>x</script>", config={"<b>": "<img src=x>"})
    html = Runs([GOLDEN]).ls().__class__(runs_table([log])).to_html()
    assert "<script>" not in html
    assert "<img" not in html


def test_column_types_hold_every_value_exactly() -> None:
    big = 2**53 + 1
    assert as_series("x", [big, None]).to_list() == [big, None]
    assert as_series("x", [1, 0.5]).to_list() == [1.0, 0.5]
    assert as_series("x", [big, 0.5]).to_list() == [str(big), "0.5"]
    assert as_series("x", [2**64]).to_list() == [str(2**64)]
    assert as_series("x", [True, 1]).to_list() == ["true", "1"]
    assert as_series("x", [None, None]).to_list() == [None, None]
    assert list(column_names([("a", "b"), ("a.b",), ("c.d",)]).values()) == ["a.b", "a\\.b", "c.d"]


# ---------------------------------------------------------------- Lightning


def test_two_trainings_do_not_share_a_run_and_one_goes_on(tmp_path: Path) -> None:
    pl_module = pytest.importorskip("pytorch_lightning")
    torch = pytest.importorskip("torch")

    class Line(pl_module.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, rate: float) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = (self.layer(batch) ** 2).mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.hparams.rate)

    rows = torch.utils.data.DataLoader(torch.ones(200, 1), batch_size=2)
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
    }
    for rate in (0.1, 0.2):
        with track(f"rate {rate}", folder=tmp_path) as run:
            logger = lightning_logger(run)
            pl_module.Trainer(max_epochs=1, logger=logger, **quiet).fit(Line(rate), rows)
    runs = Runs([tmp_path])
    assert runs.table()["config.rate"].to_list() == [0.1, 0.2]
    with track("twice", folder=tmp_path) as run:  # on purpose in one run: the second goes on where the first ended
        run.log({"rows": 200})
        for rate in (0.1, 0.2):
            pl_module.Trainer(max_epochs=1, logger=lightning_logger(run), **quiet).fit(Line(rate), rows)
    assert runs.history("loss", runs=["twice"])["step"].to_list() == [50, 100, 149, 199]
    for name in ("rate 0.1", "rate 0.2"):
        assert runs.history("loss", runs=[name])["step"].to_list() == [49, 99]  # each 50 steps
