"""Fixtures for all tests, and the promise that they leave the project's own versions, aliases and products alone."""

import os
from pathlib import Path

import pytest

from tests import environment

environment.apply()

_BEFORE = pytest.StashKey[dict[str, tuple[int, int]]]()


def project_state(root: Path) -> dict[str, tuple[int, int]]:
    "Path -> (size in bytes, mtime in ns) of everything that the project's own runs have made."
    folders = [root / ".tidebook", *root.glob("pipelines/*/products"), *root.glob("pipelines/*/.*.metadata")]
    files = [file for folder in folders for file in ([folder] if folder.is_file() else folder.rglob("*"))]
    return {str(f.relative_to(root)): (f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(files) if f.is_file()}


def changes(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    "One line a file that was added, removed or changed."
    return [
        f"{'added' if name not in before else 'removed' if name not in after else 'changed'}: {name}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # a worker of xdist is no session of its own
        session.config.stash[_BEFORE] = project_state(environment.ROOT)


def pytest_sessionfinish(session: pytest.Session) -> None:
    before = session.config.stash.get(_BEFORE, None)
    if before is None:
        return
    if found := changes(before, project_state(environment.ROOT)):
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_sep("=", "the tests changed the project's own store or products", red=True)
            for line in found[:20]:
                reporter.write_line(line)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "A project folder of the test's own, and the working directory: settings.ini, and a store inside it."
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "settings.ini").write_text("[project]\nname = workspace\nowner = tests\n\n[store]\npath = .tidebook\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "A store of the test's own, for tests that run in the project's folder and its real pipelines."
    store = tmp_path / "store"
    monkeypatch.setenv("TIDEBOOK__STORE__PATH", str(store))
    return store


@pytest.fixture(scope="session")
def rounds() -> int:
    "How often a reliability test repeats itself: 1 in `make test`, N in `make soak N=`."
    return int(os.environ.get("SOAK_ROUNDS", "1"))
