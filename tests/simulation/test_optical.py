"""The optical map: shadows and lean of the right length, and the same pixels whatever window is asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.simulation import optical
from sarmatch.simulation.city import FIRST_ROOF, MATERIALS, City, Grid, Ground, ground_grid
from sarmatch.simulation.optical import SEASONS, cast_shadow, render_map

PIXEL = 0.5
CITY = City(seed=5, extent_m=600)
GRID = Grid(100.0, 400.0, (240, 260), PIXEL)


@pytest.mark.parametrize(("azimuth", "step"), [(90.0, (0, -1)), (180.0, (-1, 0)), (270.0, (0, 1)), (0.0, (1, 0))])
def test_a_shadow_is_h_over_tan_elevation_long_and_points_away_from_the_sun(azimuth, step):
    height, elevation = 10.0, 35.0
    ground = np.zeros((161, 161), np.float32)
    ground[75:86, 75:86] = height
    shadow = cast_shadow(ground, PIXEL, azimuth, elevation, 10.0)
    line = np.array([80, 80]) + np.arange(6, 75)[:, None] * np.array(step)
    length = shadow[line[:, 0], line[:, 1]].sum()
    assert abs(length - height / np.tan(np.deg2rad(elevation)) / PIXEL) <= 2
    towards = np.array([80, 80]) - np.arange(6, 75)[:, None] * np.array(step)
    assert not shadow[towards[:, 0], towards[:, 1]].any()


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([0.0, 12.0]), st.sampled_from([0.0, 35.0]), st.integers(0, 120), st.integers(0, 150))
def test_a_window_is_part_of_the_whole(lean, turn, row, col):
    grid = GRID._replace(turn_deg=turn)
    whole = render_map(CITY, grid, lean_deg=lean)
    window = render_map(CITY, grid.window(row, col, 120, 110), lean_deg=lean)
    assert whole.shape == (3, 240, 260)
    different = (window != whole[:, row : row + 120, col : col + 110]).any(0)
    assert different.mean() < 1e-3  # the rounding of the last bit of a slope


def test_large_maps_are_rendered_in_blocks_without_seams(monkeypatch):
    whole = render_map(CITY, GRID, lean_deg=10.0)
    monkeypatch.setattr(optical, "_BLOCK", 50)
    assert (render_map(CITY, GRID, lean_deg=10.0) != whole).any(0).mean() < 1e-3


def test_a_quarter_turn_turns_the_picture():
    side = 160
    upright = render_map(CITY, Grid(100.0, 400.0, (side, side), PIXEL), lean_deg=8.0)
    turned = render_map(CITY, Grid(100.0 + side * PIXEL, 400.0, (side, side), PIXEL, 90.0), lean_deg=8.0)
    same = np.abs(turned.astype(int) - np.rot90(upright, 1, (1, 2))).max(0) <= 2
    assert same.mean() > 0.97  # marching to the other side rounds pixels at edges otherwise


def box_town(monkeypatch, height: float) -> Grid:
    """Replace the city by flat concrete with one box on columns 60 to 89 and rows 40 to 79 of a fixed grid."""
    grid = Grid(0.0, 60.0, (120, 160), PIXEL)

    def fake(city, part, *, epoch=0, workers=None):
        rows, cols = part.shape
        row0, col0 = round((60.0 - part.y0) / PIXEL), round(part.x0 / PIXEL)
        r, c = np.meshgrid(np.arange(rows) + row0, np.arange(cols) + col0, indexing="ij")
        box = (c >= 60) & (c < 90) & (r >= 40) & (r < 80)
        level = np.where(box, height, 0).astype(np.float32)
        material = np.where(box, FIRST_ROOF, MATERIALS.index("concrete")).astype(np.uint8)
        return Ground(level, np.zeros_like(level), material, np.full(part.shape, 0.5, np.float32))

    monkeypatch.setattr(optical, "ground_grid", fake)
    return grid


def red_roof(image: np.ndarray) -> np.ndarray:
    red, _, blue = image.astype(float)
    return red > 1.6 * blue


def test_a_roof_leans_h_tan_and_its_side_comes_into_sight(monkeypatch):
    height, lean = 20.0, 15.0
    grid = box_town(monkeypatch, height)
    upright = render_map(CITY, grid, sun_elevation_deg=85.0)
    leaning = render_map(CITY, grid, sun_elevation_deg=85.0, lean_deg=lean, lean_azimuth_deg=90.0)
    row = 60
    before, after = (np.flatnonzero(red_roof(i)[row]) for i in (upright, leaning))
    shift = height * np.tan(np.deg2rad(lean)) / PIXEL
    assert (before[0], before[-1]) == (60, 89)
    assert after[-1] == pytest.approx(89 + shift, abs=1.5)
    assert after[0] == pytest.approx(60 + shift, abs=2.5)
    concrete = upright[:, row, 20].astype(int)
    side = leaning[:, row, 62 : 60 + int(shift) - 2].astype(int)  # the wall towards the camera
    assert (np.abs(side - concrete[:, None]).max(0) > 8).all()
    assert np.array_equal(leaning[:, :, :50], upright[:, :, :50])  # what does not stand does not lean


def test_lean_goes_where_the_azimuth_says(monkeypatch):
    grid = box_town(monkeypatch, 20.0)
    middle = {}
    for azimuth in (0.0, 90.0, 180.0, 270.0):
        image = render_map(CITY, grid, sun_elevation_deg=85.0, lean_deg=15.0, lean_azimuth_deg=azimuth)
        middle[azimuth] = np.argwhere(red_roof(image)).mean(0) - (59.5, 74.5)
    shift = 20.0 * np.tan(np.deg2rad(15.0)) / PIXEL
    for azimuth, (row, col) in {0.0: (-1, 0), 90.0: (0, 1), 180.0: (1, 0), 270.0: (0, -1)}.items():
        assert middle[azimuth] == pytest.approx((row * shift, col * shift), abs=2)


def test_the_seed_of_the_city_decides():
    small = GRID.window(0, 0, 60, 60)
    first, again = (render_map(CITY, small) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, render_map(City(seed=6, extent_m=600), small))


def test_materials_look_like_themselves():
    grid = Grid(0.0, 600.0, (600, 600), 1.0)
    ground, image = ground_grid(CITY, grid), render_map(CITY, grid).astype(float)
    mean = {m: image[:, ground.material == i].mean(1) for i, m in enumerate(MATERIALS) if (ground.material == i).any()}
    red, green, blue = range(3)
    assert mean["tree"][green] > mean["tree"][red]
    assert mean["water"][blue] > mean["water"][red]
    assert mean["roof_tile"][red] > mean["roof_tile"][blue]
    assert mean["concrete"].mean() > mean["asphalt"].mean()


@pytest.mark.parametrize("season", [s for s in SEASONS if s != "summer"])
def test_a_season_changes_what_grows_and_nothing_else(season):
    grid = Grid(0.0, 600.0, (300, 300), 2.0)
    material = ground_grid(CITY, grid).material
    summer, other = (render_map(CITY, grid, season=s).astype(int) for s in ("summer", season))
    grows = np.isin(material, [MATERIALS.index(m) for m in SEASONS[season]])
    assert np.array_equal(summer[:, ~grows], other[:, ~grows])
    assert np.abs(summer - other)[:, grows].mean() > 5


def test_haze_takes_contrast():
    clear, hazy = (render_map(CITY, GRID, haze=h).astype(float) for h in (0.0, 0.4))
    assert hazy.std() == pytest.approx(0.6 * clear.std(), rel=0.05)
    assert hazy.mean() > clear.mean()


@pytest.mark.parametrize("change", [{"season": "monsoon"}, {"haze": 2.0}, {"lean_deg": 60.0}, {"sun_elevation_deg": 0}])
def test_impossible_light_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        render_map(CITY, GRID, **change)
