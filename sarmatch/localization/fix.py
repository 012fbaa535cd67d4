"""The fix of a strip: windows searched everywhere, fused, and registered by tie points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine

from sarmatch.encoders import Encoder
from sarmatch.localization.fusion import (
    Crowd,
    Likelihood,
    Posterior,
    Surface,
    around,
    crowd,
    diffused,
    fuse,
    log_likelihood,
    log_sum,
    near_prior,
    posterior_of,
    track,
)
from sarmatch.localization.ties import GOOD, Ties, fitted, tie_points
from sarmatch.localization.windows import Windows, offsets, posed_features
from sarmatch.progress import progress
from sarmatch.search import DenseGallery, DenseSearch, FeatureMap, galleries_dir
from sarmatch.search.correlate import BUDGET
from sarmatch.search.turned import FINER, Pose

NEAR_M = 25.0  # metres about the best place whose probability is that of the fix, three cells where they are large
NEAR_CELLS = 3
RUNNERS_UP = 5
APART = 2  # times that between runners-up on one of the axes
TRIED = 3  # poses of a screening that are looked at again
TIE = 4  # cells within which tie points are looked for, and the drift beyond them
SCORES = 1 << 25  # of all windows together that are fused at once: a larger map is fused part by part
NORTH_UP = (Pose(0.0, 1.0),)


class Near(NamedTuple):
    """Local metres `(x, y)` near which a strip is said to lie, and within how many metres (95 %)."""

    xy: tuple[float, float]
    radius_m: float


class Fused(NamedTuple):
    """What the windows of a strip say in one pose: how large they are in cells, their scores at every place of the map
    `(W, H, W)`, steps of each in cells `(W, 2)`, what their likelihoods need of all their scores, the belief about the
    middle one, float32, and how much likelier it is than chance (log)."""

    pose: Pose
    size: tuple[int, ...]
    scores: NDArray[np.float32]
    steps: NDArray[np.int64]
    crowds: list[Crowd]
    belief: NDArray[np.float32]
    evidence: float


@dataclass(frozen=True, eq=False)
class Fix:
    """Where a strip lies, and how sure that is.

    Attributes
    ----------
    posterior : Posterior
        Over places of the middle window on `fmap`.
    fmap : FeatureMap
        The map it was searched on.
    pose : Pose
        Heading and scale that it was found at.
    origin : (float, float)
        Local metres of the middle window's centre where the posterior's cell `(0, 0)` is its place.
    place : float64 (2,)
        Local metres of the middle window's centre, the best place.
    probability : float
        That it lies within `near_m` of it.
    near_m : float
        Metres, 25 or three cells.
    runners_up : float64 (K, 3)
        Local metres of other places and their probability.
    centre : float64 (W, 2)
        Centres of the windows in the strip, pixels.
    track : float64 (W, 2)
        Their likeliest places, local metres: Viterbi's.
    agrees : bool (W,)
        Which windows speak for it.
    affine : Affine
        Pixels `(column, row)` of the strip to local metres.
    ties : Ties
        The tie points it was fitted to.
    ties_rms : float
        Metres that are left of them; not a number where too few agree, and the affine is that of the track.
    """

    posterior: Posterior
    fmap: FeatureMap
    pose: Pose
    origin: tuple[float, float]
    place: NDArray[np.float64]
    probability: float
    near_m: float
    runners_up: NDArray[np.float64]
    centre: NDArray[np.float64]
    track: NDArray[np.float64]
    agrees: NDArray[np.bool_]
    affine: Affine
    ties: Ties
    ties_rms: float

    @property
    def on_map(self) -> bool:
        """Whether it lies on this map, rather than not."""
        return self.posterior.absent < 0.5

    @property
    def cell(self) -> float:
        """Metres along the side of a cell of the posterior."""
        return self.fmap.metres

    def metres_of(self, cells: NDArray) -> NDArray[np.float64]:
        """Cells of the posterior `(..., 2)`, rows and columns, to local metres."""
        row, col = np.moveaxis(np.asarray(cells, np.float64), -1, 0)
        return np.stack([self.origin[0] + col * self.cell, self.origin[1] - row * self.cell], -1)


def windows_fused(
    search: DenseSearch, encoder: Encoder, windows: Windows, pose: Pose, model: Likelihood, level: int = 0
) -> Fused:
    """Windows of a pose compared with every place of the map, and fused.

    Parameters
    ----------
    search
        Over the one map, of the level of the encoder that `level` counts.
    encoder, windows, pose
        What is compared.
    model
        Of the likelihood.
    """
    (fmap,) = search.gallery.maps.values()
    features, masks = posed_features(encoder, windows, pose, level)
    shape = tuple(n - k + 1 for n, k in zip(fmap.features.shape[1:], features.shape[2:], strict=True))
    if min(shape) < 1:
        raise ValueError(f"windows of {tuple(features.shape[2:])} cells do not fit into a map of fewer cells")
    scores = next(search.surfaces(features, masks, galleries_dir())).numpy()
    crowds = [crowd(s, model) for s in scores]
    middle = len(features) // 2
    moved = offsets(windows.centre, pose) / encoder.levels[level]
    steps = np.round(moved - moved[middle]).astype(np.int64)
    drift = model.drift / fmap.metres
    halo = len(features) * around(drift)
    belief = np.empty(shape, np.float32)
    fused = Fused(pose, tuple(features.shape[2:]), scores, steps, crowds, belief, -math.inf)
    side = math.isqrt(SCORES // len(features))
    for rows, cols in product(_pieces(shape[0], side), _pieces(shape[1], side)):
        wide = slice(max(0, rows.start - halo), rows.stop + halo), slice(max(0, cols.start - halo), cols.stop + halo)
        levels = levels_of(fused, model, *wide)
        inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip((rows, cols), wide, strict=True))
        belief[rows, cols] = fuse(levels, drift)[inner]
    return fused._replace(evidence=log_sum(belief) - math.log(belief.size))


def levels_of(fused: Fused, model: Likelihood, rows: slice, cols: slice) -> list[Surface]:
    """Log-likelihoods of a strip's windows, laid over one another, at places of the middle one in a part of a map."""
    shape = np.array(fused.belief.shape)
    rows, cols = (slice(s.start, min(s.stop, n)) for s, n in zip((rows, cols), shape, strict=True))
    start, size = (rows.start, cols.start), (rows.stop - rows.start, cols.stop - cols.start)
    found = []
    for level, at, whole in zip(fused.scores, fused.steps + start, fused.crowds, strict=True):
        out = np.full(size, math.log(model.outliers), np.float32)
        first = np.clip(-at, 0, size)  # of `out`, that any score is known of
        last = np.clip(shape - at, first, size)
        taken = tuple(slice(*ends) for ends in zip(first + at, last + at, strict=True))
        out[first[0] : last[0], first[1] : last[1]] = log_likelihood(level[taken], model, whole)
        found.append(out)
    return found


