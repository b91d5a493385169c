"""Datasets and contracts, against polars' own reader and rules counted by hand."""

import datetime as dt
import itertools
import multiprocessing
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tidebook.core.catalog import Catalog
from tidebook.core.context import Record, recording
from tidebook.core.errors import (
    BadNameError,
    ColumnMissingError,
    ContractError,
    DamagedFileError,
    DataError,
    SettingsError,
    TypeMismatchError,
    UnknownNameError,
    WrongUseError,
)
from tidebook.core.objects import Objects
from tidebook.data.contracts import ColumnRule, Contract, check, read_contracts
from tidebook.data.datasets import Datasets
from tidebook.data.files import read_table

FLIGHTS = pl.DataFrame({"flight": [1545, 1714, 1141], "carrier": ["UA", "UA", "AA"], "delay": [11.0, None, -4.5]})


def opened(folder: Path) -> Datasets:
    return Datasets(Catalog(folder / "catalog.db", Objects(folder / "objects"), who="ana"))


def n_parts(folder: Path) -> int:
    "Files that are still being written, or were left behind."
    return len(list(folder.rglob("*.part")))


# Files


def test_a_damaged_file_is_named_and_so_is_what_is_wrong(tmp_path: Path) -> None:
    FLIGHTS.write_parquet(tmp_path / "flights.parquet")
    assert read_table(tmp_path / "flights.parquet").equals(FLIGHTS)
    whole = (tmp_path / "flights.parquet").read_bytes()
    for damaged in (b"", whole[:-20], b"not parquet at all", whole[: len(whole) // 2] + b"PAR1"):
        (tmp_path / "flights.parquet").write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"flights\.parquet"):
            read_table(tmp_path / "flights.parquet")
    (tmp_path / "rows.csv").write_bytes(b"a,b\n1,2\n3,4,5\n")
    with pytest.raises(DamagedFileError, match=r"rows\.csv"):
        read_table(tmp_path / "rows.csv")
    with pytest.raises(WrongUseError, match=r"\.csv, \.parquet"):
        read_table(tmp_path / "flights.xls")
    with pytest.raises(WrongUseError, match=r"Allowed: rows\.csv"):
        read_table(tmp_path / "row.csv")


# Datasets


def test_each_version_is_kept_as_it_was(tmp_path: Path) -> None:
    data = opened(tmp_path)
    first = data.commit("flights", FLIGHTS, key=["flight"])
    assert (first.manifest["n_rows"], first.manifest["key"]) == (3, ["flight"])
    assert first.manifest["schema"] == {"flight": "Int64", "carrier": "String", "delay": "Float64"}
    more = pl.DataFrame({"carrier": ["B6"], "delay": [3.0], "flight": [725]})  # columns in another order
    data.commit("flights", more, mode="append")
    late = FLIGHTS.head(1).with_columns(delay=pl.lit(99.0))
    data.commit(
        "flights", pl.concat([late, more.select(late.columns).with_columns(flight=pl.lit(1, pl.Int64))]), mode="upsert"
    )
    data.commit("flights", FLIGHTS.tail(1))
    found = {number: data.load(f"flights@v{number}").collect() for number in (1, 2, 3, 4)}
    assert found[1].equals(FLIGHTS)
    assert found[2].equals(pl.concat([FLIGHTS, more.select(FLIGHTS.columns)]))
    assert found[3].rows() == [
        (1, "B6", 3.0),
        (725, "B6", 3.0),
        (1141, "AA", -4.5),
        (1545, "UA", 99.0),
        (1714, "UA", None),
    ]
    assert found[4].equals(FLIGHTS.tail(1))
    assert data.load("flights").collect().equals(found[4])
    assert {version.manifest["key"][0] for version in data.catalog.versions("dataset")} == {"flight"}


def test_the_same_rows_are_the_same_version(tmp_path: Path) -> None:
    data = opened(tmp_path)
    for mode in ("full", "append", "upsert"):
        assert data.commit(mode, FLIGHTS, key=["flight"], mode=mode).number == 1  # type: ignore[arg-type]
    assert data.commit("full", FLIGHTS.lazy()).number == 1
    assert data.commit("upsert", FLIGHTS.tail(2), mode="upsert").number == 1
    FLIGHTS.write_parquet(tmp_path / "flights.parquet")
    assert data.commit("full", tmp_path / "flights.parquet").number == 1
    assert n_parts(tmp_path) == 0


def test_an_upsert_needs_no_version_before_it_but_a_key(tmp_path: Path) -> None:
    data = opened(tmp_path)
    with pytest.raises(WrongUseError, match="needs a key"):
        data.commit("flights", FLIGHTS, mode="upsert")
    version = data.commit("flights", FLIGHTS, key=["flight"], mode="upsert")
    assert data.load(version).collect()["flight"].to_list() == [1141, 1545, 1714]


def test_a_null_in_a_key_is_a_value_of_its_own(tmp_path: Path) -> None:
    data, schema = opened(tmp_path), {"day": pl.Int64, "hour": pl.Int64, "x": pl.Int64}
    data.commit("a", pl.DataFrame([(1, None, 1), (1, 2, 2)], schema=schema, orient="row"), key=["day", "hour"])
    data.commit("a", pl.DataFrame([(1, None, 9), (None, None, 3)], schema=schema, orient="row"), mode="upsert")
    assert sorted(data.load("a").collect().rows(), key=str) == sorted(
        [(None, None, 3), (1, None, 9), (1, 2, 2)], key=str
    )
    with pytest.raises(DataError, match="already there"):
        data.commit("a", pl.DataFrame([(1, None, 1)], schema=schema, orient="row"), mode="append")


@pytest.mark.parametrize("mode", ["full", "append", "upsert"])
def test_key_faults_are_named_and_commit_nothing(mode: Any, tmp_path: Path) -> None:
    data = opened(tmp_path)
    data.commit("flights", FLIGHTS, key=["flight"])
    twice = pl.concat([FLIGHTS, FLIGHTS.head(1)]).with_columns(flight=pl.col("flight") + 9)
    with pytest.raises(DataError, match=r"2 rows of 'flights' share their key \(flight\).*Found: \(1554,\)"):
        data.commit("flights", twice, mode=mode)
    with pytest.raises(ColumnMissingError, match="may now be called 'flight'"):
        data.commit("flights", FLIGHTS.with_columns(flight=pl.col("flight") + 9), key=["fligth"], mode=mode)
    assert [version.number for version in data.catalog.versions("dataset")] == [1]
    assert n_parts(tmp_path) == 0


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_schema_faults_are_told_all_at_once(mode: Any, tmp_path: Path) -> None:
    data = opened(tmp_path)
    data.commit("flights", FLIGHTS, key=["flight"])
    wrong = FLIGHTS.with_columns(pl.col("delay").cast(pl.Int64), pl.col("flight").cast(pl.Int16), gate=pl.lit("B"))
    with pytest.raises(TypeMismatchError) as caught:
        data.commit("flights", wrong, mode=mode)
    assert caught.value.found == "delay is Int64, was Float64; flight is Int16, was Int64; gate is new"
    with pytest.raises(ColumnMissingError, match="'delay' may now be called 'delays'"):
        data.commit("flights", FLIGHTS.rename({"delay": "delays"}), mode=mode)
    assert data.commit("flights", wrong).number == 2  # the whole table may change


def test_words_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    data = opened(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'append'"):
        data.commit("flights", FLIGHTS, mode="apend")  # type: ignore[arg-type]
    with pytest.raises(BadNameError):
        data.commit("flights@v1", FLIGHTS)
    with pytest.raises(UnknownNameError, match="no dataset 'flights'"):
        data.load("flights")
    assert data.catalog.names("dataset") == []


def test_loading_is_noted_as_an_input(tmp_path: Path) -> None:
    data = opened(tmp_path)
    flights = data.commit("flights", FLIGHTS)
    with recording(Record("task", "t")):
        rows = data.commit("rows", data.load("flights@v1").filter(carrier="UA"))
    assert [item.ref for item in data.catalog.inputs(rows)] == [flights.ref]


def test_the_listing_counts_what_is_there(tmp_path: Path) -> None:
    data = opened(tmp_path)
    assert data.ls().frame.height == 0
    data.commit("flights", FLIGHTS, key=["flight"])
    version = data.commit("flights", FLIGHTS.head(1).with_columns(flight=pl.lit(2, pl.Int64)), mode="append")
    data.catalog.set_alias("dataset", "flights", "good", 1)
    row = data.ls().frame.row(0, named=True)
    size = sum(chunk["size_bytes"] for chunk in version.manifest["chunks"])
    assert (row["dataset"], row["versions"], row["rows"], row["columns"], row["aliases"]) == (
        "flights",
        2,
        4,
        3,
        "good=v1",
    )
    assert row["megabytes"] == pytest.approx(size / 1e6)
    real = [data.objects.path(chunk["digest"]).stat().st_size for chunk in version.manifest["chunks"]]
    assert sum(real) == size


def test_damage_of_a_stored_table_is_named_and_mended_by_committing_again(tmp_path: Path) -> None:
    data = opened(tmp_path)
    version = data.commit("flights", FLIGHTS)
    digest = version.manifest["chunks"][0]["digest"]
    place = tmp_path / "objects" / digest[:2] / digest[2:]
    place.chmod(0o644)
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        opened(tmp_path).load("flights").collect()
    assert digest[:12] in str(caught.value)
    assert str(place) in caught.value.do
    again = opened(tmp_path)
    assert again.commit("flights", FLIGHTS) == version
    assert again.load("flights").collect().equals(FLIGHTS)


# Every type that polars can write


def zoned(moments: list[dt.datetime | None], unit: Any, zone: str | None) -> pl.Series:
    naive = pl.Series(moments, dtype=pl.Datetime(unit))
    return naive if zone is None else naive.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)


def series_of_every_type() -> dict[str, pl.Series]:
    moments = [dt.datetime(2013, 3, 10, 7, 30, 1, 123000), None, dt.datetime(1969, 7, 20, 20, 17)]
    spans = [dt.timedelta(days=-1, milliseconds=3), None, dt.timedelta(0)]
    integers = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]
    every: list[tuple[list[Any], Any]] = [
        *(([0, None, 100], kind) for kind in integers),
        ([0.1, None, float("nan")], pl.Float32),
        ([float("-inf"), None, float("nan")], pl.Float64),
        ([True, None, False], pl.Boolean),
        (["", None, "\x00é\u202e"], pl.String),
        ([b"\x00", None, b"\xff"], pl.Binary),
        ([dt.date(1, 1, 1), None, dt.date(9999, 12, 31)], pl.Date),
        ([dt.time(0), None, dt.time(23, 59, 59, 999999)], pl.Time),
        *((spans, pl.Duration(unit)) for unit in ("ms", "us", "ns")),
        ([Decimal("1.50"), None, Decimal("-99999999.99")], pl.Decimal(10, 2)),
        ([Decimal("1.5") * 10**20, None, Decimal(-1)], pl.Decimal(38, 10)),
        (["b", None, "a"], pl.Categorical),
        (["b", None, "a"], pl.Enum(["b", "a", "never seen"])),
        ([[1, 2], None, []], pl.List(pl.Int16)),
        ([["b"], None, [None]], pl.List(pl.Enum(["z", "b"]))),
        ([[1, 2], None, [3, None]], pl.Array(pl.UInt8, 2)),
        ([{"x": 1, "y": ["a"]}, None, {"x": None, "y": None}], pl.Struct({"x": pl.Int8, "y": pl.List(pl.String)})),
        ([None, None, None], pl.Null),
    ]
    made = [pl.Series(values, dtype=kind) for values, kind in every]
    zones = (None, "UTC", "America/New_York", "Asia/Kathmandu")
    made += [zoned(moments, unit, zone) for unit, zone in itertools.product(("ms", "us", "ns"), zones)]
    return {str(series.dtype): series.alias("it") for series in made}


