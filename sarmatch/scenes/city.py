"""A procedural city written like a shader: every map is a pure function of position and hashed integers.

Nothing is drawn object by object, so a window equals the same area cut from the whole, windows can be computed by
several threads, and a strip seen from another side is the same function evaluated on turned coordinates. The price is
that a pixel must find out by itself which district, block, lot and tree it belongs to; that is what this file does, in
that order. Lengths are metres; x points east and y north.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

MATERIALS = (
    "water",
    "asphalt",
    "concrete",
    "soil",
    "grass",
    "crop",
    "tree",
    "roof_tile",
    "roof_gravel",
    "roof_metal",
)
"""Names of the values of `Ground.material`, in order."""
(WATER, ASPHALT, CONCRETE, SOIL, GRASS, CROP, TREE, TILE, GRAVEL, METAL) = range(len(MATERIALS))
FIRST_ROOF = TILE  # a material from here on is part of a building

KINDS = ("houses", "blocks", "industry", "park", "fields")
"""Kinds of district."""
(HOUSES, BLOCKS, INDUSTRY, PARK, FIELDS) = range(len(KINDS))

DISTRICT_M = 400.0  # one district seed per cell of this size
TREE_M = 8.0  # one tree at most per cell of this size, so a crown may not be wider
WATER_LEVEL_M = -2.5
MAX_BUILDING_M = 48.0  # the highest roof above its ground, lift housing included


@dataclass(frozen=True)
class City:
    """The recipe of one town; two equal recipes are the same town.

    Parameters
    ----------
    seed : int
        Chooses the town.
    extent_m : float
        The town is centred in the square from (0, 0) to (extent, extent); beyond it the land goes on.
    river_m : float
        Mean width of the river, 0 for none.
    relief_m : float
        The terrain stays within plus and minus this height.
    """

    seed: int
    extent_m: float
    river_m: float = 85.0
    relief_m: float = 5.0

    def __post_init__(self) -> None:
        for name, low in (("seed", 0), ("extent_m", 1), ("river_m", 0), ("relief_m", 0)):
            value = getattr(self, name)
            if not low <= value < 2**31:
                raise ValueError(f"{name} must lie in [{low}, 2**31), got {value}")

    @property
    def max_height_m(self) -> float:
        """No surface is higher than this: the margin that shadow and layover need follows from it."""
        return MAX_BUILDING_M + self.relief_m


class Ground(NamedTuple):
    """What lies at each pixel, all arrays of one shape (H, W)."""

    height: Floats  # surface in metres, with buildings and trees
    terrain: Floats  # bare ground in metres
    material: NDArray[np.uint8]  # index into MATERIALS
    tone: Floats  # in [0, 1], one value per object: roof colour, age of the asphalt, sort of crop


# ----------------------------------------------------------------------------------------------------- hashing
_GOLDEN, _P, _Q = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(0xC2B2AE3D)


def _mix(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Scramble 32 bits (Wellons' `lowbias32`), in place."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        h ^= h >> np.uint32(shift)
        h *= np.uint32(factor)
    h ^= h >> np.uint32(16)
    return h


def hash_cells(seed: int, i: ArrayLike, j: ArrayLike) -> NDArray[np.uint32]:
    """Hash integer cells (i, j), broadcast against each other, into uint32."""
    i, j = (np.atleast_1d(np.asarray(k)).astype(np.int32).view(np.uint32) for k in (i, j))
    salt = _mix(np.array([seed], np.uint32) * _GOLDEN + _Q)
    return _mix(_mix(i * _P + salt) + j * _Q)


def unit(h: NDArray[np.uint32], k: int = 0) -> Floats:
    """The k-th number in [0, 1) that hangs on a hash."""
    odd = np.uint32((0x2C1B3C6D * (2 * k + 1) ^ 0x297A2D38 * k) & 0xFFFFFFFF | 1)
    return ((h ^ (h >> np.uint32(7 + k))) * odd >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def value_noise(seed: int, x: ArrayLike, y: ArrayLike, cell_m: float) -> Floats:
    """Smooth noise in [0, 1): hashed values on a lattice, blended with a smoothstep.

    Parameters
    ----------
    seed : int
    x, y : array_like
        Coordinates in metres, broadcast against each other.
    cell_m : float
        Lattice step in metres.
    """
    axes = []
    for c in (x, y):
        c = np.asarray(c, np.float32) / np.float32(cell_m)
        cell = np.floor(c)
        f = c - cell
        cell = cell.astype(np.int32)
        axes.append((cell - cell.min(), f * f * (3 - 2 * f), np.arange(cell.min(), cell.max() + 2)))
    (i, fx, cols), (j, fy, rows) = axes
    table = unit(hash_cells(seed, cols[None, :], rows[:, None]))
    n = len(cols)
    table = table.ravel()
    at = j * n + i
    low = table[at] + fx * (table[at + 1] - table[at])
    at = at + n
    high = table[at] + fx * (table[at + 1] - table[at])
    return low + fy * (high - low)


# --------------------------------------------------------------------------------------------------- districts
class District(NamedTuple):
    """One Voronoi cell of the town."""

    x: float
    y: float
    key: int
    kind: int
    cos: float
    sin: float
    block_u: float
    block_v: float


class _Style(NamedTuple):
    """How a kind of district is built (metres, probabilities)."""

    street: float  # half width of a street
    walk: float  # width of the pavement beside it
    lot: float  # width of a lot along the street
    side: float  # smallest distance between house and neighbour
    front: float  # smallest distance between house and street
    depth: float  # smallest depth of a house
    built: float  # share of lots with a house
    trees: float  # share of tree cells that bear one


_STYLES = (
    _Style(street=3.6, walk=1.5, lot=19.0, side=2.5, front=4.0, depth=8.5, built=0.93, trees=0.30),
    _Style(street=5.0, walk=3.0, lot=46.0, side=4.0, front=4.0, depth=12.0, built=0.90, trees=0.30),
    _Style(street=5.0, walk=2.0, lot=62.0, side=5.0, front=7.0, depth=22.0, built=0.70, trees=0.04),
    _Style(street=1.6, walk=0.0, lot=60.0, side=20.0, front=9.0, depth=9.0, built=0.04, trees=0.62),
    _Style(street=1.6, walk=0.0, lot=70.0, side=25.0, front=9.0, depth=9.0, built=0.03, trees=0.02),
)
_BLOCKS_M = ((78, 62, 60, 16), (96, 60, 74, 26), (130, 70, 92, 40), (120, 60, 90, 50), (170, 110, 80, 50))


def _river_frame(city: City) -> tuple[float, float, float, float, NDArray]:
    """Heading (cos, sin), a point the river passes, and five hashed phases."""
    r = [float(unit(hash_cells(city.seed, 911, k))[0]) for k in range(8)]
    angle = np.pi * r[0]
    centre = city.extent_m / 2
    shift = 0.28 * min(city.extent_m, 2500.0) * (r[1] - 0.5)
    cos, sin = np.cos(angle), np.sin(angle)
    return cos, sin, centre - sin * shift, centre + cos * shift, 2 * np.pi * np.array(r[2:7])


@lru_cache(maxsize=4096)
def district(city: City, i: int, j: int) -> District:
    """The district whose seed lies in lattice cell (i, j)."""
    h = hash_cells(city.seed, i, j)
    r = [float(unit(h, k)[0]) for k in range(8)]
    x, y = (i + 0.12 + 0.76 * r[0]) * DISTRICT_M, (j + 0.12 + 0.76 * r[1]) * DISTRICT_M
    centre = city.extent_m / 2
    out = np.hypot(x - centre, y - centre) / max(centre, 1.5 * DISTRICT_M)
    cos, sin, rx, ry, _ = _river_frame(city)
    beside_river = city.river_m > 0 and abs((y - ry) * cos - (x - rx) * sin) < 330
    weights = np.array(
        [0.42, 0.08 + 0.45 * np.exp(-4 * out**2), 0.12 + 0.22 * beside_river, 0.11, 0.4 * np.clip(out - 0.7, 0, 1)]
    )
    kind = int(np.searchsorted(np.cumsum(weights) / weights.sum(), r[2]))
    u, du, v, dv = _BLOCKS_M[kind]
    angle = np.pi * r[3]
    return District(x, y, int(h[0]), kind, np.cos(angle), np.sin(angle), u + du * r[4], v + dv * r[5])


class _Place(NamedTuple):
    """Where a pixel lies in its district."""

    index: NDArray[np.intp]  # into `table`
    table: list[District]
    edge: Floats  # distance to the border with the next district
    nx: Floats  # unit vector from the neighbour's seed to ours
    ny: Floats


def _warp(city: City, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Bend straight borders: x is moved by a wave along y and the other way round, so both stay cheap."""
    p = 2 * np.pi * np.array([float(unit(hash_cells(city.seed, 77, k))[0]) for k in range(4)], np.float32)
    wx = x + 26 * np.sin(y / 95 + p[0]) + 40 * np.sin(y / 260 + p[1])
    wy = y + 26 * np.sin(x / 103 + p[2]) + 40 * np.sin(x / 240 + p[3])
    return wx.astype(np.float32), wy.astype(np.float32)


