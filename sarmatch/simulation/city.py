"""A procedural city written like a shader: every map is a pure function of position and hashed integers.

Nothing is drawn object by object, so a window equals the same area cut from the whole, windows can be computed by
several threads, and a strip under another heading is the same function evaluated on turned coordinates. The price is
that a pixel must find out by itself which district, block, lot and tree it belongs to; that is what `_evaluate` does,
in that order. Lengths are metres; x points east and y north.

The town exists at two epochs, that of the photograph and that of the SAR acquisition: a fraction of its lots, trees and
fields is replaced in between, and every vehicle has moved.
"""

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

compiled = njit(nogil=True, cache=True)
#: For parts of a pixel: to pass what the caller knows of the town would cost more than the work.
inlined = njit(nogil=True, cache=True, inline="always")

MATERIALS = (
    "water",
    "asphalt",
    "concrete",
    "soil",
    "grass",
    "crop",
    "tree",
    "vehicle",
    "roof_tile",
    "roof_gravel",
    "roof_metal",
)
"""Names of the values of `Ground.material`, in order."""
(WATER, ASPHALT, CONCRETE, SOIL, GRASS, CROP, TREE, VEHICLE, TILE, GRAVEL, METAL) = range(len(MATERIALS))
FIRST_ROOF = TILE  # a material from here on is part of a building

KINDS = ("houses", "blocks", "industry", "park", "fields")
"""Kinds of district."""
(HOUSES, BLOCKS, INDUSTRY, PARK, FIELDS) = range(len(KINDS))

DISTRICT_M = 400.0  # one district seed per cell of this size
TREE_M = 8.0  # one tree at most per cell of this size, so a crown may not be wider
ARTERIAL_M = 7.5  # half width of the road between two districts
WATER_LEVEL_M = -2.5
MAX_BUILDING_M = 48.0  # the highest roof above its ground in a style of ordinary height, lift housing included
VEHICLE_M = 1.5  # height of a car


class Style(NamedTuple):
    """The character of a town: how often each kind of district occurs, and how it is built, beside the ordinary."""

    weights: tuple[float, float, float, float, float]  # of KINDS
    block: float = 1.0  # size of blocks
    lot: float = 1.0  # width of lots
    storey: float = 1.0  # height of buildings
    trees: float = 1.0
    bend: float = 1.0  # how crooked streets are
    river: float = 1.0  # width


STYLES: dict[str, Style] = {
    "mixed": Style((1, 1, 1, 1, 1)),
    "old_town": Style((2, 0.6, 0.2, 0.8, 0.3), block=0.72, lot=0.75, storey=1.15, trees=0.6, bend=1.8),
    "harbour": Style((0.6, 0.8, 2.5, 0.5, 0.3), block=1.15, trees=0.7, river=1.5),
    "suburb": Style((1.8, 0.25, 0.5, 1.3, 1.5), block=1.1, lot=1.1, storey=0.9, trees=1.4, bend=1.3),
    "modern": Style((0.3, 2.5, 0.8, 1.2, 0.2), block=1.25, lot=1.2, storey=1.3, bend=0.5),
}
"""Styles of towns by name."""


@dataclass(frozen=True)
class City:
    """The recipe of one town; two equal recipes are the same town.

    Parameters
    ----------
    seed : int
        Chooses the town.
    extent_m : float
        The town is centred in the square from (0, 0) to (extent, extent); beyond it the land goes on.
    style : str
        One of `STYLES`.
    river_m : float
        Mean width of the river in a town of ordinary style, 0 for none.
    relief_m : float
        The terrain stays within plus and minus this height.
    change : float
        Fraction of lots, clusters of trees and fields that are others in epoch 1 than in epoch 0.
    """

    seed: int
    extent_m: float
    style: str = "mixed"
    river_m: float = 85.0
    relief_m: float = 5.0
    change: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (("seed", 0), ("extent_m", 1), ("river_m", 0), ("relief_m", 0)):
            value = getattr(self, name)
            if not low <= value < 2**31:
                raise ValueError(f"{name} must lie in [{low}, 2**31), got {value}")
        if self.style not in STYLES:
            raise ValueError(f"style is {self.style!r}, expected one of {sorted(STYLES)}")
        if not 0 <= self.change <= 1:
            raise ValueError(f"change must lie in [0, 1], got {self.change}")

    @property
    def max_height_m(self) -> float:
        """No surface is higher than this: the margin that shadow and layover need follows from it."""
        return MAX_BUILDING_M * max(1.0, STYLES[self.style].storey) + self.relief_m


class Grid(NamedTuple):
    """A pixel grid laid over the town.

    Parameters
    ----------
    x0, y0
        Metres east and north of the outer corner of pixel (0, 0).
    shape
        Rows and columns.
    pixel_size
        Metres.
    turn_deg
        Clockwise turn. At 0 columns run east and rows run south, so the image is north up.
    """

    x0: float
    y0: float
    shape: tuple[int, int]
    pixel_size: float
    turn_deg: float = 0.0

    def xy(self, row: ArrayLike, col: ArrayLike) -> tuple[NDArray, NDArray]:
        """Metres of pixel coordinates; edges count from 0."""
        cos, sin = _turn(self.turn_deg)
        row, col = (np.asarray(a, np.float64) * self.pixel_size for a in (row, col))
        return self.x0 + (col * cos - row * sin), self.y0 - (col * sin + row * cos)

    def window(self, row: int, col: int, height: int, width: int) -> "Grid":
        """A part of the grid, or more than it: `row` and `col` may be negative."""
        x, y = self.xy(row, col)
        return Grid(float(x), float(y), (height, width), self.pixel_size, self.turn_deg)


