"""Metrics, intervals, counts and distances against scikit-learn, scipy, numpy and arithmetic by hand."""

import json
import math
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score
from tidebook.core.errors import (
    ColumnMissingError,
    DamagedFileError,
    DataError,
    EmptyDataError,
    NewerFormatError,
    TypeMismatchError,
    WrongUseError,
)
from tidebook.stats.counting import N_EDGES, count_column, freeze_column
from tidebook.stats.distances import MISSING, NEW, group_bins, jensen_shannon, psi, psi_noise
from tidebook.stats.intervals import METRICS, block_bootstrap, block_sums, intervals_by, paired_difference
from tidebook.stats.metrics import (
    auc,
    calibration_error,
    calibration_table,
    classification_metrics,
    log_loss,
    metrics_by,
)
from tidebook.stats.profiles import ReferenceProfile


# Metrics
@pytest.mark.parametrize("decimals", [1, 2, 17])  # many ties, some, none
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_auc_equals_scikit_learn(decimals: int, share: float) -> None:
    rng = np.random.default_rng(decimals)
    labels, scores = rng.random(3_000) < share, rng.random(3_000)
    scores = np.round(scores + 0.1 * labels, decimals)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auc_of_random_scores_is_a_half() -> None:
    rng = np.random.default_rng(0)
    assert auc(rng.random(200_000) < 0.3, rng.random(200_000)) == pytest.approx(0.5, abs=0.005)


def test_log_loss_equals_scikit_learn_also_for_certain_mistakes() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(500) < 0.3
    scores = np.append(rng.random(498), [0.0, 1.0])
    assert log_loss(labels, scores) == pytest.approx(sklearn_log_loss(labels, scores), rel=1e-12)


def test_calibration_table_equals_scikit_learn_without_ties() -> None:
    rng = np.random.default_rng(2)
    scores = rng.permutation(np.linspace(0.001, 0.9, 2_000))
    labels = rng.random(2_000) < scores**2
    observed, predicted = calibration_curve(labels, scores, n_bins=10, strategy="quantile")
    table = calibration_table(labels, scores)
    assert table["n"].to_list() == [200] * 10
    np.testing.assert_allclose(table["observed_share"], observed)
    np.testing.assert_allclose(table["mean_score"], predicted)
    assert calibration_error(labels, scores) == pytest.approx(np.abs(observed - predicted).mean())


def test_equal_scores_share_a_calibration_bin_whatever_the_order() -> None:
    labels, scores = np.array([1, 0, 0, 0, 1, 1]), np.array([0.2, 0.2, 0.2, 0.2, 0.8, 0.8])
    tables = [
        calibration_table(labels[order], scores[order], n_bins=3) for order in (slice(None), slice(None, None, -1))
    ]
    assert tables[0].equals(tables[1])
    assert tables[0].select("n", "observed_share").rows() == [(4, 0.25), (2, 1.0)]
    assert calibration_error(labels, scores, n_bins=3) == pytest.approx((4 * 0.05 + 2 * 0.2) / 6)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_or_no_rows_have_no_auc(labels: list[int]) -> None:
    found = classification_metrics(labels, [0.5] * len(labels))
    assert found["auc"] is None
    assert found["log_loss"] == (pytest.approx(math.log(2)) if labels else None)


@pytest.mark.parametrize(
    "scores", [[0.5, math.nan], [0.5, 1.2], [-0.1, 0.5], [0.5, None], [0.5], ["0.5", "x"], [[0.5], [0.5]]]
)
def test_unusable_scores_are_refused(scores: list[object]) -> None:
    with pytest.raises(DataError):
        classification_metrics([0, 1], scores)


@pytest.mark.parametrize("labels", [[0, 2], [0, None], [0.5, 1], [True, None], ["a", "b"]])
def test_unusable_labels_are_refused(labels: list[object]) -> None:
    with pytest.raises(DataError):
        auc(pl.Series(labels, strict=False), [0.1, 0.2])


def test_metrics_by_equals_scikit_learn_in_each_group() -> None:
    rng = np.random.default_rng(3)
    frame = pl.DataFrame({"g": rng.choice(["a", "b"], 1_000), "y": rng.integers(0, 2, 1_000), "s": rng.random(1_000)})
    frame = frame.vstack(pl.DataFrame({"g": ["c"] * 3, "y": [0, 1, 1], "s": [0.1, 0.2, 0.3]}))
    table = metrics_by(frame, label="y", score="s", by="g", min_rows=10)
    for name in "ab":
        part = frame.filter(pl.col("g") == name)
        assert table.filter(pl.col("g") == name)["auc"].item() == pytest.approx(roc_auc_score(part["y"], part["s"]))
    assert table.row(-1) == ("c", 3, None, None, None, None)
    with pytest.raises(ColumnMissingError, match="label"):
        metrics_by(frame, label="label", score="s", by="g")


