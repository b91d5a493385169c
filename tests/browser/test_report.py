"""A report in a real Chromium: opens from disk, asks for nothing, runs nothing, reads on paper and on a phone."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import polars as pl
import pytest
from playwright.sync_api import Page
from tidebook.core.charts import Chart, calibration_chart, distribution_chart, heat_map, line_chart
from tidebook.core.show import Table
from tidebook.pipeline.reports import write_report

from tests.browser.conftest import Watch

MONTHS = [f"2013-{month:02d}" for month in range(4, 13)]
AUC = [0.722, 0.716, 0.709, 0.713, 0.708, 0.701, 0.719, 0.722, 0.696]
FEATURES = ["scheduled hour", "temperature", "wind speed", "visibility", "congestion", "plane age", "distance"]
PSI = [[0.02, 0.31, 0.04, 0.03, 0.01, 0.01, 0.0], [0.02, 0.62, 0.05, 0.06, 0.02, 0.01, 0.01]]

# Each would set window.hit if anything took it for markup.
ATTACKS = [
    "<script>window.hit = 'script'</script>",
    "<img src=x onerror=\"window.hit = 'onerror'\">",
    "<svg onload=\"window.hit = 'svg'\"><script>window.hit = 'svg script'</script></svg>",
    "<a href=\"javascript:window.hit = 'link'\" class='attack'>follow me</a>",
    "<iframe srcdoc=\"<script>parent.window.hit = 'frame'</script>\"></iframe>",
    "<details open ontoggle=\"window.hit = 'toggle'\"><summary>x</summary></details>",
    "<math><mtext><table><mglyph><style><img src=x onerror=\"window.hit = 'mutation'\"></style></mglyph></table>",
    "<style>@import 'http://example.com/a.css'; body { display: none }</style>",
    "<link rel=stylesheet href=http://example.com/b.css><meta http-equiv=refresh content='0;url=http://example.com'>",
    "<img src=http://example.com/pixel.png><video src=http://example.com/v.mp4 autoplay></video>",
    "<div style='position:fixed;inset:0;background:url(http://example.com/c.png)'>covers the page</div>",
    "<form action=http://example.com><input autofocus onfocus=\"window.hit = 'focus'\"><button>send</button></form>",
    "<base href=http://example.com/><object data=http://example.com/o></object><embed src=http://example.com/e>",
    "</main></div></body><script>window.hit = 'closing'</script>",
    "<!--><script>window.hit = 'comment'</script>-->",
]
HOSTILE_SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="200" height="60" onload="window.hit = 'onload'">
<script>window.hit = 'svg file'; top.hit = 'top'</script><image href="http://example.com/x.png" width="9" height="9"/>
<foreignObject width="9" height="9">
<body xmlns="http://www.w3.org/1999/xhtml" onload="top.hit = 'foreign'"/></foreignObject>
<text y="20">label</text></svg>"""


def shown(source: str, *results: Any, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    "A code cell with the outputs that Jupyter would have stored."
    outputs = []
    for result in results:
        if isinstance(result, Chart):
            data = result._repr_mimebundle_()
        elif isinstance(result, Table):
            data = {"text/html": result.to_html(), "text/plain": repr(result)}
        else:
            data = result
        outputs.append(nbformat.v4.new_output("display_data", data))
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata={"tags": list(tags)})


