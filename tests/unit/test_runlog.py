"""wandb's own tools and its official protobuf classes say what a log holds; our reader must agree."""

import json
import math
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from tidebook.learn import frames, runlog
from tidebook.learn.frames import BLOCK_BYTES, FILE_HEADER, UNFINISHED
from tidebook.learn.runlog import KeyPath, RunLog, has_ended, read_run

from tests.environment import ROOT, SCRIPTS

GOLDEN = ROOT / "tests" / "data" / "wandb-0.31" / "golden01.wandb"


def leet(path: Path, *flags: str) -> str:
    "What wandb's own inspector prints about a log."
    command = [SCRIPTS / "wandb", "leet", "inspect", *flags, "--json", path]
    environment = os.environ | {"WANDB_ERROR_REPORTING": "false"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout


def spelled(value: Any) -> Any:
    "The value as the inspector spells it: JSON has no NaN."
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: spelled(each) for key, each in value.items()}
    return [spelled(each) for each in value] if isinstance(value, list) else value


def exact(value: Any) -> str:
    "Types count: 1, 1.0 and true are different."
    return json.dumps(value, sort_keys=True)


def rows(log: RunLog) -> list[dict[KeyPath, Any]]:
    found: list[dict[KeyPath, Any]] = [{} for _ in log.steps]
    for path, column in log.history.items():
        for row, value in zip(column.rows, column.values, strict=True):
            found[row][path] = value
    return found


def assert_agrees(log: RunLog, said: dict[str, Any]) -> None:
    assert exact(spelled(log.config)) == exact(said["config"])
    assert exact(spelled(log.summary)) == exact(said["summary"])
    assert (log.id, log.name, log.exit_code) == (said["run_id"], said["name"], said["exit_code"])
    assert (log.project, log.notes, list(log.tags)) == (said["project"], said["notes"], said["tags"])
    assert log.steps[-1] == said["step"]
    assert log.losses == ()


def frame(payload: bytes, at: int) -> bytes:
    "The chunks of one record that starts at offset `at`, written from the description of LevelDB's log format."
    out, first = b"", True
    while True:
        left = BLOCK_BYTES - (at + len(out)) % BLOCK_BYTES
        if left < 7:
            out += b"\0" * left
            continue
        part, payload = payload[: left - 7], payload[left - 7 :]
        kind = (1 if not payload else 2) if first else (4 if not payload else 3)
        out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
        first = False
        if not payload:
            return out


def written(path: Path, *records: Any) -> Path:
    data = FILE_HEADER
    for number, record in enumerate(records, 1):
        record.num = number
        data += frame(record.SerializeToString(), len(data))
    path.write_bytes(data)
    return path


def record(kind: str, **items: str) -> Any:
    "An official record with JSON texts; `__` in a name separates nested keys."
    from wandb.proto import wandb_internal_pb2 as official

    made = official.Record()
    part = getattr(made, kind)
    part.SetInParent()
    for name, text in items.items():
        (part.item if kind == "history" else part.update).add(nested_key=name.split("__"), value_json=text)
    return made


def started(run_id: str = "made0001") -> Any:
    from wandb.proto import wandb_internal_pb2 as official

    made = official.Record()
    made.run.run_id, made.run.display_name, made.run.project = run_id, "made", "tests"
    made.run.start_time.seconds = 1_700_000_000
    return made


# ---------------------------------------------------------------- what a whole log says


def test_golden_log_of_wandb_0_31() -> None:
    log, said = read_run(GOLDEN), json.loads(GOLDEN.with_suffix(".json").read_text())
    assert_agrees(log, said)
    assert (log.group, log.job_type, log.host, log.system["wandb"]) == ("gold", "fit", "golden", "0.31.0")
    assert log.started_at is not None
    assert log.started_at.isoformat().replace("+00:00", "Z") == said["start_time"]
    assert log.config["net.layers"] == "a literal dot"
    assert log.config["net"]["layers"] == [64, 32]
    assert log.history["rows",].values == [2**60 + i for i in range(40)]
    assert log.history["valid", "by.hour"].values == list(range(40))
    assert [type(value) for value in log.history["is_best",].values[:2]] == [bool, bool]
    assert all(math.isnan(value) for value in log.history["nan",].values)
    assert log.steps == [*range(40), 100]
    assert log.history["sparse",].rows == [40]