def _locate_district(city: City, x: Floats, y: Floats) -> _Place:
    """Nearest and second nearest seed; the border is their bisector, so an arterial keeps its width."""
    wx, wy = _warp(city, x, y)
    box = wx.min(), wx.max(), wy.min(), wy.max()
    first_i, last_i, first_j, last_j = (int(np.floor(b / DISTRICT_M)) for b in box)
    table = [district(city, i, j) for i, j in product(range(first_i - 2, last_i + 3), range(first_j - 2, last_j + 3))]
    sx, sy = np.array([d[:2] for d in table]).T
    near = np.hypot(*(np.maximum(0, np.maximum(lo - s, s - hi)) for s, lo, hi in ((sx, *box[:2]), (sy, *box[2:]))))
    far = np.hypot(*(np.maximum(abs(lo - s), abs(s - hi)) for s, lo, hi in ((sx, *box[:2]), (sy, *box[2:]))))
    # a seed farther than the second of all worst cases can be neither nearest nor second nearest
    table = [d for d, n in zip(table, near, strict=True) if n <= np.sort(far)[1]]

    shape = np.broadcast_shapes(wx.shape, wy.shape)
    d1, d2 = np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32)
    k1, k2 = np.zeros(shape, np.intp), np.zeros(shape, np.intp)
    for k, d in enumerate(table):
        dist = np.square(wx - np.float32(d.x)) + np.square(wy - np.float32(d.y))
        first = dist < d1
        second = dist < d2
        np.copyto(k2, k, where=second)
        np.copyto(k2, k1, where=first)
        np.copyto(k1, k, where=first)
        d2 = np.minimum(d2, np.maximum(d1, dist))
        d1 = np.minimum(d1, dist)
    seeds = np.array([d[:2] for d in table], np.float32)
    step = seeds[:, None] - seeds[None]  # (own, other, 2)
    length = np.hypot(step[..., 0], step[..., 1])
    length[length == 0] = 1
    pair = k1 * len(table) + k2
    edge = (d2 - d1) * (0.5 / length).ravel()[pair]
    nx, ny = (step[..., a] / length for a in (0, 1))
    return _Place(k1, table, edge, nx.ravel()[pair], ny.ravel()[pair])


