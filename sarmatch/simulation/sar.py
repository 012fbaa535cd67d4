"""Side-looking SAR of a height map, from a platform of finite altitude.

Rows are azimuth lines, columns are ground range with the near side at column 0. One sweep of each line from near to far
keeps the illuminated frontier, the largest angle from the nadir seen so far: what lies behind it is in shadow, and what
adds to it is lit by just that much. The energy of each facet is spread over the range bins that it occupies, exactly.
Columns of the image are ground range on the plane h = 0, so a flat city falls exactly on the map and every height is
displaced towards the sensor by about h / tan(theta).

The geometry follows the two-pass layover and shadow sweep of range-Doppler simulators, written as an illuminated
frontier; the wall-ground double bounce is the geometrical-optics form of Franceschetti, Iodice and Riccio (TGRS 40(8),
2002). The backscatter coefficients are rounded values typical of X band, meant for a plausible image and not for
radiometry.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sarmatch.simulation.city import (
    FIRST_ROOF,
    MATERIALS,
    City,
    Grid,
    Ground,
    compiled,
    for_each,
    ground_grid,
    hash2,
    inlined,
    unit,
)

Floats = NDArray[np.float32]

REFERENCE_INCIDENCE_DEG = 42.5
"""The angle at which the table below holds."""
_REFERENCE = math.cos(math.radians(REFERENCE_INCIDENCE_DEG))


class Surface(NamedTuple):
    """How a material answers: power at the reference angle in dB, and how it changes with the angle."""

    hh: float
    vv: float
    hv: float
    exponent: float  # of the cosine law; 0 for a volume, 3 for a mirror
    corner: float  # fraction of a wall's double bounce that this ground returns
    points: float  # fraction of pixels that hold a single strong scatterer: a railing, a window, a pole


SURFACES: dict[str, Surface] = {
    "water": Surface(-28, -26, -40, 3.0, 0.5, 0),
    "asphalt": Surface(-20, -18.5, -30, 1.8, 1.0, 0.0002),
    "concrete": Surface(-15, -14, -26, 1.5, 1.0, 0.001),
    "soil": Surface(-14, -12.5, -23, 1.0, 0.6, 0),
    "grass": Surface(-11.5, -11, -18.5, 0.6, 0.3, 0),
    "crop": Surface(-10.5, -10, -17, 0.5, 0.2, 0),
    "tree": Surface(-8.5, -8.5, -13.5, 0.2, 0.1, 0),
    "vehicle": Surface(-2, -2, -12, 1.0, 0.5, 0.05),
    "roof_tile": Surface(-10, -9.5, -19, 1.2, 0.5, 0.002),
    "roof_gravel": Surface(-10, -9.5, -19, 1.2, 0.5, 0.004),
    "roof_metal": Surface(-8, -8, -20, 3.0, 0.5, 0.006),
}
_TABLE = np.array([SURFACES[m] for m in MATERIALS], np.float64)
_EXPONENT, _CORNER, _POINTS = (np.ascontiguousarray(_TABLE[:, k]) for k in (3, 4, 5))
METAL, WATER = MATERIALS.index("roof_metal"), MATERIALS.index("water")


class Channel(NamedTuple):
    """What depends on the polarisation."""

    wall_db: float  # gamma of a facade
    corner_db: float  # gamma of a wall-ground corner that faces the sensor
    corner_floor_db: float  # of the same, whatever the direction of the wall
    point_db: float  # median power of a point scatterer on its pixel
    specular: float  # strength of the mirror lobe of metal


POLARISATIONS: dict[str, Channel] = {
    "HH": Channel(-6.0, 6.0, -12.0, 6.0, 0.3),
    "VV": Channel(-7.0, 4.0, -13.0, 5.0, 0.3),
    "HV": Channel(-15.0, -8.0, -17.0, -6.0, 0.0),
}

WALL_M = 1.5  # a step from one pixel to the next that counts as a wall
_CORNER_SLOPE = 0.2  # rms slope of the ground in front of a wall: how fast the corner fades when the wall turns away
_SPECULAR_SLOPE = 0.12  # rms slope of a metal roof
_POINT_SPREAD_DB = 5.0  # of the power of point scatterers
_CO_POLAR_CORRELATION = 0.25  # of the speckle intensity of HH and VV: |rho|^2 for |rho| = 0.5
_HALO = 8  # lines that a block looks over its edge: the point spread and the direction of walls reach no farther
_BLOCK = 128  # lines rendered at a time


# ------------------------------------------------------------------------------------------------------ acquisitions
class Acquisition(NamedTuple):
    """One acquisition: where its strip lies by its own account, how it looks down, and what it gets wrong.

    Parameters
    ----------
    x, y
        Centre of the strip in metres east and north.
    length_m, swath_m
        Of the strip along the track and across it.
    heading_deg
        Compass heading of the platform: 0 north, 90 east.
    look_direction
        `right` or `left` of the track.
    incidence_deg
        Angle between ray and vertical in the middle of the swath.
    altitude_m
        Of the platform above the plane h = 0; the lower, the more the incidence changes across the swath.
    offset_m
        The ground that is really seen lies so far (east, north) from where the strip claims to be.
    heading_error_deg
        It is turned by so much, clockwise about the strip's centre.
    gain_db
        Radiometric error of the whole strip.
    """

    x: float
    y: float
    length_m: float
    swath_m: float
    heading_deg: float = 0.0
    look_direction: str = "right"
    incidence_deg: float = 42.0
    altitude_m: float = 1500.0
    offset_m: tuple[float, float] = (0.0, 0.0)
    heading_error_deg: float = 0.0
    gain_db: float = 0.0


LOOK_DIRECTIONS = {"right": 0.0, "left": 180.0}
"""Turn of the strip's grid against the heading: columns run away from the platform, so a left look turns it about."""


