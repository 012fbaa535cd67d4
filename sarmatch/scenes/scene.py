"""What a scene is: areas of ground, each with an optical map and the SAR strips flown over it.

Everything in one area lies on one pixel grid (north up, one pixel size), so a patch is a window `(row, col, size)` on
that grid whatever image it is cut from. Positions in metres come from the scene, and only from it: a set of image pairs
without coordinates has a grid but no metres, and says so when asked.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

LOADED = Callable[[], np.ndarray]

#: How the numbers of an image are meant. SAR is never "just 0 to 255".
SCALES = ("reflectance", "intensity", "amplitude")


class NoCoordinatesError(ValueError):
    """Metres were asked of a set that has no coordinates."""


@dataclass(frozen=True)
class Tile:
    """One image file or array on the area's pixel grid.

    Parameters
    ----------
    row, col
        Top-left pixel on the area's grid.
    height, width
        Size in pixels.
    load
        Gives the pixels, `(C, height, width)`, `uint8` or floating point. Called once per read, so it should be cached.
    """

    row: int
    col: int
    height: int
    width: int
    load: LOADED = field(repr=False)


@dataclass(frozen=True)
class Raster:
    """An image made of disjoint tiles on one pixel grid, read by window.

    Parameters
    ----------
    name
        Unique within its area.
    tiles
        At least one; they must not overlap.
    channels
        Number of channels of every tile.
    scale
        One of `SCALES`. `reflectance` is optical, 0 to 1; SAR is `intensity` (power) or `amplitude` (its square root).
    details
        What is known of the acquisition, e.g. `look` or `incidence_deg`.
    joined
        Whether the tiles make one seamless image, gridded as a whole, or stand for themselves, each with its own grid.
    """

    name: str
    tiles: tuple[Tile, ...]
    channels: int
    scale: str
    details: dict[str, object] = field(default_factory=dict)
    joined: bool = True

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"raster {self.name!r}: scale is {self.scale!r}, expected one of {SCALES}")
        if not self.tiles:
            raise ValueError(f"raster {self.name!r} has no tile, expected at least one")

    @classmethod
    def from_array(cls, name: str, array: np.ndarray, scale: str, row: int = 0, col: int = 0, **details) -> "Raster":
        """A raster of one `(C, H, W)` array."""
        channels, height, width = array.shape
        return cls(name, (Tile(row, col, height, width, lambda: array),), channels, scale, details)

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """First row, first column, one past the last row and column, in pixels of the area's grid."""
        return (
            min(t.row for t in self.tiles),
            min(t.col for t in self.tiles),
            max(t.row + t.height for t in self.tiles),
            max(t.col + t.width for t in self.tiles),
        )

    @property
    def pixels(self) -> int:
        """Number of pixels covered by tiles."""
        return sum(t.height * t.width for t in self.tiles)

    def covers(self, row: np.ndarray, col: np.ndarray, size: int) -> np.ndarray:
        """Which windows `size` x `size` at `(row, col)` `(N,)` lie wholly on tiles: bool `(N,)`."""
        row, col = np.atleast_1d(row), np.atleast_1d(col)
        covered = np.zeros(len(row), dtype=np.int64)
        for t in self.tiles:
            high = np.minimum(row + size, t.row + t.height) - np.maximum(row, t.row)
            wide = np.minimum(col + size, t.col + t.width) - np.maximum(col, t.col)
            covered += np.clip(high, 0, None) * np.clip(wide, 0, None)
        return covered == size * size

    def read(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """Pixels of a window as `float32 (C, height, width)`, 8-bit data scaled to 0..1.

        Raises
        ------
        ValueError
            Where part of the window lies on no tile: nothing is padded or invented.
        """
        window = np.empty((self.channels, height, width), dtype=np.float32)
        missing = height * width
        for t in self.tiles:
            top, left = max(row, t.row), max(col, t.col)
            bottom, right = min(row + height, t.row + t.height), min(col + width, t.col + t.width)
            if top >= bottom or left >= right:
                continue
            part = t.load()[:, top - t.row : bottom - t.row, left - t.col : right - t.col]
            factor = np.float32(1 / 255) if part.dtype == np.uint8 else np.float32(1)
            np.multiply(part, factor, out=window[:, top - row : bottom - row, left - col : right - col])
            missing -= (bottom - top) * (right - left)
        if missing:
            raise ValueError(
                f"raster {self.name!r}: the window of {height} x {width} px at row {row}, column {col} has {missing} "
                f"px outside the image, which spans rows {self.bounds[0]}..{self.bounds[2]}, "
                f"columns {self.bounds[1]}..{self.bounds[3]}"
            )
        return window


@dataclass(frozen=True)
class Area:
    """A piece of connected ground: one optical map and the SAR strips over it, on one pixel grid.

    Parameters
    ----------
    name
        Unique within the scene.
    map
        Optical raster, three channels.
    strips
        SAR rasters on the same grid.
    roles
        For each strip `train`, `val` or `test`: what the same-area protocol does with it.
    origin
        Local metres `(x, y)` of the grid's top left corner: areas of one scene lie apart in one frame.
    """

    name: str
    map: Raster
    strips: tuple[Raster, ...]
    roles: tuple[str, ...]
    origin: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.roles) != len(self.strips):
            raise ValueError(f"area {self.name!r}: {len(self.strips)} strips but {len(self.roles)} roles")
        names = [s.name for s in self.strips]
        if len(set(names)) != len(names):
            raise ValueError(f"area {self.name!r}: strip names must be unique, got {names}")

    def strip(self, name: str) -> Raster:
        """The strip of that name."""
        return _by_name(self.strips, name, f"strip of area {self.name!r}")


