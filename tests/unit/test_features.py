"""Point-in-time features: joins and windows against loops in plain Python, planted leaks, and the real view."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from tidebook.core.errors import (
    ColumnMissingError,
    DataError,
    EmptyDataError,
    LeakError,
    TypeMismatchError,
    WrongUseError,
)
from tidebook.data.features import (
    ALWAYS,
    FeatureView,
    Source,
    batches,
    latest_known,
    truncation_check,
    window_pairs,
)
from tidebook.data.splits import rolling_months, time_split
from tidebook.demo import delay_view as demo
from tidebook.demo.delay_view import CATEGORICAL, HOUR, KEY, LABEL, MOMENT, NUMERIC, VIEW, delay_view
from tidebook.demo.flights import read_flights, read_planes, read_weather

Frames = Mapping[str, pl.DataFrame]
START = datetime(2013, 4, 1, tzinfo=UTC)
STORM, CALM = date(2013, 3, 8), date(2013, 10, 26)  # a snowstorm; a Saturday of good weather


def minutes(n: int) -> timedelta:
    return timedelta(minutes=n)


# A small world: machines that report a reading, which arrives some minutes after it was taken
def readings(n: int = 300, days: int = 20) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    taken = np.sort(rng.choice(days * 1440, n, replace=False))
    late = rng.integers(0, 90, n)
    return pl.DataFrame(
        {
            "reading": range(n),
            "machine": rng.choice(["press", "saw", "drill"], n),
            "taken_at": [START + minutes(int(m)) for m in taken],
            "arrived_at": [None if x > 85 else START + minutes(int(m + x)) for m, x in zip(taken, late, strict=True)],
            "heat": rng.integers(20, 90, n),
        }
    )


SENSOR = Source(
    key=("reading",),
    time="taken_at",
    known={
        **dict.fromkeys(("reading", "machine", "taken_at"), ALWAYS),
        **dict.fromkeys(("arrived_at", "heat"), pl.col("arrived_at")),
    },
)


def newest_heat(tables: Frames, rows: pl.DataFrame) -> pl.DataFrame:
    sensor = tables["sensor"]
    rows = rows.join(sensor.select("reading", "machine"), on="reading", how="left")
    facts = sensor.select("machine", newest="heat", known_at="arrived_at")
    return latest_known(rows, facts, by=["machine"], within=timedelta(days=1))


HEAT = FeatureView(
    name="heat",
    sources={"sensor": SENSOR},
    key=("reading",),
    features={"newest": "known_at"},
    function=newest_heat,
    back=timedelta(days=1, hours=2),
    ahead=timedelta(hours=2),
)


@pytest.fixture(scope="module")
def sensor() -> pl.DataFrame:
    return readings()


@pytest.fixture(scope="module")
def asked(sensor: pl.DataFrame) -> pl.DataFrame:
    return sensor.select("reading", moment="taken_at")


def leaky(function: Any, **changes: Any) -> FeatureView:
    return replace(HEAT, function=function, **changes)


# Joins and windows
def test_latest_known_is_the_newest_that_had_arrived(sensor: pl.DataFrame, asked: pl.DataFrame) -> None:
    result = HEAT.compute({"sensor": sensor}, asked)
    facts = sensor.drop_nulls("arrived_at").rows(named=True)
    machine = dict(sensor.select("reading", "machine").iter_rows())
    n_found = 0
    for row in result.iter_rows(named=True):
        able = [
            fact
            for fact in facts
            if fact["machine"] == machine[row["reading"]]
            and row["moment"] - timedelta(days=1) <= fact["arrived_at"] <= row["moment"]
        ]
        newest = max((fact["arrived_at"] for fact in able), default=None)
        assert row["known_at"] == newest
        assert (
            row["newest"] is None
            if newest is None
            else row["newest"] in {fact["heat"] for fact in able if fact["arrived_at"] == newest}
        )
        n_found += newest is not None
    assert n_found > 200
    assert result["reading"].to_list() == asked["reading"].to_list()


@pytest.mark.parametrize("by", [["machine"], ["machine", "heat"]])
def test_window_pairs_are_those_of_two_loops(sensor: pl.DataFrame, by: list[str]) -> None:
    source = sensor.with_columns(pl.col("heat") // 30).sample(fraction=1, shuffle=True, seed=1)
    rows = source.select(*by, moment=pl.col("taken_at") + minutes(7))[:80]
    stranger = rows[:1].with_columns(machine=pl.lit("lathe"))
    rows = pl.concat([rows, stranger])
    start, end = -timedelta(hours=30), timedelta(hours=3)
    row, other = window_pairs(rows, source, by=by, on="taken_at", start=start, end=end)
    expected = {
        (i, j)
        for i, asked in enumerate(rows.iter_rows(named=True))
        for j, fact in enumerate(source.iter_rows(named=True))
        if all(asked[name] == fact[name] for name in by)
        and asked["moment"] + start <= fact["taken_at"] < asked["moment"] + end
    }
    assert set(zip(row.tolist(), other.tolist(), strict=True)) == expected
    assert len(row) == len(expected) > 100
    assert (np.diff(row) >= 0).all()


def test_a_window_starts_with_its_edge_and_stops_before_its_end() -> None:
    rows = pl.DataFrame({"machine": ["saw"], "moment": [START]})
    source = pl.DataFrame({"machine": ["saw"] * 3, "at": [START - HOUR, START - minutes(1), START]})
    pairs = window_pairs(rows, source, by=["machine"], on="at", start=-HOUR, end=timedelta(0))
    assert pairs[1].tolist() == [0, 1]
    nothing = window_pairs(rows, source[:0], by=["machine"], on="at", start=-HOUR, end=timedelta(0))
    assert nothing[0].size == nothing[1].size == 0


def test_truncation_hides_values_and_rows() -> None:
    known = {
        "id": pl.col("born_at"),
        "born_at": pl.col("born_at"),
        "weight": pl.col("weighed_at"),
        "weighed_at": ALWAYS,
    }
    source = Source(key=("id",), time="born_at", known=known)
    herd = pl.DataFrame(
        {
            "id": [1, 2, 3],
            "born_at": [START, START + HOUR, START + 3 * HOUR],
            "weight": [40, 41, 42],
            "weighed_at": [START + HOUR, START + 2 * HOUR, None],
            "secret": [7, 7, 7],
        }
    )
    table = source.table(herd, "herd")
    assert "secret" not in table.columns
    past = source.truncate(table, START + HOUR)
    assert past.select("id", "weight").rows() == [(1, 40), (2, None)]  # equal instants are known


# Planted leaks
def test_a_correct_view_passes_and_values_really_were_hidden(sensor: pl.DataFrame, asked: pl.DataFrame) -> None:
    result = truncation_check(HEAT, {"sensor": sensor}, asked)
    assert (result.n_moments, result.n_rows, result.n_features) == (300, 300, 1)
    assert result.n_hidden > 300
    drawn = truncation_check(HEAT, {"sensor": sensor}, asked, n_moments=50)
    assert drawn.n_moments == drawn.n_rows == 50


def own_heat(tables: Frames, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.join(tables["sensor"].select("reading", newest="heat", known_at="arrived_at"), on="reading")


def own_heat_hushed(tables: Frames, rows: pl.DataFrame) -> pl.DataFrame:
    return own_heat(tables, rows).with_columns(known_at="moment")


def mean_of_all(tables: Frames, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(newest=tables["sensor"]["heat"].mean(), known_at="moment")


def next_arrival(tables: Frames, rows: pl.DataFrame) -> pl.DataFrame:
    facts = tables["sensor"].drop_nulls("arrived_at").sort("arrived_at").select("heat", "arrived_at")
    joined = rows.sort("moment").join_asof(facts, left_on="moment", right_on="arrived_at", strategy="forward")
    return joined.with_columns(newest="heat", known_at="moment")


def days_ahead(tables: Frames, rows: pl.DataFrame) -> pl.DataFrame:
    "Looks three days ahead, far past what the view says it reaches and into windows of later moments."
    facts = tables["sensor"].select("heat", at=pl.col("taken_at") - timedelta(days=3)).sort("at")
    joined = rows.sort("moment").join_asof(facts, left_on="moment", right_on="at", strategy="nearest")
    return joined.with_columns(newest="heat", known_at="moment")


def count_of_arrivals(tables: Frames, rows: pl.DataFrame) -> pl.DataFrame:
    "That a value is there at all is something to know, too."
    return rows.join(
        tables["sensor"].select("reading", newest=pl.col("heat").is_not_null(), known_at="taken_at"), on="reading"
    )


def test_a_leak_that_is_declared_fails_at_once_with_column_and_rows(sensor: pl.DataFrame, asked: pl.DataFrame) -> None:
    with pytest.raises(LeakError, match=r"by its own account.*newest \(\d+ rows\)\. Found: reading=") as caught:
        leaky(own_heat).compute({"sensor": sensor}, asked)
    late = sensor.filter(pl.col("arrived_at") > pl.col("taken_at"))
    assert caught.value.leaks == {"newest": late.height}
    assert caught.value.examples["reading"].to_list() == late["reading"][:3].to_list()


@pytest.mark.parametrize("function", [own_heat_hushed, mean_of_all, next_arrival, days_ahead, count_of_arrivals])
def test_a_leak_that_is_hushed_is_found_by_hiding_the_future(
    sensor: pl.DataFrame, asked: pl.DataFrame, function: Any
) -> None:
    view = leaky(function)
    view.compute({"sensor": sensor}, asked)
    with pytest.raises(LeakError, match="newest") as caught:
        truncation_check(view, {"sensor": sensor}, asked)
    assert caught.value.examples.columns == ["reading", "moment", "newest", "newest with the future hidden"]
    assert caught.value.examples.height > 0


def test_a_view_that_looks_back_further_than_it_says_is_found(sensor: pl.DataFrame, asked: pl.DataFrame) -> None:
    with pytest.raises(LeakError):
        truncation_check(replace(HEAT, back=HOUR), {"sensor": sensor}, asked)


def test_windows_that_touch_are_not_computed_together(sensor: pl.DataFrame, asked: pl.DataFrame) -> None:
    tables = HEAT.tables({"sensor": sensor})
    groups = batches(HEAT, tables, asked["moment"].unique().sort())
    assert sum(group.len() for group in groups) == 300
    assert 1 < len(groups) < 100
    for group in groups:
        assert all(gap > HEAT.back + HEAT.ahead for gap in group.diff().drop_nulls())


def test_a_source_without_time_that_changes_is_checked_moment_by_moment(asked: pl.DataFrame) -> None:
    view = replace(HEAT, sources={"sensor": replace(SENSOR, time=None)})
    groups = batches(view, view.tables({"sensor": readings()}), asked["moment"])
    assert [group.len() for group in groups] == [1] * 300


# Wrong use
def test_what_is_missing_is_named(sensor: pl.DataFrame, asked: pl.DataFrame) -> None:
    with pytest.raises(
        ColumnMissingError, match=r"source 'sensor' lacks column heat.*'heat' may now be called 'heats'"
    ):
        HEAT.compute({"sensor": sensor.rename({"heat": "heats"})}, asked)
    with pytest.raises(DataError, match="lacks sources: sensor"):
        HEAT.compute({}, asked)
    with pytest.raises(ColumnMissingError, match="lacks column moment"):
        HEAT.compute({"sensor": sensor}, asked.drop("moment"))
    with pytest.raises(ColumnMissingError, match="result of the view 'heat' lacks column newest"):
        leaky(lambda tables, rows: rows.with_columns(known_at="moment")).compute({"sensor": sensor}, asked)


def test_rows_that_cannot_be_asked_for(sensor: pl.DataFrame, asked: pl.DataFrame) -> None:
    frames = {"sensor": sensor}
    with pytest.raises(TypeMismatchError, match="no instants"):
        HEAT.compute(frames, asked.with_columns(pl.col("moment").dt.replace_time_zone(None)))
    with pytest.raises(EmptyDataError):
        HEAT.compute(frames, asked[:0])
    with pytest.raises(DataError, match="1 nulls"):
        HEAT.compute(frames, asked.with_columns(pl.when(pl.col("reading") > 0).then("moment").alias("moment")))
    with pytest.raises(DataError, match="more than once"):
        HEAT.compute(frames, pl.concat([asked, asked[:1]]))
    doubling = leaky(lambda tables, rows: pl.concat([newest_heat(tables, rows)] * 2))
    with pytest.raises(DataError, match="gives a row more than once"):
        doubling.compute(frames, asked)


# The congestion of the demo
def board(n: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    delay = [None if x > 0.9 else int(y) for x, y in zip(rng.random(n), rng.integers(-10, 240, n), strict=True)]
    due = [START + minutes(int(m)) for m in rng.integers(0, 1440, n)]
    left = [None if d is None else at + minutes(d) for at, d in zip(due, delay, strict=True)]
    origin = rng.choice(["JFK", "LGA"], n)
    return pl.DataFrame({"origin": origin, "sched_dep_at": due, "dep_at": left, "dep_delay": delay})


def test_congestion_by_hand() -> None:
    noon = START + 12 * HOUR
    flights = pl.DataFrame(
        {
            "origin": ["JFK"] * 6 + ["LGA"],
            "sched_dep_at": [noon - minutes(m) for m in (181, 180, 120, 90, 61, 60, 100)],
            "dep_delay": [500, 20, 130, None, -4, 500, 500],  # 130: leaves at 12:10, so it has waited 120 by noon
        }
    ).with_columns(dep_at=pl.col("sched_dep_at") + pl.duration(minutes="dep_delay"))
    rows = pl.DataFrame({"origin": ["JFK", "EWR"], "moment": [noon, noon]})
    result = demo.waits(rows, demo.in_minutes(flights), "x", by=["origin"], start=-3 * HOUR, end=-HOUR)
    here, nowhere = result.rows(named=True)
    assert here["x_n"] == 4
    assert here["x_wait"] == (20 + 120 + 90 - 4) / 4
    assert here["x_late"] == 3 / 4
    assert here["x_held"] == 2 / 4
    assert here["x_known_at"] == noon
    assert all(nowhere[f"x_{name}"] is None for name in ("n", "wait", "late", "held", "known_at"))


def test_congestion_against_loops() -> None:
    flights = board(400, seed=3)
    rows = pl.DataFrame({"origin": ["JFK", "LGA"] * 60, "moment": [START + minutes(11 * i + 60) for i in range(120)]})
    result = demo.waits(rows, demo.in_minutes(flights), "x", by=["origin"], start=-3 * HOUR, end=-HOUR)
    for row in result.iter_rows(named=True):
        now, facts = row["moment"], []
        for flight in flights.filter(pl.col("origin") == row["origin"]).iter_rows(named=True):
            if now - 3 * HOUR <= flight["sched_dep_at"] < now - HOUR:
                has_left = flight["dep_at"] is not None and flight["dep_at"] <= now
                so_far = (now - flight["sched_dep_at"]) / minutes(1)
                facts.append((flight["dep_delay"] if has_left else so_far, has_left))
        assert row["x_n"] == (len(facts) or None)
        if facts:
            assert row["x_wait"] == pytest.approx(sum(wait for wait, _ in facts) / len(facts), abs=1e-12)
            assert row["x_held"] == pytest.approx(sum(not left for _, left in facts) / len(facts), abs=1e-12)


# The real view
@pytest.fixture(scope="module")
def frames() -> dict[str, pl.DataFrame]:
    return {"flights": read_flights(), "weather": read_weather(), "planes": read_planes()}


@pytest.fixture(scope="module")
def moments(frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return demo.prediction_rows(frames["flights"])


def test_hiding_the_future_changes_no_row_of_two_days(frames: Frames, moments: pl.DataFrame) -> None:
    rows = moments.filter(pl.col("date").is_in([STORM, CALM]))
    result = truncation_check(VIEW, frames, rows)
    assert result.n_rows == rows.height > 1_600
    assert result.n_features == len(NUMERIC) + 1
    assert result.n_hidden > 100 * result.n_moments


def test_hiding_the_future_changes_nothing_at_500_drawn_moments(frames: Frames, moments: pl.DataFrame) -> None:
    assert truncation_check(VIEW, frames, moments, n_moments=500, seed=2).n_moments == 500


def with_own_delay(tables: Frames, rows: pl.DataFrame) -> pl.DataFrame:
    own = tables["flights"].select(*KEY, own_delay="dep_delay", own_known_at="dep_at")
    return demo.features(tables, rows).join(own, on=KEY, how="left")


def test_the_actual_departure_delay_in_the_view_is_found(frames: Frames, moments: pl.DataFrame) -> None:
    rows = moments.filter(pl.col("date") == CALM)
    honest = replace(VIEW, function=with_own_delay, features={**VIEW.features, "own_delay": "own_known_at"})
    with pytest.raises(LeakError, match=r"own_delay \(\d+ rows\)\. Found: date=2013-10-26, carrier="):
        honest.compute(frames, rows)
    hushed = replace(honest, features={**VIEW.features, "own_delay": "schedule_known_at"})
    hushed.compute(frames, rows)
    with pytest.raises(LeakError, match="own_delay with the future hidden=None") as caught:
        truncation_check(hushed, frames, rows, n_moments=20)
    assert list(caught.value.leaks) == ["own_delay"]


def test_weather_of_the_coming_hour_is_found(frames: Frames, moments: pl.DataFrame) -> None:
    "The lag is taken off: the reading of the hour that still runs."

    def eager(tables: Frames, rows: pl.DataFrame) -> pl.DataFrame:
        early = tables["weather"].with_columns(pl.col("observed_at") - timedelta(hours=2))
        return demo.features({**tables, "weather": early}, rows)

    with pytest.raises(LeakError, match="temp"):
        truncation_check(replace(VIEW, function=eager), frames, moments.filter(pl.col("date") == CALM), n_moments=20)


def test_one_row_with_what_is_known_then_is_the_row_of_the_batch(frames: Frames, moments: pl.DataFrame) -> None:
    rows = moments.filter(pl.col("date") == STORM)
    batch = delay_view(**frames, rows=rows)
    assert batch["airport_held"].max() > 0.5  # the storm is in it
    for i in range(0, rows.height, 200):
        known = VIEW.known_at(frames, rows[MOMENT][i])
        alone = delay_view(**known, rows=rows[i : i + 1])
        features = [*KEY, MOMENT, "month", *CATEGORICAL[2:], *NUMERIC]
        assert alone.select(features).equals(batch[i : i + 1].select(features))
        assert alone[LABEL].item() is None  # nobody knows yet


def test_label_moment_and_types(frames: Frames, moments: pl.DataFrame) -> None:
    rows = moments.filter(pl.col("date").is_in([date(2013, 1, 1), date(2013, 12, 31)]))
    table = delay_view(**frames, rows=rows)
    facts = rows.join(frames["flights"], on=KEY, how="left", maintain_order="left")
    for late, delay in zip(table[LABEL], facts["arr_delay"], strict=True):
        assert late is (None if delay is None else delay >= 15)
    assert (table[MOMENT] == facts["sched_dep_at"] - HOUR).all()
    assert table["label_available_at"].equals(facts["arr_at"])
    assert table["month"].unique().sort().to_list() == ["2013-01", "2013-12"]  # of the date in New York
    assert set(table.select(NUMERIC).dtypes) == {pl.Float32()}
    assert set(table.select(CATEGORICAL).dtypes) == {pl.String()}


def test_schedule_plane_and_leg_of_a_flight_by_hand(frames: Frames, moments: pl.DataFrame) -> None:
    flights = frames["flights"]
    rows = moments.filter(pl.col("date") == date(2013, 7, 10))
    table = delay_view(**frames, rows=rows).join(flights, on=KEY, how="left", maintain_order="left")
    planes = {plane["tailnum"]: plane for plane in frames["planes"].iter_rows(named=True)}
    n_legs = 0
    for row in table.sample(60, seed=4).iter_rows(named=True):
        hour = row["sched_dep_at"].replace(minute=0)
        there = flights.filter(
            pl.col("origin") == row["origin"], pl.col("sched_dep_at").is_between(hour, hour + HOUR, "left")
        )
        assert row["n_scheduled"] == there.height
        assert row["elapsed_minutes"] == (row["sched_arr_at"] - row["sched_dep_at"]) / minutes(1)
        assert row["weekday"] == 3
        plane = planes.get(row["tailnum"], {})
        assert row["plane_seats"] == plane.get("seats")
        assert row["plane_age"] == (2013 - plane["year"] if plane.get("year") else None)
        now = row[MOMENT]
        legs = flights.filter(
            pl.col("tailnum") == (row["tailnum"] or "-"),
            pl.col("sched_dep_at").is_between(now - timedelta(days=2), now),
        )
        if legs.is_empty():
            assert row["leg_delay"] is None
            continue
        leg = legs.row(-1, named=True)
        if leg["arr_at"] is not None and leg["arr_at"] <= now:
            expected = leg["arr_delay"]
        elif leg["dep_at"] is not None and leg["dep_at"] <= now:
            expected = leg["dep_delay"]
        else:
            expected = (now - leg["sched_dep_at"]) / minutes(1)
        assert row["leg_delay"] == expected
        assert row["leg_gap_minutes"] == (row["sched_dep_at"] - leg["sched_arr_at"]) / minutes(1)
        n_legs += 1
    assert n_legs > 20


def test_recent_arrivals_by_hand(frames: Frames, moments: pl.DataFrame) -> None:
    flights = frames["flights"]
    table = delay_view(**frames, rows=moments.filter(pl.col("date") == date(2013, 7, 10)))
    for row in table.sample(40, seed=5).iter_rows(named=True):
        now = row[MOMENT]
        before = flights.filter(pl.col("arr_at").is_not_null(), pl.col("arr_at") < now)
        there = before.filter(pl.col("dest") == row["dest"], pl.col("arr_at") >= now - 6 * HOUR)
        same = before.filter(pl.col("carrier") == row["carrier"], pl.col("flight") == row["flight"])
        same = same.filter(pl.col("arr_at") >= now - timedelta(days=7))
        lost = (there["arr_delay"] - there["dep_delay"]).mean()
        for name, value in [
            ("arrived_delay", there["arr_delay"].mean()),
            ("arrived_lost", lost),
            ("flight_delay", same["arr_delay"].mean()),
        ]:
            assert row[name] is None if value is None else row[name] == pytest.approx(value, rel=1e-6)


# Splits
def visits() -> pl.DataFrame:
    return pl.DataFrame({"moment": [START + timedelta(days=i) for i in range(-60, 60)]}).with_columns(
        known_at=pl.when(pl.col("moment").dt.day() != 13).then(pl.col("moment") + timedelta(days=2))
    )


def test_a_split_by_time_is_exact_at_its_edges() -> None:
    split = time_split(visits(), at=date(2013, 4, 1), until=date(2013, 4, 11))
    assert split.train["moment"].max() == START - timedelta(days=1)
    assert (split.test["moment"].min(), split.test.height) == (START, 10)
    assert time_split(visits(), at=START, until=START + timedelta(days=10)).test.equals(split.test)


def test_labels_that_are_not_known_at_the_cut_are_not_trained_on() -> None:
    split = time_split(visits(), at=date(2013, 4, 1), label_known="known_at")
    assert split.train["moment"].max() == START - timedelta(days=2)
    assert split.train["known_at"].null_count() == 0
    assert split.train.height == 60 - 1 - 2  # the last day, and two that are never known (13 February and March)


def test_midnight_is_that_of_the_zone() -> None:
    hours = pl.DataFrame({"moment": [START + n * HOUR for n in range(-24, 24)]})
    split = time_split(hours, at=date(2013, 4, 1), zone="America/New_York")
    assert split.test["moment"].min() == START + 4 * HOUR


def test_months_roll() -> None:
    splits = rolling_months(visits(), first="2013-03", by="moment")
    assert [split.name for split in splits] == ["2013-03", "2013-04", "2013-05"]
    assert [split.test.height for split in splits] == [31, 30, 30]
    assert [split.train.height for split in splits] == [29, 60, 90]
    short = rolling_months(visits(), first="2013-04", last="2013-04", n_months=1)
    assert [split.train.height for split in short] == [31]


def test_splits_that_cannot_be() -> None:
    with pytest.raises(EmptyDataError, match="no rows to train on"):
        time_split(visits(), at=date(2012, 1, 1))
    with pytest.raises(TypeMismatchError, match="without a zone"):
        time_split(visits(), at=datetime(2013, 4, 1))
    with pytest.raises(TypeMismatchError, match="no instants"):
        time_split(visits().with_columns(pl.col("moment").dt.date()), at=date(2013, 4, 1))
    with pytest.raises(ColumnMissingError):
        time_split(visits(), at=date(2013, 4, 1), by="momnt")
    with pytest.raises(WrongUseError, match="not a month"):
        rolling_months(visits(), first="April")
    with pytest.raises(EmptyDataError):
        rolling_months(visits(), first="2014-01")