def sample(name: str = "gradient boosting") -> nbformat.NotebookNode:
    "A month's report as a pipeline writes it, with `name` as the model's name everywhere."
    text = nbformat.v4.new_markdown_cell
    quality = pl.DataFrame(
        {"month": MONTHS * 2, "model": [name] * 9 + ["network"] * 9, "auc": AUC + [a - 0.008 for a in AUC]}
    )
    quality = quality.with_columns(low=pl.col("auc") - 0.011, high=pl.col("auc") + 0.011)
    months = pl.DataFrame({"month": MONTHS, "flights": [28_330 - 97 * i for i in range(9)], "auc": AUC})
    months = months.with_columns(
        log_loss=pl.col("auc") * -0.8 + 1.05,
        late_share=pl.lit(0.24),
        drifted=pl.Series([0, 1, 1, 1, 1, 0, 0, 1, None]),
        model=pl.lit(name),
        verdict=pl.Series(["holds"] * 8 + ["labels incomplete"]),
    )
    drift = pl.DataFrame(
        [
            {"month": month, "feature": feature, "psi": PSI[i in (3, 4)][k] * (0.4 + 0.1 * (i % 4))}
            for i, month in enumerate(MONTHS)
            for k, feature in enumerate(FEATURES)
        ]
    )
    bins = [0.06, 0.11, 0.16, 0.22, 0.29, 0.41, 0.58]
    calibration = pl.DataFrame({"predicted": bins, "observed": [0.05, 0.1, 0.17, 0.21, 0.31, 0.39, 0.52]})
    bounds = [pl.col("observed").sub(0.02).alias("low"), pl.col("observed").add(0.02).alias("high")]
    lines = line_chart(
        quality, "month", "auc", color="model", band=("low", "high"), rules={"gate 0.70": 0.7},
        title="AUC by month", y_title="AUC on the month's flights, 95% interval",
    )  # fmt: skip
    cells = [
        text(
            f"# Flight delays, April to December 2013\nThe model **{name}**, trained on January to March, still tells "
            "late flights from punctual ones: AUC is **0.712** over all nine months. It is weakest in September and "
            "December, when fewer flights are late.\n\nTemperature has drifted since May, as it does each summer; the "
            "model barely uses it. **No action is needed.** [How drift is measured](#Drift)"
        ),
        shown("month = '2013-04'\nseed = 7", tags=("parameters",)),
        shown("month = '2013-12'", tags=("injected-parameters",)),
        text(
            "## Quality\nAUC is 0.5 for guessing and 1 for a perfect order. The band is a 95% interval from whole days."
        ),
        shown("line_chart(quality, 'month', 'auc', color='model')  # one line a model", lines),
        text("### Month by month"),
        shown("Table(months, 'Months')", Table(months, "Months", note="labels of December arrive in January")),
        text("## Drift\nPSI compares a month with the training quarter. Above 0.2 a column is worth a look."),
        shown(
            "heat_map(drift, 'month', 'feature', 'psi', threshold=0.2)",
            heat_map(drift, "month", "feature", "psi", threshold=0.2, title="Drift by feature", value_title="PSI"),
        ),
        shown(
            "distribution_chart(edges, reference, current)",
            distribution_chart(
                [10, 30, 45, 60, 75, 90, 105],
                [0.2, 0.4, 0.3, 0.08, 0.02, 0],
                [0, 0.02, 0.1, 0.3, 0.44, 0.14],
                title="Temperature, °F",
                names=("January to March", "July"),
            ),
        ),
        text("## Calibration\nOf the flights given 30%, 31% were late. Above 50% the model is a little too sure."),
        shown("calibration_chart(bins)", calibration_chart(calibration.with_columns(bounds), band=("low", "high"))),
        shown("secret = 1", {"text/plain": "left out of the report"}, tags=("hide",)),
    ]
    return nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})


def hostile() -> nbformat.NotebookNode:
    "The same report where every name, text and output is an attack."
    notebook = sample("".join(ATTACKS))
    many = pl.DataFrame({attack: [attack, attack] for attack in ATTACKS})
    notebook.cells += [nbformat.v4.new_markdown_cell(attack) for attack in ATTACKS]
    notebook.cells += [
        nbformat.v4.new_markdown_cell(f"## {attack}\n[x](javascript:window.hit='md')") for attack in ATTACKS
    ]
    notebook.cells += [shown(attack, {"text/html": attack, "text/plain": attack}) for attack in ATTACKS]
    notebook.cells += [
        shown("svg", {"image/svg+xml": HOSTILE_SVG}),
        shown("script", {"application/javascript": "window.hit = 'mime'", "text/plain": "a script"}),
        shown("wide", Table(many, ATTACKS[0])),
        shown("long", {"text/html": f"<p>{'wide' * 3000}</p>", "text/plain": "w" * 3000}),
        shown("huge", {"text/html": "<b>deep" * 200_000, "text/plain": "line of text\n" * 200_000}),
    ]
    error = nbformat.v4.new_output(
        "error", ename=ATTACKS[0], evalue=ATTACKS[1], traceback=[f"\x1b[31m{a}" for a in ATTACKS]
    )
    stream = nbformat.v4.new_output(
        "stream", name="stdout", text="\n".join(ATTACKS) + "\x1b]0;title\x07" + "x" * 100_000
    )
    notebook.cells.append(nbformat.v4.new_code_cell("fails()", outputs=[stream, error]))
    return notebook


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts = {
        "month": "2013-12",
        "model": "delay@v3",
        "data": "flights@v9",
        "run": "4f1c2a",
        "made": "2014-01-02 06:10 UTC",
    }
    return write_report(sample(), tmp_path_factory.mktemp("report") / "report.html", facts=facts)


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts = {attack: attack for attack in ATTACKS}
    return write_report(hostile(), tmp_path_factory.mktemp("hostile") / "report.html", title=ATTACKS[13], facts=facts)


def overflow(page: Page) -> int:
    "By how many pixels the page is wider than the window."
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


OpenPage = Callable[..., Page]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_from_disk_and_asks_for_nothing(report: Path, open_page: OpenPage, watch: Watch, scheme: str) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page.goto(report.as_uri())
    assert page.title() == "Flight delays, April to December 2013"
    assert [url for url in watch.requests if not url.startswith("data:")] == [report.as_uri()]
    assert watch.errors == []
    broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt).length")
    assert (page.locator("figure img").count(), broken) == (4, 0)
    assert page.get_by_text("left out of the report").count() == 0
    text, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert contrast(text, paper) > 10


