"""Correlation of a query with the map around each candidate, over all shifts: the pixels have a say.

Channel features of oriented gradients (CFOG; Ye et al., IEEE TGRS 57, 2019), correlated in the Fourier domain. Those
of the map are made once; windows of them are cut where candidates lie.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from torch import Tensor

from sarmatch.encoders.cfog import cfog
from sarmatch.patches import GreyMap
from sarmatch.progress import progress
from sarmatch.refinement.context import RefinementContext
from sarmatch.search import Candidates

PAIRS = 256  # of query and candidate that are correlated at once
SHARING = 64  # queries whose windows are transformed together, each once
REACH = 4  # pixels that a feature sees to either side


def map_features(grey: GreyMap) -> Tensor:
    """CFOG of a map `(9, H, W)`, zero where a feature would see beyond the data."""
    features = cfog(torch.from_numpy(grey.image)[None])[0]
    if grey.valid is None:
        return features
    return features * torch.from_numpy(binary_erosion(grey.valid, iterations=REACH, border_value=1))


class Windows(NamedTuple):
    """Windows of a map's features: which of them each candidate looks at, and how far off its middle that is."""

    spectrum: Tensor  # complex (W, 9, 2r, r + 1)
    length: Tensor  # (W, r + 1, r + 1), of the features under the query at every shift
    of: Tensor  # int (Q, K), row of the window of each candidate
    off: NDArray[np.float64]  # (Q, K, 2), metres from where a window is centred to its candidate


def surfaces(
    candidates: Candidates, context: RefinementContext, resolution: int = 50
) -> Iterator[tuple[Tensor, NDArray[np.float64]]]:
    """Correlation of every query with the map around each of its candidates.

    Parameters
    ----------
    candidates
        Lists of K.
    context
        With `pixels`.
    resolution
        Pixels per tile, r.

    Yields
    ------
    For some queries after others, float32 `(B, K, r + 1, r + 1)`: the cosine of the query's channels and those of the
    window that lies shifted by `(row - r // 2, column - r // 2)` pixels from the candidate, each less its mean, -1 to
    1; and `(B, K, 2)`: metres by which the middle of a window misses its candidate, less than half a pixel on a grid.

    Raises
    ------
    ValueError
        Where the context holds no pixels.
    """
    context.check(candidates, ("pixels", "metres"), "correlation")
    query = _centred(cfog(context.pixels.queries(resolution)))
    own = query.square().sum((1, 2, 3)).clamp(min=1e-6).sqrt()
    cut = _Cutter(context, candidates.areas, resolution)
    count, k = candidates.scores.shape
    shape = (2 * resolution, 2 * resolution)
    bar = progress(total=count, desc="correlation", unit="query")
    for some in torch.arange(count).split(SHARING):
        windows = cut(candidates.rows(some.numpy()))
        waves = torch.fft.rfft2(F.pad(query[some], (0, resolution, 0, resolution))).conj()
        for few in torch.arange(len(some)).split(max(1, PAIRS // max(1, k))):
            listed = windows.of[few]
            product = torch.einsum("qchw,qkchw->qkhw", waves[few], windows.spectrum[listed])
            product = torch.fft.irfft2(product, s=shape)[..., : resolution + 1, : resolution + 1]
            yield product / (windows.length[listed] * own[some[few], None, None, None]), windows.off[few.numpy()]
            bar.update(len(few))
    bar.close()


class _Cutter:
    """Cuts windows of twice a tile's width around candidates, each place once, from features that are made once."""

    def __init__(self, context: RefinementContext, areas: tuple[str, ...], resolution: int) -> None:
        self.areas, self.resolution = areas, resolution
        self.kept = context.kept
        self.grey = cache(lambda area: context.pixels.map(area, resolution))
        box = torch.zeros(2 * resolution, 2 * resolution)
        box[:resolution, :resolution] = 1
        self.box = torch.fft.rfft2(box).conj()

    def __call__(self, candidates: Candidates) -> Windows:
        r, xy = self.resolution, candidates.xy
        corner, off = np.empty(xy.shape, np.int64), np.empty(xy.shape)
        for code in np.unique(candidates.area):
            here = candidates.area == code
            grey = self.grey(self.areas[code])
            exact = grey.pixel_of(xy[here]) - r / 2  # top left of a query centred there
            corner[here] = np.round(exact)
            off[here] = (exact - corner[here])[:, ::-1] * (grey.metres, -grey.metres)
        keys = np.concatenate([candidates.area[..., None], corner], -1).reshape(-1, 3)
        places, of = np.unique(keys, axis=0, return_inverse=True)
        windows = torch.stack([self._window(*place) for place in places])
        features = _centred(windows)
        spectrum = torch.fft.rfft2(features)
        energy = torch.fft.irfft2(torch.fft.rfft2(features.square().sum(1)) * self.box, s=(2 * r, 2 * r))
        length = energy[:, : r + 1, : r + 1].clamp(min=1e-6).sqrt()
        return Windows(spectrum, length, torch.from_numpy(of.reshape(corner.shape[:2])), off)

    def features(self, area: str) -> Tensor:
        """Features of an area's map, with a query's width on all sides: a window may hang over its edge."""
        key = "map features", area, self.resolution
        if key not in self.kept:
            self.kept[key] = F.pad(map_features(self.grey(area)), [2 * self.resolution] * 4)
        return self.kept[key]

    def _window(self, code: int, row: int, col: int) -> Tensor:
        r, features = self.resolution, self.features(self.areas[code])
        height, width = features.shape[1:]
        top = int(np.clip(row - r // 2 + 2 * r, 0, height - 2 * r))  # whoever lies far beside the map sees its edge
        left = int(np.clip(col - r // 2 + 2 * r, 0, width - 2 * r))
        return features[:, top : top + 2 * r, left : left + 2 * r]


def _centred(features: Tensor) -> Tensor:
    """Features `(B, C, H, W)` less the mean of each channel."""
    return features - features.mean((2, 3), keepdim=True)


def peaks(surface: Tensor, tile_m: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Highest value of each surface `(..., S, S)` and where it lies.

    Returns
    -------
    values float32 `(...)`, and offsets float64 `(..., 2)` in metres east and north of the middle, refined within the
    pixel by a parabola through the neighbours of the peak.
    """
    side = surface.shape[-1]
    flat = surface.flatten(0, -3) if surface.ndim > 2 else surface[None]
    value, at = flat.flatten(1).max(1)
    row, column = at // side, at % side
    pixel = tile_m / (side - 1)
    each = torch.arange(len(flat))

    def between(axis_row: int, axis_column: int) -> Tensor:
        before = flat[each, (row - axis_row).clamp(0, side - 1), (column - axis_column).clamp(0, side - 1)]
        after = flat[each, (row + axis_row).clamp(0, side - 1), (column + axis_column).clamp(0, side - 1)]
        bend = 2 * value - before - after
        line = row if axis_row else column
        known = (bend > 1e-9) & (line > 0) & (line < side - 1)  # on the rim one neighbour is missing
        return torch.where(known, 0.5 * (after - before) / bend.clamp(min=1e-9), 0.0).clamp(-0.5, 0.5)

    middle = (side - 1) // 2  # no shift, for odd resolutions too: they have an even side
    north = -(row + between(1, 0) - middle).double() * pixel
    east = (column + between(0, 1) - middle).double() * pixel
    shape = surface.shape[:-2]
    return value.view(shape).numpy(), torch.stack([east, north], -1).view(*shape, 2).numpy()
