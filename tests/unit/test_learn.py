"""Inputs, batches, trees and networks, against scikit-learn, numpy and arithmetic by hand."""

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score
from tidebook.core.errors import ColumnMissingError, DataError, EmptyDataError, TypeMismatchError, WrongUseError
from tidebook.learn.baseline import BoostedModel, BoostingSettings, train_baseline
from tidebook.learn.loaders import Inputs, SliceLoader, binary_labels, raw_inputs, split_tail
from tidebook.learn.tabular import NetworkModel, NetworkSettings, Numbers, TabularNetwork, train_network

COLUMNS: dict[str, Any] = {"numeric": ["wind", "hour"], "categorical": ["carrier"], "label": "late", "moment": "at"}
TREES = BoostingSettings(min_leaf_rows=20, column_share=1.0, max_trees=60)
NETWORK = NetworkSettings(hidden_units=16, batch_rows=128, learning_rate=3e-3)


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    rng = np.random.default_rng(3)
    n = 2500
    wind = np.where(rng.random(n) < 0.1, np.nan, rng.normal(0, 10, n))
    carrier = rng.choice(["UA", "B6", "EV", None], n, p=[0.5, 0.2, 0.2, 0.1])
    risk = 0.15 * np.abs(np.nan_to_num(wind)) + 1.5 * (carrier == "EV") - 2
    frame = pl.DataFrame(
        {
            "at": [datetime(2013, 1, 1) + timedelta(minutes=30 * step) for step in range(n)],
            "wind": pl.Series(wind).fill_nan(None),
            "hour": rng.integers(5, 23, n),
            "carrier": carrier.tolist(),
            "late": rng.random(n) < 1 / (1 + np.exp(-risk)),
        }
    )
    return frame.with_columns(carrier=pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("rare")).otherwise("carrier"))


@pytest.fixture(scope="module")
def trees(flights: pl.DataFrame) -> BoostedModel:
    return train_baseline(flights, **COLUMNS, settings=TREES)


@pytest.fixture(scope="module")
def network(flights: pl.DataFrame) -> NetworkModel:
    return train_network(flights, **COLUMNS, settings=NETWORK, max_epochs=4)


def by_hand(frame: pl.DataFrame, known: tuple[str, ...]) -> np.ndarray:
    codes = [float(known.index(text or "") + 1) if (text or "") in known else 0.0 for text in frame["carrier"]]
    wind = [np.nan if value is None else value for value in frame["wind"]]
    with np.errstate(over="ignore"):
        return np.array([wind, frame["hour"].to_list(), codes], np.float32).T


# inputs


def test_raw_inputs_keep_nulls_and_overflow_to_infinity() -> None:
    frame = pl.DataFrame(
        {"x": [1.5, None, 1e300, float("nan")], "c": pl.Series(["a", None, "é", ""]).cast(pl.Categorical)}
    )
    numbers, texts = raw_inputs(frame, numeric=["x"], categorical=["c"])
    np.testing.assert_array_equal(numbers[:, 0], np.array([1.5, np.nan, np.inf, np.nan], np.float32))
    assert numbers.dtype == np.float32
    assert texts[:, 0].tolist() == ["a", "", "é", ""]


@pytest.mark.parametrize(("numeric", "categorical"), [(["c"], []), (["flag"], []), (["x"], ["x"])])
def test_raw_inputs_refuse_other_types(numeric: list[str], categorical: list[str]) -> None:
    frame = pl.DataFrame({"x": [1.0], "flag": [True], "c": ["a"]})
    with pytest.raises(TypeMismatchError, match=r"\$\."):
        raw_inputs(frame, numeric=numeric, categorical=categorical)


def test_codes_follow_frequency_and_leave_out_the_rare() -> None:
    frame = pl.DataFrame({"x": [0.0] * 9, "c": ["b", "b", "a", "a", None, None, None, "z", "y"]})
    inputs = Inputs.fit(frame, numeric=["x"], categorical=["c"], min_rows=2)
    assert inputs.vocabulary == (("", "a", "b"),)
    later = pl.DataFrame({"x": [0.0] * 5, "c": ["z", None, "a", "b", "new"]})
    assert inputs.coded(later)[1].ravel().tolist() == [0, 1, 2, 3, 0]


