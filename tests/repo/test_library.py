"""lib/tidebook is what nbdev exports from nbs/, its lessons are true, and its modules keep their layers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import lessons
from tests.repo import tree

LIBRARY = Path("lib") / "tidebook"


def library_files(root: Path) -> dict[str, bytes]:
    "Path below lib/tidebook -> bytes, without what Python leaves behind."
    folder = root / LIBRARY
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def sync_faults(root: Path, work: Path) -> Iterator[str]:
    "Where lib/ differs from a new export into an empty folder: edits, orphans, modules that were not exported."
    copy = tree.copied(work, ["pyproject.toml", "nbs"], root)
    (copy / LIBRARY).mkdir(parents=True)
    done = tree.ran("nbdev-export", cwd=copy)
    if done.returncode:
        yield f"nbdev-export failed:\n{done.stdout}"
        return
    exported, committed = library_files(copy), library_files(root)
    for name in sorted(exported.keys() | committed.keys()):
        if name not in exported:
            if not name.startswith(tree.HAND_WRITTEN):
                yield f"lib/tidebook/{name}: no notebook exports it (a deleted notebook leaves its module behind)"
        elif name not in committed:
            yield f"lib/tidebook/{name}: missing, a notebook exports it"
        elif exported[name] != committed[name]:
            yield f"lib/tidebook/{name}: differs from its notebook"


def test_library_equals_its_notebooks(tmp_path: Path) -> None:
    tree.expect_none(sync_faults(tree.ROOT, tmp_path / "copy"), "Edit the notebook, never lib/; then: make export")


def test_an_edit_an_orphan_and_a_missing_module_are_found(tmp_path: Path) -> None:
    root = tree.copied(tmp_path / "root", ["pyproject.toml", "nbs/10_core/01_errors.ipynb"])
    (root / LIBRARY).mkdir(parents=True)
    assert tree.ran("nbdev-export", cwd=root).returncode == 0
    (root / LIBRARY / "panels" / "static").mkdir(parents=True)
    (root / LIBRARY / "panels" / "static" / "view.js").write_text("export default {}\n")
    assert list(sync_faults(root, tmp_path / "same")) == []
    with (root / LIBRARY / "core" / "errors.py").open("a") as file:
        file.write("# by hand\n")
    (root / LIBRARY / "core" / "orphan.py").write_text("")
    (root / LIBRARY / "core" / "__init__.py").unlink()
    found = "\n".join(sync_faults(root, tmp_path / "changed"))
    assert "core/errors.py: differs" in found
    assert "core/orphan.py: no notebook" in found
    assert "core/__init__.py: missing" in found
    assert "view.js" not in found


@pytest.mark.parametrize("path", tree.library_notebooks(), ids=lambda path: str(path.relative_to(tree.ROOT / "nbs")))
def test_lesson_shows_what_it_does(path: Path) -> None:
    tree.expect_none(lessons.faults(path), "Put the code right, or refresh the outputs: make lessons")


def notebook(path: Path, *cells: tuple[str, str]) -> Path:
    "A notebook of code cells, each with its committed output."
    import nbformat

    made = [nbformat.v4.new_code_cell(source) for source, _ in cells]
    for cell, (_, shown) in zip(made, cells, strict=True):
        cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": shown}, execution_count=1)]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


def test_a_lesson_that_shows_something_else_or_fails_is_found(tmp_path: Path) -> None:
    shown = notebook(tmp_path / "shown.ipynb", ("1 + 1", "2"), ("2 + 2", "5"), ("#| eval: false\n1 / 0", "never"))
    (wrong,) = lessons.faults(shown)
    assert [line for line in ("    2 + 2", "-5", "+4") if line not in wrong.splitlines()] == []
    (failed,) = lessons.faults(notebook(tmp_path / "fails.ipynb", ("1 / 0", "2")))
    assert "ZeroDivisionError" in failed


def nbdev_test(root: Path, private: Path) -> tuple[int, str]:
    "Exit code and output of nbdev-test over all notebooks of `root`."
    done = tree.ran(
        "nbdev-test", "--n-workers", 2, "--skip-folder-re", r"^([_.]|explore)", cwd=root, IPYTHONDIR=str(private)
    )
    return done.returncode, done.stdout


def test_nbdev_test_passes(tmp_path: Path) -> None:
    # In a copy: it runs a notebook in the notebook's own folder, and a lesson may find the project from there.
    copy = tree.copied(tmp_path / "copy", ["pyproject.toml", "settings.ini", "nbs", "pipelines"])
    code, output = nbdev_test(copy, tmp_path)
    if code:
        pytest.fail(output, pytrace=False)


def test_nbdev_test_fails_on_a_notebook_that_fails(tmp_path: Path) -> None:
    root = tree.copied(tmp_path / "root", ["pyproject.toml"])
    (root / "nbs").mkdir()
    notebook(root / "nbs" / "fails.ipynb", ("1 / 0", "2"))
    code, output = nbdev_test(root, tmp_path)
    assert code != 0
    assert "ZeroDivisionError" in output


def layer_contracts(root: Path) -> str:
    "Import-linter's settings for the order inside each folder: a module imports earlier-numbered ones."
    folders: dict[str, list[str]] = {}
    for path in tree.library_notebooks(root):
        module = tree.module_of(path)
        if module and module.count(".") == 1:
            folder, name = module.split(".")
            folders.setdefault(folder, []).append(name)
    contracts = ['[tool.importlinter]\nroot_package = "tidebook"\n']
    for folder, names in folders.items():
        layers = ", ".join(f'"{name}"' for name in reversed(names))
        contracts.append(
            f'[[tool.importlinter.contracts]]\nname = "{folder}"\ntype = "layers"\n'
            f'containers = ["tidebook.{folder}"]\nlayers = [{layers}]\n'
        )
    return "\n".join(contracts)


def layer_faults(root: Path, work: Path) -> Iterator[str]:
    "What import-linter says about the folders (pyproject.toml) and about the order inside each (notebook numbers)."
    inside = work / "inside.toml"
    inside.write_text(layer_contracts(root))
    library = os.pathsep.join([str(root / "lib"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    for config in (root / "pyproject.toml", inside):
        done = tree.ran("lint-imports", "--no-logo", "--no-cache", "--config", config, cwd=root, PYTHONPATH=library)
        if done.returncode:
            yield done.stdout


def test_modules_import_only_what_stands_under_them(tmp_path: Path) -> None:
    tree.expect_none(layer_faults(tree.ROOT, tmp_path))


@pytest.mark.parametrize(
    ("file", "statement", "complaint"),
    [
        ("core/ids.py", "from tidebook.demo.flights import x", "tidebook.core is not allowed to import tidebook.demo"),
        ("core/errors.py", "def f():\n    import tidebook.core.ids", "tidebook.core.errors is not allowed to import"),
        ("guesses/a.py", "x = 1", "tidebook.guesses"),
    ],
)
def test_an_import_upward_and_an_unknown_folder_are_found(
    tmp_path: Path, file: str, statement: str, complaint: str
) -> None:
    root = tree.copied(tmp_path / "root", ["pyproject.toml"])
    for number, module in enumerate(("core.errors", "core.ids", "demo.flights"), start=1):
        folder, name = module.split(".")
        home = root / "nbs" / f"{number:02}_{folder}" if folder == "demo" else root / "nbs" / "01_core"
        home.mkdir(parents=True, exist_ok=True)
        notebook(home / f"{number:02}_{name}.ipynb", (f"#| default_exp {module}", ""))
        (root / LIBRARY / folder).mkdir(parents=True, exist_ok=True)
        (root / LIBRARY / folder / f"{name}.py").write_text("x = 1\n")
    for package in ("", "core", "demo"):
        (root / LIBRARY / package / "__init__.py").touch()
    assert list(layer_faults(root, tmp_path)) == []
    target = root / LIBRARY / file
    target.parent.mkdir(exist_ok=True)
    (target.parent / "__init__.py").touch()
    target.write_text(statement + "\n")
    assert complaint in "\n".join(layer_faults(root, tmp_path))
