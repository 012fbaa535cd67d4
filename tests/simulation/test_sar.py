"""SAR geometry against closed forms, scatter and shadow against loops, speckle against its law."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.simulation import sar
from sarmatch.simulation.city import MATERIALS, City, Grid, Ground, ground_grid
from sarmatch.simulation.sar import (
    POLARISATIONS,
    SURFACES,
    Acquisition,
    View,
    point_spread,
    render_strip,
    speckle,
    speckle_line,
    spread,
    strip_grid,
    trace,
    view_of,
)

PIXEL, THETA = 0.5, 40.0
TAN = np.tan(np.deg2rad(THETA))
LINES, WIDTH = 12, 400
NEAR_WALL, FAR_WALL, HEIGHT = 200, 260, 12.0  # a box roof on columns 200..259
SOIL, GRAVEL, WATER, TREE, GRASS = (MATERIALS.index(m) for m in ("soil", "roof_gravel", "water", "tree", "grass"))
FAR_FIELD = 1e6  # m: so high that the incidence is one angle, and closed forms hold


def view(theta: float = THETA, altitude: float = FAR_FIELD, width: float = WIDTH * PIXEL) -> View:
    return View(altitude * math.tan(math.radians(theta)) - width / 2, altitude)


def flat(height: float = 0.0, material: int = SOIL) -> Ground:
    shape = (LINES, WIDTH)
    level = np.full(shape, height, np.float32)
    return Ground(level, np.zeros(shape, np.float32), np.full(shape, material, np.uint8), np.zeros(shape, np.float32))


def box(height: float = HEIGHT, edge=lambda line: NEAR_WALL) -> Ground:
    ground = flat()
    for line in range(LINES):
        ground.height[line, edge(line) : FAR_WALL] = height
        ground.material[line, edge(line) : FAR_WALL] = GRAVEL
    return ground


def gamma(material: str, theta: float, band: str = "HH") -> float:
    """The law of the module's table, by hand."""
    surface = SURFACES[material]
    reference = math.cos(math.radians(sar.REFERENCE_INCIDENCE_DEG))
    sigma = 10 ** ({"HH": surface.hh, "VV": surface.vv, "HV": surface.hv}[band] / 10)
    return sigma / reference * (math.cos(math.radians(theta)) / reference) ** surface.exponent


