"""A project with a pipeline of two quick notebooks, for tests that run pipelines for real."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

SETTINGS = "[project]\nname = tiny\n\n[store]\npath = .tidebook\n\n[gate.tiny]\nmin_auc = 0.6\n"
ENV = "run_key: default\nsize: 3\nlabel: low\n"
PIPELINE = """
tasks:
  - source: collect.ipynb
    product:
      nb: products/{{run_key}}/collect.ipynb
      rows: products/{{run_key}}/rows.json
    params: {size: "{{size}}", resources_: {table: table.csv}}

  - source: total.ipynb
    product:
      nb: products/{{run_key}}/total.ipynb
      total: products/{{run_key}}/total.json
    params: {label: "{{label}}"}
"""
TASK = "from tidebook import Project\n\nproject = Project.find()\ntask = project.task(upstream, product)"
COLLECT = [
    "upstream = None\nproduct = None\nsize = 1",
    "import helper\n\nhelper.ready()",
    TASK,
    'notes = open("notes.txt").read()\nlimit = project.gate("tiny").min_auc',
    "n = min(size, 10)\ntask.save('rows', project.catalog.commit('value', 'rows', {'n': n}), n=n)",
]
TOTAL = [
    'upstream = ["collect"]\nproduct = None\nlabel = ""',
    TASK,
    'n = task.version("collect.rows").manifest["n"]',
    'total = project.catalog.commit("value", "total", {"n": n * 2, "label": label})',
    'task.save("total", total, total=n * 2)',
]
FILES = {
    "settings.ini": SETTINGS,
    "pipelines/tiny/env.yaml": ENV,
    "pipelines/tiny/pipeline.yaml": PIPELINE,
    "pipelines/tiny/table.csv": "a\n1\n",
    "pipelines/tiny/notes.txt": "low tide\n",
    "pipelines/tiny/helper.py": "def ready():\n    import late  # not before\n\n    return late.VALUE\n",
    "pipelines/tiny/late.py": "VALUE = 1\n",
    "pipelines/tiny/unused.py": "VALUE = 2\n",
}


def write_notebook(path: Path, sources: Sequence[str], *, text: str = "A tiny notebook.") -> None:
    "A notebook with one cell of text, then code cells, the first of them with the parameters."
    cells = [{"cell_type": "markdown", "id": "text", "metadata": {}, "source": text}]
    for i, source in enumerate(sources):
        tags = {"tags": ["parameters"]} if i == 0 else {}
        cell = {"cell_type": "code", "id": f"c{i}", "metadata": tags, "source": source}
        cells.append({**cell, "outputs": [], "execution_count": None})
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    content = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_project(
    folder: Path,
    notebooks: Mapping[str, Sequence[str]] | None = None,  # name -> code cells, in place of the usual ones
    files: Mapping[str, str] | None = None,  # path -> text, in place of the usual ones
) -> Path:
    "A project in `folder` with the pipeline `tiny`; the pipeline's folder."
    for name, text in {**FILES, **(files or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name, sources in {"collect": COLLECT, "total": TOTAL, **(notebooks or {})}.items():
        write_notebook(folder / "pipelines" / "tiny" / f"{name}.ipynb", sources)
    return folder / "pipelines" / "tiny"
