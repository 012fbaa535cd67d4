"""Street panoramas of the procedural city: rays cast over its heights from the eye of a camera on a street.

Every column of a panorama is one ray over the ground. It visits the pixels of a survey from near to far and keeps the
highest elevation seen so far; what a pixel adds above it is painted: its side where it steps up (a façade, a car), then
its top. Crowns of trees float above the ground, so that one looks through under them. What is seen from above too has
the colours of the survey's aerial photograph, so that road paint, shadows and roofs agree in both views.

The cast is that of Amanatides and Woo, *A Fast Voxel Traversal Algorithm for Ray Tracing*, Eurographics 1987.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sarmatch.simulation.city import (
    FIRST_ROOF,
    METAL,
    TILE,
    TREE,
    VEHICLE,
    VEHICLE_M,
    WATER,
    City,
    Grid,
    Ground,
    World,
    compiled,
    ground_grid,
    hash2,
    inlined,
    streets,
    unit,
    value_noise,
    world_of,
)
from sarmatch.simulation.optical import render_map

SHAPE = (320, 640)  # rows and columns of a panorama, as VIGOR's are given to networks
ELEVATION_DEG = (-45.0, 45.0)  # of its lower and upper edge
CAMERA_M = 1.6  # above the street
CLEARANCE_M = 1.0  # to what is next to it
SIGHT_M = 400.0  # nothing is drawn beyond
AIR_M = 900.0  # at this distance 63 % of a colour is air
STOREY_M = 2.9
BAY_M = 2.7  # width of façade that has one window
WALL_M = 0.7  # a step from one pixel to the next that shows its side
_SLACK_M = 1e-6  # more than rounding may do to a height
_STRIDE_M = 0.4  # between the places at which the ray from a façade to the sun is looked at

_STRAIGHT = 0.98  # cosine between a façade's direction and what its surroundings say: less at corners and oblique cuts

Rgb = tuple[float, float, float]


class Survey(NamedTuple):
    """A part of a town as panoramas are cast from it.

    Attributes
    ----------
    city : City
    epoch : int
        0 for the time of the aerial photograph, 1 for the later one; see `City`.
    grid : Grid
        North up. Panoramas see no farther than its edge.
    ground : Ground
        What lies at each of its pixels.
    photo : uint8 (3, H, W)
        Its aerial photograph.
    sun_azimuth_deg, sun_elevation_deg : float
        Of the photograph.
    """

    city: City
    epoch: int
    grid: Grid
    ground: Ground
    photo: NDArray[np.uint8]
    sun_azimuth_deg: float
    sun_elevation_deg: float


def survey(
    city: City,
    grid: Grid,
    *,
    epoch: int = 0,
    sun_azimuth_deg: float = 150.0,
    sun_elevation_deg: float = 42.0,
    season: str = "summer",
    workers: int | None = None,
) -> Survey:
    """Heights and photograph of a part of a town, once for all panoramas that are taken in it.

    Parameters
    ----------
    city
        The town.
    grid
        North up; pixels of about 0.25 m show façades without steps.
    epoch
        0 for the time of the aerial photograph, 1 for the later one; see `City`.
    sun_azimuth_deg, sun_elevation_deg, season
        As for `render_map`.
    workers
        Threads; all processors by default.

    Raises
    ------
    ValueError
        Where the grid is turned, or the season or the sun is out of range.
    """
    if grid.turn_deg:
        raise ValueError(f"the grid is turned by {grid.turn_deg} degrees, expected a north-up one")
    light = {"sun_azimuth_deg": sun_azimuth_deg, "sun_elevation_deg": sun_elevation_deg}
    photo = render_map(city, grid, epoch=epoch, season=season, workers=workers, **light)
    return Survey(city, epoch, grid, ground_grid(city, grid, epoch=epoch, workers=workers), photo, **light)


def street_places(survey: Survey, count: int, seed: int, margin_m: float = 0.0) -> NDArray[np.float64]:
    """Places of a camera, drawn anywhere on the streets of a survey, a metre away from cars and walls.

    Parameters
    ----------
    survey
        The town.
    count
        How many at most: fewer where streets are rare.
    seed
        Of the draw.
    margin_m
        Places keep so far from the edge of the survey.

    Returns
    -------
    float64 (N, 2), metres east and north.
    """
    grid, rng = survey.grid, np.random.default_rng(seed)
    rows, cols = grid.shape
    low, high = margin_m, np.array([cols, rows]) * grid.pixel_size - margin_m
    if (high <= low).any():
        raise ValueError(f"margin_m is {margin_m}, and the survey only {cols} x {rows} px of {grid.pixel_size} m")
    drawn = rng.uniform(low, high, (40 * count, 2)) * (1, -1) + (grid.x0, grid.y0)
    free = _on_roads(_world(survey), drawn)
    col, row = (np.abs(drawn - (grid.x0, grid.y0)) / grid.pixel_size).astype(int).T
    around = 2 * round(CLEARANCE_M / grid.pixel_size) + 1
    free &= ~ndimage.maximum_filter(_obstructed(survey.ground.material), around)[row, col]
    return drawn[free][:count]


def render_panorama(
    survey: Survey,
    x: float,
    y: float,
    *,
    heading_deg: float = 0.0,
    shape: tuple[int, int] = SHAPE,
    elevation_deg: tuple[float, float] = ELEVATION_DEG,
    camera_m: float = CAMERA_M,
) -> NDArray[np.uint8]:
    """Colour panorama (3, H, W) from a place of a survey: equirectangular, all around.

    Parameters
    ----------
    survey
        The town.
    x, y
        Metres east and north; not in a building, on a car or in water.
    heading_deg
        Clockwise from north: the direction that the middle of the panorama looks to, between its two middle columns.
    shape
        Rows and columns.
    elevation_deg
        Of the lower and the upper edge above the horizon; rows are of equal angle.
    camera_m
        Height of the camera above the ground.

    Raises
    ------
    ValueError
        Where the place lies outside of the survey or where no camera can stand, or an angle is out of range.
    """
    low, high = elevation_deg
    if not -90 < low < high < 90 or min(shape) < 1 or camera_m <= 0:
        raise ValueError(f"elevation_deg {elevation_deg}, shape {shape}, camera_m {camera_m}: expected -90 < low < "
                         "high < 90, at least one pixel and a camera above the ground")  # fmt: skip
    grid, ground = survey.grid, survey.ground
    col, row = (x - grid.x0) / grid.pixel_size, (grid.y0 - y) / grid.pixel_size
    if not (0 <= row < grid.shape[0] and 0 <= col < grid.shape[1]):
        raise ValueError(f"({x:.1f}, {y:.1f}) m lies outside of the survey")
    here = int(row), int(col)
    if _obstructed(ground.material[here]):
        raise ValueError(f"no camera can stand at ({x:.1f}, {y:.1f}) m: in a building, on a car or in water")
    floor = ground.terrain[here] if ground.material[here] == TREE else ground.height[here]
    azimuth, elevation = np.deg2rad([survey.sun_azimuth_deg, survey.sun_elevation_deg])
    view = _View(
        float(row), float(col), float(floor) + camera_m, grid.pixel_size, grid.x0, grid.y0,
        float(ground.height.max()), (math.sin(azimuth), math.cos(azimuth), math.tan(elevation)), survey.city.seed,
        int(hash2(survey.city.seed, math.floor(x), math.floor(y)) >> 4),
    )  # fmt: skip
    rows, cols = shape
    tangents = np.tan(np.deg2rad(high - (np.arange(rows) + 0.5) * (high - low) / rows))
    # in columns, so that a heading by a whole number of them moves the picture and changes none of its values
    turned = (heading_deg / 360 * cols + np.arange(cols) + 0.5 - cols / 2) % cols
    image = np.empty((3, rows, cols), np.uint8)
    _cast(view, _world(survey), ground, survey.photo, 2 * math.pi / cols * turned, tangents, image)
    return image


def _world(survey: Survey) -> World:
    grid = survey.grid
    box = (grid.x0, grid.x0 + grid.shape[1] * grid.pixel_size, grid.y0 - grid.shape[0] * grid.pixel_size, grid.y0)
    return world_of(survey.city, survey.epoch, box)


@compiled
def _on_roads(world: World, xy: np.ndarray) -> np.ndarray:
    out = np.empty(len(xy), np.bool_)
    for i in range(len(xy)):
        out[i] = streets(world, xy[i, 0], xy[i, 1]).to_road < -0.5
    return out


def _obstructed(material: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where no camera can stand: in a building, on a car, in water."""
    return (material >= FIRST_ROOF) | (material == VEHICLE) | (material == WATER)


