"""Gates, against scikit-learn and a bootstrap written out by hand."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from tidebook.core.errors import ColumnMissingError, EmptyDataError, GateRefusedError, WrongUseError
from tidebook.models.gates import Check, Gate, GateDecision, evaluate


def days(n_days: int = 40, n_rows: int = 50, *, noise: float = 0.0, seed: int = 3) -> pl.DataFrame:
    "Labelled rows with the true probability as score, made worse by `noise`; same seed, same rows."
    rng = np.random.default_rng(seed)
    day = np.repeat(np.arange(n_days), n_rows)
    logit = rng.normal(size=day.size) + np.repeat(rng.normal(scale=0.5, size=n_days), n_rows) - 1
    late = rng.random(day.size) < 1 / (1 + np.exp(-logit))
    blurred = logit + noise * np.random.default_rng(seed + 1).normal(size=day.size)
    return pl.DataFrame({"day": day, "late": late, "score": (1 / (1 + np.exp(-blurred))).astype("f4")})


def ask(gate: Gate, candidate: pl.DataFrame, champion: pl.DataFrame | None = None) -> GateDecision:
    return evaluate(gate, candidate, champion, label="late", blocks="day")


def found(decision: GateDecision) -> dict[str, Check]:
    return {check.name: check for check in decision.checks}


def test_the_first_model_meets_only_its_own_limits() -> None:
    rows = days()
    decision = ask(Gate(min_auc=0.6), rows)
    assert decision.passed
    assert set(found(decision)) == {"auc", "calibration_error"}
    assert found(decision)["auc"].value == pytest.approx(roc_auc_score(rows["late"], rows["score"]), abs=1e-12)
    assert decision.n_rows == rows.height


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        ({"min_auc": 0.95}, {"auc"}),
        ({"max_calibration_error": 0.001}, {"calibration_error"}),
        ({"min_auc": 0.95, "max_calibration_error": 0.001}, {"auc", "calibration_error"}),
    ],
)
def test_each_limit_can_refuse_and_all_are_told(limits: dict[str, float], refused: set[str]) -> None:
    decision = ask(Gate(**limits), days())
    assert not decision.passed
    assert {check.name for check in decision.checks if not check.passed} == refused
    with pytest.raises(GateRefusedError) as caught:
        decision.require()
    assert caught.value.exit_code == 3
    assert all(check.sentence in str(caught.value) for check in decision.checks if not check.passed)


def test_a_limit_is_met_when_it_is_reached_exactly() -> None:
    rows = pl.DataFrame({"day": [1, 1, 2, 2], "late": [0, 1, 0, 1], "score": [0.1, 0.9, 0.6, 0.6]})
    assert ask(Gate(min_auc=0.875), rows).passed  # pairs won: 1, 1, 1 and half of the tie, of 4
    assert not ask(Gate(min_auc=0.8751), rows).passed


def test_miscalibration_is_seen_where_ranking_is_perfect() -> None:
    rows = days().with_columns(pl.col("score") / 3)
    decision = ask(Gate(min_auc=0.6, max_calibration_error=0.1), rows)
    assert [check.name for check in decision.checks if not check.passed] == ["calibration_error"]


def test_a_better_model_replaces_a_worse_one_and_not_the_reverse() -> None:
    good, poor = days(), days(noise=1.5)
    assert ask(Gate(), good, poor).passed
    refused = ask(Gate(), poor, good)
    assert [check.name for check in refused.checks if not check.passed] == ["auc_gain", "log_loss_increase"]
    assert ask(Gate(min_auc_gain=-0.5, max_log_loss_increase=2.0), poor, good).passed


def test_the_same_model_again_is_surely_no_worse() -> None:
    decision = ask(Gate(), days(), days())
    assert decision.passed
    assert found(decision)["auc_gain"].value == found(decision)["log_loss_increase"].value == 0


def test_a_gain_within_the_noise_is_not_enough() -> None:
    rows = days(12, 30, noise=1.0)
    lucky = next(
        other
        for seed in range(50)
        for other in [rows.with_columns(pl.Series("score", shaken(rows["score"], seed)))]
        if roc_auc_score(rows["late"], other["score"]) > roc_auc_score(rows["late"], rows["score"])
        and log_loss(rows["late"], other["score"]) < log_loss(rows["late"], rows["score"])
    )
    decision = ask(Gate(), lucky, rows)
    assert not decision.passed
    assert ask(Gate(min_auc_gain=-0.05, max_log_loss_increase=0.05), lucky, rows).passed


def shaken(scores: pl.Series, seed: int) -> np.ndarray:
    "The scores with a little noise on their log-odds."
    odds = np.log(scores.to_numpy() / (1 - scores.to_numpy()))
    return 1 / (1 + np.exp(-odds - np.random.default_rng(seed).normal(scale=0.05, size=len(odds))))


def test_the_bound_equals_a_bootstrap_of_days_written_by_hand() -> None:
    good, poor = days(), days(noise=0.5)
    late = good["late"].to_numpy()

    def row_loss(frame: pl.DataFrame) -> np.ndarray:
        given = frame["score"].to_numpy().astype(float)
        return -np.log(np.where(late, given, 1 - given))

    by_day = (row_loss(good) - row_loss(poor)).reshape(40, 50).sum(axis=1)
    rng = np.random.default_rng(99)
    means = [by_day[rng.integers(0, 40, 40)].sum() / 2000 for _ in range(4000)]
    check = found(ask(Gate(), good, poor))["log_loss_increase"]
    assert check.value == pytest.approx(np.quantile(means, 0.975), abs=0.1 * np.std(means) * 2)
    middle = log_loss(late, good["score"]) - log_loss(late, poor["score"])
    assert f"changes by {middle:+.4f}" in check.sentence


def test_other_rows_than_the_champion_are_refused() -> None:
    good, poor = days(), days(noise=1.5)
    for other in (poor.head(100), poor.reverse(), poor.with_columns(pl.col("day") + 1), poor.cast({"day": pl.Int32})):
        decision = ask(Gate(), good, other)
        assert [check.name for check in decision.checks if not check.passed] == ["same_rows"]
        assert "same rows" in decision.why


def test_what_has_no_answer_has_not_passed() -> None:
    rows = days().with_columns(late=pl.lit(False))
    decision = ask(Gate(min_auc=0.0), rows, rows)
    assert not decision.passed
    assert found(decision)["auc"].value is None
    assert "same label" in found(decision)["auc"].sentence
    assert found(decision)["auc_gain"].value is None
    assert not GateDecision((), 10).passed


def test_input_that_cannot_be_judged_is_named() -> None:
    rows = days()
    with pytest.raises(EmptyDataError):
        ask(Gate(), rows.clear())
    with pytest.raises(ColumnMissingError, match="score"):
        ask(Gate(), rows.drop("score"))
    with pytest.raises(ColumnMissingError, match="day"):
        ask(Gate(), rows, rows.drop("day"))


@pytest.mark.parametrize(
    "limits",
    [
        {"min_auc": float("nan")},
        {"max_log_loss_increase": float("inf")},
        {"min_auc_gain": float("-inf")},
        {"min_auc": 1.5},
        {"max_calibration_error": -0.1},
    ],
)
def test_limits_that_cannot_hold_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(WrongUseError, match=next(iter(limits))):
        Gate(**limits)


def test_a_decision_shows_itself() -> None:
    decision = ask(Gate(min_auc=0.95), days())
    assert repr(decision).startswith("Gate refused")
    assert "Gate refused" in decision._repr_html_()
    kept = decision.to_json()
    assert kept["passed"] is False
    assert kept["n_rows"] == 2000
    assert [check["passed"] for check in kept["checks"]] == [False, True]
