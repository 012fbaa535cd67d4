"""Tie points: small windows of a strip found again around where they should lie, and the affine that they agree on."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from torch import Tensor

from sarmatch.encoders import Encoder
from sarmatch.evaluation.registration import trimmed_fit
from sarmatch.localization.fusion import refined
from sarmatch.localization.windows import Windows, posed_features
from sarmatch.search import FeatureMap, surface
from sarmatch.search.turned import Pose

GOOD = 4.0  # cells within which a tie point agrees with the others


class Ties(NamedTuple):
    """Places of a strip `(N, 2)`, rows and columns in pixels, where they lie on the map `(N, 2)`, local metres, the
    correlation there `(N,)`, and which agree with the affine, bool `(N,)`."""

    at: NDArray[np.float64]
    xy: NDArray[np.float64]
    score: NDArray[np.float64]
    agrees: NDArray[np.bool_]


def tie_points(
    fmap: FeatureMap, encoder: Encoder, windows: Windows, pose: Pose, start: Affine, reach: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where windows lie on the map, looked for within `reach` cells of where an affine says.

    Parameters
    ----------
    fmap
        Of the map.
    encoder
        Makes features of the windows.
    windows, pose
        Of the strip.
    start
        Pixels `(column, row)` of the strip to local metres.
    reach
        Cells.

    Returns
    -------
    Local metres `(W, 2)` and correlation `(W,)`; not a number where a window leaves the map or shows no peak inside.
    """
    features, masks = posed_features(encoder, windows, pose)
    xy, score = np.full((len(features), 2), np.nan), np.full(len(features), np.nan)
    for i, (row, col) in enumerate(windows.centre):
        x, y = start @ (col, row)
        mask = None if masks is None else masks[i]
        xy[i], score[i] = _found(fmap, features[i], mask, (x, y), reach)
    return xy, score


def _found(
    fmap: FeatureMap, query: Tensor, mask: Tensor | None, at: tuple[float, float], reach: int
) -> tuple[NDArray[np.float64], float]:
    """The peak of a query around a place: its centre in metres and its score; not a number where there is none."""
    nothing = np.full(2, np.nan), np.nan
    height, width = query.shape[1:]
    top, left = fmap.corner[1] - at[1], at[0] - fmap.corner[0]
    row, col = round(top / fmap.metres - height / 2) - reach, round(left / fmap.metres - width / 2) - reach
    high, wide = height + 2 * reach, width + 2 * reach
    if min(row, col) < 0 or row + high > fmap.features.shape[1] or col + wide > fmap.features.shape[2]:
        return nothing
    scores = surface(fmap.part(slice(row, row + high), slice(col, col + wide)), query, mask).numpy()
    r, c = np.unravel_index(int(scores.argmax()), scores.shape)
    if not (0 < r < 2 * reach and 0 < c < 2 * reach):  # a peak on the rim lies elsewhere
        return nothing
    down, right = refined(scores, int(r), int(c))
    return fmap.metres_of(row + down + height / 2, col + right + width / 2), float(scores[r, c])


def fitted(at: NDArray, xy: NDArray, score: NDArray, start: Affine, near_m: float) -> tuple[Affine, Ties, float]:
    """The affine of a strip from tie points, by least squares without those that lie far from it.

    Parameters
    ----------
    at, xy, score
        Tie points, see `Ties`; rows that are not a number are left out.
    start
        Pixels `(column, row)` to metres, to begin with; kept where too few tie points agree.
    near_m
        Metres within which a tie point agrees.

    Returns
    -------
    The affine, the tie points, and the root mean square of what is left of those that agree, metres; not a number
    where `start` is kept.
    """
    known = np.isfinite(score)
    at, xy, score = at[known], xy[known], score[known]
    if not len(at):
        return start, Ties(at, xy, score, np.zeros(0, bool)), np.nan
    col, row = at[:, 1], at[:, 0]
    moved = xy - np.stack(start @ (col, row), 1)
    middle, spread = at.mean(0), max(float(np.ptp(at)), 1.0)
    terms = np.column_stack([np.ones(len(at)), (at - middle) / spread])
    left = np.linalg.norm(moved, axis=1)
    # displaced as a whole at first: what differs from the median displacement is no tie point of this strip
    near = np.linalg.norm(moved - np.median(moved, axis=0), axis=1) <= 2 * near_m
    fit, left = trimmed_fit(terms, moved, near, left)
    if fit is None or (left <= near_m).sum() < 6:
        return start, Ties(at, xy, score, left <= near_m), np.nan
    (x0, y0), (xr, yr), (xc, yc) = fit[0], fit[1] / spread, fit[2] / spread
    x0, y0 = x0 - xr * middle[0] - xc * middle[1], y0 - yr * middle[0] - yc * middle[1]
    affine = Affine(start.a + xc, start.b + xr, start.c + x0, start.d + yc, start.e + yr, start.f + y0)
    agrees = left <= near_m
    return affine, Ties(at, xy, score, agrees), float(np.sqrt(np.mean(left[agrees] ** 2)))