# ------------------------------------------------------------------------------------------------------- water
class _River(NamedTuple):
    """Position relative to the river."""

    bank: Floats  # distance from the bank, negative in the water
    along: Floats
    side: Floats  # -1 or 1
    half: float  # half of the mean width


def _locate_river(city: City, x: Floats, y: Floats) -> _River:
    cos, sin, rx, ry, p = (np.float32(v) for v in _river_frame(city))
    along = (x - rx) * cos + (y - ry) * sin
    across = (y - ry) * cos - (x - rx) * sin
    across = across - 55 * np.sin(along / 210 + p[0]) - 22 * np.sin(along / 93 + p[1])
    half = np.float32(city.river_m / 2)
    bank = np.abs(across) - half * (1 + np.float32(0.22) * np.sin(along / 150 + p[2]))
    if not city.river_m:
        bank = bank + np.float32(1e6)
    return _River(bank, along, np.sign(across), half)


def _terrain(city: City, x: Floats, y: Floats, bank: Floats) -> Floats:
    """Low hills that flatten towards the river."""
    p = 2 * np.pi * np.array([float(unit(hash_cells(city.seed, 55, k))[0]) for k in range(6)], np.float32)
    hills = 0.6 * np.sin(x / 190 + p[0]) * np.sin(y / 230 + p[1])
    hills = hills + 0.4 * np.sin(x / 113 + p[2]) * np.sin(y / 97 + p[3])
    fade = np.clip(bank / 150, 0, 1)
    return (np.float32(city.relief_m) * hills * fade).astype(np.float32)


