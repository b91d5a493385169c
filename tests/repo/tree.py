"""The project's files, its notebooks, and copies of both for checks that write."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests import environment
from tests.lessons import lessons as library_notebooks  # noqa: F401 (used as tree.library_notebooks)

ROOT = environment.ROOT
HAND_WRITTEN = ("panels/static/", "targets/templates/", "labextension/", "py.typed")  # below lib/tidebook
_NOT_COPIED = shutil.ignore_patterns(
    "__pycache__", ".ipynb_checkpoints", "*.egg-info", "products", ".tidebook", ".*.metadata"
)
_NUMBER = re.compile(r"^\d+[a-z]?_")


def project_files(root: Path = ROOT) -> list[Path]:
    "Every file that is committed or would be: tracked, or neither tracked nor ignored."
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(root / name for name in listed.stdout.split("\0") if name and (root / name).is_file())


def copied(target: Path, names: Iterable[str], root: Path = ROOT) -> Path:
    "`target`, filled with copies of the named files and folders of the project."
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (root / name).is_dir():
            shutil.copytree(root / name, target / name, ignore=_NOT_COPIED)
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    return target


def pipeline_notebooks(root: Path = ROOT) -> list[Path]:
    return sorted(path for path in root.glob("pipelines/*/*.ipynb") if not path.name.startswith("."))


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def is_exported(cell: dict[str, Any]) -> bool:
    return cell["cell_type"] == "code" and bool(re.match(r"#\|\s*exporti?\b", source(cell)))


def module_of(path: Path) -> str | None:
    "The module that the notebook says it exports to, below `tidebook`; None if it exports none."
    for cell in cells(path):
        if found := re.search(r"^#\|\s*default_exp\s+(\S+)", source(cell), re.MULTILINE):
            return found[1]
    return None


def without_number(name: str) -> str:
    return _NUMBER.sub("", name)


def expect_none(faults: Iterable[str], remedy: str = "") -> None:
    "Fails with every fault on a line of its own."
    if found := list(faults):
        pytest.fail("\n".join([*found, remedy]).rstrip(), pytrace=False)


def ran(*command: object, cwd: Path = ROOT, **changes: str) -> subprocess.CompletedProcess[str]:
    "The finished process of a script of this environment, with its output as text."
    program, *arguments = map(str, command)
    script = environment.SCRIPTS / program
    return subprocess.run(
        [str(script) if script.exists() else program, *arguments],
        cwd=cwd,
        env=environment.with_changes(changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
