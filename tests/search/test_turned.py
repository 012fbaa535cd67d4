"""Search for unknown heading and scale: planted queries that are turned and scaled, and what is found of them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

import sarmatch as sm
from sarmatch.encoders import Encoder, Inputs
from sarmatch.search import CoarseToFine, DenseGallery, DenseSearch, FeatureMap
from sarmatch.search.peaks import Peaks, apart, suppress
from sarmatch.search.turned import EVEN, FINER, HEADINGS, Pose, turned

SIDE, WIDE = 48, 80  # of a query, and of what it is cut from once that is turned
PLACES = [(20, 30), (61, 150), (140, 77), (130, 160)]


class Pixels(Encoder):
    """Features are the pixels themselves, and their averages."""

    inputs = {side: Inputs(1, None) for side in ("query", "reference")}
    stride, reach, centred = 1, 0, True
    levels = (1, 4)

    def forward_levels(self, images, modality):
        return images, F.avg_pool2d(images, 4)


def ground(seed, side=240):
    noise = np.random.default_rng(seed).normal(size=(1, side, side))
    made = gaussian_filter(noise, (0, 3, 3))
    return torch.from_numpy(made / made.std()).float()


@pytest.fixture(scope="module")
def gallery():
    features = ground(0)
    coarse = FeatureMap(F.avg_pool2d(features, 4), None, (0.0, 0.0), 4.0)
    return DenseGallery({"a": FeatureMap(features, None, (0.0, 0.0), 1.0)}, 1, DenseGallery({"a": coarse}, 4))


def cut(features, heading=0.0, scale=1.0):
    """Queries whose top points at `heading`, of pixels `scale` times as large, and where their centres are."""
    wide = torch.stack([features[:, row : row + WIDE, col : col + WIDE] for row, col in PLACES])
    taken, _ = turned(wide, Pose(-heading, 1 / scale), stride=2)  # so that the middle of it is the middle of a query
    top, left = ((n - SIDE) // 2 for n in taken.shape[2:])
    at = np.array(PLACES, float) + WIDE / 2
    return taken[:, :, top : top + SIDE, left : left + SIDE], np.stack([at[:, 1], -at[:, 0]], 1)


@pytest.mark.parametrize("quarters", range(4))
def test_an_image_turned_by_quarters_is_exactly_that(quarters):
    images = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    made, inside = turned(images, Pose(90.0 * quarters, 1.0))
    torch.testing.assert_close(made, images.rot90(-quarters, (2, 3)), atol=1e-5, rtol=0)
    assert inside.all()


def test_a_turned_frame_holds_all_pixels_of_an_image_and_says_which():
    made, inside = turned(torch.ones(1, 1, 30, 50), Pose(37.0, 1.2), stride=4)
    assert not any(n % 4 for n in made.shape[2:])
    assert inside.sum() == pytest.approx(30 * 50 * 1.2**2, rel=0.01)
    assert not inside[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    grey = torch.arange(50.0).expand(1, 1, 30, 50)  # brighter to the right, which is south when the top points east
    made, _ = turned(grey, Pose(90.0, 1.0))
    torch.testing.assert_close(made, grey.mT, atol=1e-4, rtol=0)


@pytest.mark.parametrize("quarters", range(4))
def test_quarter_turns_are_found_exactly(gallery, quarters):
    upright, centres = cut(gallery.maps["a"].features)
    found = sm.TurnedSearch(gallery, Pixels(), range(0, 360, 10)).search(upright.rot90(quarters, (2, 3)), 3)
    np.testing.assert_allclose(found.xy[:, 0], centres, atol=0.05)
    np.testing.assert_allclose(found.heading[:, 0], 90 * quarters)
    np.testing.assert_allclose(found.scores[:, 0], 1, atol=1e-3)
    assert (found.scale[found.valid] == 1).all() and found.scores[:, 1].max() < 0.9


def test_no_heading_is_a_quarter_turn_whose_images_alone_stay_sharp():
    tried = {(heading + more) % 90 for heading in HEADINGS for more in FINER}
    assert min(min(h, 90 - h) for h in tried) > 1


@pytest.mark.parametrize("heading", [37.0, 206.0])
def test_any_heading_is_found_to_less_than_a_step(gallery, heading):
    queries, centres = cut(gallery.maps["a"].features, heading)
    found = sm.TurnedSearch(gallery, Pixels()).search([queries[:1], queries[1:]], 1)
    assert np.abs(found.xy[:, 0] - centres).max() < 0.5
    assert np.abs(found.heading[:, 0] - heading).max() < 10 / 3


def test_finer_headings_are_tried_for_the_few_best_alone(gallery):
    queries, _ = cut(gallery.maps["a"].features, 37.0)
    steps, one, all_ = (
        sm.TurnedSearch(gallery, Pixels(), **more).search(queries, 5)
        for more in ({"finer": [0]}, {"few": 1}, {"few": 30})
    )
    assert (steps.heading % 10 == 5).all() and (one.heading[:, 1:] % 10 == 5).all()
    np.testing.assert_allclose(one.heading[:, 0], 35 + 10 / 3)
    assert (one.scores[:, 0] > steps.scores[:, 0]).all()
    np.testing.assert_allclose(one.scores[:, 1:], steps.scores[:, 1:], atol=1e-5)
    np.testing.assert_allclose(one.scores[:, 0], all_.scores[:, 0], atol=1e-5)
    assert (all_.scores >= one.scores - 1e-5).all() and (all_.heading[:, 1:] % 10 != 5).any()


def test_a_query_is_encoded_once_in_each_pose(gallery):
    class Counted(Pixels):
        count = 0

        def forward_levels(self, images, modality):
            self.count += len(images)
            return super().forward_levels(images, modality)

    queries, _ = cut(gallery.maps["a"].features, 37.0)
    encoder = Counted()
    sm.TurnedSearch(gallery, encoder, finer=[0]).search(queries, 5)
    assert encoder.count == 36 * len(queries)


def test_a_scale_is_found_with_the_heading(gallery):
    queries, centres = cut(gallery.maps["a"].features, 142.0, 1.1)
    found = sm.TurnedSearch(gallery, Pixels(), scales=(0.9, 1.0, 1.1)).search(queries, 1)
    assert np.abs(found.xy[:, 0] - centres).max() < 0.7
    assert (found.scale[:, 0] == 1.1).all() and np.abs(found.heading[:, 0] - 142).max() < 10 / 3


def test_with_no_heading_but_north_it_is_the_search_of_upright_queries(gallery):
    queries, _ = cut(gallery.maps["a"].features)
    queries = queries + 0.5 * torch.randn(queries.shape, generator=torch.Generator().manual_seed(2))
    found = sm.TurnedSearch(gallery, Pixels(), headings=[0.0], finer=[0.0], keep=20).search(queries, 5)
    known = CoarseToFine(gallery, Pixels(), keep=20).search([queries], 5)
    np.testing.assert_allclose(found.scores, known.scores, atol=1e-5)
    np.testing.assert_allclose(found.xy, known.xy, atol=1e-3)
    np.testing.assert_allclose(found.xy[:, 0], DenseSearch(gallery).search(queries, 1).xy[:, 0], atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 0.9])
def test_the_score_of_a_pose_is_that_of_the_exhaustive_search_with_its_mask(gallery, scale):
    queries, centres = cut(gallery.maps["a"].features, 37.0, scale)
    found = sm.TurnedSearch(gallery, Pixels(), headings=[37.0], scales=[scale], finer=[0.0]).search(queries, 1)
    upright, inside = turned(queries, Pose(37.0, scale))
    known = DenseSearch(gallery).search(upright, 1, inside.expand(len(queries), -1, -1))
    np.testing.assert_allclose(found.scores, known.scores * scale**EVEN, atol=1e-5)
    np.testing.assert_allclose(found.xy, known.xy, atol=1e-3)


def test_a_query_from_another_map_scores_less(gallery):
    search = sm.TurnedSearch(gallery, Pixels())
    here, elsewhere = (search.search(cut(features, 75.0)[0], 1) for features in (gallery.maps["a"].features, ground(9)))
    assert here.scores.min() > elsewhere.scores.max() + 0.1


def test_a_place_is_found_once_and_lists_are_filled_up(gallery):
    queries, _ = cut(gallery.maps["a"].features, 12.0)
    found = sm.TurnedSearch(gallery, Pixels(), keep=12).search(queries, 12)
    near = np.abs(found.xy[:, :, None] - found.xy[:, None]).max(-1) < 4
    near &= found.valid[:, :, None] & found.valid[:, None]
    assert (near.sum(2)[found.valid] == 1).all()
    small = DenseGallery({"a": FeatureMap(ground(1, 56), None, (0.0, 0.0), 1.0)}, 1, None)
    coarse = FeatureMap(F.avg_pool2d(small.maps["a"].features, 4), None, (0.0, 0.0), 4.0)
    small = DenseGallery(small.maps, 1, DenseGallery({"a": coarse}, 4))
    found = sm.TurnedSearch(small, Pixels(), range(0, 360, 10)).search(queries, 20)  # others are too wide for it
    assert found.valid[:, 0].all() and not found.valid[:, -1].any()
    assert len(sm.TurnedSearch(small, Pixels()).search(queries[:0], 2)) == 0


def test_peaks_apart_are_those_that_suppression_leaves():
    generator = torch.Generator().manual_seed(0)
    at = torch.rand(3, 60, 2, generator=generator).double() * 20
    peaks = Peaks(torch.rand(3, 60, generator=generator), at, torch.randint(2, (3, 60), generator=generator))
    order = apart(peaks, 4, 50)
    kept = suppress(peaks, 4, 50)
    there = torch.isfinite(kept.scores)
    assert (there == (order >= 0)[:, : there.shape[1]]).all() and not there[:, -1].any()
    assert torch.equal(peaks.scores.gather(1, order.clamp(min=0))[there], kept.scores[there])


def test_it_is_made_by_name_and_what_does_not_fit_is_named(gallery):
    search = sm.create_search("turned", gallery, Pixels(), headings=[0, 180])
    assert search.poses == [(0, 1.0), (180, 1.0)]
    with pytest.raises(ValueError, match="need one value each"):
        sm.TurnedSearch(gallery, Pixels(), headings=[])
    with pytest.raises(ValueError, match="scales must be above 0, got -1"):
        sm.TurnedSearch(gallery, Pixels(), scales=[1, -1])
    with pytest.raises(ValueError, match="k must be from 1 to the 30 peaks that are kept, got 31"):
        search.search(torch.zeros(1, 1, SIDE, SIDE), 31)
    with pytest.raises(ValueError, match="few must be a whole number of at least 1, got 0"):
        sm.TurnedSearch(gallery, Pixels(), few=0)
    with pytest.raises(ValueError, match="no coarse level"):
        sm.TurnedSearch(DenseGallery(gallery.maps, 1), Pixels())
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        search.search(torch.zeros(1, 1, SIDE, SIDE), 0)
    holed = torch.zeros(2, 1, SIDE, SIDE)
    holed[1, 0, 3, 4] = torch.nan
    with pytest.raises(ValueError, match="query 1 has pixels that are not finite"):
        search.search(holed, 1)
    with pytest.raises(ValueError, match=r"images must be \(B, 1, H, W\)"):
        search.search(torch.zeros(1, SIDE, SIDE), 1)
