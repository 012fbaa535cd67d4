"""Windows of a strip: what is asked of the map, at known displacement from one another."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sarmatch.checks import whole_number
from sarmatch.encoders import Encoder, device_of, in_use
from sarmatch.patches import to_input
from sarmatch.scenes import Raster
from sarmatch.search.turned import Pose, turned

LEAST = 32  # pixels along the side of a window: less shows too little
HOLES = 0.1  # of a window that may hold no data; it is filled with the mean of the rest
MOST = 24  # windows of a strip; of more some are left out, evenly
LOOKS = 8  # pixels along the side of what is averaged before the contrast of a window is measured
PLAIN_DB = 1.0  # contrast below which a window shows next to nothing


class Windows(NamedTuple):
    """SAR images `(W, C, S, S)` in decibels and where their centres lie in the strip `(W, 2)`, rows and columns in
    pixels, in their order along it; and the pixels that they are made of, with their scale, see `Raster`."""

    images: Tensor
    centre: NDArray[np.float64]
    pixels: Tensor
    scale: str
    window: tuple[float, float] | None

    def first(self, count: int) -> "Windows":
        """The first `count` of them."""
        return self._replace(images=self.images[:count], centre=self.centre[:count], pixels=self.pixels[:count])


def cut_windows(strip: Raster, size: int, step: int | None = None, most: int = MOST) -> Windows:
    """Windows of `size` pixels that cover a strip, spread evenly; those with much nodata are left out.

    Parameters
    ----------
    strip
        SAR.
    size
        Side of a window in pixels.
    step
        Pixels from one window to the next, at most; `size` by default.
    most
        Windows that are kept.

    Raises
    ------
    ValueError
        Where the strip is smaller than a window, or all of them hold nodata.
    """
    step = whole_number("step", size if step is None else step)
    row0, col0, row1, col1 = strip.bounds
    if whole_number("size", size, LEAST) > min(row1 - row0, col1 - col0):
        raise ValueError(f"strip {strip.name!r} is {row1 - row0} x {col1 - col0} px, less than a window of {size} px")
    starts = []
    for low, high in ((row0, row1), (col0, col1)):
        room = high - low - size
        count = 1 + (math.ceil(room / step) if step < size else room // step)
        starts.append(low + np.linspace(0, room, count) if count > 1 else np.array([low + room / 2]))
    rows, cols = (np.round(s).astype(int) for s in starts)
    row, col = (a.ravel() for a in np.meshgrid(rows, cols, indexing="ij" if row1 - row0 >= col1 - col0 else "xy"))
    if len(row) > most:
        chosen = np.linspace(0, len(row) - 1, most).round().astype(int)
        row, col = row[chosen], col[chosen]
    kept, filled = [], []
    for r, c in zip(row, col, strict=True):
        pixels = strip.read(int(r), int(c), size, size, fill=np.nan)
        hole = ~np.isfinite(pixels).all(0)
        if hole.mean() <= HOLES:
            pixels[:, hole] = np.nanmean(pixels[:, ~hole], 1, keepdims=True)
            kept.append((r, c))
            filled.append(torch.from_numpy(pixels))
    if not kept:
        raise ValueError(f"strip {strip.name!r}: in each of its {len(row)} windows of {size} px there is nodata")
    made_of = torch.stack(filled)
    images = to_input(made_of, strip.scale, None, strip.window)
    return Windows(images, np.array(kept) + size / 2.0, made_of, strip.scale, strip.window)


def contrast(images: Tensor) -> NDArray[np.float64]:
    """Standard deviation in decibels of each image `(W,)` after multi-looking: what there is to see in it."""
    power = F.avg_pool2d(10 ** (images.mean(1, keepdim=True) / 10), LOOKS)
    return (10 * torch.log10(power.clamp(min=1e-12))).flatten(1).std(1).double().numpy()


def posed_features(encoder: Encoder, windows: Windows, pose: Pose, level: int = 0) -> tuple[Tensor, Tensor | None]:
    """Features `(W, C, h, w)` of windows of a pose, north up, and how much each cell counts; None where all do.

    `level` counts the encoder's levels, the finest first. An encoder of images of one size is given those: of a turned
    window the middle, mirrored beyond its edges, and all it makes of that counts.
    """
    size = encoder.inputs["query"].image_size
    images = windows.images if size is None else windows.pixels
    stride = max(encoder.levels) if level else encoder.levels[0]
    if pose == (0.0, 1.0):
        upright, inside = images, None
    else:
        upright, inside = turned(images, pose, stride, None if size is None else tuple(images.shape[2:]))
    if size is not None:
        upright = to_input(upright, windows.scale, size, windows.window)
    device = device_of(encoder)
    with in_use(encoder):
        parts = [encoder.forward_levels(part.to(device), "query")[level].float().cpu() for part in upright.split(16)]
    features = torch.cat(parts)
    if inside is None or size is not None:
        return features, None
    mask = F.avg_pool2d(inside.float()[None], encoder.levels[level])
    return features, mask.expand(len(features), -1, -1)


def offsets(centre: NDArray, pose: Pose) -> NDArray[np.float64]:
    """Rows and columns `(W, 2)` on a north-up map of places in a strip of a pose, in pixels of the map.

    A pose's heading is where the strip's top points, clockwise from north; its scale how much larger its pixels are.
    """
    turn = math.radians(pose.heading)
    cos, sin = math.cos(turn) * pose.scale, math.sin(turn) * pose.scale
    down, right = np.asarray(centre, np.float64).T
    return np.stack([down * cos + right * sin, right * cos - down * sin], 1)


def poses(headings: tuple[float, ...], scales: tuple[float, ...]) -> Iterator[Pose]:
    """All poses of some headings and scales."""
    for heading in headings:
        for scale in scales:
            yield Pose(heading % 360, scale)