def _turn(turn_deg: float) -> tuple[float, float]:
    """Cosine and sine, exact for quarter turns, so that turned towns agree pixel by pixel."""
    quarter = {0: (1.0, 0.0), 90: (0.0, 1.0), 180: (-1.0, 0.0), 270: (0.0, -1.0)}
    angle = math.radians(turn_deg)
    return quarter.get(turn_deg % 360, (math.cos(angle), math.sin(angle)))


class Ground(NamedTuple):
    """What lies at each pixel, all arrays of one shape (H, W)."""

    height: Floats  # surface in metres, with buildings and trees
    terrain: Floats  # bare ground in metres
    material: NDArray[np.uint8]  # index into MATERIALS
    tone: Floats  # in [0, 1], one value per object: roof colour, age of the asphalt, sort of crop


# ----------------------------------------------------------------------------------------------------- hashing
_LOW = np.uint64(0xFFFFFFFF)
_GOLDEN, _P, _Q = np.uint64(0x9E3779B1), np.uint64(0x85EBCA77), np.uint64(0xC2B2AE3D)
_F1, _F2 = np.uint64(0x7FEB352D), np.uint64(0x846CA68B)
_A, _B = np.uint64(0x2C1B3C6D), np.uint64(0x297A2D38)
_ONE, _SEVEN, _EIGHT, _FIFTEEN, _SIXTEEN = (np.uint64(n) for n in (1, 7, 8, 15, 16))


@inlined
def mix(h: np.uint64) -> np.uint64:
    """Scramble 32 bits (Wellons' `lowbias32`)."""
    h ^= h >> _SIXTEEN
    h = (h * _F1) & _LOW
    h ^= h >> _FIFTEEN
    h = (h * _F2) & _LOW
    return h ^ (h >> _SIXTEEN)


@inlined
def step(h: np.uint64, i: int, factor: np.uint64) -> np.uint64:
    """A hash that hangs on another one and an integer, which may be negative."""
    return mix((h + np.uint64(np.int64(i)) * factor) & _LOW)


@compiled
def hash2(seed: int, i: int, j: int) -> np.uint64:
    """Hash of an integer cell: 32 bits."""
    salt = mix((np.uint64(np.int64(seed)) * _GOLDEN + _Q) & _LOW)
    return step(step(salt, i, _P), j, _Q)


@inlined
def unit(h: np.uint64, k: int) -> float:
    """The k-th number in [0, 1) that hangs on a hash."""
    n = np.uint64(k)
    odd = (((_A * (n + n + _ONE)) ^ (_B * n)) & _LOW) | _ONE
    return float((((h ^ (h >> (_SEVEN + n))) * odd) & _LOW) >> _EIGHT) * 2.0**-24


@compiled
def value_noise(seed: int, x: float, y: float, cell_m: float) -> float:
    """Smooth noise in [0, 1): hashed values on a lattice of `cell_m` metres, blended with a smoothstep."""
    x, y = x / cell_m, y / cell_m
    i, j = math.floor(x), math.floor(y)
    fx, fy = x - i, y - j
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    low = _lerp(unit(hash2(seed, i, j), 0), unit(hash2(seed, i + 1, j), 0), fx)
    high = _lerp(unit(hash2(seed, i, j + 1), 0), unit(hash2(seed, i + 1, j + 1), 0), fx)
    return _lerp(low, high, fy)


@inlined
def _lerp(a: float, b: float, t: float) -> float:
    return a + t * (b - a)


@inlined
def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


# ---------------------------------------------------------------------------------------------- the town as numbers
class _Plan(NamedTuple):
    """How a kind of district is built (metres, probabilities)."""

    street: float  # half width of a street
    walk: float  # width of the pavement beside it
    lot: float  # width of a lot along the street
    side: float  # smallest distance between house and neighbour
    front: float  # smallest distance between house and street
    depth: float  # smallest depth of a house
    built: float  # fraction of lots with a house
    trees: float  # fraction of tree cells that bear one
    parked: float  # fraction of places at the kerb with a car


_PLANS = (
    _Plan(street=3.6, walk=1.5, lot=19.0, side=2.5, front=4.0, depth=8.5, built=0.93, trees=0.30, parked=0.12),
    _Plan(street=5.0, walk=3.0, lot=46.0, side=4.0, front=4.0, depth=12.0, built=0.90, trees=0.30, parked=0.25),
    _Plan(street=5.0, walk=2.0, lot=62.0, side=5.0, front=7.0, depth=22.0, built=0.70, trees=0.04, parked=0.08),
    _Plan(street=1.6, walk=0.0, lot=60.0, side=20.0, front=9.0, depth=9.0, built=0.04, trees=0.62, parked=0.0),
    _Plan(street=1.6, walk=0.0, lot=70.0, side=25.0, front=9.0, depth=9.0, built=0.03, trees=0.02, parked=0.0),
)
_BLOCKS_M = ((78, 62, 60, 16), (96, 60, 74, 26), (130, 70, 92, 40), (120, 60, 90, 50), (170, 110, 80, 50))


