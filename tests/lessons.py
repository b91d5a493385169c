"""The library's notebooks show what they say: committed text outputs equal those of a new execution.

python -m tests.lessons [NOTEBOOK ...]              compare
python -m tests.lessons --refresh [NOTEBOOK ...]    write the new outputs
"""

import argparse
import copy
import difflib
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests import environment

ROOT = environment.ROOT
CELL_TIMEOUT_S = 300
KERNEL_TIMEOUT_S = 120
N_AT_ONCE = 2
_NOT_RUN = re.compile(r"^#\|\s*eval:\s*false\b", re.MULTILINE)
_SKIP_TAG = "lesson-is-not-run"
Notebook = Any  # nbformat.NotebookNode


def lessons(root: Path = ROOT) -> list[Path]:
    "Every notebook below nbs/ that is a lesson: all but scratch work."
    found = (path.relative_to(root / "nbs") for path in (root / "nbs").rglob("*.ipynb"))
    return [
        root / "nbs" / path
        for path in sorted(found)
        if path.parts[0] != "explore" and not any(part.startswith((".", "_")) for part in path.parts)
    ]


def read(path: Path) -> Notebook:
    import nbformat

    return nbformat.read(path, as_version=4)


def clean(notebook: Notebook) -> None:
    "Cleans as nbdev-clean does with this project's settings."
    from nbdev.clean import clean_nb

    clean_nb(notebook, allowed_cell_metadata_keys=["tags"])


def executed(notebook: Notebook) -> Notebook:
    "A cleaned copy with the outputs of a new execution, in a fresh kernel and an empty working directory."
    from nbclient import NotebookClient

    new = copy.deepcopy(notebook)
    for cell in new.cells:
        if cell.cell_type == "code" and _NOT_RUN.search(cell.source):
            cell.metadata.setdefault("tags", []).append(_SKIP_TAG)
    with tempfile.TemporaryDirectory(prefix="lesson-") as folder, tempfile.TemporaryDirectory(prefix="k-") as private:
        client = NotebookClient(
            new,
            timeout=CELL_TIMEOUT_S,
            startup_timeout=KERNEL_TIMEOUT_S,
            kernel_name="python3",
            skip_cells_with_tag=_SKIP_TAG,
            store_widget_state=False,
            resources={"metadata": {"path": folder}},
        )
        # Sockets in a private folder: no port can be taken twice, and nobody else on the machine can listen.
        manager = client.create_kernel_manager()
        manager.transport, manager.connection_file = "ipc", f"{private}/kernel.json"
        # A person's own IPython start-up files would take part in the lesson.
        client.execute(env=environment.with_changes({"IPYTHONDIR": private}))
    for cell in new.cells:
        if cell.cell_type == "code" and _SKIP_TAG in cell.metadata.get("tags", []):
            cell.metadata.tags.remove(_SKIP_TAG)
            if not cell.metadata.tags:
                del cell.metadata["tags"]
    clean(new)
    return new


def text(cell: Notebook) -> str:
    "The part of a cell's outputs that is compared: streams, text/plain, and what an error says."
    streams: dict[str, str] = {}
    results = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            streams[output.name] = streams.get(output.name, "") + output.text
        elif output.output_type == "error":
            results.append(f"{output.ename}: {output.evalue}")
        elif "text/plain" in output.data:
            results.append(output.data["text/plain"])
    parts = [*(f"[{name}] {streams[name]}" for name in sorted(streams)), *results]
    return "\n".join(part.rstrip("\n") for part in parts)


def differences(committed: Notebook, new: Notebook) -> Iterator[str]:
    "A readable diff for each cell whose text differs."
    for number, (old_cell, new_cell) in enumerate(zip(committed.cells, new.cells, strict=True), start=1):
        if old_cell.cell_type != "code" or text(old_cell) == text(new_cell):
            continue
        lines = difflib.unified_diff(
            text(old_cell).splitlines(), text(new_cell).splitlines(), "committed", "executed now", lineterm="", n=2
        )
        source = "\n".join(f"    {line}" for line in old_cell.source.strip().splitlines()[-6:])
        yield f"cell {number}:\n{source}\n" + "\n".join(lines)


def faults(path: Path) -> list[str]:
    "What is wrong with the lesson at `path`: nothing, cells whose text differs, or the error that stopped it."
    from nbclient.exceptions import CellExecutionError

    committed = read(path)
    try:
        new = executed(committed)
    except CellExecutionError as error:
        return [re.sub(r"\x1b\[[0-9;]*m", "", str(error))]
    return list(differences(committed, new))


def refresh(path: Path) -> list[str]:
    "Writes new outputs to `path`; returns the differences that this made, or the error that prevented it."
    from nbclient.exceptions import CellExecutionError
    from nbdev.clean import write_nb

    committed = read(path)
    try:
        new = executed(committed)
    except CellExecutionError as error:
        raise SystemExit(f"{path.relative_to(ROOT)} fails, and nothing of it was written:\n{error}") from None
    write_nb(new, path)
    return list(differences(committed, new))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lessons", description=__doc__.splitlines()[0])
    parser.add_argument("--refresh", action="store_true", help="write the new outputs")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook of the library")
    options = parser.parse_args(arguments)
    environment.apply()
    paths = [path.resolve() for path in options.notebooks] or lessons()
    n_different = 0
    with ThreadPoolExecutor(N_AT_ONCE) as pool:
        for path, found in zip(paths, pool.map(refresh if options.refresh else faults, paths), strict=True):
            n_different += bool(found)
            print(f"{path.relative_to(ROOT)}: {'differs' if found else 'as committed'}", flush=True)
            for difference in found:
                print(difference, end="\n\n")
    print(f"{len(paths)} lessons, {n_different} {'refreshed' if options.refresh else 'different'}")
    return 1 if n_different and not options.refresh else 0


if __name__ == "__main__":
    sys.exit(main())
