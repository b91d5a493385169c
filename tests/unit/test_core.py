"""Errors, ids, settings, objects and the catalog, against files, hashes and SQLite read by hand."""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import sqlite3
import string
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tidebook.core import errors, tables
from tidebook.core.catalog import Catalog, Version
from tidebook.core.clock import FixedClock
from tidebook.core.context import Record, recording
from tidebook.core.errors import (
    BadNameError,
    ColumnMissingError,
    ConflictError,
    DamagedFileError,
    DiskFullError,
    MissingExtraError,
    NewerFormatError,
    SettingsError,
    TidebookError,
    UnknownNameError,
    WrongUseError,
)
from tidebook.core.ids import canonical_json, check_json, check_name, digest_bytes, digest_json, new_id, run_key
from tidebook.core.objects import Objects, write_atomic
from tidebook.core.settings import Settings

MOMENT = datetime(2013, 4, 1, 12, tzinfo=UTC)


def opened(folder: Path) -> Catalog:
    return Catalog(folder / "catalog.db", Objects(folder / "objects"), clock=FixedClock(MOMENT), who="ana")


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    "What the catalog's file says to SQLite itself."
    connection = sqlite3.connect(folder / "catalog.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def parts(folder: Path) -> list[Path]:
    "Files that are still being written, or were left behind."
    return list(folder.rglob("*.part"))


# Errors


def test_a_message_has_its_parts_in_order_and_leaves_out_absent_ones() -> None:
    error = TidebookError("Wrong", found=0, allowed="one", do="this", row=3)
    assert str(error) == "Wrong. Found: 0. Allowed: one. Do: this."
    assert (error.problem, error.found, error.allowed, error.do, error.row) == ("Wrong", 0, "one", "this", 3)
    assert str(TidebookError("Wrong")) == "Wrong."
    assert str(TidebookError("Wrong", do="did you mean 'x'?")) == "Wrong. Do: did you mean 'x'?"


def test_exit_codes_follow_the_tree() -> None:
    every = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TidebookError)]
    codes = {kind.__name__: kind.exit_code for kind in every}
    assert {name for name, code in codes.items() if code == 2} == {
        "WrongUseError",
        "SettingsError",
        "UnknownNameError",
        "BadNameError",
        "MissingExtraError",
    }
    assert {name for name, code in codes.items() if code == 3} == {"GateRefusedError"}
    assert set(codes.values()) == {1, 2, 3}


def test_the_tree_at_the_top_of_the_module_is_the_tree() -> None:
    drawn = {line.strip("│├└─ ").split()[0] for line in (errors.__doc__ or "").splitlines() if "Error" in line}
    real = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, TidebookError)}
    assert drawn == real


def test_an_unknown_name_lists_what_exists_and_the_closest() -> None:
    error = UnknownNameError.of("dataset", "flihgts", known=["flights", "weather"])
    assert str(error) == "There is no dataset 'flihgts'. Allowed: flights, weather. Do: did you mean 'flights'?"
    assert (error.name, error.known) == ("flihgts", ["flights", "weather"])
    many = UnknownNameError.of("dataset", "zzz", known=[f"d{i}" for i in range(15)], do="look")
    assert "and 3 more" in str(many)
    assert many.do == "look"


def test_a_missing_column_names_its_likely_new_name() -> None:
    error = ColumnMissingError.of(["dep_time"], have=["dep_tme", "carrier"])
    assert (error.missing, error.have) == (["dep_time"], ["dep_tme", "carrier"])
    assert "'dep_time' may now be called 'dep_tme'" in str(error)


def test_a_missing_package_says_what_to_type() -> None:
    with pytest.raises(MissingExtraError) as caught:
        errors.require("no_such_package_here", "lab")
    assert 'pip install "tidebook[lab]"' in str(caught.value)
    assert errors.require("json", "lab") is json


# Ids


