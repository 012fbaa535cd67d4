"""How good a retrieval is: ranks, hits and metres, each with the value that chance would reach.

Everything here takes plain arrays. ``scores (Q, N)`` holds the score of each reference for each query,
higher is better; ``positive (Q,)`` the row of the one right reference. Ties count against us throughout, so
an encoder that collapses to one point scores no better than chance.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from sarmatch.checks import whole_number

TOLERANCE = 1e-6  # two cosines this close are one: above the float32 noise of a collapsed encoder
THRESHOLDS = (10, 25, 50, 100)  # metres
TILE_THRESHOLDS = (0.1, 0.25, 0.5, 1)  # widths of a tile


def ranks(scores: np.ndarray, positive: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Pessimistic rank of the positive: how many other references score at or above it.

    Parameters
    ----------
    scores : array (Q, N)
        Higher is better. A NaN ranks last; a positive that is NaN ranks behind all others.
    positive : int array (Q,)
        Row of the right reference of each query.
    tolerance : float
        A reference that scores this little below the positive is a tie, and a tie is ahead. Absolute,
        chosen for cosines; give a larger one for scores of another scale or from half precision.

    Returns
    -------
    int64 (Q,)
        0 is best, ``N - 1`` is worst.

    Raises
    ------
    ValueError
        On shapes that do not fit, a positive outside the gallery, or a tolerance that is negative or not finite.
    """
    return _ahead(scores, positive, tolerance).sum(axis=1, dtype=np.int64)


def recall_at_k(ranks: np.ndarray, k: int) -> float:
    """R@k: fraction of queries whose positive is among the first ``k``. Print the gallery size beside it.

    Parameters
    ----------
    ranks : int array (Q,)
        0-based, from `ranks`.
    k : int
        At least 1.

    Returns
    -------
    float in [0, 1]

    Raises
    ------
    ValueError
        If there are no ranks, one is negative or no whole number, or k is no whole number of at least 1.
    """
    return float((_ranks(ranks) < whole_number("k", k)).mean())