class World(NamedTuple):
    """A city and an epoch as plain numbers, which compiled code takes."""

    seed: int
    epoch: int
    change: float
    relief: float
    storey: float
    bend: float
    river: tuple[float, float, float, float, float, float, float, float]  # cos, sin, x, y, width, three phases
    warp: tuple[float, float, float, float]  # phases
    hills: tuple[float, float, float, float]  # phases
    first: tuple[int, int]  # lattice cell of districts[0, 0]
    districts: NDArray[np.float64]  # (columns, rows, 7): x, y, kind, cos, sin, block_u, block_v
    keys: NDArray[np.uint64]  # (columns, rows)
    plans: NDArray[np.float64]  # (kinds, fields of _Plan)


def _units(seed: int, i: int, j: int, count: int) -> list[float]:
    h = hash2(seed, i, j)
    return [unit(h, k) for k in range(count)]


def _phases(seed: int, salt: int, count: int) -> tuple[float, ...]:
    return tuple(2 * math.pi * unit(hash2(seed, salt, k), 0) for k in range(count))


@lru_cache(maxsize=256)
def _river(city: City) -> tuple[float, ...]:
    """Heading (cos, sin), a point the river passes, its width, and phases of its bends."""
    r = [unit(hash2(city.seed, 911, k), 0) for k in range(5)]
    angle = math.pi * r[0]
    centre = city.extent_m / 2
    shift = 0.28 * min(city.extent_m, 2500.0) * (r[1] - 0.5)
    cos, sin = math.cos(angle), math.sin(angle)
    width = city.river_m * STYLES[city.style].river
    return cos, sin, centre - sin * shift, centre + cos * shift, width, *(2 * math.pi * p for p in r[2:])


class District(NamedTuple):
    """One Voronoi cell of the town."""

    x: float
    y: float
    kind: int
    cos: float
    sin: float
    block_u: float
    block_v: float


@lru_cache(maxsize=65536)
def district(city: City, i: int, j: int) -> District:
    """The district whose seed lies in lattice cell (i, j)."""
    r = _units(city.seed, i, j, 8)
    style = STYLES[city.style]
    x, y = (i + 0.12 + 0.76 * r[0]) * DISTRICT_M, (j + 0.12 + 0.76 * r[1]) * DISTRICT_M
    centre = city.extent_m / 2
    out = math.hypot(x - centre, y - centre) / max(centre, 1.5 * DISTRICT_M)
    cos, sin, rx, ry, width, *_ = _river(city)
    beside_river = width > 0 and abs((y - ry) * cos - (x - rx) * sin) < 330
    usual = (
        0.42,
        0.08 + 0.45 * math.exp(-4 * out**2),
        0.12 + 0.22 * beside_river,
        0.11,
        0.4 * min(max(out - 0.7, 0.0), 1.0),
    )
    weights = np.array(usual) * style.weights
    kind = int(np.searchsorted(np.cumsum(weights) / weights.sum(), r[2]))
    u, du, v, dv = (length * style.block for length in _BLOCKS_M[kind])
    angle = math.pi * r[3]
    return District(x, y, kind, math.cos(angle), math.sin(angle), u + du * r[4], v + dv * r[5])


def world_of(city: City, epoch: int, box: tuple[float, float, float, float]) -> World:
    """What is needed to evaluate the city at points within a box (x low, x high, y low, y high)."""
    if epoch not in (0, 1):
        raise ValueError(f"epoch is {epoch}, expected 0 (photograph) or 1 (acquisition)")
    style = STYLES[city.style]
    reach = 2 + math.ceil(66 * style.bend / DISTRICT_M)  # two cells for the neighbours, and what the warp moves
    first_i, last_i, first_j, last_j = (math.floor(b / DISTRICT_M) for b in box)
    columns, rows = range(first_i - reach, last_i + reach + 1), range(first_j - reach, last_j + reach + 1)
    table = np.array([[district(city, i, j) for j in rows] for i in columns])
    keys = np.array([[hash2(city.seed, i, j) for j in rows] for i in columns], np.uint64)
    plans = np.array([p._replace(lot=p.lot * style.lot, trees=min(p.trees * style.trees, 0.9)) for p in _PLANS])
    return World(
        city.seed,
        epoch,
        float(city.change),
        float(city.relief_m),
        style.storey,
        style.bend,
        tuple(float(v) for v in _river(city)),
        _phases(city.seed, 77, 4),
        _phases(city.seed, 55, 4),
        (columns[0], rows[0]),
        table,
        keys,
        plans,
    )


# ------------------------------------------------------------------------------------------- where a pixel belongs
class _Site(NamedTuple):
    """The district that a place belongs to, and its border with the next one."""

    district: District
    key: np.uint64  # hash of the district
    edge: float  # metres to the border
    nx: float  # unit vector across the border, towards this district
    ny: float


class _Bank(NamedTuple):
    """Where a place lies to the river."""

    distance: float  # metres to the water, negative in it
    along: float  # metres along the river
    side: float  # 1 to the left of its course, -1 to the right


