"""Metrics against plain loops, closed forms and chance; and the collapsed encoder that must not win."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from sarmatch import evaluation as ev


def random_case(seed: int, queries: int = 40, gallery: int = 60, levels: int = 15):
    """Scores on few levels, so that ties abound; up to three semi-positives, none of them the positive."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (queries, gallery)) / levels
    positive = rng.integers(0, gallery, queries)
    semi = [np.setdiff1d(rng.choice(gallery, rng.integers(0, 4), replace=False), p) for p in positive]
    return scores, positive, semi


def padded(semi: list[np.ndarray]) -> np.ndarray:
    rows = np.full((len(semi), 4), -1)
    for row, values in zip(rows, semi, strict=True):
        row[: len(values)] = values
    return rows


def embeddings(count: int, dim: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# Ranks and hits


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_ranks_and_hits_are_the_loops(seed):
    scores, positive, semi = random_case(seed)
    rank, hits = [], []
    for row, p, covered in zip(scores, positive, semi, strict=True):
        ahead = [j for j in range(len(row)) if j != p and row[j] >= row[p]]
        rank.append(len(ahead))
        hits.append(not set(ahead) - set(covered.tolist()))
    found = ev.ranks(scores, positive)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, rank)
    for k in (1, 5, 60):
        assert ev.recall_at_k(found, k) == pytest.approx(np.mean([r < k for r in rank]))
    assert ev.mean_reciprocal_rank(found) == pytest.approx(np.mean([1 / (r + 1) for r in rank]))
    assert ev.hit_rate(scores, positive, semi) == pytest.approx(np.mean(hits))
    assert ev.hit_rate(scores, positive, padded(semi)) == pytest.approx(np.mean(hits))
    assert ev.hit_rate(scores, positive, None) == ev.recall_at_k(found, 1)


def test_ranks_by_hand():
    scores = np.array([[0.9, 0.5, 0.5, 0.1], [0.9, 0.5, 0.4, 0.1], [0.2, 0.2, 0.2, 0.2]])
    np.testing.assert_array_equal(ev.ranks(scores, np.array([1, 1, 0])), [2, 1, 3])


def test_a_difference_below_the_tolerance_is_a_tie():
    scores = np.array([[0.5, 0.5 - 5e-7], [0.5, 0.5 - 5e-6]])
    np.testing.assert_array_equal(ev.ranks(scores, np.array([0, 0])), [1, 0])
    np.testing.assert_array_equal(ev.ranks(scores, np.array([0, 0]), tolerance=0), [0, 0])
    np.testing.assert_array_equal(ev.ranks(scores, np.array([0, 0]), tolerance=1e-4), [1, 1])
    np.testing.assert_array_equal(ev.ranks(np.full((1, 3), 0.5), np.array([0]), tolerance=0), [2])
    assert ev.hit_rate(scores, np.array([0, 0]), None, tolerance=0) == 1


def test_nan_ranks_last():
    nan = math.nan
    scores = np.array([[nan, 0.1, nan, 0.3], [nan, nan, nan, nan], [-math.inf, nan, 0.0, 0.0]])
    np.testing.assert_array_equal(ev.ranks(scores, np.array([1, 2, 0])), [1, 3, 2])
    np.testing.assert_array_equal(ev.ranks(scores, np.array([0, 0, 1])), [3, 3, 3])
    assert ev.hit_rate(scores, np.array([0, 0, 1]), None) == 0


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_a_collapsed_encoder_scores_no_better_than_chance(noise):
    count = 300
    rng = np.random.default_rng(0)
    point = embeddings(1, 64, seed=1)
    query, reference = (point + noise * rng.normal(size=(count, 64)).astype(np.float32) for _ in range(2))
    scores, positive = query @ reference.T, np.arange(count)
    semi = np.stack([(positive + 1) % count, (positive + 2) % count, (positive - 1) % count], axis=1)
    xy = np.stack([positive * 100.0, np.zeros(count)], axis=1)
    report = ev.retrieval_report(scores, positive, semi, xy, xy)
    for name in ("recall@1", "recall@5", "recall@10", "recall@1%", "mrr", "hit_rate"):
        assert report[name] <= report[f"{name}_chance"], name
    for name in ("within_10m", "within_100m"):
        assert report[name] <= report[f"chance_{name}"], name
    assert report["median_m"] >= report["chance_median_m"]
    # The control: the strict comparison that others use makes a perfect score of a collapse.
    flat = np.round(scores, 4)
    strict = (flat > flat[positive, positive][:, None]).sum(axis=1)
    assert (ev.recall_at_k(strict, 1), report["recall@1"]) == (1, 0)


