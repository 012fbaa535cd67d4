"""What is asked: a square window of a SAR image, and what the sliders do to it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import rotate
from torch import Tensor

from sarmatch.datasets.images import SUFFIXES, image_size
from sarmatch.datasets.mosaic import Layout
from sarmatch.datasets.unplaced import unplaced_strip
from sarmatch.patches import to_input
from sarmatch.scenes import NoCoordinatesError, Raster, Scene

MAX_BYTES = 8 << 20  # of a file that is uploaded
MAX_PIXELS = 16 << 20

#: Speckle `(C, S, S)` of mean one, laid onto pixels by their scale.
SPECKLED: dict[str, Callable[[NDArray, NDArray], NDArray]] = {
    "intensity": lambda pixels, speckle: pixels * speckle,
    "amplitude": lambda pixels, speckle: pixels * np.sqrt(speckle),
    "decibel": lambda pixels, speckle: pixels + 10 * np.log10(speckle),
}


@dataclass(frozen=True)
class Disturbance:
    """What is done to a query before it is asked.

    Attributes
    ----------
    looks : float
        Looks of extra speckle on top of what the image has; 0 adds none.
    east_m, north_m : float
        Its window is cut so far from its own place, and its true place goes along.
    rotation_deg : float
        It is turned clockwise about its middle, mirrored at its edges.
    seed : int
        Of the speckle.
    """

    looks: float = 0.0
    east_m: float = 0.0
    north_m: float = 0.0
    rotation_deg: float = 0.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Source:
    """A window of a SAR raster.

    Attributes
    ----------
    label : str
        As it is called in lists. Not safe to be put into HTML as it is.
    raster : Raster
        Where it is cut from.
    row, col, size : int
        The window on the raster's grid, pixels.
    area : str
        Where it lies; empty where nobody knows.
    tiles : tuple of int
        Rows of the gallery that it lies on, the most overlapping first, where these are known.
    """

    label: str
    raster: Raster
    row: int
    col: int
    size: int
    area: str = ""
    tiles: tuple[int, ...] = ()

    def moved(self, disturbance: Disturbance, pixel_size: float | None) -> "Source":
        """The window cut elsewhere, no farther than its raster reaches; a ValueError where that has no data there."""
        if pixel_size is None:
            return self
        row0, col0, row1, col1 = self.raster.bounds
        row = int(np.clip(round(self.row - disturbance.north_m / pixel_size), row0, row1 - self.size))
        col = int(np.clip(round(self.col + disturbance.east_m / pixel_size), col0, col1 - self.size))
        if not self.raster.covers(row, col, self.size).all():
            raise ValueError(f"{self.label}: {self.raster.name!r} has no data there; choose a smaller offset")
        same = (row, col) == (self.row, self.col)
        return replace(self, row=row, col=col, tiles=self.tiles if same else ())


@dataclass(frozen=True, eq=False)
class Asked:
    """Pixels `(C, S, S)` of a query in their own scale, as they are after a disturbance."""

    pixels: NDArray[np.float32]
    scale: str
    window: tuple[float, float] | None

    def image(self, size: int | None) -> Tensor:
        """What an encoder sees, `(1, C, size, size)` decibels; None keeps the pixels' size."""
        return to_input(torch.from_numpy(self.pixels)[None], self.scale, size, self.window)


def asked(source: Source, disturbance: Disturbance) -> Asked:
    """The pixels of a window, disturbed; its offset is `Source.moved`'s."""
    pixels = source.raster.read(source.row, source.col, source.size, source.size)
    if disturbance.rotation_deg:
        pixels = rotate(pixels, -disturbance.rotation_deg, axes=(2, 1), reshape=False, order=1, mode="mirror")
    if disturbance.looks:
        rng = np.random.default_rng(disturbance.seed)
        speckle = rng.gamma(disturbance.looks, 1 / disturbance.looks, pixels.shape)
        pixels = SPECKLED[source.raster.scale](pixels, speckle)
    return Asked(np.ascontiguousarray(pixels, np.float32), source.raster.scale, source.raster.window)


def uploaded(name: str, content: bytes, scene: Scene, bands: int, size: int) -> Source:
    """The middle of an image that somebody uploads.

    Parameters
    ----------
    name
        Of the file, as its owner calls it: it names the query and is no path.
    content
        The file's bytes. They are read in a temporary folder of their own, which is gone when this returns.
    scene
        Whose pixel size the image is taken to have, north up.
    bands, size
        Of the query: SAR bands, and pixels along a side.

    Raises
    ------
    ValueError
        For a file that is too large, no image, smaller than a query, or without enough bands.
    NoCoordinatesError
        Where the scene has no pixel size.
    """
    if scene.pixel_size is None:
        raise NoCoordinatesError(f"scene {scene.name!r} has no coordinates: no image has its pixel size")
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{name}: expected an image, one of {', '.join(sorted(SUFFIXES))}")
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name}: {len(content):,} bytes, expected at most {MAX_BYTES:,}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{suffix}"  # never the name that was given
        path.write_bytes(content)
        try:
            height, width = image_size(path)
            if height * width > MAX_PIXELS or min(height, width) < size:
                raise ValueError(f"{height} x {width} px, expected at least {size} x {size} and {MAX_PIXELS:,} in all")
            raster = unplaced_strip(path, scene.pixel_size, scene.pixel_size, Layout())
            if raster.channels < bands:
                raise ValueError(f"{raster.channels} bands, expected {bands}")
            raster = raster.select(raster.bands[:bands])
            pixels = raster.read(0, 0, *raster.bounds[2:], fill=np.nan)
        except ValueError as error:
            raise ValueError(f"{name}: {str(error).replace(str(path), path.name)}") from None
    kept = Raster.from_array(name, pixels, raster.scale, bands=raster.bands)
    kept = replace(kept, window=raster.window)
    middle = Source(name, kept, (pixels.shape[1] - size) // 2, (pixels.shape[2] - size) // 2, size)
    return middle.moved(Disturbance(), scene.pixel_size)
