"""Notebooks are clean and short, and a pipeline's are written for the person who reads the report."""

import ast
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tests.repo import tree

MAX_CELLS = 80
MAX_EXPORTED_LINES = 300
MAX_CELL_LINES = 40
MAX_FUNCTION_LINES = 30
MAX_SIZE_BYTES = 100_000
MAX_PIPELINE_CODE_CELLS = 12
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def parsed(text: str) -> ast.Module:
    "The syntax tree of a cell, magics included."
    return ast.parse(TransformerManager().transform_cell(text))


def n_lines(text: str) -> int:
    return len(text.strip().splitlines())


def decorator_name(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.id if isinstance(node, ast.Name) else ""


def code_faults(text: str, where: str) -> Iterator[str]:
    "Broken rules inside one code cell."
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield f"{where}: star import from {node.module}"
        if isinstance(node, FUNCTIONS):
            n = (node.end_lineno or node.lineno) - node.lineno + 1
            if n > MAX_FUNCTION_LINES:
                yield f"{where}: {node.name} has {n} lines (at most {MAX_FUNCTION_LINES})"
            if any(decorator_name(decorator) in ("patch", "patch_to") for decorator in node.decorator_list):
                yield f"{where}: {node.name} is added to its class by @patch"


def library_faults(path: Path) -> Iterator[str]:
    "Broken rules of a library notebook."
    cells = tree.cells(path)
    n_exported = sum(n_lines(tree.source(cell)) - 1 for cell in cells if tree.is_exported(cell))
    limits = [
        ("cells", len(cells), MAX_CELLS),
        ("exported lines", n_exported, MAX_EXPORTED_LINES),
        ("bytes", path.stat().st_size, MAX_SIZE_BYTES),
    ]
    yield from (f"{path.name}: {n} {what} (at most {limit})" for what, n, limit in limits if n > limit)
    for number, cell in enumerate(cells, start=1):
        text, where = tree.source(cell), f"{path.name}, cell {number}"
        if n_lines(text) > MAX_CELL_LINES:
            yield f"{where}: {n_lines(text)} lines (at most {MAX_CELL_LINES})"
        if re.search(r"\b(TODO|FIXME|XXX)\b", text):
            yield f"{where}: unfinished work is marked, and belongs into an issue"
        if cell["cell_type"] == "code":
            yield from code_faults(text, where)


def pipeline_faults(path: Path) -> Iterator[str]:
    "Broken rules of a pipeline notebook."
    code = [cell for cell in tree.cells(path) if cell["cell_type"] == "code"]
    tagged = [n for n, cell in enumerate(code) if "parameters" in cell["metadata"].get("tags", [])]
    if tagged != [0]:
        yield f"{path.name}: the first code cell, and no other, is tagged `parameters`; tagged now: {tagged}"
    if len(code) > MAX_PIPELINE_CODE_CELLS:
        yield f"{path.name}: {len(code)} code cells (at most {MAX_PIPELINE_CODE_CELLS})"
    if re.search(r"\d", path.stem):
        yield f"{path.name}: its name has a number; pipeline.yaml gives the order"
    for number, cell in enumerate(code, start=1):
        where = f"{path.name}, code cell {number}"
        if cell["outputs"] or cell["execution_count"]:
            yield f"{where}: committed with outputs"
        for node in ast.walk(parsed(tree.source(cell))):
            if isinstance(node, DEFINITIONS):
                yield f"{where}: defines {node.name}; definitions belong into the library"
            if isinstance(node, ast.Call) and reads_literal_path(node):
                yield f"{where}: reads a literal path; inputs come by `upstream` or a declared alias"


def reads_literal_path(call: ast.Call) -> bool:
    "True for `pl.read_csv('data.csv')` and its like."
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    literal = call.args and isinstance(call.args[0], (ast.Constant, ast.JoinedStr))
    return bool(literal) and name.startswith(("read_", "scan_")) and name not in ("read_text", "read_bytes")


def name_faults(path: Path, root: Path) -> Iterator[str]:
    "A notebook's place says which module it is: nbs/40_stats/01_metrics.ipynb is stats.metrics."
    parts = path.relative_to(root / "nbs").parts
    module = tree.module_of(path)
    if len(parts) == 1 or not re.match(r"\d\d_", parts[0]):
        return
    expected = ".".join(tree.without_number(part) for part in (*parts[:-1], path.stem))
    if module != expected:
        yield f"{path.name}: exports to {module}, its place says {expected}"


def unclean(root: Path, work: Path) -> list[str]:
    "Notebooks that nbdev-clean would change, found on a copy in `work`."
    notebooks = tree.library_notebooks(root) + tree.pipeline_notebooks(root)
    names = [str(path.relative_to(root)) for path in notebooks]
    copy = tree.copied(work, ["pyproject.toml", *names], root)
    for folder in ("nbs", "pipelines"):
        if (copy / folder).exists():
            done = tree.ran("nbdev-clean", "--fname", folder, cwd=copy)
            assert done.returncode == 0, done.stdout
    return [name for name in names if (copy / name).read_bytes() != (root / name).read_bytes()]


def test_library_notebooks_keep_their_budgets() -> None:
    notebooks = tree.library_notebooks()
    assert notebooks
    tree.expect_none(fault for path in notebooks for fault in library_faults(path))


def test_library_notebooks_stand_where_their_module_says() -> None:
    tree.expect_none(fault for path in tree.library_notebooks() for fault in name_faults(path, tree.ROOT))


def test_pipeline_notebooks_keep_their_rules() -> None:
    notebooks = tree.pipeline_notebooks()
    assert notebooks
    tree.expect_none(fault for path in notebooks for fault in pipeline_faults(path))


def test_notebooks_are_clean(tmp_path: Path) -> None:
    tree.expect_none(
        unclean(tree.ROOT, tmp_path / "copy"), "These are not clean. Run: nbdev-clean --fname nbs (or pipelines)"
    )


# The checks can fail: each is shown a notebook that breaks its rules.


def code_cell(text: str, **more: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "id": "c0", "source": text, "outputs": [], "execution_count": None, "metadata": {}}
    return {**cell, **more}


def written(path: Path, *cells: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("from polars import *", "star import"),
        ("@patch\ndef grow(self: int) -> None: ...", "@patch"),
        ("# TODO", "unfinished"),
        ("def long() -> None:\n" + "    pass\n" * 30, "long has 31 lines"),
        ("x = 1\n" * 41, "41 lines"),
        ("#| export\n" + "x = 1\n" * 301, "301 exported lines"),
        ("'" + "x" * MAX_SIZE_BYTES + "'", "bytes"),
    ],
)
def test_a_library_notebook_that_breaks_a_rule_is_found(tmp_path: Path, text: str, complaint: str) -> None:
    path = written(tmp_path / "01_example.ipynb", code_cell(text))
    assert any(complaint in fault for fault in library_faults(path))