def _pieces(count: int, side: int) -> list[slice]:
    """Places `0 .. count` in pieces of `side` at most, as even as can be."""
    ends = np.linspace(0, count, -(-count // side) + 1).round().astype(int)
    return [slice(a, b) for a, b in pairwise(ends.tolist())]


def best_pose(
    gallery: DenseGallery, encoder: Encoder, windows: Windows, poses: Sequence[Pose], model: Likelihood
) -> Fused:
    """The pose for which the windows speak most; of many, all are screened on the coarse map where there is one.

    The best `TRIED` of a screening are looked at again on the fine map, each at some headings about its own.
    """
    many = len(poses) > 1  # nobody asks twice for what is kept of one pose
    fine = DenseSearch(gallery, encoder, budget=BUDGET if many else 0)
    if len(poses) > TRIED and gallery.coarse is not None:
        coarse = DenseSearch(gallery.coarse, encoder)
        said = progress(poses, desc="headings", unit="pose")
        screened = [(windows_fused(coarse, encoder, windows, p, model, level=1).evidence, p) for p in said]
        best = [pose for _, pose in sorted(screened, reverse=True)[:TRIED]]
        poses = [Pose((p.heading + more) % 360, p.scale) for p in best for more in FINER]
    found: Fused | None = None
    for pose in progress(list(poses), desc="windows on the map", unit="pose"):
        fused = windows_fused(fine, encoder, windows, pose, model)
        if found is None or fused.evidence > found.evidence:
            found = fused
    return found


def find_strip(
    gallery: DenseGallery,
    encoder: Encoder,
    windows: Windows,
    model: Likelihood,
    poses: Sequence[Pose] = NORTH_UP,
    near: Near | None = None,
    small: Windows | None = None,
) -> Fix:
    """Where the windows of a strip lie on a map.

    Parameters
    ----------
    gallery
        Feature maps of the one map.
    encoder
        They were made with.
    windows
        Of the strip, north up if it is read in a pose of heading 0.
    model
        Of the likelihood, see `Likelihood`.
    poses
        Headings and scales that are tried.
    near
        Where somebody says that the middle window lies, a cell's width at least: see `near_prior`.
    small
        Smaller windows that become tie points; without them the affine is that of the track.

    Raises
    ------
    ValueError
        Where the map is smaller than a window, or there are several maps.
    """
    if len(gallery.maps) != 1:
        raise ValueError(f"a strip is looked for on one map, got {len(gallery.maps)}: {gallery.areas}")
    (fmap,) = gallery.maps.values()
    fused = best_pose(gallery, encoder, windows, poses, model)
    half = np.array(fused.size) / 2
    origin = tuple(fmap.metres_of(*half))
    prior = None if near is None else _prior(near, fused.belief.shape, origin, fmap.metres)
    posterior = posterior_of(diffused(fused.belief, model.spread / fmap.metres), model, prior)
    about = max(NEAR_M / fmap.metres, NEAR_CELLS)
    peaks = posterior.peaks(1 + RUNNERS_UP, round(APART * about))
    cells, agrees = _track(fused, peaks.at[0], model, model.drift / fmap.metres)
    places = fmap.metres_of(*(cells + half).T)
    # cells of whole windows are too coarse to say how a strip is turned
    start = _start(windows.centre, places, fused.pose, fmap.metres / encoder.levels[0], turns=max(fused.size) > 1)
    affine, ties, rms = start, Ties(*(np.zeros((0, 2)),) * 2, np.zeros(0), np.zeros(0, bool)), math.nan
    if small is not None:
        reach = math.ceil(TIE + model.drift / fmap.metres)
        xy, score = tie_points(fmap, encoder, small, fused.pose, start, reach)
        affine, ties, rms = fitted(small.centre, xy, score, start, GOOD * fmap.metres)
    listed = fmap.metres_of(*(peaks.at + half).T)
    return Fix(
        posterior,
        fmap,
        fused.pose,
        origin,
        listed[0],
        posterior.within(peaks.at[0], about),
        about * fmap.metres,
        np.column_stack([listed[1:], peaks.mass[1:]]),
        windows.centre,
        places,
        agrees,
        affine,
        ties,
        rms,
    )


def _track(
    fused: Fused, best: NDArray, model: Likelihood, drift: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cells of the windows along the likeliest track through a place, and which of them speak for it."""
    reach = math.ceil(3 * drift * math.sqrt(len(fused.steps))) + 2
    row, col = np.round(best).astype(int)
    top, left = max(0, row - reach), max(0, col - reach)
    parts = levels_of(fused, model, slice(top, row + reach + 1), slice(left, col + reach + 1))
    cells = track(parts, drift)
    agrees = np.array([part[tuple(cell)] > 0 for part, cell in zip(parts, cells, strict=True)])
    return cells + (top, left) + fused.steps, agrees


def _prior(near: Near, shape: tuple[int, ...], origin: NDArray, cell: float) -> Surface:
    """Log-probability of places of the middle window `(H, W)`, the first of which lies at `origin`."""
    (east, north), (x, y) = near.xy, origin
    at = np.clip([(y - north) / cell, (east - x) / cell], 0, np.array(shape) - 1)  # a window lies wholly on the map
    return near_prior(shape, at, max(near.radius_m / cell, 1.0))


def _start(centre: NDArray, places: NDArray, pose: Pose, pixel: float, turns: bool) -> Affine:
    """Pixels `(column, row)` of a strip to metres from its pose and the track of its windows.

    The pose says how it is turned and scaled; where there are three windows or more, the track turns and scales it
    further, if it `turns` it at all: a similarity, by least squares.
    """
    moved = offsets(centre, pose) * pixel
    given = moved[:, 1] - 1j * moved[:, 0]  # east and north as one complex number
    found = places[:, 0] + 1j * places[:, 1]
    turn = 1.0 + 0j
    if turns and len(centre) >= 3:
        off = given - given.mean()
        turn = (off.conj() * (found - found.mean())).sum() / (np.abs(off) ** 2).sum()
    corners = offsets(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), pose) * pixel
    origin, right, down = turn * (corners[:, 1] - 1j * corners[:, 0]) + found.mean() - turn * given.mean()
    right, down = right - origin, down - origin
    return Affine(right.real, down.real, origin.real, right.imag, down.imag, origin.imag)