def test_canonical_json_is_one_spelling() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    assert digest_json({"b": 1, "a": 2}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), {"day": MOMENT}, {"text": "\ud800"}, {"set": {1}}])
def test_what_json_cannot_spell_is_wrong_use(value: object) -> None:
    with pytest.raises(WrongUseError, match="The facts cannot be written as JSON"):
        check_json("The facts", value)


def test_run_keys_tell_parameters_apart_and_are_safe_in_a_path() -> None:
    assert run_key({}) == "default"
    one = run_key({"month": "2013-04"})
    assert one.startswith("2013-04-")
    assert one.endswith(hashlib.sha256(b'{"month":"2013-04"}').hexdigest()[:8])
    assert run_key({"a": 1, "b": 2}) == run_key({"b": 2, "a": 1})
    drawn = random.Random(5)
    hostile = ["../../etc/passwd", "a/b", "x" * 300, "", "\x00", "..", "-rf", "é\u202e", "con:"]
    hostile += ["".join(drawn.choices(string.printable, k=drawn.randrange(40))) for _ in range(200)]
    keys = {value: run_key({"value": value}) for value in hostile}
    assert len(set(keys.values())) == len(keys)
    for key in keys.values():
        assert set(key) <= set(string.ascii_letters + string.digits + ".-")
        assert len(key) <= 41
        assert not key.startswith((".", "-"))
        assert Path("products", key).resolve().parent == Path("products").resolve()


def test_ids_are_not_repeated() -> None:
    found = {new_id() for _ in range(2000)}
    assert len(found) == 2000
    assert all(len(name) == 12 and name.isalnum() for name in found)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " a",
        "a ",
        "a@b",
        "x" * 201,
        "x" * 300,
        "a\nb",
        "a\x00",
        "a\x1b[31m",
        "a\u202eb",
        "a\u2066b",
        "a\u2028",
        "\ud800",
    ],
)
def test_names_that_cannot_be_kept_or_that_deceive_are_refused(name: str) -> None:
    with pytest.raises(BadNameError) as caught:
        check_name(name)
    assert caught.value.name == name
    assert len(str(caught.value)) < 400
    assert not set(str(caught.value)) & set("\n\x00\x1b\u202e\u2066\u2028\ud800")


@pytest.mark.parametrize("name", ["..", ".", "/etc/passwd", "a/../../b", "x" * 200, "$HOME", "Flüge 2013", "🌊"])
def test_a_name_is_a_key_and_never_part_of_a_path(name: str, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    catalog = opened(tmp_path / "a" / "b" / "store")
    version = catalog.commit("dataset", name, {"rows": 1})
    assert catalog.resolve("dataset", version.ref).name == name
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(tmp_path / "a" / "b" / "store") for path in made)
    assert not [path for path in made if name.strip("./") and name in path.name]