# ------------------------------------------------------------------------------------------------------------- rays
class _View(NamedTuple):
    """The camera and the light, as plain numbers."""

    row: float
    col: float
    eye: float  # m
    pixel: float
    x0: float
    y0: float
    top: float  # the highest surface of all
    sun: tuple[float, float, float]  # sine and cosine of its azimuth, tangent of its elevation
    seed: int
    moment: int  # what clouds are seeded by: panoramas are not taken on one day


class _Cell(NamedTuple):
    """A pixel of the survey on a ray: what stands there, and how far away it begins and ends."""

    row: int
    col: int
    near: float
    far: float
    x: float  # where the ray enters it
    y: float
    level: float  # of what hides all behind it
    rise: float  # above the level of the pixel before
    crown: float  # top of a tree above, -inf without
    material: int
    tone: float


class _Face(NamedTuple):
    """The side of a building or a car at one place."""

    at: float  # metres along the ray
    along: float  # metres along it
    key: np.uint64  # of the side
    shine: float  # cosine between the sun and what it faces, 0 where it looks away
    shadow: float  # below this height the sun does not reach it


@compiled
def _cast(
    view: _View,
    world: World,
    ground: Ground,
    photo: np.ndarray,
    azimuths: np.ndarray,
    tangents: np.ndarray,
    image: np.ndarray,
) -> None:
    done = np.empty(len(tangents), np.bool_)
    for c in range(len(azimuths)):
        _column(view, world, ground, photo, azimuths[c], tangents, done, image[:, :, c])