def test_random_embeddings_score_chance():
    """An encoder that knows nothing lies within the 99.99 % binomial interval of each chance value."""
    queries, gallery = 2000, 200
    rng = np.random.default_rng(3)
    scores = embeddings(queries, 128, seed=1) @ embeddings(gallery, 128, seed=2).T
    positive = rng.integers(0, gallery, queries)
    semi = (positive[:, None] + [1, 2, 3]) % gallery
    reference_xy = np.stack(np.divmod(np.arange(gallery), 20), axis=1) * 50.0
    report = ev.retrieval_report(scores, positive, semi, reference_xy[positive], reference_xy)
    for name in ("recall@1", "recall@5", "recall@10", "recall@1%", "hit_rate"):
        low, high = binom.interval(0.9999, queries, report[f"{name}_chance"])
        assert low <= report[name] * queries <= high, name
    low, high = binom.interval(0.9999, queries, report["chance_within_100m"])
    assert low <= report["within_100m"] * queries <= high
    assert report["mrr"] == pytest.approx(report["mrr_chance"], abs=0.012)
    # The control: a weak signal leaves the interval.
    scores[np.arange(queries), positive] += 0.05
    better = ev.recall_at_k(ev.ranks(scores, positive), 10)
    assert better * queries > binom.interval(0.9999, queries, 10 / gallery)[1]


@pytest.mark.parametrize(("gallery", "k"), [(1, 1), (99, 1), (100, 1), (101, 2), (437, 5), (700, 7), (20000, 200)])
def test_one_percent_rounds_up(gallery, k):
    assert ev.one_percent(gallery) == k


# Metres


def test_localization_errors_are_euclidean():
    errors = ev.localization_errors([[0, 0], [10, 20], [5e6, 3e5]], [[3, 4], [10, 20], [5e6 + 5, 3e5 - 12]])
    np.testing.assert_allclose(errors, [5, 0, 13])


@pytest.mark.parametrize("missing", [None, [[math.nan, 0.0], [0.0, 0.0]], [[None, None], [0.0, 0.0]]])
def test_missing_positions_are_refused(missing):
    known = np.zeros((2, 2))
    with pytest.raises(ValueError, match="no coordinates"):
        ev.localization_errors(missing, known)
    with pytest.raises(ValueError, match="no coordinates"):
        ev.localization_errors(known, missing)
    with pytest.raises(ValueError, match="no coordinates"):
        ev.chance_errors(known, missing)
    with pytest.raises(ValueError, match="no coordinates"):
        ev.retrieval_report(np.eye(2), np.arange(2), None, known, missing)


def test_error_summary_by_hand():
    summary = ev.error_summary(np.arange(11) * 10.0, thresholds=(10, 12.5, 100))
    assert summary == {
        "median_m": 50.0,
        "p90_m": 90.0,
        "within_10m": pytest.approx(2 / 11),
        "within_12.5m": pytest.approx(2 / 11),
        "within_100m": 1.0,
    }


def test_thresholds_relative_to_a_tile_have_names_that_no_scene_changes():
    errors = np.array([3.0, 12.0, 30.0, 90.0])
    small, large = (ev.error_summary(scale * errors, tile_m=scale * 100) for scale in (1, 10))
    assert small.keys() == large.keys()
    tiles = [name for name in small if name.endswith("_tile")]
    assert tiles == ["within_0.1_tile", "within_0.25_tile", "within_0.5_tile", "within_1_tile"]
    assert [small[name] for name in tiles] == [0.25, 0.5, 0.75, 1.0] == [large[name] for name in tiles]
    assert [small[f"within_{t}m"] for t in (10, 25, 50, 100)] == [0.25, 0.5, 0.75, 1.0]
    assert large["within_100m"] == 0.25
    with pytest.raises(ValueError, match="tile_m must be a positive number of metres, got 0"):
        ev.error_summary(errors, tile_m=0)


