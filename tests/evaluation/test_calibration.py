"""Calibration, risk and search areas against definitions, and where a number could flatter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.evaluation.calibration import (
    balanced_accuracy,
    best_cut,
    conformal_threshold,
    fit_isotonic,
    fit_temperature,
    reliability,
    risk_coverage,
    search_area,
)


def test_temperature_is_found_again():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)) * 2
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = np.eye(5)[[rng.choice(5, p=p) for p in share]]
    assert fit_temperature(3 * logits, target) == pytest.approx(3, rel=0.1)
    assert fit_temperature(3 * logits, share) == pytest.approx(3, rel=0.01)  # soft targets


def test_reliability_of_a_calibrated_and_of_a_boastful_one():
    rng = np.random.default_rng(1)
    p = rng.uniform(size=20000)
    right = rng.uniform(size=20000) < p
    honest, boast = reliability(p, right), reliability(np.sqrt(p), right)
    assert honest["ece"] < 0.02 < 0.1 < boast["ece"]
    assert honest["brier"] == pytest.approx(((p - right) ** 2).mean())
    assert honest["count"].sum() == 20000
    assert honest["count"].max() - honest["count"].min() <= 1


def test_equally_sure_answers_share_a_bin_whatever_their_order():
    right = np.arange(100) < 30  # all at the start, as neighbours on the ground often are
    found = reliability(np.full(100, 0.3), right)
    assert found["count"].tolist() == [100]
    assert found["ece"] == pytest.approx(0)
    mixed = reliability(np.repeat([0.1, 0.9], 50), np.tile([0, 1], 50), bins=5)
    np.testing.assert_allclose(mixed["accuracy"], [0.5, 0.5])
    assert mixed["ece"] == pytest.approx(0.4)


def test_isotonic_mends_the_boast():
    rng = np.random.default_rng(2)
    p = rng.uniform(size=8000)
    right = rng.uniform(size=8000) < p
    mended = fit_isotonic(np.sqrt(p[:4000]), right[:4000]).predict(np.sqrt(p[4000:]))
    assert reliability(mended, right[4000:])["ece"] < 0.05


def test_risk_and_coverage_by_hand():
    coverage, risk, area = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 1, 0, 1]))
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 1 / 4])
    assert area == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_confidence_that_says_nothing_has_the_overall_risk(right):
    _, _, area = risk_coverage(np.full(len(right), 0.5), np.array(right))
    assert area == pytest.approx(1 - np.mean(right))


def test_conformal_areas_hold_the_truth_as_often_as_promised():
    rng = np.random.default_rng(3)

    def draw(count):
        logits = rng.normal(size=(count, 30)) * 2
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return p, np.eye(30)[[rng.choice(30, p=row) for row in p]]

    kept = []
    for _ in range(40):
        threshold = conformal_threshold(*draw(100), coverage=0.9)
        p, share = draw(500)
        kept.append((p[share > 0] >= threshold).mean())
    assert 0.89 < np.mean(kept) < 0.93


def test_a_truth_that_no_list_holds_needs_everything():
    p = np.full((10, 4), 0.25)
    assert conformal_threshold(p, np.zeros((10, 4))) == 0.0
    np.testing.assert_allclose(search_area(p, 0.0, 100.0), 0.04)
    np.testing.assert_allclose(search_area(p, 0.3, 100.0), 0.0)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="equally long"):
        reliability(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="coverage must lie"):
        conformal_threshold(np.ones((2, 2)), np.ones((2, 2)), 1.0)
    with pytest.raises(ValueError, match="finite"):
        risk_coverage(np.array([np.nan]), np.array([1]))


def test_the_best_cut_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    values = rng.normal(size=40).round(1)
    positive = values + rng.normal(size=40) > 0.5
    cut, accuracy = best_cut(values, positive)
    told = [
        (
            sum(v > c for v in values[positive]) / positive.sum()
            + sum(v <= c for v in values[~positive]) / (~positive).sum()
        )
        / 2
        for c in np.linspace(-3, 3, 1201)
    ]
    assert accuracy == pytest.approx(max(told)) == balanced_accuracy(values, positive, cut)
    assert best_cut(np.array([1.0, 2.0, 5.0]), np.array([False, False, True])) == (3.5, 1.0)
    for wrong in ((np.ones(3), [True, False, True]), (np.arange(3.0), [True] * 3)):
        with pytest.raises(ValueError, match="expected"):
            best_cut(*map(np.array, wrong))
