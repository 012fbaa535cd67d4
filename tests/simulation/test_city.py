"""The procedural city: a pure function of place, seed and epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.simulation.city import (
    FIRST_ROOF,
    MATERIALS,
    STYLES,
    WATER_LEVEL_M,
    City,
    Grid,
    ground,
    ground_grid,
    hash2,
    unit,
)

PIXEL = 0.5
CITY = City(seed=5, extent_m=600, change=0.3)
GRID = Grid(150.0, 400.0, (160, 200), PIXEL)
WATER, ASPHALT, TREE, VEHICLE = (MATERIALS.index(m) for m in ("water", "asphalt", "tree", "vehicle"))
GREEN = [MATERIALS.index(m) for m in ("tree", "grass", "crop", "soil")]


def equal(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def towns():
    """Every style over 2 km, a sample every 4 m, in both epochs."""
    grid = Grid(0.0, 2000.0, (500, 500), 4.0)
    return {s: [ground_grid(City(1, 2000, s, change=0.3), grid, epoch=e) for e in (0, 1)] for s in STYLES}


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([0.0, 30.0, 90.0, 217.5]),
    st.integers(-20, 100),
    st.integers(-20, 140),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_a_window_is_part_of_the_whole(turn, row, col, high, wide):
    big = GRID._replace(turn_deg=turn).window(-20, -20, 200, 240)
    whole = ground_grid(CITY, big, epoch=1)
    window = ground_grid(CITY, big.window(row + 20, col + 20, high, wide), epoch=1)
    assert equal(window, (w[row + 20 : row + 20 + high, col + 20 : col + 20 + wide] for w in whole))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_turns_the_arrays(turns):
    """A clockwise turn of the grid by 90 degrees shows the same square turned counter-clockwise."""
    side = 160
    upright = ground_grid(CITY, Grid(100.0, 400.0, (side, side), PIXEL))
    far = side * PIXEL
    corner = {1: (100.0 + far, 400.0), 2: (100.0 + far, 400.0 - far), 3: (100.0, 400.0 - far)}[turns]
    turned = ground_grid(CITY, Grid(*corner, (side, side), PIXEL, 90.0 * turns))
    assert equal(turned, (np.rot90(layer, turns) for layer in upright))


@settings(max_examples=20, deadline=None)
@given(st.floats(-400, 400), st.integers(0, 159), st.integers(0, 199))
def test_a_turned_grid_asks_the_same_world(turn, row, col):
    grid = GRID._replace(turn_deg=turn)
    x, y = grid.xy(row + 0.5, col + 0.5)
    part = ground_grid(CITY, grid.window(row, col, 1, 1))
    assert equal(part, (layer.reshape(1, 1) for layer in ground(CITY, x, y)))


def test_the_grid_is_laid_out_by_the_compass():
    """At a turn of 30 degrees columns run to azimuth 120 and rows to 210."""
    grid = Grid(10.0, 20.0, (4, 4), 2.0, 30.0)
    for step, azimuth in (((0, 1), 120.0), ((1, 0), 210.0)):
        east, north = np.array(grid.xy(*step)) - (10.0, 20.0)
        assert np.degrees(np.arctan2(east, north)) % 360 == pytest.approx(azimuth)
        assert np.hypot(east, north) == pytest.approx(2.0)


def test_workers_change_nothing():
    assert equal(ground_grid(CITY, GRID, workers=1), ground_grid(CITY, GRID, workers=3))


def test_the_seed_and_the_style_decide(towns):
    again = ground_grid(CITY, GRID)
    assert equal(again, ground_grid(City(seed=5, extent_m=600, change=0.3), GRID))
    assert (again.material != ground_grid(City(seed=6, extent_m=600), GRID).material).mean() > 0.2
    kinds = {s: np.bincount(t[0].material.ravel(), minlength=len(MATERIALS)) / 250_000 for s, t in towns.items()}
    for a in STYLES:
        for b in STYLES:
            assert a == b or np.abs(kinds[a] - kinds[b]).sum() > 0.1
    roof = {s: np.median((t[0].height - t[0].terrain)[t[0].material >= FIRST_ROOF]) for s, t in towns.items()}
    assert roof["modern"] > roof["suburb"]
    assert kinds["harbour"][WATER] > kinds["mixed"][WATER]


@pytest.mark.parametrize("style", STYLES)
def test_a_town_has_what_a_town_has(towns, style):
    town = towns[style][0]
    share = dict(zip(MATERIALS, np.bincount(town.material.ravel(), minlength=11) / town.material.size, strict=True))
    assert 0.02 < share["water"] < 0.4
    assert 0.05 < share["asphalt"] < 0.5
    assert 0.01 < share["tree"] < 0.5
    assert 0.001 < share["vehicle"] < 0.03
    assert 0.04 < sum(v for k, v in share.items() if k.startswith("roof")) < 0.5
    above = town.height - town.terrain
    roofs = town.material >= FIRST_ROOF
    assert np.all(town.height[town.material == WATER] == WATER_LEVEL_M)
    assert above[town.material != WATER].min() > WATER_LEVEL_M - 1e-4, "banks slope down to the water"
    assert above[roofs].min() > 2
    assert above[roofs].max() > 9
    assert np.all(above[town.material == TREE] > 1)
    assert town.height.max() <= City(1, 2000, style).max_height_m
    assert 0 <= town.tone.min() <= town.tone.max() <= 1


@pytest.mark.parametrize("style", STYLES)
def test_about_the_asked_share_of_the_town_changes(towns, style):
    before, after = towns[style]
    assert equal([before.terrain], [after.terrain])
    built = (before.material >= FIRST_ROOF) & (before.tone != after.tone)  # tone is one number per lot
    share = built.sum() / (before.material >= FIRST_ROOF).sum()
    assert share == pytest.approx(0.3, abs=0.08)
    assert np.array_equal(before.material == WATER, after.material == WATER)


def test_without_change_only_vehicles_move():
    grid = Grid(0.0, 600.0, (600, 600), 1.0)
    before, after = (ground_grid(City(5, 600), grid, epoch=e) for e in (0, 1))
    still = (before.material != VEHICLE) & (after.material != VEHICLE)
    assert equal((b[still] for b in before), (a[still] for a in after))
    moved = (before.material == VEHICLE) & (after.material != VEHICLE)
    assert moved.sum() > 0.3 * (before.material == VEHICLE).sum() > 0


def test_a_car_is_as_large_as_a_car():
    from scipy import ndimage

    town = ground_grid(City(1, 2000), Grid(0.0, 2000.0, (1600, 1600), 0.25))
    labels, count = ndimage.label(town.material == VEHICLE)
    area = np.bincount(labels.ravel())[1:] * 0.25**2
    assert count > 20
    assert np.median(area) == pytest.approx(4.5 * 1.8, rel=0.15)


def test_an_arterial_is_as_wide_on_the_slant_as_elsewhere():
    """The border is a true bisector: from its middle to its kerb it is 7.5 m, wherever it is cut."""
    from scipy import ndimage

    town = ground_grid(City(3, 3000, river_m=0, relief_m=0), Grid(500.0, 2500.0, (1500, 1500), 1.0))
    paved = np.isin(town.material, (ASPHALT, VEHICLE))
    widest = ndimage.distance_transform_edt(paved)
    ridge = (widest == ndimage.maximum_filter(widest, 15)) & (widest > 6)
    assert ridge.sum() > 50
    assert np.median(widest[ridge]) == pytest.approx(7.5, abs=0.8)


def test_arterials_cross_the_river_on_bridges(towns):
    from scipy import ndimage

    town = towns["mixed"][0]
    river = ndimage.binary_closing(town.material == WATER, iterations=8)
    over = river & (town.material == ASPHALT) & (town.height > WATER_LEVEL_M + 2)
    assert over.sum() > 10


def test_positions_may_be_given_as_arrays():
    x, y = np.array([[200.25, 300.75]]), np.array([[250.25], [100.75]])
    points = ground(CITY, x, y)
    assert points.height.shape == (2, 2)
    single = ground_grid(CITY, Grid(200.0, 250.5, (1, 1), PIXEL))
    assert single.material[0, 0] == points.material[0, 0]


def test_hashes_are_spread_evenly():
    values = np.array([[unit(hash2(7, i, j), k) for k in range(3)] for i in range(-40, 40) for j in range(-40, 40)])
    assert values.min() >= 0
    assert values.max() < 1
    for k in range(3):
        counts = np.histogram(values[:, k], 16, (0, 1))[0]
        assert ((counts - 400) ** 2 / 400).sum() < 45  # chi square with 15 degrees of freedom, p = 0.0001
    assert np.abs(np.corrcoef(values.T) - np.eye(3)).max() < 0.05


@pytest.mark.parametrize(
    "field", [{"seed": -1}, {"extent_m": 0}, {"river_m": -5}, {"relief_m": -1}, {"style": "gothic"}, {"change": 1.5}]
)
def test_impossible_towns_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        City(**({"seed": 0, "extent_m": 100} | field))


def test_impossible_grids_and_epochs_are_refused():
    with pytest.raises(ValueError, match="shape"):
        ground_grid(CITY, Grid(0, 0, (0, 10), PIXEL))
    with pytest.raises(ValueError, match="epoch is 2"):
        ground_grid(CITY, GRID, epoch=2)
