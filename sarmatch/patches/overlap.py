"""How much ground two square windows share."""

import numpy as np
from scipy.spatial import cKDTree


def overlap(a: np.ndarray, b: np.ndarray, size: float) -> np.ndarray:
    """Shared ground of equal squares, as a share of one square.

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


def overlapping_references(
    query: np.ndarray, reference: np.ndarray, size: float, stride: float
) -> tuple[np.ndarray, np.ndarray]:
    """All references that share ground with each query, most shared first.

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
