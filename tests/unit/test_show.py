"""Tables and charts as they are shown: readable numbers, honest cuts, harmless names, equal bytes."""

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from tidebook.core.charts import bar_chart, calibration_chart, distribution_chart, heat_map, line_chart
from tidebook.core.errors import ColumnMissingError, WrongUseError
from tidebook.core.show import (
    Table,
    escape,
    format_column,
    format_number,
    format_value,
    html_facts,
    text_facts,
    to_jsonable,
)

HOSTILE = "<script>hit()</script>\"'><img src=x onerror=hit()>&amp;]]>\x1b[2J\u202egnp.exe\x00"
SVG = "{http://www.w3.org/2000/svg}"


class Seen(HTMLParser):
    "The tags, attributes and texts that a browser would see."

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (2013, "2013"),
        (336_776, "336,776"),
        (-48_213, "-48,213"),
        (0.71338, "0.7134"),
        (0.5, "0.5"),
        (-0.0, "0"),
        (1e-9, "1.00e-09"),
        (9_999.9, "10,000"),
        (123_456.7, "123,457"),
        (1e18, "1.00e+18"),
        (float("nan"), "NaN"),
        (float("inf"), "∞"),
        (float("-inf"), "-∞"),
        (None, "—"),
        (True, "yes"),
    ],
)
def test_numbers_are_written_for_people(number: float | None, text: str) -> None:
    assert format_number(number) == text


def test_a_column_has_equal_decimals_and_hides_no_small_value() -> None:
    assert format_column(pl.Series([0.71, 0.698123, None])) == ["0.7100", "0.6981", "—"]
    assert format_column(pl.Series([1.0, 250_000.0])) == ["1", "250,000"]
    small = format_column(pl.Series([812.4, 0.0031, 0.0]))
    assert [float(text) for text in small] == pytest.approx([812.4, 0.0031, 0.0])
    for values in ([3e5, 0.71, 12.5], [1e-7, 1.0], [99_999.5, 0.04], [-5.5, 0.001]):
        texts = format_column(pl.Series(values))
        shown = [float(text.replace(",", "")) for text in texts]
        assert all(abs(a - b) <= 0.05 * abs(b) + 1e-300 for a, b in zip(shown, values, strict=True)), texts


def test_times_and_durations() -> None:
    assert format_value(datetime(2013, 4, 1, 5, 6, 7, tzinfo=UTC)) == "2013-04-01 05:06:07 UTC"
    assert format_value(date(2013, 4, 1)) == "2013-04-01"
    shown = [format_value(timedelta(seconds=s)) for s in (0, 0.25, 60, 3_900, 90_000, -61)]
    assert shown == ["0 s", "0.25 s", "1 min", "1 h 5 min", "1 d 1 h", "-1 min 1 s"]