# Intervals
def days(n: int = 1_500, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    chance = rng.random(n).round(2)
    day = rng.integers(0, 12, n)
    return pl.DataFrame({"day": day, "y": rng.random(n) < 0.8 * chance, "s": chance, "t": (chance + rng.random(n)) / 2})


def test_sums_of_any_resample_equal_metrics_of_the_repeated_rows() -> None:
    frame = days()
    sums = block_sums(frame, label="y", score="s", blocks="day")
    weights = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=4).astype(float)
    found = sums.metrics(weights)
    for row, weight in enumerate(weights):
        rows = frame[np.repeat(np.arange(frame.height), weight[frame["day"].to_numpy()].astype(int))]
        assert found["auc"][row] == pytest.approx(roc_auc_score(rows["y"], rows["s"]), abs=1e-12)
        assert found["log_loss"][row] == pytest.approx(log_loss(rows["y"], rows["s"]), rel=1e-12)


def test_bootstrap_holds_the_metric_and_is_repeatable() -> None:
    frame = days()
    found = block_bootstrap(frame, label="y", score="s", blocks="day", n_resamples=300, seed=1)
    plain = classification_metrics(frame["y"], frame["s"])
    for name in METRICS:
        assert found[name].value == pytest.approx(plain[name])
    assert found["auc"].low < plain["auc"] < found["auc"].high
    shuffled = frame.sample(fraction=1, shuffle=True, seed=3)
    again = block_bootstrap(shuffled, label="y", score="s", blocks="day", n_resamples=300, seed=1)
    for name in METRICS:
        assert (again[name].low, again[name].high) == pytest.approx((found[name].low, found[name].high))
    wide = block_bootstrap(frame, label="y", score="s", blocks="day", n_resamples=300, seed=1, level=0.5)
    assert found["auc"].low < wide["auc"].low < wide["auc"].high < found["auc"].high


def test_bootstrap_width_of_independent_rows_is_the_standard_error() -> None:
    frame = days(4_000).with_row_index("row").with_columns(pl.col("row") // 8)
    found = block_bootstrap(frame, label="y", score="s", blocks="row", n_resamples=2_000)["log_loss"]
    loss = -np.log(np.clip(np.where(frame["y"], frame["s"], 1 - frame["s"]), 2.2e-16, 1))
    error = loss.std() / math.sqrt(len(loss))
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(6)
    hits = 0
    for seed in range(120):
        shift = np.repeat(rng.normal(0, 1, 40), 20)  # a day makes all of its rows easy or hard
        frame = pl.DataFrame({"day": np.repeat(np.arange(40), 20), "y": rng.random(800) < 1 / (1 + np.exp(-shift))})
        frame = frame.with_columns(s=pl.lit(0.3))
        found = block_bootstrap(frame, label="y", score="s", blocks="day", n_resamples=200, seed=seed)["log_loss"]
        truth = -(math.log(0.3) + math.log(0.7)) / 2  # half of all rows are positive by symmetry
        hits += found.low <= truth <= found.high
    assert 0.87 <= hits / 120 <= 0.99


def test_paired_difference_is_the_mean_of_the_row_differences() -> None:
    frame = days()
    found = paired_difference(frame, label="y", champion="t", challenger="s", blocks="day", n_resamples=200)
    mean = log_loss(frame["y"], frame["s"]) - log_loss(frame["y"], frame["t"])
    assert found["log_loss"].value == pytest.approx(mean)
    assert found["auc"].value == pytest.approx(auc(frame["y"], frame["s"]) - auc(frame["y"], frame["t"]))
    same = paired_difference(frame, label="y", champion="s", challenger="s", blocks="day", n_resamples=50)
    assert (same["log_loss"].low, same["log_loss"].high) == (0, 0)


def test_intervals_without_an_answer() -> None:
    frame = days()
    with pytest.raises(EmptyDataError, match="at least two blocks"):
        block_bootstrap(frame.filter(pl.col("day") == 1), label="y", score="s", blocks="day")
    with pytest.raises(EmptyDataError):
        block_bootstrap(frame.head(0), label="y", score="s", blocks="day")
    gap = frame.with_columns(day=pl.when(pl.int_range(pl.len()) > 0).then("day"))
    with pytest.raises(EmptyDataError, match="1 nulls"):
        block_bootstrap(gap, label="y", score="s", blocks="day")
    with pytest.raises(WrongUseError, match="level"):
        block_bootstrap(frame, label="y", score="s", blocks="day", level=95)
    late = frame.with_columns(y=pl.lit(True))
    assert block_bootstrap(late, label="y", score="s", blocks="day", n_resamples=20)["auc"] is None
    table = intervals_by(frame.with_columns(g=pl.lit("a")), label="y", score="s", by="g", blocks="day", n_resamples=50)
    assert table["auc_low"].item() < table["auc"].item() < table["auc_high"].item()


# Counting
@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32, pl.Int64, pl.Int8, pl.UInt16, pl.Decimal(12, 2)])
def test_counts_equal_numpy(dtype: pl.DataType) -> None:
    rng = np.random.default_rng(7)
    reference = pl.Series("x", rng.integers(-90, 90, 4_000) if dtype != pl.UInt16 else rng.integers(0, 90, 4_000))
    values = pl.Series("x", rng.integers(0, 120, 2_000))
    bins = freeze_column(reference.cast(dtype))
    counts = count_column(bins, values.cast(dtype))
    numbers = values.cast(dtype).cast(pl.Float64).to_numpy()
    expected = np.bincount(
        np.searchsorted(bins.edges, numbers, "left"), minlength=bins.n_bins
    )  # edge[i-1] < x <= edge[i]
    assert counts.bins.tolist() == expected.tolist()
    assert (counts.minimum, counts.maximum) == (numbers.min(), numbers.max())


