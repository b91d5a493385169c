"""The panels in a real JupyterLab and a real Chromium: look, click, type; nothing leaves the machine."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import Watch, refuse_outside

# Shapes like those of the real project, and two names that would run if anything took them for markup.
CELLS = [
    """
import numpy as np
import polars as pl
from datetime import datetime, timedelta, UTC
from types import SimpleNamespace
from tidebook.panels.drift import DriftPanel
from tidebook.panels.runs import RunsPanel
from tidebook.panels.workbench import workbench

HOSTILE = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
rng = np.random.default_rng(0)
names = ["network, wide embeddings", "network", "baseline", HOSTILE, *[f"search trial {i}" for i in range(1, 15)]]
ids = [f"{i:04x}" for i in rng.integers(0, 65536, len(names))]
auc = rng.uniform(0.69, 0.73, len(names))
table = pl.DataFrame({
    "id": ids,
    "name": names,
    "state": ["finished"] * 16 + ["failed", "running"],
    "started_at": [datetime(2013, 12, 1, 9, 30, tzinfo=UTC) - timedelta(hours=7 * i) for i in range(len(names))],
    "summary.auc": auc,
    "summary.log_loss": rng.uniform(0.4, 0.6, len(names)),
    "config.lr": rng.choice([1e-2, 3e-3, 1e-3], len(names)),
    "config.n_rows": rng.integers(60_000, 80_000, len(names)),
})

def history(metrics, runs):
    rows = []
    for run in runs:
        n = 1 if table.filter(pl.col("id") == run)["name"][0] == "baseline" else 120
        steps = np.arange(n) * 50
        for key in metrics:
            own = np.random.default_rng([int(run, 16), len(key)])
            falling = 0.42 + own.uniform(0, 0.03) + 0.3 * np.exp(-steps / own.uniform(800, 2000))
            values = falling + own.normal(0, 0.004, n)
            rows.append(pl.DataFrame({"run": run, "step": steps, "key": key, "value": values}))
    return pl.concat(rows)

features = ["dep_hour", "distance", "carrier", "origin", "temp", "wind_speed", "visib", "precip", "pressure",
            "seats", "plane_age", "departures_last_hour", "mean_delay_last_hour", HOSTILE]
months = [f"2013-{m:02d}" for m in range(4, 13)]
drift = pl.DataFrame([
    {"window": m, "feature": f, "psi": None if (i, j) == (9, 3) else float(v), "n_reference": 80_789,
     "n_current": 27_000 + 100 * j, "null_share": 0.01, "reason": None, "is_alert": bool(v > 0.1 and (i, j) != (9, 3))}
    for i, f in enumerate(features) for j, m in enumerate(months)
    for v in [rng.gamma(0.5, 0.03) + (0.35 * np.exp(-((j - 3) ** 2) / 4) if f in ("temp", "pressure") else 0)]
])

def shares(feature, window):
    if feature == "carrier":
        labels = ["UA", "EV", "B6", "DL", "AA", "MQ", "US", "9E", "WN", "VX", "FL"]
    else:
        labels = [f"{a} to {a + 6}" for a in range(30, 90, 6)] + ["missing"]
    current = np.random.default_rng(months.index(window) + len(feature)).dirichlet(np.full(len(labels), 4.0))
    reference = np.full(len(labels), 1 / len(labels))
    return pl.DataFrame({"label": labels, "reference_share": reference, "current_share": current})

result = SimpleNamespace(frame=drift, threshold=0.1, distribution=shares)
""",
    """
