"""Re-ranking without training, against plain loops and closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sarmatch.refinement import (
    METHODS,
    Evidence,
    Lists,
    create_refiner,
    expanded,
    list_refiners,
    lists_of,
    mean_reciprocal_rank,
    peaks,
    reordered,
)
from sarmatch.refinement.correlation import cfog, surfaces
from sarmatch.refinement.training_free import (
    correlation,
    diffusion,
    geographic_vote,
    graph_reranking,
    interpolated_map,
    k_reciprocal,
    matched_filter,
    query_expansion,
    super_global,
)
from sarmatch.search import Candidates, MapIndex
from tests.refinement.worlds import TILE, grid, unit, world


def whole_gallery(lists):
    """The same queries with all tiles in their lists, in gallery order."""
    reference = lists.evidence.reference
    cosine = lists.evidence.query @ reference.T
    every = np.tile(np.arange(len(reference)), (len(cosine), 1))
    return Candidates(every, cosine.astype(np.float32), lists.candidates.positions), lists.evidence


@pytest.fixture
def gallery():
    return whole_gallery(world(side=6, count=15)[0])


@pytest.mark.parametrize("name", [m for m in METHODS if m != "correlation"])
def test_a_score_belongs_to_its_tile_wherever_it_stands_in_the_list(name, gallery):
    """Scores do not depend on the order of the list, nor on where the map's origin lies."""
    candidates, evidence = gallery
    order = np.random.default_rng(0).permutation(candidates.indices.shape[1])
    if name in ("query_expansion", "super_global"):  # these ask for the first ones, and lists are best first
        order = np.arange(len(order))
    far = Candidates(
        candidates.indices[:, order], candidates.scores[:, order], candidates.positions + np.array([5e5, 5.7e6])
    )
    before, after = (METHODS[name].score(c, evidence)[0] for c in (candidates, far))
    np.testing.assert_allclose(after, before[:, order], atol=1e-6)


def test_k_reciprocal_against_plain_loops(gallery):
    candidates, evidence = gallery
    k1, k2, weight = 8, 3, 0.3
    both = np.concatenate([evidence.query, evidence.reference]).astype(np.float64)
    total, asked = len(both), len(evidence.query)
    d = np.array([[((a - b) ** 2).sum() for b in both] for a in both])
    d = d / d.max(axis=1, keepdims=True)
    near = [list(np.argsort(row, kind="stable")) for row in d]

    def reciprocal(i, k):
        return {j for j in near[i][: k + 1] if i in near[j][: k + 1]}

    described = np.zeros((total, total))
    for i in range(total):
        own = reciprocal(i, k1)
        members = set(own)
        for j in own:
            theirs = reciprocal(j, int(np.around(k1 / 2)))
            if len(theirs & own) > 2 / 3 * len(theirs):
                members |= theirs
        mass = sum(np.exp(-d[i, j]) for j in members)
        for j in members:
            described[i, j] = np.exp(-d[i, j]) / mass
    described = np.array([described[near[i][:k2]].mean(0) for i in range(total)])
    expected = np.zeros(candidates.scores.shape)
    for q in range(asked):
        for place, r in enumerate(candidates.indices[q]):
            shared = np.minimum(described[q], described[asked + r]).sum()
            expected[q, place] = -((1 - weight) * (1 - shared / (2 - shared)) + weight * d[q, asked + r])
    ours, _ = k_reciprocal(candidates, evidence, k1, k2, weight)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_graph_reranking_against_plain_loops(gallery):
    candidates, evidence = gallery
    k1, k2 = 9, 4
    both = np.concatenate([evidence.query, evidence.reference]).astype(np.float64)
    total, asked = len(both), len(evidence.query)
    cosine = both @ both.T
    near = [list(np.argsort(-row, kind="stable")) for row in cosine]
    described = np.zeros((total, total))
    for i in range(total):
        for j in near[i][:k1]:
            described[i, j] += 0.5
            described[j, i] += 0.5
    for _ in range(2):
        spread = np.zeros_like(described)
        for i in range(total):
            for j in near[i][:k2]:
                spread[i] += cosine[i, j] ** 2 * described[j]
        described = spread / np.linalg.norm(spread, axis=1, keepdims=True)
    expected = described[:asked] @ described[asked:].T
    ours, _ = graph_reranking(candidates, evidence, k1, k2)
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_vote_against_plain_loops(gallery):
    candidates, evidence = gallery
    positions = candidates.positions
    ours, _ = geographic_vote(candidates, evidence, weight=0.25, temperature=0.1)
    voice = np.exp((evidence.query @ evidence.reference.T).astype(np.float64) / 0.1)
    expected = np.zeros_like(voice)
    for q in range(len(voice)):
        for i in range(len(positions)):
            around = [
                j for j in range(len(positions)) if j != i and np.abs(positions[j] - positions[i]).max() < 1.5 * TILE
            ]
            expected[q, i] = np.log(voice[q, i] + 0.25 * sum(voice[q, j] for j in around))
    difference = ours - expected
    np.testing.assert_allclose(difference - difference[:, :1], 0, atol=1e-5)  # one constant per query