# ------------------------------------------------------------------------------------------------------- trees
def _trees(city: City, x: Floats, y: Floats, density: Floats) -> Floats:
    """Height of the crown above the ground, 0 without a tree.

    Paraboloid crowns on a jittered grid; looking at the four nearest cells is enough as no crown is wider than a cell.
    """
    cells = []
    for c in (x, y):
        i = np.floor(c / TREE_M - 0.5).astype(np.int32)
        cells.append((i - i.min(), np.arange(i.min(), i.max() + 2)))
    (i, cols), (j, rows) = cells
    h = hash_cells(city.seed + 5, cols[None, :], rows[:, None])
    cx = ((cols[None, :] + 0.2 + 0.6 * unit(h, 1)) * TREE_M).astype(np.float32).ravel()
    cy = ((rows[:, None] + 0.2 + 0.6 * unit(h, 2)) * TREE_M).astype(np.float32).ravel()
    radius = 1.5 + 2.5 * unit(h, 3).ravel()
    top = radius * 1.7 + 1.5 + 2.5 * unit(h, 4).ravel()
    # groves and clearings: the noise is looked up at the tree, so that it never cuts a crown in two
    grove = value_noise(city.seed + 6, cx, cy, 46.0)
    chance = (unit(h, 5).ravel() * (0.4 + 1.2 * grove)).astype(np.float32)
    inverse = 1 / np.square(radius)
    crown = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for a, b in product((0, 1), (0, 1)):
        at = (j + b) * len(cols) + (i + a)
        r2 = (np.square(x - cx[at]) + np.square(y - cy[at])) * inverse[at]
        z = top[at] * (1 - np.float32(0.55) * r2)
        z *= (r2 < 1) & (chance[at] < density)
        np.maximum(crown, z, out=crown)
    return crown


# --------------------------------------------------------------------------------------------------- buildings
class _Lot(NamedTuple):
    """Position within a lot; a runs along the street, b away from it."""

    a: Floats
    b: Floats
    width: Floats
    depth: Floats
    key: NDArray[np.uint32]


