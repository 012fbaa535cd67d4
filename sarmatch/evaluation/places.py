"""How good candidates for a place are, whatever found them: one rule for tiles and peaks. No model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sarmatch.evaluation.metrics import THRESHOLDS, error_summary, localization_errors

if TYPE_CHECKING:
    from sarmatch.search import Candidates

EDGE = 1e-6  # tile widths by which a place may lie over the edge of the tile it is said to be in


def tiles_of_places(candidates: "Candidates", tiles: pd.DataFrame, tile_m: float) -> NDArray[np.int64]:
    """The tile that each candidate's place lies on, `(Q, K)` rows of `tiles`; -1 for one that lies on none.

    Of several tiles it is the one with the nearest centre, which is the one that a patch there overlaps most. On the
    edge between two it is the candidate's own, where it comes from a tile. Where the set has no coordinates, candidates
    are their tiles.
    """
    if candidates.places is None:
        if candidates.tile is None:
            raise ValueError("these candidates have neither places nor tiles: nothing says which tile they lie on")
        return np.where(candidates.valid, candidates.tile, -1)
    found = np.full(candidates.scores.shape, -1, np.int64)
    distance = np.full(candidates.scores.shape, np.inf)  # from the nearest centre, tile widths
    centres, area = tiles[["x", "y"]].to_numpy(), tiles["area"].to_numpy()
    for code, name in enumerate(candidates.areas):
        rows = np.flatnonzero(area == name)
        here = candidates.valid & (candidates.area == code)
        if not len(rows) or not here.any():
            continue
        xy = candidates.places[here]
        nearest = rows[cKDTree(centres[rows]).query(xy)[1]]
        found[here] = np.where(_apart(xy, centres[nearest], tile_m) <= 0.5 + EDGE, nearest, -1)
        distance[here] = np.linalg.norm(xy - centres[nearest], axis=-1) / tile_m
    if candidates.tile is None:
        return found
    own = np.where(candidates.valid, candidates.tile, 0)
    inside = candidates.valid & (_apart(candidates.places, centres[own], tile_m) <= 0.5 + EDGE)
    # where tiles overlap, several hold a place: its own does only where no other is nearer
    inside &= np.linalg.norm(candidates.places - centres[own], axis=-1) / tile_m <= distance + 3 * EDGE
    return np.where(inside, own, found)


def list_ranks(tile: NDArray, scores: NDArray, positive: NDArray, gallery: int) -> NDArray[np.int64]:
    """Place of the true tile in lists `(Q,)` from 0, ties against us; `gallery` where it is in none.

    Parameters
    ----------
    tile, scores
        `(Q, K)`: the tile each candidate lies on, see `tiles_of_places`, and its score.
    positive
        `(Q,)` rows of the true tiles.
    gallery
        Number of tiles.
    """
    found = tile == np.asarray(positive)[:, None]
    own = np.where(found, scores, -np.inf).max(1)
    ahead = ((scores >= own[:, None]) & ~found).sum(1)
    return np.where(found.any(1), ahead, gallery)


def candidate_report(
    candidates: "Candidates",
    positive: NDArray,
    tiles: pd.DataFrame,
    tile_m: float | None = None,
    query_xy: NDArray | None = None,
    ks: Sequence[int] = (1, 5, 10),
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, float]:
    """All numbers of candidate lists, the same columns for every scene and for every search.

    Parameters
    ----------
    candidates
        Lists of K.
    positive
        `(Q,)`, the tile that each query lies on.
    tiles, tile_m
        The gallery's tiles, and their side in metres.
    query_xy
        `(Q, 2)` metres, where queries lie; without them there are no errors in metres.
    ks, thresholds
        Of recall, and metres.

    Returns
    -------
    dict
        ``queries``, ``gallery``, ``k`` (length of the lists), ``oracle`` (fraction of lists that hold the truth),
        ``recall@1`` and so on, each with ``..._chance``; and, with places, the keys of `error_summary`: of the first.
    """
    gallery = len(tiles)
    tile = tiles_of_places(candidates, tiles, tile_m or np.inf)
    # what fills a list up is not ahead of anybody, whatever its score
    rank = list_ranks(tile, np.where(candidates.valid, candidates.scores, -np.inf), positive, gallery)
    report: dict[str, float] = {"queries": len(candidates), "gallery": gallery, "k": candidates.scores.shape[1]}
    report["oracle"] = float((tile == np.asarray(positive)[:, None]).any(1).mean())
    for k in ks:
        report |= {f"recall@{k}": float((rank < k).mean()), f"recall@{k}_chance": min(k / gallery, 1.0)}
    if query_xy is not None:
        report |= error_summary(localization_errors(candidates.xy[:, 0], query_xy), thresholds, tile_m)
    return report


def _apart(xy: NDArray, centre: NDArray, tile_m: float) -> NDArray[np.float64]:
    """Larger of the two distances along the axes, in tile widths."""
    return np.abs(xy - centre).max(-1) / tile_m
