"""Re-ranking without training, against plain loops and closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sarmatch.patches import GreyMap
from sarmatch.refinement import (
    LabelledLists,
    RefinementContext,
    cfog,
    create_refiner,
    expanded,
    label_lists,
    list_refiners,
    peaks,
    rank_of_best,
    reciprocal_rank,
    register_refiner,
    surfaces,
)
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
from sarmatch.search import Candidates, Gallery, VectorSearch
from tests.refinement.worlds import TILE, context_of, grid, unit, whole_gallery, world

TRAINING_FREE = [name for name in list_refiners() if not create_refiner(name).learns]


@pytest.fixture
def gallery():
    context = world(side=6, count=15)[0].context
    return whole_gallery(context), context


@pytest.mark.parametrize("name", [m for m in TRAINING_FREE if m != "correlation"])
def test_a_score_belongs_to_its_tile_wherever_it_stands_in_the_list(name, gallery):
    """Scores do not depend on the order of the list, nor on where the map's origin lies."""
    candidates, context = gallery
    order = np.random.default_rng(0).permutation(candidates.tile.shape[1])
    if name in ("query_expansion", "super_global"):  # these ask for the first ones, and lists are best first
        order = np.arange(len(order))
    elsewhere = context_of(context.query, context.reference, context.gallery.xy + np.array([5e5, 5.7e6]))
    far = whole_gallery(elsewhere)
    far = Candidates(far.scores[:, order], far.xy[:, order], tile=far.tile[:, order])
    refiner = create_refiner(name)
    before, after = (refiner.score(c, e) for c, e in ((candidates, context), (far, elsewhere)))
    np.testing.assert_allclose(after[0], before[0][:, order], atol=1e-6)
    if before[1] is not None:
        np.testing.assert_allclose(after[1] - [5e5, 5.7e6], before[1][:, order], atol=1e-4)


def test_k_reciprocal_against_plain_loops(gallery):
    candidates, context = gallery
    k1, k2, weight = 8, 3, 0.3
    both = np.concatenate([context.query, context.reference]).astype(np.float64)
    total, asked = len(both), len(context.query)
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
        for place, r in enumerate(candidates.tile[q]):
            shared = np.minimum(described[q], described[asked + r]).sum()
            expected[q, place] = -((1 - weight) * (1 - shared / (2 - shared)) + weight * d[q, asked + r])
    ours, _ = k_reciprocal(candidates, context, k1, k2, weight)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_graph_reranking_against_plain_loops(gallery):
    candidates, context = gallery
    k1, k2 = 9, 4
    both = np.concatenate([context.query, context.reference]).astype(np.float64)
    total, asked = len(both), len(context.query)
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
    ours, _ = graph_reranking(candidates, context, k1, k2)
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_vote_against_plain_loops(gallery):
    candidates, context = gallery
    positions = context.gallery.xy
    ours, _ = geographic_vote(candidates, context, weight=0.25, temperature=0.1)
    voice = np.exp((context.query @ context.reference.T).astype(np.float64) / 0.1)
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
    context = context_of(query, reference, grid(2)[:3])
    candidates = VectorSearch(context.gallery).search(query, 3)
    moved = query[0] + sum(
        s**3 * reference[i] for i, s in zip(candidates.tile[0, :2], candidates.scores[0], strict=False)
    )
    moved /= np.linalg.norm(moved)
    ours, _ = query_expansion(candidates, context, alpha=3, best=2)
    np.testing.assert_allclose(ours[0], [moved @ reference[i] for i in candidates.tile[0]], atol=1e-6)

    beta, best = 0.15, 2
    listed = [reference[i].astype(float) for i in candidates.tile[0]]
    first = []
    for own in listed:
        near = sorted(listed, key=lambda other, own=own: -float(own @ other))[:best]
        mixed = sum((1.0 if other is own else beta) * other for other in near) / (1 + beta * (best - 1))
        first.append(float(query[0] @ (mixed / np.linalg.norm(mixed))))
    largest = np.maximum(query[0], np.max(listed[:best], axis=0))
    second = [float(largest / np.linalg.norm(largest) @ own) for own in listed]
    ours, _ = super_global(candidates, context, best=best, beta=beta)
    np.testing.assert_allclose(ours[0], (np.array(first) + second) / 2, atol=1e-6)


