"""Processes that are really killed: what was acknowledged stays, nothing half-made is named, the next one goes on."""

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest
from tidebook import Project
from tidebook.core.catalog import Catalog
from tidebook.core.objects import Objects
from tidebook.data.datasets import Datasets

from tests import environment, tiny

N_KILLS = 3  # of the committing process, in each round
WRITER = """
import sys
import polars as pl
from pathlib import Path
from tidebook.core.catalog import Catalog
from tidebook.core.objects import Objects
from tidebook.data.datasets import Datasets

folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
data = Datasets(Catalog(folder / "catalog.db", Objects(folder / "objects"), who="writer"))
for i in range(first, last):
    frame = pl.DataFrame({"i": pl.repeat(i, 2000, eager=True), "x": pl.int_range(2000, eager=True)})
    whole = data.commit("whole", frame)
    log = data.commit("log", frame.head(1), mode="append")
    data.catalog.set_alias("dataset", "whole", "good", whole.number)
    print(i, whole.number, log.number, flush=True)
"""


def opened(folder: Path) -> Datasets:
    return Datasets(Catalog(folder / "catalog.db", Objects(folder / "objects"), who="reader"))


def waited(until: Callable[[], object], timeout_s: float = 60) -> bool:
    "Whether `until` came true in time."
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if until():
            return True
        time.sleep(0.02)
    return False


