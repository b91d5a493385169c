"""Drift of windows and performance with late labels."""

import json
import math
import re
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from tidebook.core.errors import (
    ColumnMissingError,
    DamagedFileError,
    TypeMismatchError,
    UnknownNameError,
    WrongUseError,
)
from tidebook.monitor.drift import DriftResult, drift
from tidebook.monitor.performance import performance
from tidebook.stats.profiles import ReferenceProfile


def rows(n: int, seed: int, shift: float = 0.0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "wind": rng.gamma(2, 4, n) + shift,
            "delay": np.where(rng.random(n) < 0.6, 0, rng.integers(1, 90, n)),
            "carrier": rng.choice(["UA", "B6", "DL", "AA"], n, p=[0.5, 0.3, 0.15, 0.05]),
            "night": rng.random(n) < 0.1,
        }
    )


@pytest.fixture(scope="module")
def reference() -> ReferenceProfile:
    return ReferenceProfile.fit(rows(20_000, 0))


def check(reference: ReferenceProfile, **windows: pl.DataFrame) -> DriftResult:
    return drift(reference, {name: reference.profile(frame) for name, frame in windows.items()})


def cell(result: DriftResult, feature: str, window: str) -> dict[str, object]:
    return result.frame.filter(pl.col("feature") == feature, pl.col("window") == window).row(0, named=True)


def test_psi_equals_the_formula_on_quantile_bins(reference: ReferenceProfile) -> None:
    june = rows(5_000, 1).with_columns(pl.col("wind") * 1.7)
    old, new = rows(20_000, 0)["wind"].to_numpy(), june["wind"].to_numpy()
    found = check(reference, june=june)
    upper = found.distribution("wind", "june")["upper"].drop_nulls().to_numpy()
    np.testing.assert_allclose(upper, np.quantile(old, np.arange(1, 10) / 10), rtol=0.01)
    edges = np.concatenate([[-np.inf], np.nextafter(upper, np.inf), [np.inf]])  # histogram's bins are open above
    p, q = (np.histogram(x, edges)[0] / len(x) for x in (old, new))
    assert q.min() > 0
    assert cell(found, "wind", "june")["psi"] == pytest.approx(float(((q - p) * np.log(q / p)).sum()), rel=1e-9)
    np.testing.assert_allclose(found.distribution("wind", "june")["current_share"], q, atol=0.001)
    assert cell(found, "wind", "june")["is_alert"]
    assert not cell(found, "carrier", "june")["is_alert"]


@pytest.mark.parametrize("n", [1, 2, 10, 50, 300, 5_000])
def test_data_without_drift_do_not_alert(reference: ReferenceProfile, n: int) -> None:
    result = drift(reference, {str(seed): reference.profile(rows(n, seed)) for seed in range(1, 101)})
    assert result.alerts.height <= 4  # of 400
    assert result.frame["psi"].null_count() == 0


@pytest.mark.parametrize("n", [300, 5_000])
def test_data_with_drift_alert_every_time(reference: ReferenceProfile, n: int) -> None:
    result = drift(reference, {str(seed): reference.profile(rows(n, seed, shift=6)) for seed in range(1, 21)})
    assert result.alerts["feature"].value_counts().rows() == [("wind", 20)]


def test_what_has_no_psi_has_a_reason_and_no_zero(reference: ReferenceProfile) -> None:
    some = rows(500, 2)
    result = check(
        reference,
        empty=some.head(0),
        lost=some.drop("wind"),
        hollow=some.with_columns(wind=pl.lit(None, dtype=pl.Float64), carrier=pl.lit(None)),
        nan=some.with_columns(wind=pl.lit(math.nan)),
        extra=some.with_columns(gate=pl.lit("C3")),
    )
    reasons = {
        ("wind", "empty"): ("the window has no rows", False),
        ("wind", "lost"): ("the column is missing", True),
        ("wind", "hollow"): ("all values are missing", True),
        ("carrier", "hollow"): ("all values are missing", True),
        ("wind", "nan"): ("all values are missing", True),
        ("gate", "extra"): ("the reference does not know this column", False),
    }
    for (feature, window), (reason, is_alert) in reasons.items():
        found = cell(result, feature, window)
        assert (found["psi"], found["reason"], found["is_alert"]) == (None, reason, is_alert)
    assert cell(result, "wind", "hollow")["null_share"] == 1
    assert result.distribution("wind", "lost")["current_share"].null_count() == 10


