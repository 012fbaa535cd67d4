"""The close look at a simulated town agrees with its ground, its renderers and the geometry of the radar."""

import numpy as np
import pytest

import sarmatch as sm
from sarmatch.simulation.city import MATERIALS, ground, ground_grid
from sarmatch.simulation.closeup import COARSE, changes, closeup, lone_building, material_fractions, roof_heights
from sarmatch.simulation.simulate import PIXEL_SIZE, PRESETS, city_of, map_grid

SIZE = 200


@pytest.fixture(scope="module")
def towns():
    return sm.load_scene("easy")


@pytest.fixture(scope="module")
def building(towns):
    return lone_building(towns, "north")


@pytest.fixture(scope="module")
def looks(towns, building):
    corner = (building.row - SIZE // 2, building.col - SIZE // 2)
    return {angle: closeup(towns, "north", *corner, SIZE, angle) for angle in (30.0, 50.0)}


def test_the_building_is_as_high_as_its_ground_says(towns, building):
    extent = towns.area("north").map.bounds[2]
    place = map_grid(extent).xy(building.row, building.col)
    here = ground(city_of(PRESETS["easy"], PRESETS["easy"].towns[0], extent), *place)
    assert building.height_m >= 15
    assert float(here.height - here.terrain) == pytest.approx(building.height_m, abs=3)  # a lift housing


def longest(mask: np.ndarray) -> float:
    """Longest unbroken run in the rows through the building, in metres: the median, as a tree may stand in one."""
    rows = ["".join("#" if x else "." for x in row) for row in mask[SIZE // 2 - 20 : SIZE // 2 + 20]]
    return float(np.median([max(map(len, row.split("."))) for row in rows])) * PIXEL_SIZE


def test_roofs_are_as_high_as_they_stand(towns, building):
    heights = roof_heights(towns, "north")
    near = heights[building.row // COARSE - 3 : building.row // COARSE + 4, building.col // COARSE - 3 :][:, :7]
    assert np.nanmedian(near) == pytest.approx(building.height_m, abs=1.0)
    assert np.isnan(heights).any() and np.nanmin(heights) > 0


def test_layover_is_as_long_as_the_geometry_says(looks, building):
    for angle, view in looks.items():
        expected = building.height_m / np.tan(np.deg2rad(angle))
        assert longest(view.effects["layover"]) == pytest.approx(expected, rel=0.06)


def test_shadow_grows_with_the_angle_as_the_geometry_says(looks, building):
    """Behind the corner it is dark for the depth of the building plus H tan(theta); the depth is always the same."""
    depth = [
        longest(view.effects["shadow"][:, SIZE // 2 - 30 :]) - building.height_m * np.tan(np.deg2rad(angle))
        for angle, view in looks.items()
    ]
    np.testing.assert_allclose(depth, depth[0], atol=1.0)
    assert depth[0] > 5


def test_steeper_means_more_layover_and_less_shadow(looks):
    share = {angle: {name: mask.mean() for name, mask in view.effects.items()} for angle, view in looks.items()}
    assert share[30.0]["layover"] > 1.5 * share[50.0]["layover"]
    assert share[50.0]["shadow"] > 1.5 * share[30.0]["shadow"]


def test_the_effects_are_seen_in_the_image(looks):
    view = looks[30.0]
    level = np.log10(view.sar[0])
    corner, dark = view.effects["double bounce"], view.effects["shadow"]
    assert level[corner].mean() > level[~corner].mean() > level[dark].mean() + 0.5


def test_shapes_and_ranges(looks):
    view = looks[30.0]
    assert view.optical.shape == (3, SIZE, SIZE)
    assert view.sar.shape == (1, SIZE, SIZE)
    assert 0 <= view.optical.min() <= view.optical.max() <= 1
    assert {mask.shape for mask in view.effects.values()} == {(SIZE, SIZE)}


def test_masks_do_not_depend_on_where_the_window_ends(towns, building, looks):
    half = closeup(towns, "north", building.row - SIZE // 2, building.col, SIZE // 2, 30.0)
    for name in ("layover", "shadow"):
        whole = looks[30.0].effects[name][: SIZE // 2, SIZE // 2 :]
        assert (half.effects[name] == whole).mean() > 0.98


def test_material_fractionss_count_the_ground(towns):
    tiles = sm.references(towns).query("area == 'south'").iloc[[37, 250]]
    shares = material_fractions(towns, tiles)
    assert list(shares.columns) == list(MATERIALS)
    assert shares.index.equals(tiles.index)
    extent = towns.area("south").map.bounds[2]
    for tile in tiles.itertuples():
        grid = map_grid(extent).window(tile.row, tile.col, tile.size, tile.size)
        fine = ground_grid(city_of(PRESETS["easy"], PRESETS["easy"].towns[1], extent), grid).material
        expected = [(fine == code).mean() for code in range(len(MATERIALS))]
        np.testing.assert_allclose(shares.loc[tile.Index], expected, atol=0.005)


def test_ground_that_is_not_simulated_cannot_be_asked(towns, tiny_scene, pairs_folder):
    with pytest.raises(ValueError, match="'east' of scene 'easy' is no simulated town; those are .'north'"):
        lone_building(towns, "east")
    real = sm.load_scene(pairs_folder)
    with pytest.raises(ValueError, match="no simulated town"):
        material_fractions(real, sm.references(real))


def test_an_impossible_angle_is_refused(towns):
    with pytest.raises(ValueError, match="incidence_deg"):
        closeup(towns, "north", 0, 0, 32, 85.0)


def test_what_has_changed_is_marked_and_where_nothing_has_nothing_is():
    window = ("north", 1200, 900, 200)
    assert not changes(sm.load_scene("easy"), *window).any()
    fractions = {name: changes(sm.load_scene(name), *window).mean() for name in ("standard", "hard")}
    assert 0 < fractions["standard"] < fractions["hard"] < 1
    with pytest.raises(ValueError, match="no simulated town"):
        changes(sm.load_scene("easy"), "nowhere", 0, 0, 50)
