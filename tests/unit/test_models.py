"""Bundles, the registry and scoring, with graphs made by hand and bytes changed on purpose."""

import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onnx import TensorProto, helper
from tidebook.core.catalog import Catalog
from tidebook.core.clock import FixedClock
from tidebook.core.context import Record, recording
from tidebook.core.errors import (
    DamagedFileError,
    EmptyDataError,
    ModelError,
    NewerFormatError,
    SignatureError,
    UnknownNameError,
    WrongUseError,
)
from tidebook.core.objects import Objects
from tidebook.models.bundle import LIMITS, MANIFEST, Bundle, build_bundle, bundle_from, read_bundle, write_bundle
from tidebook.models.registry import Registry
from tidebook.models.scoring import Scorer, score
from tidebook.models.signature import Signature

ROWS = pl.DataFrame({"hour": [7, 18, 21, 9], "wind": [0.5, -21.0, 0.0, 3.25], "origin": ["JFK", "LGA", None, "JFK"]})
SIGNATURE = Signature.from_frame(ROWS, numeric=["hour", "wind"], categorical=["origin"])


def graph(shift: float = 0.0, *, inputs: list[Any] | None = None, key: str = "JFK") -> bytes:
    "sigmoid(mean(hour, wind, 1 if the origin is `key`) + shift), as ONNX."
    nodes = [
        helper.make_node(
            "LabelEncoder", ["categories"], ["lift"], domain="ai.onnx.ml", keys_strings=[key], values_floats=[1.0]
        ),
        helper.make_node("Concat", ["numeric", "lift"], ["all"], axis=1),
        helper.make_node("ReduceMean", ["all"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Constant", [], ["shift"], value_floats=[shift]),
        helper.make_node("Add", ["mean", "shift"], ["moved"]),
        helper.make_node("Sigmoid", ["moved"], ["probability"]),
    ]
    inputs = inputs or [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["N", 2]),
        helper.make_tensor_value_info("categories", TensorProto.STRING, ["N", 1]),
    ]
    made = helper.make_graph(
        nodes, "tiny", inputs, [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])]
    )
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=versions, ir_version=8).SerializeToString()


def built(shift: float = 0.0, **parts: Any) -> Bundle:
    given = {"example": ROWS, "lineage": {"data": "flights@v3", "shift": shift}}
    return build_bundle(graph(shift), SIGNATURE, **{**given, **parts})


def by_hand(frame: pl.DataFrame, shift: float = 0.0) -> np.ndarray:
    "What the graph has to answer, in float64."
    lift = (frame["origin"] == "JFK").fill_null(False).cast(pl.Float64).to_numpy()
    mean = (frame["hour"].to_numpy() + frame["wind"].to_numpy() + lift) / 3
    return 1 / (1 + np.exp(-(mean + shift)))


@pytest.fixture
def models(tmp_path: Path) -> Registry:
    objects = Objects(tmp_path / "objects")
    clock = FixedClock(datetime(2013, 4, 1, tzinfo=UTC))
    return Registry(Catalog(tmp_path / "catalog.db", objects, clock=clock, who="ana"), objects)


# ---- bundle


def test_the_manifest_says_what_sha256_says() -> None:
    bundle = built()
    assert set(bundle.files) == set(LIMITS) - {"weights.safetensors"}
    for name, entry in bundle.manifest["files"].items():
        assert entry["sha256"] == hashlib.sha256(bundle.files[name]).hexdigest()
        assert entry["size_bytes"] == len(bundle.files[name])


def test_the_same_model_twice_has_the_same_digest_and_another_has_not() -> None:
    assert built().digest == built(lineage={"shift": 0.0, "data": "flights@v3"}).digest
    others = [built(0.5), built(lineage={}), built(card="# Mine"), built(example=ROWS.tail(1))]
    assert len({built().digest, *(other.digest for other in others)}) == 5


