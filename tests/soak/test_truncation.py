"""Every row of April and May 2013: hiding what was not known at its moment changes no feature. N: fewer moments."""

import os
from datetime import date

import polars as pl
from tidebook.data.features import truncation_check
from tidebook.demo.delay_view import NUMERIC, VIEW, prediction_rows
from tidebook.demo.flights import read_flights, read_planes, read_weather


def test_hiding_the_future_changes_no_row_of_two_months() -> None:
    frames = {"flights": read_flights(), "weather": read_weather(), "planes": read_planes()}
    spring = pl.col("date").is_between(date(2013, 4, 1), date(2013, 5, 31))
    rows = prediction_rows(frames["flights"]).filter(spring)
    assert rows.height == 57_126
    n_moments = int(os.environ.get("N") or 0) or None
    result = truncation_check(VIEW, frames, rows, n_moments=n_moments)
    print(f"\n{result!r}")
    assert result.n_features == len(NUMERIC) + 1
    assert result.n_moments == min(n_moments or 21_382, 21_382)
    assert n_moments is not None or result.n_rows == rows.height
    assert result.n_hidden > 100 * result.n_moments
