"""What of an error is the place that a strip claims to have, and what is the search's own."""

import numpy as np
from numpy.typing import NDArray

FAR = 3.0  # medians of the residuals beyond which an answer is taken to be wrong, not displaced
ROUNDS = 10


def registered_errors(found_xy: NDArray, claimed_xy: NDArray, strip: NDArray, start_m: float) -> NDArray[np.float64]:
    """Metres between answers and claimed places, once the displacement of each strip as a whole is taken off.

    A strip's place is as good as its navigation: one that is turned by a degree lies 17 m off a kilometre from its
    middle. Of each strip an affine displacement is fitted to its answers, six numbers by least squares, again and again
    without those that lie far from it; what is left is the error of the search.

    Parameters
    ----------
    found_xy, claimed_xy
        Answers, and where the strip says that the queries lie: metres `(Q, 2)`.
    strip
        Which strip each query is from `(Q,)`.
    start_m
        Answers farther from their claimed place than this are left out of the first fit.

    Returns
    -------
    float64 (Q,)

    Notes
    -----
    Wrong answers stay wrong: nothing that is far from the displacement of its strip comes nearer by chance.
    """
    found_xy, claimed_xy = np.asarray(found_xy, np.float64), np.asarray(claimed_xy, np.float64)
    errors = np.empty(len(found_xy))
    for name in np.unique(strip):
        rows = np.flatnonzero(np.asarray(strip) == name)
        moved, at = found_xy[rows] - claimed_xy[rows], claimed_xy[rows]
        terms = np.column_stack([np.ones(len(rows)), (at - at.mean(0)) / max(float(np.ptp(at)), 1.0)])
        left = np.linalg.norm(moved, axis=1)
        _, left = trimmed_fit(terms, moved, left <= start_m, left)
        errors[rows] = left
    return errors


def trimmed_fit(terms: NDArray, moved: NDArray, near: NDArray, left: NDArray) -> tuple[NDArray | None, NDArray]:
    """Least squares of `moved` `(N, 2)` by `terms` `(N, T)`, again and again without those that lie far from the fit.

    Parameters
    ----------
    terms, moved
        What is fitted, by what.
    near
        Which rows the first fit looks at, bool `(N,)`.
    left
        Metres that are left of each row before any fit `(N,)`.

    Returns
    -------
    The coefficients `(T, 2)`, None where there are fewer than two rows for each, and what is left `(N,)`.
    """
    fit = None
    for _ in range(ROUNDS):
        if near.sum() < 2 * terms.shape[1]:  # too few to say anything of the strip
            break
        fit = np.linalg.lstsq(terms[near], moved[near], rcond=None)[0]
        left = np.linalg.norm(moved - terms @ fit, axis=1)
        near = left <= FAR * max(np.median(left[near]), 1e-6)
    return fit, left