def test_expansion_and_super_global_by_hand():
    reference = unit(np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]]))
    query = unit(np.array([[1.0, 0.2, 0.1]]))
    candidates, evidence = MapIndex(reference, grid(2)[:3]).search(query, 3), Evidence(query, reference, TILE)
    moved = query[0] + sum(
        s**3 * reference[i] for i, s in zip(candidates.indices[0, :2], candidates.scores[0], strict=False)
    )
    moved /= np.linalg.norm(moved)
    ours, _ = query_expansion(candidates, evidence, alpha=3, best=2)
    np.testing.assert_allclose(ours[0], [moved @ reference[i] for i in candidates.indices[0]], atol=1e-6)

    beta, best = 0.15, 2
    listed = [reference[i].astype(float) for i in candidates.indices[0]]
    first = []
    for own in listed:
        near = sorted(listed, key=lambda other, own=own: -float(own @ other))[:best]
        mixed = sum((1.0 if other is own else beta) * other for other in near) / (1 + beta * (best - 1))
        first.append(float(query[0] @ (mixed / np.linalg.norm(mixed))))
    largest = np.maximum(query[0], np.max(listed[:best], axis=0))
    second = [float(largest / np.linalg.norm(largest) @ own) for own in listed]
    ours, _ = super_global(candidates, evidence, best=best, beta=beta)
    np.testing.assert_allclose(ours[0], (np.array(first) + second) / 2, atol=1e-6)


def test_diffusion_is_the_sum_of_all_walks(gallery):
    candidates, evidence = gallery
    alpha, k = 0.8, 5
    cosine = (evidence.reference @ evidence.reference.T).astype(np.float64)
    np.fill_diagonal(cosine, -np.inf)
    adjacent = np.zeros_like(cosine)
    for i, row in enumerate(cosine):
        for j in np.argsort(-row)[:k]:
            adjacent[i, j] = max(row[j], 0) ** 3
    adjacent = np.minimum(adjacent, adjacent.T)
    degree = np.maximum(adjacent.sum(1), 1e-12)
    walk = adjacent / np.sqrt(np.outer(degree, degree))
    y = np.zeros((len(evidence.query), len(cosine)))
    for q, row in enumerate(evidence.query @ evidence.reference.T):
        for j in np.argsort(-row)[:k]:
            y[q, j] = max(row[j], 0) ** 3
    total, step = np.zeros_like(y), y.copy()
    for _ in range(300):  # the Neumann series
        total, step = total + (1 - alpha) * step, alpha * step @ walk
    ours, _ = diffusion(candidates, evidence, k, alpha)
    np.testing.assert_allclose(ours, total + 1e-6 * candidates.scores, atol=1e-8)


def test_filter_and_interpolation_find_a_query_between_tiles():
    """Without noise, a query on the lattice is placed exactly, and its tile comes first."""
    positions = grid(6)
    reference = unit(np.random.default_rng(3).normal(size=(36, 64)))
    place = np.array([[225.0, 312.5], [137.5, 150.0 - 12.5]])
    share = np.clip(1 - np.abs(place[:, None] - positions) / TILE, 0, None).prod(-1)
    evidence = Evidence(unit(share @ reference), reference, TILE)
    candidates = MapIndex(reference, positions).search(evidence.query, 10)
    for method in (interpolated_map, matched_filter):
        options = {"whitened": False} if method is interpolated_map else {}
        scores, offsets = method(candidates, evidence, prior=0.0, **options)
        best = reordered(candidates, scores, offsets)
        if method is interpolated_map:
            np.testing.assert_allclose(best.places[:, 0], place, atol=1e-6)
        assert np.abs(best.places[:, 0] - place).max() <= TILE / 4
        np.testing.assert_array_equal(best.indices[:, 0], share.argmax(1))


