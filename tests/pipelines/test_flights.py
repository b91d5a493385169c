"""pipelines/flights from nothing to a report, as a user runs it: what ran, what it left, and what Ploomber says."""

import json
import re
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml
from sklearn.metrics import roc_auc_score
from tidebook import Project
from tidebook.core.tables import ALIASES
from tidebook.pipeline.records import Reference

from tests.flights import MONTHS, SMALL, Trained, command, copy_of, make_project, trained

TRAINING = ["train_boosted", "train_network", "train_boosted_long", "train_network_long"]
TASKS = ["collect", "check", "features", *TRAINING, "evaluate", "register", "score", "monitor", "report"]
MONTHLY = {"score", "monitor", "report"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    "This process reads the pipeline as the commands do."
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def project(ran: Trained) -> Project:
    return Project.find(ran.folder)


def products(ran: Trained, month: str = MONTHS[0]) -> Path:
    "The folder with the products of a month."
    spec = Project.find(ran.folder).pipeline("flights").spec(month=month)
    return spec.folder / "products" / spec.run_key


def reference(ran: Trained, name: str, month: str = MONTHS[0]) -> Reference:
    return Reference.read(products(ran, month) / f"{name}.json")


def test_the_second_month_runs_only_what_depends_on_the_month(ran: Trained, project: Project) -> None:
    assert (ran.first.code, ran.first.err) == (0, "")
    executions = [found.body["tasks"] for found in project.catalog.records("execution", subject="flights")][::-1]
    assert len(executions) == 4  # both months, twice
    ran_of = [{name for name, result in tasks.items() if result["action"] == "ran"} for tasks in executions]
    assert ran_of == [set(TASKS), MONTHLY, set(), set()]
    assert all(set(tasks) == set(TASKS) for tasks in executions)
    kept = project.catalog.records("task")
    assert len(kept) == len(TASKS) + len(MONTHLY)
    assert {found.body["status"] for found in kept} == {"done"}


def test_run_says_what_happened_and_that_nothing_changed(ran: Trained) -> None:
    assert f"{len(TASKS)} of {len(TASKS)} tasks ran" in ran.first.out
    assert f"3 of {len(TASKS)} tasks ran, {len(TASKS) - 3} kept" in ran.first.out
    assert f"{len(TASKS) + 3} notebooks ran" in ran.first.out
    assert ran.again.code == 0
    assert ran.again.out.count(f"nothing changed: all {len(TASKS)} tasks kept") == 2
    assert "Nothing has changed" in ran.again.out
    assert ran.again.seconds < max(10, ran.first.seconds / 5)
    for said in (ran.first, ran.again):
        rows = [line for line in said.out.splitlines() if line.strip().startswith(MONTHS)]
        assert len(rows) == 2
        assert "tidebook report flights" in said.out
        assert "Project.find().panel()" in said.out


@pytest.mark.parametrize("month", MONTHS)
def test_every_product_is_a_reference_to_a_version_that_is_there(ran: Trained, project: Project, month: str) -> None:
    spec = yaml.safe_load((ran.folder / "pipelines/flights/pipeline.yaml").read_text())
    names = [name for task in spec["tasks"] for name in task["product"].values()]
    for path in [products(ran, month) / Path(name).name for name in names]:
        if path.suffix == ".ipynb":
            notebook = json.loads(path.read_text())
            assert all(cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code")
        else:
            found = Reference.read(path)
            assert project.catalog.resolve(found.kind, found.ref).digest == found.digest
    assert len(names) == len(set(names)) > 2 * len(TASKS)


def test_lineage_leads_from_the_champion_back_to_what_was_collected(ran: Trained, project: Project) -> None:
    champion = project.models.resolve("delay@champion")
    found, waiting = {}, [champion]
    while waiting:
        version = waiting.pop()
        for item in project.catalog.inputs(version):
            if item.kind != "setting" and (item.kind, item.ref) not in found:
                found[item.kind, item.ref] = item.digest
                waiting.append(project.catalog.resolve(item.kind, item.ref))
    winner = reference(ran, "choice").facts["winner"]
    for name in ("flights", "weather", "planes", "rows", "choice", winner, f"{winner}_rolling"):
        made = reference(ran, name)
        assert found[made.kind, made.ref] == made.digest
    assert ("dataset", reference(ran, "scores").ref) not in found  # made by the champion, not the other way round


def test_runs_are_tracked_with_where_they_come_from(ran: Trained, project: Project) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ran.folder, capture_output=True, text=True, check=True)
    logs = {log.name: log for log in project.runs.logs()}
    assert sorted(logs) == ["delay-boosted", "delay-boosted-long", "delay-network", "delay-network-long"]
    assert len(project.runs.logs()) == 4  # the second month has trained nothing
    rows = reference(ran, "rows")
    for name, log in logs.items():
        origin = log.config["tidebook"]
        is_network = "network" in name
        assert log.exit_code == 0
        assert origin["git"] == {"commit": head.stdout.strip(), "dirty": False}
        assert origin["notebook"] == ("train_network.ipynb" if is_network else "train_boosted.ipynb")
        assert origin["data"][rows.name] == rows.ref
        assert {"kind": rows.kind, "ref": rows.ref, "digest": rows.digest} in origin["inputs"]
        assert origin["parameters"]["fit_until"] == ("2013-07" if "long" in name else "2013-03")
        assert (
            origin["parameters"]["max_epochs" if is_network else "max_trees"]
            == log.config["max_epochs" if is_network else "max_trees"]
        )
    said = command(ran.folder, "tidebook", "runs", "ls", "--json")
    assert said.code == 0
    assert {(row["name"], row["state"]) for row in json.loads(said.out)} == {(name, "finished") for name in logs}


def test_the_listings_name_the_champion_and_the_data(ran: Trained) -> None:
    models = json.loads(command(ran.folder, "tidebook", "models", "ls", "--json").out)
    assert [row["model"] for row in models if "champion" in row["aliases"].split(", ")] == ["delay@v1"]
    assert {row["model"].partition("@")[0] for row in models} > {"delay-boosted", "delay-network-long"}
    rows = json.loads(command(ran.folder, "tidebook", "data", "ls", "--json").out)
    assert {row["dataset"]: row["rows"] for row in rows}["flights"] == 336_776


def test_exported_models_agreed_on_every_row_of_the_month_after_training(ran: Trained, project: Project) -> None:
    view = project.data.load(reference(ran, "rows").ref)
    n_rows = dict(view.group_by("month").len().collect().iter_rows())
    for name, month in {
        "boosted": "2013-04",
        "network": "2013-04",
        "boosted_long": "2013-08",
        "network_long": "2013-08",
    }.items():
        assert reference(ran, name).facts["parity_rows"] == n_rows[month] > 1000


@pytest.mark.parametrize("month", MONTHS)
def test_performance_counts_only_labels_that_had_arrived(ran: Trained, project: Project, month: str) -> None:
    result = (
        project.data.load(reference(ran, "performance", month).ref).filter(window=month).collect().row(0, named=True)
    )
    key = ["date", "carrier", "flight", "origin", "sched_dep_time"]
    view = project.data.load(reference(ran, "rows").ref).filter(month=month).collect()
    scores = project.data.load(reference(ran, "scores", month).ref).collect()
    both = scores.join(view.select(*key, "late", "label_available_at"), on=key, how="inner", validate="1:1")
    assert both.height == view.height == result["n"] == reference(ran, "scores", month).facts["flights"]
    end = datetime(2013, int(month[-2:]) + 1, 1, 4, tzinfo=UTC)  # midnight in New York, in summer
    known = both.filter(pl.col("late").is_not_null() & (pl.col("label_available_at") <= end))
    assert 0.8 < result["label_share"] < 1
    assert result["n_labelled"] == known.height
    assert result["label_share"] == pytest.approx(known.height / both.height)
    assert result["auc"] == pytest.approx(roc_auc_score(known["late"], known["score"]))
    assert result["auc"] > 0.55


def test_drift_is_kept_for_every_month_and_feature(ran: Trained, project: Project) -> None:
    frame = project.monitor("delay").drift().frame
    assert frame["window"].unique().sort().to_list() == list(MONTHS)
    assert frame.group_by("window").len()["len"].unique().to_list() == [reference(ran, "rows").facts["features"]]
    for month in MONTHS:
        edges = project.monitor("delay").drift().distribution("temp", month)["lower"].to_list()
        assert edges[0] is None
        assert edges[1:] == sorted(edges[1:])  # as people read them, also out of the history
        alerts = frame.filter("is_alert", window=month)
        assert alerts.height == reference(ran, "drift", month).facts["alerts"]
        assert alerts["psi"].min() >= 0.2


def test_the_report_says_it_in_words_and_needs_nothing_from_elsewhere(ran: Trained) -> None:
    assert ran.report.code == 0
    path = ran.folder / re.search(r"report: (\S+)", ran.report.out)[1]
    page = path.read_text()
    text = re.sub(r"<[^>]+>", "", page)
    assert "The model in use is delay@v1" in text
    assert f"In {MONTHS[1]} it told late flights from punctual ones" in text  # of the last month that ran
    assert text.index("In short") < text.index("Month by month") < text.index("What it rests on")
    fetched = re.findall(r"""(?:src|srcset|poster|data)\s*=\s*["']?([^"'\s>]{1,40})|url\(([^)]{1,40})|@import""", page)
    assert all(address.startswith("data:") for pair in fetched for address in pair if address)
    assert all(link.startswith("data:") for link in re.findall(r'<link\b[^>]*href="([^"]*)', page))
    assert not re.search(r"<(script|iframe|object|embed|base|form)\b", page, re.I)
    assert not re.search(r"\bNaN\b|\bTraceback\b", text)


def test_plain_ploomber_agrees_that_everything_is_up_to_date(ran: Trained, tmp_path: Path) -> None:
    folder = copy_of(ran.folder, tmp_path / "copy") / "pipelines/flights"
    run_key = products(ran, MONTHS[1]).name
    for words in ((), ("--env--month", MONTHS[1], "--env--run_key", run_key)):
        said = command(folder, "ploomber", "build", *words)
        assert said.code == 0, said.err
        table = re.findall(r"^(\w+)\s+(True|False)\s", said.out, re.M)
        assert table == [(name, "False") for name, _ in table]
        assert {name for name, _ in table} == set(TASKS)


def test_plain_ploomber_builds_it_from_nothing(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "fresh")
    small = ("--env--max_trees", "5", "--env--max_epochs", "1", "--env--n_moments", "1")
    said = command(folder / "pipelines/flights", "ploomber", "build", *small)
    assert said.code == 0, said.err[-3000:]
    assert {name for name, ran in re.findall(r"^(\w+)\s+(True|False)\s", said.out, re.M) if ran == "True"} == set(TASKS)
    project = Project.find(folder)
    summary = Reference.read(folder / "pipelines/flights/products/test/summary.json")
    assert project.catalog.resolve(summary.kind, summary.ref).digest == summary.digest
    assert project.models.resolve("delay@champion").ref == "delay@v1"


def test_a_strict_gate_refuses_the_first_model_and_nothing_is_scored(ran: Trained, tmp_path: Path) -> None:
    folder = copy_of(ran.folder, tmp_path / "strict")
    settings = folder / "settings.ini"
    settings.write_text(settings.read_text().replace("min_auc = 0.0", "min_auc = 0.99"))
    with sqlite3.connect(folder / ".tidebook/catalog.db") as catalog:
        catalog.execute(f"DELETE FROM {ALIASES.name}")  # nobody has been promoted yet
    said = command(folder, "tidebook", "run", "flights", "--set", f"month={MONTHS[0]}")
    assert said.code == 3
    assert "Task 'register' failed" in said.err
    assert re.search(
        r"GateRefusedError: The gate refuses this model\. AUC is 0\.\d+, but must be at least 0\.99", said.err
    )
    assert "score" not in said.out
    assert Project.find(folder).catalog.aliases("model", "delay") == {}


def test_a_strict_gate_leaves_the_champion_where_it_is(ran: Trained, tmp_path: Path) -> None:
    folder = copy_of(ran.folder, tmp_path / "strict")
    settings = folder / "settings.ini"
    settings.write_text(settings.read_text().replace("min_auc = 0.0", "min_auc = 0.99"))
    plan = json.loads(command(folder, "tidebook", "plan", "flights", "--json").out)
    actions = {row["task"]: (row["action"], row["why"]) for row in plan}
    assert actions["register"] == ("run", "settings.ini#gate.delay changed")
    assert actions["evaluate"][0] == "skip"
    said = command(folder, "tidebook", "run", "flights")
    assert said.code == 0, said.err
    after = Project.find(folder)
    assert after.models.resolve("delay@champion").ref == "delay@v1"
    assert Reference.read(folder / "pipelines/flights/products/test/model.json").facts["promoted"] is False