EVERY = series_of_every_type()


@pytest.mark.parametrize("kind", EVERY)
def test_every_type_comes_back_as_it_was(kind: str, tmp_path: Path) -> None:
    data, frame = opened(tmp_path), EVERY[kind].to_frame()
    for name, rows in (("rows", frame), ("no rows", frame.head(0))):
        back = data.load(data.commit(name, rows)).collect()
        assert back.schema == rows.schema
        assert back.equals(rows)
    twice = data.load(data.commit("rows", frame, mode="append")).collect()
    assert twice.schema == frame.schema
    assert twice.equals(pl.concat([frame, frame]))
    lazy = data.load("rows").filter(pl.col("it").is_null())
    assert lazy.collect_schema() == frame.schema
    assert lazy.collect().height == 2 * frame["it"].null_count()


def test_there_is_a_case_for_each_type_of_polars() -> None:
    known = {kind.__name__ for kind in pl.datatypes.DataType.__subclasses__()}
    leaves = {series.dtype.base_type().__name__ for series in EVERY.values()}
    expected = {"Boolean", "String", "Binary", "Categorical", "Enum", "Null", "Time", "Date", "Datetime", "Duration"}
    expected |= {"Decimal", "List", "Array", "Struct", "Int8", "Int128", "UInt8", "UInt64", "Float32", "Float64"}
    assert expected <= leaves
    assert known & {"Boolean", "String", "Null"}