def _house(lot: _Lot, kind: NDArray, style: Callable[[str], Floats]) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Footprint, height above ground, and depth behind the wall of the building on a lot.

    Returns
    -------
    inside : bool array
    height : float32 array
        Metres above the ground, valid inside.
    """
    h = lot.key
    side = style("side") * (1 + np.float32(0.7) * unit(h, 1))
    front = style("front") * (1 + np.float32(0.8) * unit(h, 2))
    w = lot.width - 2 * side
    d = np.minimum(style("depth") * (1 + np.float32(0.5) * unit(h, 3)), lot.depth - front - 2)
    np.copyto(d, lot.depth - front - 6, where=kind == INDUSTRY)
    a, b = lot.a - side, lot.b - front
    mirrored = unit(h, 4) < 0.5
    a = np.where(mirrored, w - a, a)
    to_side = np.minimum(a, w - a)
    to_front = np.minimum(b, d - b)
    inside = (to_side > 0) & (to_front > 0)
    wing = unit(h, 5)
    inside &= ~((wing < 0.45) & (a > w * (0.45 + wing * 0.6)) & (b > d * (0.4 + wing * 0.4)))
    inside &= unit(h, 6) < style("built")

    storey = unit(h, 7)
    hall = kind == INDUSTRY
    tall = kind == BLOCKS
    eave = np.where(tall, 12 + 27 * storey * storey, np.where(hall, 6 + 6.5 * storey, 3.2 + 2.8 * storey))
    pitch = np.where(hall, np.float32(0.09), np.float32(0.45) + np.float32(0.3) * unit(h, 8))
    long_side = np.where(w > d, to_front, to_side)
    hipped = unit(h, 9) < 0.35
    rise = pitch * np.where(hipped, np.minimum(to_front, to_side), long_side)
    rise = np.minimum(rise, np.where(hall, 2.5, 4.5))
    flat = tall | (unit(h, 10) < np.where(hall, 0.45, 0.12))
    # a lift housing on every high roof gives flat roofs something to see
    lift = np.where(tall & (np.abs(a - w * 0.3) < 2.6) & (np.abs(b - d * 0.5) < 2.2), np.float32(2.8), np.float32(0))
    height = eave + np.where(flat, lift, rise)
    return inside, height.astype(np.float32), flat


def _yard(lot: _Lot) -> tuple[NDArray[np.bool_], Floats]:
    """Containers or tanks on an industrial lot without a hall: where, and how high."""
    stacked = unit(lot.key, 11) < 0.6
    i, j = np.floor(lot.a / 13.2), np.floor(lot.b / 3.3)
    box = _mix(lot.key + i.astype(np.int32).view(np.uint32) * _P + j.astype(np.int32).view(np.uint32) * _Q)
    full = (lot.a - i * 13.2 < 12.2) & (lot.b - j * 3.3 < 2.5) & (unit(box) < 0.6) & (np.mod(j, 5) < 3)
    full &= (lot.a > 4) & (lot.a < lot.width - 4) & (lot.b > 6)
    containers = np.float32(2.6) * (1 + np.floor(2.99 * unit(box, 1)))
    size = np.minimum(lot.width, lot.depth) / 2
    n = np.maximum(1, np.floor(lot.width / lot.depth))
    pitch = lot.width / n
    radius = size * (np.float32(0.55) + np.float32(0.25) * unit(lot.key, 12))
    tank = np.square(np.mod(lot.a, pitch) - pitch / 2) + np.square(lot.b - lot.depth / 2) < np.square(radius)
    tanks = 7 + 7 * unit(lot.key, 13)
    return np.where(stacked, full, tank), np.where(stacked, containers, tanks).astype(np.float32)


# ------------------------------------------------------------------------------------------------------ ground
def ground(city: City, x: ArrayLike, y: ArrayLike) -> Ground:
    """Evaluate the city at positions; every position is independent of all others.

    Parameters
    ----------
    city : City
    x, y : array_like
        Metres east and north, broadcast against each other, for instance (1, W) and (H, 1).

    Returns
    -------
    Ground
        Arrays of the broadcast shape.
    """
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    shape = np.broadcast_shapes(x.shape, y.shape)
    place = _locate_district(city, x, y)
    river = _locate_river(city, x, y)
    terrain = _terrain(city, x, y, river.bank)

    def of_district(name: str) -> NDArray:
        return np.array([getattr(d, name) for d in place.table], np.float32)[place.index]

    kinds = np.array([d.kind for d in place.table])
    kind = kinds.astype(np.uint8)[place.index]

    def style(name: str) -> Floats:
        return np.array([getattr(_STYLES[k], name) for k in kinds], np.float32)[place.index]

    # streets: a bent grid, turned into the direction of the district
    bx = x - 0 + 6 * np.sin(y / 47)
    by = y - 0 + 6 * np.sin(x / 53)
    cos, sin = of_district("cos"), of_district("sin")
    dx, dy = bx - of_district("x"), by - of_district("y")
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    block_u, block_v = of_district("block_u"), of_district("block_v")
    iu = np.floor(u / block_u)
    fu = u - iu * block_u
    keys = np.array([d.key for d in place.table], np.uint32)[place.index]
    column = _mix(keys + iu.astype(np.int32).view(np.uint32) * _P)
    v = v + block_v * unit(column)  # each column of blocks has its own cross streets
    iv = np.floor(v / block_v)
    fv = v - iv * block_v
    key = _mix(column + iv.astype(np.int32).view(np.uint32) * _Q)
    half_street = style("street")
    to_u, to_v = np.minimum(fu, block_u - fu), np.minimum(fv, block_v - fv)
    to_street = np.minimum(to_u, to_v) - half_street
    to_road = np.minimum(to_street, place.edge - 7.5)
    street = to_street < 0
    arterial = place.edge < 7.5

    # lots: two rows back to back, columns along u
    inner_u, inner_v = block_u - 2 * half_street, block_v - 2 * half_street
    p, q = fu - half_street, fv - half_street
    columns = np.maximum(1, np.round(inner_u / style("lot")))
    width = inner_u / columns
    col = np.floor(p / width)
    back = q > inner_v / 2
    lot_key = _mix(key + (col.astype(np.int32) * 2 + back).view(np.uint32) * _GOLDEN)
    lot = _Lot(p - col * width, np.minimum(q, inner_v - q), width, inner_v / 2, lot_key)
    # a lot whose centre is too near to an arterial or the river stays empty: no house is cut by them
    du = width / 2 - lot.a
    dv = np.where(back, lot.b - lot.depth / 2, lot.depth / 2 - lot.b)
    east, north = cos * du - sin * dv, sin * du + cos * dv
    reach = np.minimum(np.hypot(width, lot.depth) * np.float32(0.36), 30)
    r_cos, r_sin, *_ = (np.float32(c) for c in _river_frame(city)[:4])
    centre_bank = river.bank + river.side * (north * r_cos - east * r_sin)
    free = place.edge + east * place.nx + north * place.ny > 7.5 + reach
    free &= centre_bank > 6 + reach

    # water
    built_up = kind <= INDUSTRY
    quay_s = np.mod(river.along, 165)
    basin = (kind == INDUSTRY) & (river.bank < 150) & (quay_s > 30) & (quay_s < 95) & ~arterial
    pond = (kind == PARK) & (np.square(dx) + np.square(dy) < np.square(24 + 30 * unit(keys, 3)))
    water = (river.bank < 0) | basin | pond
    along_border = np.abs(place.nx * r_cos + place.ny * r_sin) > 0.6  # the arterial crosses, not follows
    bridge = arterial & (river.bank < 0) & along_border
    water &= ~bridge
    beside = np.minimum(np.abs(quay_s - 30), np.abs(quay_s - 95))
    quay = built_up & (river.bank < 4.5) | (kind == INDUSTRY) & (river.bank < 154) & ((quay_s > 26) & (quay_s < 99)) & (
        np.minimum(beside, np.abs(river.bank - 150)) < 4.5
    )

    # paint from the ground up
    lot_tone = unit(lot_key, 14)
    material = np.full(shape, GRASS, np.uint8)
    tone = np.float32(0.25) + np.float32(0.5) * lot_tone
    height = terrain.copy()

    field = kind == FIELDS
    sort = unit(key, 1)
    np.copyto(material, np.where(sort < 0.35, SOIL, np.where(sort < 0.8, CROP, GRASS)).astype(np.uint8), where=field)
    np.copyto(tone, np.float32(0.15) + np.float32(0.7) * unit(key, 2), where=field)
    industry = kind == INDUSTRY
    np.copyto(material, np.where(lot_tone < 0.5, ASPHALT, CONCRETE).astype(np.uint8), where=industry)
    np.copyto(tone, np.float32(0.1) + np.float32(0.25) * lot_tone, where=industry)
    # courtyards and car parks
    paved = (kind == BLOCKS) & (unit(lot_key, 15) < 0.4) & (lot.b < lot.depth * 0.9) & (lot.b > 20)
    paved |= (kind == HOUSES) & (np.abs(lot.a - 1.6) < 1.4) & (lot.b < 14)
    np.copyto(material, CONCRETE, where=paved)

    dense = kind <= INDUSTRY
    walk = dense & (to_road < style("walk"))
    material[walk] = CONCRETE
    tone[walk] = 0.4
    path = ~dense & street
    material[path] = SOIL
    tone[path] = 0.7
    material[quay] = CONCRETE
    tone[quay] = 0.5
    road = dense & street | arterial
    material[road] = ASPHALT
    np.copyto(tone, np.float32(0.06) + np.float32(0.16) * unit(keys, 1), where=road)

    inside, rise, flat = _house(lot, kind, style)
    open_lot = (to_road > 0.5) & free & ~quay & ~water
    inside &= open_lot
    roof = np.where(flat, GRAVEL, TILE)
    roof = np.where(industry & (unit(lot_key, 16) < 0.6), METAL, roof).astype(np.uint8)
    np.copyto(material, roof, where=inside)
    np.copyto(tone, lot_tone, where=inside)
    height += np.where(inside, rise, 0)
    if industry.any():
        full, rise = _yard(lot)
        full &= industry & open_lot & (unit(lot_key, 6) >= _STYLES[INDUSTRY].built)
        material[full] = METAL
        np.copyto(tone, unit(lot_key, 17), where=full)
        height += np.where(full, rise, 0)
        inside |= full

    # trees keep off houses, water and the middle of a road
    crown = _trees(city, x, y, style("trees"))
    crown *= ~inside & ~water & ~bridge & (to_road > -1.5) & ~(industry & (crown < 5))
    leafy = crown > 0
    material[leafy] = TREE
    np.copyto(tone, np.clip(crown / 12, 0, 1), where=leafy)
    height += crown

    material[water] = WATER
    tone[water] = 0.5
    height[water] = WATER_LEVEL_M
    bank = ~built_up & (river.bank >= 0) & (river.bank < 8) & ~bridge & ~water
    height += np.where(bank, WATER_LEVEL_M * (1 - river.bank / 8), 0)
    if bridge.any():
        deck = 0.4 + 3.5 * (1 - np.square(1 + np.clip(river.bank / river.half, -1, 0)))
        np.copyto(height, deck.astype(np.float32), where=bridge)
        material[bridge] = ASPHALT
        tone[bridge] = 0.2
    return Ground(height, terrain, material, tone.astype(np.float32))


# -------------------------------------------------------------------------------------------------------- grid
def tiles(shape: tuple[int, int], rows: int = 128, cols: int = 512) -> Iterator[tuple[slice, slice]]:
    """Cut (H, W) into tiles small enough for the processor's cache."""
    for r, c in product(range(0, shape[0], rows), range(0, shape[1], cols)):
        yield slice(r, min(r + rows, shape[0])), slice(c, min(c + cols, shape[1]))