def writer(folder: Path, first: int, last: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def acknowledged(child: "subprocess.Popen[str]", line: str) -> list[tuple[int, int, int]]:
    "What the child said until its end, `line` included; an unfinished last line says nothing."
    text = line + child.stdout.read()  # type: ignore[union-attr]
    child.wait(60)
    lines = text.split("\n")[:-1]
    return [tuple(int(word) for word in line.split()) for line in lines]  # type: ignore[misc]


def check_store(folder: Path) -> None:
    "Everything that has a final name is whole."
    for path in (folder / "objects").glob("[0-9a-f][0-9a-f]/*"):
        if path.suffix != ".part":
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name
    for path in (folder / "events").glob("[!.]*"):
        content = path.read_bytes()
        assert path.name == f"{json.loads(content)['sequence']:010d}-{hashlib.sha256(content).hexdigest()}.json"
    connection = sqlite3.connect(folder / "catalog.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_commits_survive_kills(tmp_path: Path, rounds: int) -> None:
    drawn = random.Random(20130401)
    said: dict[int, tuple[int, int]] = {}  # i -> numbers of `whole` and `log`
    for kill in range(N_KILLS * rounds):
        first = 1000 * kill
        child = writer(tmp_path, first, first + 1000)
        line = child.stdout.readline()  # type: ignore[union-attr]
        assert line, child.stderr.read()  # type: ignore[union-attr]
        time.sleep(drawn.uniform(0, 0.4))
        child.kill()
        lines = acknowledged(child, line)
        assert child.returncode == -signal.SIGKILL
        said.update({i: (whole, log) for i, whole, log in lines})
        check_store(tmp_path)
        data = opened(tmp_path)
        for i, (whole, log) in said.items():
            assert data.load(f"whole@v{whole}").select(pl.col("i").unique(), pl.len()).collect().rows() == [(i, 2000)]
            assert data.load(f"log@v{log}").collect()["i"].to_list()[-1] == i
        n_unsaid = 0
        for name in ("whole", "log"):
            versions = data.catalog.versions("dataset", name)
            assert [version.number for version in versions] == list(range(1, len(versions) + 1))
            assert data.load(versions[-1]).collect().height == versions[-1].manifest["n_rows"]
            n_unsaid += len(versions) - len(said)
        assert 0 <= n_unsaid <= 2 * (kill + 1)
        events = data.catalog.events()
        assert len(list((tmp_path / "events").glob("[!.]*.json"))) == len(events)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        after = first + 999
        (done,) = acknowledged(writer(tmp_path, after, after + 1), "")
        said[done[0]] = done[1:]
    assert len(said) >= 2 * N_KILLS


# Runs of a pipeline

WAITING = [
    *tiny.TOTAL[:2],
    "import time\nfrom pathlib import Path",
    'Path("reached").write_text("")\nwhile not Path("go").exists():\n    time.sleep(0.05)',
    *tiny.TOTAL[2:],
]


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    "A project whose second notebook waits until a file `go` exists, and says so with a file `reached`."
    tiny.write_project(tmp_path, {"total": WAITING})
    return tmp_path


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    "A word in the environment of whatever a test starts; what still carries it at the end is ended."
    yield str(tmp_path)
    for process in marked(str(tmp_path)):
        process.kill()


def marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TIDEBOOK_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def started(folder: Path, mark: str) -> "subprocess.Popen[str]":
    "`tidebook run tiny`, in a process group of its own as a terminal would start it."
    return subprocess.Popen(
        [environment.SCRIPTS / "tidebook", "run", "tiny"],
        cwd=folder,
        env=environment.with_changes({"TIDEBOOK_TEST_MARK": mark}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_again(folder: Path) -> str:
    (folder / "pipelines/tiny/go").touch()
    command = [environment.SCRIPTS / "tidebook", "run", "tiny"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def done_tasks(folder: Path) -> set[str]:
    records = Project.find(folder).catalog.records("task")
    return {record.body["task"] for record in records if record.body["status"] == "done"}


def check_products(folder: Path) -> None:
    catalog, products = Project.find(folder).catalog, folder / "pipelines/tiny/products/default"
    for product, manifest in (("rows", {"n": 3}), ("total", {"n": 6, "label": "low"})):
        reference = json.loads((products / f"{product}.json").read_text())
        assert catalog.resolve("value", f"{reference['name']}@v{reference['number']}").manifest == manifest
    assert {record.ref for record in catalog.versions("value")} == {"rows@v1", "total@v1"}
    assert list(products.glob("*.part")) == []
    check_store(folder / ".tidebook")


def test_a_killed_run_goes_on_where_it_stopped(waiting: Path, mark: str) -> None:
    child = started(waiting, mark)
    assert waited((waiting / "pipelines/tiny/reached").exists)
    assert len(marked(mark)) >= 2  # the run and its kernel
    child.kill()
    child.communicate()
    assert done_tasks(waiting) == {"collect"}
    assert waited(lambda: not marked(mark)), "a kernel outlives the run that started it"
    assert "1 of 2 tasks ran, 1 kept" in run_again(waiting)
    check_products(waiting)


def test_a_run_killed_at_any_moment_goes_on(tmp_path: Path, mark: str, rounds: int) -> None:
    drawn = random.Random(1101)
    for i in range(rounds):
        folder = tmp_path / str(i)
        tiny.write_project(folder)
        child = started(folder, mark)
        time.sleep(drawn.uniform(0.3, 7))
        child.kill()
        child.communicate()
        assert waited(lambda: not marked(mark)), "a kernel outlives the run that started it"
        before = done_tasks(folder)
        told = run_again(folder)
        n_ran = 2 - len(before)
        assert (f"{n_ran} of 2 tasks ran" if n_ran else "nothing changed: all 2 tasks kept") in told
        check_products(folder)


@pytest.mark.parametrize("whom", ["the whole process group, as Ctrl-C does", "the process alone, as kill -INT does"])
def test_an_interrupted_run_says_how_to_go_on_and_leaves_no_kernel(whom: str, waiting: Path, mark: str) -> None:
    child = started(waiting, mark)
    assert waited((waiting / "pipelines/tiny/reached").exists)
    assert len(marked(mark)) >= 2  # the run and its kernel
    (os.killpg if "group" in whom else os.kill)(child.pid, signal.SIGINT)
    _, told = child.communicate(timeout=60)
    assert child.returncode not in (0, 2, 3)
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    assert waited(lambda: not marked(mark), 10), "a kernel outlives the run that started it"
    assert done_tasks(waiting) == {"collect"}
    assert "1 of 2 tasks ran, 1 kept" in run_again(waiting)
    check_products(waiting)


STUBBORN = """
import os, signal, time
from tidebook.pipeline.chain import insistent_interrupts

n_seen = 0
with insistent_interrupts(again_s=0.1):
    for _ in range(3):  # a library that takes no notice
        try:
            if not n_seen:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)
        except KeyboardInterrupt:
            n_seen += 1
print(n_seen)
"""


def test_an_interrupt_that_is_swallowed_is_raised_again() -> None:
    done = subprocess.run([sys.executable, "-c", STUBBORN], capture_output=True, text=True, timeout=40, check=True)
    assert done.stdout.strip() == "3"
