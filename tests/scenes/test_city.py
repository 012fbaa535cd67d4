"""The procedural city: a pure function of place and seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.scenes.city import FIRST_ROOF, MATERIALS, WATER_LEVEL_M, City, ground, ground_grid

PIXEL = 0.5
CITY = City(seed=5, extent_m=600)
SHAPE = (160, 200)
PLACE = (150.0, 400.0)


def equal(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100), st.integers(0, 140), st.integers(1, 60), st.integers(1, 60))
def test_a_window_is_part_of_the_whole(row, col, high, wide):
    whole = ground_grid(CITY, *PLACE, SHAPE, PIXEL)
    window = ground_grid(CITY, PLACE[0] + col * PIXEL, PLACE[1] - row * PIXEL, (high, wide), PIXEL)
    assert equal(window, (layer[row : row + high, col : col + wide] for layer in whole))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turning_the_grid_turns_the_arrays(turns):
    upright = ground_grid(CITY, *PLACE, SHAPE, PIXEL)
    assert equal(ground_grid(CITY, *PLACE, SHAPE, PIXEL, turns), (np.rot90(layer, turns) for layer in upright))


def test_workers_change_nothing():
    assert equal(ground_grid(CITY, *PLACE, SHAPE, PIXEL, workers=1), ground_grid(CITY, *PLACE, SHAPE, PIXEL, workers=3))


def test_the_seed_decides():
    first, again = (ground_grid(City(seed=5, extent_m=600), *PLACE, SHAPE, PIXEL) for _ in range(2))
    other = ground_grid(City(seed=6, extent_m=600), *PLACE, SHAPE, PIXEL)
    assert equal(first, again)
    assert (first.material != other.material).mean() > 0.2


def test_a_town_has_what_a_town_has():
    # one sample every 4 m over 2 km: shares of a whole town in half a second
    town = ground_grid(City(seed=1, extent_m=2000), 0, 2000, (500, 500), 4.0)
    share = dict(
        zip(MATERIALS, np.bincount(town.material.ravel(), minlength=len(MATERIALS)) / town.material.size, strict=True)
    )
    assert 0.02 < share["water"] < 0.4
    assert 0.05 < share["asphalt"] < 0.5
    assert 0.02 < share["tree"] < 0.5
    assert 0.05 < sum(v for k, v in share.items() if k.startswith("roof")) < 0.5
    above = town.height - town.terrain
    roofs = town.material >= FIRST_ROOF
    assert above.min() > WATER_LEVEL_M - 5 - 1e-3, "only the river lies below its terrain, which is at most 5 m high"
    assert above[town.material != MATERIALS.index("water")].min() > WATER_LEVEL_M, "banks slope down to the water"
    assert 3 < np.median(above[roofs]) < 25
    assert above[roofs].max() > 12
    assert town.height.max() <= City(seed=1, extent_m=2000).max_height_m


def test_positions_may_be_given_as_arrays():
    x, y = np.array([[200.25, 300.75]]), np.array([[250.25], [100.75]])
    grid = ground(CITY, x, y)
    assert grid.height.shape == (2, 2)
    single = ground_grid(CITY, 200.0, 250.5, (1, 1), PIXEL)
    assert single.material[0, 0] == grid.material[0, 0]


@pytest.mark.parametrize("field", [{"seed": -1}, {"extent_m": 0}, {"river_m": -5}, {"relief_m": -1}])
def test_impossible_towns_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        City(**({"seed": 0, "extent_m": 100} | field))


def test_an_empty_grid_is_refused():
    with pytest.raises(ValueError, match="shape"):
        ground_grid(CITY, 0, 0, (0, 10), PIXEL)
