"""Discrepancies against closed forms, against scipy, and under a null that they must not beat."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

from sarmatch.evaluation import METRICS, discrepancy, modality_mixing, wasserstein
from sarmatch.evaluation.discrepancy import bures, probe_accuracy, sinkhorn, sinkhorn_divergence, sliced_wasserstein

DISTANCES = [name for name in METRICS if name != "probe"]


def samples(n: int = 120, m: int = 120, dim: int = 3, shift: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, dim)), rng.normal(size=(m, dim))
    y[:, 0] += shift
    return x, y


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 10**6))
def test_exact_transport_is_the_best_assignment(n, dim, seed):
    x, y = samples(n, n, dim, seed=seed)
    gaps = np.linalg.norm(x[:, None] - y[None], axis=2)
    for order in (1, 2):
        cost = gaps**order
        expected = cost[linear_sum_assignment(cost)].mean() ** (1 / order)
        assert wasserstein(x, y, order) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_on_a_line_it_is_scipys():
    x, y = samples(80, 50, 1)
    assert wasserstein(x, y, 1) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-9)


def test_a_shifted_copy_is_as_far_as_the_shift():
    x = samples()[0]
    shift = np.array([0.6, 0.0, -0.8])
    for name in ("wasserstein_1", "wasserstein_2", "bures", "centroid"):
        assert METRICS[name](x, x + shift) == pytest.approx(1.0, rel=1e-3), name
    assert sinkhorn(x, x + shift, blur=0.2, iterations=1000) == pytest.approx(1.0, rel=0.02)
    assert sliced_wasserstein(x, x + shift, projections=20_000) == pytest.approx(1 / np.sqrt(3), rel=0.02)


def test_the_sinkhorn_divergence_of_two_points_is_their_squared_distance():
    """One point has one transport plan, of no entropy: the blur cannot matter."""
    x, y = torch.tensor([[0.0, 0.0]]).double(), torch.tensor([[3.0, 4.0]]).double()
    assert float(sinkhorn_divergence(x, y, blur=0.5, iterations=20)) == pytest.approx(25)


def test_the_sinkhorn_divergence_of_arrays_and_of_tensors_is_one():
    x, y = samples(40, 50)
    arrays = sinkhorn_divergence(x, y, blur=0.5, iterations=50)
    tensors = sinkhorn_divergence(torch.from_numpy(x).requires_grad_(), torch.from_numpy(y), blur=0.5, iterations=50)
    assert float(tensors.detach()) == pytest.approx(arrays, rel=1e-12)
    assert tensors.requires_grad
    assert sinkhorn_divergence(x, x, blur=0.5, iterations=50) == pytest.approx(0, abs=1e-12)


def test_bures_is_the_closed_form_of_gaussians_and_never_above_exact():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 2)) * [1.0, 2.0], rng.normal(size=(4000, 2)) * [3.0, 2.5] + [1.0, 0.0]
    assert bures(x, y) == pytest.approx(np.sqrt(1 + (3 - 1) ** 2 + 0.5**2), rel=0.05)
    assert bures(x[:500], y[:500]) <= wasserstein(x[:500], y[:500], 2) * (1 + 1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_the_distances(seed):
    """Jensen: W1 <= W2; a projection never lengthens: sliced <= W2; means are moved at least: centroid <= W1."""
    x, y = samples(40, 40, seed=seed)
    first, second = wasserstein(x, y, 1), wasserstein(x, y, 2)
    assert METRICS["centroid"](x, y) <= first * (1 + 1e-9)
    assert first <= second * (1 + 1e-9)
    assert sliced_wasserstein(x, y) <= second * (1 + 1e-9)


@pytest.mark.parametrize("name", DISTANCES)
class TestEveryDistance:
    def test_is_symmetric_and_zero_on_itself(self, name):
        x, y = samples()
        assert METRICS[name](x, y) == pytest.approx(METRICS[name](y, x), rel=2e-3)
        assert METRICS[name](x, x) == pytest.approx(0, abs=1e-3)

    def test_grows_with_the_shift(self, name):
        values = [METRICS[name](*samples(shift=s)) for s in (0.0, 1.0, 2.0, 4.0)]
        assert values == sorted(values)

    def test_in_the_unit_of_the_features(self, name):
        """Features ten times as long are ten times as far apart: a number like 700 says nothing without its scale."""
        x, y = samples()
        expected = 1 if name == "mmd" else 10  # its kernel has the width of the data
        assert METRICS[name](10 * x, 10 * y) == pytest.approx(expected * METRICS[name](x, y), rel=1e-3)


def test_the_probe_knows_chance_and_certainty():
    assert probe_accuracy(*samples(shift=0.0, n=400, m=400)) == pytest.approx(0.5, abs=0.06)
    assert probe_accuracy(*samples(shift=10.0)) == 1.0
    x, y = samples(n=40, m=400, shift=0.0)
    assert probe_accuracy(x, y) < 0.65, "samples of unequal size must not look apart"


@pytest.mark.parametrize("name", ["wasserstein_1", "sliced", "mmd", "centroid"])
def test_the_null_is_beaten_by_a_difference_and_not_without_one(name):
    apart = discrepancy(*samples(60, 60, shift=1.5), metric=name, repeats=49)
    assert apart.p_value == pytest.approx(1 / 50)
    p = [discrepancy(*samples(40, 40, shift=0.0, seed=s), metric=name, repeats=19).p_value for s in range(40)]
    assert 0.25 < np.mean(p) < 0.75, "a p-value without a difference is uniform"
    assert np.mean(np.array(p) <= 0.05) <= 0.2


def test_halves_of_one_modality_are_not_at_zero():
    x, y = samples(100, 100, shift=0.0)
    found = discrepancy(x, y, "wasserstein_1", repeats=20, null="split")
    assert found.null.min() > 0.1
    assert found.null.mean() > found.value, "half the points, a larger distance: the cautious null"
    assert found.p_value > 0.5


def test_the_result_says_what_it_is():
    x, y = samples(30, 30, shift=2.0)
    assert str(discrepancy(x, y, "centroid")) == f"centroid {METRICS['centroid'](x, y):.4g}"
    assert "p = 0.1" in str(discrepancy(x, y, "centroid", repeats=9))
    again = discrepancy(x, y, "centroid", repeats=9)
    np.testing.assert_array_equal(again.null, discrepancy(x, y, "centroid", repeats=9).null)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.ones((4, 2)), np.ones((4, 3)), {}, r"\(4, 2\) and \(4, 3\)"),
        (np.ones((1, 2)), np.ones((4, 2)), {}, r"\(1, 2\)"),
        (np.full((4, 2), np.nan), np.ones((4, 2)), {}, "finite"),
        (np.ones((4, 2)), np.ones((4, 2)), {"metric": "wasserstien"}, "'wasserstien'.*wasserstein_1"),
        (np.ones((4, 2)), np.ones((4, 2)), {"null": "none"}, "permutation.*'none'"),
        (np.ones((30_000, 1)), np.ones((30_000, 1)), {}, "30000 and 30000 points.*7 GB.*sliced"),
    ],
)
def test_bad_input_is_named(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        discrepancy(x, y, **options)


def test_mixing_is_the_double_loop_and_knows_chance():
    x, y = samples(30, 20)
    points, modality = np.concatenate([x, y]), [0] * 30 + [1] * 20
    shares = []
    for i in range(50):
        others = sorted((j for j in range(50) if j != i), key=lambda j: np.linalg.norm(points[i] - points[j]))
        shares.append(np.mean([modality[j] != modality[i] for j in others[:7]]))
    share, chance = modality_mixing(x, y, 7)
    assert share == pytest.approx(np.mean(shares))
    assert chance == pytest.approx(np.mean([(20 if c == 0 else 30) / 49 for c in modality]))
    assert modality_mixing(*samples(300, 300, shift=0.0))[0] == pytest.approx(0.5, abs=0.03)
    assert modality_mixing(*samples(shift=50.0))[0] == 0
    with pytest.raises(ValueError, match="1 to 49 for 50 points, got 50"):
        modality_mixing(x, y, 50)