def test_diffusion_is_the_sum_of_all_walks(gallery):
    candidates, context = gallery
    alpha, k = 0.8, 5
    cosine = (context.reference @ context.reference.T).astype(np.float64)
    np.fill_diagonal(cosine, -np.inf)
    adjacent = np.zeros_like(cosine)
    for i, row in enumerate(cosine):
        for j in np.argsort(-row)[:k]:
            adjacent[i, j] = max(row[j], 0) ** 3
    adjacent = np.minimum(adjacent, adjacent.T)
    degree = np.maximum(adjacent.sum(1), 1e-12)
    walk = adjacent / np.sqrt(np.outer(degree, degree))
    y = np.zeros((len(context.query), len(cosine)))
    for q, row in enumerate(context.query @ context.reference.T):
        for j in np.argsort(-row)[:k]:
            y[q, j] = max(row[j], 0) ** 3
    total, step = np.zeros_like(y), y.copy()
    for _ in range(300):  # the Neumann series
        total, step = total + (1 - alpha) * step, alpha * step @ walk
    ours, _ = diffusion(candidates, context, k, alpha)
    np.testing.assert_allclose(ours, total + 1e-6 * candidates.scores, atol=1e-8)


def test_filter_and_interpolation_find_a_query_between_tiles():
    """Without noise, a query on the lattice is placed exactly, and its tile comes first."""
    positions = grid(6)
    reference = unit(np.random.default_rng(3).normal(size=(36, 64)))
    place = np.array([[225.0, 312.5], [137.5, 150.0 - 12.5]])
    share = np.clip(1 - np.abs(place[:, None] - positions) / TILE, 0, None).prod(-1)
    context = context_of(unit(share @ reference), reference, positions)
    candidates = VectorSearch(context.gallery).search(context.query, 10)
    for method in (interpolated_map, matched_filter):
        options = {"whitened": False} if method is interpolated_map else {}
        best = candidates.reorder(*method(candidates, context, prior=0.0, **options))
        if method is interpolated_map:
            np.testing.assert_allclose(best.xy[:, 0], place, atol=1e-6)
        assert np.abs(best.xy[:, 0] - place).max() <= TILE / 4
        np.testing.assert_array_equal(best.tile[:, 0], share.argmax(1))


def test_filters_beat_the_search_where_embeddings_follow_the_overlap():
    lists, place = world(side=10, count=200, k=20, noise=1.0, dim=32)
    truth = lists.overlap.argmax(1)
    coarse = (truth == 0).mean()
    for name in ("matched_filter", "interpolated_map"):
        refined = create_refiner(name).refine(lists.candidates, lists.context)
        hits = refined.tile[:, 0] == lists.candidates.tile[np.arange(200), truth]
        errors = [np.median(np.hypot(*(p - place).T)) for p in (refined.xy[:, 0], lists.candidates.xy[:, 0])]
        assert hits.mean() >= coarse - 0.02
        assert errors[0] < 0.8 * errors[1]