class _Block(NamedTuple):
    """The block between streets that a place lies in."""

    key: np.uint64  # hash of the block
    u: float  # metres along the district's axes
    v: float
    fu: float  # the same from the block's corner, in the middle of a street
    fv: float


class _Lot(NamedTuple):
    """The lot that a place lies on."""

    key: np.uint64  # hash of the lot
    a: float  # metres along the street
    b: float  # metres away from it
    width: float
    depth: float
    free: bool  # of arterials and of the river: what is built here is cut by neither


# Rows of the world's tables are read number by number: a view of a row counts references, for every pixel.
@inlined
def _district_of(world: World, i: int, j: int) -> District:
    d = world.districts
    return District(d[i, j, 0], d[i, j, 1], int(d[i, j, 2]), d[i, j, 3], d[i, j, 4], d[i, j, 5], d[i, j, 6])


@inlined
def _plan_of(world: World, kind: int) -> _Plan:
    p, k = world.plans, kind
    return _Plan(p[k, 0], p[k, 1], p[k, 2], p[k, 3], p[k, 4], p[k, 5], p[k, 6], p[k, 7], p[k, 8])


@inlined
def _site(world: World, x: float, y: float) -> _Site:
    """Nearest and second nearest seed; the border is their bisector, so an arterial keeps its width."""
    p, bend = world.warp, world.bend
    wx = x + bend * (26 * math.sin(y / 95 + p[0]) + 40 * math.sin(y / 260 + p[1]))
    wy = y + bend * (26 * math.sin(x / 103 + p[2]) + 40 * math.sin(x / 240 + p[3]))
    ci, cj = math.floor(wx / DISTRICT_M) - world.first[0], math.floor(wy / DISTRICT_M) - world.first[1]
    d1, d2 = np.inf, np.inf
    i1, j1, i2, j2 = 0, 0, 0, 0
    for i in range(ci - 2, ci + 3):
        for j in range(cj - 2, cj + 3):
            d = (wx - world.districts[i, j, 0]) ** 2 + (wy - world.districts[i, j, 1]) ** 2
            if d < d1:
                d2, i2, j2 = d1, i1, j1
                d1, i1, j1 = d, i, j
            elif d < d2:
                d2, i2, j2 = d, i, j
    here, other = _district_of(world, i1, j1), _district_of(world, i2, j2)
    between = math.hypot(here.x - other.x, here.y - other.y)
    nx, ny = (here.x - other.x) / between, (here.y - other.y) / between
    return _Site(here, world.keys[i1, j1], 0.5 * (d2 - d1) / between, nx, ny)


@inlined
def _bank(world: World, x: float, y: float) -> _Bank:
    cos, sin, rx, ry, width, p0, p1, p2 = world.river
    if width <= 0:
        return _Bank(1e6, 0.0, 1.0)
    along = (x - rx) * cos + (y - ry) * sin
    off = (y - ry) * cos - (x - rx) * sin
    off -= 55 * math.sin(along / 210 + p0) + 22 * math.sin(along / 93 + p1)
    distance = abs(off) - width / 2 * (1 + 0.22 * math.sin(along / 150 + p2))
    return _Bank(distance, along, 1.0 if off > 0 else -1.0)


@inlined
def _terrain(world: World, x: float, y: float, bank: float) -> float:
    """Low hills that flatten towards the banks."""
    q = world.hills
    hills = 0.6 * math.sin(x / 190 + q[0]) * math.sin(y / 230 + q[1])
    hills += 0.4 * math.sin(x / 113 + q[2]) * math.sin(y / 97 + q[3])
    return world.relief * hills * _clip(bank / 150, 0.0, 1.0)


@inlined
def _block(site: _Site, dx: float, dy: float) -> _Block:
    """Streets are a bent grid (`dx`, `dy` from the district's seed), turned into the direction of the district."""
    d = site.district
    u, v = d.cos * dx + d.sin * dy, d.cos * dy - d.sin * dx
    iu = math.floor(u / d.block_u)
    column = step(site.key, iu, _P)
    v += d.block_v * unit(column, 0)  # each column of blocks has its own cross streets
    iv = math.floor(v / d.block_v)
    return _Block(step(column, iv, _Q), u, v, u - iu * d.block_u, v - iv * d.block_v)


@inlined
def _lot(world: World, site: _Site, bank: _Bank, block: _Block, plan: _Plan) -> _Lot:
    """Lots of a block lie in two rows back to back, in columns along u."""
    d, half = site.district, plan.street
    inner_u, inner_v = d.block_u - 2 * half, d.block_v - 2 * half
    width, depth = inner_u / max(1, round(inner_u / plan.lot)), inner_v / 2
    a, b = block.fu - half, block.fv - half
    column = math.floor(a / width)
    back = b > depth
    key = step(block.key, column * 2 + back, _GOLDEN)
    if world.epoch and unit(key, 20) < world.change:
        key = step(key, world.epoch, _P)
    a -= column * width
    b = inner_v - b if back else b
    # a lot whose centre is too near to an arterial or the river stays empty: no house is cut by them
    du = width / 2 - a
    dv = b - depth / 2 if back else depth / 2 - b
    east, north = d.cos * du - d.sin * dv, d.sin * du + d.cos * dv
    reach = min(math.hypot(width, depth) * 0.36, 30.0)
    free = site.edge + east * site.nx + north * site.ny > ARTERIAL_M + reach
    river_cos, river_sin = world.river[0], world.river[1]
    free = free and bank.distance + bank.side * (north * river_cos - east * river_sin) > 6 + reach
    return _Lot(key, a, b, width, depth, free)


