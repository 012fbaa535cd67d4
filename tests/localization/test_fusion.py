"""Fusing windows: against plain loops, one true peak among false ones, outliers, drift, and calibrated absence."""

import itertools
import math

import numpy as np
import pytest

from sarmatch.localization import fusion
from sarmatch.localization.fusion import (
    NOBODY,
    Likelihood,
    Posterior,
    aligned,
    crowd,
    diffused,
    fuse,
    log_likelihood,
    log_sum,
    near_prior,
    posterior_of,
    refined,
    shifted,
    track,
)

MODEL = Likelihood(temperature=0.02, outliers=0.1, drift=0.0, absent=0.1)


def bump(shape, places, height=0.4, width=1.0):
    """Scores with equal peaks at some places over low noise."""
    row, col = np.ogrid[: shape[0], : shape[1]]
    scores = np.zeros(shape)
    for r, c in places:
        scores = np.maximum(scores, height * np.exp(-((row - r) ** 2 + (col - c) ** 2) / (2 * width**2)))
    return scores


def test_the_likelihood_of_a_window_is_that_of_a_plain_loop_and_1_on_average():
    scores = np.random.default_rng(0).normal(0, 0.1, (5, 6))
    scores[0, 0] = -np.inf
    known = [s for s in scores.ravel() if math.isfinite(s)]
    total = sum(math.exp(s / 0.02) for s in known)
    expected = [math.log(0.1 + 0.9 * len(known) * math.exp(s / 0.02) / total) for s in scores.ravel()]
    found = log_likelihood(scores, MODEL)
    np.testing.assert_allclose(found.ravel(), expected)
    assert np.exp(found[np.isfinite(scores)]).mean() == pytest.approx(1)
    assert found[0, 0] == pytest.approx(math.log(0.1))
    assert (log_likelihood(np.full((3, 3), -np.inf), MODEL) == math.log(0.1)).all()


def test_a_shift_takes_what_lies_a_step_further_on():
    surface = np.arange(12.0).reshape(3, 4)
    for step in itertools.product((-5, -2, 0, 1, 4), repeat=2):
        moved = shifted(surface, step, -1.0)
        for r, c in np.ndindex(3, 4):
            inside = 0 <= r + step[0] < 3 and 0 <= c + step[1] < 4
            assert moved[r, c] == (surface[r + step[0], c + step[1]] if inside else -1.0)


@pytest.mark.parametrize("drift", [0.0, 0.8])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_belief_is_that_of_a_plain_loop_over_all_paths(drift, at):
    rng = np.random.default_rng(1)
    levels = rng.normal(size=(3, 4, 5))
    cells = list(np.ndindex(4, 5))
    step = np.array(
        [[np.exp(diffused(np.where(np.eye(20)[i].reshape(4, 5) > 0, 0.0, -600.0), drift))] for i in range(20)]
    )
    step = np.maximum(step.reshape(20, 20), 0) if drift else np.eye(20)
    expected = np.zeros((4, 5))
    for path in itertools.product(range(20), repeat=3):
        weight = math.exp(sum(levels[w][cells[p]] for w, p in enumerate(path)))
        expected[cells[path[at]]] += weight * step[path[0], path[1]] * step[path[1], path[2]]
    np.testing.assert_allclose(np.exp(fuse(list(levels), drift, at)), expected, rtol=1e-6)


def test_parts_of_a_map_say_what_the_whole_does(monkeypatch):
    rng = np.random.default_rng(4)
    scores = 0.1 * rng.normal(size=(40, 30))
    scores[3:5] = -np.inf
    parts = [np.full((2, 30), -np.inf), scores[:17], scores[17:]]
    whole = NOBODY
    for part in parts:
        whole = whole.and_those(crowd(part, MODEL), MODEL)
    found = np.concatenate([log_likelihood(part, MODEL, whole) for part in parts[1:]])
    np.testing.assert_allclose(found, log_likelihood(scores, MODEL), atol=1e-12)
    belief = rng.normal(size=(50, 40))
    spread = diffused(belief, 1.7)
    monkeypatch.setattr(fusion, "BAND", 200)
    np.testing.assert_array_equal(diffused(belief, 1.7), spread)
    assert log_sum(belief) == pytest.approx(math.log(np.exp(belief).sum()))


def test_posterior_sums_to_one_with_absence_and_follows_a_prior():
    belief = np.random.default_rng(2).normal(size=(6, 7))
    found = posterior_of(belief, MODEL)
    assert np.exp(found.log_prob).sum() + found.absent == pytest.approx(1)
    odds = 0.9 * np.exp(belief).mean() / 0.1
    assert (1 - found.absent) / found.absent == pytest.approx(odds)
    prior = near_prior((60, 60), (20, 40), 10)
    assert np.exp(prior).sum() == pytest.approx(1)
    row, col = np.ogrid[:60, :60]
    assert np.exp(prior)[np.hypot(row - 20, col - 40) <= 10].sum() == pytest.approx(0.95 * 0.99, abs=0.02)
    with pytest.raises(ValueError, match="hold no place of the map"):
        near_prior((60, 60), (20, 9000), 10)