def test_names_and_values_stay_text_everywhere() -> None:
    table = Table(pl.DataFrame({HOSTILE: [HOSTILE, None], "nested": [[HOSTILE], []]}), HOSTILE, HOSTILE)
    seen = Seen(table.to_html())
    assert set(seen.tags) <= {"div", "style", "table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    assert set(seen.attributes) <= {"class", "scope", "title"}
    facts = Seen(html_facts({HOSTILE: HOSTILE}, HOSTILE))
    assert set(facts.tags) <= {"div", "style", "table", "caption", "tbody", "tr", "th", "td"}
    for text in (
        repr(table),
        table.to_html(),
        table.to_markdown(),
        text_facts(HOSTILE, {HOSTILE: HOSTILE}),
        escape(HOSTILE),
    ):
        assert not {"\x1b", "\x00", "\u202e"} & set(text)
    assert "<script" not in table.to_markdown()
    assert len(table.to_markdown().splitlines()) == 8


def test_markdown_cells_cannot_break_out_of_the_table() -> None:
    nbconvert = pytest.importorskip("nbconvert.filters.markdown_mistune")
    table = Table(pl.DataFrame({"a|b": ["x | y\n# heading", "[x](javascript:hit)", "`_code_` **b** $m$", "dep_delay"]}))
    seen = Seen(
        nbconvert.MarkdownWithMath(renderer=nbconvert.IPythonRenderer(escape=False)).render(table.to_markdown())
    )
    assert set(seen.tags) <= {"table", "thead", "tbody", "tr", "th", "td"}
    cells = [row[0].strip() for row in seen.rows]
    assert cells == ["a|b", "x | y # heading", "[x](javascript:hit)", "`_code_` **b** $m$", "dep_delay"]


def test_long_and_wide_frames_say_what_is_not_shown() -> None:
    table = Table(pl.DataFrame({"flight": range(336_776)}))
    assert repr(table).splitlines()[-1] == "10 of 336,776 rows"
    assert len(repr(table).splitlines()) == 12
    seen = Seen(table.to_html())
    assert len(seen.rows) == 11
    assert "10 of 336,776 rows" in seen.texts
    assert len(table.to_html()) < 5_000
    assert len(Seen(Table(pl.DataFrame({"n": range(30)})).to_html()).rows) == 31
    wide = Table(pl.DataFrame({f"c{i}": [1] for i in range(400)}))
    assert "24 of 400 columns" in Seen(wide.to_html()).texts
    long = Table(pl.DataFrame({"text": ["x" * 1_000_000]}))
    assert len(repr(long)) < 200
    assert len(long.to_html()) < 5_000


def test_an_empty_frame_is_shown() -> None:
    for frame in (pl.DataFrame(), pl.DataFrame({"a": pl.Series([], dtype=pl.Int64)})):
        assert "no rows" in repr(Table(frame))
        assert Seen(Table(frame).to_html()).tags.count("table") == 1
        assert Table(frame).to_json() == []


def test_numbers_stand_right_and_missing_values_say_so() -> None:
    html = Table(pl.DataFrame({"n": [1, None], "t": ["a", None]})).to_html()
    assert '<th scope="col" class="tb-n">n</th>' in html
    assert '<td class="tb-n">1</td>' in html
    assert html.count('title="no value"') == 2


def test_json_holds_the_values_themselves() -> None:
    frame = pl.DataFrame(
        {
            "auc": [0.1 + 0.2, float("nan")],
            "n": [2**60, None],
            "took": [timedelta(milliseconds=1_500), timedelta(0)],
            "at": [datetime(2013, 4, 1, 5, tzinfo=UTC), None],
            "size_bytes": [[1, 2], []],
            "raw": [b"\x00\xff", b""],
        }
    )
    text = json.dumps(Table(frame).to_json(), allow_nan=False)
    assert json.loads(text) == [
        {
            "auc": 0.30000000000000004,
            "n": 2**60,
            "took": "PT1.5S",
            "at": "2013-04-01T05:00:00+00:00",
            "size_bytes": [1, 2],
            "raw": "00ff",
        },
        {"auc": "NaN", "n": None, "took": "PT0S", "at": None, "size_bytes": [], "raw": ""},
    ]
    assert to_jsonable({"tables": (Table(frame[:1, :1]),), "folder": Path("a/b")}) == {
        "tables": [[{"auc": 0.30000000000000004}]],
        "folder": "a/b",
    }


MONTHS = ["2013-04", "2013-05", "2013-06"]


def every_chart(name: str) -> list[str]:
    "One chart of each kind with `name` wherever a text can stand."
    frame = pl.DataFrame({name: [name, "b", "c"], "y": [0.7, None, 0.72], "lo": [0.6, 0.6, 0.6], "hi": [0.8, 0.8, 0.8]})
    cells = pl.DataFrame({"x": [name, "b"], name: [name, "b"], "v": [0.1, 0.5]})
    bins = pl.DataFrame({"predicted": [0.1, 0.3], "observed": [0.1, 0.25], name: [name, name]})
    return [
        chart.svg
        for chart in (
            line_chart(
                frame,
                name,
                "y",
                color=name,
                band=("lo", "hi"),
                rules={name: 0.65},
                title=name,
                y_title=name,
                x_title=name,
            ),
            bar_chart(frame, name, "y", color=name, rules={name: 0.65}, title=name, alt=name),
            bar_chart(frame, name, "y", band=("lo", "hi")),
            heat_map(cells, "x", name, "v", threshold=0.2, title=name, value_title=name),
            distribution_chart([name, "b"], [0.5, 0.5], [0.4, 0.6], title=name, names=(name, "now")),
            calibration_chart(bins, color=name, title=name),
        )
    ]


@pytest.mark.parametrize(
    "name", [HOSTILE, "a.b", "c[0]", "datum['x']", "https://example.com/a.png", "", "x\ny", "ü漢字"]
)
def test_a_name_in_a_chart_is_only_drawn(name: str) -> None:
    for svg in every_chart(name or " "):
        tree = ElementTree.fromstring(svg)
        tags = {element.tag.removeprefix(SVG) for element in tree.iter()}
        assert tags <= {
            "svg",
            "g",
            "path",
            "line",
            "text",
            "rect",
            "circle",
            "defs",
            "clipPath",
            "tspan",
            "linearGradient",
            "stop",
        }
        names = {attribute for element in tree.iter() for attribute in element.attrib}
        assert not [attribute for attribute in names if attribute.startswith("on") or "href" in attribute]


def test_equal_values_give_equal_bytes_in_any_process_and_time_zone() -> None:
    code = (
        "import hashlib; from tests.unit.test_show import dated, every_chart;"
        "print(hashlib.sha256(''.join([*every_chart('n'), dated()]).encode()).hexdigest())"
    )
    digests = set()
    for zone in ("UTC", "America/New_York"):
        run = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=True
        )
        digests.add(run.stdout)
    assert len(digests) == 1
    assert every_chart("n") == every_chart("n")