def test_too_many_cells_are_found(tmp_path: Path) -> None:
    path = written(tmp_path / "01_example.ipynb", *[code_cell("1")] * 81)
    assert list(library_faults(path)) == ["01_example.ipynb: 81 cells (at most 80)"]


@pytest.mark.parametrize(
    ("name", "cell", "complaint"),
    [
        ("train.ipynb", code_cell("month = 1"), "tagged `parameters`"),
        ("train2.ipynb", code_cell("month = 1", metadata={"tags": ["parameters"]}), "has a number"),
        ("train.ipynb", code_cell("def f(): ..."), "defines f"),
        ("train.ipynb", code_cell("pl.read_csv('data.csv')"), "literal path"),
        ("train.ipynb", code_cell("1", execution_count=1), "with outputs"),
    ],
)
def test_a_pipeline_notebook_that_breaks_a_rule_is_found(
    tmp_path: Path, name: str, cell: dict[str, Any], complaint: str
) -> None:
    path = written(tmp_path / name, cell)
    assert any(complaint in fault for fault in pipeline_faults(path))


def test_too_many_code_cells_are_found(tmp_path: Path) -> None:
    path = written(
        tmp_path / "train.ipynb", code_cell("m = 1", metadata={"tags": ["parameters"]}), *[code_cell("1")] * 12
    )
    assert list(pipeline_faults(path)) == ["train.ipynb: 13 code cells (at most 12)"]


def test_a_module_in_the_wrong_place_is_found(tmp_path: Path) -> None:
    path = written(tmp_path / "nbs" / "40_stats" / "01_metrics.ipynb", code_cell("#| default_exp learn.metrics"))
    assert list(name_faults(path, tmp_path)) == [
        "01_metrics.ipynb: exports to learn.metrics, its place says stats.metrics"
    ]


def test_a_notebook_that_is_not_clean_is_found_and_tags_are_kept(tmp_path: Path) -> None:
    root = tree.copied(tmp_path / "root", ["pyproject.toml"])
    dirty = written(root / "nbs" / "10_core" / "01_a.ipynb", code_cell("1", metadata={"collapsed": True}))
    written(root / "pipelines" / "p" / "train.ipynb", code_cell("m = 1", metadata={"tags": ["parameters"]}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = unclean(root, tmp_path / "first")
    assert "nbs/10_core/01_a.ipynb" in first
    copy = tmp_path / "first"
    assert "collapsed" not in (copy / dirty.relative_to(root)).read_text()
    assert "parameters" in (copy / "pipelines" / "p" / "train.ipynb").read_text()