def test_two_spellings_of_a_letter_are_one_name(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    composed, apart = unicodedata.normalize("NFC", "größe"), unicodedata.normalize("NFD", "größe")
    assert composed != apart
    catalog.commit("dataset", composed, {"rows": 1})
    catalog.commit("dataset", apart, {"rows": 2})
    catalog.set_alias("dataset", apart, apart, 1)
    assert [version.number for version in catalog.versions("dataset")] == [1, 2]
    assert catalog.resolve("dataset", f"{apart}@{apart}").number == 1
    assert catalog.resolve("dataset", f"{composed}@{composed}").number == 1


# Settings


def settings(folder: Path, text: str, **environment: str) -> Settings:
    (folder / "settings.ini").write_text(text, encoding="utf-8")
    return Settings.read(folder, environment)


def test_without_a_file_every_default_holds(tmp_path: Path) -> None:
    found = Settings.read(tmp_path, {})
    assert (found.project.name, found.store.path, dict(found.monitors), dict(found.gates)) == (
        "project",
        ".tidebook",
        {},
        {},
    )


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    text = "[store]\npath = a\n[monitor.delay]\nthreshold = 0.3\n"
    found = settings(
        tmp_path,
        text,
        TIDEBOOK__STORE__PATH="/b",
        TIDEBOOK__MONITOR__DELAY__THRESHOLD="0.4",
        TIDEBOOK__GATE__NEW__MIN_AUC="0.7",
    )
    assert (found.store.path, found.monitors["delay"].threshold, found.gates["new"].min_auc) == ("/b", 0.4, 0.7)
    assert settings(tmp_path, text).monitors["delay"].threshold == 0.3


def test_per_cent_and_dollar_have_no_meaning(tmp_path: Path) -> None:
    found = settings(tmp_path, "[project]\nname = 10% of $HOME\nowner = %(name)s\n")
    assert (found.project.name, found.project.owner) == ("10% of $HOME", "%(name)s")


def test_only_tidebook_variables_are_expanded(tmp_path: Path) -> None:
    assert settings(tmp_path, "[store]\npath = ${TIDEBOOK_X}/s\n", TIDEBOOK_X="/data").store.path == "/data/s"
    text = "[store]\npath = ${HOME}/s\n[project]\nname = ${TIDEBOOK_X}\n"
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, text, HOME="/home/ana")
    assert caught.value.faults == [
        "${HOME} is not expanded, only variables that begin with TIDEBOOK_ are",
        "${TIDEBOOK_X} is not set in the environment",
    ]
    assert "/home/ana" not in str(caught.value)


def test_every_fault_is_told_at_once_with_the_closest_word(tmp_path: Path) -> None:
    text = "[stor]\npath = a\n[store]\npaht = a\n[monitor.delay]\nthreshold = 10%\n[gate.x]\ncolour = red\n"
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, text, TIDEBOOK__PROJECT__NMAE="x")
    told = str(caught.value)
    assert len(caught.value.faults) == 5
    assert "unknown section [stor] (did you mean 'store'?)" in told
    assert "unknown key 'paht' in [store] (did you mean 'path'?)" in told
    assert "[monitor.delay] threshold must be a number, found '10%'" in told
    assert "unknown key 'colour' in [gate.x] (known: min_auc" in told
    assert "unknown key 'nmae' in [project] (did you mean 'name'?)" in told
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["path = a\n", "[store]\npath = a\npath = b\n", "[store\n", "[DEFAULT]\npath = a\n"])
def test_a_file_that_is_no_settings_file_is_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"settings\.ini"):
        settings(tmp_path, text)


# Objects


def test_equal_bytes_are_kept_once_under_their_sha256(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    digest = objects.put_bytes(b"tide")
    assert digest == hashlib.sha256(b"tide").hexdigest()
    first = (tmp_path / digest[:2] / digest[2:]).stat()
    assert objects.put_bytes(b"tide") == digest
    again = (tmp_path / digest[:2] / digest[2:]).stat()
    assert (first.st_ino, first.st_mtime_ns) == (again.st_ino, again.st_mtime_ns)
    assert first.st_mode & 0o777 == 0o444
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [digest[2:]]


def test_damage_is_found_and_mended_by_storing_again(tmp_path: Path) -> None:
    digest = Objects(tmp_path).put_bytes(b"tide")
    place = tmp_path / digest[:2] / digest[2:]
    place.chmod(0o644)
    place.write_bytes(b"tibe")
    objects = Objects(tmp_path)
    with pytest.raises(DamagedFileError) as caught:
        objects.read_bytes(digest)
    assert digest[:12] in str(caught.value)
    assert str(place) in caught.value.do
    assert objects.put_bytes(b"tide") == digest
    assert objects.read_bytes(digest) == b"tide"


def test_damage_after_the_first_read_is_found_too(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    digest = objects.put_bytes(b"tide")
    assert objects.read_bytes(digest) == b"tide"
    place = tmp_path / digest[:2] / digest[2:]
    place.chmod(0o644)
    place.write_bytes(b"ti")
    with pytest.raises(DamagedFileError):
        objects.path(digest)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES])
