"""The optical map: shadows of the right length, and the same pixels whatever window is asked for."""

import numpy as np
import pytest

from sarmatch.scenes.city import MATERIALS, City, ground_grid
from sarmatch.scenes.optical import cast_shadow, render_map, render_optical

PIXEL = 0.5
CITY = City(seed=5, extent_m=600)


@pytest.mark.parametrize(("azimuth", "step"), [(90.0, (0, -1)), (180.0, (-1, 0)), (270.0, (0, 1)), (0.0, (1, 0))])
def test_a_shadow_is_h_over_tan_elevation_long_and_points_away_from_the_sun(azimuth, step):
    height, elevation = 10.0, 35.0
    ground = np.zeros((161, 161), np.float32)
    ground[75:86, 75:86] = height
    shadow = cast_shadow(ground, PIXEL, azimuth, elevation)
    line = np.array([80, 80]) + np.arange(6, 75)[:, None] * np.array(step)
    length = shadow[line[:, 0], line[:, 1]].sum()
    assert abs(length - height / np.tan(np.deg2rad(elevation)) / PIXEL) <= 2
    towards = np.array([80, 80]) - np.arange(6, 75)[:, None] * np.array(step)
    assert not shadow[towards[:, 0], towards[:, 1]].any()


def test_a_window_is_part_of_the_whole():
    whole = render_map(CITY, 100, 400, (240, 260), PIXEL)
    window = render_map(CITY, 100 + 70 * PIXEL, 400 - 50 * PIXEL, (120, 110), PIXEL)
    assert whole.shape == (3, 240, 260)
    # rays of the doubling start at the window's own corner: a pixel at a shadow's edge may differ
    assert (window != whole[:, 50:170, 70:180]).any(0).mean() < 0.01


def test_the_seed_of_the_city_decides():
    first, again = (render_map(CITY, 100, 400, (60, 60), PIXEL) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, render_map(City(seed=6, extent_m=600), 100, 400, (60, 60), PIXEL))


def test_materials_look_like_themselves():
    ground = ground_grid(CITY, 0, 600, (600, 600), 1.0)
    image = render_optical(ground, 1.0, seed=0).astype(float)
    mean = {m: image[:, ground.material == i].mean(1) for i, m in enumerate(MATERIALS) if (ground.material == i).any()}
    red, green, blue = range(3)
    assert mean["tree"][green] > mean["tree"][red]
    assert mean["water"][blue] > mean["water"][red]
    assert mean["roof_tile"][red] > mean["roof_tile"][blue]
    assert mean["concrete"].mean() > mean["asphalt"].mean()
