"""A disk that is really full: a clear error, nothing half-written, and work goes on when there is room."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tidebook.core.catalog import Catalog
from tidebook.core.errors import DiskFullError
from tidebook.core.objects import Objects
from tidebook.data.datasets import Datasets

from tests import environment, tiny


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    "A file system of 4 MB."
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk; the limit on file sizes is tested below")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, n_free_bytes: int) -> None:
    "Leaves no more than that much room."
    (disk / "filler").unlink(missing_ok=True)
    room = os.statvfs(disk)
    (disk / "filler").write_bytes(b"x" * max(0, room.f_bavail * room.f_frsize - n_free_bytes))


def opened(folder: Path) -> Datasets:
    return Datasets(Catalog(folder / "catalog.db", Objects(folder / "objects"), who="ana"))


def noise(n_rows: int, seed: int = 0) -> pl.DataFrame:
    return pl.DataFrame({"x": np.random.default_rng(seed).random(n_rows)})


def test_a_table_that_does_not_fit_is_refused_and_nothing_of_it_stays(small_disk: Path) -> None:
    data = opened(small_disk / "store")
    data.commit("small", noise(10))
    with pytest.raises(DiskFullError, match="no room to write dataset 'big'"):
        data.commit("big", noise(1_000_000))
    assert data.catalog.names("dataset") == ["small"]
    assert list(small_disk.rglob("*.part")) == []
    assert data.commit("big", noise(1000)).number == 1


def test_with_any_little_room_a_commit_is_made_or_refused(small_disk: Path) -> None:
    store = small_disk / "store"
    data = opened(store)
    kept = {data.commit("rows", noise(10)).number: noise(10)}
    outcomes = set()
    for step, n_free_bytes in enumerate([*range(0, 80_000, 4096), 120_000, 200_000, 400_000], start=1):
        fill(small_disk, n_free_bytes)
        frame = noise(50, seed=step)
        try:
            kept[data.commit("rows", frame).number] = frame
            outcomes.add("made")
        except DiskFullError as error:
            outcomes.add("refused" if "free some room and run the same command again" in error.do else str(error))
        assert [version.number for version in data.catalog.versions("dataset")] == list(kept) == sorted(kept)
        assert list(small_disk.rglob("*.part")) == []
        assert data.load("rows").collect().equals(kept[max(kept)])
    assert outcomes == {"made", "refused"}
    data.catalog.close()
    (small_disk / "filler").unlink()
    data = opened(store)
    kept[data.commit("rows", noise(77)).number] = noise(77)
    assert list(kept) == list(range(1, len(kept) + 1))
    for number, frame in kept.items():
        assert data.load(f"rows@v{number}").collect().equals(frame)
    assert len(list((store / "events").glob("*.json"))) == len(data.catalog.events()) == len(kept)


def test_a_pipeline_on_a_full_disk_is_told_so_and_goes_on(small_disk: Path) -> None:
    tiny.write_project(small_disk / "project")
    command = [environment.SCRIPTS / "tidebook", "run", "tiny"]
    for n_free_bytes in (0, 30_000):
        fill(small_disk, n_free_bytes)
        done = subprocess.run(command, cwd=small_disk / "project", capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert "There is no room" in done.stderr
        assert "Traceback" not in done.stderr
    (small_disk / "filler").unlink()
    done = subprocess.run(command, cwd=small_disk / "project", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(command, cwd=small_disk / "project", capture_output=True, text=True, timeout=120)
    assert "nothing changed: all 2 tasks kept" in done.stdout


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
import polars as pl
from tidebook.core.catalog import Catalog
from tidebook.core.errors import DiskFullError
from tidebook.core.objects import Objects
from tidebook.data.datasets import Datasets

store = Path(sys.argv[1])
data = Datasets(Catalog(store / "catalog.db", Objects(store / "objects"), who="ana"))
small = pl.DataFrame({"x": np.random.default_rng(0).random(10)})
big = pl.DataFrame({"x": np.random.default_rng(0).random(200_000)})
data.commit("rows", small)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    data.commit("rows", big)
except DiskFullError as error:
    print(error)
assert [version.number for version in data.catalog.versions("dataset")] == [1]
assert not list(store.rglob("*.part"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
print(data.commit("rows", big).ref)
"""


def test_a_limit_on_file_sizes_is_met_like_a_full_disk(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    refused, ref = done.stdout.splitlines()
    assert refused.startswith("There is no room to write dataset 'rows'. Do: free some room")
    assert ref == "rows@v2"
    assert opened(tmp_path).load(ref).collect().height == 200_000
