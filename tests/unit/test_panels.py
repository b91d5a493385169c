"""Panels without a browser: traits, the messages a browser sends, the size of what it gets, hostile names."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from tidebook.core.errors import ColumnMissingError, EmptyDataError, UnknownNameError
from tidebook.monitor.drift import drift as check_drift
from tidebook.panels.base import Panel
from tidebook.panels.drift import MAX_BARS, DriftPanel, as_grid, bars, worst_first
from tidebook.panels.runs import MAX_ROWS, RunsPanel, browser_column, thin
from tidebook.panels.workbench import workbench
from tidebook.stats.profiles import ReferenceProfile
from traitlets import TraitError

HOSTILE = "</script><script>window.hit=1</script><img src=x onerror=alert(1)>"


def from_browser(panel: Panel, **state: object) -> list[dict[str, Any]]:
    "What the panel sends back after the message that a browser sends when these traits change."
    sent: list[dict[str, Any]] = []
    panel._send = lambda message, buffers=None: sent.append(message)
    data = {"method": "update", "state": state, "buffer_paths": []}
    panel._handle_msg({"content": {"data": data}, "buffers": []})
    return sent


def floats(data: bytes) -> list[float]:
    return np.frombuffer(data, "<f8").tolist()


class Runs:
    "A table of runs and its history, which notes what it was asked for."

    def __init__(self, n_runs: int = 12, n_steps: int = 30) -> None:
        self.n_steps = n_steps
        self.asked: list[tuple[list[str], list[str]]] = []
        ids = [f"r{i}" for i in range(n_runs)]
        self.table = pl.DataFrame(
            {"id": ids, "name": [f"trial {i}" for i in range(n_runs)], "summary.loss": [0.5] * n_runs}
        )

    def history(self, metrics: list[str], runs: list[str]) -> pl.DataFrame:
        self.asked.append((metrics, runs))
        rows = [(r, s, k, s * 1.0 + int(r[1:])) for r in runs for k in metrics for s in range(self.n_steps)]
        return pl.DataFrame(rows, schema=["run", "step", "key", "value"], orient="row")

    def panel(self, **options: Any) -> RunsPanel:
        return RunsPanel(self.table, self.history, **options)


class Drift:
    "Two features in three months, one cell missing, one without a value, one alert."

    threshold = 0.1
    frame = pl.DataFrame(
        [
            ("2013-04", "distance", 0.01, 100, 50, 0.0, False, None),
            ("2013-05", "distance", 0.02, 100, 50, 0.0, False, None),
            ("2013-06", "distance", None, 100, 0, None, False, "the window has no rows"),
            ("2013-04", "temp", 0.05, 100, 50, 0.1, False, None),
            ("2013-05", "temp", 0.7, 100, 50, 0.2, True, None),
        ],
        schema=["window", "feature", "psi", "n_reference", "n_current", "null_share", "is_alert", "reason"],
        orient="row",
    )

    def __init__(self) -> None:
        self.asked: list[tuple[object, object]] = []

    def distribution(self, feature: str, window: str) -> pl.DataFrame:
        self.asked.append((feature, window))
        return pl.DataFrame({"label": ["low", "high"], "reference_share": [0.5, 0.5], "current_share": [0.2, 0.8]})


# runs


def test_the_first_runs_are_drawn_at_once() -> None:
    runs = Runs()
    panel = runs.panel()
    assert panel.selected == ["r0", "r1", "r2"]
    assert runs.asked == [(["loss"], ["r0", "r1", "r2"])]
    assert [one["label"] for one in panel.curves["series"]] == ["trial 0", "trial 1", "trial 2"]
    assert floats(panel.curves["series"][2]["y"]) == [s + 2.0 for s in range(30)]
    assert repr(panel) == "<RunsPanel: 12 runs>"


def test_a_click_in_the_browser_asks_for_the_curves_and_sends_them() -> None:
    runs = Runs()
    panel = runs.panel(metrics=["loss", "auc"])
    sent = from_browser(panel, selected=["r5"])
    assert runs.asked[-1] == (["loss"], ["r5"])
    assert any("curves" in message.get("state", {}) for message in sent)
    from_browser(panel, metric="auc")
    assert runs.asked[-1] == (["auc"], ["r5"])
    assert panel.curves["key"] == "auc"
    assert floats(panel.curves["series"][0]["x"]) == list(range(30))


@pytest.mark.parametrize(
    "state",
    [{"selected": ["no such run"]}, {"selected": [f"r{i}" for i in range(9)]}, {"selected": 3}, {"metric": "x"}],
)
def test_a_message_that_cannot_be_changes_nothing(state: dict[str, object]) -> None:
    runs = Runs()
    panel = runs.panel()
    before, n_asked = dict(panel.curves), len(runs.asked)
    from_browser(panel, **state)
    assert (panel.selected, panel.metric) == (["r0", "r1", "r2"], "loss")
    assert panel.curves == before
    assert len(runs.asked) == n_asked


def test_errors_say_what_there_is() -> None:
    panel = Runs(3).panel()
    with pytest.raises(TraitError, match=r"no run 'r9'.*r0, r1, r2"):
        panel.selected = ["r9"]
    with pytest.raises(ColumnMissingError, match="lacks column id"):
        RunsPanel(pl.DataFrame({"run": ["a"]}), Runs().history)


def test_nothing_selected_is_no_curve_and_no_question() -> None:
    runs = Runs()
    panel = runs.panel()
    panel.selected = []
    assert panel.curves == {"key": "loss", "series": []}
    assert len(runs.asked) == 1


def test_a_failing_history_is_put_in_words_and_forgotten_when_it_works_again() -> None:
    runs = Runs()
    panel = runs.panel()
    shown = dict(panel.curves)

    def broken(metrics: list[str], runs: list[str]) -> pl.DataFrame:
        raise EmptyDataError("The log of r3 is gone", do="tidebook doctor")

    panel._history = broken
    panel.selected = ["r3"]
    assert panel.problem == "The log of r3 is gone. Do: tidebook doctor."
    assert panel.curves == shown
    panel._history = runs.history
    panel.selected = ["r4"]
    assert panel.problem == ""
    assert panel.curves["series"][0]["run"] == "r4"


def test_texts_are_for_people_and_keys_for_sorting() -> None:
    assert browser_column(pl.Series("n", [9, 10, None]))["keys"] == [9, 10, None]
    assert browser_column(pl.Series("loss", [0.5, float("inf"), float("nan")]))["keys"] == [0.5, None, None]
    times = pl.Series("at", [datetime(2013, 4, 1, 9, 30, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC)])
    column = browser_column(times)
    assert column["texts"][0] == "2013-04-01 09:30 UTC"
    assert column["keys"][0] > column["keys"][1]
    assert browser_column(pl.Series("tags", [["a", "b"], None]))["texts"] == ["a, b", "—"]
    assert browser_column(pl.Series("long", ["x" * 5000]))["texts"][0] == "x" * 199 + "…"


def test_results_stand_before_settings_and_empty_columns_are_left_out() -> None:
    table = pl.DataFrame({"config.lr": [0.1], "id": ["a"], "group": [None], "summary.auc": [0.7], "name": ["net"]})
    names = [column["name"] for column in RunsPanel(table, Runs().history, metrics=[]).columns]
    assert names == ["name", "summary.auc", "id", "config.lr"]


def test_runs_of_one_name_are_told_apart() -> None:
    table = pl.DataFrame({"id": ["a1", "b2", "c3", "d4"], "name": ["net", "net", "base", None]})
    panel = RunsPanel(table, Runs().history, metrics=[])
    assert panel.labels == ["net (a1)", "net (b2)", "base", "(d4)"]
    assert panel.curves == {"key": "", "series": []}


def test_a_thinned_curve_keeps_ends_extremes_and_order() -> None:
    values = np.random.default_rng(1).normal(size=50_001)
    values[[17, 31_234]] = -50, 50
    short = thin(pl.DataFrame({"step": np.arange(50_001) * 10, "value": values}), n_points=400)
    assert short.height <= 400
    assert {170, 312_340} <= set(short["step"])
    assert short["step"].is_sorted()
    tenth = np.arange(50_001) * 10 // 50_001
    for part in range(10):  # the envelope of each tenth is that of the whole curve
        drawn = short.filter(pl.Series(tenth[short["step"] // 10] == part))["value"]
        assert (drawn.min(), drawn.max()) == (values[tenth == part].min(), values[tenth == part].max())


def test_thinning_survives_values_that_are_no_numbers() -> None:
    values = [float("nan"), None, 1.0, float("inf")] * 1000
    assert 0 < thin(pl.DataFrame({"step": range(4000), "value": values}), n_points=100).height <= 100


def test_what_the_browser_gets_is_small() -> None:
    panel = Runs(50, n_steps=20_000).panel()
    state = panel.get_state()
    assert len(state["_esm"]) + len(state["_css"]) < 40_000
    assert all(len(one["x"]) + len(one["y"]) <= 16_000 for one in state["curves"]["series"])
    many = RunsPanel(pl.DataFrame({"id": [str(i) for i in range(5000)]}), Runs().history, metrics=[])
    assert len(many.runs) == MAX_ROWS
    assert many.summary == "the first 1,000 of 5,000 runs"


# drift


def test_the_map_opens_on_the_worst_cell() -> None:
    drift = Drift()
    panel = DriftPanel(drift)
    assert panel.features == ["temp", "distance"]
    assert panel.windows == ["2013-04", "2013-05", "2013-06"]
    assert panel.selected == ["temp", "2013-05"]
    assert drift.asked == [("temp", "2013-05")]
    assert panel.summary == "2 features, 3 windows, 1 alert"
    np.testing.assert_array_equal(floats(panel.scores), [0.05, 0.7, np.nan, 0.01, 0.02, np.nan])
    assert list(panel.alerts) == [0, 1, 0, 0, 0, 0]


def test_a_click_on_a_cell_brings_its_distribution() -> None:
    drift = Drift()
    panel = DriftPanel(drift)
    sent = from_browser(panel, selected=["distance", "2013-04"])
    assert drift.asked[-1] == ("distance", "2013-04")
    assert panel.distribution["bars"] == [["low", 0.5, 0.2], ["high", 0.5, 0.8]]
    assert (panel.distribution["psi"], panel.distribution["n_current"]) == (0.01, 50)
    assert any("distribution" in message.get("state", {}) for message in sent)


def test_a_cell_without_rows_is_shown_as_empty_and_asks_nobody() -> None:
    drift = Drift()
    panel = DriftPanel(drift)
    panel.selected = ["temp", "2013-06"]
    assert drift.asked == [("temp", "2013-05")]
    assert (panel.distribution["psi"], panel.distribution["bars"]) == (None, [])


@pytest.mark.parametrize("cell", [["temp"], ["temp", "2014-01"], ["nothing", "2013-04"], ["temp", "2013-04", "x"]])
def test_a_cell_that_is_not_on_the_map_changes_nothing(cell: list[str]) -> None:
    panel = DriftPanel(Drift())
    before = dict(panel.distribution)
    from_browser(panel, selected=cell)
    assert panel.selected == ["temp", "2013-05"]
    assert panel.distribution == before


def test_a_column_that_has_gone_is_looked_at_first() -> None:
    gone = {"window": "2013-06", "feature": "temp", "psi": None, "n_reference": 100, "n_current": 50}
    verdict = {"null_share": None, "is_alert": True, "reason": "the column is missing"}
    drift = Drift()
    drift.frame = pl.concat([Drift.frame, pl.DataFrame([gone | verdict], schema=Drift.frame.schema)])
    panel = DriftPanel(drift)
    assert panel.selected == ["temp", "2013-06"]
    assert panel.distribution["reason"] == "the column is missing"


def test_a_real_result_of_the_monitor_fits() -> None:
    rng = np.random.default_rng(0)
    before = pl.DataFrame({"temp": rng.normal(size=5000), "carrier": rng.choice(["UA", "EV"], 5000)})
    after = before.with_columns(pl.col("temp") + 1)
    reference = ReferenceProfile.fit(before)
    windows = {"2013-04": reference.profile(before), "2013-05": reference.profile(after)}
    panel = DriftPanel(check_drift(reference, windows))
    assert panel.selected == ["temp", "2013-05"]
    assert sum(current for _, _, current in panel.distribution["bars"]) == pytest.approx(1)
    assert panel.problem == ""


def test_a_metric_that_the_selected_runs_never_logged_is_an_empty_chart() -> None:
    runs = Runs()

    def history(metrics: list[str], ids: list[str]) -> pl.DataFrame:
        raise UnknownNameError.of("key", metrics[0], ["auc"])

    panel = RunsPanel(runs.table, history)
    assert panel.problem == ""
    assert [one["y"] for one in panel.curves["series"]] == [b"", b"", b""]


def test_a_failing_distribution_leaves_the_figures_and_says_why() -> None:
    drift = SimpleNamespace(frame=Drift.frame, threshold=0.1, distribution=lambda feature, window: 1 / 0)
    panel = DriftPanel(drift)
    assert "division" in panel.problem
    assert (panel.distribution["psi"], panel.distribution["bars"]) == (0.7, [])


def test_what_is_sent_is_json_even_where_numbers_are_none() -> None:
    drift = Drift()
    broken = pl.when(pl.col("window") == "2013-04").then(float("nan")).otherwise(pl.col("psi"))
    drift.frame = Drift.frame.with_columns(psi=broken)
    panel = DriftPanel(drift)
    panel.selected = ["temp", "2013-04"]
    json.dumps(panel.distribution, allow_nan=False)
    table = pl.DataFrame({"id": ["a", "b"], "summary.loss": [float("nan"), float("-inf")]})
    json.dumps(RunsPanel(table, Runs().history, metrics=[]).columns, allow_nan=False)


def test_order_and_grid_against_counting_by_hand() -> None:
    assert worst_first(Drift.frame) == ["temp", "distance"]
    unseen = pl.DataFrame(
        {"feature": ["a", "b", "c"], "psi": [None, float("nan"), 0.1], "is_alert": [False, None, None]}
    )
    assert worst_first(unseen)[0] == "c"
    assert as_grid(Drift.frame, ["temp"], ["2013-06", "2013-04"], "n_current").to_list() == [None, 50]


def test_the_rarest_of_many_categories_are_counted_not_drawn() -> None:
    n = 200
    share = [(i + 1) / (n * (n + 1) / 2) for i in range(n)]
    frame = pl.DataFrame({"label": [f"c{i}" for i in range(n)], "reference_share": share, "current_share": share})
    drawn, n_more = bars(frame)
    assert n_more == n - MAX_BARS
    assert [label for label, *_ in drawn] == [f"c{i}" for i in range(n - MAX_BARS, n)]


def test_missing_columns_are_named() -> None:
    with pytest.raises(ColumnMissingError, match="null_share"):
        DriftPanel(SimpleNamespace(frame=Drift.frame.drop("null_share"), threshold=0.1, distribution=None))


def test_a_wide_map_stays_small() -> None:
    rows = [(f"2013-W{w:02d}", f"f{i}", 0.1, 10, 10, 0.0, False, None) for i in range(50) for w in range(52)]
    drift = Drift()
    drift.frame = pl.DataFrame(rows, schema=Drift.frame.schema, orient="row")
    state = DriftPanel(drift).get_state()
    assert len(state["scores"]) == 50 * 52 * 8
    assert len(state["_esm"]) + len(state["_css"]) < 40_000


# together


def test_hostile_names_arrive_as_text() -> None:
    table = pl.DataFrame({"id": [HOSTILE], "name": [HOSTILE], f"summary.{HOSTILE}": [0.5]})
    runs = RunsPanel(
        table, lambda metrics, runs: pl.DataFrame(schema={"run": str, "step": int, "key": str, "value": float})
    )
    assert (runs.labels, runs.metrics, runs.columns[0]["texts"]) == ([HOSTILE], [HOSTILE], [HOSTILE])
    drift = Drift()
    drift.frame = Drift.frame.with_columns(feature=pl.lit(HOSTILE))
    panel = DriftPanel(drift)
    assert panel.features == [HOSTILE]
    page = workbench(runs=runs, drift=panel, title=HOSTILE)
    bundle = page._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "text/html" not in data


def test_an_empty_project_says_what_to_run() -> None:
    for table in (pl.DataFrame(), pl.DataFrame(schema={"id": pl.String, "loss": pl.Float64})):
        runs = RunsPanel(table, Runs().history)
        assert "No runs yet" in runs.hint
        assert runs.command == "tidebook run flights"
    for result in (None, SimpleNamespace(frame=Drift.frame.clear(), threshold=0.1, distribution=None)):
        drift = DriftPanel(result)
        assert "No drift history yet" in drift.hint
    page = workbench(runs=runs, drift=drift, title="flights")
    assert repr(page) == "<Workbench flights: 0 runs; no drift history>"
    assert (page.runs, page.drift) == (runs, drift)
