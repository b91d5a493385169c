"""Pipelines: the specification against Ploomber's own reading, the plan against changes, runs of tiny notebooks."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tidebook import Project
from tidebook.core.errors import (
    DamagedFileError,
    PipelineError,
    SpecError,
    TaskFailedError,
    UnknownNameError,
    WrongUseError,
)
from tidebook.pipeline.plan import Plan
from tidebook.pipeline.records import Reference
from tidebook.pipeline.runner import Execution
from tidebook.pipeline.spec import PipelineSpec, read_pipeline, typed

from tests import environment, tiny

NOTHING = ["upstream = None\nproduct = None"]
ONE = "tasks:\n  - source: a.ipynb\n    product: {nb: products/a.ipynb}\n"


def pipeline(folder: Path, yaml: str = ONE, env: str = "run_key: default\n", **notebooks: str) -> Path:
    "A pipeline's folder; of each notebook the parameters cell is given."
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.yaml").write_text(yaml)
    if env:
        (folder / "env.yaml").write_text(env)
    for name, parameters in {"a": NOTHING[0], **notebooks}.items():
        tiny.write_notebook(folder / f"{name}.ipynb", [parameters, "1 + 1"])
    return folder


# The specification


def test_placeholders_are_filled_and_keep_the_type_of_their_value(tmp_path: Path) -> None:
    folder = pipeline(
        tmp_path / "p",
        "tasks:\n"
        "  - source: a.ipynb\n"
        "    name: first_{{month}}\n"
        '    product: {nb: "products/{{run_key}}/a.ipynb", rows: "products/{{ run_key }}/rows.json"}\n'
        "    params:\n"
        '      n: "{{n}}"\n'
        '      share: "{{share}}"\n'
        '      flag: "{{flag}}"\n'
        '      said: "{{n}} of {{month}}"\n'
        '      deep: {list: ["{{n}}", x]}\n'
        "      resources_: {contract: contract.toml}\n"
        '      inputs: {model: "model:delay@{{alias}}"}\n',
        "run_key: default\nmonth: 2013-04\nn: 3\nshare: 0.5\nflag: true\nalias: champion\n",
    )
    task = read_pipeline(folder).tasks["first_2013-04"]
    assert dict(task.params) == {"n": 3, "share": 0.5, "flag": True, "said": "3 of 2013-04", "deep": {"list": [3, "x"]}}
    assert dict(task.products) == {"nb": "products/default/a.ipynb", "rows": "products/default/rows.json"}
    assert (dict(task.resources), dict(task.inputs)) == (
        {"contract": "contract.toml"},
        {"model": "model:delay@champion"},
    )
    other = read_pipeline(folder, {"n": 4, "month": "2013-04"})
    assert dict(other.overrides) == {"n": 4}  # the month is the one of env.yaml
    assert other.run_key.startswith("4-")
    assert other.tasks["first_2013-04"].products["nb"] == f"products/{other.run_key}/a.ipynb"
    assert other.tasks["first_2013-04"].params["said"] == "4 of 2013-04"
    assert read_pipeline(folder, {"n": 3}).run_key == "default"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("False", False),
        ("2013-04", "2013-04"),
        ("", ""),
        ("3 of", "3 of"),
        ("nan", "nan"),
        ("-inf", "-inf"),
        ("None", "None"),
    ],
)
def test_words_of_the_command_line_get_a_type(text: str, value: object) -> None:
    assert typed(text) == value
    assert type(typed(text)) is type(value)


def test_another_file_with_defaults_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pipeline(tmp_path / "p", env="run_key: default\nn: 1\n")
    (folder / "env.test.yaml").write_text("run_key: test\nn: 2\n")
    monkeypatch.setenv("PLOOMBER_ENV_FILENAME", "env.test.yaml")
    assert dict(read_pipeline(folder).env) == {"run_key": "test", "n": 2}
    assert read_pipeline(folder, {"n": 5}).run_key.startswith("test-5-")


def test_wrong_parameters_say_which_there_are(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "p", env="run_key: default\nmonth: 1\n")
    for name in ("mont", "run_key"):
        with pytest.raises(UnknownNameError, match="Allowed: month"):
            read_pipeline(folder, {name: 2})


TWO = ONE + "  - source: b.ipynb\n    product: {nb: products/b.ipynb}\n"


@pytest.mark.parametrize(
    ("yaml", "notebooks", "told"),
    [
        ("meta: {}\n" + ONE, {}, "Found: meta"),
        (ONE + "    on_finish: x.y\n", {}, r"task 'a.ipynb'.*Found: on_finish\. Allowed: name, params"),
        (ONE + "    grid: {n: [1, 2]}\n", {}, "Found: grid"),
        (ONE.replace("source: a.ipynb\n    ", ""), {}, "no source or product"),
        (ONE.replace("nb: products", "out: products"), {}, "must name its executed notebook"),
        (ONE.replace("products/", "../"), {}, "outside the pipeline's folder.*Found: ../a.ipynb"),
        (ONE.replace("products/", "/elsewhere/"), {}, "outside the pipeline's folder"),
        (ONE + "    params: {resources_: {x: ../../secret}}\n", {}, "outside the pipeline's folder"),
        (ONE.replace("products/a.ipynb", "3"), {}, "not text"),
        (ONE + "    params: {n: '{{gone}}'}\n", {}, r"uses {{gone}}.*Allowed: run_key"),
        (ONE + "    params: {n: '{{run_key | upper}}'}\n", {}, "template that is not understood"),
        (ONE + "    params: {n: '{% if x %}'}\n", {}, "template that is not understood"),
        (ONE + "    params: [1]\n", {}, "params of task 'a.ipynb' must map"),
        (ONE + "    params: {inputs: x}\n", {}, "inputs of task 'a.ipynb' must map"),
        (ONE.replace("a.ipynb\n", "b.ipynb\n"), {}, r"no notebook 'b.ipynb'. Allowed: a\.ipynb"),
        ("tasks: [a.ipynb]\n", {}, "is not a mapping. Found: a.ipynb"),
        ("tasks: {a: b}\n", {}, "is not a list"),
        ("- a\n", {}, "Found: list"),
        ("tasks: []\n", {}, "Found: no tasks"),
        ("", {}, "no tasks"),
        ("tasks: [", {}, "pipeline.yaml of pipeline 'p' cannot be read"),
        (ONE + ONE[7:], {}, "same name"),
        (ONE, {"a": "upstream = \nproduct = None"}, "parameters cell of 'a.ipynb' is not understood"),
        (ONE, {"a": "upstream = list()\nproduct = None"}, "is not understood"),
        (ONE, {"a": "upstream = 'b'\nproduct = None"}, "not a list of task names"),
        (ONE, {"a": "product = None"}, "does not set upstream"),
        (
            TWO,
            {"a": "upstream = ['b']", "b": "upstream = ['a']"},
            "circle. Found: a -> b -> a|circle. Found: b -> a -> b",
        ),
        (ONE, {"a": "upstream = ['a']"}, "circle"),
    ],
)
def test_what_is_not_understood_is_named(yaml: str, notebooks: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=told):
        read_pipeline(pipeline(tmp_path / "p", yaml, **notebooks))


def test_what_has_no_json_cannot_be_a_parameter(tmp_path: Path) -> None:
    with pytest.raises(WrongUseError, match=r"params of task 'a\.ipynb' cannot be written as JSON"):
        read_pipeline(pipeline(tmp_path / "p", ONE + "    params: {day: 2013-04-01}\n"))


def test_an_unknown_upstream_names_the_closest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'a'"):
        read_pipeline(pipeline(tmp_path / "p", TWO, b="upstream = ['aa', 'a']"))
    with pytest.raises(UnknownNameError, match="Allowed: p"):
        read_pipeline(tmp_path / "q")


@pytest.mark.parametrize("content", ["", "[]", '{"cells": [3]}', "{}"])
def test_a_file_that_is_no_notebook_is_named(content: str, tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "p")
    (folder / "a.ipynb").write_text(content)
    with pytest.raises(SpecError, match=r"'a\.ipynb' is not a notebook"):
        read_pipeline(folder)


# What Ploomber makes of the same files


def task(source: str, **more: Any) -> dict[str, Any]:
    name = more.get("name", source)
    product = {"nb": f"products/{{{{run_key}}}}/{name}.ipynb", "out": f"products/{{{{run_key}}}}/{name}.json"}
    return {"source": f"{source}.ipynb", "product": product, **more}


SPECS: dict[str, tuple[list[dict[str, Any]], str, dict[str, str], dict[str, Any]]] = {
    "one task": ([task("a")], "run_key: default\n", {}, {}),
    "no env.yaml": (
        [{"source": "a.ipynb", "product": {"nb": "products/a.ipynb"}, "params": {"n": 3, "names": ["x", "y"]}}],
        "",
        {"a": "upstream = None\nproduct = None\nn = 1\nnames = []"},
        {},
    ),
    "a chain, written backwards": (
        [task("c"), task("b"), task("a")],
        "run_key: default\n",
        {"b": "upstream = ['a']\nproduct = None", "c": "upstream = ['b', 'a']\nproduct = None"},
        {},
    ),
    "a diamond, upstream as set, tuple and dictionary": (
        [task("a"), task("b"), task("c"), task("d")],
        "run_key: test\n",
        {
            "b": "upstream = {'a'}\nproduct = None",
            "c": "upstream = {'a': None}\nproduct = None",
            "d": "# reads both\nupstream = ['c', 'b']\nproduct = None",
        },
        {},
    ),
    "one notebook under two names": (
        [task("a", name="a_short", params={"n": 1}), task("a", name="a_long", params={"n": 2}), task("b")],
        "run_key: default\n",
        {
            "a": "upstream = None\nproduct = None\nn = 0",
            "b": "upstream = ['a_short', 'a_long']\nproduct = None",
        },
        {},
    ),
    "typed placeholders": (
        [task("a", params={"n": "{{n}}", "share": "{{share}}", "month": "{{month}}", "said": "{{n}}/{{month}}"})],
        "run_key: default\nn: 3\nshare: 0.25\nmonth: 2013-04\n",
        {"a": "upstream = None\nproduct = None\nn = 1\nshare = 1\nmonth = ''\nsaid = ''"},
        {},
    ),
    "overrides": (
        [task("a", params={"n": "{{n}}", "month": "{{month}}"})],
        "run_key: default\nn: 3\nmonth: 2013-04\n",
        {"a": "upstream = None\nproduct = None\nn = 1\nmonth = ''"},
        {"n": 7, "month": "2013-05"},
    ),
    "resources and nested parameters": (
        [
            task(
                "a", params={"resources_": {"contract": "contract.toml"}, "deep": {"n": [1, 2.5, None, True], "s": "ü"}}
            )
        ],
        "run_key: default\n",
        {"a": "upstream = None\nproduct = None\ndeep = {}"},
        {},
    ),
}


def as_ploomber_reads(folder: Path, env: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    "Task -> what Ploomber's own DAG says about it."
    from tidebook.pipeline.chain import import_ploomber

    dag_spec = import_ploomber().spec.DAGSpec
    with contextlib.chdir(folder):
        dag = dag_spec("pipeline.yaml", env=env).to_dag()
        found = {}
        for name in dag:
            params = json.loads(json.dumps(dag[name].params.to_json_serializable(params_only=True)))
            resources = params.pop("resources_", {})
            found[name] = {
                "upstream": sorted(dag[name].upstream),
                "source": Path(str(dag[name].source.loc)).resolve(),
                "product": {key: str(value) for key, value in dag[name].product.to_json_serializable().items()},
                "params": params,
                "resources": {key: Path(value).resolve() for key, value in resources.items()},
            }
    return found


@pytest.mark.parametrize("case", SPECS)
def test_ploomber_reads_the_same_from_the_same_files(case: str, tmp_path: Path) -> None:
    import yaml

    tasks, env, notebooks, overrides = SPECS[case]
    folder = pipeline(tmp_path / "p", yaml.safe_dump({"tasks": tasks}), env, **notebooks)
    (folder / "contract.toml").write_text("")
    spec = read_pipeline(folder, overrides)
    ours = {
        item.name: {
            "upstream": list(item.upstream),
            "source": item.source.resolve(),
            "product": dict(item.products),
            "params": dict(item.params),
            "resources": {name: (folder / path).resolve() for name, path in item.resources.items()},
        }
        for item in spec.tasks.values()
    }
    theirs = as_ploomber_reads(folder, dict(spec.env) if env else None)
    for found in theirs.values():  # Ploomber may make paths absolute
        found["product"] = {name: os.path.relpath(folder / path, folder) for name, path in found["product"].items()}
    assert ours == theirs
    place = {name: i for i, name in enumerate(spec.tasks)}
    assert all(place[before] < place[item.name] for item in spec.tasks.values() for before in item.upstream)


# The plan. One real run is the basis; each test changes a copy of it.


def opened(folder: Path) -> Project:
    return Project.find(folder)


def planned(folder: Path, **overrides: Any) -> Plan:
    return opened(folder).pipeline("tiny").plan(**overrides)


def ran(folder: Path, **overrides: Any) -> Execution:
    return opened(folder).pipeline("tiny").run(say=lambda line: None, **overrides)


def actions(plan: Plan) -> dict[str, str]:
    return {item.task: item.action for item in plan.decisions}


def what(execution: Execution) -> dict[str, str]:
    return {result.task: result.action for result in execution.results}


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    return [record.body for record in opened(folder).catalog.records("task", subject=f"tiny/{name}")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A project whose pipeline has run."
    folder = tmp_path_factory.mktemp("built")
    tiny.write_project(folder)
    plan = planned(folder)
    assert actions(plan) == {"collect": "run", "total": "depends"}
    assert [item.reasons for item in plan.decisions] == [("never ran",), ("after collect",)]
    execution = ran(folder)
    assert what(execution) == {"collect": "ran", "total": "ran"}
    assert [result.facts for result in execution.results] == [{"n": 3}, {"total": 6}]
    return folder


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    "A copy of the built project, in another place."
    return Path(shutil.copytree(built, tmp_path / "copy"))


def test_a_run_leaves_references_records_and_lineage(built: Path) -> None:
    folder, catalog = built / "pipelines" / "tiny", opened(built).catalog
    made = {name: Reference.read(folder / f"products/default/{name}.json") for name in ("rows", "total")}
    assert catalog.resolve("value", made["total"].ref).manifest == {"n": 6, "label": "low"}
    assert [item.ref for item in catalog.inputs(catalog.resolve("value", "total"))] == ["rows@v1"]
    (collect,), (total,) = records(built, "collect"), records(built, "total")
    assert set(collect["files"]) == {
        "pipelines/tiny/helper.py",
        "pipelines/tiny/late.py",
        "pipelines/tiny/notes.txt",
        "settings.ini#gate.tiny",
    }
    assert collect["products"]["rows"]["digest"] == made["rows"].digest
    assert [item["name"] for item in total["inputs"]] == ["rows"]
    executed = catalog.objects.read_bytes(collect["notebook"])
    assert executed == (folder / "products/default/collect.ipynb").read_bytes()


def test_nothing_to_do_says_so_and_starts_no_kernel(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*_: Any) -> None:
        raise AssertionError("Ploomber was asked although nothing has to run")

    plan = planned(project)
    assert actions(plan) == {"collect": "skip", "total": "skip"}
    assert plan.n_to_run == 0
    assert "nothing to do" in repr(plan)
    monkeypatch.setattr("tidebook.pipeline.runner.build", unwanted)
    assert what(ran(project)) == {"collect": "kept", "total": "kept"}


def edited(project: Path, name: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = project / "pipelines" / "tiny" / f"{name}.ipynb"
    content = json.loads(path.read_text())
    change(content["cells"])
    path.write_text(json.dumps(content, indent=3))


def test_what_does_not_change_the_code_changes_nothing(project: Path) -> None:
    def harmless(cells: list[dict[str, Any]]) -> None:
        cells[0]["source"] = "Other words."
        cells[2]["source"] = "# a comment\nimport helper\n\n\nhelper.ready( )   # another\n"
        cells[3]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
        cells[3]["execution_count"] = 7
        cells.insert(1, {"cell_type": "markdown", "id": "more", "metadata": {}, "source": "More words."})

    edited(project, "collect", harmless)
    (project / "pipelines/tiny/unused.py").write_text("VALUE = 3\n")
    (project / "settings.ini").write_text(tiny.SETTINGS.replace("name = tiny", "name = other") + "[gate.other]\n")
    os.utime(project / "pipelines/tiny/helper.py")
    assert actions(planned(project)) == {"collect": "skip", "total": "skip"}


def change_file(name: str, text: str) -> Callable[[Path], None]:
    return lambda project: (project / name).write_text(text) and None


def change_cell(number: int, source: str) -> Callable[[Path], None]:
    return lambda project: edited(project, "collect", lambda cells: cells[number].update(source=source))


def remove_object(project: Path) -> None:
    digest = records(project, "collect")[0]["products"]["rows"]["digest"]
    (project / ".tidebook/objects" / digest[:2] / digest[2:]).unlink()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_cell(5, tiny.COLLECT[4].replace("10", "9")), "code cell 5 changed"),
        (change_cell(2, tiny.COLLECT[1].replace("helper.ready()", "helper.ready( 1)")), "code cell 2 changed"),
        (change_file("pipelines/tiny/table.csv", "a\n2\n"), "file table changed"),
        (change_file("pipelines/tiny/late.py", "VALUE = 2\n"), "pipelines/tiny/late.py changed"),
        (change_file("pipelines/tiny/helper.py", "def ready():\n    pass\n"), "pipelines/tiny/helper.py changed"),
        (change_file("pipelines/tiny/notes.txt", "high\n"), "pipelines/tiny/notes.txt changed"),
        (change_file("settings.ini", tiny.SETTINGS.replace("0.6", "0.7")), "settings.ini#gate.tiny changed"),
        (change_file("pipelines/tiny/env.yaml", tiny.ENV.replace("3", "4")), "parameter size: 3 -> 4"),
        (lambda project: (project / "pipelines/tiny/late.py").unlink(), "pipelines/tiny/late.py changed"),
        (lambda project: edited(project, "collect", lambda cells: cells.pop()), "has 4 code cells, had 5"),
        (remove_object, "rows@v1 is no longer in the store"),
    ],
)
def test_each_change_is_the_reason(change: Callable[[Path], None], reason: str, project: Path) -> None:
    change(project)
    plan = planned(project)
    assert actions(plan) == {"collect": "run", "total": "depends"}
    assert reason in "; ".join(plan.decisions[0].reasons)
    assert len(plan.decisions[0].reasons) == 1


def test_a_missing_declared_file_is_named(project: Path) -> None:
    (project / "pipelines/tiny/table.csv").unlink()
    with pytest.raises(SpecError, match=r"'table\.csv' does not exist"):
        planned(project)


def test_an_input_by_alias_is_part_of_the_key(project: Path) -> None:
    catalog = opened(project).catalog
    for i in range(2):
        catalog.commit("model", "delay", {"i": i})
    declared = tiny.PIPELINE.replace(
        '{label: "{{label}}"}', '{label: "{{label}}", inputs: {model: "model:delay@champion"}}'
    )
    (project / "pipelines/tiny/pipeline.yaml").write_text(declared)
    with pytest.raises(UnknownNameError, match="champion"):
        planned(project)
    catalog.set_alias("model", "delay", "champion", 1)
    assert planned(project).decisions[1].reasons == ("input model changed",)
    (project / "pipelines/tiny/pipeline.yaml").write_text(declared.replace("model:delay", "delay"))
    with pytest.raises(SpecError, match="Allowed: model:delay@champion"):
        planned(project)


# Runs


def test_an_upstream_that_makes_the_same_again_keeps_what_follows(project: Path) -> None:
    (project / "pipelines/tiny/late.py").write_text("VALUE = 5  # no product depends on it\n")
    execution = ran(project)
    assert what(execution) == {"collect": "ran", "total": "kept"}
    assert execution.results[0].reasons == ("pipelines/tiny/late.py changed",)
    assert actions(planned(project)) == {"collect": "skip", "total": "skip"}
    (project / "pipelines/tiny/late.py").write_text(tiny.FILES["pipelines/tiny/late.py"])
    assert actions(planned(project)) == {"collect": "skip", "total": "skip"}  # the first record fits again


def test_products_are_reused_under_another_run_key_and_ploomber_agrees(project: Path) -> None:
    folder = project / "pipelines" / "tiny"
    execution = ran(project, label="high")
    key = execution.spec.run_key
    assert what(execution) == {"collect": "kept", "total": "ran"}
    assert execution.results[1].reasons == ("parameter label: low -> high",)
    assert (folder / "products" / key / "rows.json").read_bytes() == (
        folder / "products/default/rows.json"
    ).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("products/*/[!.]*")}
    assert len(before) == 8
    done = subprocess.run(
        [environment.SCRIPTS / "ploomber", "build", "--env--label", "high", "--env--run_key", key],
        cwd=folder,
        env=environment.with_changes({"PLOOMBER_STATS_ENABLED": "false"}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:2] for line in done.stdout.splitlines() if line.startswith(("collect", "total"))]
    assert rows == [["collect", "False"], ["total", "False"]]
    assert {path: path.stat().st_mtime_ns for path in folder.glob("products/*/[!.]*")} == before
    shutil.rmtree(folder / "products")
    assert what(ran(project, label="high")) == {"collect": "kept", "total": "kept"}
    assert json.loads((folder / "products" / key / "total.json").read_text())["facts"] == {"total": 6}
    assert (folder / "products" / key / "collect.ipynb").exists()


def test_a_record_of_what_changed_while_it_ran_is_never_reused(tmp_path: Path) -> None:
    meddling = [*tiny.COLLECT[:2], 'open("helper.py", "a").write("\\n")', *tiny.COLLECT[2:]]
    tiny.write_project(tmp_path, {"collect": meddling})
    with contextlib.suppress(PipelineError):
        ran(tmp_path)
    assert [record["status"] for record in records(tmp_path, "collect")] == ["changed while running"]
    for text in (None, tiny.FILES["pipelines/tiny/helper.py"]):
        if text:
            (tmp_path / "pipelines/tiny/helper.py").write_text(text)
        decision = planned(tmp_path).decisions[0]
        assert (decision.action, decision.reasons) == ("run", ("a file it uses changed while it ran last time",))


def test_a_failing_notebook_is_told_kept_and_gone_on_from(project: Path) -> None:
    broken = [*tiny.TOTAL[:3], 'mood = "low"\nraise ValueError(f"the tide is {mood}")', *tiny.TOTAL[3:]]
    folder = project / "pipelines" / "tiny"
    tiny.write_notebook(folder / "total.ipynb", broken)
    (folder / "env.yaml").write_text(tiny.ENV.replace("size: 3", "size: 4"))
    with pytest.raises(TaskFailedError) as caught:
        ran(project)
    error = caught.value
    assert (error.task, error.ename, error.evalue) == ("total", "ValueError", "the tide is low")
    assert "Task 'total' failed in code cell" in str(error)
    assert 'raise ValueError(f"the tide is {mood}")' in str(error)
    assert "ValueError: the tide is low" in str(error)
    kept = json.loads((folder / "products/default/total.ipynb").read_text())
    outputs = [output for cell in kept["cells"] for output in cell.get("outputs", [])]
    assert [output["ename"] for output in outputs if output["output_type"] == "error"] == ["ValueError"]
    last = records(project, "total")[0]
    assert (last["status"], last["products"]) == ("failed", {})
    assert (
        opened(project).catalog.objects.read_bytes(last["notebook"])
        == (folder / "products/default/total.ipynb").read_bytes()
    )
    plan = planned(project)
    assert actions(plan) == {"collect": "skip", "total": "run"}
    assert plan.decisions[1].reasons == ("failed last time",)
    tiny.write_notebook(folder / "total.ipynb", tiny.TOTAL)
    execution = ran(project)
    assert what(execution) == {"collect": "kept", "total": "ran"}
    assert execution.results[1].facts == {"total": 8}


def test_a_notebook_that_leaves_no_product_is_told_so(project: Path) -> None:
    tiny.write_notebook(project / "pipelines/tiny/total.ipynb", tiny.TOTAL[:3])
    (project / "pipelines/tiny/products/default/total.json").unlink()
    with pytest.raises((PipelineError, DamagedFileError), match=r"total\.json"):
        ran(project)
    assert planned(project).decisions[1].action == "run"


def test_a_notebook_by_hand_reads_the_default_run_and_leaves_products_alone(project: Path) -> None:
    folder = project / "pipelines" / "tiny"
    before = (folder / "products/default/total.json").read_bytes()
    code = "\n".join([*tiny.TOTAL, "print(total.ref, n)"])
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout.split() == ["total@v2", "3"], done.stderr
    assert (folder / "products/default/total.json").read_bytes() == before


def test_a_specification_shows_itself(tmp_path: Path) -> None:
    spec = read_pipeline(pipeline(tmp_path / "p", TWO, b="upstream = ['a']"))
    assert isinstance(spec, PipelineSpec)
    assert repr(spec) == "PipelineSpec(p, run_key=default: a -> b)"
