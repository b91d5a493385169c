"""The command line: help, exit codes, output for people and for programs."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tidebook
from tidebook import Project
from tidebook.cli.main import main, make_parser
from tidebook.cli.pipelines import parameter_sets
from tidebook.core.errors import DiskFullError, GateRefusedError, WrongUseError

from tests import environment, tiny

TIDEBOOK = environment.SCRIPTS / "tidebook"
LISTINGS = (["data", "ls"], ["runs", "ls"], ["models", "ls"])


def commands(parser: Any = None, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    "Every command and every word that leads to one."
    parser = parser or make_parser()
    found = [words]
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for name, made in action.choices.items():
                found += commands(made, (*words, name))
    return found


def typed(*words: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    "The finished process of `tidebook ...`."
    return subprocess.run([TIDEBOOK, *words], cwd=cwd, capture_output=True, text=True, timeout=120, **options)


def test_the_list_of_commands_is_the_promised_one() -> None:
    leaves = {" ".join(words) for words in commands()}
    expected = {"plan", "run", "report", "data ls", "runs ls", "models ls", "lab", "doctor"}
    assert expected <= leaves
    assert leaves - expected == {"", "data", "runs", "models"}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"usage: tidebook{' ' if words else ''}{' '.join(words)}")
    assert "--help" in told.out
    assert told.err == ""
    if " ".join(words) in ("plan", "data ls", "runs ls", "models ls", "doctor"):
        assert "--json" in told.out


def test_help_of_the_installed_program(tmp_path: Path) -> None:
    done = typed("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for line in ("run what has changed in a pipeline", "exit codes: 0 done, 1 failed, 2 wrong use, 3 an alert"):
        assert line in done.stdout
    done = typed("--version", cwd=tmp_path)
    assert done.stdout == f"tidebook {tidebook.__version__}\n"


@pytest.mark.parametrize("words", [[], ["data"], ["runs"], ["models"]])
def test_a_word_that_needs_another_shows_its_help_and_is_wrong_use(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert "COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["tide"], ["run"], ["data", "ls", "--colour"], ["lab", "--port", "x"], ["plan", "a", "b"]]
)
def test_words_that_do_not_exist_are_wrong_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "usage: tidebook" in told.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plan", "flihgts"], "There is no pipeline 'flihgts'"),
        (["run", "tiny", "--set", "size"], "'size' is not a parameter. Allowed: NAME=VALUE"),
        (["run", "tiny", "--set", "=3"], "'=3' is not a parameter"),
        (["plan", "tiny", "--set", "sice=3"], "Allowed: size, label. Do: did you mean 'size'?"),
        (["plan", "tiny", "--set", "run_key=../x"], "There is no parameter 'run_key'"),
        (["report", "tiny"], "Pipeline 'tiny' has not run yet. Do: tidebook run tiny"),
        (["report", "tiny", "--set", "size=9"], "tidebook run tiny --set size=9"),
    ],
)
def test_wrong_use_is_told_on_stderr(
    words: list[str], told: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_project(workspace)
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert told in said.err
    assert said.out == ""


@pytest.mark.parametrize("words", [*LISTINGS, ["plan", "tiny"], ["doctor"], ["lab"]], ids=" ".join)
def test_outside_a_project_the_next_step_is_told(words: list[str], tmp_path: Path) -> None:
    done = typed(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no settings.ini in" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_that_cannot_be_are_told_with_every_fault(workspace: Path) -> None:
    (workspace / "settings.ini").write_text("[store]\npaht = x\n[monitor.delay]\nthreshold = much\n")
    done = typed("data", "ls", cwd=workspace)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'path'" in done.stderr
    assert "threshold must be a number" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (GateRefusedError("The gate does not let it pass"), 3, "error: The gate does not let it pass."),
        (DiskFullError("There is no room"), 1, "error: There is no room."),
        (WrongUseError("Not so"), 2, "error: Not so."),
        (KeyboardInterrupt(), None, "the same command goes on from there"),
    ],
)
def test_the_exit_code_follows_the_error(
    raised: BaseException,
    code: int | None,
    told: str,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*_: Any) -> None:
        raise raised

    monkeypatch.setattr("tidebook.project.project.Project.find", failing)
    found = main(["data", "ls"])
    assert found == code if code is not None else found not in (0, 2, 3)
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""


@pytest.mark.parametrize("words", LISTINGS, ids=" ".join)
def test_an_empty_listing_is_an_empty_list(
    words: list[str], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(words) == 0


def test_the_listing_of_datasets_for_people_and_programs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "<b>ünïcode 🌊</b>"
    data = Project.find().data
    data.commit("flights", pl.DataFrame({"flight": [1, 2, 3]}))
    data.commit(hostile, pl.DataFrame({"a": [1]}))
    assert main(["data", "ls"]) == 0
    shown = capsys.readouterr().out
    assert "flights" in shown
    assert hostile in shown
    assert main(["data", "ls", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["dataset"], row["versions"], row["rows"]) for row in rows] == [(hostile, 1, 1), ("flights", 1, 3)]


def test_a_reader_that_has_gone_is_no_error(workspace: Path) -> None:
    data = Project.find().data
    for i in range(40):
        data.commit(f"{i:03d}" + "x" * 150, pl.DataFrame({"a": [i]}))
    for more in ([], ["--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = subprocess.run(
                [TIDEBOOK, "data", "ls", *more], cwd=workspace, stdout=writing, stderr=subprocess.PIPE, text=True
            )
        finally:
            os.close(writing)
        assert done.stderr == ""
        assert done.returncode in (0, 1)
    line = f"{TIDEBOOK} data ls | head -n 1"
    done = subprocess.run(["bash", "-c", line], cwd=workspace, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("Datasets\n", "")


def test_parameters_given_twice_run_once_for_each_value() -> None:
    assert parameter_sets([]) == [{}]
    given = ["month=2013-04", "n=3", "month=2013-05", "on=true"]
    assert parameter_sets(given) == [
        {"month": "2013-04", "n": 3, "on": True},
        {"month": "2013-05", "n": 3, "on": True},
    ]
    assert parameter_sets(["text=a=b", " size = 3 "]) == [{"text": "a=b", "size": 3}]


def test_a_pipeline_is_planned_run_and_reported(workspace: Path) -> None:
    tiny.write_project(workspace)
    nowhere = workspace / "pipelines" / "tiny"  # the project is found from below as well
    done = typed("plan", "tiny", "--json", cwd=nowhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [
        {"run_key": "default", "task": "collect", "action": "run", "why": "never ran"},
        {"run_key": "default", "task": "total", "action": "depends", "why": "after collect"},
    ]
    done = typed("run", "tiny", cwd=nowhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 of 2 tasks ran" in done.stdout
    assert "n 3" in done.stdout
    assert "tidebook report tiny" in done.stdout
    done = typed("run", "tiny", "--set", "size=3", cwd=workspace)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing changed: all 2 tasks kept" in done.stdout
    done = typed("plan", "tiny", cwd=workspace)
    assert "nothing to do" in done.stdout
    done = typed("report", "tiny", cwd=workspace)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "report: pipelines/tiny/products/default/report.html\n"
    page = (workspace / "pipelines/tiny/products/default/report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "A tiny notebook." in page
    versions = Project.find().catalog.versions("report")
    assert [version.ref for version in versions] == ["tiny@v1"]


def test_a_failing_pipeline_is_told_without_a_traceback(workspace: Path) -> None:
    tiny.write_project(workspace, {"collect": [*tiny.COLLECT[:3], "1 / 0"]})
    done = typed("run", "tiny", cwd=workspace)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Task 'collect' failed in code cell")
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "finished tasks are kept" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (workspace / "pipelines/tiny/pipeline.yaml").write_text("tasks: [")
    done = typed("plan", "tiny", cwd=workspace)
    assert done.returncode == 1
    assert "pipeline.yaml of pipeline 'tiny' cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_answers_for_people_and_programs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {"python", "settings.ini", "store", "disk", "git"} <= {row["what"] for row in rows}
    assert {row["state"] for row in rows} <= {"ok", "missing", "wrong"}
    assert code == int(any(row["state"] == "wrong" for row in rows))
    (workspace / "settings.ini").write_text("[stor]\n")
    assert main(["doctor"]) == 1
    assert "something is wrong" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 1
    found = {row["what"]: row["found"] for row in json.loads(capsys.readouterr().out)}
    assert "did you mean 'store'" in found["settings.ini"]