def test_inputs_refuse_what_cannot_be_learnt_from() -> None:
    frame = pl.DataFrame({"x": [0.0], "c": ["a"]})
    with pytest.raises(WrongUseError, match="twice"):
        Inputs.fit(frame, numeric=["x"], categorical=["x"])
    with pytest.raises(WrongUseError, match="numeric column"):
        Inputs.fit(frame, numeric=[], categorical=["c"])
    with pytest.raises(ColumnMissingError, match="gust"):
        Inputs.fit(frame, numeric=["gust"], categorical=["c"])
    with pytest.raises(TypeMismatchError, match=r"\$\.c"):
        Inputs.fit(frame, numeric=["x"], categorical=["c"]).coded(pl.DataFrame({"x": [0.0], "c": [1]}))


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 1, None], [0.0, 1.0, float("nan")], [1, 1, 1]])
def test_labels_must_be_zero_and_one(values: list[Any]) -> None:
    with pytest.raises(DataError, match="late"):
        binary_labels(pl.DataFrame({"late": values}), "late")


# split and batches


def test_tail_is_newer_and_keeps_moments_together() -> None:
    days = [3, 1, 2, 2, 4, 4, 4, 1, 2, 3]
    frame = pl.DataFrame({"at": days, "row": range(10)})
    older, newest = split_tail(frame, moment="at", share=0.2)
    assert older["at"].to_list() == [1, 1, 2, 2, 2, 3, 3]
    assert newest["at"].to_list() == [4, 4, 4]
    older, newest = split_tail(frame, moment="at", share=0.99)
    assert (older["at"].to_list(), newest.height) == ([1, 1], 8)
    with pytest.raises(EmptyDataError):
        split_tail(frame.filter(pl.col("at") == 4), moment="at", share=0.2)
    with pytest.raises(DataError, match="no 'at'"):
        split_tail(pl.DataFrame({"at": [1, None, 2]}), moment="at", share=0.2)


def test_batches_hold_every_row_once_and_follow_the_seed() -> None:
    rows = torch.arange(101)
    loader, twin = (SliceLoader([rows, rows * 2], batch_rows=10, seed=5) for _ in range(2))
    epochs = [torch.cat([batch[0] for batch in loader]) for _ in range(2)]
    torch.manual_seed(9)
    assert torch.equal(torch.cat([batch[0] for batch in twin]), epochs[0])
    assert not torch.equal(epochs[0], epochs[1])
    assert all(torch.equal(epoch.sort().values, rows) for epoch in epochs)
    assert all(torch.equal(left * 2, right) for left, right in loader)
    assert len(loader) == 11 == sum(1 for _ in loader)
    with pytest.raises(WrongUseError):
        SliceLoader([rows, rows[1:]], batch_rows=10)


# trees


def test_trees_answer_as_scikit_learn_does(flights: pl.DataFrame, trees: BoostedModel) -> None:
    known = trees.inputs.vocabulary[0]
    assert known[0] == "UA"
    assert "rare" not in known
    odd = pl.DataFrame({"wind": [None, 1e300, -1e300], "hour": [0, 99, 7], "carrier": ["new", None, "EV"]})
    for frame in (flights, odd):
        expected = trees.estimator.predict_proba(by_hand(frame, known))[:, 1]
        np.testing.assert_array_equal(trees.predict(frame), expected)
    assert trees.predict(flights.clear()).shape == (0,)


def test_number_of_trees_is_chosen_on_the_newest_rows(flights: pl.DataFrame, trees: BoostedModel) -> None:
    ordered = flights.sort("at")
    older, newest = ordered[:2125], ordered[2125:]
    known = Inputs.fit(older, numeric=["wind", "hour"], categorical=["carrier"]).vocabulary[0]
    settings = {"learning_rate": 0.1, "max_leaf_nodes": 15, "min_samples_leaf": 20, "l2_regularization": 10.0}
    twin = HistGradientBoostingClassifier(
        **settings, max_iter=len(trees.losses) - 1, early_stopping=False, random_state=0, categorical_features=None
    ).fit(by_hand(older, known), older["late"].to_numpy())
    losses = [log_loss(newest["late"], p[:, 1]) for p in twin.staged_predict_proba(by_hand(newest, known))]
    np.testing.assert_allclose(trees.losses[1:], losses, atol=1e-6)
    assert trees.n_trees == 1 + int(np.argmin(losses)) == trees.estimator.n_iter_


def test_order_of_rows_does_not_matter(flights: pl.DataFrame, trees: BoostedModel) -> None:
    shuffled = train_baseline(flights.sample(fraction=1, shuffle=True, seed=1), **COLUMNS, settings=TREES)
    np.testing.assert_array_equal(shuffled.predict(flights), trees.predict(flights))


def test_training_refuses_a_past_with_one_class(flights: pl.DataFrame) -> None:
    late_only_at_the_end = flights.with_columns(late=pl.int_range(pl.len()) > 2400)
    with pytest.raises(DataError, match="same"):
        train_baseline(late_only_at_the_end, **COLUMNS, settings=TREES)