@pytest.mark.parametrize("encoding", ["json", "json,typed"])
def test_a_real_run_reads_as_wandb_reads_it(tmp_path: Path, encoding: str) -> None:
    script = f"""
import wandb
settings = wandb.Settings(mode="offline", console="off", silent=True, x_disable_stats=True,
                          x_save_requirements=False, x_history_value_encoding={encoding!r})
config = {{"lr": .1, "big": 2**62 + 1, "flag": True, "inf": float("inf"), "net.w": "dotted",
          "net": {{"deep": {{"x": None}}, "w": [1, 2.5]}}, "unicode": "Zoë ☃", "zero": 0, "empty": {{}}}}
with wandb.init(dir={str(tmp_path)!r}, name="real", config=config, tags=["a"], notes="n", settings=settings) as run:
    for i in range(30):
        run.log({{"loss": 1 / (i + 1), "big": 2**60 + i, "flag": i % 2 == 0, "nan": float("nan"), "none": None,
                 "inf": float("-inf"), "deep": {{"a": {{"b": i}}, "c.d": i}}, "c.d": "text",
                 "list": [1, float("nan")]}})
    run.log({{"late": 1}}, step=77)
    run.config.update({{"lr": .2, "late": {{"k": [True]}}}}, allow_val_change=True)
    run.summary["big"] = 2**61 + 1
    run.summary["nest"] = {{"q": {{"z": 1}}}}
wandb.teardown()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, cwd=tmp_path)
    path = next(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    log = read_run(path)
    assert log.config.pop("empty") == {}  # the inspector leaves it out
    assert_agrees(log, json.loads(leet(path, "--summary")))
    said = [entry for entry in map(json.loads, leet(path).splitlines()) if entry["type"] == "history"]
    ours = [{".".join(path): value for path, value in row.items() if path != ("c.d",)} for row in rows(log)]
    theirs = [{k: v for k, v in entry["history"]["item"].items() if k != "c.d"} for entry in said]
    assert [exact(spelled(row)) for row in ours] == [exact(row) for row in theirs]
    assert log.steps == [int(entry["history"]["step"].get("num", 0)) for entry in said]
    assert log.system["os"].startswith("Linux")
    assert has_ended(path)


def test_updates_and_removals_apply_in_order(tmp_path: Path) -> None:
    removal = record("config", lr="0.2")
    removal.config.remove.add(nested_key=["net", "width"])
    removal.config.remove.add(key="old")
    removal.config.remove.add(nested_key=["not", "there"])
    dropped = record("summary", loss="0.5", deep__a="1")
    dropped.summary.remove.add(key="auc")
    path = written(
        tmp_path / "run-made0001.wandb",
        started(),
        record("config", lr="0.1", net__width="64", net__depth="3", old='"x"', net2="1"),
        removal,
        record("config", net2__inner="true"),
        record("summary", auc="0.7", loss="NaN"),
        dropped,
        record("history", _step="4", loss="0.5"),
    )
    log = read_run(path)
    assert log.config == {"lr": 0.2, "net": {"depth": 3}, "net2": {"inner": True}}
    assert log.summary == {"loss": 0.5, "deep": {"a": 1}}
    assert log.exit_code is None
    assert not has_ended(path)
    assert log.steps == [4]  # by its item when there is no step field
    said = json.loads(leet(path, "--summary"))
    assert exact(log.config) == exact(said["config"])


def test_typed_values_without_json(tmp_path: Path) -> None:
    made = record("history")
    values = {"none": 0, "boolean": True, "integer": -(2**62) - 1, "number": math.inf, "text": "12", "json": "[1, NaN]"}
    for kind, value in values.items():
        setattr(made.history.item.add(nested_key=[kind]), kind, value)
    (row,) = rows(read_run(written(tmp_path / "run-typed.wandb", started(), made)))
    assert exact(spelled({path[0]: value for path, value in row.items()})) == exact(
        {"none": None, "boolean": True, "integer": -(2**62) - 1, "number": "Infinity", "text": "12", "json": [1, "NaN"]}
    )


@pytest.mark.parametrize("size", [32_740, 32_761, 32_768, 100_000])
def test_records_that_cross_blocks(tmp_path: Path, size: int) -> None:
    long = record("config", text=json.dumps("x" * size))
    path = written(
        tmp_path / "run-long.wandb", started(), long, record("history", loss="1"), record("history", loss="2")
    )
    log = read_run(path)
    assert len(log.config["text"]) == size
    assert log.history["loss",].values == [1, 2]
    assert log.losses == ()
    assert len(json.loads(leet(path, "--summary"))["config"]["text"]) == size  # our test's own writer is right


def test_the_reader_does_not_import_wandb() -> None:
    code = f"""
import sys
from pathlib import Path
from tidebook.learn.runs import Runs
assert Runs([Path({str(GOLDEN.parent)!r})]).table().height == 1
assert "wandb" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---------------------------------------------------------------- damage


def test_every_cut_gives_the_rows_before_it(tmp_path: Path, rounds: int) -> None:
    whole, draw = GOLDEN.read_bytes(), random.Random(5)
    complete, path = rows(read_run(GOLDEN)), tmp_path / "cut.wandb"
    ends = [at + 7 + len(payload) for at, payload in frames.records(whole, frames.Damage())]
    n_rows = []
    for size in sorted({0, 1, 6, 7, 8, *(draw.randrange(len(whole)) for _ in range(40 * rounds))}):
        path.write_bytes(whole[:size])
        log = read_run(path)
        n_rows.append(len(log.steps))
        assert exact(spelled([list(row.values()) for row in rows(log)])) == exact(
            spelled([list(row.values()) for row in complete[: len(log.steps)]])
        )
        if size > 7:
            assert [loss.reason for loss in log.losses] == ([] if size in ends else [UNFINISHED])
    assert n_rows == sorted(n_rows)
    assert n_rows[0] == 0
    assert n_rows[-1] > 30


