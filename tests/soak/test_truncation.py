"""April and May 2013: hiding what was not known at its moment changes no feature.

`make soak` checks every row; a smaller N checks N thousand of the 21,382 moments, drawn at random, with all their rows.
"""

from datetime import date

import polars as pl
from tidebook.data.features import truncation_check
from tidebook.demo.delay_view import NUMERIC, VIEW, prediction_rows
from tidebook.demo.flights import read_flights, read_planes, read_weather

FULL = 20  # rounds: what `make soak` asks for by itself


def test_hiding_the_future_changes_no_row_of_two_months(rounds: int) -> None:
    frames = {"flights": read_flights(), "weather": read_weather(), "planes": read_planes()}
    spring = pl.col("date").is_between(date(2013, 4, 1), date(2013, 5, 31))
    rows = prediction_rows(frames["flights"]).filter(spring)
    assert rows.height == 57_126
    assert rows["moment"].n_unique() == 21_382
    n_moments = None if rounds >= FULL else 1_000 * rounds
    result = truncation_check(VIEW, frames, rows, n_moments=n_moments)
    print(f"\n{result!r}")
    assert result.n_features == len(NUMERIC) + 1
    assert result.n_moments == (n_moments or 21_382)
    assert n_moments is not None or result.n_rows == rows.height
    assert result.n_hidden > 100 * result.n_moments
