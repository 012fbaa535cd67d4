"""How much two square windows overlap."""

import numpy as np
from scipy.spatial import cKDTree


def overlap(a: np.ndarray, b: np.ndarray, size: float) -> np.ndarray:
    """Overlap of equal squares, as a fraction of one square.

    `o = (1 - |drow| / size) (1 - |dcol| / size)`, 0 where they do not touch (VIGOR, Zhu et al., CVPR 2021).

    Parameters
    ----------
    a, b
        Corners (or centres) `(..., 2)`, broadcast against each other, in the unit of `size`.
    size
        Side of the squares.

    Returns
    -------
    ndarray `(...)` in [0, 1].

    Examples
    --------
    >>> float(overlap(np.array([0, 0]), np.array([50, 100]), 200))
    0.375
    """
    shares = np.clip(1 - np.abs(np.asarray(a, dtype=np.float64) - b) / size, 0, None)
    return shares[..., 0] * shares[..., 1]


def iou(share: np.ndarray) -> np.ndarray:
    """Intersection over union of equal squares from their overlap: `o / (2 - o)`."""
    return np.asarray(share) / (2 - np.asarray(share))


def best_overlap(size: float, stride: float) -> dict[str, float]:
    """What the best tile of a seamless grid holds of a query that lies anywhere, in closed form.

    The offset from the best tile is uniform within half a stride in both directions, and so is the overlap in each
    side. The four tiles around the query lie within a whole stride: that bounds the last of them, the semi-positives.

    Parameters
    ----------
    size
        Side of query and tile.
    stride
        Step of the grid, at most `size`.

    Returns
    -------
    dict with `mean` and `min` of the overlap, the smallest intersection over union `iou_min`, and `semi_iou_min`, the
    smallest of any of the four tiles (VIGOR, Zhu et al., CVPR 2021: 0.39 and 0.14 at half a tile).

    Examples
    --------
    >>> {k: round(v, 3) for k, v in best_overlap(200, 100).items()}
    {'mean': 0.766, 'min': 0.562, 'iou_min': 0.391, 'semi_iou_min': 0.143}
    """
    if not 0 < stride <= size:
        raise ValueError(f"stride is {stride}, expected more than 0 and at most the size, {size}")
    least = (1 - stride / (2 * size)) ** 2
    semi = (1 - stride / size) ** 2
    return {
        "mean": (1 - stride / (4 * size)) ** 2,
        "min": least,
        "iou_min": float(iou(least)),
        "semi_iou_min": float(iou(semi)),
    }


def overlapping_references(
    query: np.ndarray, reference: np.ndarray, size: float, stride: float
) -> tuple[np.ndarray, np.ndarray]:
    """All references that overlap each query, largest overlap first.

    Parameters
    ----------
    query, reference
        Corners `(Q, 2)` and `(N, 2)` of equal squares on one grid.
    size
        Side of the squares.
    stride
        Distance of neighbouring references: bounds how many can overlap one query.

    Returns
    -------
    indices : int64 `(Q, M)`
        Rows of `reference`, padded with -1.
    shares : float64 `(Q, M)`
        The overlap of each, padded with 0.
    """
    width = min((2 * int(np.ceil(size / stride))) ** 2, len(reference))  # corners less than `size` away on each axis
    distance, indices = cKDTree(reference).query(query, k=width, p=np.inf, distance_upper_bound=size)
    indices, distance = indices.reshape(len(query), -1), distance.reshape(len(query), -1)
    found = np.isfinite(distance)
    indices = np.where(found, indices, 0)
    shares = np.where(found, overlap(np.asarray(query)[:, None], np.asarray(reference)[indices], size), 0.0)
    order = np.argsort(-shares, axis=1, kind="stable")
    indices, shares = np.take_along_axis(indices, order, 1), np.take_along_axis(shares, order, 1)
    return np.where(shares > 0, indices, -1), shares
