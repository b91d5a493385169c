"""The wheel is whole: built, installed alone into an empty environment, imported, asked for help."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.repo import tree


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A wheel built from a copy, without network."
    work = tmp_path_factory.mktemp("wheel")
    root = tree.copied(work / "root", ["pyproject.toml", "README.md", "LICENSE", "lib"])
    done = tree.ran(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", work / "dist", root, cwd=work
    )
    assert done.returncode == 0, done.stdout
    (built,) = (work / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Folder with the scripts of an environment that holds the wheel and nothing else."
    venv = tmp_path_factory.mktemp("empty") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    target = venv / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", target, "install", "--no-index", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    return venv / "bin"


def run_alone(command: list[object], folder: Path) -> str:
    "Output of a command in an empty folder that is its home too, so that nothing of this project is found."
    variables = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    done = subprocess.run([*map(str, command)], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_every_module_and_every_hand_written_file(wheel: Path) -> None:
    library = tree.ROOT / "lib" / "tidebook"
    expected = {
        path.relative_to(library.parent).as_posix()
        for path in library.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and ".ipynb_checkpoints" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("tidebook/")}
    assert sorted(expected - packed) == [], "not in the wheel"
    assert sorted(packed - expected) == [], "in the wheel only"
    assert "tidebook/py.typed" in packed
    assert any(name.startswith("tidebook/panels/static/") for name in packed)


def test_wheel_carries_its_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_wheel_works_alone(alone: Path, tmp_path: Path) -> None:
    where = run_alone([alone / "python", "-c", "import tidebook; print(tidebook.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(alone.parent)
    assert "usage: tidebook" in run_alone([alone / "tidebook", "--help"], tmp_path)