class View(NamedTuple):
    """Side-looking geometry of a grid whose column 0 is its near edge."""

    near_m: float  # ground range of the near edge
    altitude_m: float


def view_of(acquisition: Acquisition) -> View:
    """Where the platform flies, seen from the strip.

    Raises
    ------
    ValueError
        Where the look direction is unknown, or part of the swath lies below 10 or above 80 degrees.
    """
    if acquisition.look_direction not in LOOK_DIRECTIONS:
        raise ValueError(f"look_direction is {acquisition.look_direction!r}, expected one of {sorted(LOOK_DIRECTIONS)}")
    middle = acquisition.altitude_m * math.tan(math.radians(acquisition.incidence_deg))
    for edge in (-0.5, 0.5):
        angle = math.degrees(math.atan2(middle + edge * acquisition.swath_m, acquisition.altitude_m))
        if not 10 <= angle <= 80:
            raise ValueError(
                f"incidence_deg = {acquisition.incidence_deg} at {acquisition.altitude_m} m puts an edge of a swath of "
                f"{acquisition.swath_m} m at {angle:.1f} degrees, expected 10 to 80"
            )
    return View(middle - acquisition.swath_m / 2, acquisition.altitude_m)


def strip_grid(acquisition: Acquisition, pixel_size: float, *, true: bool = False) -> Grid:
    """The pixel grid of a strip: columns from near to far range, rows along the track, backwards when looking right.

    Parameters
    ----------
    acquisition, pixel_size
        Which strip, and metres per pixel.
    true
        The ground that is really seen instead of where the strip claims to be.
    """
    view_of(acquisition)
    turn = (
        acquisition.heading_deg
        + LOOK_DIRECTIONS[acquisition.look_direction]
        + (acquisition.heading_error_deg if true else 0.0)
    )
    x, y = (
        (acquisition.x, acquisition.y)
        if not true
        else (acquisition.x + acquisition.offset_m[0], acquisition.y + acquisition.offset_m[1])
    )
    shape = (round(acquisition.length_m / pixel_size), round(acquisition.swath_m / pixel_size))
    half_v, half_u = (n * pixel_size / 2 for n in shape)
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return Grid(x - half_u * cos + half_v * sin, y + half_u * sin + half_v * cos, shape, pixel_size, turn)


# ---------------------------------------------------------------------------------------------------------- geometry
@compiled
def look(x: float, h: float, near: float, altitude: float) -> tuple[float, float, float]:
    """Angle from the nadir, slant range, and place on the ground-range axis of a point `x` m beyond the near edge."""
    ground, down = near + x, altitude - h
    slant = math.sqrt(ground * ground + down * down)
    return math.atan2(ground, down), slant, math.sqrt(slant * slant - altitude * altitude) - near


