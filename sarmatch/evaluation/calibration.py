"""Calibration and uncertainty: how often an answer is right as it says, risk and coverage, search areas. No model."""

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from sarmatch.checks import whole_number


def fit_temperature(logits: np.ndarray, target: np.ndarray) -> float:
    """The number that logits `(Q, K)` are divided by so that their softmax fits `target` `(Q, K)` best.

    Smallest cross-entropy (Guo et al., ICML 2017); targets may be soft. Between 1/20 and 20.
    """
    logits, target = np.asarray(logits, np.float64), np.asarray(target, np.float64)
    if logits.shape != target.shape or logits.ndim != 2:
        raise ValueError(f"logits and target must be (Q, K) alike, got {logits.shape} and {target.shape}")
    if not (np.isfinite(logits).all() and np.isfinite(target).all()):
        raise ValueError("logits and target must be finite")

    def loss(log_temperature: float) -> float:
        z = logits / np.exp(log_temperature)
        z = z - z.max(1, keepdims=True)
        return -(target * (z - np.log(np.exp(z).sum(1, keepdims=True)))).sum(1).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded").x))


def balanced_accuracy(values: np.ndarray, positive: np.ndarray, cut: float) -> float:
    """Mean of what is right among the positives and among the others where values `(N,)` above a cut are positive."""
    told, positive = np.asarray(values) > cut, np.asarray(positive, bool)
    if positive.all() or not positive.any():
        raise ValueError(f"expected positives and others, got {positive.sum()} positives of {positive.size}")
    return float((told[positive].mean() + (~told[~positive]).mean()) / 2)


def best_cut(values: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """The cut halfway between two values `(N,)` that has the best balanced accuracy, the lowest of equals, and that.

    Choose it on validation ground. A ValueError where all are positive or none is, or all values are equal.
    """
    known = np.unique(np.asarray(values, np.float64))
    if len(known) < 2:
        raise ValueError(f"expected values that differ, got {known}")
    cuts = (known[1:] + known[:-1]) / 2
    right = [balanced_accuracy(values, positive, cut) for cut in cuts]
    return float(cuts[np.argmax(right)]), max(right)


def fit_isotonic(confidence: np.ndarray, correct: np.ndarray) -> IsotonicRegression:
    """Isotonic (monotone) regression from confidence `(Q,)` to the fraction that is correct; `.predict` applies it.

    Zadrozny and Elkan, KDD 2002. Fit it on validation ground.
    """
    confidence, correct = _pairs(confidence, correct)
    return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, correct)


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> dict[str, np.ndarray | float]:
    """How often an answer is right against how sure it was.

    Parameters
    ----------
    confidence : (Q,)
        Probability that the answer is right, 0 to 1.
    correct : (Q,)
        Whether it is.
    bins
        Of equal mass: as many queries in each, but that equally sure ones stay together, as their order means nothing.

    Returns
    -------
    dict with `confidence`, `accuracy`, `count` of each bin, the expected calibration error `ece` (mean absolute
    difference of the two over equal-mass bins), and the `brier` score, the mean squared difference per query.
    """
    confidence, correct = _pairs(confidence, correct)
    whole_number("bins", bins)
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError(f"confidence must lie in [0, 1], got {confidence.min():g} to {confidence.max():g}")
    _, level, size = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = np.cumsum(size) - size / 2  # of each level, as a rank
    number = (middle * min(bins, len(confidence)) / len(confidence)).astype(int)[level]
    parts = [np.flatnonzero(number == n) for n in np.unique(number)]
    sure, right = (np.array([v[p].mean() for p in parts]) for v in (confidence, correct))
    count = np.array([len(p) for p in parts])
    return {
        "confidence": sure,
        "accuracy": right,
        "count": count,
        "ece": float((count * np.abs(sure - right)).sum() / count.sum()),
        "brier": float(((confidence - correct) ** 2).mean()),
    }


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """What goes wrong when only the surest answers are given.

    Equally sure answers are given together, so that their order cannot flatter.

    Returns
    -------
    coverage, risk : (M,)
        Fraction of queries answered, rising to 1, and fraction of those answers that are wrong.
    area : float
        Under the curve, `AURC` (Geifman and El-Yaniv, NeurIPS 2017): the mean risk over all queries as the threshold
        falls past them. Without any information it is the overall risk.
    """
    confidence, correct = _pairs(confidence, correct)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(1 - correct[order])
    last = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1)
    answered = last + 1
    risk = wrong[last] / answered
    weight = np.diff(np.append(0, answered)) / len(order)
    return answered / len(order), risk, float((weight * risk).sum())


def conformal_threshold(probability: np.ndarray, overlap: np.ndarray, coverage: float = 0.9) -> float:
    """Smallest probability a candidate must have to belong to the search area, by split conformal prediction.

    Vovk et al., 2005, as in Angelopoulos and Bates, 2021: of n calibration queries, so many may lose their true
    candidate as `floor((n + 1) (1 - coverage)) - 1`. Under exchangeability of calibration and test, the true candidate
    of a test query is then in its area with at least `coverage`; another town is not exchangeable with this one.

    Parameters
    ----------
    probability : (Q, K)
        Of every candidate, of calibration queries.
    overlap : (Q, K)
        Fraction of the query that each candidate covers; the largest is the true one. Where a row is 0, the truth is
        not in the list, and no threshold includes it.
    coverage
        In (0, 1).

    Returns
    -------
    The threshold; 0, which takes the whole list in, where the calibration queries allow no less.
    """
    probability, overlap = np.asarray(probability, np.float64), np.asarray(overlap, np.float64)
    if probability.shape != overlap.shape or probability.ndim != 2 or not len(overlap):
        raise ValueError(f"probability and overlap must be (Q, K) alike, got {probability.shape} and {overlap.shape}")
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie in (0, 1), got {coverage}")
    given = np.where(overlap.max(1) > 0, probability[np.arange(len(overlap)), overlap.argmax(1)], -1.0)
    allowed = int(np.floor((len(given) + 1) * (1 - coverage)))
    return float(max(np.sort(given)[allowed - 1], 0.0)) if allowed else 0.0


def search_area(probability: np.ndarray, threshold: float, tile_m: float) -> np.ndarray:
    """Size of each query's search area `(Q,)` in square kilometres: the tiles at or above the threshold."""
    return (np.asarray(probability) >= threshold).sum(1) * tile_m**2 / 1e6


def _pairs(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise ValueError(
            f"confidence and correct must be equally long vectors, got {confidence.shape} and {correct.shape}"
        )
    if not np.isfinite(confidence).all():
        raise ValueError("confidence must be finite")
    return confidence, correct