def one_percent(gallery_size: int) -> int:
    """The ``k`` of "R@1%": one hundredth of the gallery, rounded up: ``ceil(0.01 N)``.

    Parameters
    ----------
    gallery_size : int
        Number of references ``N``, at least 1.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        If the gallery is empty.

    Notes
    -----
    The literature has two others: ``N // 100`` (Sample4Geo, TransGeo) and ``int(0.01 N) + 1`` (VIGOR, SAFA,
    SAIG). On the same ranks they differ by points, so the ``k`` itself is printed beside the value.

    Examples
    --------
    >>> one_percent(437), 437 // 100, int(0.01 * 437) + 1
    (5, 4, 5)
    >>> one_percent(400), 400 // 100, int(0.01 * 400) + 1
    (4, 4, 5)
    """
    return -(-whole_number("gallery_size", gallery_size) // 100)  # in integers: 0.01 * 700 is above 7


def mean_reciprocal_rank(ranks: np.ndarray) -> float:
    """Mean of ``1 / (rank + 1)`` over 0-based ``ranks (Q,)``.

    With one positive per query this is what CMPC and others call "mAP". A ValueError if there are no ranks.
    """
    return float((1 / (_ranks(ranks) + 1)).mean())


def hit_rate(
    scores: np.ndarray,
    positive: np.ndarray,
    semi_positives: Sequence[np.ndarray] | np.ndarray | None,
    tolerance: float = TOLERANCE,
) -> float:
    """VIGOR's hit rate: fraction of queries for which no outsider scores at or above the positive.

    An outsider is a reference that is neither the positive nor one of the query's semi-positives. Where
    there are no semi-positives this is R@1.

    Parameters
    ----------
    scores : array (Q, N)
        Higher is better.
    positive : int array (Q,)
        Row of the right reference of each query.
    semi_positives : list of Q int arrays, or int array (Q, M) padded with -1, or None
        Rows of the other references that cover part of the query.
    tolerance : float
        As in `ranks`. VIGOR's own code has none and compares strictly, so that a collapsed encoder scores
        100 %.

    Returns
    -------
    float in [0, 1]

    Raises
    ------
    ValueError
        On shapes that do not fit, or a row outside the gallery.

    Notes
    -----
    Zhu et al., *VIGOR*, CVPR 2021. It compares with the positive, not with the best score: a query whose
    best answer is a semi-positive still misses if some outsider lies between the two.
    """
    ahead = _ahead(scores, positive, tolerance)
    return float((~(ahead & ~_semi_positive_mask(semi_positives, ahead.shape)).any(axis=1)).mean())


def localization_errors(found_xy: np.ndarray, true_xy: np.ndarray) -> np.ndarray:
    """Distance between where a query was placed and where it is.

    Parameters
    ----------
    found_xy, true_xy : array (Q, 2)
        Metres, x east and y north.

    Returns
    -------
    float64 (Q,)
        Metres.

    Raises
    ------
    ValueError
        Where positions are missing (None or NaN) or of another shape: a set without coordinates has no
        errors in metres.
    """
    found_xy, true_xy = _xy("found_xy", found_xy), _xy("true_xy", true_xy)
    if found_xy.shape != true_xy.shape:
        raise ValueError(f"found_xy {found_xy.shape} and true_xy {true_xy.shape} must be of one shape")
    return np.hypot(*(found_xy - true_xy).T)


def error_summary(
    errors: np.ndarray, thresholds: Sequence[float] = THRESHOLDS, tile_m: float | None = None
) -> dict[str, float]:
    """Median, 90th percentile and fraction within each threshold. No mean: a few outliers would own it.

    Parameters
    ----------
    errors : array (Q,)
        Metres, finite.
    thresholds : sequence of float
        Metres.
    tile_m : float, optional
        Width of a tile in metres, for thresholds relative to it as well: 0.1, 0.25, 0.5 and 1 tile.

    Returns
    -------
    dict
        ``median_m`` and ``p90_m`` in metres; ``within_10m`` and so on, the fraction of errors up to
        the threshold; with ``tile_m``, ``within_0.1_tile`` and so on.

    Raises
    ------
    ValueError
        If there are no errors, or one is negative or not finite.
    """
    errors = _filled("errors", errors)
    wrong = errors[~(np.isfinite(errors) & (errors >= 0))]
    if len(wrong):
        raise ValueError(f"errors must be at least 0 m and finite, got {wrong[0]}")
    median, p90 = np.quantile(errors, (0.5, 0.9))
    return _summary(median, p90, {name: (errors <= t).mean() for name, t in _columns(thresholds, tile_m).items()})


def grid_ceiling(
    stride_m: float, thresholds: Sequence[float] = THRESHOLDS, tile_m: float | None = None
) -> dict[str, float]:
    """What a *perfect* retriever reaches on a square grid when its answer is the centre of the right cell.

    The query lies anywhere in a cell of side ``s`` with equal probability. The fraction within ``t`` of the
    centre is the part of the cell that a disc of radius ``t`` covers: ``pi t^2 / s^2`` up to ``t = s / 2``,
    from there on less the four circle segments ``t^2 acos(h / t) - h sqrt(t^2 - h^2)``, ``h = s / 2``, that
    stick out of the cell, and 1 from ``t = s / sqrt(2)``. The median is ``s / sqrt(2 pi)``.

    Parameters
    ----------
    stride_m : float
        Distance between cell centres, metres.
    thresholds, tile_m
        As in `error_summary`.

    Returns
    -------
    dict
        The keys of `error_summary`.

    Raises
    ------
    ValueError
        If the stride is not a positive number.

    Examples
    --------
    >>> {key: round(value, 3) for key, value in grid_ceiling(100, (10, 25)).items()}
    {'median_m': 39.894, 'p90_m': 55.751, 'within_10m': 0.031, 'within_25m': 0.196}
    """
    if not 0 < stride_m < math.inf:
        raise ValueError(f"stride_m must be a positive number of metres, got {stride_m}")
    p90 = brentq(lambda t: _covered_fraction(t) - 0.9, 0.5, math.sqrt(0.5), xtol=1e-12)
    within = {name: _covered_fraction(t / stride_m) for name, t in _columns(thresholds, tile_m).items()}
    return _summary(stride_m / math.sqrt(2 * math.pi), stride_m * p90, within)


def chance_errors(
    true_xy: np.ndarray,
    reference_xy: np.ndarray,
    thresholds: Sequence[float] = THRESHOLDS,
    tile_m: float | None = None,
) -> dict[str, float]:
    """What answering every query with a uniformly random reference would reach.

    Over all ``Q x N`` pairs, none drawn at random and none stored: a k-d tree counts those within a radius.

    Parameters
    ----------
    true_xy : array (Q, 2)
        Where the queries are, metres.
    reference_xy : array (N, 2)
        Where the references are, metres.
    thresholds, tile_m
        As in `error_summary`.

    Returns
    -------
    dict
        The keys of `error_summary`; both quantiles are the smallest distance that reaches their fraction, to
        1e-6 m.

    Raises
    ------
    ValueError
        Where positions are missing (None or NaN) or of another shape.
    """
    true_xy, reference_xy = _xy("true_xy", true_xy), _xy("reference_xy", reference_xy)
    queries, references = cKDTree(true_xy), cKDTree(reference_xy)
    span = np.vstack([true_xy, reference_xy])
    farthest = math.dist(span.min(axis=0), span.max(axis=0)) + 1e-6

    def fraction_within(radius: float) -> float:
        return queries.count_neighbors(references, radius) / (len(true_xy) * len(reference_xy))

    def quantile(fraction: float) -> float:
        low, high = 0.0, farthest
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (low, middle) if fraction_within(middle) >= fraction else (middle, high)
        return high

    within = _columns(thresholds, tile_m)
    return _summary(quantile(0.5), quantile(0.9), {name: fraction_within(t) for name, t in within.items()})


def retrieval_report(
    scores: np.ndarray,
    positive: np.ndarray,
    semi_positives: Sequence[np.ndarray] | np.ndarray | None = None,
    query_xy: np.ndarray | None = None,
    reference_xy: np.ndarray | None = None,
    ks: Sequence[int] = (1, 5, 10),
    thresholds: Sequence[float] = THRESHOLDS,
    tile_m: float | None = None,
) -> dict[str, float]:
    """All numbers of one retrieval, each with the chance value it has to beat.

    Parameters
    ----------
    scores : array (Q, N)
        Higher is better.
    positive : int array (Q,)
        Row of the right reference of each query.
    semi_positives : list of Q int arrays, or int array (Q, M) padded with -1, or None
        Rows of the other references that cover part of the query.
    query_xy, reference_xy : array (Q, 2) and (N, 2), optional
        Metres; give both or neither.
    ks : sequence of int
        For R@k.
    thresholds, tile_m
        As in `error_summary`; give ``tile_m``, the width of a tile, wherever there are positions, so that scenes can be
        compared.

    Returns
    -------
    dict
        Flat, without NaN:

        - ``queries``, ``gallery``: Q and N
        - ``recall@1``, ...: R@k as fractions; ``recall@1_chance``, ...: ``k / N``
        - ``recall@1%``, ``recall@1%_k``, ``recall@1%_chance``: see `one_percent`
        - ``mrr``, ``mrr_chance``: mean reciprocal rank; chance is the mean of ``1 / rank``
        - ``hit_rate``, ``hit_rate_chance``: see `hit_rate`; chance is the mean of ``1 / (outsiders + 1)``

        and, with positions, the keys of `error_summary` three times:

        - ``median_m``, ``p90_m``, ``within_10m``, ``within_0.1_tile``, ...: the answer is the centre of the best
          reference; of several tied for best, the farthest
        - ``ceiling_...``: the answer is the centre of the positive, what perfect retrieval would reach
        - ``chance_...``: the answer is a random reference, see `chance_errors`

    Raises
    ------
    ValueError
        On shapes that do not fit, a row outside the gallery, or only one of the two sets of positions.
    """
    report = _recall_numbers(scores, positive, semi_positives, ks)
    if query_xy is None and reference_xy is None:
        return report
    count, gallery = np.shape(scores)
    query_xy, reference_xy = _xy("query_xy", query_xy), _xy("reference_xy", reference_xy)
    if (len(query_xy), len(reference_xy)) != (count, gallery):
        raise ValueError(
            f"scores {(count, gallery)} need as many positions, got {len(query_xy)} queries "
            f"and {len(reference_xy)} references"
        )
    best = _worst_best(scores, query_xy, reference_xy)
    ceiling = localization_errors(reference_xy[positive], query_xy)
    report |= error_summary(localization_errors(reference_xy[best], query_xy), thresholds, tile_m)
    for prefix, numbers in (
        ("ceiling", error_summary(ceiling, thresholds, tile_m)),
        ("chance", chance_errors(query_xy, reference_xy, thresholds, tile_m)),
    ):
        report |= {f"{prefix}_{key}": value for key, value in numbers.items()}
    return report


def _recall_numbers(
    scores: np.ndarray,
    positive: np.ndarray,
    semi_positives: Sequence[np.ndarray] | np.ndarray | None,
    ks: Sequence[int],
) -> dict[str, float]:
    """The part of `retrieval_report` that needs no positions."""
    rank = ranks(scores, positive)
    count, gallery = np.shape(scores)
    report: dict[str, float] = {"queries": count, "gallery": gallery}
    for label, k in [*((str(k), k) for k in ks), ("1%", one_percent(gallery))]:
        report[f"recall@{label}"] = recall_at_k(rank, k)
        report[f"recall@{label}_chance"] = min(k / gallery, 1.0)
    report["recall@1%_k"] = one_percent(gallery)
    report["mrr"] = mean_reciprocal_rank(rank)
    report["mrr_chance"] = float((1 / np.arange(1, gallery + 1)).mean())
    report["hit_rate"] = hit_rate(scores, positive, semi_positives)
    semi = _semi_positive_mask(semi_positives, (count, gallery))
    semi[np.arange(count), positive] = False
    report["hit_rate_chance"] = float((1 / (gallery - semi.sum(axis=1))).mean())
    return report


def _ahead(scores: np.ndarray, positive: np.ndarray, tolerance: float) -> np.ndarray:
    """Which other references score at or above the positive, bool (Q, N)."""
    scores, positive = np.asarray(scores), np.asarray(positive)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"scores must be (Q, N) with Q, N >= 1, got {scores.shape}")
    if positive.shape != (len(scores),) or not np.issubdtype(positive.dtype, np.integer):
        raise ValueError(
            f"positive must be {len(scores)} integers, one per query, got {positive.dtype} {positive.shape}"
        )
    _inside_gallery("positive", positive, scores.shape[1])
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a number of at least 0, got {tolerance}")
    rows = np.arange(len(scores))
    own = scores[rows, positive]
    ahead = (scores >= (own - tolerance)[:, None]) | np.isnan(own)[:, None]
    ahead[rows, positive] = False
    return ahead


