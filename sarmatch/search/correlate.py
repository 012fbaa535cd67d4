"""Correlation of queries' feature maps with a whole map's, over all shifts: blocks in the Fourier domain.

Weighted zero-mean normalised cross-correlation over all channels together. With `q` the query's features less their
weighted mean per channel, a window `f` of the map under it, and the query's mask `m`, weights from 0 to 1:

    score = sum m q f / (sqrt(sum m q^2) sqrt(sum m f^2 - sum_c (sum m f_c)^2 / sum m))

which needs no mean of the window in the numerator, as that of `m q` is zero (Lewis, Vision Interface, 1995). Where the
map says that its features are not to be centred, no mean is taken off on either side, and the score is the cosine
`sum m q f / (sqrt(sum m q^2) sqrt(sum m f^2))`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

BLOCK = 512  # cells along the side of a block that is transformed at once
LEAST = 0.5  # of a window's cells that must lie on data
TINY = 1e-12  # keeps a division from one by zero
FLAT = 1e-4  # spread per cell of a window or query below which there is nothing to compare


class FeatureMap(NamedTuple):
    """What the map of an area has become under a dense encoder.

    `features` are `(C, H, W)`, 0 where there is no data; `valid` bool `(H, W)`, or None where all is data; `corner` the
    local metres `(x, y)` of the top left, `metres` the side of a cell; `centred` whether scores take off the means of
    query and window, see `Encoder.centred`.
    """

    features: Tensor
    valid: Tensor | None
    corner: tuple[float, float]
    metres: float
    centred: bool = True

    def metres_of(self, row: NDArray, col: NDArray) -> NDArray[np.float64]:
        """Cells (edges count from 0) to local metres `(..., 2)`."""
        x, y = self.corner
        return np.stack([x + np.asarray(col) * self.metres, y - np.asarray(row) * self.metres], -1)


class Block(NamedTuple):
    """Scores of some queries where their top left corner lies in a part of the map: `(B, n, m)` from `row`, `col`."""

    row: int
    col: int
    scores: Tensor


def prepared(queries: Tensor, masks: Tensor | None = None, centred: bool = True) -> Tensor:
    """Queries `(B, C, h, w)` as the numerator wants them: `m q / sqrt(sum m q^2)`; 0 for a query without any contrast.

    Parameters
    ----------
    queries
        Features.
    masks
        Weight of every cell, 0 to 1, `(B, h, w)`; 1 where there are none.
    centred
        Whether the weighted mean of each channel is taken off first.
    """
    masks = torch.ones(len(queries), 1, *queries.shape[2:]) if masks is None else masks[:, None].to(queries)
    weight = masks.sum((2, 3), keepdim=True).clamp(min=TINY)
    if centred:
        queries = queries - (queries * masks).sum((2, 3), keepdim=True) / weight
    length = (queries.square() * masks).sum((1, 2, 3), keepdim=True).sqrt()
    return queries * masks / length.clamp(min=TINY) * (length > FLAT * weight.sqrt())


def score_blocks(
    fmap: FeatureMap, queries: Tensor, masks: Tensor | None = None, margin: int = 0, block: int = BLOCK
) -> Iterator[Block]:
    """Scores of all shifts of all queries that lie on the map, block by block.

    Parameters
    ----------
    fmap
        The map.
    queries
        Features `(B, C, h, w)`, all of one size.
    masks
        How much each cell of a query counts, 0 to 1 or bool, `(B, h, w)`; all alike where there are none.
    margin
        Shifts by which neighbouring blocks overlap on each side, so that every shift is once inside with all its
        neighbours. Beyond the map, scores are minus infinity.
    block
        Cells that are transformed at once along each side, at most; raised where a query needs more.

    Yields
    ------
    Blocks, `margin` included on all sides: shifts from `row - margin`, `col - margin` on.
    """
    height, width = fmap.features.shape[1:]
    h, w = queries.shape[2:]
    if h > height or w > width:
        return
    steps, sides = zip(*(_parts(n - k + 1, k + 2 * margin, block) for n, k in ((height, h), (width, w))), strict=True)
    waves = torch.fft.rfft2(prepared(queries, masks, fmap.centred), s=sides).conj()
    frequencies = waves.shape[2:]
    waves = waves.flatten(2).permute(2, 0, 1).contiguous()  # one matrix (B, C) per frequency
    counts = _Counts(masks, queries, sides, fmap.centred)
    for row in range(0, height - h + 1, steps[0]):
        for col in range(0, width - w + 1, steps[1]):
            patch, inside = _cut(fmap, row - margin, col - margin, sides)
            spectrum = torch.fft.rfft2(patch)
            product = torch.bmm(waves, spectrum.flatten(1).T[..., None])[..., 0].T.reshape(-1, *frequencies)
            scores = counts.normalised(torch.fft.irfft2(product, s=sides), patch, spectrum, inside)
            high, wide = (
                min(s, n - k + 1 - at) for s, n, k, at in zip(steps, (height, width), (h, w), (row, col), strict=True)
            )
            yield Block(row, col, _bounded(scores, row, col, high, wide, margin, height - h, width - w))


def _parts(shifts: int, overhang: int, block: int) -> tuple[int, int]:
    """Shifts per block, as even as can be, and the side of a block that holds them: a length that transforms fast."""
    most = max(block - overhang + 1, overhang)
    step = -(-shifts // -(-shifts // most))
    return step, next_fast_len(step + overhang - 1, real=True)


class _Counts:
    """Length of the windows under the queries' masks: sums of the map's features and of their squares."""

    def __init__(self, masks: Tensor | None, queries: Tensor, sides: tuple[int, int], centred: bool) -> None:
        h, w = queries.shape[2:]
        unmasked = torch.ones(1, h, w) if masks is None else masks.to(queries)
        self.size, self.sides = unmasked.sum((1, 2)).clamp(min=TINY)[:, None, None], sides
        self.centred = centred
        self.waves = torch.fft.rfft2(unmasked, s=sides).conj()

    def normalised(self, product: Tensor, patch: Tensor, spectrum: Tensor, inside: Tensor | None) -> Tensor:
        """Scores `(B, ...)` of a block; minus infinity where a window has too little data or no contrast."""
        spread = self._sum(torch.fft.rfft2(patch.square().sum(0)))
        if self.centred:
            spread = spread - sum(self._sum(channel).square() for channel in spectrum) / self.size
        flat = spread < FLAT**2 * self.size
        scores = product / spread.clamp(min=1e-12).sqrt()
        scores = torch.where(flat.expand_as(scores), 0.0, scores)
        if inside is None:
            return scores
        data = self._sum(torch.fft.rfft2(inside.to(patch))) / self.size
        return torch.where((data < LEAST - 1e-4).expand_as(scores), -torch.inf, scores)

    def _sum(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(self.waves * spectrum, s=self.sides)


def _cut(fmap: FeatureMap, row: int, col: int, sides: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    """A block of the map in float32 and where it has data; zero beyond the map."""
    height, width = fmap.features.shape[1:]
    top, left, bottom, right = max(row, 0), max(col, 0), min(row + sides[0], height), min(col + sides[1], width)
    around = [left - col, col + sides[1] - right, top - row, row + sides[0] - bottom]
    patch = F.pad(fmap.features[:, top:bottom, left:right].float(), around)
    inside = None if fmap.valid is None else F.pad(fmap.valid[top:bottom, left:right], around)
    return patch, inside


def _bounded(
    scores: Tensor, row: int, col: int, high: int, wide: int, margin: int, last_row: int, last_col: int
) -> Tensor:
    """The shifts of a block with their margin; minus infinity for those that leave the map."""
    scores = scores[:, : high + 2 * margin, : wide + 2 * margin].clone()
    rows = torch.arange(row - margin, row - margin + scores.shape[1])
    cols = torch.arange(col - margin, col - margin + scores.shape[2])
    outside = ((rows < 0) | (rows > last_row))[:, None] | ((cols < 0) | (cols > last_col))[None]
    return scores.masked_fill_(outside, -torch.inf)


class Peaks(NamedTuple):
    """Highest scores of each query, best first: float32 `(B, K)`; where, float64 `(B, K, 2)`, rows and columns."""

    scores: Tensor
    at: Tensor


def find_peaks(block: Block, margin: int, k: int) -> Peaks:
    """The `k` highest local maxima of every query in the inside of a block, refined within the cell by parabolas.

    A local maximum is no lower than anything within `margin` shifts; of equal ones the first counts. Where there are
    fewer, scores are minus infinity.
    """
    scores = block.scores
    side = 2 * margin + 1
    highest = F.max_pool2d(F.max_pool2d(scores[:, None], (side, 1), 1), (1, side), 1)[:, 0]
    inside = scores[:, margin : scores.shape[1] - margin, margin : scores.shape[2] - margin]
    top = torch.where(inside >= highest, inside, -torch.inf)
    k = min(k, top[0].numel())
    value, flat = top.flatten(1).topk(k, dim=1)
    row, col = flat // top.shape[2], flat % top.shape[2]
    each = torch.arange(len(scores))[:, None].expand_as(row)

    def between(down: int, right: int) -> Tensor:
        r, c = row + margin, col + margin
        before, after = scores[each, r - down, c - right], scores[each, r + down, c + right]
        bend = 2 * value - before - after
        known = torch.isfinite(before) & torch.isfinite(after) & (bend > 1e-9)
        return torch.where(known, 0.5 * (after - before) / bend.clamp(min=1e-9), 0.0).clamp(-0.5, 0.5)

    at = torch.stack([block.row + row + between(1, 0).double(), block.col + col + between(0, 1).double()], -1)
    return Peaks(value, at)


def suppress(peaks: Peaks, radius: float, k: int) -> Peaks:
    """The `k` highest peaks of every query that lie `radius` cells or more from a higher one, on one of the axes.

    Local maxima are `radius + 1` shifts apart, and the parabola moves each by half a cell at most: only those of equal
    height that touch each other are left to suppress.
    """
    order = peaks.scores.argsort(dim=1, descending=True, stable=True)
    scores = peaks.scores.gather(1, order)
    at = peaks.at.gather(1, order[..., None].expand_as(peaks.at))
    near = (at[:, :, None] - at[:, None]).abs().amax(-1) < radius
    gone = ~torch.isfinite(scores)
    for i in range(scores.shape[1]):  # a peak that is gone suppresses nobody
        gone[:, i + 1 :] |= near[:, i, i + 1 :] & ~gone[:, i : i + 1]
    scores = scores.masked_fill(gone, -torch.inf)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return Peaks(scores.gather(1, order), at.gather(1, order[..., None].expand(-1, -1, 2)))
