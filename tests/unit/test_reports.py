"""Reports as text: what is folded, dropped, cut, cleaned and written. A browser test looks at the same pages."""

import base64
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from tidebook.core.errors import DamagedFileError
from tidebook.pipeline.page import clean_html, page_html, svg_html
from tidebook.pipeline.reports import render_report, write_report

new = nbformat.v4
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Page(HTMLParser):
    "The page as a browser reads it: tags with attributes, and the text outside of styles."

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.in_style = False
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self.in_style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self.in_style else data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def notebook(*cells: Any) -> nbformat.NotebookNode:
    return new.new_notebook(cells=list(cells))


def code(source: str = "x", tags: tuple[str, ...] = (), **data: Any) -> nbformat.NotebookNode:
    "A code cell with one output; `text_html=...` is the form text/html."
    forms = {name.replace("_", "/", 1).replace("__", "+"): value for name, value in data.items()}
    outputs = [new.new_output("display_data", forms)] if forms else []
    return new.new_code_cell(source, outputs=outputs, metadata={"tags": list(tags)})


def rendered(*cells: Any, **options: Any) -> Page:
    return Page(render_report(notebook(*cells), **options))


def test_the_title_is_the_first_heading_unless_another_is_given() -> None:
    cell = new.new_markdown_cell("# Delays & *more*\ntext")
    page = rendered(cell)
    assert (page.text.count("Delays & more"), len(page.all("h1"))) == (2, 1)  # in the title and as the heading
    other = rendered(cell, title="April <b>")
    assert other.text.startswith("\nApril <b>")
    assert len(other.all("h1")) == 2
    assert rendered(code()).text.startswith("\nReport")


def test_hidden_cells_are_dropped_and_parameters_folded() -> None:
    page = rendered(
        code("secret = 1", tags=("hide",), text_plain="hidden output"),
        code("month = 1", tags=("parameters",)),
        code("month = 4", tags=("injected-parameters",)),
        code("month + 1", text_plain="5"),
    )
    assert "secret" not in page.text
    assert "hidden output" not in page.text
    summaries = ("Show default parametersmonth = 1", "Show parameters of this runmonth = 4", "Show codemonth + 1")
    assert [page.text.count(summary) for summary in summaries] == [1, 1, 1]
    assert all("open" not in attributes for attributes in page.all("details"))
    assert re.search(r"5\s*Show default parameters", page.text)  # what was found stands before all code that found it


def test_facts_are_shown_and_escaped() -> None:
    page = rendered(code(), facts={"model": "delay@v3", "<b>": "<script>hit()</script>"})
    assert {"delay@v3", "<script>hit()</script>"} <= set(re.findall(r"delay@v3|<script>hit\(\)</script>", page.text))
    assert page.all("script") == []


def test_headings_are_listed_with_unique_addresses_that_links_reach() -> None:
    page = rendered(
        *[new.new_markdown_cell("## Drift by month\n[here](#Drift-by-month)\n### Café <b>x</b>") for _ in range(3)]
    )
    anchors = [attributes["id"] for name, attributes in page.tags if name in ("h2", "h3")]
    assert anchors[:4] == ["Drift-by-month", "Café-x", "Drift-by-month-2", "Café-x-2"]
    assert len(set(anchors)) == 6
    targets = {attributes["href"][1:] for attributes in page.all("a") if attributes.get("href", "").startswith("#")}
    assert targets == {*anchors, "content"}


def test_a_picture_is_inside_the_page_and_described() -> None:
    head = '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" aria-label="a &quot;b&quot;">'
    svg = f"{head}<script>hit()</script></svg>"
    page = rendered(
        code(image_png=PIXEL, text_plain="Delay by hour"),
        code(image_png=PIXEL, text_plain="<Figure size 640x480>"),
        code(image_svg__xml=svg),
        code(image_svg__xml="<html>no picture</html>"),
        code(image_png="!", text_plain="x"),
        new.new_markdown_cell("![inside](attachment:p.png) ![outside](http://example.com/p.png) ![file](p.png)"),
    )
    images = page.all("img")
    assert [image["alt"] for image in images] == [
        "Delay by hour",
        "figure without a description",
        'a "b"',
        *[i["alt"] for i in images[3:]],
    ]
    assert all(image["src"].startswith("data:image/") for image in images)
    assert base64.b64decode(images[2]["src"].partition(",")[2]).decode() == svg
    assert "it is not SVG" in page.text


def test_an_attached_picture_is_shown() -> None:
    cell = new.new_markdown_cell("![a dot](attachment:p.png)", attachments={"p.png": {"image/png": PIXEL}})
    assert rendered(cell).all("img") == [{"src": f"data:image/png;base64,{PIXEL}", "alt": "a dot"}]


@pytest.mark.parametrize(
    "source", ["> " * 5_000, "[" * 20_000, "*a " * 20_000, "`" * 9_999, "<div>" * 20_000, "- " * 3_000 + "x"]
)
def test_markdown_that_is_hard_to_read_costs_no_report(source: str) -> None:
    assert "after" in rendered(new.new_markdown_cell(source), new.new_markdown_cell("after")).text


