"""Signatures and ONNX files: asked beside scikit-learn and torch themselves, on real flights and on odd rows."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from tidebook.core.errors import (
    EmptyDataError,
    ExportError,
    ParityError,
    SignatureError,
    TypeMismatchError,
    WrongUseError,
)
from tidebook.demo.flights import read_flights
from tidebook.learn.baseline import BoostedModel, BoostingSettings, train_baseline, tree_columns
from tidebook.learn.tabular import NetworkModel, NetworkSettings, train_network
from tidebook.models.export import ask, open_session, parity, round_down, to_onnx
from tidebook.models.signature import Signature, outside_training

NUMERIC, CATEGORICAL = ["sched_dep_time", "distance", "dep_delay"], ["carrier", "origin", "dest", "tailnum"]
COLUMNS: dict[str, Any] = {"numeric": NUMERIC, "categorical": CATEGORICAL, "label": "late", "moment": "sched_dep_at"}


@pytest.fixture(scope="module")
def months() -> dict[int, pl.DataFrame]:
    "January and February as they are: cancelled flights have no delay and some no plane."
    late = (pl.col("arr_delay") >= 15).fill_null(True).alias("late")
    frame = read_flights().with_columns(late).select("date", "sched_dep_at", "late", *NUMERIC, *CATEGORICAL)
    return {month: frame.filter(pl.col("date").dt.month() == month) for month in (1, 2)}


@pytest.fixture(scope="module")
def trees(months: dict[int, pl.DataFrame]) -> BoostedModel:
    return train_baseline(months[1], **COLUMNS, settings=BoostingSettings(max_trees=80))


@pytest.fixture(scope="module")
def network(months: dict[int, pl.DataFrame]) -> NetworkModel:
    settings = NetworkSettings(hidden_units=32, learning_rate=3e-3)
    return train_network(months[1][::4], **COLUMNS, settings=settings, max_epochs=2)


@pytest.fixture(scope="module")
def signature(months: dict[int, pl.DataFrame]) -> Signature:
    return Signature.from_frame(months[1], numeric=NUMERIC, categorical=CATEGORICAL)


@pytest.fixture(scope="module")
def files(trees: BoostedModel, network: NetworkModel, signature: Signature) -> dict[str, bytes]:
    return {"trees": to_onnx(trees, signature), "network": to_onnx(network, signature)}


def answers(model: Any, content: bytes, frame: pl.DataFrame) -> np.ndarray:
    return ask(open_session(content), *model.inputs.raw(frame))


@pytest.fixture(scope="module")
def odd() -> pl.DataFrame:
    "Every number and every text that might go wrong, crossed."
    numbers = [None, float("nan"), 0.0, -0.0, 1e-40, 1e300, -1e300, float("inf"), float("-inf"), 2.0**24 + 1]
    texts = [None, "", "nan", "None", "UA", "ua", " UA", "Zürich ✈", "a" * 10_000, "tab\tnew\nline", "\x00UA"]
    rows = pl.DataFrame({"x": numbers}).join(pl.DataFrame({"t": texts}), how="cross")
    return rows.select(*(pl.col("x").alias(n) for n in NUMERIC), *(pl.col("t").alias(c) for c in CATEGORICAL))


# files


def test_parity_on_every_row_of_a_month(
    months: dict[int, pl.DataFrame], trees: BoostedModel, network: NetworkModel, files: dict[str, bytes]
) -> None:
    february = months[2]
    assert february.height > 24_000
    assert february["dep_delay"].null_count() > 1000
    assert february["tailnum"].null_count() > 100
    unseen = ~february["tailnum"].is_in(months[1]["tailnum"].drop_nulls().unique().to_list())
    assert unseen.sum() > 100
    for model, name in ((trees, "trees"), (network, "network")):
        report = parity(model, files[name], february, tolerance=1e-6)
        assert (report.n_rows, report.n_differing) == (february.height, 0)


def test_files_answer_as_their_libraries_do(
    months: dict[int, pl.DataFrame],
    odd: pl.DataFrame,
    trees: BoostedModel,
    network: NetworkModel,
    files: dict[str, bytes],
) -> None:
    for frame in (months[2][:1000], odd):
        expected = trees.estimator.predict_proba(tree_columns(trees.inputs, frame))[:, 1]
        np.testing.assert_allclose(answers(trees, files["trees"], frame), expected, atol=1e-6)
        numbers, codes = (torch.from_numpy(part) for part in network.inputs.coded(frame))
        with torch.no_grad():
            expected = network.network(numbers, codes).numpy()
        np.testing.assert_allclose(answers(network, files["network"], frame), expected, atol=1e-6)
        assert np.isfinite(expected).all()


def test_thresholds_part_float32_where_float64_does() -> None:
    "Asked on both sides of every threshold, and on it: thresholds lie between two float32 numbers."
    columns: dict[str, Any] = {"numeric": ["x"], "categorical": []}
    settings = BoostingSettings(min_leaf_rows=5, max_trees=30)
    model = train_baseline(small_rows(), **columns, label="y", moment="at", settings=settings)
    nodes = np.concatenate([p[0].nodes for p in model.estimator._predictors])
    splits = nodes[nodes["is_leaf"] == 0]["num_threshold"]
    near = splits[np.isfinite(splits)].astype(np.float32)
    assert (near > splits[np.isfinite(splits)]).any()
    far = np.float32(np.inf)
    frame = pl.DataFrame({"x": np.unique(np.concatenate([near, np.nextafter(near, far), np.nextafter(near, -far)]))})
    content = to_onnx(model, Signature.from_frame(frame, **columns))
    assert parity(model, content, frame, tolerance=1e-6).n_differing == 0


def test_round_down_never_rises() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(size=1000), [0.1, 0.5, -0.1, 1e-50, -1e-50, np.inf]])
    rounded = round_down(values)
    assert (rounded <= values).all()
    assert (np.nextafter(rounded, np.float32(np.inf)) > values)[:-1].all()


def test_the_same_model_gives_the_same_bytes_without_notes(
    trees: BoostedModel, network: NetworkModel, signature: Signature, files: dict[str, bytes]
) -> None:
    for model, name in ((trees, "trees"), (network, "network")):
        assert to_onnx(model, signature) == files[name]
        proto = onnx.load_from_string(files[name])
        parts = [proto, proto.graph, *proto.graph.node]
        assert not any(part.metadata_props or part.doc_string for part in parts)
        assert b".py" not in files[name]
        assert [value.name for value in proto.graph.input] == ["numeric", "categories"]
        assert [value.name for value in proto.graph.output] == ["probability"]


@pytest.mark.parametrize("name", ["trees", "network"])
def test_batches_are_free(name: str, months: dict[int, pl.DataFrame], request: Any, files: dict[str, bytes]) -> None:
    model, frame = request.getfixturevalue(name), months[2][:100]
    whole, session = answers(model, files[name], frame), open_session(files[name])
    for size in (1, 7):
        np.testing.assert_allclose(ask(session, *model.inputs.raw(frame), batch_rows=size), whole, atol=1e-6)
    assert ask(session, *model.inputs.raw(frame.clear())).shape == (0,)


def small_rows() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    x = rng.normal(size=600).astype(np.float32)
    at = [datetime(2013, 1, 1) + timedelta(hours=h) for h in range(600)]
    texts = [f"only {n}" for n in range(600)]
    return pl.DataFrame({"at": at, "x": x, "c": texts, "y": rng.random(600) < 1 / (1 + np.exp(-2 * x))})


@pytest.mark.parametrize("categorical", [[], ["c"]])
def test_models_without_any_category(categorical: list[str]) -> None:
    "No categorical column, or one whose categories are all too rare to have a code."
    rows = small_rows()
    columns: dict[str, Any] = {"numeric": ["x"], "categorical": categorical}
    signature = Signature.from_frame(rows, **columns)
    more: dict[str, Any] = {**columns, "label": "y", "moment": "at"}
    network = train_network(rows, **more, settings=NetworkSettings(hidden_units=8), max_epochs=1)
    trees = train_baseline(rows, **more, settings=BoostingSettings(min_leaf_rows=20))
    for model in (trees, network):
        assert parity(model, to_onnx(model, signature), rows).n_differing == 0


def test_trees_that_never_split() -> None:
    rows = small_rows()
    stump = train_baseline(rows, numeric=["x"], categorical=[], label="y", moment="at", settings=BoostingSettings())
    stump = replace(stump, estimator=HistGradientBoostingClassifier(min_samples_leaf=900, max_iter=3))
    stump.estimator.fit(rows.select("x").to_numpy(), rows["y"].to_numpy())
    content = to_onnx(stump, Signature.from_frame(rows, numeric=["x"]))
    np.testing.assert_allclose(answers(stump, content, rows), rows["y"].mean(), atol=1e-6)


def test_other_models_are_refused_by_name(trees: BoostedModel, signature: Signature) -> None:
    with pytest.raises(ExportError, match="LogisticRegression"):
        to_onnx(LogisticRegression(), signature)
    with pytest.raises(ExportError, match="LogisticRegression"):
        to_onnx(replace(trees, estimator=LogisticRegression()), signature)
    x, y = np.arange(300, dtype=np.float32).reshape(-1, 1) % 3, np.arange(300) % 3
    for estimator in (
        HistGradientBoostingClassifier(categorical_features=[0], max_iter=2).fit(x, y > 0),
        HistGradientBoostingClassifier(categorical_features=None, max_iter=2).fit(x, y),
    ):
        with pytest.raises(ExportError, match="categorical_features or more than two classes"):
            to_onnx(replace(trees, estimator=estimator), signature)
    swapped = replace(signature, numbers=signature.numbers[::-1])
    with pytest.raises(ExportError, match="other columns"):
        to_onnx(trees, swapped)


@pytest.mark.parametrize("shift", [0.01, float("nan")])
def test_a_wrong_file_is_found_out(
    shift: float, months: dict[int, pl.DataFrame], trees: BoostedModel, files: dict[str, bytes]
) -> None:
    proto = onnx.load_from_string(files["trees"])
    attributes = next(node for node in proto.graph.node if node.op_type == "TreeEnsembleRegressor").attribute
    base = next(attribute for attribute in attributes if attribute.name == "base_values")
    base.floats[0] += shift
    with pytest.raises(ParityError, match="100 of 100 rows differ") as caught:
        parity(trees, proto.SerializeToString(), months[2][:100])
    assert caught.value.report.n_differing == 100
    if shift == 0.01:
        assert parity(trees, proto.SerializeToString(), months[2][:100], tolerance=0.01).max_difference > 1e-4


def test_parity_needs_rows(months: dict[int, pl.DataFrame], trees: BoostedModel, files: dict[str, bytes]) -> None:
    with pytest.raises(EmptyDataError):
        parity(trees, files["trees"], months[2].clear())


# signatures


def test_signature_has_what_training_has_seen(months: dict[int, pl.DataFrame], signature: Signature) -> None:
    january = months[1]
    assert signature.numeric == tuple(NUMERIC)
    assert signature.numbers[1].lowest == january["distance"].min()
    assert signature.numbers[1].highest == january["distance"].max()
    assert signature.categories[1].seen == ("EWR", "JFK", "LGA")
    assert signature.check(months[2]) == []
    assert outside_training(signature, january).frame.height == 0
    news = dict(outside_training(signature, months[2]).frame.iter_rows())
    seen = set(january["tailnum"].drop_nulls())
    assert news["tailnum"] == sum(tail is not None and tail not in seen for tail in months[2]["tailnum"])


def test_all_faults_are_said_at_once() -> None:
    rows = pl.DataFrame({"a": [1.0, 2.0], "b": [1, 2], "c": ["x", "y"], "d": ["x", "y"], "e": [1.0, 2.0]})
    signature = Signature.from_frame(rows, numeric=["a", "b", "e"], categorical=["c", "d"], required=["b", "d"])
    bad = pl.DataFrame({"a": ["1", "2"], "b": [None, float("nan")], "d": ["x", None], "e": [1e39, 5.0]})
    assert signature.check(bad) == [
        "$.a: String is not a number",
        "$.c: the column is missing",
        "$.rows[0].b: null is not allowed (and 1 more of 2 rows)",
        "$.rows[0].e: 1e+39 is not a finite float32",
        "$.rows[1].d: null is not allowed",
    ]
    with pytest.raises(SignatureError, match="5 faults") as caught:
        signature.enforce(bad)
    assert len(caught.value.faults) == 5
    signature.enforce(rows)


def test_signature_refuses_wrong_columns() -> None:
    rows = pl.DataFrame({"a": [1.0], "c": ["x"], "flag": [True]})
    with pytest.raises(TypeMismatchError, match=r"\$\.flag: Boolean is not a number"):
        Signature.from_frame(rows, numeric=["a", "flag"])
    with pytest.raises(WrongUseError, match="Required"):
        Signature.from_frame(rows, numeric=["a"], required=["gust"])
    with pytest.raises(WrongUseError, match="twice"):
        Signature.from_frame(rows, numeric=["a", "a"])


def test_signature_survives_its_file(signature: Signature) -> None:
    odd = pl.DataFrame({'<b>"': [0.1], "é\n": ["\u2028"], "empty": pl.Series([None], dtype=pl.Float32)})
    for one in (signature, Signature.from_frame(odd, numeric=['<b>"', "empty"], categorical=["é\n"], required=["é\n"])):
        assert Signature.from_json(one.to_json()) == one
        assert "<b>" not in one._repr_html_()


DAMAGE: list[tuple[str, Any]] = [
    ("format", 2),
    ("format", True),
    ("numbers", {}),
    ("numbers", []),
    ("numbers.0.name", 7),
    ("numbers.0.name", "carrier"),
    ("numbers.0.is_nullable", 1),
    ("numbers.0.lowest", True),
    ("numbers.0.lowest", None),
    ("numbers.0.lowest", 1e12),
    ("numbers.0.lowest", float("nan")),
    ("numbers.0.more", 1),
    ("categories.0", "carrier"),
    ("categories.0.seen", "UA"),
    ("categories.0.seen", ["UA", "UA"]),
    ("categories.0.seen", [1]),
    ("extra", 1),
]


@pytest.mark.parametrize(("path", "value"), DAMAGE)
def test_damaged_signatures_are_refused(path: str, value: Any, signature: Signature) -> None:
    content = json.loads(signature.to_json())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target = content
    for part in parents:
        target = target[part]
    target[last] = value
    with pytest.raises(SignatureError):
        Signature.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '"numbers"'])
def test_what_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(SignatureError):
        Signature.from_json(text)