@compiled
def _column(
    view: _View,
    world: World,
    ground: Ground,
    photo: np.ndarray,
    azimuth: float,
    tangents: np.ndarray,
    done: np.ndarray,
    out: np.ndarray,
) -> None:
    """One ray, from pixel to pixel; `bottom` is the lowest row that nothing solid covers yet."""
    sin, cos = math.sin(azimuth), math.cos(azimuth)
    done[:] = False
    bottom = len(tangents) - 1
    row, col = int(view.row), int(view.col)
    down, right = (-1 if cos > 0 else 1), (1 if sin > 0 else -1)
    # metres along the ray from one border between rows, or columns, to the next, and to the first
    per_row, per_col = view.pixel / max(abs(cos), 1e-12), view.pixel / max(abs(sin), 1e-12)
    to_row = per_row * (row + 1 - view.row if down > 0 else view.row - row)
    to_col = per_col * (col + 1 - view.col if right > 0 else view.col - col)
    near, edge, last_row, last_col = 1e-3, 0.0, -1, -1
    while bottom >= 0 and 0 <= row < ground.height.shape[0] and 0 <= col < ground.height.shape[1] and near < SIGHT_M:
        if max(view.top - view.eye, 0.0) < tangents[bottom] * near:
            break  # nothing that is farther away can rise so high
        far = max(min(to_row, to_col), near)  # a camera on a border has nothing on its near side
        lowest = tangents[bottom]
        hidden = lowest * (near if lowest > 0 else max(far, edge))  # what rises less above the eye is not seen
        if max(ground.height[row, col], ground.terrain[row, col]) - view.eye > hidden - _SLACK_M:
            before = _level(ground, last_row, last_col) if last_row >= 0 else view.eye
            cell = _cell(view, ground, row, col, near, far, sin, cos, before)
            bottom, edge = _paint_cell(view, world, ground, photo, cell, edge, sin, cos, tangents, bottom, done, out)
        near, last_row, last_col = far, row, col
        if to_row < to_col:
            row, to_row = row + down, to_row + per_row
        else:
            col, to_col = col + right, to_col + per_col
    for r in range(bottom, -1, -1):
        if not done[r]:
            _put(out, r, _sky(view, sin, cos, max(tangents[r], 0.0)), 0.0)


