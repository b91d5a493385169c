"""A trained project in a real Chromium: its report from disk, its panel and notebooks under `tidebook lab`."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.environment import ROOT, SCRIPTS, with_changes
from tests.flights import MONTHS, SMALL, copy_of, trained

PANEL = "from tidebook import Project\n\nProject.find().panel()"
LESSON = "nbs/40_stats/05_distances.ipynb"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A trained project of this module's own, with a notebook that shows the panel and one of the library's lessons."
    folder = copy_of(trained(tmp_path_factory).folder, tmp_path_factory.mktemp("browser") / "project")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PANEL)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "look.ipynb")
    (folder / LESSON).parent.mkdir(parents=True)
    shutil.copy(ROOT / LESSON, folder / LESSON)
    return folder


@pytest.fixture(scope="module")
def report(project: Path) -> Path:
    [path] = project.glob("pipelines/flights/products/*/report.html")
    return path


OpenPage = Callable[..., Page]


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_opens_from_disk(report: Path, open_page: OpenPage, watch: Watch, scheme: str, width: int) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    page.goto(report.as_uri())
    assert [url for url in watch.requests if not url.startswith("data:")] == [report.as_uri()]
    assert watch.errors == []
    expect(page.get_by_role("heading", level=1)).to_have_text("Will the flight be late?")
    first = page.locator("main h2").first
    expect(first).to_have_text("In short")
    expect(page.get_by_text("The model in use is delay@v1")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    pictures = page.locator("figure img")
    assert pictures.count() >= 4
    assert pictures.evaluate_all("all => all.every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    assert page.locator("details[open]").count() == 0
    assert page.get_by_text("left out of the report").count() == 0


def test_the_report_on_paper(report: Path, open_page: OpenPage, watch: Watch, tmp_path: Path) -> None:
    page = open_page(color_scheme="dark", viewport={"width": 680, "height": 1000})
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("details summary").evaluate_all("all => all.every(s => !s.checkVisibility())")
    edges = page.evaluate("[...document.querySelectorAll('table, img, pre')].map(e => e.getBoundingClientRect().right)")
    assert max(edges) <= page.evaluate("document.documentElement.clientWidth")
    assert page.pdf(path=tmp_path / "report.pdf", format="A4").startswith(b"%PDF-")
    assert [url for url in watch.requests if not url.startswith("data:")] == [report.as_uri()]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    "(address, token) of what `tidebook lab` starts for a user who has set nothing up."
    home = tmp_path_factory.mktemp("home")
    port, token = free_port(), secrets.token_hex(16)
    config = {"ServerApp": {"allow_root": True}, "LabApp": {"expose_app_in_browser": True}}  # what the test needs
    (home / "config").mkdir()
    for name in ("jupyter_server_config.json", "jupyter_lab_config.json"):
        (home / "config" / name).write_text(json.dumps(config))
    own = {"HOME": str(home), "IPYTHONDIR": str(home / "ipython"), "JUPYTER_CONFIG_DIR": str(home / "config")}
    own |= {"JUPYTER_DATA_DIR": str(home / "data"), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    line = [str(SCRIPTS / "tidebook"), "lab", "--no-browser", "--port", str(port)]
    log = home / "lab.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            line,
            cwd=project / "pipelines",  # anywhere in the project
            env=with_changes(SMALL | own | {"JUPYTER_TOKEN": token}),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
        while not is_up(f"{address}/api?token={token}"):
            assert process.poll() is None, f"`tidebook lab` ended:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"`tidebook lab` did not start in 90 s:\n{log.read_text()[-3000:]}"
            time.sleep(0.3)
        yield address, token
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # it ends its kernels; without it they end themselves
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(15)


CURRENT = "window.jupyterapp?.shell?.currentWidget"
STATE = f"""() => {{
    const cells = {CURRENT}.context.model.toJSON().cells.filter(cell => cell.cell_type === 'code')
    const errors = cells.flatMap(cell => cell.outputs).filter(output => output.output_type === 'error')
    return {{n: cells.length, ran: cells.filter(cell => cell.execution_count).length,
             errors: errors.map(error => `${{error.ename}}: ${{error.evalue}}`)}}
}}"""


class Lab:
    "JupyterLab in a browser."

    def __init__(self, page: Page, address: str, token: str) -> None:
        self.page, self.address, self.token = page, address, token

    def run(self, path: str) -> dict[str, object]:
        "Opens a notebook and runs all of it: how many code cells it has, how many ran, and their errors."
        self.page.goto(f"{self.address}/lab/tree/{path}?token={self.token}&reset", timeout=90_000)
        self.page.wait_for_function(f"{CURRENT}?.context?.isReady", timeout=90_000)
        self.page.wait_for_function(f"{CURRENT}.sessionContext?.session?.kernel?.status === 'idle'", timeout=90_000)
        self.page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.page.wait_for_function(
            f"(({STATE})().ran === ({STATE})().n) || ({STATE})().errors.length", timeout=120_000
        )
        return dict(self.page.evaluate(STATE))


@pytest.fixture
def lab(server: tuple[str, str], open_page: OpenPage, watch: Watch) -> Iterator[Lab]:
    "Whatever a test does in it: nothing leaves the machine, and nothing complains."
    page = open_page(viewport={"width": 1400, "height": 1300})
    page.set_default_timeout(20_000)
    yield Lab(page, *server)
    assert watch.outside == []
    assert watch.errors == []


def test_the_panel_shows_the_runs_and_the_drift_of_the_project(lab: Lab) -> None:
    assert lab.run("look.ipynb")["errors"] == []
    expect(lab.page.locator(".tb-panel[data-ready]")).to_have_count(2)
    runs = lab.page.get_by_role("group", name="Runs")
    expect(runs.locator("tbody tr")).to_have_count(4)
    for name in ("delay-boosted", "delay-network", "delay-boosted-long", "delay-network-long"):
        expect(runs.get_by_label(f"Show the curve of {name}", exact=True)).to_have_count(1)
    expect(runs.get_by_label("Metric")).to_have_value("validation_loss")  # every run has it
    expect(runs.locator("path.tb-line")).to_have_count(3)  # the newest runs
    drift = lab.page.get_by_role("group", name="Drift")
    for month in MONTHS:
        drift.locator(f'td[aria-label^="temp, {month}:"]').click()
        shown = drift.locator(".tb-distribution")
        expect(shown.get_by_role("heading")).to_have_text(f"temp in {month}")
        shares = [float(text.rstrip("%")) for text in shown.locator("tbody td:last-child").all_inner_texts()]
        assert len(shares) >= 10
        assert shown.locator("tbody th").first.inner_text().startswith("up to")
        assert sum(shares) == pytest.approx(100, abs=1)


def test_a_notebook_of_the_pipeline_runs_by_hand_and_leaves_the_products_alone(lab: Lab, project: Path) -> None:
    products = project / "pipelines/flights/products"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in products.rglob("*") if path.is_file()}
    found = lab.run("pipelines/flights/monitor.ipynb")
    assert found["errors"] == []
    assert found["ran"] == found["n"]
    assert lab.page.locator(".jp-OutputArea-output table").count() >= 1
    text = " ".join(lab.page.locator(".jp-OutputArea-output").all_inner_texts())
    assert re.search(r"psi", text)
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}


def test_a_lesson_of_the_library_runs(lab: Lab) -> None:
    found = lab.run(LESSON)
    assert found["errors"] == []
    assert found["ran"] == found["n"] > 5