def test_a_folder_gives_back_what_was_written(tmp_path: Path) -> None:
    bundle = built()
    back = read_bundle(write_bundle(bundle, tmp_path / "a" / "delay"))
    assert back == bundle
    assert back.digest == bundle.digest
    assert back.signature == SIGNATURE
    assert back.lineage == {"data": "flights@v3", "shift": 0.0}
    assert back.example.rows() == [(7.0, 0.5, "JFK"), (18.0, -21.0, "LGA"), (21.0, 0.0, None), (9.0, 3.25, "JFK")]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["delay"]  # nothing temporary is left


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    folder = write_bundle(built(), tmp_path / "delay")
    with pytest.raises(ModelError, match="exists already"):
        write_bundle(built(1.0), folder)
    assert read_bundle(folder) == built()


@pytest.mark.parametrize("name", sorted(built().files))
def test_one_changed_byte_in_any_file_is_found(tmp_path: Path, name: str) -> None:
    folder = write_bundle(built(), tmp_path / "delay")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(DamagedFileError, match=f"has changed: {name}"):
        read_bundle(folder)


def test_all_changed_files_are_named_at_once(tmp_path: Path) -> None:
    folder = write_bundle(built(), tmp_path / "delay")
    for name in ("card.md", "model.onnx"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(DamagedFileError) as caught:
        read_bundle(folder)
    assert caught.value.files == ["card.md", "model.onnx"]


def test_a_longer_file_is_not_even_read(tmp_path: Path) -> None:
    folder = write_bundle(built(), tmp_path / "delay")
    with (folder / "model.onnx").open("ab") as file:
        file.truncate(1 << 40)  # sparse: reading it would fill the memory
    with pytest.raises(DamagedFileError, match=r"model\.onnx is not read"):
        read_bundle(folder)


@pytest.mark.parametrize(
    "name", ["../evil.onnx", "/etc/passwd", "sub/model.onnx", "model.pkl", "MODEL.ONNX", ".", "", MANIFEST, "a\x00b"]
)
def test_a_name_outside_the_list_is_refused_and_nothing_is_read(name: str) -> None:
    manifest = json.loads(json.dumps(built().manifest))
    manifest["files"][name] = {"sha256": "0" * 64, "size_bytes": 0}

    def read(*_: object) -> bytes:
        raise AssertionError("nothing may be read")

    with pytest.raises(DamagedFileError, match="unknown file"):
        bundle_from(manifest, read)
    with pytest.raises(DamagedFileError, match="unknown file"):
        Bundle({**built().files, name: b""})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda files: files.pop("model.onnx"), "model.onnx is not listed"),
        (lambda files: files["model.onnx"].update(size_bytes=True), "must have a size_bytes"),
        (lambda files: files["card.md"].update(size_bytes=(1 << 20) + 1), "must have a size_bytes"),
        (lambda files: files["card.md"].update(size_bytes=-1), "must have a size_bytes"),
        (lambda files: files["card.md"].update(sha256="A" * 64), "must have a sha256"),
        (lambda files: files["card.md"].update(sha256="0" * 64 + "\n"), "must have a sha256"),
        (lambda files: files.update({"card.md": 7}), "card.md must have"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(change: Callable[[Any], object], fault: str) -> None:
    manifest = json.loads(json.dumps(built().manifest))
    change(manifest["files"])
    with pytest.raises(DamagedFileError, match=fault):
        bundle_from(manifest, lambda name, _: built().files[name])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": []}', "[" * 100_000, "NaN", '"' + "x" * 70_000 + '"'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_bundle(built(), tmp_path / "delay")
    (folder / MANIFEST).write_text(text)
    with pytest.raises(DamagedFileError):
        read_bundle(folder)


def test_a_newer_format_says_so() -> None:
    with pytest.raises(NewerFormatError, match="newer format"):
        bundle_from({**built().manifest, "format": 2}, lambda name, _: built().files[name])


def test_a_link_a_pipe_and_a_folder_are_not_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_bytes(built().files["card.md"])  # even the right bytes
    makers: list[Callable[[Path], object]] = [lambda path: path.symlink_to(secret), os.mkfifo, os.mkdir]
    for number, make in enumerate(makers):
        folder = write_bundle(built(), tmp_path / f"delay{number}")
        (folder / "card.md").unlink()
        make(folder / "card.md")
        with pytest.raises(DamagedFileError, match=r"card\.md"):
            read_bundle(folder)


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    folder = write_bundle(built(), tmp_path / "delay")
    (folder / "model.onnx").unlink()
    with pytest.raises(DamagedFileError, match=r"model\.onnx cannot be read"):
        read_bundle(folder)
    with pytest.raises(DamagedFileError, match=MANIFEST):
        read_bundle(tmp_path / "nowhere")


def test_files_that_are_not_listed_are_left_alone(tmp_path: Path) -> None:
    folder = write_bundle(built(), tmp_path / "delay")
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert read_bundle(folder) == built()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("signature.json", b"\xff"),
        ("signature.json", b"[" * 100_000),
        ("signature.json", b"{}"),
        ("lineage.json", b"[]"),
        ("example.json", b'{"hour": ["late"], "wind": [1], "origin": ["JFK"]}'),
        ("example.json", b'{"hour": [1], "wind": [1, 2], "origin": ["JFK"]}'),
        ("example.json", b'{"hour": [1], "wind": [1]}'),
        ("example.json", b'{"hour": [1], "wind": [1], "origin": ["JFK"], "more": [1]}'),
        ("example.json", b'{"hour": [{"a": 1}], "wind": [1], "origin": [[]]}'),
    ],
)
def test_files_with_right_hashes_and_wrong_content_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(DamagedFileError, match=name.split(".")[0]):
        Bundle({**built().files, name: data})


