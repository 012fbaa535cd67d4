"""Panoramas agree with the closed forms of a pinhole-free view, with the aerial photograph, and with themselves."""

import numpy as np
import pytest
from scipy import ndimage

from sarmatch.simulation import City, Grid, Survey, render_panorama, street_places, survey
from sarmatch.simulation.city import ASPHALT, GRAVEL, VEHICLE, Ground
from sarmatch.simulation.panorama import AIR_M, CAMERA_M, SHAPE

PIXEL, SIDE = 0.25, 320
EYE = (40.1, 40.1)  # m from the lower left corner of the flat survey
DEGREES = 90 / SHAPE[0]


def flat(photo: np.ndarray | None = None) -> Survey:
    """An asphalt plain, 80 m wide."""
    shape = (SIDE, SIDE)
    zeros = np.zeros(shape, np.float32)
    plain = Ground(zeros, zeros, np.full(shape, ASPHALT, np.uint8), zeros)
    photo = np.full((3, *shape), 120, np.uint8) if photo is None else photo
    return Survey(City(1, 80.0), 0, Grid(0.0, SIDE * PIXEL, shape, PIXEL), plain, photo, 150.0, 42.0)


def with_block(rows: slice, cols: slice, height_m: float, material: int = GRAVEL) -> Survey:
    plain = flat()
    ground = Ground(*(layer.copy() for layer in plain.ground))
    ground.height[rows, cols], ground.material[rows, cols], ground.tone[rows, cols] = height_m, material, 0.4
    return plain._replace(ground=ground)


def changed_rows(scene: Survey, col: int) -> np.ndarray:
    """Rows of a column in which something stands that is not on the plain."""
    differs = render_panorama(scene, *EYE) != render_panorama(flat(), *EYE)
    return np.flatnonzero(differs.any(0)[:, col])


@pytest.fixture(scope="module")
def town() -> Survey:
    return survey(City(3, 600.0, "old_town"), Grid(200.0, 400.0, (600, 600), PIXEL))


@pytest.mark.parametrize(("distance_m", "height_m"), [(10.0, 6.0), (20.0, 15.0), (5.0, 1.2)])
def test_a_wall_appears_at_the_elevation_of_the_closed_form(distance_m, height_m):
    first = round((EYE[0] + distance_m) / PIXEL)
    scene = with_block(slice(None), slice(first, first + 40), height_m)
    distance_m = first * PIXEL - EYE[0]
    east = SHAPE[1] // 2 + SHAPE[1] // 4
    rows = changed_rows(scene, east)
    top, foot = np.rad2deg(np.arctan2([height_m - CAMERA_M, -CAMERA_M], distance_m))
    assert 45 - rows[-1] * DEGREES == pytest.approx(foot, abs=2 * DEGREES + np.rad2deg(0.1 * CAMERA_M / distance_m**2))
    if height_m > CAMERA_M:
        assert 45 - rows[0] * DEGREES == pytest.approx(top, abs=2 * DEGREES)


def test_the_middle_looks_along_the_heading_and_columns_turn_clockwise():
    north, west = with_block(slice(0, 100), slice(150, 170), 10.0), with_block(slice(150, 170), slice(0, 100), 10.0)
    for scene, azimuth in ((north, 0), (west, 270)):
        for heading in (0.0, 90.0):
            seen = render_panorama(scene, *EYE, heading_deg=heading) != render_panorama(
                flat(), *EYE, heading_deg=heading
            )
            middle = np.exp(2j * np.pi * (np.flatnonzero(seen.any((0, 1))) + 0.5 - SHAPE[1] / 2) / SHAPE[1]).mean()
            off = (np.rad2deg(np.angle(middle)) + heading - azimuth + 180) % 360 - 180
            assert off == pytest.approx(0, abs=3)


def test_a_heading_moves_whole_columns(town):
    place = street_places(town, 1, 0, 20.0)[0]
    straight = render_panorama(town, *place)
    for columns in (1, 160, -77):
        turned = render_panorama(town, *place, heading_deg=columns * 360 / SHAPE[1])
        np.testing.assert_array_equal(turned, np.roll(straight, -columns, axis=2))