def test_filters_beat_the_search_where_embeddings_follow_the_overlap():
    lists, place = world(side=10, count=200, k=20, noise=1.0, dim=32)
    truth = lists.share.argmax(1)
    coarse = (truth == 0).mean()
    for name in ("matched_filter", "interpolated_map"):
        refined = create_refiner(name).refine(lists.candidates, lists.evidence)
        hits = refined.indices[:, 0] == lists.candidates.indices[np.arange(200), truth]
        errors = [np.median(np.hypot(*(p - place).T)) for p in (refined.places[:, 0], lists.candidates.xy[:, 0])]
        assert hits.mean() >= coarse - 0.02
        assert errors[0] < 0.8 * errors[1]


def test_own_axes_forget_how_an_encoder_is_turned_and_which_queries_are_asked_together():
    lists, _ = world(side=8, dim=16)
    evidence = lists.evidence
    turn, _ = np.linalg.qr(np.random.default_rng(9).normal(size=(16, 16)))
    other = Evidence((evidence.query @ turn).astype(np.float32), (evidence.reference @ turn).astype(np.float32), TILE)
    for ours, theirs in zip(evidence.whitened, other.whitened, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    alone = Evidence(evidence.query[:1], evidence.reference, TILE)
    np.testing.assert_allclose(alone.whitened[0], evidence.whitened[0][:1], atol=1e-6)
    spread = evidence.whitened[1].std(0)
    assert spread.max() < 3 * np.median(spread)
    few = Evidence(evidence.query, evidence.reference[:5], TILE)  # fewer tiles than dimensions
    assert few.whitened[1].shape == (5, 16)
    assert np.isfinite(few.whitened[0]).all()


def picture(seed=0, side=300):
    """A map with structure at the scale of a few pixels."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 2)


def pixel_world(shift=(7, -4), r=32, contrast=1.0):
    """Nine tiles of one map, and a query cut `shift` pixels (down, right) from the middle one's corner."""
    image = picture(side=5 * r)
    corners = [(r + i * r, r + j * r) for i in range(3) for j in range(3)]
    ground = np.stack([image[a - r // 2 : a + r + r // 2, b - r // 2 : b + r + r // 2] for a, b in corners])
    a, b = corners[4][0] + shift[0], corners[4][1] + shift[1]
    query = contrast * image[None, a : a + r, b : b + r]
    positions = np.array([[100.0 * (j - 1), -100.0 * (i - 1)] for i in range(3) for j in range(3)])
    reference = unit(np.random.default_rng(1).normal(size=(9, 8)))
    images = lambda resolution: (torch.from_numpy(query), torch.from_numpy(ground))  # noqa: E731
    evidence = Evidence(reference[:1] * 1.0, reference, TILE, images)
    return MapIndex(reference, positions).search(evidence.query, 9), evidence


@pytest.mark.parametrize("contrast", [1.0, -3.0])
@pytest.mark.parametrize("shift", [(0, 0), (7, -4), (-11, 9), (0, 15)])
def test_correlation_finds_the_tile_and_the_place_in_it(shift, contrast):
    candidates, evidence = pixel_world(shift, contrast=contrast)
    scores, offsets = correlation(candidates, evidence, resolution=32, weight=0.0)
    refined = reordered(candidates, scores, offsets)
    assert refined.indices[0, 0] == 4
    expected = np.array([shift[1], -shift[0]]) / 32 * TILE
    np.testing.assert_allclose(refined.offsets[0, 0], expected, atol=0.6 * TILE / 32)
    assert refined.scores[0, 0] > 0.8


def test_surfaces_are_cosines_of_every_window():
    candidates, evidence = pixel_world()
    (surface,) = surfaces(candidates, evidence, 32)
    query, ground = (cfog(image) for image in evidence.images(32))
    for row, column in ((0, 0), (16, 16), (32, 5)):
        window = ground[candidates.indices[0, 2], :, row : row + 32, column : column + 32]
        expected = (window * query[0]).sum() / (window.norm() * query[0].norm())
        assert float(surface[0, 2, row, column]) == pytest.approx(float(expected), abs=1e-4)
    assert surface.abs().max() <= 1 + 1e-5


def test_peaks_are_refined_within_the_pixel():
    row, column = 9.3, 11.8
    y, x = np.mgrid[0:21, 0:21]
    surface = torch.from_numpy(1 - 0.01 * ((y - row) ** 2 + (x - column) ** 2))
    value, offset = peaks(surface[None], 100.0)
    np.testing.assert_allclose(offset[0], [(column - 10) * 5, -(row - 10) * 5], atol=1e-6)
    assert value[0] == pytest.approx(1 - 0.01 * (0.3**2 + 0.2**2))


def test_pixels_are_asked_for_by_name():
    lists, _ = world()
    with pytest.raises(ValueError, match="holds no images"):
        create_refiner("correlation").refine(lists.candidates, lists.evidence)


def test_candidates_behind_the_first_keep_their_order():
    candidates, evidence = pixel_world()
    refined = reordered(candidates, *correlation(candidates, evidence, best=3, resolution=32))
    np.testing.assert_array_equal(refined.indices[0, 3:], candidates.indices[0, 3:])
    assert set(refined.indices[0, :3]) == set(candidates.indices[0, :3])


def test_fit_takes_the_choice_that_finds_most():
    lists, _ = world(side=10, count=150, k=20, noise=1.0)
    refiner = create_refiner("geographic_vote", temperature=0.1).fit(lists)
    assert refiner.options["temperature"] == 0.1

    def found(weight):
        chosen = create_refiner("geographic_vote", temperature=0.1, weight=weight)
        return mean_reciprocal_rank(chosen.refine(lists.candidates, lists.evidence), lists)

    assert found(refiner.options["weight"]) == max(found(w) for w in (0.1, 0.25, 0.5))


def test_mean_reciprocal_rank_by_hand():
    candidates = Candidates(np.array([[4, 7, 2], [1, 2, 3], [5, 6, 8]]), np.zeros((3, 3), np.float32), np.zeros((9, 2)))
    share = np.array([[0.1, 0.6, 0.3], [0.9, 0.1, 0.0], [0.0, 0.2, 0.0]], np.float32)
    lists = Lists(candidates, None, share, None)
    assert mean_reciprocal_rank(candidates, lists) == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_expanded_lists_hold_the_neighbours_of_the_best():
    lists, _ = world(side=8, k=5, noise=1.5)
    longer = expanded(lists.candidates, lists.evidence, best=2, extra=16)
    assert longer.indices.shape == (40, 21)
    positions = lists.candidates.positions
    for few, many in zip(lists.candidates.indices, longer.indices, strict=True):
        assert set(few) <= set(many)
        assert len(set(many)) == 21
        for own in few[:2]:
            around = np.flatnonzero(np.abs(positions - positions[own]).max(1) < 150)
            assert set(around) <= set(many)
    cosine = lists.evidence.query @ lists.evidence.reference.T
    np.testing.assert_allclose(longer.scores, np.take_along_axis(cosine, longer.indices, 1), atol=1e-6)
    assert (np.diff(longer.scores, axis=1) <= 0).all()


def test_more_neighbours_than_tiles_give_the_whole_gallery():
    lists, _ = world(side=3, k=4)
    longer = expanded(lists.candidates, lists.evidence, extra=100)
    np.testing.assert_array_equal(np.sort(longer.indices, axis=1), np.tile(np.arange(9), (40, 1)))


def test_shares_of_a_list_add_up_to_the_query():
    lists, place = world(side=6, k=36)
    np.testing.assert_allclose(lists.share.sum(1), 1, atol=1e-5)  # inside the grid four tiles hold all of it
    few = lists_of(
        Candidates(lists.candidates.indices[:, -3:], lists.candidates.scores[:, -3:], lists.candidates.positions),
        lists.evidence,
        place,
    )
    assert (few.share.sum(1) <= 1 + 1e-6).all()


def test_bad_evidence_is_named():
    lists, _ = world()
    with pytest.raises(ValueError, match="of one dimension"):
        Evidence(lists.evidence.query, lists.evidence.reference[:, :3], TILE)
    with pytest.raises(ValueError, match="tile_m"):
        replace(lists.evidence, tile_m=0.0)
    with pytest.raises(ValueError, match="lists, but embeddings"):
        create_refiner("geographic_vote").refine(
            lists.candidates, replace(lists.evidence, query=lists.evidence.query[:3])
        )
    with pytest.raises(ValueError, match="no refiner is called 'gcn'"):
        create_refiner("gcn")
    blind = Candidates(lists.candidates.indices, lists.candidates.scores)
    with pytest.raises(ValueError, match="no coordinates"):
        create_refiner("geographic_vote").refine(blind, lists.evidence)
    assert "gnn" in list_refiners()
