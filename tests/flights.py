"""The flights pipeline as a project of its own in a temporary folder, trained once for all tests that look at it.

Every worker of a test session finds the same trained project (`trained`); a test that changes something takes a copy of
it (`copy_of`), so nothing is trained twice and no test sees another one's changes.
"""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.environment import ROOT, SCRIPTS, with_changes

MONTHS = ("2013-04", "2013-05")
SMALL = {"PLOOMBER_ENV_FILENAME": "env.test.yaml"}
SETTINGS = """[project]
name = flights-test
owner = tests

[store]
path = .tidebook

[monitor.delay]
threshold = 0.2

[gate.delay]
min_auc = {min_auc}
max_calibration_error = 1
min_auc_gain = -1
max_log_loss_increase = 10
"""


@dataclass(frozen=True)
class Said:
    "What one command of a user printed."

    out: str
    err: str
    code: int
    seconds: float


def command(folder: Path, *words: str, changes: Mapping[str, str] | None = None, timeout_s: float = 900) -> Said:
    "Runs a script of this environment (`tidebook`, `ploomber`) in a folder, under the seconds-sized parameters."
    began = time.monotonic()
    line = [str(SCRIPTS / words[0]), *words[1:]]
    env = with_changes(SMALL | dict(changes or {}))
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout_s)
    return Said(done.stdout, done.stderr, done.returncode, time.monotonic() - began)


def make_project(folder: Path, *, min_auc: float = 0.0) -> Path:
    "A git repository that holds settings and pipelines/flights as committed, without products and without a store."
    source = ROOT / "pipelines" / "flights"
    names = subprocess.run(["git", "ls-files"], cwd=source, check=True, capture_output=True, text=True).stdout.split()
    for name in names:
        target = folder / "pipelines" / "flights" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target)
    (folder / "settings.ini").write_text(SETTINGS.format(min_auc=min_auc))
    shutil.copy2(ROOT / ".gitignore", folder / ".gitignore")
    who = ["-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false"]
    for line in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "as it is"]):
        subprocess.run(["git", *line], cwd=folder, check=True, capture_output=True)
    return folder


def copy_of(project: Path, folder: Path) -> Path:
    "The project with its store and products at another place."
    return Path(shutil.copytree(project, folder, ignore=shutil.ignore_patterns("kernel-ipc-*")))


@dataclass(frozen=True)
class Trained:
    "The project after two months, and what the commands said."

    folder: Path
    first: Said  # both months, from nothing
    again: Said  # the same, nothing changed
    report: Said


def trained(factory: pytest.TempPathFactory) -> Trained:
    "The trained project of this session; the first worker that asks makes it, the others wait."
    base = factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "flights-trained"
    shared.mkdir(exist_ok=True)
    folder, told = shared / "project", shared / "told.json"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            make_project(folder)
            both = [word for month in MONTHS for word in ("--set", f"month={month}")]
            said = {name: command(folder, "tidebook", "run", "flights", *both) for name in ("first", "again")}
            said["report"] = command(folder, "tidebook", "report", "flights")
            told.write_text(json.dumps({name: asdict(value) for name, value in said.items()}))
    return Trained(folder, **{name: Said(**value) for name, value in json.loads(told.read_text()).items()})