def dated() -> str:
    return line_chart(pl.DataFrame({"day": [date(2013, 4, 1), date(2013, 4, 9)], "y": [1.0, 2.0]}), "day", "y").svg


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_chart_says_in_words_what_it_shows() -> None:
    chart = line_chart(pl.DataFrame({"month": MONTHS, "auc": [0.722, None, 0.709]}), "month", "auc", title="AUC")
    assert chart.alt == "Line chart of auc by month: 2 values from 0.709 to 0.722."
    assert ElementTree.fromstring(chart.svg).get("aria-label") == chart.alt
    assert chart._repr_mimebundle_() == {"image/svg+xml": chart.svg, "text/plain": f"<Chart: {chart.alt}>"}
    assert {"AUC", *MONTHS} <= set(texts(chart.svg))


def test_a_null_breaks_the_line_and_stays_no_zero() -> None:
    frame = pl.DataFrame({"x": [1, 2, 3, 4, 5], "y": [1.0, 2.0, None, 2.0, float("nan")]})
    whole = line_chart(frame.with_columns(y=pl.lit(2.0)), "x", "y").svg
    assert line_chart(frame, "x", "y").svg.count("<path") < whole.count("<path")


def test_the_threshold_outlines_exactly_the_cells_that_reach_it() -> None:
    frame = pl.DataFrame({"month": MONTHS, "feature": ["temp"] * 3, "psi": [0.199, 0.2, 5.0]})
    chart = heat_map(frame, "month", "feature", "psi", threshold=0.2)
    assert chart.svg.count('stroke="#D55E00"') == 2
    assert chart.alt.endswith("2 are 0.2 or more.")
    assert {"0.20", "5.00"} <= set(texts(chart.svg))
    flat = heat_map(frame.with_columns(psi=pl.lit(0.0)), "month", "feature", "psi", threshold=0.2)
    assert flat.svg.count('stroke="#D55E00"') == 0


def test_wrong_use_says_what_is_there() -> None:
    frame = pl.DataFrame({"month": MONTHS, "auc": [0.7] * 3})
    with pytest.raises(ColumnMissingError, match=r"mnth[\s\S]*month"):
        line_chart(frame, "mnth", "auc")
    with pytest.raises(WrongUseError, match="2 edges"):
        distribution_chart([1, 2], [0.5, 0.5], [0.5, 0.5])
    with pytest.raises(WrongUseError, match="same bins"):
        distribution_chart([1, 2, 3], [0.5, 0.5], [1.0])
    with pytest.raises(WrongUseError, match="30,000 rows"):
        line_chart(pl.DataFrame({"x": range(30_000), "y": range(30_000)}), "x", "y")


def test_bins_are_named_by_inner_edges_outer_edges_or_names() -> None:
    halves = [0.5, 0.5]
    assert {"< 3", "≥ 3"} <= set(texts(distribution_chart([3], halves, halves).svg))
    assert {"1–2", "2–3"} <= set(texts(distribution_chart([1, 2, 3], halves, halves).svg))
    assert {"EWR", "JFK"} <= set(texts(distribution_chart(["EWR", "JFK"], halves, halves).svg))


def test_an_empty_frame_gives_an_empty_chart() -> None:
    frame = pl.DataFrame(schema={"x": pl.String, "y": pl.Float64})
    for chart in (
        line_chart(frame, "x", "y"),
        bar_chart(frame, "x", "y"),
        heat_map(frame, "x", "x", "y", threshold=0.2),
    ):
        assert chart.alt.split(": ", 1)[1].startswith("no values")


def test_importing_show_and_charts_loads_no_renderer() -> None:
    code = (
        "import sys, tidebook.core.show, tidebook.core.charts;"
        "print([m for m in ('altair', 'vl_convert', 'nbconvert') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