def test_a_report_has_both_families_of_thresholds_beside_ceiling_and_chance():
    xy = np.stack([np.arange(6) * 80.0, np.zeros(6)], axis=1)
    scores = np.eye(6)[:, [1, 0, 2, 3, 4, 5]]
    report = ev.retrieval_report(scores, np.arange(6), None, xy, xy, tile_m=80.0)
    for prefix in ("", "ceiling_", "chance_"):
        assert {f"{prefix}within_{t}" for t in ("10m", "25m", "50m", "100m", "0.1_tile", "1_tile")} <= report.keys()
    assert report["within_1_tile"] == report["ceiling_within_1_tile"] == 1  # the two wrong ones are one tile off
    assert report["within_0.5_tile"] == pytest.approx(4 / 6)
    assert report["chance_within_1_tile"] == pytest.approx((6 + 2 * 5) / 36)
    assert not [name for name in ev.retrieval_report(scores, np.arange(6), None, xy, xy) if name.endswith("_tile")]
    assert ev.grid_ceiling(80, tile_m=80)["within_1_tile"] == 1
    assert ev.grid_ceiling(80, tile_m=80)["within_0.5_tile"] == pytest.approx(math.pi / 4)


@pytest.mark.parametrize("stride", [25.0, 50.0, 100.0])
def test_grid_ceiling_is_what_a_perfect_retriever_reaches(stride):
    rng = np.random.default_rng(0)
    query = rng.uniform(0, 20 * stride, (200_000, 2))
    centre = (np.floor(query / stride) + 0.5) * stride
    thresholds = (5, 0.3 * stride, 0.6 * stride, 0.7 * stride, stride)
    measured = ev.error_summary(ev.localization_errors(centre, query), thresholds)
    expected = ev.grid_ceiling(stride, thresholds)
    assert measured.keys() == expected.keys()
    for key, value in expected.items():
        tolerance = 0.005 * stride if key.endswith("_m") else 0.006
        assert measured[key] == pytest.approx(value, abs=tolerance), key


def test_grid_ceiling_closed_forms():
    hundred, fifty = ev.grid_ceiling(100), ev.grid_ceiling(50)
    assert hundred["median_m"] == pytest.approx(39.894, abs=1e-3)
    assert hundred["within_10m"] == pytest.approx(math.pi / 100)
    assert hundred["within_25m"] == pytest.approx(math.pi / 16)
    assert hundred["within_50m"] == pytest.approx(math.pi / 4)
    assert hundred["within_100m"] == 1
    assert fifty["median_m"] == pytest.approx(hundred["median_m"] / 2)
    assert ev.grid_ceiling(100, [hundred["p90_m"]]).popitem()[1] == pytest.approx(0.9)
    # No step where the disc leaves the cell (s / 2) or swallows it (s / sqrt 2).
    for edge in (50, 100 * math.sqrt(0.5)):
        near = list(ev.grid_ceiling(100, [edge - 1e-7, edge + 1e-7]).values())[2:]
        assert near[0] == pytest.approx(near[-1], abs=1e-7)


def test_chance_errors_are_those_of_all_pairs():
    rng = np.random.default_rng(4)
    true, reference = rng.uniform(0, 2000, (60, 2)), rng.uniform(-500, 1500, (70, 2))
    pairs = np.hypot(*(true[:, None] - reference[None]).transpose(2, 0, 1)).ravel()
    chance = ev.chance_errors(true, reference, thresholds=(100, 500))
    assert chance["median_m"] == pytest.approx(np.quantile(pairs, 0.5, method="inverted_cdf"), abs=2e-6)
    assert chance["p90_m"] == pytest.approx(np.quantile(pairs, 0.9, method="inverted_cdf"), abs=2e-6)
    assert chance["within_100m"] == (pairs <= 100).mean()
    assert chance["within_500m"] == (pairs <= 500).mean()


def test_chance_errors_on_a_large_map_follow_the_disc():
    """Far from the edges, a random reference lies within t with probability pi t^2 / area."""
    rng = np.random.default_rng(5)
    true, reference = rng.uniform(2000, 8000, (500, 2)), rng.uniform(0, 10_000, (20_000, 2))
    chance = ev.chance_errors(true, reference, thresholds=(100, 1000))
    assert chance["within_1000m"] == pytest.approx(math.pi * 1000**2 / 1e8, rel=0.02)
    assert chance["within_100m"] == pytest.approx(math.pi * 100**2 / 1e8, rel=0.1)


# The report


