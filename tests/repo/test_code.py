"""Style, types, imports and unsafe habits of the code."""

import ast
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.repo import tree

LIBRARY = tree.ROOT / "lib" / "tidebook"
MAX_IMPORT_RATIO = 15  # against an interpreter that does nothing
HELP = "import sys; sys.argv = ['tidebook', '--help']; from tidebook.cli.main import main; main()"
START_UPS = {"import tidebook": "import tidebook", "tidebook --help": HELP}

# In code that runs: what would execute a file, or show text as markup.
UNSAFE_CALLS = re.compile(r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|allow_html\s*=\s*True|widgets\.HTML\(")
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_SCRIPT = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|\beval\(|new Function|javascript:|"
    r"https?://(?!www\.w3\.org/)|@import\b|url\(\s*['\"]?(?!data:|#)"
)


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff(command: tuple[str, ...]) -> None:
    done = tree.ran("ruff", *command, "nbs", "pipelines", "tests")
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)


def test_types_are_strict() -> None:
    done = tree.ran("mypy")
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)


def test_types_are_really_checked(tmp_path: Path) -> None:
    root = tree.copied(tmp_path, ["pyproject.toml"])
    module = root / "lib" / "tidebook" / "wrong.py"
    module.parent.mkdir(parents=True)
    module.write_text("def half(x: int) -> int:\n    return x / 2\n\n\ndef untyped(x): ...\n")
    done = tree.ran("mypy", cwd=root)
    assert "[return-value]" in done.stdout or "[no-any-return]" in done.stdout, done.stdout
    assert "[no-untyped-def]" in done.stdout, done.stdout


def unsafe_python(text: str, where: str) -> Iterator[str]:
    "Calls and imports in `text` that load code from files, or show text as markup."
    module = ast.parse(text)
    for node in ast.walk(module):
        imported: list[str] = []
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported = [node.module or ""]
            if node.module == "ipywidgets" and any(alias.name in ("HTML", "HTMLMath") for alias in node.names):
                yield f"{where}:{node.lineno}: ipywidgets.HTML shows text as markup"
        elif isinstance(node, ast.Call):
            call = ast.unparse(node)
            if UNSAFE_CALLS.search(call[: len(ast.unparse(node.func)) + 1]) or any(
                UNSAFE_CALLS.search(ast.unparse(keyword)) for keyword in node.keywords
            ):
                yield f"{where}:{node.lineno}: {call}"
            if ast.unparse(node.func) == "torch.load" and "weights_only=True" not in call:
                yield f"{where}:{node.lineno}: torch.load without weights_only=True"
            if (
                ast.unparse(node.func) in ("yaml.load", "yaml.unsafe_load", "yaml.full_load")
                and "SafeLoader" not in call
            ):
                yield f"{where}:{node.lineno}: yaml is loaded without a safe loader"
        yield from (f"{where}: imports {name}" for name in imported if name.split(".")[0] in UNSAFE_MODULES)


def unsafe_script(text: str, where: str) -> Iterator[str]:
    "Lines of JavaScript or CSS that show text as markup, run text as code, or ask another host."
    for number, line in enumerate(text.splitlines(), start=1):
        if UNSAFE_SCRIPT.search(line):
            yield f"{where}:{number}: {line.strip()}"


def test_nothing_is_unpickled_or_shown_as_markup() -> None:
    modules = sorted(LIBRARY.rglob("*.py"))
    scripts = sorted([*LIBRARY.rglob("*.js"), *LIBRARY.rglob("*.css")])
    assert modules
    assert scripts
    found = [fault for path in modules for fault in unsafe_python(path.read_text(), path.name)]
    found += [fault for path in scripts for fault in unsafe_script(path.read_text(), path.name)]
    for path in tree.pipeline_notebooks():
        for cell in tree.cells(path):
            if cell["cell_type"] == "code":
                found += unsafe_python(tree.source(cell), path.name)
    tree.expect_none(found)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "from ipywidgets import HTML",
        "widgets.HTML(name)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "ITable(df, allow_html=True)",
        "yaml.load(text, Loader=yaml.Loader)",
    ],
)
def test_unsafe_python_is_found(text: str) -> None:
    assert len(list(unsafe_python(text, "x.py"))) >= 1


@pytest.mark.parametrize(
    "text", ["el.innerHTML = name", "fetch('https://example.org')", "@import 'a.css'", "eval(code)"]
)
def test_unsafe_scripts_are_found(text: str) -> None:
    assert len(list(unsafe_script(text, "x.js"))) == 1
    assert list(unsafe_script("el.textContent = name; ns('http://www.w3.org/2000/svg')", "x.js")) == []


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def loaded_modules(code: str) -> set[str]:
    "Top-level modules that are loaded once `code` has run."
    done = python(
        "import sys\ntry:\n    exec(" + repr(code) + ")\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


@pytest.mark.parametrize("code", START_UPS.values(), ids=START_UPS.keys())
def test_start_up_loads_the_standard_library_only(code: str) -> None:
    ours = loaded_modules(code) - loaded_modules("pass") - set(sys.stdlib_module_names) - {"tidebook"}
    assert ours == set()


@pytest.mark.parametrize("code", START_UPS.values(), ids=START_UPS.keys())
def test_start_up_is_quick(code: str) -> None:
    def seconds(code: str) -> float:
        begun = time.perf_counter()
        assert python(code).returncode == 0
        return time.perf_counter() - begun

    # The least of several: the machine may be busy, and both are measured in turns.
    pairs = [(seconds(code), seconds("pass")) for _ in range(5)]
    ratio = min(took for took, _ in pairs) / min(bare for _, bare in pairs)
    assert ratio < MAX_IMPORT_RATIO, f"{ratio:.1f} times an interpreter that does nothing"


def third_party_imports(path: Path) -> set[str]:
    "Top-level names imported anywhere in the module, without the standard library and tidebook."
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"tidebook", "__future__"}


def test_what_the_library_imports_is_declared() -> None:
    project = tomllib.loads((tree.ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: listed for name, listed in project["optional-dependencies"].items() if name != "dev"}
    listed = [*project["dependencies"], *(text for texts in extras.values() for text in texts)]
    declared = {canonicalize_name(Requirement(text).name) for text in listed}
    providers = metadata.packages_distributions()
    used = {(name, path.name) for path in LIBRARY.rglob("*.py") for name in third_party_imports(path)}
    tree.expect_none(
        f"{file} imports {name}, which pyproject.toml does not declare"
        for name, file in sorted(used)
        if not {canonicalize_name(dist) for dist in providers.get(name, [])} & declared
    )