def test_only_plain_json_goes_in() -> None:
    for lineage in ({"at": datetime(2013, 4, 1)}, {"loss": float("nan")}, {"model": object()}):
        with pytest.raises(ModelError, match="plain JSON"):
            built(lineage=lineage)


def test_the_card_shows_hostile_names_and_does_nothing() -> None:
    card = built(lineage={"<script>alert(1)</script>": "a|b [x](javascript:1)"}).card
    assert "<script>" not in card
    assert "[x](" not in card


def test_weights_are_safetensors_and_the_same_twice() -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load

    state = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(2)}
    state["tied"] = state["a"]
    bundle = built(weights=state)
    back = load(bundle.files["weights.safetensors"])
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    assert bundle.digest == built(weights=dict(reversed(state.items()))).digest


# ---- registry


def test_what_is_loaded_is_what_was_registered(models: Registry) -> None:
    version = models.register("delay", built(), metrics={"auc": 0.71, "log_loss": None}, why="first")
    assert (version.ref, version.kind, version.digest) == ("delay@v1", "model", built().digest)
    assert version.facts["metrics"] == {"auc": 0.71, "log_loss": None}
    for ref in ("delay", "delay@v1", "delay@latest", version):
        assert models.load(ref) == built()


def test_the_same_bundle_twice_is_one_version_and_one_event(models: Registry) -> None:
    first = models.register("delay", built())
    assert models.register("delay", built()) == first
    assert models.register("delay", built(1.0)).ref == "delay@v2"
    assert models.register("delay", built()).ref == "delay@v3"  # no longer the latest
    assert models.history("delay").frame["action"].to_list() == ["commit"] * 3
    assert not list((models.objects.root / "staging").iterdir())


def test_versions_share_the_files_that_are_equal(models: Registry) -> None:
    one, two = models.register("delay", built()), models.register("delay", built(card="# Mine"))
    same = {n for n in one.manifest["files"] if one.manifest["files"][n] == two.manifest["files"][n]}
    assert same == set(built().files) - {"card.md"}