def test_report_of_a_perfect_retriever_reaches_the_ceiling():
    rng = np.random.default_rng(6)
    cell_xy = np.stack(np.meshgrid(np.arange(20), np.arange(20)), axis=-1).reshape(-1, 2) * 100.0
    positive = rng.integers(0, 400, 3000)
    query_xy = cell_xy[positive] + rng.uniform(-50, 50, (3000, 2))
    scores = -np.hypot(*(query_xy[:, None] - cell_xy[None]).transpose(2, 0, 1))
    report = ev.retrieval_report(scores, positive, None, query_xy, cell_xy)
    assert (report["queries"], report["gallery"]) == (3000, 400)
    assert (report["recall@1%_k"], report["recall@1%_chance"]) == (4, 0.01)
    assert report["recall@1"] == report["hit_rate"] == report["mrr"] == 1
    ideal = ev.grid_ceiling(100)
    for key, value in ideal.items():
        assert report[key] == report[f"ceiling_{key}"]
        assert report[key] == pytest.approx(value, abs=2.0 if key.endswith("_m") else 0.03), key
    assert report["chance_median_m"] > 500


def test_report_keys_and_chance():
    scores, positive, semi = random_case(1, queries=10, gallery=8)
    report = ev.retrieval_report(scores, positive, semi, ks=(1, 20))
    assert set(report) == {
        *("queries", "gallery", "recall@1", "recall@1_chance", "recall@20", "recall@20_chance"),
        *("recall@1%", "recall@1%_k", "recall@1%_chance", "mrr", "mrr_chance", "hit_rate", "hit_rate_chance"),
    }
    assert report["recall@20"] == report["recall@20_chance"] == 1
    assert report["hit_rate_chance"] == pytest.approx(np.mean([1 / (8 - len(row)) for row in semi]))
    # A semi-positive list that names the positive as well, or one reference twice, changes nothing.
    doubled = [np.concatenate([row, row, [p]]) for row, p in zip(semi, positive, strict=True)]
    assert ev.retrieval_report(scores, positive, doubled, ks=(1, 20)) == report


def test_report_has_no_nan_even_from_an_encoder_that_gives_only_nan():
    scores, positive = np.full((5, 9), math.nan), np.arange(5)
    xy = np.random.default_rng(7).uniform(0, 1000, (9, 2))
    report = ev.retrieval_report(scores, positive, None, xy[:5], xy)
    assert all(math.isfinite(value) for value in report.values())
    assert report["recall@1"] == report["within_100m"] == 0
    assert report["mrr"] == pytest.approx(1 / 9)


def test_of_several_best_the_farthest_is_the_answer():
    reference_xy = np.array([[0.0, 0], [300, 0], [100, 0]])
    report = ev.retrieval_report(np.array([[0.5, 0.5, 0.4]]), np.array([0]), None, np.zeros((1, 2)), reference_xy)
    assert report["median_m"] == 300
    assert report["ceiling_median_m"] == 0


def test_no_model_is_imported():
    modules = {name for name, module in sys.modules.items() if name.startswith("sarmatch.evaluation") and module}
    assert {"sarmatch.evaluation.metrics", "sarmatch.evaluation.bootstrap"} <= modules
    for name in modules:
        assert "torch" not in vars(sys.modules[name])


# The bootstrap


def test_blocks_are_squares_of_ground():
    xy = np.array([[0, 0], [499, 499], [500, 0], [-1, 0], [10, 10], [499, 500]])
    ids = ev.block_ids(xy, 500)
    assert ids.dtype == np.int64
    assert ids[0] == ids[1] == ids[4]
    assert sorted(set(ids.tolist())) == [0, 1, 2, 3]
    assert len({ids[0], ids[2], ids[3], ids[5]}) == 4


def test_bootstrap_of_identical_methods_is_zero():
    hits, blocks = np.random.default_rng(0).random(100) < 0.5, np.arange(100) // 10
    assert ev.bootstrap_difference(hits, hits, blocks) == (0, 0, 0)


def test_bootstrap_resamples_whole_blocks():
    """The same draws by loops: each query of a drawn block comes along, as often as the block is drawn."""
    rng = np.random.default_rng(1)
    values, blocks = rng.random(30), np.array([4] * 5 + [7] * 10 + [1] * 15)
    mean, low, high = ev.bootstrap_mean(values, blocks, draws=300, seed=5, level=0.8)
    counts = np.random.default_rng(5).multinomial(3, [1 / 3] * 3, size=300)
    means = []
    for times in counts:
        pool = [values[blocks == name] for name, t in zip([1, 4, 7], times, strict=True) for _ in range(t)]
        means.append(np.concatenate(pool).mean())
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])))
    assert ev.bootstrap_mean(values, blocks, seed=5) == ev.bootstrap_mean(values, blocks, seed=5)