def test_one_flipped_byte_costs_one_record(tmp_path: Path, rounds: int) -> None:
    whole, draw = GOLDEN.read_bytes(), random.Random(7)
    complete = {exact(spelled(list(row.items()))) for row in rows(read_run(GOLDEN))}
    n_records, path = sum(1 for _ in frames.records(whole, frames.Damage())), tmp_path / "flipped.wandb"
    for _ in range(60 * rounds):
        at = draw.randrange(7, len(whole))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        log, damage = read_run(path), frames.Damage()
        assert sum(1 for _ in frames.records(bytes(damaged), damage)) == n_records - 1
        assert len(log.losses) == 1
        assert log.losses[0].offset <= at < log.losses[0].offset + log.losses[0].n_bytes
        assert {exact(spelled(list(row.items()))) for row in rows(log)} <= complete  # nothing is made up


def test_a_lost_block_does_not_hide_the_next(tmp_path: Path) -> None:
    many = [record("history", loss=str(i), note=json.dumps("x" * 500)) for i in range(300)]
    path = written(tmp_path / "run-many.wandb", started(), *many)
    damaged = bytearray(path.read_bytes())
    damaged[BLOCK_BYTES : 2 * BLOCK_BYTES] = random.Random(3).randbytes(BLOCK_BYTES)
    path.write_bytes(damaged)
    log = read_run(path)
    kept = log.history["loss",].values
    assert kept[0] == 0
    assert kept[-1] == 299
    assert 300 - 2 * BLOCK_BYTES // 500 < len(kept) < 300
    assert log.losses


@pytest.mark.parametrize("data", [b"", b":W&", b"not a log", b"\0" * 100_000, random.Random(1).randbytes(100_000)])
def test_what_is_no_log_has_no_rows_and_says_so(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "run-odd.wandb"
    path.write_bytes(data)
    log = read_run(path)
    assert (log.id, log.steps, log.config) == ("odd", [], {})
    assert log.losses


def test_a_damaged_header_does_not_hide_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(b"XXXXXXX" + GOLDEN.read_bytes()[7:])
    assert len(read_run(path).steps) == 41
    assert [loss.reason for loss in read_run(path).losses] == ["the header of the file"]


@pytest.mark.parametrize(
    "text",
    ["{broken", "[" * 100_000, "[" * 40 + "]" * 40, '{"a":' * 900 + "1" + "}" * 900, "1" * 5000, "nan", ""],
    ids=["broken", "open", "deep list", "deep object", "long integer", "spelling", "empty"],
)
def test_a_bad_value_costs_only_itself(tmp_path: Path, text: str) -> None:
    path = written(
        tmp_path / "run-bad.wandb", started(), record("history", bad=text, loss="0.5"), record("history", loss="1")
    )
    log = read_run(path)
    assert log.history["loss",].values == [0.5, 1]
    if text:  # an item without a value was logged as None
        assert [loss.reason for loss in log.losses] == ["a value that is not JSON"]
        assert ("bad",) not in log.history


def test_half_a_surrogate_pair_becomes_text_that_can_be_written(tmp_path: Path) -> None:
    log = read_run(written(tmp_path / "run-half.wandb", started(), record("config", name='"a\\ud800b"')))
    assert log.config["name"].encode("utf-8") == b"a?b"


def test_invalid_utf8_and_unknown_records_are_no_error(tmp_path: Path) -> None:
    data = FILE_HEADER
    bad_run = b"\x8a\x01\x04\x0a\x02\xff\xfe"  # field 17 (run) with a run_id that is no UTF-8
    for payload in (bad_run, b"\x22\x02\x08\x01", b"\xff\xff\xff", record("history", loss="1").SerializeToString()):
        data += frame(payload, len(data))
    path = tmp_path / "run-utf.wandb"
    path.write_bytes(data)
    log = read_run(path)
    assert log.history["loss",].values == [1]
    assert [loss.reason for loss in log.losses] == ["a record that cannot be decoded"] * 2


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlog, "MAX_KEYS", 3)
    path = written(tmp_path / "run-keys.wandb", started(), record("history", **{f"k{i}": "1" for i in range(5)}))
    log = read_run(path)
    assert len(log.history) == 3
    assert len(log.losses) == 2
    monkeypatch.setattr(runlog, "MAX_LOG_BYTES", 20_000)
    log = read_run(GOLDEN)
    assert 0 < len(log.steps) < 41
    assert log.losses[-1].reason == "what is beyond the size limit of a log"
    monkeypatch.setattr(frames, "MAX_RECORD_BYTES", 50_000)
    long = record("config", text=json.dumps("x" * 100_000))
    path = written(tmp_path / "run-long.wandb", started(), long, record("history", loss="1"))
    monkeypatch.setattr(runlog, "MAX_LOG_BYTES", 1 << 30)
    log = read_run(path)
    assert (log.config, log.history["loss",].values) == ({}, [1])
    assert log.losses[0].reason == "a record above the size limit"