@compiled
def spread(out: np.ndarray, a: float, b: float, energy: float) -> None:
    """Spread an energy evenly over the interval between `a` and `b`, in bins, and add it to the bins' `out`."""
    low, high = min(a, b), max(a, b)
    first, last = int(math.floor(low)), int(math.floor(high))
    if last == first or high - low < 1e-6:
        if 0 <= first < len(out):
            out[first] += energy
        return
    per_bin = energy / (high - low)
    for k in range(max(first, 0), min(last, len(out) - 1) + 1):
        out[k] += per_bin * (min(high, k + 1.0) - max(low, float(k)))


@compiled
def wall_direction(height: np.ndarray, row: int, col: int) -> float:
    """Angle between a wall and the track, from a height gradient over 5 x 5 pixels."""
    rows, cols = height.shape
    smooth = (1.0, 4.0, 6.0, 4.0, 1.0)
    slope = (-1.0, -2.0, 0.0, 2.0, 1.0)
    gx, gy = 0.0, 0.0
    for i in range(5):
        r = min(max(row + i - 2, 0), rows - 1)
        for j in range(5):
            z = height[r, min(max(col + j - 2, 0), cols - 1)]
            gx += smooth[i] * slope[j] * z
            gy += slope[i] * smooth[j] * z
    return math.atan2(abs(gy), abs(gx))


@compiled
def gamma_of(
    gamma: float, exponent: float, specular: float, slope_range: float, slope_azimuth: float, sin: float, cos: float
) -> float:
    """Power of a facet per unit of area square to the ray: a cosine law about the reference angle, and a mirror's lobe.

    The lobe is that of a rough surface in geometrical optics (Kirchhoff): strong where the facet faces the sensor.
    """
    local = (cos + slope_range * sin) / math.sqrt(1 + slope_range * slope_range + slope_azimuth * slope_azimuth)
    local = min(max(local, 0.02), 1.0)
    value = gamma * (local / _REFERENCE) ** exponent
    if specular > 0:
        c2, s2 = local * local, 2 * _SPECULAR_SLOPE * _SPECULAR_SLOPE
        value += specular * math.exp(-(1 / c2 - 1) / s2) / (s2 * c2 * c2 * local)
    return value


class SarTrace(NamedTuple):
    """A speckle-free SAR image and the masks that explain it."""

    intensity: Floats  # (B, H, W), without noise, speckle and point spread
    layover_count: Floats  # (H, W): how many surfaces share a range bin: 1 on flat land, 0 in shadow, more in layover
    shadow: NDArray[np.bool_]  # (H, W), in map geometry: the pixels that the sensor cannot see
    double_bounce: Floats  # (H, W): the part of the first band's intensity that comes from wall-ground corners


class _Place(NamedTuple):
    """Where the pixels of a ground grid lie: its corner, and the cosine and sine of its turn."""

    x0: float
    y0: float
    cos: float
    sin: float


class _Response(NamedTuple):
    """How materials and structures answer in each band (power)."""

    gamma: NDArray[np.float64]  # (bands, materials)
    channels: NDArray[np.float64]  # (bands, fields of Channel)


class _Image(NamedTuple):
    """What is traced, in float64: see `SarTrace`."""

    intensity: NDArray[np.float64]
    count: NDArray[np.float64]  # type: ignore[assignment]  # hides a tuple's own count
    shadow: NDArray[np.bool_]
    bounce: NDArray[np.float64]


class _Echo(NamedTuple):
    """From where the radar sees a pixel's surface, and where it puts it."""

    angle: float  # from the nadir
    slant: float  # range in metres
    at: float  # place on the image's range axis, in pixels


@inlined
def _echo(x: float, height: float, pixel: float, view: View) -> _Echo:
    angle, slant, at = look(x, height, view.near_m, view.altitude_m)
    return _Echo(angle, slant, at / pixel)