# ------------------------------------------------------------------------------------------------------ geometry
@pytest.mark.parametrize("theta", [30.0, 40.0, 60.0])
@pytest.mark.parametrize("band", POLARISATIONS)
def test_flat_ground_returns_gamma_cos_theta(theta, band):
    image = trace(flat(), PIXEL, view(theta), (band,)).intensity[0]
    assert image[:, 2:-2] == pytest.approx(gamma("soil", theta, band) * math.cos(math.radians(theta)), rel=1e-3)
    middle = image[:, WIDTH // 2 - 1 : WIDTH // 2 + 1]
    assert middle == pytest.approx(gamma("soil", theta, band) * math.cos(math.radians(theta)), rel=1e-6)


def test_the_reference_angle_has_the_value_of_the_table():
    image = trace(flat(material=GRASS), PIXEL, view(sar.REFERENCE_INCIDENCE_DEG)).intensity[0]
    assert 10 * np.log10(image[5, WIDTH // 2]) == pytest.approx(SURFACES["grass"].hh, abs=1e-3)


def test_incidence_across_a_low_swath_is_what_trigonometry_says():
    """With a cosine law of exponent n the return of flat ground goes with cos^(n + 1) of the angle at each column."""
    acquisition = Acquisition(0, 0, LINES * PIXEL, 1000.0, incidence_deg=45.0, altitude_m=1500.0)
    near = view_of(acquisition).near_m
    assert math.degrees(math.atan2(near, 1500.0)) == pytest.approx(33.69, abs=0.01)
    assert math.degrees(math.atan2(near + 1000.0, 1500.0)) == pytest.approx(53.13, abs=0.01)
    shape = (LINES, 2000)
    level = np.zeros(shape, np.float32)
    ground = Ground(level, level, np.full(shape, SOIL, np.uint8), level)
    image = trace(ground, PIXEL, view_of(acquisition)).intensity[0, 3]
    angle = np.degrees(np.arctan2(near + (np.arange(2000) + 0.5) * PIXEL, 1500.0))
    expected = [gamma("soil", t) * math.cos(math.radians(t)) for t in angle]
    np.testing.assert_allclose(image[2:-2], expected[2:-2], rtol=1e-3)


def test_raised_ground_moves_towards_the_sensor_by_h_cot_theta():
    _, _, low = sar.look(50.0, 0.0, view().near_m, FAR_FIELD)
    _, _, high = sar.look(50.0, 10.0, view().near_m, FAR_FIELD)
    assert low == pytest.approx(50.0, abs=1e-4)
    assert low - high == pytest.approx(10.0 / TAN, rel=1e-3)


@pytest.mark.parametrize("theta", [30.0, 40.0, 55.0])
def test_shadow_of_a_box_is_h_tan_theta_long(theta):
    shadow = trace(box(), PIXEL, view(theta)).shadow
    expected = HEIGHT * np.tan(np.deg2rad(theta)) / PIXEL
    behind = shadow[0, FAR_WALL:].sum()
    assert abs(behind - expected) <= 1
    assert shadow[0].sum() == behind, "nothing else lies in shadow"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(25, 65), st.sampled_from([800.0, 1e5]))
def test_shadow_agrees_with_a_ray_to_the_platform(seed, theta, altitude):
    rng = np.random.default_rng(seed)
    height = np.repeat(rng.uniform(0, 15, (1, 20)), 6, 1).astype(np.float32)
    ground = Ground(height, np.zeros_like(height), np.full(height.shape, SOIL, np.uint8), height)
    geometry = view(theta, altitude, height.shape[1] * PIXEL)
    found = trace(ground, PIXEL, geometry).shadow[0]
    x = geometry.near_m + (np.arange(height.shape[1]) + 0.5) * PIXEL
    h = height[0].astype(float)
    for i in range(len(x)):
        # height of the ray from the platform (0, altitude) to point i, above each nearer point
        ray = altitude + (h[i] - altitude) * x[:i] / x[i]
        if i and abs(np.max(h[:i] - ray)) > 1e-6:
            assert found[i] == (np.max(h[:i] - ray) > 0)


def test_layover_starts_h_cot_theta_before_the_wall():
    count = trace(box(), PIXEL, view()).layover_count[0]
    expected = NEAR_WALL - HEIGHT / TAN / PIXEL
    first = np.flatnonzero(count > 1.02)[0]
    assert abs(first - expected) <= 1
    assert count[1:first] == pytest.approx(1, abs=0.02)
    assert np.median(count[first + 2 : NEAR_WALL - 2]) > 1.5, "ground and wall share these bins"


def test_the_corner_is_the_brightest_bin():
    result = trace(box(), PIXEL, view())
    row = result.intensity[0, LINES // 2]
    assert row.argmax() == NEAR_WALL - 1
    assert np.flatnonzero(result.double_bounce[LINES // 2]).tolist() == [NEAR_WALL - 1]
    soil = np.median(row[:100])
    assert 12 < 10 * np.log10(row.max() / soil) < 30


def test_a_wall_turned_from_the_track_answers_less():
    def brightest(shear: float) -> float:
        ground = box(edge=lambda line: NEAR_WALL + round(shear * line))
        return trace(ground, PIXEL, view()).double_bounce[4:8].max()

    facing, slightly, diagonal = (brightest(shear) for shear in (0.0, 0.5, 1.0))
    assert facing > slightly > diagonal > 0


def test_a_corner_needs_free_ground_in_front():
    """A wall behind another, nearer than its own layover, gets less of it: H_eff = min(H, D / tan)."""
    ground = box()
    ground.height[:, NEAR_WALL - 20 : NEAR_WALL - 16] = 3.0
    ground.material[:, NEAR_WALL - 20 : NEAR_WALL - 16] = GRAVEL
    free, narrow = (float(trace(g, PIXEL, view()).double_bounce[6, NEAR_WALL - 1]) for g in (box(), ground))
    left = 16 - math.floor(3.0 * TAN / PIXEL)  # px before the wall that the low one does not shade
    assert narrow / free == pytest.approx(left * PIXEL / TAN / HEIGHT, rel=0.1)
    ground.height[:, NEAR_WALL - 20 : NEAR_WALL - 4] = 3.0  # now the foot itself lies in shadow
    assert trace(ground, PIXEL, view()).double_bounce[6, NEAR_WALL - 1] == 0


def test_water_and_grass_before_a_wall_return_less_than_concrete():
    def corner(material: str) -> float:
        ground = box()
        ground.material[:, :NEAR_WALL] = MATERIALS.index(material)
        return trace(ground, PIXEL, view()).double_bounce[6, NEAR_WALL - 1]

    assert corner("concrete") > corner("water") > corner("grass") > 0


def test_energy_is_kept():
    """What the facets of the frontier send back is what lies in the bins."""
    ground = box()
    ground.material[:] = SOIL  # one law for all but the wall
    result = trace(ground, PIXEL, view())
    theta = math.radians(THETA)
    u = np.arange(WIDTH) * PIXEL * math.cos(theta) + ground.height[6] * math.sin(theta)
    lit = np.diff(np.maximum.accumulate(u))
    slope = np.clip(np.diff(ground.height[6]) / PIXEL, -2, 2)
    local = np.clip((math.cos(theta) + slope * math.sin(theta)) / np.sqrt(1 + slope**2), 0.02, 1)
    surface, reference = SURFACES["soil"], math.cos(math.radians(sar.REFERENCE_INCIDENCE_DEG))
    power = 10 ** (surface.hh / 10) / reference * (local / reference) ** surface.exponent
    out = (result.intensity[0, 6] - result.double_bounce[6]).sum() * PIXEL
    assert out == pytest.approx((power * lit).sum(), rel=1e-3)


def test_steeper_rays_give_more_layover_and_less_shadow():
    results = {theta: trace(box(), PIXEL, view(theta)) for theta in (30.0, 40.0, 55.0)}
    layover = [(r.layover_count > 1.02).mean() for r in results.values()]
    shadow = [r.shadow.mean() for r in results.values()]
    assert layover == sorted(layover, reverse=True)
    assert shadow == sorted(shadow)
    assert len(set(layover)) == len(set(shadow)) == 3


@given(st.lists(st.tuples(st.floats(-3, 13), st.floats(-3, 13), st.floats(0, 5)), min_size=1, max_size=12))
def test_scatter_agrees_with_a_plain_loop(intervals):
    expected, found = np.zeros(10), np.zeros(10)
    for a, b, energy in intervals:
        spread(found, a, b, energy)
        low, high = min(a, b), max(a, b)
        if high - low < 1e-6:
            if 0 <= low < 10:
                expected[int(low)] += energy
            continue
        for bin_ in range(10):
            expected[bin_] += energy * max(0.0, min(high, bin_ + 1) - max(low, bin_)) / (high - low)
    assert found == pytest.approx(expected, abs=1e-6)


def test_mirrored_lines_give_a_mirrored_image():
    rng = np.random.default_rng(0)
    ground = box()
    ground.height[:] += rng.uniform(0, 1, ground.height.shape).astype(np.float32)
    image = trace(ground, PIXEL, view()).intensity[0]
    mirrored = trace(Ground(*(g[::-1].copy() for g in ground)), PIXEL, view()).intensity[0]
    assert mirrored == pytest.approx(image[::-1], rel=1e-4)


def test_the_cross_band_is_the_weakest_and_volume_is_its_best():
    levels = {
        m: 10 * np.log10(trace(flat(material=MATERIALS.index(m)), PIXEL, view(), ("HH", "HV")).intensity[:, 6, 200])
        for m in ("tree", "asphalt")
    }
    assert all(hh > hv for hh, hv in levels.values())
    assert np.subtract(*levels["tree"]) < np.subtract(*levels["asphalt"])


def test_metal_that_faces_the_sensor_is_a_mirror():
    slope = math.tan(math.radians(THETA))  # a roof whose normal points at the platform
    facing = sar.gamma_of(0.1, 3.0, 0.3, slope, 0.0, math.sin(math.radians(THETA)), math.cos(math.radians(THETA)))
    level = sar.gamma_of(0.1, 3.0, 0.3, 0.0, 0.0, math.sin(math.radians(THETA)), math.cos(math.radians(THETA)))
    assert facing > 10 * level


# ------------------------------------------------------------------------------------------------- speckle, spread
@pytest.mark.parametrize("looks", [1.0, 4.0])
@pytest.mark.parametrize("order", [None, 4.0])
def test_speckle_has_mean_one_and_the_number_of_looks_of_its_law(looks, order):
    expected = looks if order is None else 1 / ((1 + 1 / looks) * (1 + 1 / order) - 1)
    for noise in (
        speckle((600, 600), looks, order, np.random.default_rng(0)),
        np.concatenate([speckle_line(("HV",), 6000, looks, order, 3, row) for row in range(60)]),
        np.concatenate([speckle_line(("HH",), 6000, looks, order, 3, row) for row in range(60)]),
    ):
        noise = noise.astype(np.float64)
        assert noise.mean() == pytest.approx(1, abs=0.01)
        assert noise.mean() ** 2 / noise.var() == pytest.approx(expected, rel=0.04)


def test_speckle_of_the_like_bands_is_correlated_and_of_the_cross_band_is_not():
    bands = ("HH", "VV", "HV")
    lines = np.concatenate([speckle_line(bands, 5000, 3.0, None, 1, row) for row in range(40)], axis=1)
    found = np.corrcoef(lines)
    assert found[0, 1] == pytest.approx(0.25, abs=0.01)
    assert found[0, 2] == pytest.approx(0, abs=0.01)
    assert found[1, 2] == pytest.approx(0, abs=0.01)


def test_a_band_has_the_same_speckle_whatever_else_is_rendered():
    alone, together = (speckle_line(b, 50, 3.0, 2.0, 1, 7) for b in (("VV",), ("HH", "VV", "HV")))
    assert np.array_equal(alone[0], together[1])


@pytest.mark.parametrize("resolution", [1.3, 2.0, 3.0])
def test_the_point_spread_has_its_width_and_low_sidelobes(resolution):
    weights = point_spread(resolution, half=40)
    assert weights.sum() == pytest.approx(1)
    fine = np.interp(np.linspace(-4, 4, 8001), np.arange(-40, 41), weights)
    if resolution >= 2:  # below, two samples cannot resolve the width
        assert np.ptp(np.linspace(-4, 4, 8001)[fine > fine.max() / 2]) == pytest.approx(resolution, rel=0.15)
    beyond = weights[np.abs(np.arange(-40, 41)) > 1.6 * resolution]
    assert 10 * np.log10(beyond.max() / weights.max()) < -25


# ------------------------------------------------------------------------------------------------------- strips
CITY = City(seed=5, extent_m=400)
ACQUISITION = Acquisition(200.0, 200.0, 120.0, 160.0, incidence_deg=THETA, altitude_m=2000.0)
CALM = {"seed": 3, "looks": 1e6}  # next to no speckle: geometry alone is compared


def test_a_strip_is_seeded():
    first, again = (render_strip(CITY, ACQUISITION, PIXEL, seed=3) for _ in range(2))
    assert first.shape == (1, 240, 320)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, render_strip(CITY, ACQUISITION, PIXEL, seed=4))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 200), st.integers(1, 40), st.sampled_from([0.0, 77.0]))
def test_a_part_of_a_strip_is_part_of_the_whole(first, count, heading):
    acquisition = ACQUISITION._replace(heading_deg=heading)
    options = {"seed": 1, "bands": ("HH", "HV"), "texture_order": 3.0}
    whole = render_strip(CITY, acquisition, PIXEL, **options)
    part = render_strip(CITY, acquisition, PIXEL, rows=(first, first + count), **options)
    np.testing.assert_allclose(part, whole[:, first : first + count], rtol=1e-5)


@pytest.mark.parametrize("heading", [0.0, 30.0, 200.0])
def test_the_strip_lies_where_the_acquisition_says(heading):
    grid = strip_grid(ACQUISITION._replace(heading_deg=heading), PIXEL)
    assert np.array(grid.xy(120, 160)) == pytest.approx((200.0, 200.0))
    along_range = np.array(grid.xy(0, 1)) - grid.xy(0, 0)
    assert np.degrees(np.arctan2(*along_range)) % 360 == pytest.approx((heading + 90) % 360)
    left = strip_grid(ACQUISITION._replace(heading_deg=heading, look_direction="left"), PIXEL)
    assert np.array(left.xy(0, 1)) - left.xy(0, 0) == pytest.approx(-along_range)


def test_errors_of_the_navigation_move_and_turn_what_is_seen():
    acquisition = ACQUISITION._replace(offset_m=(5.0, -3.0), heading_error_deg=4.0)
    nominal, seen = strip_grid(acquisition, PIXEL), strip_grid(acquisition, PIXEL, true=True)
    assert nominal == strip_grid(ACQUISITION, PIXEL)
    assert np.array(seen.xy(120, 160)) - nominal.xy(120, 160) == pytest.approx((5.0, -3.0))
    assert seen.turn_deg - nominal.turn_deg == 4.0


def test_looking_left_while_flying_back_is_looking_right():
    right = render_strip(CITY, ACQUISITION, PIXEL, **CALM)
    left = render_strip(CITY, ACQUISITION._replace(heading_deg=180.0, look_direction="left"), PIXEL, **CALM)
    np.testing.assert_allclose(left, right, rtol=1e-5)


def test_a_gain_error_scales_the_strip():
    plain, loud = (render_strip(CITY, ACQUISITION._replace(gain_db=g), PIXEL, seed=0) for g in (0.0, 3.0))
    np.testing.assert_allclose(loud / plain, 10**0.3, rtol=1e-4)


def test_a_wider_swath_at_the_same_place_shows_the_same_ground():
    """What lies outside of the swath throws its shadow and layover into it."""
    wide = ACQUISITION._replace(swath_m=240.0)
    half = 40.0 / PIXEL
    middle = ACQUISITION.altitude_m * TAN
    narrow = render_strip(CITY, ACQUISITION, PIXEL, roll_off_db=0.0, **CALM)[0]
    part = render_strip(CITY, wide, PIXEL, roll_off_db=0.0, **CALM)[0][:, int(half) : int(half) + 320]
    assert view_of(wide).near_m == pytest.approx(middle - 120.0)
    np.testing.assert_allclose(narrow[:, 8:-8], part[:, 8:-8], rtol=0.02)


@pytest.mark.parametrize(("heading", "looks"), [(0.0, "right"), (0.0, "left"), (90.0, "right"), (35.0, "left")])
def test_shadows_fall_away_from_the_sensor(heading, looks):
    """In the strip's own grid the dark pixels lie on the far side of what casts them, whatever the heading."""
    acquisition = Acquisition(200.0, 200.0, 150.0, 150.0, heading, looks, THETA, 5000.0)
    image = render_strip(CITY, acquisition, PIXEL, **CALM)[0]
    ground = ground_grid(CITY, strip_grid(acquisition, PIXEL))
    tall = ground.height - ground.terrain > 5
    dry = ground.material != WATER
    behind = np.roll(tall, 12, 1) & ~tall & dry
    before = np.roll(tall, -12, 1) & ~tall & dry
    dark = image < 10 ** (-22 / 10)
    assert dark[behind & ~before].mean() > 3 * dark[before & ~behind].mean()


def test_point_scatterers_belong_to_the_world():
    """The same bright points wherever the window lies; without them the image is darker at those places."""
    grid = Grid(0.0, 400.0, (200, 400), PIXEL)
    ground = flat(material=GRAVEL)
    level = np.zeros((200, 400), np.float32)
    ground = Ground(level, level, np.full((200, 400), GRAVEL, np.uint8), level)
    with_points = trace(ground, PIXEL, view(), origin=grid, points_seed=1).intensity[0]
    again = trace(ground, PIXEL, view(), origin=grid, points_seed=1).intensity[0]
    without = trace(ground, PIXEL, view()).intensity[0]
    assert np.array_equal(with_points, again)
    share = (with_points > 1.001 * without).mean()
    assert share == pytest.approx(SURFACES["roof_gravel"].points, rel=0.3)
    shifted = trace(
        Ground(*(g[10:] for g in ground)), PIXEL, view(), origin=grid.window(10, 0, 190, 400), points_seed=1
    )
    assert np.array_equal(shifted.intensity[0], with_points[10:])


def test_water_is_dark_and_not_below_the_noise():
    city = City(seed=1, extent_m=2000)
    acquisition = Acquisition(1000.0, 1000.0, 300.0, 300.0, altitude_m=5000.0)
    ground = ground_grid(city, strip_grid(acquisition, PIXEL))
    image = 10 * np.log10(render_strip(city, acquisition, PIXEL, seed=0, looks=64, noise_floor_db=-25.0)[0])
    water = ground.material == WATER
    assert water.mean() > 0.05
    assert np.median(image[water]) == pytest.approx(-23.3, abs=1.0)  # -28 dB and the noise floor together
    assert np.median(image[~water]) > np.median(image[water]) + 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"look_direction": "up"}, "'up'"),
        ({"incidence_deg": 85.0}, "85.0"),
        ({"incidence_deg": 12.0, "altitude_m": 300.0}, "12.0"),
    ],
)
def test_impossible_acquisitions_are_refused_by_name(change, said):
    with pytest.raises(ValueError, match=said):
        render_strip(CITY, ACQUISITION._replace(**change), PIXEL, seed=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"bands": ("RR",)}, "RR"), ({"looks": 0.0}, "looks"), ({"rows": (0, 999)}, "999"), ({"epoch": 7}, "epoch is 7")],
)
def test_impossible_renderings_are_refused_by_name(options, said):
    with pytest.raises(ValueError, match=said):
        render_strip(CITY, ACQUISITION, PIXEL, seed=0, **options)
