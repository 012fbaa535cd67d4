"""Fusing what the windows of a strip say: one posterior over the map, and the track under drift.

Each window of a strip has a surface of scores over the map, and its displacement from the others is known but for the
drift of the navigation. All surfaces are laid over one another as if the strip began at each place of the map. Of a
window, a place is as likely as a softmax of its scores says, mixed with a uniform part that keeps one wrong window
from outvoting the others (Fox, Burgard and Thrun's measurement model for Markov localization, JAIR 11, 1999). Along
the strip it is a hidden Markov model on the grid (Rabiner, Proc. IEEE 77, 1989): a step from one window to the next
moves the strip by a Gaussian drift. Without drift it is the sum of log-likelihoods.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sarmatch.checks import NonNegative, Positive, checked_value, whole_number

Surface = NDArray[np.floating]  # (H, W)

FLOOR = 1e-300  # of a probability, before its logarithm is taken
REACH = 3.0  # standard deviations of the drift that a step may take
BAND = 1 << 22  # cells of a map that are looked at together


@dataclass(frozen=True)
class Likelihood:
    """How scores become likelihoods, and how sure one may be: what is calibrated on validation ground.

    Attributes
    ----------
    temperature : float
        Scores are divided by it before the softmax.
    outliers : float
        Fraction of windows that say nothing, 0 to 1: changed ground, water, a place beyond the edge of the map.
    drift : float
        Metres by which the navigation errs from one window to the next, on each axis, as a standard deviation.
    absent : float
        Fraction of strips that do not lie on the map at all, before anything is looked at.
    spread : float
        Metres by which a strip as a whole is off, on each axis: layover, the registration of the map.
    """

    temperature: float = 0.01
    outliers: float = 0.1
    drift: float = 2.0
    absent: float = 0.2
    spread: float = 2.0

    def __post_init__(self) -> None:
        checked_value("temperature", self.temperature, Positive)
        for name in ("drift", "spread"):
            checked_value(name, getattr(self, name), NonNegative)
        for name in ("outliers", "absent"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {getattr(self, name)}")


class Crowd(NamedTuple):
    """What a softmax over all scores of a window needs of them: the highest, the sum of the exponentials of the others
    against it, and how many there are."""

    top: float
    total: float
    places: int

    def and_those(self, other: "Crowd", model: Likelihood) -> "Crowd":
        """Of the scores of both."""
        top = max(self.top, other.top)
        total = sum(c.total * math.exp((c.top - top) / model.temperature) for c in (self, other) if c.places)
        return Crowd(top, total, self.places + other.places)


NOBODY = Crowd(-math.inf, 0.0, 0)


def crowd(scores: Surface, model: Likelihood) -> Crowd:
    """Of scores of a window, minus infinity where it does not lie on the map."""
    whole = NOBODY
    for rows in bands(scores.shape):
        known = np.asarray(scores[rows], np.float64)[np.isfinite(scores[rows])]
        if known.size:
            top = float(known.max())
            total = float(np.exp((known - top) / model.temperature).sum())
            whole = whole.and_those(Crowd(top, total, known.size), model)
    return whole


def log_likelihood(scores: Surface, model: Likelihood, whole: Crowd | None = None) -> NDArray[np.float64]:
    """Log-likelihood of each place for a window, against that of a window that says nothing.

    Parameters
    ----------
    scores
        `(H, W)` of one window; minus infinity where it does not lie on the map.
    model
        Temperature and outliers.
    whole
        Of the whole map's scores, where these are a part of them.

    Returns
    -------
    float64 (H, W), `log(e + (1 - e) N p)` with `p` the softmax over the N places that have a score and `e` the fraction
    of outliers. Its exponential is 1 on average over these places; where there is no score, it is `log e`.
    """
    whole = crowd(scores, model) if whole is None else whole
    if not whole.places:
        return np.full(scores.shape, math.log(model.outliers))
    peaked = np.exp((np.asarray(scores, np.float64) - whole.top) / model.temperature)
    return np.log(model.outliers + (1 - model.outliers) * peaked * (whole.places / whole.total))


def shifted(surface: Surface, step: Sequence[int], fill: float) -> NDArray[np.float64]:
    """A surface whose value at `(row, column)` is that at `(row, column) + step`; `fill` beyond its edge."""
    out = np.full(surface.shape, fill)
    to, taken = [], []
    for n, move in zip(surface.shape, step, strict=True):
        to.append(slice(max(0, -move), max(0, min(n, n - move))))
        taken.append(slice(max(0, move), max(0, min(n, n + move))))
    out[tuple(to)] = surface[tuple(taken)]
    return out


def diffused(belief: Surface, drift: float) -> Surface:
    """A log-belief after a step that may go `drift` cells astray, on each axis; what leaves the grid is lost.

    Of the type that it is given: half as wide numbers suffice for a large map.
    """
    if not drift:
        return belief
    top, reach, out = belief.max(), around(drift), np.empty_like(belief)
    for rows in bands(belief.shape):
        first = max(0, rows.start - reach)
        chance = np.exp(np.asarray(belief[first : rows.stop + reach], np.float64) - top)
        spread = gaussian_filter(chance, drift, mode="constant", truncate=REACH)[rows.start - first :]
        out[rows] = np.log(np.maximum(spread[: rows.stop - rows.start], FLOOR)) + top
    return out


def around(drift: float) -> int:
    """Cells on each side of a place that a step may come from."""
    return int(REACH * drift + 0.5)  # as the filter counts them


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of a surface that are looked at together, so that what is made of them on the way stays small."""
    step = max(1, BAND // shape[1])
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def log_sum(surface: Surface) -> float:
    """Logarithm of the sum of exponentials."""
    top = float(surface.max())
    return top + math.log(sum(np.exp(surface[rows] - top).sum(dtype=np.float64) for rows in bands(surface.shape)))


def filtered(levels: Iterable[Surface], drift: float = 0.0) -> Iterator[NDArray[np.float64]]:
    """Log-belief after each window, of all windows up to it: the forward half of the hidden Markov model.

    Parameters
    ----------
    levels
        Log-likelihoods `(H, W)` of the windows in their order along the strip, laid over one another (`aligned`).
    drift
        Cells, see `diffused`.
    """
    belief: NDArray[np.float64] | None = None
    for level in levels:
        belief = np.asarray(level, np.float64) if belief is None else diffused(belief, drift) + level
        yield belief


@dataclass(frozen=True, eq=False)
class Posterior:
    """Where a strip lies: log-probabilities of all places of its middle window, and of none of them.

    Attributes
    ----------
    log_prob : float (H, W)
        Of each cell.
    log_absent : float
        Of "not on this map"; together with the cells it makes 1.
    """

    log_prob: Surface
    log_absent: float

    @property
    def absent(self) -> float:
        """Probability that the strip does not lie on this map."""
        return math.exp(self.log_absent)

    def peaks(self, count: int, apart: int) -> "Peaks":
        """The `count` highest places more than `apart` cells from one another, to a fraction of a cell.

        `mass` is the probability of all within `apart` cells of each on both axes, each cell counted once.
        """
        whole_number("count", count)
        rest = self.log_prob.copy()
        at, mass = [], []
        for _ in range(count):
            row, col = np.unravel_index(int(rest.argmax()), rest.shape)
            if not np.isfinite(rest[row, col]):
                break
            near = slice(max(0, row - apart), row + apart + 1), slice(max(0, col - apart), col + apart + 1)
            at.append(refined(self.log_prob, int(row), int(col)))
            mass.append(np.exp(rest[near]).sum(dtype=np.float64))
            rest[near] = -np.inf
        return Peaks(np.array(at), np.array(mass))

    def within(self, at: Sequence[float], radius: float) -> float:
        """Probability that it lies within `radius` cells of a place in cells."""
        row, col = at
        rows, cols = (
            slice(max(0, math.floor(m - radius)), max(0, math.ceil(m + radius) + 1)) for m in (float(row), float(col))
        )
        r, c = np.ogrid[rows, cols]
        part = self.log_prob[rows, cols]
        near = np.hypot(r[: part.shape[0]] - row, c[:, : part.shape[1]] - col) <= radius
        return float(np.exp(part[near]).sum(dtype=np.float64))

    def area(self, mass: float = 0.9) -> NDArray[np.bool_]:
        """The smallest set of cells that holds `mass` of what lies on the map: the search area."""
        if not 0 < mass <= 1:
            raise ValueError(f"mass must lie in (0, 1], got {mass}")
        flat = self.log_prob.ravel()
        total = np.exp(flat - flat.max())
        whole = total.sum(dtype=np.float64)
        wanted = mass * whole * (1 - 1e-12)
        few = np.flatnonzero(total > whole * 1e-4 / total.size)  # most cells hold next to nothing
        if total[few].sum(dtype=np.float64) < wanted:
            few = np.arange(total.size)
        order = few[np.argsort(-total[few], kind="stable")]
        chosen = np.zeros(flat.shape, bool)
        chosen[order[: int(np.searchsorted(np.cumsum(total[order], dtype=np.float64), wanted)) + 1]] = True
        return chosen.reshape(self.log_prob.shape)


class Peaks(NamedTuple):
    """Places `(K, 2)`, rows and columns in cells, the best first, and the probability around each `(K,)`."""

    at: NDArray[np.float64]
    mass: NDArray[np.float64]


def refined(surface: Surface, row: int, col: int) -> tuple[float, float]:
    """A peak to a fraction of a cell, by a parabola through it and its neighbours along either axis."""

    def between(before: float, here: float, after: float) -> float:
        bend = 2 * here - before - after
        return float(np.clip(0.5 * (after - before) / bend, -0.5, 0.5)) if np.isfinite(bend) and bend > 1e-9 else 0.0

    height, width = surface.shape
    here = surface[row, col]
    down = between(surface[row - 1, col], here, surface[row + 1, col]) if 0 < row < height - 1 else 0.0
    right = between(surface[row, col - 1], here, surface[row, col + 1]) if 0 < col < width - 1 else 0.0
    return row + down, col + right


def posterior_of(belief: Surface, model: Likelihood, prior: Surface | None = None) -> Posterior:
    """The posterior of a log-belief: against the uniform one of a strip that does not lie on the map.

    Parameters
    ----------
    belief
        Sum of log-likelihoods `(H, W)`, as `fuse` makes it.
    model
        Says how many strips are absent.
    prior
        Log-probability of each place `(H, W)` before anything is looked at, of sum 1; uniform by default.
    """
    joint = belief + (-math.log(belief.size) if prior is None else prior.astype(belief.dtype))
    joint += math.log1p(-model.absent)
    absent = math.log(model.absent)
    total = float(np.logaddexp(log_sum(joint), absent))
    joint -= total
    return Posterior(joint, absent - total)


def aligned(levels: Iterable[Surface], steps: NDArray[np.int64], fill: float) -> Iterator[NDArray[np.float64]]:
    """Surfaces of windows laid over one another, each moved by where it lies in the strip: `(W, 2)` cells."""
    for level, step in zip(levels, steps, strict=True):
        yield shifted(level, [int(s) for s in step], fill)


def fuse(levels: Sequence[Surface], drift: float = 0.0, at: int | None = None) -> NDArray[np.float64]:
    """Log-belief `(H, W)` of where window `at` lies, of all windows: forward from one end and backward from the other.

    Parameters
    ----------
    levels
        Log-likelihoods of the windows in their order along the strip, laid over one another.
    drift
        Cells from one window to the next; without any it is their sum, whatever `at`.
    at
        Number of the window; the middle one by default.
    """
    at = len(levels) // 2 if at is None else at
    *_, belief = filtered(levels[: at + 1], drift)
    if at + 1 < len(levels):
        *_, others = filtered(levels[:at:-1], drift)
        belief = belief + diffused(others, drift)
    return belief


def track(levels: Sequence[Surface], drift: float = 0.0) -> NDArray[np.int64]:
    """The likeliest sequence of cells `(W, 2)` under drift, rows and columns: Viterbi's algorithm on the grid.

    Parameters
    ----------
    levels, drift
        As for `fuse`; a step goes `REACH` times the drift at most on each axis. Take a part of the map around a fix:
        all choices are kept, a number per window and cell.
    """
    reach = math.floor(REACH * drift)
    moves = [(r, c) for r in range(-reach, reach + 1) for c in range(-reach, reach + 1)]
    moves.sort(key=lambda move: move[0] ** 2 + move[1] ** 2)  # of equal ones the shorter step counts
    best, choices = np.asarray(levels[0], np.float64), []
    for level in levels[1:]:
        highest, chosen = np.full(best.shape, -np.inf), np.zeros(best.shape, np.int64)
        for number, move in enumerate(moves):
            cost = (move[0] ** 2 + move[1] ** 2) / (2 * drift**2) if drift else 0.0
            reached = shifted(best, move, -np.inf) - cost
            better = reached > highest
            highest[better], chosen[better] = reached[better], number
        choices.append(chosen)
        best = highest + level
    row, col = np.unravel_index(int(best.argmax()), best.shape)
    cells = [(int(row), int(col))]
    for chosen in reversed(choices):
        move = moves[chosen[cells[-1]]]
        cells.append((cells[-1][0] + move[0], cells[-1][1] + move[1]))
    return np.array(cells[::-1])


def near_prior(shape: tuple[int, int], at: Sequence[float], radius: float, trust: float = 0.99) -> NDArray[np.float64]:
    """Log-probability of each cell where somebody says that the strip lies within `radius` cells of a place.

    A Gaussian of which 95 % lie within the radius, and a uniform part of `1 - trust`, as people err.
    """
    row, col = np.ogrid[: shape[0], : shape[1]]
    sigma = radius / math.sqrt(-2 * math.log(0.05))
    bell = np.exp(-((row - at[0]) ** 2 + (col - at[1]) ** 2) / (2 * sigma**2))
    if not bell.sum() > 0:
        raise ValueError(f"prior: {radius:.0f} cells about {tuple(np.round(at))} hold no place of the map {shape}")
    return np.log(trust * bell / bell.sum() + (1 - trust) / bell.size)


def rivals(surface: Surface, at: Sequence[int], apart: int) -> float:
    """The highest score of a surface more than `apart` cells from a place: how much else looks like it."""
    row, col = at
    rest = np.where(np.isfinite(surface), surface, -np.inf)
    rest[max(0, row - apart) : max(0, row + apart + 1), max(0, col - apart) : max(0, col + apart + 1)] = -np.inf
    return float(rest.max())