@inlined
def _level(ground: Ground, row: int, col: int) -> float:
    """Height of what hides all behind it: under a tree one looks through."""
    return ground.terrain[row, col] if ground.material[row, col] == TREE else ground.height[row, col]


@inlined
def _cell(
    view: _View,
    ground: Ground,
    row: int,
    col: int,
    near: float,
    far: float,
    sin: float,
    cos: float,
    before: float,
) -> _Cell:
    material, level = ground.material[row, col], _level(ground, row, col)
    crown = ground.height[row, col] if material == TREE else -np.inf
    x, y = view.x0 + view.col * view.pixel + near * sin, view.y0 - view.row * view.pixel + near * cos
    return _Cell(row, col, near, far, x, y, level, level - before, crown, material, ground.tone[row, col])


@compiled
def _paint_cell(
    view: _View,
    world: World,
    ground: Ground,
    photo: np.ndarray,
    cell: _Cell,
    edge: float,
    sin: float,
    cos: float,
    tangents: np.ndarray,
    bottom: int,
    done: np.ndarray,
    out: np.ndarray,
) -> tuple[int, float]:
    """Paint the side, the top and the crown of a pixel.

    `edge` is where the last façade stands on the ray, which is between the borders of pixels. Returns the lowest row
    that is still open, and the edge.
    """
    above, begin = cell.level - view.eye, max(cell.near, edge)
    if tangents[bottom] < above / begin:
        solid = cell.rise > WALL_M and (cell.material >= FIRST_ROOF or cell.material == VEHICLE)
        if solid:
            face = _face(view, world, ground, cell, sin, cos)
            car = cell.material == VEHICLE  # on a bridge too
            foot = cell.level - VEHICLE_M if car else ground.terrain[cell.row, cell.col]
            begin = edge = face.at
        while bottom >= 0 and tangents[bottom] < above / begin:
            if not done[bottom]:
                if solid:
                    z = view.eye + tangents[bottom] * begin
                    colour = _side(cell, face, z, z - foot, cell.level - z)
                else:
                    colour = _from_above(view, photo, begin, sin, cos)
                _put(out, bottom, colour, begin)
            bottom -= 1
    while bottom >= 0 and above < 0 and tangents[bottom] < above / cell.far:
        if not done[bottom]:
            at = above / tangents[bottom]
            colour = _from_above(view, photo, at, sin, cos)
            _put(out, bottom, colour, at)
        bottom -= 1
    if cell.crown > cell.level:
        _paint_tree(view, ground, photo, cell, tangents, bottom, done, out)
    return bottom, edge


@inlined
def _put(out: np.ndarray, row: int, colour: Rgb, distance: float) -> None:
    """A colour behind so much air."""
    air = 1 - math.exp(-distance / AIR_M)
    out[0, row] = int(255 * min(max(colour[0] + air * (0.82 - colour[0]), 0.0), 1.0) + 0.5)
    out[1, row] = int(255 * min(max(colour[1] + air * (0.87 - colour[1]), 0.0), 1.0) + 0.5)
    out[2, row] = int(255 * min(max(colour[2] + air * (0.92 - colour[2]), 0.0), 1.0) + 0.5)


@compiled
def _from_above(view: _View, photo: np.ndarray, at: float, sin: float, cos: float) -> Rgb:
    """The aerial photograph so far along the ray, bilinear between the centres of its pixels."""
    r, c = view.row - at * cos / view.pixel - 0.5, view.col + at * sin / view.pixel - 0.5
    r, c = min(max(r, 0.0), photo.shape[1] - 1.001), min(max(c, 0.0), photo.shape[2] - 1.001)
    i, j = int(r), int(c)
    dr, dc = r - i, c - j
    a, b, d, e = (1 - dr) * (1 - dc) / 255, (1 - dr) * dc / 255, dr * (1 - dc) / 255, dr * dc / 255
    return (
        a * photo[0, i, j] + b * photo[0, i, j + 1] + d * photo[0, i + 1, j] + e * photo[0, i + 1, j + 1],
        a * photo[1, i, j] + b * photo[1, i, j + 1] + d * photo[1, i + 1, j] + e * photo[1, i + 1, j + 1],
        a * photo[2, i, j] + b * photo[2, i, j + 1] + d * photo[2, i + 1, j] + e * photo[2, i + 1, j + 1],
    )