def test_missing_values_new_categories_and_constants_are_drift(reference: ReferenceProfile) -> None:
    some = rows(1_000, 3)
    result = check(
        reference,
        holes=some.with_columns(wind=pl.when(pl.int_range(pl.len()) % 2 > 0).then("wind")),
        strange=some.with_columns(carrier=pl.lit("9E")),
        constant=some.with_columns(pl.lit(0).alias("delay"), pl.lit(True).alias("night")),
        one=some.head(1),
    )
    assert cell(result, "wind", "holes")["is_alert"]
    assert cell(result, "wind", "holes")["null_share"] == 0.5
    assert cell(result, "carrier", "strange")["is_alert"]
    assert cell(result, "delay", "constant")["is_alert"]
    assert cell(result, "night", "constant")["is_alert"]
    assert not result.alerts["window"].is_in(["one"]).any()


def test_a_reference_without_values() -> None:
    hollow = pl.DataFrame({"x": pl.Series([None, None], dtype=pl.Float64), "y": [None, None], "z": [1, 1]})
    reference = ReferenceProfile.fit(hollow)
    result = check(reference, same=hollow, filled=pl.DataFrame({"x": [1.0], "y": ["a"], "z": [1]}))
    for name in "xy":
        assert cell(result, name, "same")["reason"] == "the reference has no values"
        assert not cell(result, name, "same")["is_alert"]
        assert cell(result, name, "filled")["is_alert"]
    assert cell(result, "z", "same")["psi"] == 0


def test_some_files_of_a_window_lack_a_column(reference: ReferenceProfile) -> None:
    some = rows(1_000, 4)
    both = reference.profile(some[:600]) + reference.profile(some[600:].drop("wind"))
    found = cell(drift(reference, {"w": both}), "wind", "w")
    assert (found["reason"], found["n_current"]) == ("400 rows lack the column", 600)
    assert found["psi"] < 0.1


def test_json_round_trip_and_damage(reference: ReferenceProfile) -> None:
    result = check(reference, a=rows(400, 5, shift=9), b=rows(400, 5).drop("night"), c=rows(0, 1))
    again = DriftResult.from_json(json.dumps(result.to_json(), allow_nan=False))
    assert again.frame.equals(result.frame)
    assert again.bins.equals(result.bins)
    assert again.threshold == result.threshold
    document = result.to_json()
    for damage in ({"frame": {}}, {"bins": document["frame"]}, {"threshold": "x"}, {"frame": None}):
        with pytest.raises(DamagedFileError):
            DriftResult.from_json(document | damage)
    columns = document["frame"]
    with pytest.raises(DamagedFileError):
        DriftResult.from_json(document | {"frame": columns | {"psi": ["a"] * len(columns["psi"])}})


def test_hostile_names_are_only_text() -> None:
    name = "<img src=x onerror=alert(1)>\"'</script>"
    frame = pl.DataFrame({name: [1.0, 2.0, 3.0] * 50})
    reference = ReferenceProfile.fit(frame)
    result = drift(reference, {name: reference.profile(frame + 9)})
    html = result._repr_html_()
    assert "<img" not in html
    assert "</script" not in html
    assert "&lt;img" in html
    assert "▲" in html
    assert "<img" not in result.chart().svg
    assert "<img" not in result.distribution_chart(name, name).svg
    assert set(re.findall(r"<(\w+)", html)) <= {"div", "style", "table", "caption", "thead", "tbody", "tr", "th", "td"}