def _semi_positive_mask(semi_positives: Sequence[np.ndarray] | np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """Where a reference is a semi-positive of a query, bool (Q, N)."""
    mask = np.zeros(shape, dtype=bool)
    if semi_positives is None:
        return mask
    if len(semi_positives) != len(mask):
        raise ValueError(f"semi_positives must have one row per query, {len(mask)}, not {len(semi_positives)}")
    lists = [np.asarray(row, dtype=np.int64) for row in semi_positives]
    rows, columns = np.repeat(np.arange(len(mask)), [len(row) for row in lists]), np.concatenate(lists)
    rows, columns = rows[columns != -1], columns[columns != -1]
    _inside_gallery("semi_positives", columns, shape[1])
    mask[rows, columns] = True
    return mask


def _worst_best(scores: np.ndarray, query_xy: np.ndarray, reference_xy: np.ndarray) -> np.ndarray:
    """Best reference of each query; of those tied for best, the one farthest from the truth."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    tied = scores >= scores.max(axis=1, keepdims=True) - TOLERANCE
    best = scores.argmax(axis=1)
    for row in np.flatnonzero(tied.sum(axis=1) > 1):
        equals = np.flatnonzero(tied[row])
        best[row] = equals[np.hypot(*(reference_xy[equals] - query_xy[row]).T).argmax()]
    return best


def _covered_fraction(radius: float) -> float:
    """Fraction of a unit square that a disc of this radius at its centre covers."""
    if radius >= math.sqrt(0.5):
        return 1.0
    disc = math.pi * radius**2
    if radius <= 0.5:
        return disc
    return disc - 4 * (radius**2 * math.acos(0.5 / radius) - 0.5 * math.sqrt(radius**2 - 0.25))


def _columns(thresholds: Sequence[float], tile_m: float | None) -> dict[str, float]:
    """Thresholds in metres by the name of their column, which never depends on the scene."""
    columns = {f"within_{t:g}m": t for t in thresholds}
    if tile_m is None:
        return columns
    if not 0 < tile_m < math.inf:
        raise ValueError(f"tile_m must be a positive number of metres, got {tile_m}")
    return columns | {f"within_{t:g}_tile": t * tile_m for t in TILE_THRESHOLDS}


def _summary(median: float, p90: float, within: dict[str, float]) -> dict[str, float]:
    return {"median_m": float(median), "p90_m": float(p90), **{name: float(value) for name, value in within.items()}}


def _filled(name: str, values: np.ndarray) -> np.ndarray:
    """As a vector with something in it."""
    values = np.asarray(values)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name} must be a vector of at least one value, got shape {values.shape}")
    return values


def _ranks(ranks: np.ndarray) -> np.ndarray:
    """As a vector of whole numbers from 0, or infinity where the positive was not among the candidates."""
    ranks = _filled("ranks", ranks)
    if ranks.dtype.kind not in "iuf":
        raise ValueError(f"ranks must be whole numbers from 0, got {ranks.dtype}")
    wrong = ranks[~((ranks >= 0) & (np.isinf(ranks) | (np.floor(ranks) == ranks)))]
    if len(wrong):
        raise ValueError(f"ranks must be whole numbers from 0, got {wrong[0]}")
    return ranks


def _inside_gallery(name: str, rows: np.ndarray, gallery: int) -> None:
    outside = rows[(rows < 0) | (rows >= gallery)]
    if len(outside):
        raise ValueError(f"{name} must be rows of a gallery of {gallery} references, got {outside[0]}")


def _xy(name: str, value: np.ndarray | None) -> np.ndarray:
    """As float64 (n, 2) metres without gaps."""
    if value is None:
        raise ValueError(f"this set has no coordinates: {name} is None, nothing to measure in metres")
    value = np.asarray(value, dtype=np.float64)
    if value.ndim != 2 or value.shape[1] != 2 or len(value) == 0:
        raise ValueError(f"{name} must be (n, 2) with n >= 1, got {value.shape}")
    gaps = np.count_nonzero(~np.isfinite(value).all(axis=1))
    if gaps:
        raise ValueError(f"this set has no coordinates for {gaps} of {len(value)} rows of {name}")
    return value