# -------------------------------------------------------------------------------------------------- trees and the sky
@compiled
def _paint_tree(
    view: _View,
    ground: Ground,
    photo: np.ndarray,
    cell: _Cell,
    tangents: np.ndarray,
    bottom: int,
    done: np.ndarray,
    out: np.ndarray,
) -> None:
    """The part of a crown over a pixel, with gaps between its leaves, and the stem below its highest point."""
    tall = cell.crown - cell.level
    clump = hash2(view.seed + 17, math.floor(cell.x / 0.4), math.floor(cell.y / 0.4))
    low = cell.level + min(1.7 + 0.9 * unit(clump, 1), 0.5 * tall)
    stem = _is_summit(ground, cell.row, cell.col)
    red, green, blue = photo[0, cell.row, cell.col], photo[1, cell.row, cell.col], photo[2, cell.row, cell.col]
    middle = 0.5 * (cell.near + cell.far)
    upper, lower = (cell.crown - view.eye) / middle, (low - view.eye) / middle
    r = bottom
    while r >= 0 and tangents[r] < upper:
        z = view.eye + tangents[r] * middle
        if not done[r] and tangents[r] >= lower:
            leaf = unit(hash2(int(clump & np.uint64(0xFFFFFF)), math.floor(z / 0.3), 0), 2)
            if leaf > 0.45:
                lit = (0.55 + 0.75 * (z - cell.level) / tall) * (0.65 + 0.8 * (leaf - 0.45)) / 255
                _put(out, r, (lit * red, lit * green, lit * blue), middle)
                done[r] = True
        elif not done[r] and stem:
            _put(out, r, (0.27, 0.22, 0.17), middle)
            done[r] = True
        r -= 1


@inlined
def _is_summit(ground: Ground, row: int, col: int) -> bool:
    """Whether a pixel is the highest of its crown."""
    rows, cols = ground.height.shape
    if not (2 <= row < rows - 2 and 2 <= col < cols - 2):
        return False
    for i in range(row - 2, row + 3):
        for j in range(col - 2, col + 3):
            if ground.material[i, j] != TREE or ground.height[i, j] > ground.height[row, col]:
                return False
    return True


@compiled
def _sky(view: _View, east: float, north: float, tangent: float) -> Rgb:
    """Clear sky, brighter towards the horizon and the sun, with clouds on a plane high above."""
    up = tangent / math.sqrt(1 + tangent * tangent)
    deep = up**0.6
    red, green, blue = 0.84 - 0.52 * deep, 0.89 - 0.36 * deep, 0.94 - 0.12 * deep
    distance = 1 / (tangent + 0.12)
    x, y = distance * east, distance * north
    cloud = 0.55 * value_noise(view.moment + 1, x, y, 1.1) + 0.3 * value_noise(view.moment + 2, x, y, 0.42)
    if cloud > 0.48 - 0.15:  # with less there is no cloud, whatever the finest noise is
        cloud += 0.15 * value_noise(view.moment + 3, x, y, 0.15)
    cover = min(max((cloud - 0.48) * 4.5, 0.0), 1.0) * min(1.0, 4 * tangent)
    sin, cos, rise = view.sun
    level = math.sqrt((1 + tangent * tangent) * (1 + rise * rise))
    towards = (east * sin + north * cos + tangent * rise) / level
    glow = 0.25 * max(towards, 0.0) ** 12 + (1.0 if towards > 0.9998 else 0.0)
    white = 0.96 - 0.12 * cloud
    return (
        red + cover * (white - red) + glow,
        green + cover * (white - green) + 0.95 * glow,
        blue + cover * (white + 0.02 - blue) + 0.8 * glow,
    )