def contrast(one: str, other: str) -> float:
    "The contrast ratio of two `rgb()` colours, as WCAG 2 defines it."

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


INK = """async () => {
    const image = document.querySelector('figure img'), canvas = document.createElement('canvas')
    await image.decode()
    canvas.width = image.naturalWidth
    canvas.height = 40
    const pen = canvas.getContext('2d')
    pen.drawImage(image, 0, 0)
    const dots = pen.getImageData(0, 0, canvas.width, 40).data
    let best = [0, 0, 0, 0]
    for (let i = 0; i < dots.length; i += 4) if (dots[i + 3] > best[3]) best = [...dots.slice(i, i + 4)]
    return `rgb(${best[0]}, ${best[1]}, ${best[2]})`
}"""


@pytest.mark.parametrize(("scheme", "media"), [("light", "screen"), ("dark", "screen"), ("dark", "print")])
def test_the_title_in_a_chart_has_contrast(report: Path, open_page: OpenPage, scheme: str, media: str) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page.emulate_media(media=media, color_scheme=scheme)
    page.goto(report.as_uri())
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert contrast(page.evaluate(INK), paper) >= 4.5


def test_small_texts_have_contrast(report: Path, open_page: OpenPage) -> None:
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        page.goto(report.as_uri())
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        for selector in ("dt", "summary", ".tb-note", "nav a", "nav .tb-2 a", "main a", "td.tb-null"):
            colour = page.locator(selector).first.evaluate("element => getComputedStyle(element).color")
            assert contrast(colour, paper) >= 4.5, (scheme, selector)


def test_it_has_landmarks_and_can_be_used_with_the_keyboard(report: Path, open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 1280, "height": 900})
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.lang") == "en"
    assert [page.locator(name).count() for name in ("header", "nav[aria-label]", "main", "h1")] == [1, 1, 1, 1]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    for link in page.locator("nav a").all():
        assert page.evaluate(
            "id => document.getElementById(decodeURIComponent(id)) !== null", link.get_attribute("href")[1:]
        )
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))


def test_code_is_folded_and_opens_without_a_script(report: Path, open_page: OpenPage) -> None:
    page = open_page(java_script_enabled=False)
    page.goto(report.as_uri())
    code = page.get_by_text("one line a model")
    assert not code.is_visible()
    page.get_by_text("Show code", exact=True).first.click()
    assert code.is_visible()
    assert page.get_by_text("Show parameters of this run").count() == 1


@pytest.mark.parametrize("name", ["report", "hostile_report"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(
    name: str, width: int, open_page: OpenPage, request: pytest.FixtureRequest
) -> None:
    page = open_page(viewport={"width": width, "height": 740})
    page.goto(request.getfixturevalue(name).as_uri())
    assert overflow(page) == 0
    assert page.locator("main").bounding_box()["width"] > 0.5 * width


def test_nothing_hostile_runs_or_leaves(hostile_report: Path, open_page: OpenPage, watch: Watch) -> None:
    page = open_page()
    page.goto(hostile_report.as_uri())
    for summary in page.locator("summary").all():
        summary.click()
    for link in page.locator("main a:not([href^='#'])").all():
        link.click(no_wait_after=True)
    page.wait_for_timeout(300)
    assert page.evaluate("window.hit") is None
    assert [url for url in watch.requests if not url.startswith("data:")] == [hostile_report.as_uri()]
    assert watch.errors == []
    assert page.locator("script, iframe, object, embed, form, input, video, base, svg, main style").count() == 0
    names = page.evaluate("[...document.querySelectorAll('*')].flatMap(element => element.getAttributeNames())")
    assert [name for name in names if name.startswith("on")] == []
    assert page.locator("main [style*='position']").count() == 0
    assert page.locator("h1").first.inner_text() == ATTACKS[13]
    assert hostile_report.stat().st_size < 2_000_000


def test_the_policy_alone_would_stop_a_script(report: Path, open_page: OpenPage, watch: Watch, tmp_path: Path) -> None:
    holed = tmp_path / "holed.html"
    attack = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'><img src='http://127.0.0.1:9/p.png'>"
    holed.write_text(report.read_text().replace("</main>", f"{attack}</main>"))
    page = open_page()
    page.goto(holed.as_uri())
    assert page.evaluate("window.hit") is None
    assert len(watch.errors) >= 3


def test_on_paper_there_is_no_code_and_nothing_is_cut(report: Path, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(color_scheme="dark")
    page.goto(report.as_uri())
    assert page.pdf(path=tmp_path / "report.pdf", format="A4")[:5] == b"%PDF-"
    page.set_viewport_size({"width": 680, "height": 1000})
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator("summary").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    sheet = page.evaluate("document.documentElement.clientWidth")
    edges = page.evaluate("[...document.querySelectorAll('table, img, pre')].map(e => e.getBoundingClientRect().right)")
    assert max(edges) <= sheet