@dataclass(frozen=True)
class Scene:
    """A set of areas with one pixel size.

    Parameters
    ----------
    name
        Shown in titles and tables.
    areas
        At least one.
    pixel_size
        Metres on the ground per pixel, or `None` where the set has no coordinates.
    patch_size
        Side of a patch in pixels that suits this set.
    test_areas
        Names of the areas that the cross-area protocol keeps for the test.
    simulated
        Simulated ground is called simulated in every title and table.
    crs
        Coordinate reference system that `crs_transform` leads to, e.g. `EPSG:3395`.
    crs_transform
        `((a, b, c), (d, e, f))`: local metres `(x, y)` to the CRS, `X = a x + b y + c`, `Y = d x + e y + f`.
    credit
        Where the data come from, shown beside results.
    """

    name: str
    areas: tuple[Area, ...]
    pixel_size: float | None
    patch_size: int
    test_areas: tuple[str, ...] = ()
    simulated: bool = False
    crs: str | None = None
    crs_transform: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    credit: str = ""

    def __post_init__(self) -> None:
        for name in self.test_areas:
            self.area(name)

    def area(self, name: str) -> Area:
        """The area of that name."""
        return _by_name(self.areas, name, f"area of scene {self.name!r}")

    @property
    def label(self) -> str:
        """`simulated` or `real`, the word that stands beside every number."""
        return "simulated" if self.simulated else "real"

    @property
    def has_coordinates(self) -> bool:
        """Whether positions in metres exist."""
        return self.pixel_size is not None

    def metres(self, area: str, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """Pixel coordinates on an area's grid (edges count from 0) to local metres `(N, 2)`: x east, y north.

        Raises
        ------
        NoCoordinatesError
            Where the set has no coordinates.
        """
        if self.pixel_size is None:
            raise NoCoordinatesError(
                f"scene {self.name!r} has no coordinates (a set of image pairs): recall can be measured, metres cannot"
            )
        row, col = np.asarray(row, dtype=np.float64), np.asarray(col, dtype=np.float64)
        return np.stack([col * self.pixel_size, -row * self.pixel_size], axis=-1) + self.area(area).origin

    def to_crs(self, xy: np.ndarray) -> np.ndarray:
        """Local metres `(N, 2)` to coordinates of the scene's CRS `(N, 2)`."""
        if self.crs is None or self.crs_transform is None:
            raise NoCoordinatesError(f"scene {self.name!r} lies in no coordinate reference system")
        matrix = np.asarray(self.crs_transform, dtype=np.float64)
        return np.asarray(xy, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def _by_name(things: Iterable, name: str, what: str):
    found = {thing.name: thing for thing in things}
    if name not in found:
        raise ValueError(f"no {what} is called {name!r}; there are {sorted(found)}")
    return found[name]
