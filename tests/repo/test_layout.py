"""What stands in the repository, what must not, and the pages that say the same thing twice."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import conftest, readme
from tests.repo import tree

TOP_LEVEL = {
    "pyproject.toml",
    "nbs",
    "lib",
    "pipelines",
    "tests",
    "environment.yml",
    "settings.ini",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "constraints.txt",
    "bench",
}
REQUIRED = TOP_LEVEL - {"bench"} | {".ci", ".github", ".gitignore"}
MAX_FILE_BYTES = 600_000
PIPELINE_FILES = ("README.md", "pipeline.yaml", "env.yaml", "env.test.yaml", "contract.toml")
# Written in two parts, so that this file is not the first to be found.
FOREIGN = [
    *("/" + folder + "/" for folder in ("tmp", "work", "root", "opt")),
    *(name + domain for name, domain in [("pypi", ".org"), ("pythonhosted", ".org"), ("anaconda", ".org")]),
    *(name + domain for name, domain in [("npmjs", ".org"), ("npmjs", ".com"), ("download.pytorch", ".org")]),
    *(name + domain for name, domain in [("unpkg", ".com"), ("jsdelivr", ".net")]),
    *(option + "-url" for option in ("index", "extra-index")),
    "find" + "-links",
]
PLATFORM_BUILDS = ("nvidia-", "triton", "cuda-")  # what torch brings along on a machine with a GPU build


def requirements(*extras: str) -> list[str]:
    "pyproject.toml's dependencies, and those of `extras`, as written."
    project = tomllib.loads((tree.ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]


def test_top_level_holds_what_is_allowed() -> None:
    present = {path.relative_to(tree.ROOT).parts[0] for path in tree.project_files()}
    assert {name for name in present - TOP_LEVEL if not name.startswith(".")} == set()
    assert REQUIRED - present == set()


def test_notebook_folder_holds_notebooks_and_pictures() -> None:
    inside = [path.relative_to(tree.ROOT / "nbs") for path in tree.project_files() if tree.ROOT / "nbs" in path.parents]
    tree.expect_none(
        f"nbs/{path}: neither a notebook nor a picture in nbs/images"
        for path in inside
        if path.suffix != ".ipynb" and not (path.parts[0] == "images" and path.suffix in (".png", ".svg"))
    )


def foreign_words(paths: Iterable[Path]) -> Iterator[str]:
    "Where a file names a folder of some machine, or the host of a package registry."
    pattern = re.compile("|".join(re.escape(word) for word in FOREIGN))
    for path in paths:
        for number, line in enumerate(path.read_bytes().decode("utf-8", errors="ignore").splitlines(), start=1):
            if (found := pattern.search(line)) and path.suffix != ".png":
                yield f"{path.name}:{number}: {found[0]}"


def test_no_file_names_a_machine_or_a_registry() -> None:
    tree.expect_none(foreign_words(tree.project_files()))


@pytest.mark.parametrize("word", FOREIGN)
def test_a_foreign_word_is_found(tmp_path: Path, word: str) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"fine\nsee {word}here\n")
    assert list(foreign_words([file])) == [f"page.md:2: {word}"]


def test_no_file_is_large() -> None:
    sizes = {str(path.relative_to(tree.ROOT)): path.stat().st_size for path in tree.project_files()}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_BYTES} == {}


def test_readme_is_the_index_notebook() -> None:
    assert (tree.ROOT / "README.md").read_text() == readme.rendered(tree.ROOT / "nbs" / "index.ipynb"), (
        "run: make export"
    )


def test_readme_pictures_and_links_exist() -> None:
    links = re.findall(r"\]\(([^)#\s]+)|src=\"([^\"]+)\"", (tree.ROOT / "README.md").read_text())
    targets = [first or second for first, second in links]
    assert targets
    tree.expect_none(f"README.md links to {t}" for t in targets if "://" not in t and not (tree.ROOT / t).exists())


def test_environment_lists_what_pyproject_lists() -> None:
    environment = yaml.safe_load((tree.ROOT / "environment.yml").read_text())
    (pip,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    (editable,) = [line for line in pip if line.startswith("--editable")]
    extras = editable[editable.index("[") + 1 : editable.index("]")].split(",")
    assert pip[0] == "--constraint constraints.txt"
    assert sorted(line for line in pip if not line.startswith("--")) == sorted(requirements(*extras))


def pins() -> dict[str, str]:
    lines = (tree.ROOT / "constraints.txt").read_text().splitlines()
    found = [
        re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line) for line in lines if not line.startswith("#")
    ]
    assert all(found), "a line of constraints.txt is not name==version"
    names = [canonicalize_name(match[1]) for match in found if match]
    assert len(names) == len(set(names)), "a name is pinned twice"
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def closure(texts: Iterable[str]) -> Iterator[Requirement]:
    "Every requirement that installing `texts` leads to here, as the installed packages state them."
    waiting, seen = [(Requirement(text), "") for text in texts], set()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        yield requirement
        for inner in {"", *requirement.extras}:
            if (name, inner) not in seen and name != "tidebook":
                seen.add((name, inner))
                waiting += [(Requirement(text), inner) for text in metadata.requires(name) or []]


def test_constraints_pin_everything_that_setup_installs() -> None:
    pinned = pins()
    listed = [text for text in requirements("lab", "train", "onnx", "dev") if not text.startswith("tidebook")]
    for requirement in closure(listed):
        name = canonicalize_name(requirement.name)
        if not name.startswith(PLATFORM_BUILDS):
            assert name in pinned, f"{name} is installed and not pinned"
    for text in listed:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


def test_what_is_installed_is_what_is_pinned() -> None:
    here = {canonicalize_name(d.name): d.version.split("+")[0] for d in metadata.distributions()}
    differing = {name: (here[name], version) for name, version in pins().items() if here.get(name, version) != version}
    assert differing == {}, "installed and pinned; run: make setup"


PIPELINES = sorted(path.parent for path in tree.ROOT.glob("pipelines/*/pipeline.yaml"))


def test_every_pipeline_folder_is_a_pipeline() -> None:
    folders = {path.parts[-2] for path in tree.project_files() if path.parent.parent == tree.ROOT / "pipelines"}
    assert folders == {folder.name for folder in PIPELINES} != set()


@pytest.mark.parametrize("folder", PIPELINES, ids=lambda folder: folder.name)
def test_pipeline_folder_is_complete(folder: Path) -> None:
    assert [name for name in PIPELINE_FILES if not (folder / name).is_file()] == []
    assert yaml.safe_load((folder / "env.test.yaml").read_text())["run_key"] == "test"
    for task in yaml.safe_load((folder / "pipeline.yaml").read_text())["tasks"]:
        assert (folder / task["source"]).is_file()
        for product in task["product"].values() if isinstance(task["product"], dict) else [task["product"]]:
            assert "{{run_key}}" in product.replace(" ", ""), f"{task['source']}: {product} is the same for every run"


def test_a_change_to_the_projects_store_is_noticed(tmp_path: Path) -> None:
    store = tmp_path / ".tidebook"
    products = tmp_path / "pipelines" / "flights" / "products"
    for folder in (store, products):
        folder.mkdir(parents=True)
        (folder / "kept").write_text("1")
        (folder / "edited").write_text("1")
        (folder / "deleted").write_text("1")
    before = conftest.project_state(tmp_path)
    assert conftest.changes(before, conftest.project_state(tmp_path)) == []
    (store / "deleted").unlink()
    (store / "edited").write_text("22")
    (products / "new").write_text("1")
    assert conftest.changes(before, conftest.project_state(tmp_path)) == [
        "removed: .tidebook/deleted",
        "changed: .tidebook/edited",
        "added: pipelines/flights/products/new",
    ]


def test_make_lists_its_commands() -> None:
    makefile = (tree.ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    done = tree.ran("make")
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", done.stdout, re.MULTILINE))
    assert set(listed) == set(phony.split())