def test_one_true_peak_among_equal_false_ones_is_found_by_fusing_alone():
    shape, steps = (60, 60), np.array([[0, 0], [10, 0], [20, 0], [30, 0]])
    true = np.array([12, 25])
    rng = np.random.default_rng(3)
    scores = [bump(shape, [true + step, *rng.integers(0, 60, (6, 2))]) for step in steps]
    levels = list(aligned([log_likelihood(s, MODEL) for s in scores], steps, math.log(0.1)))
    singles = [posterior_of(level, MODEL).within(true, 3) for level in levels]
    assert max(singles) < 0.3
    fused = posterior_of(fuse(levels), MODEL)
    peaks = fused.peaks(3, 5)
    np.testing.assert_allclose(peaks.at[0], true, atol=0.05)
    assert fused.within(true, 3) > 0.99 and peaks.mass[0] > 0.99 and fused.absent < 1e-3


def test_an_outlier_window_changes_nothing():
    shape, true = (50, 50), (20, 30)
    good = [log_likelihood(bump(shape, [true]), MODEL) for _ in range(3)]
    wrong = log_likelihood(bump(shape, [(40, 5)], 0.9), MODEL)
    before, after = (posterior_of(fuse(levels), MODEL) for levels in (good, [*good, wrong]))
    np.testing.assert_allclose(after.peaks(1, 3).at, before.peaks(1, 3).at, atol=1e-3)
    assert after.within(true, 3) > 0.99
    # without the uniform part it does: the same window outvotes the three
    sure = Likelihood(0.02, 1e-12, 0.0, 0.1)
    spoiled = [log_likelihood(bump(shape, [true], 0.2), sure), log_likelihood(bump(shape, [(40, 5)], 0.9), sure)]
    assert posterior_of(fuse(spoiled), sure).within(true, 3) < 0.5


def test_strips_of_another_map_are_said_to_be_absent_and_one_window_says_nothing():
    rng = np.random.default_rng(4)
    levels = [log_likelihood(bump((60, 60), rng.integers(0, 60, (3, 2))), MODEL) for _ in range(5)]
    assert posterior_of(fuse(levels), MODEL).absent > 0.9
    assert posterior_of(levels[0], MODEL).absent == pytest.approx(0.1)


def test_drift_is_recovered_where_a_rigid_sum_loses_the_strip():
    shape = (50, 50)
    path = np.array([[20, 20], [21, 22], [23, 23], [24, 25], [26, 26], [27, 28]])
    rng = np.random.default_rng(5)
    scores = [bump(shape, [cell, *rng.integers(0, 50, (4, 2))], width=0.7) for cell in path]
    levels = [log_likelihood(s, MODEL) for s in scores]
    np.testing.assert_array_equal(track(levels, 1.5), path)
    loose, rigid = (posterior_of(fuse(levels, drift), MODEL) for drift in (1.5, 0.0))
    assert loose.within(path[3], 2) > 0.95 > rigid.within(path[3], 2)
    assert (track(levels, 0.0) == track(levels, 0.0)[0]).all()


def test_viterbi_is_the_best_of_all_paths():
    levels = np.random.default_rng(6).normal(size=(3, 3, 4))
    cells = list(np.ndindex(3, 4))

    def value(path):
        steps = [np.subtract(a, b) for a, b in itertools.pairwise(path)]
        if any(np.abs(s).max() > 2 for s in steps):
            return -np.inf
        return sum(levels[w][p] for w, p in enumerate(path)) - sum((s**2).sum() for s in steps) / (2 * 0.8**2)

    best = max(itertools.product(cells, repeat=3), key=value)
    np.testing.assert_array_equal(track(list(levels), 0.8), best)


def test_the_search_area_is_the_smallest_of_its_mass():
    prob = np.array([[0.4, 0.3], [0.2, 0.1]]) * 0.8
    found = Posterior(np.log(prob), math.log(0.2))
    np.testing.assert_array_equal(found.area(0.7), [[True, True], [False, False]])
    np.testing.assert_array_equal(found.area(0.71), [[True, True], [True, False]])
    assert found.area(1.0).all() and found.absent == pytest.approx(0.2)
    assert found.within((0, 0), 1) == pytest.approx(0.8 * 0.9)


def test_a_peak_is_refined_within_its_cell():
    row, col = np.ogrid[:9, :9]
    np.testing.assert_allclose(refined(-((row - 4.3) ** 2) - (col - 3.8) ** 2, 4, 4), (4.3, 3.8))
    assert refined(np.zeros((3, 3)), 0, 2) == (0, 2)


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"outliers": 1}, {"drift": -1}, {"absent": 0}])
def test_what_no_likelihood_can_have_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Likelihood(**wrong)