def test_wrong_use_is_explained(reference: ReferenceProfile) -> None:
    result = check(reference, june=rows(100, 6))
    with pytest.raises(UnknownNameError, match="did you mean 'wind'"):
        result.distribution("winds", "june")
    with pytest.raises(UnknownNameError, match="june"):
        result.distribution("wind", "july")
    with pytest.raises(WrongUseError, match="threshold"):
        drift(reference, {}, threshold=0)
    with pytest.raises(WrongUseError, match="another reference"):
        drift(ReferenceProfile.fit(rows(100, 9)), {"june": reference.counts})
    empty = drift(reference, {})
    assert (empty.frame.height, empty.alerts.height) == (0, 0)
    assert "tb-drift" in empty._repr_html_()
    assert "windows=0" in repr(empty)


# Performance
def scored(n: int = 600) -> pl.DataFrame:
    rng = np.random.default_rng(7)
    chance = rng.random(n)
    day = rng.integers(1, 4, n)
    return pl.DataFrame(
        {
            "window": [date(2013, 4, int(d)) for d in day],
            "score": chance,
            "label": (rng.random(n) < chance).astype(int),
            "label_available_at": [datetime(2013, 4, int(d)) for d in day],
        }
    ).with_columns(pl.col("label_available_at") + pl.duration(hours=pl.Series(rng.integers(0, 40, n))))


def test_only_labels_that_have_arrived_count() -> None:
    frame, as_of = scored(), datetime(2013, 4, 2, 20)
    table = performance(frame, as_of=as_of)
    assert table["window"].to_list() == [date(2013, 4, day) for day in (1, 2, 3)]
    for row in table.iter_rows(named=True):
        every = frame.filter(pl.col("window") == row["window"])
        known = every.filter(pl.col("label_available_at") <= as_of)
        assert (row["n"], row["n_labelled"]) == (every.height, known.height)
        assert row["label_share"] == pytest.approx(known.height / every.height)
        if known.height:
            assert row["auc"] == pytest.approx(roc_auc_score(known["label"], known["score"]))
            assert row["log_loss"] == pytest.approx(log_loss(known["label"], known["score"]))
    assert table["n_labelled"].to_list()[2] == 0
    assert table.row(2)[4:] == (None, None, None, None)
    moment = frame["label_available_at"].min()
    assert performance(frame, as_of=moment)["n_labelled"].sum() >= 1
    assert performance(frame, as_of=moment - timedelta(microseconds=1))["n_labelled"].sum() == 0


def test_labels_that_never_come_leave_the_rest() -> None:
    frame = scored().with_columns(label=pl.when(pl.int_range(pl.len()) % 3 > 0).then("label"))
    late = datetime(2014, 1, 1)
    assert performance(frame, as_of=late)["n_labelled"].sum() == 400
    nothing = frame.with_columns(label_available_at=pl.lit(None))
    assert performance(nothing, as_of=late)["n_labelled"].sum() == 0
    assert performance(frame.head(0), as_of=late).height == 0
    ones = performance(scored().with_columns(label=pl.lit(1)), as_of=late)
    assert ones["auc"].null_count() == 3
    assert ones["log_loss"].null_count() == 0
    assert performance(scored(), as_of=late, min_rows=10_000)["log_loss"].null_count() == 3


def test_moments_of_different_kinds_are_refused() -> None:
    frame = scored()
    with pytest.raises(TypeMismatchError, match="time zone"):
        performance(frame, as_of=datetime(2013, 4, 2, tzinfo=UTC))
    with pytest.raises(TypeMismatchError, match="Datetime"):
        performance(frame.with_columns(pl.col("label_available_at").cast(pl.String)), as_of=datetime(2013, 4, 2))
    with pytest.raises(ColumnMissingError, match="label_available_at"):
        performance(frame.drop("label_available_at"), as_of=datetime(2013, 4, 2))
    aware = frame.with_columns(pl.col("label_available_at").dt.replace_time_zone("America/New_York"))
    noon = performance(aware, as_of=datetime(2013, 4, 2, 16, tzinfo=UTC))
    assert noon.equals(performance(frame, as_of=datetime(2013, 4, 2, 12)))
