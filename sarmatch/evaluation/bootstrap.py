"""Intervals that respect how queries are correlated: neighbours on the ground are resampled together."""

import numpy as np

from sarmatch.checks import whole_number


def block_ids(xy: np.ndarray, size_m: float) -> np.ndarray:
    """Number the square blocks of ground that positions fall in.

    Parameters
    ----------
    xy : array (Q, 2)
        Metres, x east and y north.
    size_m : float
        Side of a block, metres; 400 to 500 where queries overlap their neighbours.

    Returns
    -------
    int64 (Q,)
        From 0, without gaps.

    Raises
    ------
    ValueError
        If a position is missing or the size is not positive.
    """
    xy = np.asarray(xy, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or not np.isfinite(xy).all():
        raise ValueError(f"xy must be metres (Q, 2) without gaps, got {xy.shape}: has this set coordinates?")
    if not 0 < size_m < np.inf:
        raise ValueError(f"size_m must be a positive number of metres, got {size_m}")
    cells = np.floor(xy / size_m).astype(np.int64)
    return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def bootstrap_mean(
    values: np.ndarray, blocks: np.ndarray, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of per-query values with a percentile interval over resampled blocks.

    Each draw takes as many blocks as there are, with replacement, and averages the queries in them.

    Parameters
    ----------
    values : array (Q,)
        One value per query: a hit (bool), an error, a reciprocal rank.
    blocks : int array (Q,)
        Which queries stay together: `block_ids`, or the strip of each query.
    draws : int
        Number of resamplings.
    seed : int
        Of the draws; the same seed gives the same interval.
    level : float in (0, 1)
        Fraction of the draws that the interval holds.

    Returns
    -------
    (mean, low, high) : tuple of float

    Raises
    ------
    ValueError
        On shapes that do not fit, a value that is not finite, or fewer than two blocks.

    Notes
    -----
    Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993; for blocks, Davison and Hinkley,
    *Bootstrap Methods and their Application*, 1997. With few blocks (below about 20) the interval is too
    narrow.
    """
    values, blocks = np.asarray(values, dtype=np.float64), np.asarray(blocks)
    if values.ndim != 1 or len(values) == 0 or blocks.shape != values.shape:
        raise ValueError(f"values and blocks must be equally long vectors, got {values.shape} and {blocks.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"values must be finite, got {values[~np.isfinite(values)][0]}")
    whole_number("draws", draws)
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    names, block = np.unique(blocks, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"an interval needs at least 2 blocks, got {len(names)}")
    sums, counts = np.bincount(block, values), np.bincount(block)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    low, high = np.quantile(times @ sums / (times @ counts), ((1 - level) / 2, (1 + level) / 2))
    return float(values.mean()), float(low), float(high)


def bootstrap_difference(
    a: np.ndarray, b: np.ndarray, blocks: np.ndarray, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Paired difference ``mean(a) - mean(b)`` of two methods on the same queries, with an interval.

    Parameters
    ----------
    a, b : array (Q,)
        One value per query of the one and of the other method, in the same order.
    blocks, draws, seed, level
        As in `bootstrap_mean`.

    Returns
    -------
    (difference, low, high) : tuple of float
        The two differ beyond the sampling of ground where the interval leaves 0 out. Seeds are another
        matter.

    Raises
    ------
    ValueError
        As `bootstrap_mean`, or if ``a`` and ``b`` differ in length.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a and b must hold the same queries, got {a.shape} and {b.shape}")
    return bootstrap_mean(a - b, blocks, draws, seed, level)