# Several processes


def upsert_many(folder: Path, start: "multiprocessing.synchronize.Barrier", writer: int, n_rows: int) -> None:
    data = opened(folder)
    start.wait()
    for i in range(n_rows):
        data.commit("rows", pl.DataFrame({"writer": [writer], "i": [i]}), key=["writer", "i"], mode="upsert")
        data.commit("log", pl.DataFrame({"writer": [writer], "i": [i]}), mode="append")


def test_upserts_and_appends_of_two_processes_lose_nothing(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2, timeout=60)
    writers = [spawn.Process(target=upsert_many, args=(tmp_path, start, i, 12), daemon=True) for i in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    data = opened(tmp_path)
    expected = [(writer, i) for writer in range(2) for i in range(12)]
    assert data.load("rows").collect().rows() == expected
    assert sorted(data.load("log").collect().rows()) == expected
    assert [version.number for version in data.catalog.versions("dataset", "rows")] == list(range(1, 25))
    assert n_parts(tmp_path) == 0


# Contracts

TABLE = pl.DataFrame(
    {
        "n": [1, 2, 2, None],
        "share": [0.0, 0.5, float("nan"), None],
        "carrier": ["UA", "AA", "ZZ", None],
        "on": [True, False, None, True],
    }
)


def n_broken(contract: Contract, frame: pl.DataFrame | pl.LazyFrame = TABLE) -> dict[tuple[str, str], int]:
    "(column, rule) -> rows that break it, of the broken rules."
    found = check(contract, frame).frame.filter(pl.col("n_broken") > 0)
    return {(row["column"], row["rule"]): row["n_broken"] for row in found.iter_rows(named=True)}


@pytest.mark.parametrize(
    ("column", "rule", "n"),
    [
        ("n", ColumnRule(type="integer"), 0),
        ("n", ColumnRule(type="number"), 0),
        ("share", ColumnRule(type="integer"), 1),
        ("share", ColumnRule(type="number"), 0),
        ("carrier", ColumnRule(type="string"), 0),
        ("carrier", ColumnRule(type="date"), 1),
        ("on", ColumnRule(type="boolean"), 0),
        ("on", ColumnRule(type="number"), 1),
        ("n", ColumnRule(max_null_share=0.25), 0),  # reached exactly
        ("n", ColumnRule(max_null_share=0.24), 1),
        ("n", ColumnRule(min=1), 0),
        ("n", ColumnRule(min=2), 1),
        ("n", ColumnRule(max=2), 0),
        ("n", ColumnRule(max=1.5), 2),
        ("share", ColumnRule(min=0.1), 2),  # 0.0 and NaN, which keeps no limit
        ("share", ColumnRule(max=1e9), 1),  # NaN
        ("carrier", ColumnRule(min=0), 3),  # no numbers at all
        ("carrier", ColumnRule(values=["UA", "AA", "ZZ"]), 0),
        ("carrier", ColumnRule(values=["UA", "AA"]), 1),
        ("carrier", ColumnRule(values=[]), 3),
        ("carrier", ColumnRule(values=[1]), 3),
        ("n", ColumnRule(values=[1, 2]), 0),
        ("n", ColumnRule(values=[2]), 1),
        ("n", ColumnRule(values=["1", "2"]), 3),
        ("on", ColumnRule(values=[True]), 1),
        ("on", ColumnRule(values=[1]), 3),
        ("absent", ColumnRule(), 1),
    ],
)
def test_each_rule_both_ways(column: str, rule: ColumnRule, n: int) -> None:
    for frame in (TABLE, TABLE.lazy(), TABLE.with_columns(pl.col("carrier").cast(pl.Categorical))):
        found = n_broken(Contract("t", {column: rule}), frame)
        assert {name for name, _ in found} <= {column}
        assert sum(found.values()) == n


@pytest.mark.parametrize(
    ("contract", "expected"),
    [
        (Contract("t", {}, min_rows=4), {}),
        (Contract("t", {}, min_rows=5), {("(table)", "rows"): 1}),
        (Contract("t", {}, key=["carrier"]), {}),
        (Contract("t", {}, key=["n"]), {("(table)", "key"): 2}),
        (Contract("t", {}, key=["n", "carrier"]), {}),
        (Contract("t", {}, key=["n", "gone"]), {("(table)", "key"): 1}),
        (Contract("t", {}, key=["gone"]), {("(table)", "key"): 1}),
    ],
)
def test_each_rule_of_a_table_both_ways(contract: Contract, expected: dict[tuple[str, str], int]) -> None:
    assert n_broken(contract) == expected


def test_types_of_moments() -> None:
    moment = dt.datetime(2013, 4, 1, 12)
    frame = pl.DataFrame({"day": [moment.date()], "at": [moment]}).with_columns(
        zoned=pl.col("at").dt.replace_time_zone("UTC")
    )
    right = {"day": "date", "at": "datetime", "zoned": "datetime"}
    assert n_broken(Contract("t", {name: ColumnRule(type=kind) for name, kind in right.items()}), frame) == {}
    swapped = {"day": "datetime", "at": "date", "zoned": "date"}
    assert len(n_broken(Contract("t", {name: ColumnRule(type=kind) for name, kind in swapped.items()}), frame)) == 3


def test_all_faults_are_told_at_once() -> None:
    rules = {"n": ColumnRule(type="string", max=1), "gone": ColumnRule(), "carrier": ColumnRule(values=["UA", "AA"])}
    result = check(Contract("flights", rules, min_rows=9, key=["n"]), TABLE)
    with pytest.raises(ContractError) as caught:
        result.require()
    assert sorted(caught.value.faults) == [
        "(table): key n, found 2 rows repeat it",
        "(table): rows at least 9, found 4",
        "carrier: values UA, AA, found 1 rows beyond it",
        "gone: exists yes, found no such column (there are n, share, carrier, on)",
        "n: max 1, found 2 rows beyond it",
        "n: type string, found Int64",
    ]
    assert all(fault in str(caught.value) for fault in caught.value.faults)
    check(Contract("flights", {"n": ColumnRule(type="integer")}), TABLE).require()


def test_an_empty_table_breaks_the_contract_by_its_rows_alone() -> None:
    rule = ColumnRule(type="integer", max_null_share=0, min=5, values=[7])
    assert n_broken(Contract("t", {"n": rule}, key=["n"]), TABLE.head(0)) == {("(table)", "rows"): 1}


def read(folder: Path, text: str) -> dict[str, Contract]:
    (folder / "contract.toml").write_text(text)
    return read_contracts(folder / "contract.toml")


def test_a_contract_is_read_as_it_is_written(tmp_path: Path) -> None:
    text = """
    [flights]
    min_rows = 2
    key = ["flight"]
    [flights.columns.carrier]
    type = "string"
    values = ["UA"]
    max_null_share = 0
    [flights.columns.delay]
    min = -60
    max = 1500.5
    [weather.columns.temp]
    """
    assert read(tmp_path, text) == {
        "flights": Contract(
            "flights",
            {"carrier": ColumnRule("string", 0, values=["UA"]), "delay": ColumnRule(min=-60, max=1500.5)},
            min_rows=2,
            key=("flight",),
        ),
        "weather": Contract("weather", {"temp": ColumnRule()}),
    }


def test_every_word_of_a_contract_that_is_not_understood_is_named(tmp_path: Path) -> None:
    text = """
    loose = 3
    [flights]
    minrows = 2
    key = "flight"
    min_rows = "many"
    [flights.columns]
    gate = "string"
    [flights.columns.carrier]
    type = "text"
    vlaues = ["UA"]
    [flights.columns.delay]
    min = "5"
    max = 2013-01-01
    max_null_share = true
    values = 3
    """
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    told = str(caught.value)
    assert len(caught.value.faults) == 11
    for word in ("[loose]", "'minrows'", "[flights] key must be a list", "[flights] min_rows must be an integer"):
        assert word in told
    for word in ("[flights.columns.gate] is not a table", "'text' is not one of integer", "no rule 'vlaues'"):
        assert word in told
    for word in ("min must be a number", "max must be a number", "max_null_share must be", "values must be a list"):
        assert f"[flights.columns.delay] {word}" in told


@pytest.mark.parametrize("content", [b"[a", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_no_contract_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "contract.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"contract\.toml cannot be read"):
        read_contracts(tmp_path / "contract.toml")
    with pytest.raises(SettingsError, match=r"gone\.toml cannot be read"):
        read_contracts(tmp_path / "gone.toml")