# ----------------------------------------------------------------------------------------------------------- façades
@compiled
def _face(view: _View, world: World, ground: Ground, cell: _Cell, sin: float, cos: float) -> _Face:
    """Which side of a building a ray meets: the streets' direction that its surroundings slope down to most."""
    east, north = _outwards(ground, cell)
    grid = streets(world, cell.x, cell.y)
    to_u, to_v = east * grid.ux + north * grid.uy, east * grid.vx + north * grid.vy
    if abs(to_u) > abs(to_v):
        along, nx, ny, which = grid.v, grid.ux, grid.uy, 0
    else:
        along, nx, ny, which = grid.u, grid.vx, grid.vy, 2
    if nx * sin + ny * cos > 0:  # the side that is seen looks back at the camera
        nx, ny, which = -nx, -ny, which + 1
    sun_x, sun_y, rise = view.sun
    shine = max(0.0, (nx * sun_x + ny * sun_y) / math.sqrt(1 + rise * rise))
    key = hash2(world.seed + 31, int(cell.tone * 16777216), which)
    shadow = _shadow_on(view, ground, cell, nx, ny) if shine > 0 else np.inf
    straight = east * nx + north * ny > _STRAIGHT * math.hypot(east, north)
    at = _hit(view, ground, cell, nx, ny, sin, cos) if straight else cell.near
    return _Face(at, along, key, shine, shadow)


@inlined
def _outwards(ground: Ground, cell: _Cell) -> tuple[float, float]:
    """East and north parts of the direction in which there is less of what stands at a pixel."""
    rows, cols = ground.height.shape
    limit, reach, east, north = cell.level - 0.5 * cell.rise, 4, 0.0, 0.0
    for i in range(max(cell.row - reach, 0), min(cell.row + reach + 1, rows)):
        for j in range(max(cell.col - reach, 0), min(cell.col + reach + 1, cols)):
            around = (i - cell.row) ** 2 + (j - cell.col) ** 2 <= reach * reach  # a disc, which has no directions
            if around and ground.height[i, j] > limit:
                east -= j - cell.col
                north += i - cell.row
    return east, north


@inlined
def _hit(view: _View, ground: Ground, cell: _Cell, nx: float, ny: float, sin: float, cos: float) -> float:
    """How far along the ray a façade stands: the plane that its outermost pixels touch, so that it has no steps."""
    rows, cols = ground.height.shape
    limit, reach, pixel = cell.level - 0.5 * cell.rise, 5, view.pixel
    out = -np.inf
    for i in range(max(cell.row - reach, 0), min(cell.row + reach + 1, rows)):
        for j in range(max(cell.col - reach, 0), min(cell.col + reach + 1, cols)):
            if ground.height[i, j] > limit and ground.material[i, j] == cell.material:
                away = (view.x0 + (j + 0.5) * pixel - cell.x) * nx + (view.y0 - (i + 0.5) * pixel - cell.y) * ny
                if away < 1.2 * pixel:  # what stands out more is another wing
                    out = max(out, away)
    # centres lie inside of the façade, by half a pixel at most
    shift = (out + 0.25 * pixel) / min(nx * sin + ny * cos, -0.2)
    return max(cell.near + min(max(shift, -1.5 * pixel), 1.5 * pixel), 0.05)


@inlined
def _shadow_on(view: _View, ground: Ground, cell: _Cell, nx: float, ny: float) -> float:
    """Height up to which a façade lies in the shadow of what stands between it and the sun."""
    sun_x, sun_y, rise = view.sun
    rows, cols = ground.height.shape
    shadow, at = -np.inf, 2 * _STRIDE_M
    while view.top - at * rise > max(shadow, cell.level - cell.rise):
        x, y = cell.x + 0.5 * nx + at * sun_x, cell.y + 0.5 * ny + at * sun_y
        i, j = math.floor((view.y0 - y) / view.pixel), math.floor((x - view.x0) / view.pixel)
        if not (0 <= i < rows and 0 <= j < cols):
            break
        shadow = max(shadow, ground.height[i, j] - at * rise)
        at += _STRIDE_M
    return shadow


@compiled
def _side(cell: _Cell, face: _Face, z: float, above: float, below: float) -> Rgb:
    """Colour of a façade or a car, `above` its foot and `below` its upper edge (m)."""
    light = 0.52 + (0.62 * face.shine if z > face.shadow else 0.0)
    if cell.material == VEHICLE:
        return _car_side(cell.tone, above, light)
    return _hall(face, above, below, light) if cell.material == METAL else _front(cell, face, above, below, light)