def test_own_axes_forget_how_an_encoder_is_turned_and_which_queries_are_asked_together():
    lists, _ = world(side=8, dim=16)
    context = lists.context
    turn, _ = np.linalg.qr(np.random.default_rng(9).normal(size=(16, 16)))
    positions = context.gallery.xy
    other = context_of(
        unit((context.query @ turn).astype(np.float32)), unit((context.reference @ turn).astype(np.float32)), positions
    )
    for ours, theirs in zip(context.whitened, other.whitened, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    alone = context_of(context.query[:1], context.reference, positions)
    np.testing.assert_allclose(alone.whitened[0], context.whitened[0][:1], atol=1e-6)
    spread = context.whitened[1].std(0)
    assert spread.max() < 3 * np.median(spread)
    few = context_of(context.query, context.reference[:5], positions[:5])  # fewer tiles than dimensions
    assert few.whitened[1].shape == (5, 16)
    assert np.isfinite(few.whitened[0]).all()


def test_a_search_with_whitened_embeddings_is_the_same_order_of_the_list():
    """The baseline of what sees whitened embeddings: no learning, and yet another order than the cosine's."""
    lists, _ = world(side=8, dim=16)
    query, reference = lists.context.whitened
    cosine = np.array([[q @ reference[i] for i in row] for q, row in zip(query, lists.candidates.tile, strict=True)])
    refined = create_refiner("whitened").refine(lists.candidates, lists.context)
    order = np.argsort(-cosine, axis=1, kind="stable")
    assert np.array_equal(refined.tile, np.take_along_axis(lists.candidates.tile, order, 1))
    assert not np.array_equal(refined.tile, lists.candidates.tile)


def picture(seed=0, side=300):
    """A map with structure at the scale of a few pixels."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 2)


class Pixels:
    """Pixels of one map and some queries, made elsewhere; counts how often each is asked for."""

    def __init__(self, queries: np.ndarray, maps: dict[str, GreyMap]) -> None:
        self.of_queries, self.maps, self.asked = torch.from_numpy(queries), maps, []

    def queries(self, resolution: int) -> torch.Tensor:
        return self.of_queries

    def map(self, area: str, resolution: int) -> GreyMap:
        self.asked.append(area)
        return self.maps[area]


def pixel_world(shift=(7, -4), r=32, contrast=1.0, valid=None, places=None):
    """A map of 5 x 5 tiles with its middle nine as gallery, and a query `shift` pixels (down, right) from the middle.

    With `places` `(K, 2)` in metres from the middle, candidates lie there, without tiles.
    """
    image = picture(side=5 * r).astype(np.float32)
    a, b = 2 * r + shift[0], 2 * r + shift[1]
    query = contrast * image[None, a : a + r, b : b + r]
    positions = np.array([[100.0 * (j - 1), -100.0 * (i - 1)] for i in range(3) for j in range(3)])
    reference = unit(np.random.default_rng(1).normal(size=(9, 8)))
    pixels = Pixels(query, {"map": GreyMap(image, valid, (-250.0, 250.0), TILE / r)})
    context = context_of(reference[:1] * 1.0, reference, positions, pixels=pixels)
    if places is None:
        return VectorSearch(context.gallery).search(context.query, 9), context
    return Candidates(np.zeros((1, len(places)), np.float32), np.asarray(places, np.float64)[None]), context


@pytest.mark.parametrize("contrast", [1.0, -3.0])
@pytest.mark.parametrize("shift", [(0, 0), (7, -4), (-11, 9), (0, 15)])
def test_correlation_finds_the_tile_and_the_place_in_it(shift, contrast):
    candidates, context = pixel_world(shift, contrast=contrast)
    refined = candidates.reorder(*correlation(candidates, context, resolution=32, weight=0.0))
    assert refined.tile[0, 0] == 4
    expected = np.array([shift[1], -shift[0]]) / 32 * TILE
    np.testing.assert_allclose(refined.xy[0, 0], expected, atol=0.6 * TILE / 32)
    assert refined.scores[0, 0] > 0.8


def surface_by_loops(query, image, centre, r, valid=None):
    """Cosine of the query's channels with those of every window around a place (row, column), all less their means."""
    features = cfog(torch.from_numpy(image)[None])[0].numpy()
    if valid is not None:
        height, width = valid.shape
        for row in range(height):
            for column in range(width):
                diamond = [(row + i, column + j) for i in range(-4, 5) for j in range(-4, 5) if abs(i) + abs(j) <= 4]
                inside = [(i, j) for i, j in diamond if 0 <= i < height and 0 <= j < width]
                if not all(valid[i, j] for i, j in inside):
                    features[:, row, column] = 0
    query = cfog(torch.from_numpy(query)[None])[0].numpy()
    query = query - query.mean((1, 2), keepdims=True)
    top, left = centre[0] - r, centre[1] - r
    around = features[:, top : top + 2 * r, left : left + 2 * r]
    around = around - around.mean((1, 2), keepdims=True)
    found = np.zeros((r + 1, r + 1))
    for row in range(r + 1):
        for column in range(r + 1):
            window = around[:, row : row + r, column : column + r]
            found[row, column] = (window * query).sum() / np.sqrt((window**2).sum() * (query**2).sum())
    return found


@pytest.mark.parametrize("hole", [False, True])
def test_surfaces_are_cosines_of_every_window(hole):
    r, valid = 16, None
    if hole:  # no data over a part of the second row of tiles
        valid = np.ones((5 * r, 5 * r), bool)
        valid[r + 3 : 2 * r, 2 * r + 5 : 4 * r] = False
    candidates, context = pixel_world(shift=(3, -2), r=r, valid=valid)
    ((surface, off),) = surfaces(candidates, context, r)
    assert surface.shape == (1, 9, r + 1, r + 1)
    assert surface.abs().max() <= 1 + 1e-5
    np.testing.assert_allclose(off, 0, atol=1e-9)
    image = context.pixels.maps["map"].image
    for place in (0, 2, 5, 8):
        i, j = divmod(int(candidates.tile[0, place]), 3)
        centre = ((i + 1) * r + r // 2, (j + 1) * r + r // 2)
        expected = surface_by_loops(context.pixels.of_queries[0].numpy(), image, centre, r, valid)
        np.testing.assert_allclose(surface[0, place], expected, atol=1e-4)


def test_where_there_is_no_data_there_is_no_edge():
    """What fills a hole of the map makes no edge around it, however far it is from what lies beside."""
    r, valid = 32, np.ones((160, 160), bool)
    valid[64:96, 64:96] = False  # the middle tile
    candidates, context = pixel_world(r=r, valid=valid)
    grey = context.pixels.maps["map"]
    found = []
    for filling in (0.0, 50.0):
        context.pixels.maps["map"] = grey._replace(image=np.where(valid, grey.image, filling).astype(np.float32))
        ((surface, _),) = surfaces(candidates, context, r)
        assert torch.isfinite(surface).all()
        found.append(surface)
    torch.testing.assert_close(*found, atol=1e-3, rtol=0)


@pytest.mark.parametrize("r", [32, 25])
@pytest.mark.parametrize("place", [(0.0, 0.0), (13.7, -21.3), (-0.5, 24.9), (-38.1, 7.77)])
def test_a_peak_is_found_from_any_candidate_place(place, r):
    """Not only tile centres: the truth is a place, less what its window misses it by, and the peak."""
    shift = (5, -3)
    truth = np.array([shift[1], -shift[0]]) * TILE / r
    candidates, context = pixel_world(shift=shift, r=r, places=[place])
    ((surface, off),) = surfaces(candidates, context, r)
    assert np.abs(off).max() <= 0.5 * TILE / r + 1e-9
    value, peak = peaks(surface, TILE)
    np.testing.assert_allclose(candidates.xy - off + peak, truth[None, None], atol=0.5 * TILE / r)
    assert value > 0.8
    refined = candidates.reorder(*correlation(candidates, context, resolution=r))
    np.testing.assert_allclose(refined.xy[0, 0], truth, atol=0.5 * TILE / r)


def test_windows_that_queries_share_are_cut_once(monkeypatch):
    from sarmatch.refinement import correlation as module

    candidates, context = pixel_world(r=16)
    count = 10
    context = context_of(
        np.repeat(context.query, count, 0),
        context.reference,
        context.gallery.xy,
        pixels=Pixels(context.pixels.of_queries.repeat(count, 1, 1).numpy(), context.pixels.maps),
    )
    lists = candidates.rows(np.zeros(count, int))
    cut, made = [], []
    window, features = module._Cutter._window, module.map_features
    monkeypatch.setattr(
        module._Cutter, "_window", lambda self, *place: cut.append(tuple(map(int, place))) or window(self, *place)
    )
    monkeypatch.setattr(module, "map_features", lambda grey: made.append(1) or features(grey))
    parts = [surface for surface, _ in surfaces(lists, context, 16)]
    assert len(cut) == len(set(cut)) == 9
    assert made == [1]
    assert context.pixels.asked == ["map"]
    whole = torch.cat(parts)
    torch.testing.assert_close(whole, whole[:1].expand_as(whole))


def test_candidates_of_several_areas_look_at_their_own_map():
    candidates, context = pixel_world(r=32)
    blank = GreyMap(picture(seed=9, side=160).astype(np.float32), None, (750.0, 250.0), TILE / 32)
    context.pixels.maps["other"] = blank
    both = Candidates(
        np.zeros((1, 2), np.float32), np.array([[[1000.0, 0.0], [0.0, 0.0]]]), np.array([[1, 0]]), ("map", "other")
    )
    refined = both.reorder(*correlation(both, context, resolution=32, weight=0.0))
    assert refined.area.tolist() == [[0, 1]]
    assert refined.scores[0, 0] > 0.8 > 0.5 > refined.scores[0, 1]


def test_far_beside_the_map_nothing_correlates():
    candidates, context = pixel_world(r=16, places=[(0.0, 0.0), (1e5, -1e5), (-260.0, 0.0)])
    ((surface, _),) = surfaces(candidates, context, 16)
    assert torch.isfinite(surface).all()
    assert (surface[0, 1] == 0).all()


def test_peaks_are_refined_within_the_pixel():
    row, column = 9.3, 11.8
    y, x = np.mgrid[0:21, 0:21]
    surface = torch.from_numpy(1 - 0.01 * ((y - row) ** 2 + (x - column) ** 2))
    value, offset = peaks(surface[None], 100.0)
    np.testing.assert_allclose(offset[0], [(column - 10) * 5, -(row - 10) * 5], atol=1e-6)
    assert value[0] == pytest.approx(1 - 0.01 * (0.3**2 + 0.2**2))


def test_a_peak_on_the_rim_stays_there():
    """One of its neighbours is missing: nothing says that it lies further out, on the next tile."""
    y, x = np.mgrid[0:21, 0:21]
    for row, column, expected in ((0, 10, (0, 50)), (20, 20, (50, -50)), (10, 0, (-50, 0))):
        surface = torch.from_numpy(1 - 0.01 * ((y - row) ** 2 + (x - column) ** 2))
        np.testing.assert_allclose(peaks(surface[None], 100.0)[1][0], expected, atol=1e-6)


def test_pixels_are_asked_for_by_name():
    lists, _ = world()
    with pytest.raises(ValueError, match="'correlation' requires pixels"):
        create_refiner("correlation").refine(lists.candidates, lists.context)


def test_candidates_behind_the_first_keep_their_order():
    candidates, context = pixel_world()
    refined = candidates.reorder(*correlation(candidates, context, best=3, resolution=32))
    np.testing.assert_array_equal(refined.tile[0, 3:], candidates.tile[0, 3:])
    assert set(refined.tile[0, :3]) == set(candidates.tile[0, :3])


def test_fit_takes_the_choice_that_finds_most():
    lists, _ = world(side=10, count=150, k=20, noise=1.0)
    refiner = create_refiner("geographic_vote", temperature=0.1).fit([lists])
    assert refiner.options["temperature"] == 0.1

    def found(weight):
        chosen = create_refiner("geographic_vote", temperature=0.1, weight=weight)
        return reciprocal_rank([chosen.refine(lists.candidates, lists.context)], [lists])

    assert found(refiner.options["weight"]) == max(found(w) for w in (0.1, 0.25, 0.5))


def test_reciprocal_rank_by_hand():
    tile = np.array([[4, 7, 2], [1, 2, 3], [5, 6, 8]])
    candidates = Candidates(np.zeros((3, 3), np.float32), tile=tile)
    overlaps = np.array([[0.1, 0.6, 0.3], [0.9, 0.1, 0.0], [0.0, 0.2, 0.0]], np.float32)
    lists = LabelledLists(candidates, None, overlaps, None)
    assert rank_of_best(candidates, lists).tolist() == [1, 0, np.inf]
    assert reciprocal_rank([candidates], [lists]) == pytest.approx((1 / 2 + 1 + 0) / 3)
    # in refined lists the tile counts, wherever it stands; parts of several galleries are one mean over queries
    other = Candidates(np.zeros((1, 3), np.float32), tile=np.array([[2, 4, 7]]))
    alone = LabelledLists(candidates.rows([0]), None, overlaps[:1], None)
    assert rank_of_best(other, alone).tolist() == [2]
    assert reciprocal_rank([candidates, other], [lists, alone]) == pytest.approx((1 / 2 + 1 + 0 + 1 / 3) / 4)


def test_expanded_lists_hold_the_neighbours_of_the_best():
    lists, _ = world(side=8, k=5, noise=1.5)
    longer = expanded(lists.candidates, lists.context, best=2, extra=16)
    assert longer.tile.shape == (40, 21)
    positions = lists.context.gallery.xy
    for few, many in zip(lists.candidates.tile, longer.tile, strict=True):
        assert set(few) <= set(many)
        assert len(set(many)) == 21
        for own in few[:2]:
            around = np.flatnonzero(np.abs(positions - positions[own]).max(1) < 150)
            assert set(around) <= set(many)
    cosine = lists.context.query @ lists.context.reference.T
    np.testing.assert_allclose(longer.scores, np.take_along_axis(cosine, longer.tile, 1), atol=1e-6)
    assert (np.diff(longer.scores, axis=1) <= 0).all()


def test_more_neighbours_than_tiles_give_the_whole_gallery():
    lists, _ = world(side=3, k=4)
    longer = expanded(lists.candidates, lists.context, extra=100)
    np.testing.assert_array_equal(np.sort(longer.tile, axis=1), np.tile(np.arange(9), (40, 1)))


def test_overlaps_of_a_list_add_up_to_the_query():
    lists, place = world(side=6, k=36)
    np.testing.assert_allclose(lists.overlap.sum(1), 1, atol=1e-5)  # inside the grid four tiles hold all of it
    given = lists.candidates
    few = Candidates(given.scores[:, -3:], given.xy[:, -3:], tile=given.tile[:, -3:])
    assert (label_lists(few, lists.context, place).overlap.sum(1) <= 1 + 1e-6).all()


def test_labels_of_candidates_against_plain_loops():
    lists, place = world(count=10)
    for q, k in np.ndindex(lists.overlap.shape):
        apart = (place[q] - lists.candidates.xy[q, k]) / TILE
        held = max(1 - abs(apart[0]), 0) * max(1 - abs(apart[1]), 0)
        assert lists.overlap[q, k] == pytest.approx(held, abs=1e-6)
        assert lists.shift[q, k] == pytest.approx(apart, rel=1e-5)
    filled = Candidates(lists.candidates.scores, lists.candidates.xy, valid=np.zeros(lists.overlap.shape, bool))
    assert (label_lists(filled, lists.context, place).overlap == 0).all()


def test_a_bad_context_is_named():
    lists, _ = world()
    with pytest.raises(ValueError, match="of one dimension"):
        context_of(lists.context.query, unit(lists.context.reference[:, :3]), lists.context.gallery.xy)
    with pytest.raises(ValueError, match="tile_m"):
        Gallery.of_vectors(lists.context.reference, tile_m=0.0)
    with pytest.raises(ValueError, match="does not know how wide a tile is"):
        _ = RefinementContext(Gallery.of_vectors(lists.context.reference)).tile_m
    with pytest.raises(ValueError, match="lists, but embeddings"):
        create_refiner("geographic_vote").refine(
            lists.candidates, replace(lists.context, query=lists.context.query[:3])
        )
    with pytest.raises(ValueError, match="tile 63 lies outside a gallery of 20 tiles"):
        few = context_of(lists.context.query, lists.context.reference[:20], lists.context.gallery.xy[:20])
        tile = lists.candidates.tile.copy()
        tile[0, 0] = 63
        create_refiner("geographic_vote").refine(replace(lists.candidates, tile=tile), few)
    with pytest.raises(ValueError, match="no refiner is called 'gcn'"):
        create_refiner("gcn")
    assert "gnn" in list_refiners()


def without(what: str, lists: LabelledLists) -> tuple[Candidates, RefinementContext]:
    """The same lists and context, but for one thing."""
    candidates, context = lists.candidates, lists.context
    if what == "tiles":
        return replace(candidates, tile=None), context
    if what == "vectors":
        return candidates, replace(context, query=None)
    if what == "metres":
        return replace(candidates, places=None), replace(context, gallery=Gallery.of_vectors(context.reference))
    return candidates, replace(context, pixels=None)


@pytest.mark.parametrize("name", list_refiners())
@pytest.mark.parametrize("what", ["tiles", "vectors", "metres", "pixels"])
def test_what_a_refiner_requires_and_does_not_find_is_one_error(name, what):
    lists = world()[0]
    lists = lists._replace(context=replace(lists.context, pixels=Pixels(np.zeros((40, 4, 4), np.float32), {})))
    refiner = create_refiner(name)
    if what not in refiner.requires:
        return
    if refiner.learns:
        refiner.network = torch.nn.Linear(1, 1)  # anything that has learned
    with pytest.raises(ValueError, match=rf"refiner '{name}' requires {what} \([a-z ]+\), and there is none"):
        refiner.refine(*without(what, lists))


def test_all_that_is_missing_is_named_at_once():
    lists, _ = world()
    candidates, context = without("metres", lists)
    with pytest.raises(ValueError, match=r"'geographic_vote' requires tiles .* and vectors .* and metres"):
        create_refiner("geographic_vote").refine(replace(candidates, tile=None), replace(context, query=None))


def test_a_function_of_a_user_becomes_a_refiner_in_a_cell_that_runs_twice(monkeypatch):
    from sarmatch.refinement import REFINERS

    monkeypatch.setattr(REFINERS, "_things", dict(REFINERS._things))
    monkeypatch.setattr(REFINERS, "_origins", dict(REFINERS._origins))
    lists, place = world(count=60, noise=1.0)

    def cell(sign):
        @register_refiner("own", ("vectors",), weight=(1.0, -1.0))
        def own(candidates, context, weight=1.0):
            return sign * weight * candidates.scores, candidates.xy + 1.0

        return own

    cell(1.0)
    assert cell(-1.0)(lists.candidates, lists.context)[0][0, 0] == -lists.candidates.scores[0, 0]
    assert "own" in list_refiners()
    refiner = create_refiner("own").fit([lists])
    assert refiner.options == {"weight": -1.0}  # of the second cell, whose sign it turns around
    refined = refiner.refine(lists.candidates, lists.context)
    np.testing.assert_array_equal(refined.tile, lists.candidates.tile)
    np.testing.assert_array_equal(refined.xy, lists.candidates.xy + 1.0)
    assert create_refiner("own", weight=1.0).fit([lists]).options == {"weight": 1.0}  # what is given stands
    with pytest.raises(ValueError, match="'own' requires vectors"):
        refiner.refine(*without("vectors", lists))
    with pytest.raises(ValueError, match="already called 'coarse'"):
        register_refiner("coarse")(cell(1.0))
