"""Overlap and IoU against counted pixels, and what a grid allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarmatch.patches import iou, overlap, overlapping_references
from sarmatch.patches.overlap import best_overlap

SIZE = 8
corner = st.tuples(st.integers(0, 20), st.integers(0, 20))


def mask(place: tuple[int, int]) -> np.ndarray:
    pixels = np.zeros((40, 40), bool)
    pixels[place[0] : place[0] + SIZE, place[1] : place[1] + SIZE] = True
    return pixels


@given(corner, corner)
def test_overlap_and_iou_count_pixels(a, b):
    shared, either = (mask(a) & mask(b)).sum(), (mask(a) | mask(b)).sum()
    share = overlap(np.array(a), np.array(b), SIZE)
    assert share == pytest.approx(shared / SIZE**2)
    assert iou(share) == pytest.approx(shared / either)


@given(st.lists(corner, min_size=1, max_size=6), st.sampled_from([4, 8]))
def test_overlapping_references_are_all_there_are(places, stride):
    grid = np.array([(r, c) for r in range(0, 33, stride) for c in range(0, 33, stride)])
    queries = np.array(places)
    found, shares = overlapping_references(queries, grid, SIZE, stride)
    for query, rows, values in zip(queries, found, shares, strict=True):
        expected = {i: (mask(query) & mask(tile)).sum() / SIZE**2 for i, tile in enumerate(grid)}
        expected = {i: share for i, share in expected.items() if share > 0}
        assert dict(zip(rows[rows >= 0].tolist(), values[values > 0], strict=True)) == pytest.approx(expected)
        assert (np.diff(values) <= 0).all()


def best_overlaps(stride: float) -> np.ndarray:
    """Best overlap of windows spread evenly over one cell of the grid, unit size."""
    steps = (np.arange(100) + 0.5) / 100 * stride
    place = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    grid = np.array([(r, c) for r in (0, stride) for c in (0, stride)])
    return overlapping_references(place, grid, 1.0, stride)[1][:, 0]


def test_a_grid_without_overlap_covers_nine_sixteenths_on_average():
    best = best_overlaps(1.0)
    assert best.mean() == pytest.approx(0.5625, abs=1e-3)
    assert best.min() == pytest.approx(0.25, abs=0.02)
    assert iou(0.25) == pytest.approx(1 / 7)


def test_half_a_step_is_vigors_positive():
    best = best_overlaps(0.5)
    assert best.min() == pytest.approx(9 / 16, abs=0.02)
    assert iou(9 / 16) == pytest.approx(9 / 23)  # the 0.39 of VIGOR


@given(size=st.integers(10, 400), share=st.floats(0.1, 1.0))
def test_the_best_tile_by_hand(size, share):
    """Closed form against a query laid at every offset of a fine lattice around one tile."""
    stride = max(1, round(share * size))
    steps = (np.arange(200) + 0.5) / 200 * stride
    offset = np.minimum(steps, stride - steps)  # to the nearest tile along one axis
    held = (1 - offset / size)[:, None] * (1 - offset / size)[None, :]
    bounds = best_overlap(size, stride)
    assert held.mean() == pytest.approx(bounds["mean"], rel=1e-3)
    assert held.min() == pytest.approx(bounds["min"], rel=2e-2)
    assert (held / (2 - held)).min() == pytest.approx(bounds["iou_min"], rel=3e-2)
    far = (1 - (stride - 1e-9) / size) ** 2  # the query stands on a tile, the fourth of its neighbours is diagonal
    assert far / (2 - far) == pytest.approx(bounds["semi_iou_min"], abs=1e-6)


def test_known_bounds_and_impossible_strides():
    assert best_overlap(200, 200)["mean"] == 0.5625
    assert best_overlap(200, 100)["iou_min"] == pytest.approx(0.391, abs=1e-3)
    assert best_overlap(200, 100)["semi_iou_min"] == pytest.approx(1 / 7)
    with pytest.raises(ValueError, match="stride is 201"):
        best_overlap(200, 201)