class Streets(NamedTuple):
    """The bent grid of streets at a place: façades run along its two directions."""

    u: float  # metres along the first direction
    v: float
    ux: float  # unit vector east and north in which `u` grows
    uy: float
    vx: float
    vy: float
    to_road: float  # metres to the roadway, negative on it; paths through parks and fields are none


@compiled
def streets(world: World, x: float, y: float) -> Streets:
    """Where a place lies to the streets of its district."""
    site, bend = _site(world, x, y), 6 * world.bend
    d, plan = site.district, _plan_of(world, site.district.kind)
    block = _block(site, x + bend * math.sin(y / 47) - d.x, y + bend * math.sin(x / 53) - d.y)
    east, north = bend / 47 * math.cos(y / 47), bend / 53 * math.cos(x / 53)  # how the bend turns both directions
    ux, uy, vx, vy = d.cos + d.sin * north, d.cos * east + d.sin, d.cos * north - d.sin, d.cos - d.sin * east
    u1, v1 = math.hypot(ux, uy), math.hypot(vx, vy)
    to_road = site.edge - ARTERIAL_M
    if d.kind <= INDUSTRY:
        inner = min(min(block.fu, d.block_u - block.fu), min(block.fv, d.block_v - block.fv))
        to_road = min(to_road, inner - plan.street)
    return Streets(block.u, block.v, ux / u1, uy / u1, vx / v1, vy / v1, to_road)