def test_counts_of_continuous_values_equal_histogram() -> None:
    rng = np.random.default_rng(8)
    bins = freeze_column(pl.Series("x", rng.normal(size=30_000)))
    assert len(bins.edges) == N_EDGES - 1
    values = rng.normal(0.3, 1.2, 300_000)  # more than one block
    expected, _ = np.histogram(values, np.concatenate([[-np.inf], bins.edges, [np.inf]]))
    assert count_column(bins, pl.Series("x", values)).bins.tolist() == expected.tolist()


def test_wider_types_than_the_reference_are_counted_exactly() -> None:
    bins = freeze_column(pl.Series("x", [100, 200, 300], dtype=pl.Int16))
    counts = count_column(bins, pl.Series("x", [1, 200, 255], dtype=pl.UInt8))
    assert counts.bins.tolist() == [1, 0, 0, 1, 1, 0, 0]  # below 100, 100, between, 200, between, 300, above
    big = count_column(bins, pl.Series("x", [2**63 + 5, 300], dtype=pl.UInt64))
    assert big.bins.tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_a_float32_reference_knows_its_values_in_float64() -> None:
    bins = freeze_column(pl.Series("x", [0.1, 0.2, 0.2], dtype=pl.Float32))
    assert count_column(bins, pl.Series("x", [0.1, 0.2])).bins.tolist() == [0, 1, 0, 1, 0]


def test_null_nan_and_infinity_are_counted_apart() -> None:
    bins = freeze_column(pl.Series("x", [1.0, 2.0, math.nan, math.inf, None]))
    counts = count_column(bins, pl.Series("x", [None, math.nan, math.nan, -math.inf, math.inf, 2.0]))
    assert (counts.n_null, counts.n_nan, counts.n_known, counts.n) == (1, 2, 3, 6)
    assert counts.bins.tolist() == [1, 0, 0, 1, 1]
    assert (counts.minimum, counts.maximum) == (2.0, 2.0)


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["a", "b", "c", "z"])])
def test_categories(dtype: pl.DataType) -> None:
    bins = freeze_column(pl.Series("x", ["b", "a", "a", None, "c"], dtype=dtype))
    assert bins.categories == ("a", "b", "c")
    counts = count_column(bins, pl.Series("x", ["z", "a", None, "z"], dtype=dtype))
    assert (counts.bins.tolist(), counts.n_new, dict(counts.new), counts.n_null) == ([1, 0, 0], 2, {"z": 2}, 1)


def test_new_categories_add_up_exactly_beyond_the_limit() -> None:
    bins = freeze_column(pl.Series("x", ["known"]))
    values = pl.Series("x", [f"c{i % 307:03}" for i in range(2_000)])
    parts = [count_column(bins, values[start : start + 100]) for start in range(0, 2_000, 100)]
    left, right = parts[0], parts[-1]
    for part in parts[1:]:
        left = left + part
    for part in parts[-2::-1]:
        right = part + right
    whole = count_column(bins, values)
    assert left.new == right.new == whole.new
    assert left.n_new == whole.n_new == 2_000