def test_a_failing_write_leaves_nothing_behind(number: int, tmp_path: Path) -> None:
    def failing(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    expected = OSError if number == errno.EACCES else DiskFullError
    with pytest.raises(expected):
        Objects(tmp_path).stage(failing, "dataset 'a'")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Objects(tmp_path).stage(interrupted)
    assert parts(tmp_path) == []


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "a.json", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"a\.json"):
        write_atomic(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"old"
    assert parts(tmp_path) == []


@pytest.mark.parametrize("digest", ["", "..", "../" * 30, "A" * 64, "a" * 63, "a" * 65, "z" * 64, "a" * 63 + "\n"])
def test_what_is_no_digest_reads_no_file(digest: str, tmp_path: Path) -> None:
    objects = Objects(tmp_path / "objects")
    for ask in (objects.path, objects.has, objects.read_bytes):
        with pytest.raises(UnknownNameError, match="not a digest"):
            ask(digest)
    with pytest.raises(UnknownNameError, match="no object"):
        objects.path("a" * 64)


# Catalog


def commit_many(folder: Path, start: "multiprocessing.synchronize.Barrier", writer: int) -> None:
    catalog = opened(folder)
    start.wait()
    for i in range(25):
        version = catalog.commit("dataset", "flights", {"writer": writer, "i": i}, why=f"{writer}-{i}")
        assert version.manifest == {"writer": writer, "i": i}
        catalog.commit("dataset", f"own {writer}", {"i": i})


def test_numbers_have_no_gap_with_four_writers(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(4, timeout=60)
    writers = [spawn.Process(target=commit_many, args=(tmp_path, start, i), daemon=True) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    catalog = opened(tmp_path)
    versions = catalog.versions("dataset", "flights")
    assert [version.number for version in versions] == list(range(1, 101))
    assert {(v.manifest["writer"], v.manifest["i"]) for v in versions} == {(w, i) for w in range(4) for i in range(25)}
    for writer_number in range(4):
        own = [v.manifest["i"] for v in versions if v.manifest["writer"] == writer_number]
        assert own == sorted(own)
        assert len(catalog.versions("dataset", f"own {writer_number}")) == 25
    events = catalog.events()
    assert [event.sequence for event in events] == list(range(1, 201))
    assert len(list((tmp_path / "events").glob("*.json"))) == 200
    assert rows(tmp_path, "SELECT count(*) FROM outbox UNION ALL SELECT count(*) FROM intent") == [(0,), (0,)]
    assert parts(tmp_path) == []


def test_the_same_content_is_the_same_version(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    first = catalog.commit("dataset", "a", {"x": 1, "y": 2}, facts={"rows": 3}, why="first")
    again = catalog.commit("dataset", "a", {"y": 2, "x": 1}, facts={"rows": 4}, why="again")
    assert (again, len(catalog.events())) == (first, 1)
    assert catalog.commit("dataset", "a", {"x": 2}).number == 2
    assert catalog.commit("dataset", "a", {"x": 1, "y": 2}).number == 3  # equal to an older one, not to the latest
    assert first.digest == hashlib.sha256(b'{"x":1,"y":2}').hexdigest()
    assert first.created_at == MOMENT
    assert catalog.commit("model", "a", {"x": 2}).number == 1  # another kind


def test_references_mean_numbers_aliases_and_the_latest(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    for i in range(3):
        catalog.commit("model", "delay", {"i": i})
    catalog.set_alias("model", "delay", "champion", 2)
    meant = {ref: catalog.resolve("model", ref).number for ref in ("delay", "delay@latest", "delay@champion")}
    assert meant == {"delay": 3, "delay@latest": 3, "delay@champion": 2}
    assert [catalog.resolve("model", f"delay@v{i}").manifest["i"] for i in (1, 2, 3)] == [0, 1, 2]
    for ref in ("delay@v4", "delay@v0", "delay@", "delay@challenger", "delay@v" + "9" * 5000, "delay@v-1"):
        with pytest.raises(UnknownNameError, match="v3, v2, v1, latest, champion"):
            catalog.resolve("model", ref)
    with pytest.raises(UnknownNameError, match="did you mean 'delay'"):
        catalog.resolve("model", "dealy")
    with pytest.raises(UnknownNameError):
        catalog.resolve("dataset", "delay")


@pytest.mark.parametrize("alias", ["v3", "V12", "latest", "2013-04-01", "20130401ab", "deadbeef", "a@b", ""])
def test_an_alias_cannot_look_like_something_else(alias: str, tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    catalog.commit("model", "delay", {})
    with pytest.raises(WrongUseError):
        catalog.set_alias("model", "delay", alias, 1)
    assert catalog.aliases("model", "delay") == {}


def test_moving_an_alias_says_who_when_why_and_from_where(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    for i in range(2):
        catalog.commit("model", "delay", {"i": i}, why=f"try {i}")
    catalog.set_alias("model", "delay", "champion", 1)
    catalog.set_alias("model", "delay", "champion", 2, why="better", evidence={"auc": 0.73})
    catalog.set_alias("model", "delay", "champion", 2, why="nothing changes")
    with pytest.raises(UnknownNameError):
        catalog.set_alias("model", "delay", "champion", 3)
    last = catalog.events("model", "delay")[-1]
    assert last._asdict() == {
        "sequence": 4,
        "kind": "model",
        "name": "delay",
        "number": 2,
        "action": "alias",
        "at": "2013-04-01T12:00:00+00:00",
        "who": "ana",
        "why": "better",
        "evidence": {"auc": 0.73, "alias": "champion", "before": 1},
    }
    assert catalog.aliases("model", "delay") == {"champion": 2}


def test_what_is_opened_while_something_is_recorded_becomes_lineage(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    flights = catalog.commit("dataset", "flights", {"x": 1})
    weather = catalog.commit("dataset", "weather", {"x": 2})
    catalog.open("dataset", "weather")  # nothing is recorded yet
    with recording(Record("task", "features-1")):
        for _ in range(2):
            catalog.open("dataset", "flights")
        made = catalog.commit("dataset", "rows", {"x": 3}, inputs=[weather, flights])
    alone = catalog.commit("dataset", "alone", {"x": 4})
    refs = [(item.kind, item.ref, item.digest) for item in catalog.inputs(made)]
    assert refs == [("dataset", "flights@v1", flights.digest), ("dataset", "weather@v1", weather.digest)]
    assert catalog.inputs(alone) == []
    assert catalog.events("dataset", "rows")[0].evidence["inputs"][0]["input_name"] == "flights"


def test_building_on_an_old_version_is_a_conflict(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    catalog.commit("dataset", "a", {"x": 1}, after=0)
    catalog.commit("dataset", "a", {"x": 2}, after=1)
    for after in (0, 1, 3):
        with pytest.raises(ConflictError, match="v2"):
            catalog.commit("dataset", "a", {"x": 9}, after=after)
    assert catalog.resolve("dataset", "a").manifest == {"x": 2}


@pytest.mark.parametrize(
    "said",
    [{"facts": {"auc": float("nan")}}, {"facts": {"day": MOMENT}}, {"why": "\ud800"}, {"facts": {"text": "\ud800"}}],
)
def test_what_cannot_be_written_down_is_refused_and_the_store_stays_usable(
    said: dict[str, object], tmp_path: Path
) -> None:
    catalog = opened(tmp_path)
    kept = catalog.commit("model", "delay", {"x": 1})
    staged = catalog.objects.stage(lambda path: path.write_bytes(b"weights"))
    with pytest.raises(WrongUseError, match="JSON"):
        catalog.commit("model", "delay", {"x": 2}, staged=[staged], **said)  # type: ignore[arg-type]
    with pytest.raises(WrongUseError, match="JSON"):
        catalog.commit("model", "delay", {"x": float("inf")})
    with pytest.raises(WrongUseError, match="JSON"):
        catalog.set_alias("model", "delay", "champion", 1, evidence={"auc": float("nan")})
    assert opened(tmp_path).versions("model") == [kept]
    assert parts(tmp_path) == []


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    opened(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "catalog.db")
    connection.execute("UPDATE format SET number = ?", (tables.FORMAT + 1,))
    connection.commit()
    connection.close()
    with pytest.raises(NewerFormatError, match="newer tidebook"):
        opened(tmp_path)
    assert rows(tmp_path, "SELECT number FROM format") == [(tables.FORMAT + 1,)]


def event_files(folder: Path) -> dict[int, dict[str, object]]:
    "Sequence -> what the event's own file says; the digest in its name is checked."
    found = {}
    for path in sorted((folder / "events").iterdir()):
        sequence, digest = path.stem.split("-")
        assert digest == digest_bytes(path.read_bytes())
        found[int(sequence)] = json.loads(path.read_bytes())
    return found


def test_every_event_gets_its_file_also_after_a_kill_before_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = opened(tmp_path)
    catalog.commit("dataset", "a", {"x": 1})
    with monkeypatch.context() as patched:
        patched.setattr(Catalog, "_flush_events", lambda self: None)
        catalog.commit("dataset", "a", {"x": 2}, why="killed here")
        catalog.set_alias("dataset", "a", "good", 2)
    assert set(event_files(tmp_path)) == {1}
    assert rows(tmp_path, "SELECT sequence FROM outbox ORDER BY 1") == [(2,), (3,)]
    reopened = opened(tmp_path)
    assert set(event_files(tmp_path)) == {1, 2, 3}
    assert rows(tmp_path, "SELECT count(*) FROM outbox") == [(0,)]
    assert [json.loads(json.dumps(event._asdict())) for event in reopened.events()] == list(
        event_files(tmp_path).values()
    )


def test_a_commit_that_is_made_is_acknowledged_although_its_event_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = opened(tmp_path)

    def full(path: Path, data: bytes) -> None:
        raise DiskFullError("There is no room")

    with monkeypatch.context() as patched:
        patched.setattr("tidebook.core.catalog.write_atomic", full)
        assert catalog.commit("dataset", "a", {"x": 1}).number == 1
        assert opened(tmp_path).resolve("dataset", "a").number == 1  # reading needs no room
    assert catalog.commit("dataset", "a", {"x": 2}).number == 2
    assert set(event_files(tmp_path)) == {1, 2}


def test_records_are_found_by_key_and_subject_newest_first(tmp_path: Path) -> None:
    catalog = opened(tmp_path)
    for i in range(4):
        catalog.add_record("task", f"key {i % 2}", "flights/score", {"i": i})
    catalog.add_record("execution", "key 0", "flights", {"i": 9})
    assert [record.body["i"] for record in catalog.records("task")] == [3, 2, 1, 0]
    assert [record.body["i"] for record in catalog.records("task", key="key 0")] == [2, 0]
    assert [record.body["i"] for record in catalog.records("task", subject="flights/score", limit=2)] == [3, 2]
    assert catalog.records("task", subject="flights") == []


def test_a_user_without_a_name_can_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", unknown)
    catalog = Catalog(tmp_path / "catalog.db", Objects(tmp_path / "objects"))
    catalog.commit("dataset", "a", {})
    assert catalog.events()[0].who == f"user {os.getuid()}"


def test_a_version_shows_itself_in_one_line() -> None:
    version = Version("dataset", "flights", 3, "0" * 64, MOMENT, manifest={"chunks": ["x"] * 1000})
    assert repr(version) == "dataset flights@v3"