# -------------------------------------------------------------------------------------------- what a pixel shows
# Each of these gives height, material and tone; `level` is the height of the open ground.
@compiled
def _crown(world: World, x: float, y: float, density: float) -> float:
    """Height of a tree's crown above the ground, 0 without a tree.

    Paraboloid crowns on a jittered grid; looking at the four nearest cells is enough as no crown is wider than a cell.
    """
    i0, j0 = math.floor(x / TREE_M - 0.5), math.floor(y / TREE_M - 0.5)
    crown = 0.0
    for i in range(i0, i0 + 2):
        for j in range(j0, j0 + 2):
            h = hash2(world.seed + 5, i, j)
            if world.epoch and unit(hash2(world.seed + 7, i // 4, j // 4), 0) < world.change:
                h = step(h, world.epoch, _P)
            cx, cy = (i + 0.2 + 0.6 * unit(h, 1)) * TREE_M, (j + 0.2 + 0.6 * unit(h, 2)) * TREE_M
            radius = 1.5 + 2.5 * unit(h, 3)
            r2 = ((x - cx) ** 2 + (y - cy) ** 2) / (radius * radius)
            if r2 < 1:
                # groves and clearings: the noise is looked up at the tree, so that it never cuts a crown in two
                grove = value_noise(world.seed + 6, cx, cy, 46.0)
                if unit(h, 5) * (0.4 + 1.2 * grove) < density:
                    crown = max(crown, (radius * 1.7 + 1.5 + 2.5 * unit(h, 4)) * (1 - 0.55 * r2))
    return crown


@compiled
def _house(kind: int, plan: _Plan, lot: _Lot, storey: float) -> tuple[float, bool]:
    """Height above ground (0 outside) and flatness of the roof of the building on a lot."""
    h = lot.key
    side = plan.side * (1 + 0.7 * unit(h, 1))
    front = plan.front * (1 + 0.8 * unit(h, 2))
    w = lot.width - 2 * side
    d = lot.depth - front - 6 if kind == INDUSTRY else min(plan.depth * (1 + 0.5 * unit(h, 3)), lot.depth - front - 2)
    a, b = lot.a - side, lot.b - front
    if unit(h, 4) < 0.5:
        a = w - a
    to_side, to_front = min(a, w - a), min(b, d - b)
    wing = unit(h, 5)
    cut_out = wing < 0.45 and a > w * (0.45 + wing * 0.6) and b > d * (0.4 + wing * 0.4)  # an L
    if to_side <= 0 or to_front <= 0 or cut_out or unit(h, 6) >= plan.built:
        return 0.0, False
    level = unit(h, 7)
    if kind == BLOCKS:
        lift = 2.8 if abs(a - w * 0.3) < 2.6 and abs(b - d * 0.5) < 2.2 else 0.0  # flat roofs have something to see
        return storey * (12 + 27 * level * level) + lift, True
    hall = kind == INDUSTRY
    eave = storey * (6 + 6.5 * level if hall else 3.2 + 2.8 * level)
    if unit(h, 10) < (0.45 if hall else 0.12):
        return eave, True
    pitch = 0.09 if hall else 0.45 + 0.3 * unit(h, 8)
    hipped = unit(h, 9) < 0.35
    rise = pitch * (min(to_front, to_side) if hipped else (to_front if w > d else to_side))
    return eave + min(rise, 2.5 if hall else 4.5), False


@compiled
def _yard(lot: _Lot) -> float:
    """Height of containers or tanks on an industrial lot without a hall; 0 between them."""
    h, a, b, width, depth = lot.key, lot.a, lot.b, lot.width, lot.depth
    if unit(h, 11) < 0.6:
        i, j = math.floor(a / 13.2), math.floor(b / 3.3)
        box = step(step(h, i, _P), j, _Q)
        full = a - i * 13.2 < 12.2 and b - j * 3.3 < 2.5 and unit(box, 0) < 0.6 and j % 5 < 3
        full = full and 4 < a < width - 4 and b > 6
        return 2.6 * (1 + math.floor(2.99 * unit(box, 1))) if full else 0.0
    n = max(1.0, math.floor(width / depth))
    pitch = width / n
    radius = min(width, depth) / 2 * (0.55 + 0.25 * unit(h, 12))
    along = a % pitch - pitch / 2
    return 7 + 7 * unit(h, 13) if along * along + (b - depth / 2) ** 2 < radius * radius else 0.0


@inlined
def _car(h: np.uint64, along: float, across: float, pitch: float, fraction: float, epoch: int) -> bool:
    """Whether a car stands here: one place every `pitch` metres, `across` counted from the middle of the row."""
    n = math.floor(along / pitch)
    place = step(step(h, n, _P), epoch, _Q)
    if unit(place, 0) >= fraction or abs(across) > 0.9:
        return False
    start = (pitch - 4.5) * unit(place, 1)
    return start <= along - n * pitch <= start + 4.5


@compiled
def _traffic(world: World, level: float, site: _Site, x: float, y: float, tone: float) -> tuple[float, int, float]:
    """The roadway of an arterial: its middle is the border between two districts."""
    key, edge = site.key, site.edge
    along = site.ny * x - site.nx * y
    if _car(step(key, 71, _P), along, edge - 2.4, 30.0, 0.2, world.epoch):
        return level + VEHICLE_M, VEHICLE, unit(step(key, math.floor(along / 30.0), _Q), 5)
    if _car(step(key, 72, _P), along, edge - 5.4, 18.0, 0.15, world.epoch):
        return level + VEHICLE_M, VEHICLE, unit(step(key, math.floor(along / 18.0), _Q), 6)
    paint = edge < 0.15 or (abs(edge - 3.9) < 0.15 and along % 9.0 < 3.0)
    return level, ASPHALT, 1.0 if paint else tone


@compiled
def _street(world: World, level: float, site: _Site, plan: _Plan, block: _Block) -> tuple[float, int, float]:
    """A street between blocks: moving cars, parked cars, dashes and zebra crossings."""
    kind, half = site.district.kind, plan.street
    fu, fv, block_u, block_v = block.fu, block.fv, site.district.block_u, site.district.block_v
    tu, tv = (fu if fu < block_u / 2 else fu - block_u), (fv if fv < block_v / 2 else fv - block_v)
    with_v = abs(tu) < abs(tv)  # the street's own direction
    across, along, to_crossing = (tu, block.v, abs(tv) - half) if with_v else (tv, block.u, abs(tu) - half)
    tone = 0.06 + 0.16 * unit(site.key, 1)
    if to_crossing < 0:  # where two streets meet
        return level, ASPHALT, tone
    lane = step(site.key, 40 + with_v * 2 + (across > 0), _P)
    if to_crossing > 5 and _car(lane, along, abs(across) - half + 1.1, 6.0, plan.parked, world.epoch):
        return level + VEHICLE_M, VEHICLE, unit(step(lane, math.floor(along / 6.0), _Q), 5)
    if _car(step(lane, 9, _P), along, abs(across) - 0.3 * half, 40.0, 0.15 * (plan.parked > 0), world.epoch):
        return level + VEHICLE_M, VEHICLE, unit(step(lane, math.floor(along / 40.0), _Q), 6)
    zebra = kind == BLOCKS and 0.6 < to_crossing < 3.6 and across % 1.0 < 0.5
    dash = kind != HOUSES and abs(across) < 0.15 and to_crossing > 6 and along % 6.0 < 3.0
    return level, ASPHALT, 1.0 if zebra or dash else tone


@compiled
def _building(world: World, level: float, kind: int, plan: _Plan, lot: _Lot) -> tuple[float, int, float]:
    """What stands on a lot, at `level` where nothing does."""
    industry = kind == INDUSTRY
    rise, flat = _house(kind, plan, lot, world.storey)
    if rise > 0:
        roof = METAL if industry and unit(lot.key, 16) < 0.6 else GRAVEL if flat else TILE
        return level + rise, roof, unit(lot.key, 14)
    if industry and unit(lot.key, 6) >= plan.built:
        return level + _yard(lot), METAL, unit(lot.key, 17)
    return level, GRASS, 0.0


@compiled
def _works(world: World, level: float, lot: _Lot, built: bool) -> tuple[float, int, float]:
    """The paved yard of an industrial lot, with cars behind the hall."""
    tone, row = unit(lot.key, 14), step(lot.key, math.floor(lot.a / 2.7), _P)
    behind = built and unit(lot.key, 18) < 0.5 and lot.b > lot.depth - 9
    if behind and _car(row, lot.b, (lot.a % 2.7) - 1.35, 5.5, 0.35, world.epoch):
        return level + VEHICLE_M, VEHICLE, unit(row, 3)
    return level, ASPHALT if tone < 0.5 else CONCRETE, 0.1 + 0.25 * tone


@compiled
def _car_park(world: World, level: float, lot: _Lot) -> tuple[float, int, float]:
    """A car park in the courtyard of a block."""
    row = step(lot.key, math.floor(lot.a / 2.7), _P)
    if _car(row, lot.b - 20, (lot.a % 2.7) - 1.35, 6.0, 0.4, world.epoch):
        return level + VEHICLE_M, VEHICLE, unit(row, 3)
    paint = lot.a % 2.7 < 0.15 and (lot.b - 20) % 6.0 < 4.5
    return level, ASPHALT if paint else CONCRETE, 1.0 if paint else 0.25 + 0.5 * unit(lot.key, 14)


@compiled
def _drive(world: World, level: float, lot: _Lot) -> tuple[float, int, float]:
    """The drive beside a house."""
    if _car(lot.key, lot.b - 3, lot.a - 1.6, 6.0, 0.35, world.epoch):
        return level + VEHICLE_M, VEHICLE, unit(lot.key, 19)
    return level, CONCRETE, 0.25 + 0.5 * unit(lot.key, 14)


@compiled
def _field(world: World, level: float, block: _Block) -> tuple[float, int, float]:
    """A field with its furrows and tramlines: soil, crop or grass."""
    key = block.key
    if world.epoch and unit(key, 20) < world.change:
        key = step(key, world.epoch, _P)
    kind, across = unit(key, 1), block.fv if unit(key, 4) < 0.5 else block.fu
    rows = 0.06 if math.floor(across / 1.5) % 2 else -0.06
    lines = 0.12 if across % 21 < 0.6 else 0.0
    material = SOIL if kind < 0.35 else CROP if kind < 0.8 else GRASS
    return level, material, _clip(0.15 + 0.7 * unit(key, 2) + rows + lines, 0.0, 1.0)


@compiled
def _open_lot(world: World, level: float, kind: int, block: _Block, lot: _Lot, built: bool) -> tuple[float, int, float]:
    """The part of a lot that holds neither building nor tree."""
    if kind == INDUSTRY:
        return _works(world, level, lot, built)
    if kind == BLOCKS and unit(lot.key, 15) < 0.4 and 20 < lot.b < lot.depth * 0.9:
        return _car_park(world, level, lot)
    if kind == HOUSES and abs(lot.a - 1.6) < 1.4 and lot.b < 14:
        return _drive(world, level, lot)
    if kind == FIELDS:
        return _field(world, level, block)
    return level, GRASS, 0.25 + 0.5 * unit(lot.key, 14)


@inlined
def _is_water(site: _Site, bank: _Bank, arterial: bool, r2: float) -> bool:
    """River, basins of the harbour, ponds; `r2` is the squared distance from the district's seed."""
    kind = site.district.kind
    basin = kind == INDUSTRY and bank.distance < 150 and 30 < bank.along % 165 < 95 and not arterial
    pond = kind == PARK and r2 < (24 + 30 * unit(site.key, 3)) ** 2
    return bank.distance < 0 or basin or pond


@inlined
def _is_quay(kind: int, bank: _Bank) -> bool:
    """The paved edge of the river in town, and of the basins of the harbour."""
    if kind > INDUSTRY:
        return False
    if bank.distance < 4.5:
        return True
    at = bank.along % 165
    if kind != INDUSTRY or bank.distance >= 154 or not 26 < at < 99:
        return False
    return min(abs(at - 30), abs(at - 95), abs(bank.distance - 150)) < 4.5


@inlined
def _surface(world: World, x: float, y: float, site: _Site, bank: _Bank, terrain: float) -> tuple[float, int, float]:
    """Height, material and tone of what is met from above: water, road, quay, building, tree or open ground."""
    kind, arterial = site.district.kind, site.edge < ARTERIAL_M
    crosses = abs(site.nx * world.river[0] + site.ny * world.river[1]) > 0.6
    if arterial and bank.distance < 0 and crosses:  # a bridge, whose deck is as high as a ship needs in mid-stream
        deck = 0.4 + 3.5 * (1 - (1 + _clip(2 * bank.distance / world.river[4], -1.0, 0.0)) ** 2)
        return _traffic(world, deck, site, x, y, 0.2)
    dx = x + world.bend * 6 * math.sin(y / 47) - site.district.x
    dy = y + world.bend * 6 * math.sin(x / 53) - site.district.y
    if _is_water(site, bank, arterial, dx * dx + dy * dy):
        return WATER_LEVEL_M, WATER, 0.5

    built_up, level = kind <= INDUSTRY, terrain
    if not built_up and 0 <= bank.distance < 8:
        level += WATER_LEVEL_M * (1 - bank.distance / 8)  # banks slope down to the water
    if arterial:
        return _traffic(world, level, site, x, y, 0.06 + 0.16 * unit(site.key, 1))
    plan, block = _plan_of(world, kind), _block(site, dx, dy)
    to_u, to_v = min(block.fu, site.district.block_u - block.fu), min(block.fv, site.district.block_v - block.fv)
    to_street = min(to_u, to_v) - plan.street
    to_road = min(to_street, site.edge - ARTERIAL_M)
    if built_up and to_street < 0:
        return _street(world, level, site, plan, block)
    if _is_quay(kind, bank):
        return level, CONCRETE, 0.5
    if to_street < 0:
        return level, SOIL, 0.7  # a path through park or fields

    lot = _lot(world, site, bank, block, plan)
    built = to_road > 0.5 and lot.free
    if built:
        height, material, tone = _building(world, level, kind, plan, lot)
        if height > level:
            return height, material, tone
    crown = _crown(world, x, y, plan.trees)  # trees keep off houses, water and the middle of a road
    if crown > 0 and not (kind == INDUSTRY and crown < 5):
        return level + crown, TREE, _clip(crown / 12, 0.0, 1.0)
    if built_up and to_road < plan.walk:
        return level, CONCRETE, 0.4
    return _open_lot(world, level, kind, block, lot, built)


@compiled
def _evaluate(world: World, x: float, y: float) -> tuple[float, float, int, float]:
    """Height, terrain, material and tone at one place; it depends on no other."""
    # snapped to 1/1024 m, so that the rounding of an origin cannot move an edge from one window to the next
    x, y = round(x * 1024) / 1024, round(y * 1024) / 1024
    site, bank = _site(world, x, y), _bank(world, x, y)
    terrain = _terrain(world, x, y, bank.distance)
    height, material, tone = _surface(world, x, y, site, bank, terrain)
    return height, terrain, material, tone


@compiled
def _fill(world: World, frame: tuple[float, float, float, float], row: int, col: int, out: Ground) -> None:
    """Evaluate the pixels of a tile whose first one is (row, col) of a grid; `frame` is its x, y, cosine and sine, the
    latter two times the pixel size."""
    x0, y0, cos, sin = frame
    rows, cols = out.height.shape
    for r in range(rows):
        for c in range(cols):
            u, v = col + c + 0.5, row + r + 0.5
            z, t, m, s = _evaluate(world, x0 + (u * cos - v * sin), y0 - (u * sin + v * cos))
            out.height[r, c], out.terrain[r, c], out.material[r, c], out.tone[r, c] = z, t, m, s


@compiled
def _fill_points(world: World, x: np.ndarray, y: np.ndarray, out: Ground) -> None:
    for k in range(len(x)):
        out.height[k], out.terrain[k], out.material[k], out.tone[k] = _evaluate(world, x[k], y[k])


def _empty(shape: tuple[int, ...]) -> Ground:
    return Ground(*(np.empty(shape, t) for t in (np.float32, np.float32, np.uint8, np.float32)))


def ground(city: City, x: ArrayLike, y: ArrayLike, *, epoch: int = 0) -> Ground:
    """Evaluate the city at positions; every position is independent of all others.

    Parameters
    ----------
    city : City
    x, y : array_like
        Metres east and north, broadcast against each other.
    epoch : int
        0 for the photograph, 1 for the SAR acquisition.

    Returns
    -------
    Ground
        Arrays of the broadcast shape.
    """
    x, y = (np.array(a, np.float64) for a in np.broadcast_arrays(x, y))
    out = _empty(x.shape)
    if x.size:
        world = world_of(city, epoch, (x.min(), x.max(), y.min(), y.max()))
        _fill_points(world, x.ravel(), y.ravel(), Ground(*(layer.reshape(-1) for layer in out)))
    return out


# -------------------------------------------------------------------------------------------------------- grid
TILE_PX = 256  # side of what one thread evaluates at a time


def for_each(work: Callable, items: Iterable, workers: int | None = None) -> None:
    """Call `work` on every item in threads; compiled code lets go of the lock, so they do run side by side."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for _ in pool.map(work, items):
            pass


def ground_grid(city: City, grid: Grid, *, epoch: int = 0, workers: int | None = None) -> Ground:
    """Evaluate the city at the centres of a grid's pixels.

    Parameters
    ----------
    city : City
    grid : Grid
    epoch : int
        0 for the photograph, 1 for the SAR acquisition.
    workers : int, optional
        Threads; all processors by default.

    Returns
    -------
    Ground
        Arrays of `grid.shape`. A window of the grid gives the same area of the whole, and a grid turned by a quarter
        the turned arrays.
    """
    if grid.pixel_size <= 0 or min(grid.shape) < 1:
        raise ValueError(f"expected a positive pixel size and shape, got {grid.pixel_size} and {grid.shape}")
    corners = [grid.xy(r, c) for r, c in product((0, grid.shape[0]), (0, grid.shape[1]))]
    x, y = zip(*corners, strict=True)
    world = world_of(city, epoch, (float(min(x)), float(max(x)), float(min(y)), float(max(y))))
    cos, sin = (grid.pixel_size * t for t in _turn(grid.turn_deg))
    out = _empty(grid.shape)

    def fill(tile: tuple[int, int]) -> None:
        row, col = tile
        part = Ground(*(layer[row : row + TILE_PX, col : col + TILE_PX] for layer in out))
        _fill(world, (float(grid.x0), float(grid.y0), cos, sin), row, col, part)

    for_each(fill, product(range(0, grid.shape[0], TILE_PX), range(0, grid.shape[1], TILE_PX)), workers)
    return out