@compiled
def _sweep(
    ground: Ground,
    pixel: float,
    view: View,
    response: _Response,
    place: _Place,
    seed: int,
    lines: tuple[int, int],
    out: _Image,
) -> None:
    """Trace some lines of a ground grid; see `trace`."""
    height, terrain, material, _ = ground
    gamma, channels = response
    intensity, count, shadow, _ = out
    bands, cols = len(gamma), height.shape[1]
    for row in range(lines[0], lines[1]):
        before = _echo(0.5 * pixel, height[row, 0], pixel, view)
        frontier = before.angle
        taken = -1  # the last column that holds something high or hidden
        for col in range(cols):
            here, m = _echo((col + 0.5) * pixel, height[row, col], pixel, view), material[row, col]
            hidden = here.angle < frontier
            shadow[row, col] = hidden
            if col:
                foot = material[row, col - 1]
                wall = height[row, col] - height[row, col - 1] > WALL_M and (m >= FIRST_ROOF or foot == WATER)
                if wall and not shadow[row, col - 1] and foot < FIRST_ROOF:
                    _corner(height, row, col, before, (col - 1 - taken) * pixel, foot, pixel, channels, out)
                if here.angle - frontier > 0:
                    near_end, area, sin, cos = _lit(before, here, frontier, pixel)
                    slope, across = _slopes(height, row, col, pixel)
                    for k in range(bands):
                        if wall:
                            g = channels[k, 0]
                        else:
                            mirror = channels[k, 4] if m == METAL else 0.0
                            g = gamma_of(gamma[k, m], _EXPONENT[m], mirror, slope, across, sin, cos)
                        spread(intensity[k, row], near_end, here.at, g * area)
                    spread(count[row], near_end, here.at, abs(here.at - near_end))
            bin_ = int(math.floor(here.at))
            if not hidden and _POINTS[m] > 0 and 0 <= bin_ < cols:
                power = _point(row, col, pixel, place, seed, _POINTS[m])
                for k in range(bands):
                    intensity[k, row, bin_] += channels[k, 3] * power
            frontier = max(frontier, here.angle)
            if hidden or height[row, col] - terrain[row, col] > WALL_M:
                taken = col
            before = here


@inlined
def _lit(before: _Echo, here: _Echo, frontier: float, pixel: float) -> tuple[float, float, float, float]:
    """Of the surface between two pixels, what reaches over the frontier: its near end, area, and sine and cosine."""
    lit = here.angle - frontier
    start = 0.0
    if here.angle > before.angle:
        start = min(max(1 - lit / (here.angle - before.angle), 0.0), 1.0)
    middle = here.angle - 0.5 * lit
    area = lit * 0.5 * (here.slant + before.slant) / pixel
    return before.at + start * (here.at - before.at), area, math.sin(middle), math.cos(middle)


@inlined
def _slopes(height: np.ndarray, row: int, col: int, pixel: float) -> tuple[float, float]:
    """Slope of the surface along range and azimuth."""
    slope = min(max((height[row, col] - height[row, col - 1]) / pixel, -2.0), 2.0)
    up, down = max(row - 1, 0), min(row + 1, height.shape[0] - 1)
    across = 0.0
    if down > up:
        across = (height[down, col] - height[up, col]) / ((down - up) * pixel)
        across = min(max(across, -2.0), 2.0)
    return slope, across


@inlined
def _point(row: int, col: int, pixel: float, place: _Place, seed: int, density: float) -> float:
    """Power, about 1, of the point scatterer that the world holds at a pixel; 0 without."""
    x = place.x0 + pixel * ((col + 0.5) * place.cos - (row + 0.5) * place.sin)
    y = place.y0 - pixel * ((col + 0.5) * place.sin + (row + 0.5) * place.cos)
    key = hash2(seed, int(math.floor(x / pixel)), int(math.floor(y / pixel)))
    if unit(key, 0) >= density:
        return 0.0
    normal = math.sqrt(-2 * math.log(1 - unit(key, 1))) * math.cos(2 * math.pi * unit(key, 2))
    return 10 ** (0.1 * _POINT_SPREAD_DB * normal)


@compiled
def _corner(
    height: np.ndarray,
    row: int,
    col: int,
    foot: _Echo,
    free_m: float,
    ground: int,
    pixel: float,
    channels: np.ndarray,
    out: _Image,
) -> None:
    """Add the double bounce of a wall at pixel `col`: all wall-ground paths are as long as the way to its foot."""
    bin_ = int(math.floor(foot.at))
    if not 0 <= bin_ < height.shape[1]:
        return
    tan = math.tan(foot.angle)
    # the ground in front that lies free limits how much of the wall takes part
    reached = min(height[row, col] - height[row, col - 1], free_m / tan)
    phi = wall_direction(height, row, col - 1)
    lobe = math.cos(phi) * math.exp(-((tan * math.sin(phi)) ** 2) / (2 * _CORNER_SLOPE**2))
    for k in range(len(channels)):
        energy = (channels[k, 1] * lobe + channels[k, 2]) * reached * math.sin(foot.angle) * _CORNER[ground] / pixel
        out.intensity[k, row, bin_] += energy
        if k == 0:
            out.bounce[row, bin_] += energy


