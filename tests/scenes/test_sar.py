"""SAR geometry against closed forms, scatter against loops, speckle against its law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarmatch.scenes.city import MATERIALS, City, Ground
from sarmatch.scenes.sar import (
    LOOKS,
    backscatter,
    frontier,
    range_bins,
    render_sar,
    render_strip,
    scatter_intervals,
    speckle,
    trace,
)

PIXEL, THETA = 0.5, 40.0
TAN = np.tan(np.deg2rad(THETA))
LINES, WIDTH = 8, 400
NEAR_WALL, FAR_WALL, HEIGHT = 200, 260, 12.0  # a box roof on columns 200..259
SOIL, GRAVEL, WATER = (MATERIALS.index(m) for m in ("soil", "roof_gravel", "water"))


def flat(height: float = 0.0, material: int = SOIL) -> Ground:
    shape = (LINES, WIDTH)
    level = np.full(shape, height, np.float32)
    return Ground(level, level.copy(), np.full(shape, material, np.uint8), np.zeros(shape, np.float32))


def box() -> Ground:
    ground = flat()
    ground.height[:, NEAR_WALL:FAR_WALL] = HEIGHT
    ground.material[:, NEAR_WALL:FAR_WALL] = GRAVEL
    return ground


def test_flat_ground_returns_gamma_cos_theta():
    image = trace(flat(), PIXEL, THETA).intensity
    gamma = backscatter(np.array([SOIL], np.uint8), 0.0, 0.0, THETA, "HH")[0]
    assert image[:, 2:-2] == pytest.approx(gamma * np.cos(np.deg2rad(THETA)), rel=1e-6)


def test_raised_ground_moves_towards_the_sensor_by_h_cot_theta():
    ground = flat(10.0)
    shift = range_bins(flat().height, PIXEL, THETA) - range_bins(ground.height, PIXEL, THETA)
    assert shift == pytest.approx(10.0 / TAN / PIXEL)


@pytest.mark.parametrize("theta", [30.0, 40.0, 55.0])
def test_shadow_of_a_box_is_h_tan_theta_long(theta):
    shadow, _, _ = frontier(box().height, PIXEL, theta)
    expected = HEIGHT * np.tan(np.deg2rad(theta)) / PIXEL
    behind = shadow[0, FAR_WALL:].sum()
    assert abs(behind - expected) <= 1
    assert shadow[0].sum() == behind, "nothing else lies in shadow"


def test_layover_starts_h_cot_theta_before_the_wall():
    count = trace(box(), PIXEL, THETA).layover_count[0]
    expected = NEAR_WALL - HEIGHT / TAN / PIXEL
    first = np.flatnonzero(count > 1.02)[0]
    assert abs(first - expected) <= 1
    assert count[1:first] == pytest.approx(1, abs=0.02)
    assert np.median(count[first + 2 : NEAR_WALL - 2]) > 1.5, "ground and wall share these bins"


def test_the_corner_is_the_brightest_bin():
    result = trace(box(), PIXEL, THETA)
    row = result.intensity[LINES // 2]
    assert row.argmax() == NEAR_WALL - 1
    assert np.flatnonzero(result.double_bounce[LINES // 2]).tolist() == [NEAR_WALL - 1]
    soil = np.median(row[:100])
    assert 12 < 10 * np.log10(row.max() / soil) < 30


def test_a_wall_turned_from_the_flight_line_answers_less():
    def brightest(shear: float) -> float:
        ground = flat()
        for line in range(LINES):
            edge = NEAR_WALL + round(shear * line)
            ground.height[line, edge:FAR_WALL] = HEIGHT
            ground.material[line, edge:FAR_WALL] = GRAVEL
        return trace(ground, PIXEL, THETA).double_bounce[3:5].max()

    facing, slightly, diagonal = (brightest(shear) for shear in (0.0, 0.5, 1.0))
    assert facing > slightly > diagonal > 0


def test_energy_is_kept():
    ground = box()
    result = trace(ground, PIXEL, THETA)
    _, area, _ = frontier(ground.height, PIXEL, THETA)
    step = np.diff(ground.height, axis=1)
    gamma = backscatter(ground.material[:, 1:], np.clip(step / PIXEL, -2, 2), np.zeros_like(step), THETA, "HH")
    gamma[step > 1.5] = 10 ** (-6 / 10)  # a facade
    out = (result.intensity - result.double_bounce).sum() * PIXEL
    assert out == pytest.approx((gamma * area).sum(), rel=2e-3)


def test_steeper_rays_give_more_layover_and_less_shadow():
    results = {theta: trace(box(), PIXEL, theta) for theta in (30.0, 40.0, 55.0)}
    layover = [(r.layover_count > 1.02).mean() for r in results.values()]
    shadow = [r.shadow.mean() for r in results.values()]
    assert layover == sorted(layover, reverse=True)
    assert shadow == sorted(shadow)
    assert len(set(layover)) == len(set(shadow)) == 3


@given(
    st.lists(
        st.tuples(st.floats(-3, 13), st.floats(-3, 13), st.floats(0, 5)),
        min_size=1,
        max_size=12,
    )
)
def test_scatter_agrees_with_a_plain_loop(intervals):
    a, b, energy = (np.array(c) for c in zip(*intervals, strict=True))
    low, high = np.minimum(a, b), np.maximum(a, b)
    wide = high - low > 2e-3  # the function widens points a little
    a, b, energy, low, high = (v[wide] for v in (a, b, energy, low, high))
    expected = np.zeros(10)
    for lo, hi, e in zip(low, high, energy, strict=True):
        for bin_ in range(10):
            expected[bin_] += e * max(0.0, min(hi, bin_ + 1) - max(lo, bin_)) / (hi - lo)
    found = scatter_intervals(a[None], b[None], energy[None], 10)[0]
    assert found == pytest.approx(expected, abs=1e-6)


def test_mirrored_lines_give_a_mirrored_image():
    rng = np.random.default_rng(0)
    ground = box()
    ground.height[:] += rng.uniform(0, 1, ground.height.shape).astype(np.float32)
    image = trace(ground, PIXEL, THETA).intensity
    mirrored = trace(Ground(*(g[::-1] for g in ground)), PIXEL, THETA).intensity
    assert mirrored == pytest.approx(image[::-1], rel=1e-4)


@pytest.mark.parametrize("looks", [1.0, 4.0])
@pytest.mark.parametrize("order", [None, 4.0])
def test_speckle_has_mean_one_and_the_number_of_looks_of_its_law(looks, order):
    noise = speckle((600, 600), looks, order, np.random.default_rng(0)).astype(np.float64)
    expected = looks if order is None else 1 / ((1 + 1 / looks) * (1 + 1 / order) - 1)
    assert noise.mean() == pytest.approx(1, abs=0.01)
    assert noise.mean() ** 2 / noise.var() == pytest.approx(expected, rel=0.04)


def test_water_is_dark_and_not_below_the_noise():
    lake = render_sar(flat(material=WATER), PIXEL, incidence_deg=THETA, seed=0, looks=64, noise_floor_db=-25)
    soil = render_sar(flat(), PIXEL, incidence_deg=THETA, seed=0, looks=64, noise_floor_db=-25)
    assert 10 * np.log10(np.median(lake)) > -25.5
    assert np.median(soil) > 5 * np.median(lake)


CITY = City(seed=5, extent_m=400)
STRIP = {"incidence_deg": THETA, "seed": 3, "looks": 4.0}


def test_a_strip_is_seeded():
    first, again = (render_strip(CITY, 100, 300, (120, 160), PIXEL, look="east", **STRIP) for _ in range(2))
    other = render_strip(CITY, 100, 300, (120, 160), PIXEL, look="east", **(STRIP | {"seed": 4}))
    assert first.shape == (1, 120, 160)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_strip_is_part_of_a_wider_one():
    calm = STRIP | {"looks": 1e6}  # next to no speckle: geometry alone is compared
    wide = render_strip(CITY, 100, 300, (200, 240), PIXEL, look="west", **calm)
    part = render_strip(CITY, 100 + 60 * PIXEL, 300 - 40 * PIXEL, (100, 100), PIXEL, look="west", **calm)
    assert part[0] == pytest.approx(wide[0, 40:140, 60:160], rel=0.02)


@pytest.mark.parametrize("look", sorted(LOOKS))
def test_shadows_fall_away_from_the_sensor(look):
    """The dark pixels of a strip lie on the far side of the ground that casts them, whatever the look."""
    from sarmatch.scenes.city import ground_grid

    shape, place = (300, 300), (100.0, 300.0)
    image = render_strip(CITY, *place, shape, PIXEL, look=look, **(STRIP | {"looks": 1e6}))[0]
    ground = ground_grid(CITY, *place, shape, PIXEL)
    tall = ground.height - ground.terrain > 5
    dry = ground.material != MATERIALS.index("water")
    step = {"east": (0, 12), "west": (0, -12), "south": (12, 0), "north": (-12, 0)}[look]
    behind = np.roll(tall, step, (0, 1)) & ~tall & dry
    before = np.roll(tall, (-step[0], -step[1]), (0, 1)) & ~tall & dry
    dark = image < 10 ** (-22 / 10)
    assert dark[behind & ~before].mean() > 3 * dark[before & ~behind].mean()


@pytest.mark.parametrize(
    ("change", "said"), [({"look": "up"}, "up"), ({"incidence_deg": 89.0}, "89"), ({"polarisation": "RR"}, "RR")]
)
def test_nonsense_is_refused_by_name(change, said):
    with pytest.raises(ValueError, match=said):
        render_strip(CITY, 0, 100, (20, 20), PIXEL, **({"look": "east"} | STRIP | change))