@pytest.mark.parametrize("name", sorted(built().files))
def test_a_changed_object_is_found_when_it_is_loaded(models: Registry, name: str) -> None:
    version = models.register("delay", built())
    assert models.load("delay") == built()  # hashed once: the next read must see the change all the same
    path = models.objects.path(version.manifest["files"][name]["sha256"])
    before = path.stat()
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DamagedFileError, match="has changed"):
        models.load("delay")
    with pytest.raises(DamagedFileError, match="has changed"):
        models.promote("delay")
    assert models.catalog.aliases("model", "delay") == {}


def test_promotion_moves_the_alias_and_keeps_the_evidence(models: Registry) -> None:
    models.register("delay", built())
    models.register("delay", built(1.0))
    models.promote("delay@v1", why="first", evidence={"auc": 0.71})
    assert models.promote("delay@v2", why="better", evidence={"auc_gain": np.float64(0.026)}).ref == "delay@v2"
    assert models.resolve("delay@champion").number == 2
    assert models.load("delay@champion") == built(1.0)
    models.promote("delay@v1", alias="fallback")
    assert models.catalog.aliases("model", "delay") == {"champion": 2, "fallback": 1}
    moved = [event for event in models.catalog.events("model", "delay") if event.action == "alias"]
    told = [(event.number, event.who, event.why, event.at, event.evidence["alias"]) for event in moved]
    at = "2013-04-01T00:00:00+00:00"
    assert told == [
        (1, "ana", "first", at, "champion"),
        (2, "ana", "better", at, "champion"),
        (1, "ana", "", at, "fallback"),
    ]
    assert moved[1].evidence["auc_gain"] == 0.026
    assert moved[1].evidence["before"] == 1


def test_listing_and_history_read_well(models: Registry) -> None:
    assert models.ls().frame.is_empty()
    models.register("delay", built(), metrics={"auc": 0.71, "mine": 3})
    models.register("delay", built(1.0), metrics={"auc": 0.73})
    models.register("rain", built())
    models.promote("delay@v1", why="<b>why</b>")
    shown = models.ls().frame.select("model", "aliases", "auc", "log_loss").rows()
    assert shown == [("delay@v2", "", 0.73, None), ("delay@v1", "champion", 0.71, None), ("rain@v1", "", None, None)]
    history = models.history("delay")
    assert history.frame["action"].to_list() == ["commit", "commit", "alias"]
    assert "<b>why" not in history._repr_html_()
    with pytest.raises(UnknownNameError, match="delay"):
        models.history("dellay")
    with pytest.raises(UnknownNameError):
        models.load("delay@v9")


def test_loading_is_noted_as_an_input_and_registering_keeps_its_inputs(models: Registry) -> None:
    data = models.catalog.commit("dataset", "flights", {"rows": 3})
    version = models.register("delay", built(), inputs=[data])
    assert [item.ref for item in models.catalog.inputs(version)] == ["flights@v1"]
    record = Record("task", "score")
    with recording(record):
        models.load("delay")
    assert [(item.kind, item.ref) for item in record.inputs] == [("model", "delay@v1")]


def test_metrics_that_are_no_numbers_are_refused(models: Registry) -> None:
    for value in (float("nan"), float("inf"), True, "0.7", [0.7]):
        with pytest.raises(WrongUseError, match="auc"):
            models.register("delay", built(), metrics={"auc": value})  # type: ignore[dict-item]
    assert models.catalog.names("model") == []


