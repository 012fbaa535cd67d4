"""Search from coarse to fine: what it finds is what the exhaustive search finds, where the coarse level lets it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, shift

import sarmatch as sm
from sarmatch.encoders import CFOGEncoder
from sarmatch.search import CoarseToFine, DenseGallery, DenseSearch, FeatureMap, build_maps
from sarmatch.search.coarse_to_fine import Levels, scores_around
from sarmatch.search.correlate import prepared
from tests.search.test_correlate import by_loop

RATIO = 4


def smooth(seed, side, channels=3, sigma=2.5):
    """Features that a level four times coarser still shows."""
    noise = np.random.default_rng(seed).normal(size=(channels, side, side))
    made = gaussian_filter(noise, (0, sigma, sigma))
    return torch.from_numpy(made / made.std()).float()


def two_levels(maps, centred=True):
    """A gallery of fine maps `(C, H, W)` by name, of one metre a cell, and their averages."""
    fine, coarse = {}, {}
    for i, (name, (features, valid)) in enumerate(maps.items()):
        corner = (1000.0 * i, 0.0)
        fine[name] = FeatureMap(features, valid, corner, 1.0, centred)
        whole = None if valid is None else F.avg_pool2d(valid[None].float(), RATIO)[0] == 1
        coarse[name] = FeatureMap(F.avg_pool2d(features, RATIO), whole, corner, float(RATIO), centred)
    return DenseGallery(fine, 1, DenseGallery(coarse, RATIO))


def levels(fine):
    return Levels(fine, F.avg_pool2d(fine, RATIO))


@pytest.fixture(scope="module")
def gallery():
    """Two areas, the first larger than a block of the coarse level."""
    return two_levels({"a": (smooth(0, 660), None), "b": (smooth(1, 200), None)})


def cut(gallery, places, size=40, noise=0.3):
    """Queries cut from a gallery at `(area, row, col)`, with noise, and where their centres are."""
    parts, centres = [], []
    for name, row, col in places:
        fmap = gallery.maps[name]
        parts.append(fmap.features[:, row : row + size, col : col + size])
        centres.append(fmap.metres_of(row + size / 2, col + size / 2))
    queries = torch.stack(parts)
    return queries + noise * torch.randn(queries.shape, generator=torch.Generator().manual_seed(0)), np.array(centres)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("centred", [True, False])
def test_where_everything_is_looked_at_again_the_best_is_that_of_the_exhaustive_search(centred, masked, holes):
    valid = torch.ones(24, 28, dtype=torch.bool)
    valid[4:15, 12:21] = not holes
    features = (torch.randn(3, 24, 28, generator=torch.Generator().manual_seed(3)) + 0.5) * valid
    maps = two_levels({"a": (features, valid if holes else None)}, centred)
    queries = torch.randn(5, 3, 12, 8, generator=torch.Generator().manual_seed(4))
    masks = torch.rand(5, 12, 8, generator=torch.Generator().manual_seed(5)) if masked else None
    true = DenseSearch(maps).search(queries, 1, masks)
    found = CoarseToFine(maps, keep=1, reach=20).search(levels(queries), 1, masks)
    assert found.valid.all()
    np.testing.assert_allclose(found.scores, true.scores, atol=1e-5)
    np.testing.assert_allclose(found.xy, true.xy, atol=1e-3)


def test_with_all_peaks_the_first_is_that_of_the_exhaustive_search_and_none_is_better():
    maps = two_levels({"a": (smooth(6, 160), None), "b": (smooth(7, 120), None)})
    queries = torch.stack([smooth(seed, 32) for seed in range(10, 30)])
    true = DenseSearch(maps).search(queries, 20)
    found = CoarseToFine(maps, keep=10_000).search(levels(queries), 20)
    np.testing.assert_allclose(found.scores[:, 0], true.scores[:, 0], atol=1e-5)
    np.testing.assert_allclose(found.xy[:, 0], true.xy[:, 0], atol=1e-3)
    assert (found.area[:, 0] == true.area[:, 0]).all() and set(found.area[:, 0]) == {0, 1}
    assert (found.scores <= true.scores + 1e-5).all()


@pytest.mark.parametrize(("size", "keep", "expected"), [(36, None, 60), (40, None, 30), (36, 7, 7)])
def test_of_a_small_query_more_peaks_are_looked_at_again(gallery, monkeypatch, size, keep, expected):
    kept, search = [], CoarseToFine(gallery, keep=keep)
    of = search.coarse_peaks
    monkeypatch.setattr(search, "coarse_peaks", lambda coarse, masks, k: kept.append(k) or of(coarse, masks, k))
    queries, centres = cut(gallery, [("a", 100, 200), ("b", 20, 30)], size)
    assert np.abs(search.search(levels(queries), 1).xy[:, 0] - centres).max() < 0.6
    assert kept == [expected]


@pytest.mark.parametrize("masked", [False, True])
def test_planted_queries_are_found_across_blocks_and_at_the_edges_of_areas(gallery, masked):
    places = [("a", row, col) for row in (0, 3, 308, 313, 620) for col in (0, 301, 311, 330, 620)]
    places += [("b", row, col) for row in (0, 1, 77, 160) for col in (0, 97, 159, 160)]
    queries, centres = cut(gallery, places)
    masks = None
    if masked:
        masks = torch.ones(len(queries), 40, 40)
        masks[:, :, 26:] = 0
        queries = torch.where(masks[:, None] > 0, queries, 3 * torch.randn(queries.shape))
    search = CoarseToFine(gallery, keep=10)
    (correlator, _) = search.coarse._correlators((10, 10))
    assert sum(map(len, correlator.groups)) > 1, "there are borders between blocks"
    found = search.search(levels(queries), 3, masks)
    assert [found.areas[a] for a in found.area[:, 0]] == [name for name, *_ in places]
    assert np.abs(found.xy[:, 0] - centres).max() < 0.6
    true = DenseSearch(gallery).search(queries, 1, masks)
    np.testing.assert_allclose(found.xy[:, 0], true.xy[:, 0], atol=1e-3)
    np.testing.assert_allclose(found.scores[:, 0], true.scores[:, 0], atol=1e-5)


@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.3, -0.4), (0.5, 0.25)])
def test_the_place_within_a_cell_is_that_of_the_exhaustive_search(gallery, moved):
    whole = gallery.maps["a"].features.double().numpy()
    query = torch.from_numpy(shift(whole, (0, *moved), order=3))[None, :, 101:141, 210:250].float()
    found = CoarseToFine(gallery).search(levels(query), 1).xy[0, 0]
    np.testing.assert_allclose(found, DenseSearch(gallery).search(query, 1).xy[0, 0], atol=1e-4)
    assert found[0] == pytest.approx(230 - moved[1], abs=0.1) and -found[1] == pytest.approx(121 - moved[0], abs=0.1)


@pytest.mark.parametrize("centred", [True, False])
def test_scores_around_a_place_are_those_of_a_loop(centred):
    features, valid = torch.randn(3, 30, 34), torch.ones(30, 34, dtype=torch.bool)
    valid[:12, 14:28] = False
    fmap = FeatureMap(features * valid, valid, (0.0, 0.0), 1.0, centred)
    corners = torch.tensor([[-1, -2], [5, 8], [21, 23]])
    query, mask = torch.randn(3, 7, 9), torch.rand(7, 9, generator=torch.Generator().manual_seed(0))
    true = F.pad(by_loop(fmap, query, mask), (4, 4, 4, 4), value=-torch.inf).float()
    made = prepared(query[None], mask[None], centred)[0]
    found = scores_around([fmap], made, mask, corners, torch.zeros(3).long(), 5)
    for (row, col), scores in zip(corners.tolist(), found, strict=True):
        torch.testing.assert_close(scores, true[row + 4 : row + 9, col + 4 : col + 9], atol=1e-5, rtol=0)


def test_lists_are_filled_up_and_hold_no_place_twice(gallery):
    queries, _ = cut(gallery, [("b", 50, 60)])
    found = CoarseToFine(gallery, keep=3).search(levels(queries), 12)
    assert found.scores.shape == (1, 12) and found.valid.sum() > 3, "as many peaks as candidates at least"
    near = np.abs(found.xy[0, :, None] - found.xy[0]).max(-1) < 4
    near &= (found.area[0, :, None] == found.area[0]) & found.valid[0, :, None] & found.valid[0]
    assert (near.sum(1)[found.valid[0]] == 1).all()
    short = two_levels({"a": (smooth(2, 44), None), "too small": (smooth(3, 20), None)})
    found = CoarseToFine(short).search(levels(queries), 12)
    assert found.valid[0, 0] and not found.valid[0, -1] and not found.area[found.valid].any()


@pytest.fixture(scope="module")
def encoder():
    """Orientation channels mixed, nothing learned."""
    torch.manual_seed(0)
    return sm.create_encoder("dense", coarse=2, width=8, channels=8, dilations=(1,))


def test_coarse_maps_are_built_along_and_kept_with_the_fine_ones(tiny_scene, encoder, tmp_path):
    built = build_maps(encoder, tiny_scene, keep=tmp_path)
    kept = build_maps(encoder, tiny_scene, keep=tmp_path)
    assert built.coarse.stride == 2 * built.stride == 4 and built.coarse.coarse is None
    assert len(list(tmp_path.iterdir())) == 1
    for one, other in ((built, kept), (built.coarse, kept.coarse)):
        assert one.areas == other.areas == tuple(a.name for a in tiny_scene.areas) and one.stride == other.stride
        for name in one.areas:
            assert torch.equal(one.maps[name].features, other.maps[name].features)
            assert one.maps[name][2:] == other.maps[name][2:]
    with pytest.raises(ValueError, match="32 x 3 px hold no cell of 4 px"):
        build_maps(encoder, tiny_scene, {tiny_scene.areas[0].name: (0, 0, 32, 3)})


def test_it_loses_little_against_the_exhaustive_search_of_a_town(tiny_scene, encoder):
    queries = sm.queries(tiny_scene, "arbitrary", 32, count=40, seed=1)
    images = torch.stack([torch.from_numpy(sm.read_patch(tiny_scene, q)) for q in queries.itertuples()])
    gallery, xy = build_maps(encoder, tiny_scene), queries[["x", "y"]].to_numpy()
    near = {}
    for search in (DenseSearch(gallery, encoder), CoarseToFine(gallery, encoder)):
        found = search.search(images.split(32), 1)
        near[type(search)] = (np.abs(found.xy[:, 0] - xy).max(1) < 8 * tiny_scene.pixel_size).mean()
    assert near[CoarseToFine] >= near[DenseSearch] - 0.03 > 0.3


def test_it_is_made_by_name_and_what_does_not_fit_is_named(gallery, tiny_scene):
    assert isinstance(sm.create_search("coarse_to_fine", gallery, keep=5), sm.CoarseToFine)
    plain = CFOGEncoder()
    with pytest.raises(ValueError, match="CFOGEncoder has no coarse level: search with DenseSearch"):
        CoarseToFine(gallery, plain)
    with pytest.raises(ValueError, match="these feature maps have no coarse level"):
        CoarseToFine(build_maps(plain, tiny_scene, [tiny_scene.areas[0].name]))
    with pytest.raises(ValueError, match="keep must be a whole number of at least 1, got 0"):
        CoarseToFine(gallery, keep=0)
    search = CoarseToFine(gallery)
    with pytest.raises(ValueError, match="no encoder"):
        search.search([torch.randn(1, 1, 40, 40)], 1)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
        search.search(levels(torch.randn(1, 3, 40, 40)), 0)
    with pytest.raises(ValueError, match=r"masks must be \(Q, h, w\)"):
        search.search(levels(torch.randn(1, 3, 40, 40)), 1, torch.ones(40, 40))