def test_bootstrap_matches_the_standard_error_where_queries_are_independent():
    values = np.random.default_rng(2).normal(3, 2, 400)
    mean, low, high = ev.bootstrap_mean(values, np.arange(400), draws=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert (mean - low, high - mean) == pytest.approx((half, half), rel=0.1)


def test_bootstrap_covers_and_one_over_queries_does_not():
    """Queries of one block share their luck: blocks keep the promised 90 %, single queries break it."""
    covered, too_narrow, trials = 0, 0, 300
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        blocks = np.repeat(np.arange(40), 10)
        a = rng.normal(size=400) + rng.normal(size=40)[blocks]
        b = rng.normal(size=400)
        for name, kept in (("blocks", blocks), ("queries", np.arange(400))):
            _, low, high = ev.bootstrap_difference(a, b, kept, draws=300, level=0.9)
            if name == "blocks":
                covered += low <= 0 <= high
            else:
                too_narrow += low <= 0 <= high
    assert 0.84 <= covered / trials <= 0.95
    assert too_narrow / trials < 0.7


def test_bootstrap_is_paired():
    """A small steady gain on queries of very unequal difficulty shows in pairs only."""
    rng = np.random.default_rng(3)
    difficulty, blocks = rng.normal(0, 10, 300), np.arange(300) // 6
    a, b = difficulty + 0.2 + 0.1 * rng.normal(size=300), difficulty
    difference, low, high = ev.bootstrap_difference(a, b, blocks)
    assert 0 < low < difference < high
    _, low, high = ev.bootstrap_difference(a, rng.permutation(b), blocks)
    assert low < 0 < high


# Errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ev.ranks(np.zeros(3), np.zeros(3, int)), r"\(Q, N\).*\(3,\)"),
        (lambda: ev.ranks(np.zeros((0, 3)), np.zeros(0, int)), r"\(0, 3\)"),
        (lambda: ev.ranks(np.eye(3), np.arange(2)), r"3 integers.*\(2,\)"),
        (lambda: ev.ranks(np.eye(3), np.zeros(3)), "integers.*float64"),
        (lambda: ev.ranks(np.eye(3), np.array([0, 1, 3])), "gallery of 3 references, got 3"),
        (lambda: ev.ranks(np.eye(3), np.array([0, 1, -1])), "got -1"),
        (lambda: ev.hit_rate(np.eye(3), np.arange(3), [[1]]), "one row per query, 3, not 1"),
        (lambda: ev.hit_rate(np.eye(3), np.arange(3), [[1], [5], []]), "semi_positives.*got 5"),
        (lambda: ev.recall_at_k(np.array([]), 1), "at least one value"),
        (lambda: ev.recall_at_k(np.array([0]), 0), "k must be a whole number of at least 1, got 0"),
        (lambda: ev.mean_reciprocal_rank(np.array([])), "at least one value"),
        (lambda: ev.one_percent(0), "got 0"),
        (lambda: ev.localization_errors(np.zeros((2, 2)), np.zeros((3, 2))), r"\(2, 2\).*\(3, 2\)"),
        (lambda: ev.localization_errors(np.zeros((2, 3)), np.zeros((2, 3))), r"\(2, 3\)"),
        (lambda: ev.error_summary(np.array([1.0, math.nan])), "finite, got nan"),
        (lambda: ev.error_summary(np.array([])), "at least one value"),
        (lambda: ev.grid_ceiling(0), "got 0"),
        (lambda: ev.grid_ceiling(math.nan), "got nan"),
        (
            lambda: ev.retrieval_report(np.eye(3), np.arange(3), None, np.zeros((2, 2)), np.zeros((3, 2))),
            r"\(3, 3\).*2 queries and 3",
        ),
        (lambda: ev.block_ids(np.array([[math.nan, 0]]), 500), "coordinates"),
        (lambda: ev.block_ids(np.zeros((3, 2)), 0), "size_m.*got 0"),
        (lambda: ev.bootstrap_mean(np.zeros(3), np.zeros(3)), "at least 2 blocks, got 1"),
        (lambda: ev.bootstrap_mean(np.zeros(3), np.arange(4)), r"\(3,\) and \(4,\)"),
        (lambda: ev.bootstrap_mean(np.array([0, math.inf]), np.arange(2)), "finite, got inf"),
        (lambda: ev.bootstrap_mean(np.zeros(3), np.arange(3), level=1.0), "level.*1.0"),
        (lambda: ev.bootstrap_difference(np.zeros(3), np.zeros(4), np.arange(3)), r"\(3,\) and \(4,\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