@inlined
def _car_side(tone: float, above: float, light: float) -> Rgb:
    """Wheels and shadow, body, windows, roof."""
    part = above / VEHICLE_M
    if part < 0.2:
        return 0.08, 0.08, 0.09
    if 0.58 < part < 0.9:
        return 0.16 * light, 0.2 * light, 0.23 * light
    hue = math.floor(tone * 997) % 5  # greys, with some red and blue among them
    grey = (0.2 + 0.75 * tone) * light
    return (
        grey * (1.25 if hue == 3 else 0.6 if hue == 4 else 1.0),
        grey * (0.45 if hue == 3 else 0.75 if hue == 4 else 1.0),
        grey * (0.4 if hue == 3 else 1.25 if hue == 4 else 1.02),
    )


@inlined
def _hall(face: _Face, above: float, below: float, light: float) -> Rgb:
    """A hall of corrugated metal with gates and a band of windows."""
    bay = math.floor(face.along / 7.0)
    within, key = face.along - bay * 7.0, hash2(int(face.key & np.uint64(0xFFFFFF)), bay, 3)
    if unit(key, 1) < 0.4 and above < 4.2 and 1.2 < within < 5.4:  # a gate
        slat = 0.8 if above % 0.5 < 0.08 else 1.0
        return 0.5 * light * slat, 0.52 * light * slat, 0.56 * light * slat
    if 0.8 < below < 1.8 and above > 3.5 and 0.3 < within < 6.7:
        return 0.25 * light, 0.32 * light, 0.38 * light
    shade = (0.72 + 0.35 * unit(face.key, 4)) * (0.9 if face.along % 0.6 < 0.2 else 1.0) * light
    return 0.86 * shade, 0.9 * shade, 0.95 * shade


@inlined
def _front(cell: _Cell, face: _Face, above: float, below: float, light: float) -> Rgb:
    """A wall of brick or plaster with storeys of windows, doors at its foot, shops under the higher ones."""
    building = hash2(7, int(cell.tone * 16777216), 11)
    warm, pale = unit(building, 1), 0.55 + 0.45 * unit(building, 2)
    red, green, blue = pale, pale * (0.95 - 0.3 * warm * warm), pale * (0.9 - 0.48 * warm)
    floor, bay = math.floor(above / STOREY_M), math.floor(face.along / BAY_M)
    up, across = above - floor * STOREY_M, face.along - bay * BAY_M
    one = hash2(int(face.key & np.uint64(0xFFFFFF)), bay, floor)
    column = hash2(int(face.key & np.uint64(0xFFFFFF)), bay, -1)
    high = cell.material != TILE
    wide = 0.5 + 0.35 * unit(building, 3)  # of half a window
    off = abs(across - BAY_M / 2)
    if floor == 0 and up < 2.2 and off < 0.55 and unit(column, 1) < 0.16:  # a door, in a frame
        frame = off > 0.46 or up > 2.1
        tint = 0.75 if frame else 0.18 + 0.25 * unit(column, 2)
        return tint * light, tint * 0.85 * light, tint * 0.7 * light
    shop = high and floor == 0 and unit(building, 4) < 0.6
    sill, head, half = (0.4, 2.4, 1.2) if shop else (0.95, 2.35, wide)
    if below > 0.35 and sill < up < head and off < half and (shop or unit(one, 1) < 0.93):
        if off > half - 0.08 or up > head - 0.08 or (off < 0.04 and not shop):
            return 0.85 * light, 0.84 * light, 0.82 * light  # frame
        glass = 0.14 + 0.3 * unit(one, 2) * light
        return 0.85 * glass, 0.95 * glass, 1.08 * glass
    ledge = high and (up < 0.12 or below < 0.4)
    relief = light * (1.12 if ledge else 0.93 + 0.07 * unit(hash2(5, math.floor(face.along * 4), floor), 1))
    foot = 0.72 if above < 0.5 else 1.0
    return red * relief * foot, green * relief * foot, blue * relief * foot