def for_each(work: Callable, items: Iterator, workers: int | None = None) -> None:
    """Call `work` on every item in threads; numpy lets go of the lock inside, so they do run side by side."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for _ in pool.map(work, items):
            pass


def ground_grid(
    city: City,
    x0: float,
    y_top: float,
    shape: tuple[int, int],
    pixel_size: float,
    quarter_turns: int = 0,
    workers: int | None = None,
) -> Ground:
    """Evaluate the city on a pixel grid, north up.

    Parameters
    ----------
    city : City
    x0, y_top : float
        West and north edge of the grid in metres; samples are taken at pixel centres.
    shape : (int, int)
        Rows and columns of the north-up grid.
    pixel_size : float
        Metres.
    quarter_turns : int
        Return the grid turned counter-clockwise this many times, as `np.rot90` would, without resampling.
    workers : int, optional
        Threads; all processors by default.

    Returns
    -------
    Ground
        Arrays of `shape`, or of the reversed shape after an odd number of turns.
    """
    if pixel_size <= 0 or min(shape) < 1:
        raise ValueError(f"expected a positive pixel size and shape, got {pixel_size} and {shape}")
    # snapped to 1/1024 m, so that the rounding of an origin cannot move an edge from one window to the next
    x = np.round((x0 + (np.arange(shape[1]) + 0.5) * pixel_size) * 1024) / 1024
    y = np.round((y_top - (np.arange(shape[0]) + 0.5) * pixel_size) * 1024) / 1024
    x, y = (np.rot90(c, quarter_turns) for c in np.broadcast_arrays(x[None, :], y[:, None]))
    odd = quarter_turns % 2
    x, y = (x[:, :1], y[:1, :]) if odd else (x[:1, :], y[:, :1])
    shape = np.broadcast_shapes(x.shape, y.shape)
    out = Ground(*(np.empty(shape, t) for t in (np.float32, np.float32, np.uint8, np.float32)))

    def fill(tile: tuple[slice, slice]) -> None:
        rows, cols = tile
        part = ground(city, x[rows] if odd else x[:, cols], y[:, cols] if odd else y[rows])
        for whole, piece in zip(out, part, strict=True):
            whole[tile] = piece

    for_each(fill, tiles(out.height.shape), workers)
    return out