def test_charts_of_ours_take_the_ink_of_the_page() -> None:
    from tidebook.core.canvas import INK

    ours = '<svg xmlns="http://www.w3.org/2000/svg" data-tidebook="chart" width="640"><text>t</text></svg>'
    attributes = Page(svg_html(ours)).all("img")[0]
    assert attributes["class"] == "tb-chart tb-wide"
    inside = base64.b64decode(attributes["src"].partition(",")[2]).decode()
    assert f'[fill="{INK}"]' in inside
    assert "prefers-color-scheme:dark" in inside
    assert Page(svg_html(ours.replace("data-tidebook", "data-other"))).all("img")[0]["class"] == "tb-paper"


@pytest.mark.parametrize(
    ("markup", "left"),
    [
        ("<p onclick='hit()'>a</p>", "<p>a</p>"),
        ("<a href='JaVaScRiPt:hit()'>a</a>", '<a rel="noopener noreferrer">a</a>'),
        ("<a href='data:text/html,<script>hit()</script>'>a</a>", '<a rel="noopener noreferrer">a</a>'),
        ("<img src='http://example.com/p.png'>", ""),
        ("<img src='file:///etc/passwd'>", ""),
        ("<img src='data:text/html;base64,AAAA'>", ""),
        ("<p style='color:red;position:fixed;background:url(http://a)'>a</p>", "<p>a</p>"),
        ("<p style='color:red;position:fixed;top:0'>a</p>", '<p style="color:red">a</p>'),
        ("<p class='tb-skip tb-n anything'>a</p>", '<p class="tb-n">a</p>'),
        ("<p id='content' name='x'>a</p>", "<p>a</p>"),
        ("<style>*{display:none}</style><template>x</template><svg><text>y</text></svg>", ""),
        ("</main></div><script>hit()</script>a", "a"),
        ("<input value=1><button>press</button>", "press"),
    ],
)
def test_the_allow_list(markup: str, left: str) -> None:
    assert clean_html(markup) == left


def test_what_needs_a_script_is_replaced_by_its_text() -> None:
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "a slider"}
    page = rendered(
        new.new_code_cell("w", outputs=[new.new_output("display_data", widget)]),
        code(text_html="<div id=plot></div><script>draw()</script>", text_plain="a figure"),
        code(application_javascript="hit()", text_plain="a script"),
    )
    assert {"a slider", "a figure", "a script"} <= set(re.findall(r"a (?:slider|figure|script)", page.text))
    assert page.all("script") == []


def test_large_outputs_are_cut_and_the_page_says_so() -> None:
    stream = new.new_output("stream", name="stdout", text="first" + "x" * 5_000_000 + "last")
    text = render_report(
        notebook(
            new.new_code_cell("a", outputs=[stream]),
            code(text_html="<b>" * 500_000, text_plain="short form"),
            code(image_png="A" * 13_000_000),
        )
    )
    page = Page(text)
    assert len(text) < 100_000
    assert "first" in page.text
    assert "last" in page.text
    assert "4,988,009 characters left out" in page.text
    assert "An output of 1,500,000 characters was left out" in page.text
    assert "A picture of 13,000,000 characters was left out" in page.text
    assert "short form" in page.text


def test_an_error_is_told_first() -> None:
    error = new.new_output(
        "error", ename="ContractError", evalue="<b>month</b> is empty", traceback=["\x1b[31mline 1\x1b[0m"]
    )
    page = rendered(new.new_code_cell("check()", outputs=[error]))
    assert (
        page.text.index("stopped with ContractError")
        < page.text.index("<b>month</b> is empty")
        < page.text.index("line 1")
    )
    assert "\x1b" not in page.text
    assert {"class": "tb-error", "role": "alert"} in page.all("div")


def test_the_page_names_no_source_for_scripts() -> None:
    page = Page(page_html("t", "<p>x</p>"))
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert page.all("html") == [{"lang": "en"}]


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "not json", '{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}']
)
def test_what_is_no_notebook_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "april.ipynb"
    path.write_text(content)
    with pytest.raises(DamagedFileError, match=r"april\.ipynb is not a notebook"):
        render_report(path)


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "april.ipynb"
    source.write_text(json.dumps(notebook(code("1", text_plain="one"))))
    target = write_report(source, tmp_path / "reports" / "april.html")
    assert target.read_text().endswith("</html>\n")
    before = target.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report(source, target, title="new")
    assert target.read_bytes() == before
    assert [file.name for file in target.parent.iterdir()] == ["april.html"]


def test_equal_notebooks_give_equal_pages() -> None:
    cells = [new.new_markdown_cell("# T", id="a"), new.new_code_cell("1", id="b")]
    assert render_report(notebook(*cells)) == render_report(notebook(*cells))


def test_importing_reports_loads_no_converter() -> None:
    found = "print([m for m in ('nbconvert', 'nbformat', 'nh3', 'vl_convert') if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys, tidebook.pipeline.reports; {found}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"