runs = RunsPanel(table, history, metrics=["val_loss", "train_loss"])
page = workbench(runs=runs, drift=DriftPanel(result), title="flights")
page
""",
    """workbench(runs=RunsPanel(table.clear(), history), drift=DriftPanel(None), title="a new project")""",
    """print("selected:", page.runs.selected, page.runs.metric, page.drift.selected)""",
]

ARIA_LABELS = "cells => cells.map(cell => cell.ariaLabel)"

# Text of the panels whose contrast with what is behind it is below WCAG's 4.5, with the contrast.
LOW_CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
  const behind = (node) => {
    if (!node) return [255, 255, 255];
    const color = rgba(getComputedStyle(node).backgroundColor);
    return color[3] === 1 ? color.slice(0, 3) : over(color, behind(node.parentElement));
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const node of document.querySelectorAll(".tb-panel *, .tb-heading *")) {
    const own = [...node.childNodes].filter((child) => child.nodeType === 3);
    const text = own.map((child) => child.data).join("").trim();
    if (!text || !node.checkVisibility() || node.closest("[aria-hidden] i, :disabled")) continue;
    const style = getComputedStyle(node);
    const back = behind(node);
    const [r, g, b, a] = rgba(node instanceof SVGElement ? style.fill : style.color);
    const [x, y] = [light(over([r, g, b, a * style.opacity], back)), light(back)];
    const contrast = (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
    if (contrast < 4.5) found.push([text.slice(0, 30), Number(contrast.toFixed(2))]);
  }
  return found;
}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    "The address of a JupyterLab of our own, with nothing of the user's and no reason to call anybody."
    home = tmp_path_factory.mktemp("lab")
    work, config = home / "work", home / "config"
    (config / "labconfig").mkdir(parents=True)
    work.mkdir()
    quiet = ("@jupyterlab/apputils-extension:announcements", "@jupyterlab/extensionmanager-extension")
    settings = {"disabledExtensions": dict.fromkeys((*quiet, "ploomber-extension"), True)}
    (config / "labconfig" / "page_config.json").write_text(json.dumps(settings))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, work / "panels.ipynb")
    port, token = free_port(), secrets.token_hex(16)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
    ]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={work}"]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url=", "--ServerApp.allow_root=True"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    # Ploomber's contents manager predates the async one of today's server: with it no folder can be listed.
    command += [
        "--ServerApp.jpserver_extensions=ploomber=False",
        "--ServerApp.jpserver_extensions=ploomber_extension=False",
    ]
    own = {"HOME": str(home), "IPYTHONDIR": str(home / "ipython"), "JUPYTER_CONFIG_DIR": str(config)}
    own |= {"JUPYTER_DATA_DIR": str(home / "data"), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    log = home / "lab.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, cwd=work, env=os.environ | own, stdout=out, stderr=out, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 90
        address = f"http://127.0.0.1:{port}"
        while not is_up(f"{address}/api?token={token}"):
            assert server.poll() is None, f"JupyterLab ended:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"JupyterLab did not start in 90 s:\n{log.read_text()[-3000:]}"
            time.sleep(0.3)
        yield f"{address}/lab/tree/panels.ipynb?token={token}&reset"
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # it ends its kernels; without it they end themselves
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(15)


class Lab:
    "The notebook in the browser, all of it executed once."

    def __init__(self, page: Page, watch: Watch) -> None:
        self.page, self.watch = page, watch
        self.runs = page.get_by_role("group", name="Runs").first
        self.drift = page.get_by_role("group", name="Drift").first

    def open(self, address: str) -> None:
        self.page.goto(address, timeout=90_000)
        current = "window.jupyterapp?.shell?.currentWidget"
        self.page.wait_for_function(f"{current}?.context?.isReady", timeout=90_000)
        self.page.wait_for_function(f"{current}.sessionContext?.session?.kernel?.status === 'idle'", timeout=90_000)
        self.command("notebook:run-all-cells")
        self.page.wait_for_function("document.querySelectorAll('.tb-panel[data-ready]').length === 4", timeout=60_000)

    def command(self, name: str, **arguments: object) -> None:
        self.page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments])

    def theme(self, name: str) -> None:
        self.command("apputils:change-theme", theme=f"JupyterLab {name}")
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === `JupyterLab ${name}`", arg=name)

    def kernel_says(self) -> str:
        "What the last cell prints about the panel: the traits as Python sees them."
        last = self.page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length") - 1
        self.page.evaluate("n => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = n }", last)
        self.command("notebook:run-cell")
        return self.page.locator(".jp-Notebook .jp-Cell").nth(last).locator(".jp-OutputArea-output").inner_text()

    def cell(self, feature: str, window: str) -> Locator:
        return self.drift.locator(f'td[aria-label^="{feature}, {window}:"]')

    def legend(self) -> list[str]:
        return self.runs.locator(".tb-legend .tb-name").all_inner_texts()


@pytest.fixture(scope="module")
def lab(server: str, chromium: Browser) -> Iterator[Lab]:
    watch = Watch()
    context = chromium.new_context(viewport={"width": 1400, "height": 1200})
    context.route("**/*", refuse_outside)
    page = context.new_page()
    page.set_default_timeout(15_000)
    watch.follow(page)
    opened = Lab(page, watch)
    try:
        opened.open(server)
        yield opened
    finally:
        context.close()


@pytest.fixture(autouse=True)
def quiet(lab: Lab) -> Iterator[None]:
    "Whatever a test does: nothing leaves the machine, nothing complains, no name has run."
    yield
    outside, errors = lab.watch.outside, list(lab.watch.errors)
    lab.watch.clear()
    assert outside == []
    assert errors == []
    assert lab.page.evaluate("window.hit") is None


def test_a_click_on_a_cell_shows_the_distribution_behind_it(lab: Lab) -> None:
    for feature, window in (("temp", "2013-06"), ("carrier", "2013-11")):
        lab.cell(feature, window).click()
        shown = lab.drift.locator(".tb-distribution")
        expect(shown.get_by_role("heading")).to_have_text(f"{feature} in {window}")
        expect(shown.locator("tbody tr")).to_have_count(11)
        shares = [float(text.rstrip("%")) for text in shown.locator("tbody td:last-child").all_inner_texts()]
        assert sum(shares) == pytest.approx(100, abs=1)
        assert f"['{feature}', '{window}']" in lab.kernel_says()


def test_bars_are_as_long_as_their_shares(lab: Lab) -> None:
    lab.cell("temp", "2013-05").click()
    shown = lab.drift.locator(".tb-distribution")
    expect(shown.get_by_role("heading")).to_have_text("temp in 2013-05")
    widths = shown.locator("tbody .tb-current").evaluate_all("bars => bars.map(b => b.getBoundingClientRect().width)")
    shares = [float(text.rstrip("%")) for text in shown.locator("tbody td:last-child").all_inner_texts()]
    for width, share in zip(widths, shares, strict=True):
        assert width / max(widths) == pytest.approx(share / max(shares), abs=0.02)


def test_the_map_is_used_with_the_keyboard_and_jupyterlab_hears_nothing_of_it(lab: Lab) -> None:
    n_cells = "window.jupyterapp.shell.currentWidget.content.widgets.length"
    before = lab.page.evaluate(n_cells)
    lab.cell("temp", "2013-06").click()
    lab.cell("temp", "2013-06").focus()
    lab.page.keyboard.press("ArrowRight")
    expect(lab.drift.locator(".tb-distribution h4")).to_have_text("temp in 2013-07")
    expect(lab.cell("temp", "2013-07")).to_be_focused()
    expect(lab.cell("temp", "2013-07")).to_have_attribute("aria-selected", "true")
    lab.page.keyboard.press("End")
    expect(lab.drift.locator(".tb-distribution h4")).to_have_text("temp in 2013-12")
    for key in ("ArrowRight", "d", "d", "a", "b"):  # past the edge; then what deletes and adds cells in JupyterLab
        lab.page.keyboard.press(key)
    expect(lab.cell("temp", "2013-12")).to_be_focused()
    assert lab.page.evaluate(n_cells) == before
    outline = lab.cell("temp", "2013-12").evaluate("cell => getComputedStyle(cell).outlineStyle")
    assert outline == "solid"


def test_the_map_marks_alerts_and_gaps_and_no_label_is_lost(lab: Lab) -> None:
    gap = lab.cell("seats", "2013-07")
    expect(gap).to_have_attribute("aria-label", "seats, 2013-07: no value")
    expect(gap).to_have_class("tb-void")
    scores = {label: "alert" in label for label in lab.drift.locator("td[data-i]").evaluate_all(ARIA_LABELS)}
    dots = lab.drift.locator("td[data-i].tb-alert").evaluate_all(ARIA_LABELS)
    assert 0 < len(dots) < len(scores)
    assert set(dots) == {label for label, is_alert in scores.items() if is_alert}
    assert all(float(label.split("PSI ")[1].split(",")[0]) >= 0.1 for label in dots)
    for head in lab.drift.locator(".tb-heat th").all():
        assert head.get_attribute("title")


def test_sorting_a_column_orders_the_rows(lab: Lab) -> None:
    header = lab.runs.get_by_role("columnheader", name="summary.auc")
    at = [text.split("\n")[0] for text in lab.runs.locator("thead th").all_inner_texts()].index("summary.auc")
    values = lab.runs.locator(f"tbody td:nth-child({at + 1})")
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", "descending")
    falling = [float(text) for text in values.all_inner_texts()]
    assert len(falling) == 18
    assert falling == sorted(falling, reverse=True)
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert [float(text) for text in values.all_inner_texts()] == sorted(falling)
    lab.runs.get_by_role("columnheader", name="name").get_by_role("button").click()
    names = [text for text in lab.runs.locator("tbody td:nth-child(2)").all_inner_texts() if text.startswith("search")]
    assert names == [f"search trial {i}" for i in range(1, 15)]  # 2 before 10


def test_selecting_a_run_draws_its_curve(lab: Lab) -> None:
    lab.runs.get_by_label("Filter runs").fill("trial 1")
    expect(lab.runs.locator("tbody tr")).to_have_count(6)  # 1, 10, 11, 12, 13, 14
    box = lab.runs.get_by_label("Show the curve of search trial 12")
    n_lines = lab.runs.locator("path.tb-line").count()
    box.check()
    expect(lab.runs.locator("path.tb-line")).to_have_count(n_lines + 1)
    assert lab.legend()[-1] == "search trial 12"
    swatch = box.locator("xpath=..").locator(".tb-swatch").evaluate("node => getComputedStyle(node).backgroundColor")
    stroke = lab.runs.locator("path.tb-line").last.evaluate("node => getComputedStyle(node).stroke")
    assert swatch == stroke
    lab.runs.locator("tbody tr", has_text="search trial 12").get_by_text(
        "finished"
    ).click()  # the whole row is a switch
    expect(lab.runs.locator("path.tb-line")).to_have_count(n_lines)
    lab.runs.get_by_label("Filter runs").fill("")
    expect(lab.runs.locator("tbody tr")).to_have_count(18)


def test_no_more_curves_than_can_be_told_apart(lab: Lab) -> None:
    names = [f"search trial {i}" for i in range(1, 6)]
    for i, name in enumerate(names, start=4):  # three are selected at first
        lab.runs.get_by_label(f"Show the curve of {name}", exact=True).check()
        expect(lab.runs.locator(".tb-legend li")).to_have_count(i)
    expect(lab.runs.get_by_label("Show the curve of search trial 9")).to_be_disabled()
    strokes = lab.runs.locator(".tb-legend .tb-line").evaluate_all("all => all.map(n => getComputedStyle(n).stroke)")
    assert len(set(strokes)) == 8
    for i, name in enumerate(names, start=1):
        lab.runs.get_by_label(f"Show the curve of {name}", exact=True).uncheck()
        expect(lab.runs.locator(".tb-legend li")).to_have_count(8 - i)


def test_the_cursor_reads_values_of_a_step(lab: Lab) -> None:
    plot = lab.runs.get_by_role("slider")
    expect(lab.runs.locator(".tb-step")).to_have_text("last value")
    plot.hover(position={"x": 200, "y": 100})
    expect(lab.runs.locator(".tb-step")).to_have_text(re.compile(r"^step \d+$"))
    lab.page.mouse.move(5, 5)
    expect(lab.runs.locator(".tb-step")).to_have_text("last value")
    plot.focus()
    lab.page.keyboard.press("Home")
    expect(plot).to_have_attribute("aria-valuetext", re.compile(r"^step 0: network, wide embeddings 0\.7"))
    lab.page.keyboard.press("ArrowRight")
    expect(plot).to_have_attribute("aria-valuenow", "50")
    expect(lab.runs.locator(".tb-legend li", has_text="baseline").locator("b")).to_have_text("—")  # it has step 0 only


def test_metric_and_scale_are_chosen(lab: Lab) -> None:
    before = lab.runs.locator("path.tb-line").first.get_attribute("d")
    lab.runs.get_by_label("Metric").select_option("train_loss")
    expect(lab.runs.locator("path.tb-line").first).not_to_have_attribute("d", before or "")
    assert "train_loss" in lab.kernel_says()
    linear = lab.runs.locator("path.tb-line").first.get_attribute("d")
    lab.runs.get_by_label("Log scale").check()
    expect(lab.runs.locator("path.tb-line").first).not_to_have_attribute("d", linear or "")
    lab.runs.get_by_label("Log scale").uncheck()
    lab.runs.get_by_label("Metric").select_option("val_loss")
    expect(lab.runs.locator("path.tb-line").first).to_have_attribute("d", before or "")


def test_hostile_names_are_shown_as_they_are(lab: Lab) -> None:
    assert lab.runs.get_by_text("</script><script>window.hit = 1</script>").count()
    assert lab.drift.get_by_text("</script><script>window.hit = 1</script>").count()
    lab.drift.locator('td[aria-label^="</script>"]').first.click()
    expect(lab.drift.locator(".tb-distribution h4")).to_contain_text("window.hit")
    assert lab.page.locator(".tb-panel :is(script, img, iframe)").count() == 0


def test_a_new_project_says_what_to_run(lab: Lab) -> None:
    runs, drift = lab.page.get_by_role("group", name="Runs").last, lab.page.get_by_role("group", name="Drift").last
    expect(runs).to_contain_text("No runs yet")
    expect(drift).to_contain_text("No drift history yet")
    for panel in (runs, drift):
        expect(panel.get_by_role("code")).to_have_text("tidebook run flights")


@pytest.mark.parametrize("theme", ["Light", "Dark"])
@pytest.mark.parametrize("width", [1400, 700])
def test_it_reads_well_in_both_themes_and_widths(lab: Lab, theme: str, width: int, tmp_path: Path) -> None:
    lab.page.set_viewport_size({"width": width, "height": 1200 if width == 1400 else 1900})
    lab.theme(theme)
    lab.page.mouse.move(2, 2)
    sides = lab.runs.locator(".tb-split > section").evaluate_all("all => all.map(n => n.getBoundingClientRect().top)")
    assert (sides[0] == sides[1]) == (width == 1400)
    for panel in (lab.runs, lab.drift):
        assert panel.evaluate("node => node.scrollWidth <= node.clientWidth")
    low = lab.page.evaluate(LOW_CONTRAST)
    assert low == []
    for name, panel in (("runs", lab.runs), ("drift", lab.drift)):
        picture = tmp_path / f"{name}_{theme}_{width}.png"
        panel.screenshot(path=picture)
        assert picture.stat().st_size > 20_000
    lab.page.set_viewport_size({"width": 1400, "height": 1200})