def test_a_full_disk_leaves_no_version_and_no_staged_file(models: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, calls = models.objects.stage, []

    def full(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return stage(*args, **options)

    monkeypatch.setattr(models.objects, "stage", full)
    with pytest.raises(OSError, match="No space"):
        models.register("delay", built())
    assert models.catalog.names("model") == []
    assert not list((models.objects.root / "staging").iterdir())
    monkeypatch.undo()
    assert models.register("delay", built()).ref == "delay@v1"


# ---- scoring


def test_scores_are_what_the_formula_says() -> None:
    scored = score(built(0.25), ROWS)
    assert scored.drop("score").equals(ROWS)
    assert scored.schema["score"] == pl.Float32
    np.testing.assert_allclose(scored["score"].to_numpy(), by_hand(ROWS, 0.25), rtol=1e-6)


def test_batches_change_nothing() -> None:
    rng = np.random.default_rng(5)
    frame = pl.DataFrame(
        {
            "key": np.arange(1000),
            "origin": pl.Series(rng.choice(["JFK", "LGA", "EWR"], 1000), dtype=pl.Categorical),
            "wind": rng.normal(size=1000),
            "hour": rng.integers(0, 24, 1000),
        }
    )
    whole = score(built(), frame)
    np.testing.assert_allclose(whole["score"].to_numpy(), by_hand(frame.cast({"origin": pl.String})), rtol=1e-5)
    for batch_rows in (1, 7, 999, 1000, 1001):
        assert Scorer.open(built()).score(frame, batch_rows=batch_rows).equals(whole)


def test_every_fault_is_told_before_anything_is_scored() -> None:
    frame = ROWS.rename({"wind": "wind_"}).with_columns(pl.col("hour").cast(pl.String))
    with pytest.raises(SignatureError) as caught:
        score(built(), frame)
    assert len(caught.value.faults) == 2
    assert "$.wind: the column is missing" in str(caught.value)
    assert "$.hour: String is not a number" in str(caught.value)
    assert "'wind' may now be called 'wind_'" in str(caught.value)
    with pytest.raises(SignatureError, match=r"1e\+300 is not a finite float32"):
        score(built(), ROWS.with_columns(wind=pl.lit(1e300)))


def test_an_empty_table_and_an_existing_score_are_refused() -> None:
    with pytest.raises(EmptyDataError, match="no rows to score"):
        score(built(), ROWS.clear())
    with pytest.raises(WrongUseError, match="'score' already"):
        score(built(), ROWS.with_columns(score=pl.lit(0.5)))


def test_a_null_category_is_an_empty_text_and_not_the_word_none() -> None:
    rows = ROWS.with_columns(origin=pl.Series([None, "", "None", "nan"]))
    model = build_bundle(graph(key="None"), SIGNATURE, example=ROWS, lineage={})
    as_if = rows.with_columns(origin=pl.Series(["", "", "JFK", ""]))
    np.testing.assert_allclose(score(model, rows)["score"].to_numpy(), by_hand(as_if), rtol=1e-6)


def test_answers_that_are_no_numbers_are_refused_with_their_rows() -> None:
    with pytest.raises(ModelError, match="1 of 4 rows, first 2") as caught:
        score(built(), ROWS.with_columns(wind=pl.Series([0.5, 1.0, None, 2.0])))
    assert caught.value.rows == [2]


def test_a_graph_that_does_not_fit_its_signature_is_refused() -> None:
    text = helper.make_tensor_value_info("categories", TensorProto.STRING, ["N", 1])
    wrong = [
        [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["N", 3]), text],
        [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, [1, 2]), text],  # the batch was frozen
        [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["N", "k"]), text],
    ]
    for inputs in wrong:
        model = build_bundle(graph(inputs=inputs), SIGNATURE, example=ROWS, lineage={})
        with pytest.raises(ModelError, match="does not fit its signature"):
            score(model, ROWS)
    for model in (b"", b"not a graph", graph()[:-20]):
        with pytest.raises(ModelError, match=r"model\.onnx cannot be opened"):
            score(build_bundle(model, SIGNATURE, example=ROWS, lineage={}), ROWS)


def test_a_graph_cannot_read_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.bin").write_bytes(np.zeros(2, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", "8")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    node = helper.make_node("MatMul", ["numeric", "w"], ["probability"])
    numeric = helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["N", 2])
    output = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", 1])
    made = helper.make_graph([node], "reader", [numeric], [output], [tensor])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    signature = Signature.from_frame(ROWS, numeric=["hour", "wind"])
    with pytest.raises(ModelError, match=r"model\.onnx cannot be opened"):
        score(build_bundle(model, signature, example=ROWS, lineage={}), ROWS)