def test_the_ground_has_the_colours_of_the_aerial_photograph_where_rays_meet_it():
    noise = np.random.default_rng(0).uniform(0, 255, (3, SIDE, SIDE))
    photo = ndimage.gaussian_filter(noise, (0, 2, 2)).astype(np.uint8)
    image = render_panorama(flat(photo), *EYE)
    rows = np.arange(SHAPE[0] // 2 + 16, SHAPE[0])  # from 4.6 degrees below the horizon, 20 m away
    at = CAMERA_M / np.tan(np.deg2rad((rows + 0.5) * DEGREES - 45))[:, None]
    azimuth = 2 * np.pi * (np.arange(SHAPE[1]) + 0.5 - SHAPE[1] / 2) / SHAPE[1]
    col, row = (
        (EYE[0] + at * np.sin(azimuth)) / PIXEL - 0.5,
        (SIDE * PIXEL - EYE[1] - at * np.cos(azimuth)) / PIXEL - 0.5,
    )

    def expected(row: np.ndarray) -> np.ndarray:
        seen = np.stack([ndimage.map_coordinates(band.astype(float), (row, col), order=1) for band in photo])
        air = 255 * np.array([0.82, 0.87, 0.92])[:, None, None]
        return seen + (1 - np.exp(-at / AIR_M)) * (air - seen)

    assert np.abs(image[:, rows] - expected(row)).max() < 2
    assert np.abs(image[:, rows] - expected(row + 3)).max() > 20  # and of no other place


def test_a_facade_in_the_sun_is_brighter_than_one_in_a_shadow():
    south = slice(100, 120)  # north of the camera, so that its front looks south; the sun stands in the south-east
    alone = with_block(south, slice(100, 220), 12.0)
    ground = Ground(*(layer.copy() for layer in alone.ground))
    ground.height[200:204, 120:300], ground.material[200:204, 120:300] = 30.0, GRAVEL  # behind the camera's back
    column = slice(SHAPE[1] // 2 - 20, SHAPE[1] // 2 + 20)
    lit = render_panorama(alone, *EYE)[:, 100:150, column].mean()
    shaded = render_panorama(alone._replace(ground=ground), *EYE)[:, 100:150, column].mean()
    assert lit > 1.2 * shaded


def test_rays_meet_what_a_march_in_small_steps_meets():
    """Walls of many heights, one behind another: a plain loop over steps of 2 cm says which is seen in each row."""
    rng, scene = np.random.default_rng(1), flat()
    ground = Ground(*(layer.copy() for layer in scene.ground))
    for first in range(170, 310, 10):
        ground.height[:, first : first + 3] = rng.uniform(0.3, 9.0)
    hues = np.zeros((3, SIDE, SIDE), np.uint8)
    hues[0] = np.arange(SIDE) * 255 // SIDE  # red says how far east a place is
    scene = scene._replace(ground=ground, photo=hues)
    image = render_panorama(scene, *EYE, shape=(90, 36), elevation_deg=(-45.0, 45.0))
    tangents = np.tan(np.deg2rad(45 - (np.arange(90) + 0.5)))
    for column in (25, 27, 30):  # from north-east to south-east
        azimuth = 2 * np.pi * (column + 0.5 - 18) / 36
        at = np.arange(0.02, 200, 0.02)
        col, row = EYE[0] + at * np.sin(azimuth), SIDE * PIXEL - EYE[1] - at * np.cos(azimuth)
        inside = (col < SIDE * PIXEL) & (row >= 0) & (row < SIDE * PIXEL)
        at, col, row = at[inside], col[inside] / PIXEL, row[inside] / PIXEL
        heights = ground.height[row.astype(int), col.astype(int)]
        close = 0
        for r, tangent in enumerate(tangents):
            hit = np.flatnonzero(CAMERA_M + tangent * at <= heights)
            if not len(hit):
                assert image[2, r, column] > image[0, r, column] + 20, "sky"
                continue
            first = hit[0]
            air = 1 - np.exp(-at[first] / AIR_M)
            red = (col[first] - 0.5) * 255 / SIDE
            close += abs(image[0, r, column] - (red + air * (255 * 0.82 - red))) < 3
        assert close >= 0.9 * (tangents < 0).sum() > 0


def test_the_same_place_gives_the_same_picture_and_another_a_different_one(town):
    first, second = street_places(town, 2, 4, 20.0)
    np.testing.assert_array_equal(render_panorama(town, *first), render_panorama(town, *first))
    assert (render_panorama(town, *first) != render_panorama(town, *second)).mean() > 0.3


def test_places_lie_on_streets(town):
    places = street_places(town, 50, 0, 20.0)
    assert len(places) == 50
    np.testing.assert_array_equal(places, street_places(town, 50, 0, 20.0))
    col, row = ((places - (200, 400)) * (1, -1) / PIXEL).astype(int).T
    material = town.ground.material[row, col]
    assert set(material) <= {ASPHALT, 6}  # or below a crown
    assert (material == ASPHALT).mean() > 0.8


def test_what_cannot_be_rendered_is_refused(town):
    with pytest.raises(ValueError, match="outside of the survey"):
        render_panorama(town, 0.0, 0.0)
    with pytest.raises(ValueError, match="no camera can stand"):
        render_panorama(with_block(slice(None), slice(None), 1.5, VEHICLE), *EYE)
    with pytest.raises(ValueError, match="elevation_deg"):
        render_panorama(town, 250.0, 350.0, elevation_deg=(-90, 45))
    with pytest.raises(ValueError, match="north-up"):
        survey(City(3, 600.0), Grid(0, 0, (8, 8), PIXEL, 30.0))
    with pytest.raises(ValueError, match="margin_m"):
        street_places(town, 5, 0, 80.0)