def trace(
    ground: Ground,
    pixel_size: float,
    view: View,
    bands: Sequence[str] = ("HH",),
    *,
    origin: Grid | None = None,
    points_seed: int | None = None,
    lines: tuple[int, int] | None = None,
) -> SarTrace:
    """Speckle-free image and masks of a ground grid.

    Parameters
    ----------
    ground
        Arrays `(H, W)`; columns run from near to far range.
    pixel_size
        Metres.
    view
        Geometry; `view.near_m` is the ground range of the grid's near edge.
    bands
        Of `POLARISATIONS`.
    origin, points_seed
        Where the grid lies and which point scatterers are in the world; without, there are none.
    lines
        First and one past the last line to trace; the others stay 0. All by default.

    Returns
    -------
    SarTrace
        Power per unit of ground area: flat ground of the reference angle has the table's value.
    """
    response = _response(bands, points=points_seed is not None)
    shape = ground.height.shape
    place = _Place(0.0, 0.0, 1.0, 0.0)
    if origin is not None:
        turn = math.radians(origin.turn_deg)
        place = _Place(float(origin.x0), float(origin.y0), math.cos(turn), math.sin(turn))
    out = _Image(np.zeros((len(bands), *shape)), np.zeros(shape), np.zeros(shape, bool), np.zeros(shape))
    view = View(float(view.near_m), float(view.altitude_m))
    _sweep(ground, float(pixel_size), view, response, place, points_seed or 0, lines or (0, shape[0]), out)
    image, count, shadow, bounce = out
    return SarTrace(image.astype(np.float32), count.astype(np.float32), shadow, bounce.astype(np.float32))


def _response(bands: Sequence[str], points: bool) -> _Response:
    unknown = sorted(set(bands) - set(POLARISATIONS))
    if unknown or not bands:
        raise ValueError(f"bands are {tuple(bands)}, expected some of {list(POLARISATIONS)}")
    column = {"HH": 0, "VV": 1, "HV": 2}
    gamma = np.stack([10 ** (_TABLE[:, column[b]] / 10) / _REFERENCE for b in bands])
    channels = np.array([POLARISATIONS[b] for b in bands], np.float64)
    channels[:, :4] = 10 ** (channels[:, :4] / 10)
    if not points:
        channels[:, 3] = 0.0
    return _Response(gamma, channels)


# --------------------------------------------------------------------------------------------------- speckle and image
def speckle(shape: tuple[int, ...], looks: float, texture_order: float | None, rng: np.random.Generator) -> Floats:
    """Multiplicative noise of mean 1: gamma of `looks` looks, times a gamma texture when an order is given (K law).

    The equivalent number of looks is 1 / ((1 + 1/looks) (1 + 1/order) - 1).
    """
    if looks <= 0 or (texture_order is not None and texture_order <= 0):
        raise ValueError(f"looks and texture_order must be positive, got {looks} and {texture_order}")
    noise = rng.standard_gamma(looks, shape, np.float32) / np.float32(looks)
    if texture_order is not None:
        noise *= rng.standard_gamma(texture_order, shape, np.float32) / np.float32(texture_order)
    return noise


def speckle_line(
    bands: Sequence[str], width: int, looks: float, texture_order: float | None, seed: int, row: int
) -> Floats:
    """Speckle of one line of a strip `(B, width)`, the same whatever else is rendered.

    HH and VV share a part of their looks, `_CO_POLAR_CORRELATION` of them, which is the correlation of their
    intensities; HV is independent. All bands see one texture.
    """
    shared = _CO_POLAR_CORRELATION * looks
    common = np.random.default_rng([seed, row, 0]).standard_gamma(shared, width, np.float32)
    lines = []
    for band in bands:
        rng = np.random.default_rng([seed, row, 2 + list(POLARISATIONS).index(band)])
        if band == "HV":
            lines.append(rng.standard_gamma(looks, width, np.float32))
        else:
            lines.append(common + rng.standard_gamma(looks - shared, width, np.float32))
    noise = np.stack(lines) / np.float32(looks)
    if texture_order is not None:
        texture = np.random.default_rng([seed, row, 1]).standard_gamma(texture_order, width, np.float32)
        noise *= texture / np.float32(texture_order)
    return noise


