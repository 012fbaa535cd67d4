"""Side-looking SAR of a height map: layover, shadow, corners and speckle from one cumulative maximum and one scatter.

Rows are azimuth lines, columns are ground range with the near side at column 0. The far field is assumed: all rays come
down at one incidence angle theta. Output columns are ground range on the plane h = 0, so a flat city falls exactly on
the map and every height is displaced towards the sensor by h / tan(theta).

The geometry follows the two-pass layover and shadow sweep of range-Doppler simulators, written as an illuminated
frontier; the wall-ground double bounce is the geometrical-optics form of Franceschetti, Iodice and Riccio (TGRS 40(8),
2002). The backscatter coefficients are rounded values typical of X band, meant for a plausible image and
not for radiometry.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from sarmatch.scenes.city import FIRST_ROOF, MATERIALS, City, Floats, Ground, for_each, ground_grid

Doubles = NDArray[np.float64]

REFERENCE_INCIDENCE_DEG = 42.5
"""The angle at which the table below holds."""

# sigma0 in dB for HH, VV, HV; exponent of the cosine law; share of a wall's double bounce that this ground returns
_BACKSCATTER: dict[str, tuple[float, float, float, float, float]] = {
    "water": (-28, -26, -40, 3.0, 0.5),
    "asphalt": (-20, -18.5, -30, 1.8, 1.0),
    "concrete": (-15, -14, -26, 1.5, 1.0),
    "soil": (-14, -12.5, -23, 1.0, 0.6),
    "grass": (-11.5, -11, -18.5, 0.6, 0.3),
    "crop": (-10.5, -10, -17, 0.5, 0.2),
    "tree": (-8.5, -8.5, -13.5, 0.2, 0.1),
    "roof_tile": (-10, -9.5, -19, 1.2, 0.5),
    "roof_gravel": (-10, -9.5, -19, 1.2, 0.5),
    "roof_metal": (-8, -8, -20, 3.0, 0.5),
}
_GROUND_FACTOR = np.array([_BACKSCATTER[m][4] for m in MATERIALS])
_SPECULAR = np.array([0.3 if m == "roof_metal" else 0.0 for m in MATERIALS])
_SPECULAR_SLOPE = 0.12  # rms slope of a metal roof


class Channel(NamedTuple):
    """What depends on the polarisation."""

    column: int  # of the backscatter table
    wall_db: float  # gamma of a facade
    corner_db: float  # gamma of a wall-ground corner that faces the sensor
    corner_floor_db: float  # of the same, whatever the direction of the wall


POLARISATIONS: dict[str, Channel] = {
    "HH": Channel(0, -6.0, 6.0, -12.0),
    "VV": Channel(1, -7.0, 4.0, -13.0),
    "HV": Channel(2, -15.0, -8.0, -17.0),
}

WALL_M = 1.5  # a step from one pixel to the next that counts as a wall
_CORNER_SLOPE = 0.2  # rms slope of the ground in front of a wall: how fast the corner fades when the wall turns away


def channel(polarisation: str) -> Channel:
    """Look a polarisation up."""
    if polarisation not in POLARISATIONS:
        raise ValueError(f"unknown polarisation {polarisation!r}, expected one of {list(POLARISATIONS)}")
    return POLARISATIONS[polarisation]


def _angle(incidence_deg: float) -> tuple[float, float]:
    if not 10 <= incidence_deg <= 80:
        raise ValueError(f"incidence_deg must lie in [10, 80], got {incidence_deg}")
    theta = np.deg2rad(incidence_deg)
    return float(np.sin(theta)), float(np.cos(theta))


def frontier(height: ArrayLike, pixel_size: float, incidence_deg: float) -> tuple[NDArray[np.bool_], Doubles, Doubles]:
    """Sweep the illuminated frontier from near to far range.

    Along the coordinate u = x cos(theta) + h sin(theta), square to the rays, a sample is lit when no nearer one has a
    larger u.

    Parameters
    ----------
    height : array_like
        (H, W) metres.
    pixel_size : float
        Metres.
    incidence_deg : float
        From the vertical.

    Returns
    -------
    shadow : (H, W) bool
    area : (H, W - 1) float64
        Lit area of each facet (between two samples) as the sensor sees it, metres per metre of azimuth.
    start : (H, W - 1) float64
        Fraction of the facet, from its near end, where it comes into sight.
    """
    sin, cos = _angle(incidence_deg)
    height = np.asarray(height, np.float64)
    u = np.arange(height.shape[1]) * (pixel_size * cos) + height * sin
    top = np.maximum.accumulate(u, axis=1)
    area = np.diff(top, axis=1)
    du = np.diff(u, axis=1)
    start = np.where(du > 0, 1 - area / np.where(du > 0, du, 1), 1.0)
    return u < top, area, np.clip(start, 0, 1)


def range_bins(height: ArrayLike, pixel_size: float, incidence_deg: float) -> Doubles:
    """Position of each sample on the range axis, in pixels from the near edge of the image."""
    sin, cos = _angle(incidence_deg)
    height = np.asarray(height, np.float64)
    return np.arange(height.shape[1]) + 0.5 - height * (cos / (sin * pixel_size))


def scatter_intervals(a: ArrayLike, b: ArrayLike, energy: ArrayLike, n_bins: int) -> Doubles:
    """Spread energies evenly over intervals and collect them in unit bins, exactly.

    The energy up to t is a sum of ramps, so each interval end adds to a second difference of it, shared by two bins;
    one cumulative sum then gives the bins.

    Parameters
    ----------
    a, b : array_like
        (H, N) interval ends in bins, in any order.
    energy : array_like
        (H, N).
    n_bins : int
        Energy beyond [0, n_bins] is dropped.

    Returns
    -------
    (H, n_bins) float64
    """
    a, b, energy = np.broadcast_arrays(np.asarray(a, np.float64), b, energy)
    low, high = np.minimum(a, b), np.maximum(a, b)
    middle = (low + high) / 2
    low, high = np.minimum(low, middle - 5e-4), np.maximum(high, middle + 5e-4)
    slope = energy / (high - low)
    width = n_bins + 2
    line = np.arange(len(a))[:, None] * width
    second = np.zeros(len(a) * width)
    for end, sign in ((low, 1.0), (high, -1.0)):
        end = np.clip(end, 0, n_bins)
        cell = end.astype(np.intp)
        part = (end - cell) * slope * sign
        at = (cell + line).ravel()
        second += np.bincount(at, (slope * sign - part).ravel(), len(second))
        second += np.bincount(at + 1, part.ravel(), len(second))
    bins = np.cumsum(second.reshape(len(a), width), axis=1)[:, :n_bins]
    return np.maximum(bins, 0)


def backscatter(
    material: NDArray[np.uint8],
    slope_range: ArrayLike,
    slope_azimuth: ArrayLike,
    incidence_deg: float,
    polarisation: str,
) -> Doubles:
    """Gamma (power per unit of area square to the ray) of a facet.

    A cosine law about the reference angle, and for metal the lobe of a rough mirror (Kirchhoff, geometrical optics).

    Parameters
    ----------
    material : uint8 array
    slope_range, slope_azimuth : array_like
        dh/dx towards far range and dh/dy along the line.
    """
    sin, cos = _angle(incidence_deg)
    column = channel(polarisation).column
    reference = np.cos(np.deg2rad(REFERENCE_INCIDENCE_DEG))
    gamma = np.array([10 ** (_BACKSCATTER[m][column] / 10) for m in MATERIALS]) / reference
    exponent = np.array([_BACKSCATTER[m][3] for m in MATERIALS])
    slope_range = np.asarray(slope_range, np.float64)
    local = (cos + slope_range * sin) / np.sqrt(1 + slope_range**2 + np.square(slope_azimuth))
    local = np.clip(local, 0.02, 1)
    value = gamma[material] * (local / reference) ** exponent[material]
    shiny = _SPECULAR[material] > 0
    if column < 2 and shiny.any():
        c2 = np.square(local[shiny])
        s2 = 2 * _SPECULAR_SLOPE**2
        lobe = np.exp(-(1 / c2 - 1) / s2) / (s2 * c2**2 * local[shiny])
        value[shiny] += _SPECULAR[material[shiny]] * lobe
    return value


def wall_direction(height: Floats, rows: NDArray, cols: NDArray) -> Doubles:
    """Angle between walls and the flight line at some pixels, from a height gradient over 5 x 5 pixels."""
    weight = (np.array([1.0, 4.0, 6.0, 4.0, 1.0]), np.array([-1.0, -2.0, 0.0, 2.0, 1.0]))
    gx, gy = np.zeros(len(rows)), np.zeros(len(rows))
    for i in range(5):
        r = np.clip(rows + i - 2, 0, height.shape[0] - 1)
        for j in range(5):
            # the wall lies between column c and c + 1; 5 columns cannot be centred on it, the gradient does not mind
            z = height[r, np.clip(cols + j - 2, 0, height.shape[1] - 1)]
            gx += weight[0][i] * weight[1][j] * z
            gy += weight[1][i] * weight[0][j] * z
    return np.arctan2(np.abs(gy), np.abs(gx))


def double_bounce(
    ground: Ground, shadow: NDArray[np.bool_], pixel_size: float, incidence_deg: float, polarisation: str
) -> tuple[NDArray[np.intp], NDArray[np.intp], Doubles]:
    """Energy of wall-ground corners: all such paths are as long as the way to the foot of the wall.

    Returns
    -------
    rows, cols : int arrays
        The pixel in front of each facing wall.
    energy : float64 array
    """
    sin, cos = _angle(incidence_deg)
    tan = sin / cos
    ch = channel(polarisation)
    step = np.diff(ground.height, axis=1)
    wall = (step > WALL_M) & ~shadow[:, :-1] & (ground.material[:, 1:] >= FIRST_ROOF)
    wall |= (step > WALL_M) & ~shadow[:, :-1] & (ground.material[:, :-1] == 0)  # quays
    wall &= ground.material[:, :-1] < FIRST_ROOF
    rows, cols = np.nonzero(wall)
    # the ground before a wall begins after the last roof, crown or shadow
    taken = shadow | (ground.height - ground.terrain > WALL_M)
    last = np.maximum.accumulate(np.where(taken, np.arange(taken.shape[1]), -1), axis=1)
    free = (cols - last[rows, cols]) * pixel_size
    reached = np.minimum(step[rows, cols], free / tan)
    phi = wall_direction(ground.height, rows, cols)
    lobe = np.cos(phi) * np.exp(-((tan * np.sin(phi)) ** 2) / (2 * _CORNER_SLOPE**2))
    gamma = 10 ** (ch.corner_db / 10) * lobe + 10 ** (ch.corner_floor_db / 10)
    return rows, cols, gamma * reached * tan * cos * _GROUND_FACTOR[ground.material[rows, cols]]


class SarTrace(NamedTuple):
    """A speckle-free SAR image and the masks that explain it, all (H, W)."""

    intensity: Floats  # without noise, speckle and point spread
    layover_count: Floats  # how many surfaces share a range bin: 1 on flat land, 0 in shadow, more in layover
    shadow: NDArray[np.bool_]  # in map geometry: the pixels that the sensor cannot see
    double_bounce: Floats  # the part of `intensity` that comes from wall-ground corners


def _trace_rows(ground: Ground, pixel_size: float, incidence_deg: float, polarisation: str) -> SarTrace:
    height = ground.height.astype(np.float64)
    n = height.shape[1]
    shadow, area, start = frontier(height, pixel_size, incidence_deg)
    r = range_bins(height, pixel_size, incidence_deg)
    near = r[:, :-1] + start * np.diff(r, axis=1)
    step = np.diff(height, axis=1)
    slope = step / pixel_size
    across = np.clip(np.gradient(height, pixel_size, axis=0)[:, 1:], -2, 2) if len(height) > 1 else 0.0
    material = ground.material[:, 1:]
    gamma = backscatter(material, np.clip(slope, -2, 2), across, incidence_deg, polarisation)
    wall = (step > WALL_M) & ((material >= FIRST_ROOF) | (ground.material[:, :-1] == 0))
    gamma[wall] = 10 ** (channel(polarisation).wall_db / 10)
    energy = gamma * area / pixel_size
    intensity = scatter_intervals(near, r[:, 1:], energy, n)
    count = scatter_intervals(near, r[:, 1:], np.abs(r[:, 1:] - near), n)
    rows, cols, corner = double_bounce(ground, shadow, pixel_size, incidence_deg, polarisation)
    at = np.floor(r[rows, cols]).astype(np.intp)
    inside = (at >= 0) & (at < n)
    bounce = np.bincount((rows * n + at)[inside], corner[inside] / pixel_size, height.size).reshape(height.shape)
    return SarTrace(
        (intensity + bounce).astype(np.float32), count.astype(np.float32), shadow, bounce.astype(np.float32)
    )


def trace(
    ground: Ground,
    pixel_size: float,
    incidence_deg: float,
    *,
    polarisation: str = "HH",
    workers: int | None = None,
) -> SarTrace:
    """Speckle-free image and masks of a ground grid, near range at column 0."""
    shape = ground.height.shape
    out = SarTrace(*(np.empty(shape, t) for t in (np.float32, np.float32, bool, np.float32)))
    halo, size = 2, 64

    def work(first: int) -> None:
        low, high = max(0, first - halo), min(shape[0], first + size + halo)
        part = _trace_rows(Ground(*(g[low:high] for g in ground)), pixel_size, incidence_deg, polarisation)
        for whole, piece in zip(out, part, strict=True):
            whole[first : first + size] = piece[first - low : first - low + size]

    for_each(work, range(0, shape[0], size), workers)
    return out


def speckle(shape: tuple[int, int], looks: float, texture_order: float | None, rng: np.random.Generator) -> Floats:
    """Multiplicative noise of mean 1: gamma of `looks` looks, times a gamma texture when an order is given (K law).

    The equivalent number of looks is 1 / ((1 + 1/looks) (1 + 1/order) - 1).
    """
    if looks <= 0 or (texture_order is not None and texture_order <= 0):
        raise ValueError(f"looks and texture_order must be positive, got {looks} and {texture_order}")
    noise = rng.standard_gamma(looks, shape, np.float32) / np.float32(looks)
    if texture_order is not None:
        noise *= rng.standard_gamma(texture_order, shape, np.float32) / np.float32(texture_order)
    return noise


def render_sar(
    ground: Ground,
    pixel_size: float,
    *,
    incidence_deg: float,
    seed: int,
    polarisation: str = "HH",
    looks: float = 4.0,
    texture_order: float | None = None,
    noise_floor_db: float = -25.0,
    blur_px: float = 0.6,
    workers: int | None = None,
) -> Floats:
    """SAR intensity (H, W), near range at column 0."""
    image = trace(ground, pixel_size, incidence_deg, polarisation=polarisation, workers=workers).intensity
    image = ndimage.gaussian_filter(image, blur_px, truncate=3)
    image += np.float32(10 ** (noise_floor_db / 10))
    size = 256

    def work(first: int) -> None:
        part = image[first : first + size]
        part *= speckle(part.shape, looks, texture_order, np.random.default_rng([seed, first]))

    for_each(work, range(0, len(image), size), workers)
    return image


# quarter turns that bring the near side of a north-up grid to column 0
LOOKS: dict[str, int] = {"east": 0, "south": 1, "west": 2, "north": 3}


def render_strip(
    city: City,
    x0: float,
    y_top: float,
    shape: tuple[int, int],
    pixel_size: float,
    *,
    look: str,
    incidence_deg: float,
    seed: int,
    polarisation: str = "HH",
    workers: int | None = None,
    **options: float,
) -> Floats:
    """SAR intensity (1, H, W), north up, of a window of the city seen in direction `look`.

    What lies outside of the window but throws shadow or layover into it is taken along.
    """
    if look not in LOOKS:
        raise ValueError(f"unknown look {look!r}, expected one of {list(LOOKS)}")
    sin, cos = _angle(incidence_deg)
    turns = LOOKS[look]
    relief = city.max_height_m + city.relief_m
    near = int(np.ceil(relief * sin / cos / pixel_size)) + 2
    far = int(np.ceil(relief * cos / sin / pixel_size)) + 2
    side = 4
    # margins of the turned grid (top, bottom, left, right) brought back to north up
    west, north, east, south = np.roll([near, side, far, side], {0: 0, 1: 1, 2: 2, 3: 3}[turns])
    wide = (shape[0] + north + south, shape[1] + west + east)
    ground = ground_grid(city, x0 - west * pixel_size, y_top + north * pixel_size, wide, pixel_size, turns, workers)
    image = render_sar(
        ground,
        pixel_size,
        incidence_deg=incidence_deg,
        seed=seed,
        polarisation=polarisation,
        workers=workers,
        **options,
    )
    image = np.rot90(image, -turns)[north : north + shape[0], west : west + shape[1]]
    return np.ascontiguousarray(image[None])
