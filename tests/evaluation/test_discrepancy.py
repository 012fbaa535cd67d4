"""Discrepancies against closed forms, against scipy, and under a null that they must not beat."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

from sarmatch.evaluation import METRICS, discrepancy, modality_mixing, wasserstein
from sarmatch.evaluation.discrepancy import (
    _disjoint_halves,
    bures,
    probe_accuracy,
    sinkhorn,
    sinkhorn_divergence,
    sliced_wasserstein,
)

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


def test_bures_of_fewer_points_than_dimensions_is_a_number():
    x, y = samples(20, 25, 60, shift=3.0)
    covariances = [np.cov(z.T, bias=True) for z in (x, y)]
    root = scipy.linalg.sqrtm(covariances[0] + 1e-10 * np.eye(60)).real
    cross = scipy.linalg.sqrtm(root @ (covariances[1] + 1e-10 * np.eye(60)) @ root).real
    expected = METRICS["centroid"](x, y) ** 2 + np.trace(covariances[0] + covariances[1] - 2 * cross)
    assert bures(x, y) == pytest.approx(np.sqrt(expected), rel=1e-4)
    assert bures(x, y) <= wasserstein(x, y, 2)


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


def at_places(n: int = 160, dim: int = 8, seed: int = 0):
    """Two modalities of one distribution: what a place has in common, and noise of each."""
    rng = np.random.default_rng(seed)
    common, x, y = rng.normal(size=(3, n, dim))
    return common + 0.3 * x, common + 0.3 * y


class TestNull:
    @pytest.mark.parametrize("name", ["wasserstein_1", "sliced", "mmd", "centroid", "probe"])
    def test_of_one_distribution_the_ratio_is_one(self, name):
        """The negative control, with pairs that are near each other: it is the places that make them so."""
        found = [discrepancy(*at_places(seed=s), name, repeats=10) for s in range(5)]
        assert np.mean([f.ratio for f in found]) == pytest.approx(1, abs=0.12)
        assert all(f.band[0] < 1 < f.band[1] for f in found)

    def test_of_new_samples_the_band_holds_one_nearly_always(self):
        found = [discrepancy(*at_places(120, seed=s), "centroid", repeats=20) for s in range(40)]
        assert np.mean([f.band[0] <= 1 <= f.band[1] for f in found]) >= 0.95

    @pytest.mark.parametrize("name", ["wasserstein_1", "sliced", "mmd", "centroid"])
    def test_a_difference_lies_beyond_it(self, name):
        x, y = at_places()
        found = discrepancy(x, y + 2, name, repeats=10)
        assert found.band[0] > 1.2
        assert found.band[0] <= found.ratio <= found.band[1]

    def test_halves_of_one_modality_were_no_null(self):
        """As many points at the same places lie nearer than half as many at others, without any difference."""
        x, y = at_places()
        assert wasserstein(x, y) / wasserstein(x[::2], x[1::2]) < 0.8
        assert discrepancy(x, y, repeats=10).ratio == pytest.approx(1, abs=0.05)

    def test_shrinking_one_modality_is_no_alignment(self):
        x, y = at_places(dim=64)
        assert wasserstein(x[::2], 0.1 * y[1::2]) < wasserstein(x[::2], x[1::2]), "all are nearer to the mean"
        assert discrepancy(x, 0.1 * y, repeats=5).ratio > 1.2

    def test_is_the_plain_loop_over_disjoint_halves(self):
        x, y = at_places(31)
        found = discrepancy(x, y + 1, "centroid", repeats=3, seed=5)
        rng = np.random.default_rng(5)
        for between, null in zip(found.between, found.null, strict=True):
            order = rng.permutation(31)
            a, b = (rng.permutation(np.sort(half))[:15] for half in (order[:15], order[15:]))
            gap = METRICS["centroid"]
            assert between == pytest.approx(gap(x[a], y[b] + 1))
            assert null == pytest.approx((gap(x[a], x[b]) + gap(y[a], y[b])) / 2)

    def test_does_not_change_with_the_unit_nor_with_the_order(self):
        x, y = at_places()
        once, scaled, swapped = (discrepancy(a, b, repeats=20) for a, b in ((x, y), (9 * x, 9 * y), (y, x)))
        assert scaled.ratio == pytest.approx(once.ratio)
        assert swapped.ratio == pytest.approx(once.ratio, rel=0.02)

    def test_rows_of_one_label_stay_together(self):
        labels, rng = np.repeat(np.arange(7), [1, 2, 3, 4, 5, 6, 20]), np.random.default_rng(0)
        for _ in range(20):
            a, b = _disjoint_halves(labels, rng)
            assert len(a) == len(b)
            assert not set(labels[a]) & set(labels[b])

    def test_copies_of_a_place_need_a_label(self):
        """Every place twice: without labels its copy is its own nearest partner in the other half."""
        x, y = (np.repeat(z, 2, axis=0) for z in at_places(80))
        free = discrepancy(x, y, repeats=10)
        labelled = discrepancy(x, y, repeats=10, places=np.repeat(np.arange(80), 2))
        assert free.ratio > 1.05, "a copy of the same modality is at zero"
        assert labelled.ratio == pytest.approx(1, abs=0.05)

    def test_unequal_samples_are_refused(self):
        x, y = samples(60, 30)
        with pytest.raises(ValueError, match="samples of equal size.*got 60 and 30 points"):
            discrepancy(x, y, repeats=5)
        assert discrepancy(x, y).value > 0, "the value itself needs no equal size"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"places": [1, 2, 3]}, r"one label for each of 10 rows, got \(3,\)"),
            ({"places": [1] * 10}, "there are 1 places"),
            ({"places": [1] + [2] * 9}, "two points or more, got 1"),
        ],
    )
    def test_labels_that_cannot_be_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            discrepancy(*samples(10, 10), repeats=1, **options)

    def test_points_that_are_all_alike_have_none(self):
        with pytest.raises(ValueError, match="all points are alike"):
            discrepancy(np.zeros((10, 2)), np.ones((10, 2)), repeats=1)


def test_the_result_says_what_it_is():
    x, y = samples(30, 30, shift=2.0)
    plain = discrepancy(x, y, "centroid")
    assert str(plain) == f"centroid {METRICS['centroid'](x, y):.4g}"
    assert np.isnan(plain.ratio)
    assert np.isnan(plain.band).all()
    again = discrepancy(x, y, "centroid", repeats=9)
    assert f"{again.ratio:.2f} times its null ({again.band[0]:.2f} to " in str(again)
    np.testing.assert_array_equal(again.null, discrepancy(x, y, "centroid", repeats=9).null)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.ones((4, 2)), np.ones((4, 3)), {}, r"\(4, 2\) and \(4, 3\)"),
        (np.ones((1, 2)), np.ones((4, 2)), {}, r"\(1, 2\)"),
        (np.full((4, 2), np.nan), np.ones((4, 2)), {}, "finite"),
        (np.ones((4, 2)), np.ones((4, 2)), {"metric": "wasserstien"}, "'wasserstien'.*wasserstein_1"),
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