def point_spread(resolution_px: float, half: int = 6) -> NDArray[np.float64]:
    """Weights along one axis, sum 1: the power of a Hamming-weighted aperture, highest sidelobe about -40 dB.

    Parameters
    ----------
    resolution_px
        Half-power width in pixels.
    half
        Weights to either side of the middle.
    """
    # amplitude of a Hamming-weighted aperture; its half-power width is 1.30 cells of the unweighted one
    t = np.arange(-half, half + 1) / (resolution_px / 1.30)
    amplitude = 0.54 * np.sinc(t) + 0.23 * (np.sinc(t - 1) + np.sinc(t + 1))
    return amplitude**2 / np.sum(amplitude**2)


def render_strip(
    city: City,
    acquisition: Acquisition,
    pixel_size: float,
    *,
    seed: int,
    epoch: int = 0,
    bands: Sequence[str] = ("HH",),
    rows: tuple[int, int] | None = None,
    looks: float = 4.0,
    texture_order: float | None = None,
    noise_floor_db: float = -25.0,
    resolution_px: tuple[float, float] = (1.6, 1.3),
    roll_off_db: float = 1.0,
    workers: int | None = None,
) -> Floats:
    """SAR intensity `(B, H, W)` of a strip in its own geometry: lines along the track, columns from near to far range.

    What lies outside of the swath but throws shadow or layover into it is taken along.

    Parameters
    ----------
    city, acquisition, pixel_size
        What is seen, from where, and metres per pixel.
    seed
        Of the speckle.
    epoch
        When it is seen; see `City`.
    bands
        Of `POLARISATIONS`; they share the geometry.
    rows
        First and one past the last line of a part of the strip; equal to that part of the whole.
    looks, texture_order
        See `speckle`.
    noise_floor_db
        Thermal noise, added before the speckle.
    resolution_px
        Half-power width of the point spread along azimuth and range.
    roll_off_db
        Loss of the antenna pattern at the edges of the swath.
    workers
        Threads; all processors by default.
    """
    speckle((0,), looks, texture_order, np.random.default_rng(0))  # refuses impossible values before hours of rendering
    view, grid = view_of(acquisition), strip_grid(acquisition, pixel_size, true=True)
    first, last = rows or (0, grid.shape[0])
    if not 0 <= first < last <= grid.shape[0]:
        raise ValueError(f"rows are {(first, last)}, expected a part of 0 to {grid.shape[0]}")
    near, far = _margins(city, acquisition, pixel_size)
    width = grid.shape[1]
    wide_view = View(view.near_m - near * pixel_size, view.altitude_m)
    spreads = [point_spread(r) for r in resolution_px]
    pattern = (10 ** (-roll_off_db * np.linspace(-1, 1, width) ** 2 / 10)).astype(np.float32)
    gain, floor = np.float32(10 ** (acquisition.gain_db / 10)), np.float32(10 ** (noise_floor_db / 10))
    out = np.empty((len(bands), last - first, width), np.float32)

    def work(block: int) -> None:
        end = min(block + _BLOCK, last)
        part = grid.window(block - _HALO, -near, end - block + 2 * _HALO, near + width + far)
        ground = ground_grid(city, part, epoch=epoch, workers=1)
        traced = trace(ground, pixel_size, wide_view, bands, origin=part, points_seed=city.seed + 9)
        image = ndimage.convolve1d(traced.intensity, spreads[0], axis=1, mode="nearest")[:, _HALO:-_HALO]
        image = ndimage.convolve1d(image, spreads[1], axis=2, mode="nearest")[:, :, near : near + width]
        out[:, block - first : end - first] = image * pattern + floor
        for row in range(block, end):
            out[:, row - first] *= gain * speckle_line(bands, width, looks, texture_order, seed, row)

    for_each(work, range(first, last, _BLOCK), workers)
    return out


def _margins(city: City, acquisition: Acquisition, pixel_size: float) -> tuple[int, int]:
    """Columns before and behind the swath that may throw a shadow or a layover into it."""
    view, top = view_of(acquisition), city.max_height_m + city.relief_m
    near = math.ceil(top * view.near_m / (view.altitude_m - top) / pixel_size) + _HALO
    far = math.ceil(top * view.altitude_m / (view.near_m + acquisition.swath_m) / pixel_size) + _HALO
    return near, far