# Profiles
def mixed(n: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    start = datetime(2013, 1, 1)
    return pl.DataFrame(
        {
            "number": pl.Series(np.where(rng.random(n) < 0.3, 0, rng.gamma(2, 9, n))).set(
                pl.Series(rng.random(n) < 0.05), None
            ),
            "nan": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "whole": rng.integers(0, 4_000, n),
            "flag": rng.random(n) < 0.2,
            "text": rng.choice(["UA", "B6", "DL", "x" * seed], n),
            "day": [date(2013, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, 90, n)],
            "moment": pl.Series(
                [start + timedelta(minutes=int(m)) for m in rng.integers(0, 99_999, n)], dtype=pl.Datetime("ms")
            ),
            "nothing": pl.Series([None] * n, dtype=pl.Null),
        }
    )


def test_parts_in_any_order_and_grouping_add_up_to_the_whole() -> None:
    reference, frame = ReferenceProfile.fit(mixed(4_000, 1)), mixed(3_000, 2)
    whole = reference.profile(frame)
    rng = np.random.default_rng(9)
    for _ in range(3):
        cuts = [0, *sorted(rng.integers(0, 3_000, 4).tolist()), 3_000]
        parts = [reference.profile(frame[a:b]) for a, b in pairwise(cuts)]
        rng.shuffle(parts)
        assert parts[0] + (parts[1] + parts[2]) + (parts[3] + parts[4]) == whole
        assert (((parts[0] + parts[1]) + parts[2]) + parts[3]) + parts[4] == whole
    assert whole != reference.counts
    for name, counts in whole.columns.items():
        assert counts.n_null == frame[name].null_count()
        assert counts.n == 3_000
    assert whole.columns["nan"].n_nan == frame["nan"].is_nan().sum()


def test_a_scan_gives_the_same_profile(tmp_path: Path) -> None:
    frame = mixed(2_000, 3).drop("nothing")
    frame.write_parquet(tmp_path / "x.parquet", row_group_size=300)
    lazy = pl.scan_parquet(tmp_path / "x.parquet")
    reference = ReferenceProfile.fit(lazy)
    assert reference.to_json() == ReferenceProfile.fit(frame).to_json()
    assert reference.profile(lazy) == reference.profile(frame) == reference.counts
    assert reference.profile(lazy.select(pl.col("day").alias("other"))).n_rows == 2_000


def test_json_round_trip_and_damage() -> None:
    reference = ReferenceProfile.fit(mixed(500, 4))
    profile = reference.profile(mixed(200, 5))
    again = ReferenceProfile.from_json(json.dumps(reference.to_json(), allow_nan=False))
    assert again.to_json() == reference.to_json()
    assert again.read_profile(json.dumps(profile.to_json())) == profile
    with pytest.raises(NewerFormatError):
        ReferenceProfile.from_json(reference.to_json() | {"format": 2})
    for text in ("", "[]", "{}", "NaN", "[" * 100_000, '{"kind": "tidebook.reference", "format": 1}', "null"):
        with pytest.raises(DamagedFileError):
            ReferenceProfile.from_json(text)


@pytest.mark.parametrize(
    ("column", "key", "value"),
    [
        ("number", "edges", [2.0, 1.0]),
        ("number", "kind", "pickle"),
        ("text", "categories", ["a", "a"]),
        ("text", "edges", "x"),
    ],
)
def test_damaged_bins_are_refused(column: str, key: str, value: object) -> None:
    document = ReferenceProfile.fit(mixed(100, 4)).to_json()
    document["columns"][column][key] = value
    with pytest.raises((DamagedFileError, WrongUseError)):
        ReferenceProfile.from_json(document)


@pytest.mark.parametrize(
    ("key", "value"),
    [("n_null", -1), ("n_null", 0.5), ("bins", [1]), ("minimum", "inf"), ("n_new", True), ("new", {"a": -1})],
)
def test_damaged_counts_are_refused(key: str, value: object) -> None:
    reference = ReferenceProfile.fit(mixed(100, 4))
    document = reference.counts.to_json()
    document["columns"]["number"][key] = value
    with pytest.raises(DamagedFileError):
        reference.read_profile(document)


def test_profiles_of_different_references_do_not_mix() -> None:
    one, two = ReferenceProfile.fit(mixed(300, 1)), ReferenceProfile.fit(mixed(300, 2))
    with pytest.raises(WrongUseError):
        one.counts + two.counts
    with pytest.raises(WrongUseError):
        one.read_profile(two.counts.to_json())


def test_missing_new_and_retyped_columns() -> None:
    frame = mixed(300, 1)
    reference = ReferenceProfile.fit(frame)
    profile = reference.profile(frame.drop("flag").with_columns(extra=pl.lit(1)))
    assert (profile.columns["flag"].n, profile.columns["flag"].n_absent, profile.new_columns) == (0, 300, ("extra",))
    with pytest.raises(TypeMismatchError, match=r"'number' is String.*'flag' is Int8"):
        reference.profile(frame.with_columns(pl.col("number").cast(pl.String), pl.col("flag").cast(pl.Int8)))
    with pytest.raises(TypeMismatchError, match="columns="):
        ReferenceProfile.fit(frame.with_columns(many=pl.lit([1, 2])))
    with pytest.raises(ColumnMissingError):
        ReferenceProfile.fit(frame, ["flags"])
    with pytest.raises(EmptyDataError):
        ReferenceProfile.fit(frame.head(0))


# Distances
def test_psi_by_hand_and_on_empty_bins() -> None:
    expected = (0.3 - 0.5) * math.log(0.3 / 0.5) + (0.7 - 0.5) * math.log(0.7 / 0.5)
    assert psi([50, 50], [30, 70]) == pytest.approx(expected)
    assert psi([50, 50, 0], [30, 70, 0]) == pytest.approx(expected)
    p, q = np.array([50.5, 50.5, 0.5]) / 101.5, np.array([30.5, 60.5, 10.5]) / 101.5
    assert psi([50, 50, 0], [30, 60, 10]) == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    assert psi([50, 50], [50, 50]) == 0
    assert psi([0, 0], [1, 2]) is None
    with pytest.raises(DataError):
        psi([1, -1], [1, 1])


def test_jensen_shannon_equals_scipy() -> None:
    rng = np.random.default_rng(10)
    one, two = rng.integers(0, 9, 12), rng.integers(0, 9, 12)
    assert jensen_shannon(one, two) == pytest.approx(jensenshannon(one, two, base=2))
    assert jensen_shannon(one, one) == 0


@pytest.mark.parametrize("n_bins", [2, 5, 10, 20])
def test_noise_is_the_chi_square_quantile(n_bins: int) -> None:
    expected = chi2.ppf(0.999, n_bins - 1) * (1 / 1_000 + 1 / 500)
    assert 0.99 * expected <= psi_noise(1_000, 500, n_bins=n_bins) <= 1.035 * expected
    assert psi_noise(1_000, 0, n_bins=n_bins) == math.inf


def test_groups_hold_a_tenth_of_the_reference_each() -> None:
    values = pl.Series("x", np.random.default_rng(11).normal(size=50_000))
    bins = freeze_column(values)
    counts = count_column(bins, values)
    groups = group_bins(bins, counts)
    shares = groups.merge(counts)[:10] / 50_000
    assert len(groups.labels) == 12
    assert np.abs(shares - 0.1).max() < 0.002
    np.testing.assert_allclose(groups.upper[:9], np.quantile(values, np.arange(1, 10) / 10), atol=0.01)


@pytest.mark.parametrize("change", [-1.0, 1.0])
def test_a_constant_that_changes_is_seen(change: float) -> None:
    constant = pl.Series("x", [5.0] * 1_000)
    bins = freeze_column(constant)
    before = count_column(bins, constant)
    groups = group_bins(bins, before)
    assert psi(groups.merge(before), groups.merge(count_column(bins, constant + change))) > 5
    assert groups.labels == ("below 5", "5", "over 5", NEW, MISSING)


def test_labels_of_whole_numbers_dates_and_rare_categories() -> None:
    hours = pl.Series("h", [h for h in range(20) for _ in range(50)])
    bins = freeze_column(hours)
    assert group_bins(bins, count_column(bins, hours), n_bins=4).labels[:4] == (
        "up to 4",
        "5 to 9",
        "10 to 14",
        "over 14",
    )
    january = pl.Series("d", [date(2013, 1, day) for day in range(1, 31)])
    bins = freeze_column(january)
    labels = group_bins(bins, count_column(bins, january), n_bins=3).labels
    assert labels[:3] == ("up to 2013-01-10", "2013-01-11 to 2013-01-20", "over 2013-01-20")
    names = pl.Series("c", [f"c{i:02}" for i in range(30) for _ in range(31 - i)])
    bins = freeze_column(names)
    groups = group_bins(bins, count_column(bins, names))
    assert groups.labels[:3] == ("c00", "c01", "c02")
    assert groups.labels[9:] == ("(21 others)", NEW, MISSING)
    assert groups.merge(count_column(bins, names))[9] == sum(31 - i for i in range(9, 30))
