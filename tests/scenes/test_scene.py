"""Rasters against brute force on mosaics, and what a scene refuses."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.scenes import Area, NoCoordinatesError, Raster, Scene, Tile
from sarmatch.scenes.scene import BLOCK, default_bands, window_of, without_overlap


@st.composite
def mosaics(draw):
    """A raster of up to nine unequal tiles with gaps, and the image it stands for, NaN in the gaps."""
    heights = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    widths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    row0, col0 = draw(st.integers(-5, 5)), draw(st.integers(-5, 5))
    channels, as_bytes = draw(st.integers(1, 3)), draw(st.booleans())
    present = draw(st.lists(st.booleans(), min_size=len(heights) * len(widths), max_size=len(heights) * len(widths)))
    present[draw(st.integers(0, len(present) - 1))] = True
    rng = np.random.default_rng(draw(st.integers(0, 99)))

    whole = np.full((channels, sum(heights), sum(widths)), np.nan, dtype=np.float32)
    tiles = []
    for i, height in enumerate(heights):
        for j, width in enumerate(widths):
            if not present[i * len(widths) + j]:
                continue
            top, left = sum(heights[:i]), sum(widths[:j])
            pixels = rng.integers(0, 256, (channels, height, width)).astype(np.uint8 if as_bytes else np.float16)
            whole[:, top : top + height, left : left + width] = pixels * np.float32(1 / 255 if as_bytes else 1)
            tiles.append(Tile(row0 + top, col0 + left, height, width, lambda r, c, pixels=pixels: pixels[:, r, c]))
    return Raster("mosaic", tuple(tiles), default_bands(channels, "reflectance"), "reflectance"), whole, row0, col0


def cut(whole, row, col, height, width):
    """The window pixel by pixel, or None where a pixel is missing."""
    window = np.empty((len(whole), height, width), dtype=np.float32)
    for i in range(height):
        for j in range(width):
            if not (0 <= row + i < whole.shape[1] and 0 <= col + j < whole.shape[2]):
                return None
            window[:, i, j] = whole[:, row + i, col + j]
    return None if np.isnan(window).any() else window


@settings(max_examples=150, deadline=None)
@given(mosaics(), st.data())
def test_windows_of_a_mosaic_are_those_of_the_joined_image(mosaic, data):
    raster, whole, row0, col0 = mosaic
    for _ in range(4):
        row, col = (data.draw(st.integers(-7, 20)) for _ in range(2))
        height, width = (data.draw(st.integers(1, 9)) for _ in range(2))
        expected = cut(whole, row - row0, col - col0, height, width)
        if expected is None:
            with pytest.raises(ValueError, match=rf"'mosaic'.*{height} x {width} px at row {row}, column {col} has"):
                raster.read(row, col, height, width)
        else:
            window = raster.read(row, col, height, width)
            assert window.dtype == np.float32
            np.testing.assert_array_equal(window, expected)


@settings(max_examples=100, deadline=None)
@given(mosaics(), st.integers(1, 8))
def test_covers_says_which_windows_can_be_read(mosaic, size):
    raster, whole, row0, col0 = mosaic
    row, col = (g.ravel() for g in np.mgrid[-7:14, -7:14])
    expected = [cut(whole, r - row0, c - col0, size, size) is not None for r, c in zip(row, col, strict=True)]
    np.testing.assert_array_equal(raster.covers(row, col, size), expected)
    assert raster.pixels == np.isfinite(whole[0]).sum()


def test_bounds_and_the_number_of_missing_pixels():
    raster = Raster.from_array("map", np.zeros((3, 10, 20), np.float32), "reflectance", row=5, col=-4)
    assert raster.bounds == (5, -4, 15, 16)
    with pytest.raises(ValueError, match=r"has 24 px outside the image, which spans rows 5\.\.15, columns -4\.\.16"):
        raster.read(13, 0, 8, 4)
    filled = raster.read(13, 0, 8, 4, fill=7.0)
    assert (filled[:, :2] == 0).all()
    assert (filled[:, 2:] == 7).all()


def test_metres_are_east_and_north_of_the_area_s_origin(tiny_scene):
    np.testing.assert_allclose(tiny_scene.metres("one", [0, 10], [0, 4]), [[0, -50], [2, -55]])
    np.testing.assert_allclose(tiny_scene.metres("unseen", 10, 4), [2002, -55])


def test_to_crs_applies_the_affine_and_its_inverse_leads_back(tiny_scene):
    turned = ((0.0, -2.0, 500.0), (2.0, 0.0, 700.0))  # a quarter turn, twice as large
    scene = Scene("turned", tiny_scene.areas, 0.5, 32, crs="EPSG:32611", crs_transform=turned)
    points = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    expected = [[500, 702], [498, 700], [492, 706]]
    np.testing.assert_allclose(scene.to_crs(points), expected)
    matrix = np.vstack([turned, [0, 0, 1]])
    back = np.linalg.solve(matrix, np.c_[scene.to_crs(points), np.ones(3)].T).T[:, :2]
    np.testing.assert_allclose(back, points)


def test_a_scene_without_coordinates_refuses_metres_and_crs(tiny_scene):
    bare = Scene("bare", tiny_scene.areas, None, 32)
    assert not bare.has_coordinates
    with pytest.raises(NoCoordinatesError, match="'bare' has no coordinates"):
        bare.metres("one", 0, 0)
    with pytest.raises(NoCoordinatesError, match="'bare' lies in no coordinate reference system"):
        bare.to_crs(np.zeros((1, 2)))
    with pytest.raises(NoCoordinatesError, match="'tiny' lies in no coordinate"):  # metres it has, a CRS it has not
        tiny_scene.to_crs(np.zeros((1, 2)))


def test_wrong_parts_are_named(tiny_scene):
    area = tiny_scene.areas[0]
    with pytest.raises(ValueError, match=r"raster 'x': scale is 'counts', expected one of"):
        Raster.from_array("x", np.zeros((1, 4, 4)), "counts")
    with pytest.raises(ValueError, match="raster 'x' has no tile"):
        Raster("x", (), ("HH",), "intensity")
    with pytest.raises(ValueError, match="area 'a': 4 strips but 1 roles"):
        Area("a", area.map, area.strips, ("train",))
    with pytest.raises(ValueError, match=r"area 'a': strip names must be unique, got \['one0', 'one0'\]"):
        Area("a", area.map, (area.strips[0],) * 2, ("train", "test"))
    with pytest.raises(ValueError, match=r"no area of scene 's' is called 'mars'; there are \['one'\]"):
        Scene("s", (area,), 0.5, 32, test_areas=("mars",))
    with pytest.raises(ValueError, match=r"no strip of area 'one' is called 'one9'; there are \['one0'"):
        area.strip("one9")
    assert area.strip("one2") is area.strips[2]


def test_label_says_whether_it_is_simulated(tiny_scene):
    assert (tiny_scene.label, Scene("r", tiny_scene.areas, 0.5, 32).label) == ("simulated", "real")


def boxes(size: int = 40):
    return st.builds(lambda r, c, h, w: (r, c, h, w), *[st.integers(0, size)] * 2, *[st.integers(1, size)] * 2)


@given(st.lists(boxes(), min_size=1, max_size=6), st.integers(0, 2**31))
def test_tiles_that_overlap_are_cut_and_the_first_one_wins(places, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.random((1, h, w), np.float32) for _, _, h, w in places]
    tiles = [Tile(r, c, h, w, partial(window_of, a)) for (r, c, h, w), a in zip(places, arrays, strict=True)]
    expected = np.full((80, 80), np.nan, np.float32)
    for tile, array in reversed(list(zip(tiles, arrays, strict=True))):
        expected[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = array[0]
    found = np.full((80, 80), np.nan, np.float32)
    for tile in without_overlap(tiles):
        part = found[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width]
        assert np.isnan(part).all()  # disjoint
        part[:] = tile.read(slice(0, tile.height), slice(0, tile.width))[0]
    np.testing.assert_array_equal(found, expected)


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 40))
def test_windows_over_nodata_are_not_covered(seed, height, width):
    rng = np.random.default_rng(seed)
    array = rng.random((2, height, width), np.float32)
    array[rng.integers(0, 2), rng.integers(0, height), rng.integers(0, width)] = np.nan
    raster = Raster.from_array("s", array, "intensity", row=3, col=-5)
    size = 4
    row, col = (g.ravel() for g in np.mgrid[-1 : height + 5, -7:width])
    covered = raster.covers(row, col, size)
    hole_row, hole_col = (np.argwhere(np.isnan(array).any(0))[0] + (3, -5)).tolist()
    for r, c, yes in zip(row, col, covered, strict=True):
        inside = r >= 3 and r + size <= 3 + height and c >= -5 and c + size <= -5 + width
        near = abs(r + 1.5 - hole_row) < BLOCK + size and abs(c + 1.5 - hole_col) < BLOCK + size
        if yes:
            assert inside
            assert np.isfinite(raster.read(r, c, size, size)).all()
        else:
            assert near or not inside  # no more than the blocks around the hole is lost


def test_bands_are_chosen_by_name_and_in_order():
    array = np.stack([np.full((8, 8), v, np.float32) for v in (1, 2, 3)])
    raster = Raster.from_array("s", array, "intensity", bands=("HH", "VV", "HV"))
    assert raster.select(("HV", "HH")).read(0, 0, 2, 2)[:, 0, 0].tolist() == [3, 1]
    assert raster.select(raster.bands) is raster
    with pytest.raises(ValueError, match=r"bands \('HH', 'VV', 'HV'\), asked for \('VH',\)"):
        raster.select(("VH",))
    with pytest.raises(ValueError, match="names that differ"):
        Raster.from_array("s", array, "intensity", bands=("HH", "HH", "HV"))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"valid is \(2, 2\), not \(3, 2\)"):
        Tile(0, 0, 20, 16, partial(window_of, np.ones((1, 20, 16))), np.ones((2, 2), bool))