# network


def forward_by_hand(network: TabularNetwork, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
    w = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}
    missing = np.isnan(numbers)
    scaled = np.where(missing, 0, (numbers - w["numbers.mean"]) / w["numbers.scale"]).clip(-5, 5)
    waves = []
    for k in range(numbers.shape[1]):
        angles = 2 * np.pi * np.outer(scaled[:, k], w["numbers.frequencies"][k])
        both = np.hstack([np.sin(angles), np.cos(angles)])
        waves.append(np.maximum(both @ w["numbers.mix"][k] + w["numbers.shift"][k], 0))
    embedded = [w[f"embeddings.{c}.weight"][codes[:, c]] for c in range(codes.shape[1])]
    x = np.hstack([scaled, missing * w["numbers.has_missing"], *waves, *embedded])
    for layer in (0, 3):
        x = np.maximum(x @ w[f"body.{layer}.weight"].T + w[f"body.{layer}.bias"], 0)
    return 1 / (1 + np.exp(-(x @ w["body.6.weight"].T + w["body.6.bias"])[:, 0]))


def test_network_answers_as_arithmetic_does(flights: pl.DataFrame, network: NetworkModel) -> None:
    odd = pl.DataFrame({"wind": [None, 1e300, -1e300], "hour": [0, 99, 7], "carrier": ["new", None, "EV"]})
    for frame in (flights, odd):
        columns = by_hand(frame, network.inputs.vocabulary[0])
        expected = forward_by_hand(network.network, columns[:, :2], columns[:, 2:].astype(int))
        np.testing.assert_allclose(network.predict(frame), expected, atol=2e-6)
    assert network.predict(flights.clear()).shape == (0,)


def test_scale_is_that_of_the_training_rows(flights: pl.DataFrame, network: NetworkModel) -> None:
    numbers = network.network.numbers
    wind = flights["wind"].drop_nulls().to_numpy().astype(np.float32)
    np.testing.assert_allclose(numbers.mean[0], wind.mean(dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(numbers.scale[0], wind.std(dtype=np.float64), rtol=1e-5)
    assert numbers.has_missing.tolist() == [1.0, 0.0]


def test_scale_survives_constant_empty_and_infinite_columns() -> None:
    numbers = Numbers(3, n_frequencies=0)
    numbers.learn_scale(np.array([[7, np.nan, np.inf], [7, np.nan, 2]], np.float32))
    assert numbers.mean.tolist() == [7, 0, 2]
    assert numbers.scale.tolist() == [1, 1, 1]
    assert torch.isfinite(numbers(torch.tensor([[float("inf"), float("nan"), -float("inf")]]))).all()


def test_models_find_what_was_planted(flights: pl.DataFrame, trees: BoostedModel, network: NetworkModel) -> None:
    for model in (trees, network):
        assert roc_auc_score(flights["late"], model.predict(flights)) > 0.7
        assert set(model.to_json()) >= {"rows", "seed", "settings", "numeric"}
        assert "rows" in repr(model)
        assert "<table" in model._repr_html_()


def test_training_is_repeatable_quiet_and_leaves_nothing(
    flights: pl.DataFrame,
    network: NetworkModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    again = train_network(flights, **COLUMNS, settings=NETWORK, max_epochs=4)
    np.testing.assert_array_equal(again.predict(flights), network.predict(flights))
    other = train_network(flights, **COLUMNS, settings=NETWORK, max_epochs=1, seed=1)
    assert not np.array_equal(other.predict(flights), network.predict(flights))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


class Recorder(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.seen.append(metrics)


def test_logger_gets_both_curves(flights: pl.DataFrame) -> None:
    recorder = Recorder()
    model = train_network(flights, **COLUMNS, settings=NETWORK, max_epochs=2, logger=recorder)
    validation = [metrics["validation_loss"] for metrics in recorder.seen if "validation_loss" in metrics]
    assert validation == list(model.losses)
    assert sum("train_loss" in metrics for metrics in recorder.seen) == 2


def test_no_time_is_an_error_that_says_so(flights: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="max_seconds"):
        train_network(flights, **COLUMNS, settings=NETWORK, max_seconds=1e-6)


def test_heavy_libraries_wait_until_they_are_needed() -> None:
    modules = "tidebook.learn.loaders, tidebook.learn.baseline, tidebook.models.signature, tidebook.models.export"
    check = "print(sorted({'torch', 'sklearn', 'onnx', 'onnxruntime', 'pytorch_lightning'} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; {check}"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
