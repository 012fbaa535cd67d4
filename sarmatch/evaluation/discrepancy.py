"""How far two feature distributions are apart, and whether that is more than chance.

A distance between distributions means nothing by itself: it grows with the length of the features, shrinks with the
number of points, and is not zero between two samples of one distribution. So a value comes with its null: what the same
metric says within each modality, from as many points at places that are as disjoint.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import ot
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sarmatch.checks import whole_number
from sarmatch.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

Features = NDArray[np.floating]
Array = TypeVar("Array", NDArray, "Tensor")
EXACT_GB = 4.0  # the cost matrix of an exact distance may take this much


class Discrepancy(NamedTuple):
    """A distance between two feature distributions, and beside it what it is within each of them."""

    metric: str
    value: float  # of all points
    between: NDArray[np.float64]  # the two modalities at disjoint places, one value per subsample; empty without any
    null: NDArray[np.float64]  # each modality with itself at the same disjoint places, as many points

    @property
    def ratio(self) -> float:
        """How many times the null: the median over subsamples, 1 without a difference; nan without subsamples."""
        return self._quantiles(0.5)[0]

    @property
    def band(self) -> tuple[float, float]:
        """The ratio's 2.5th and 97.5th percentile over subsamples."""
        low, high = self._quantiles(0.025, 0.975)
        return low, high

    def _quantiles(self, *levels: float) -> list[float]:
        if not len(self.null):
            return [float("nan")] * len(levels)
        return np.quantile(self.between / self.null, levels).tolist()

    def __str__(self) -> str:
        if not len(self.null):
            return f"{self.metric} {self.value:.4g}"
        low, high = self.band
        return f"{self.metric} {self.value:.4g}, {self.ratio:.2f} times its null ({low:.2f} to {high:.2f})"


def wasserstein(x: Features, y: Features, order: int = 1) -> float:
    """Exact Wasserstein distance of order 1 or 2 between two samples `(N, D)` and `(M, D)` of equal weights.

    The least mean distance over which one has to be moved to become the other; order 2 takes the root of the mean
    square. A linear program: 1,000 points each take 0.3 s, 4,000 take 8 s and 0.5 GB on one core.
    """
    if 8 * len(x) * len(y) / 1e9 > EXACT_GB:
        raise ValueError(
            f"exact transport between {len(x)} and {len(y)} points needs "
            f"{8 * len(x) * len(y) / 1e9:.0f} GB; take a sample of some thousands, or metric 'sliced'"
        )
    cost = ot.dist(*_doubles(x, y), metric="euclidean" if order == 1 else "sqeuclidean")
    value = ot.emd2([], [], cost, numItermax=5_000_000)
    return float(value ** (1 / order))


def sliced_wasserstein(x: Features, y: Features, projections: int = 256, seed: int = 0) -> float:
    """Sliced Wasserstein-2 distance: the root of the mean square over directions of the distance on a line.

    At most `wasserstein(x, y, 2)`, and in D dimensions smaller by about the root of D. 100,000 points take seconds.
    """
    return float(ot.sliced_wasserstein_distance(*_doubles(x, y), n_projections=projections, p=2, seed=seed))


def sinkhorn_divergence(x: Array, y: Array, blur: float, iterations: int) -> Array:
    """Entropic optimal transport without its bias: ``OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2`` on squared distances.

    Parameters
    ----------
    x, y
        `(N, D)` and `(M, D)`: both arrays, or both tensors.
    blur
        Length below which the transport blurs, in the unit of the features; the regularisation is its square.
    iterations
        Of Sinkhorn's algorithm, in the logarithmic domain.

    Returns
    -------
    A scalar of the same kind. By the envelope theorem the gradient of tensors flows through the cost alone, with the
    transport plan held fixed.

    Notes
    -----
    Feydy et al., AISTATS 2019 (arXiv:1810.08278).
    """

    backend = ot.backend.get_backend(x, y)

    def transport(u: Array, v: Array) -> Array:
        cost = ot.dist(u, v)
        a, b = (backend.ones(len(z), type_as=z) / len(z) for z in (u, v))
        fixed = backend.detach(cost)
        plan = ot.bregman.sinkhorn_log(a, b, fixed, blur**2, numItermax=iterations, stopThr=0, warn=False)
        # the entropy belongs to the value: without it the divergence could be below zero
        entropy = (plan * backend.log(backend.maximum(plan, 1e-30) / (a[:, None] * b[None]))).sum()
        return (plan * cost).sum() + blur**2 * entropy

    return transport(x, y) - transport(x, x) / 2 - transport(y, y) / 2


def sinkhorn(x: Features, y: Features, blur: float = 0.1, iterations: int = 200) -> float:
    """Root of the Sinkhorn divergence on squared distances, a smoothed Wasserstein-2 distance.

    `blur` is a fraction of the root mean square distance within both samples together.
    """
    x, y = _doubles(x, y)
    length = max(blur * np.sqrt(2 * np.concatenate([x, y]).var(axis=0).sum()), 1e-12)
    return float(np.sqrt(max(sinkhorn_divergence(x, y, length, iterations), 0.0)))


def maximum_mean_discrepancy(x: Features, y: Features) -> float:
    """Maximum mean discrepancy, Gaussian kernel of the median distance (Gretton et al., JMLR 2012, biased form)."""
    x, y = _doubles(x, y)
    both = np.concatenate([x, y])
    sample = both[np.random.default_rng(0).permutation(len(both))[:1000]]
    squared = ot.dist(sample, sample)
    gamma = 1 / max(2 * np.median(squared[np.triu_indices(len(sample), 1)]), 1e-12)
    within = rbf_kernel(x, x, gamma).mean() + rbf_kernel(y, y, gamma).mean()
    return float(np.sqrt(max(within - 2 * rbf_kernel(x, y, gamma).mean(), 0.0)))


def bures(x: Features, y: Features) -> float:
    """Wasserstein-2 distance of the Gaussians of equal means and covariances: the root of the Fréchet distance.

    Never above `wasserstein(x, y, 2)` (Gelbrich, 1990). Fewer points than dimensions are no hindrance.
    """
    x, y = _doubles(x, y)
    # with C = A'A and D = B'B the trace of (C^1/2 D C^1/2)^1/2 is the sum of the singular values of A B'
    roots = [np.asarray(np.linalg.qr((z - z.mean(axis=0)) / np.sqrt(len(z)), mode="r")) for z in (x, y)]
    spread = x.var(axis=0).sum() + y.var(axis=0).sum() - 2 * np.linalg.norm(roots[0] @ roots[1].T, "nuc")
    return float(np.sqrt(max(centroid_gap(x, y) ** 2 + spread, 0.0)))


def centroid_gap(x: Features, y: Features) -> float:
    """Distance of the two means."""
    return float(np.linalg.norm(x.mean(axis=0) - y.mean(axis=0)))


def probe_accuracy(x: Features, y: Features, folds: int = 5) -> float:
    """Fraction of points whose modality a linear classifier tells, cross-validated and balanced: chance is 0.5."""
    points = np.concatenate(_doubles(x, y))
    labels = np.repeat([0, 1], [len(x), len(y)])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, class_weight="balanced"))
    return float(cross_val_score(model, points, labels, cv=folds, scoring="balanced_accuracy").mean())


def modality_mixing(x: Features, y: Features, neighbours: int = 10) -> tuple[float, float]:
    """Fraction of the nearest neighbours that are of the other modality, and what one mixed distribution would have.

    Parameters
    ----------
    x, y
        `(N, D)` and `(M, D)`.
    neighbours
        How many of each point.

    Returns
    -------
    (fraction, chance)
        Both means over all points: chance is ``2 N M / ((N + M) (N + M - 1))``.
    """
    points, modality = np.concatenate(_doubles(x, y)), np.repeat([0, 1], [len(x), len(y)])
    if not 1 <= neighbours < len(points):
        raise ValueError(f"neighbours must be 1 to {len(points) - 1} for {len(points)} points, got {neighbours}")
    found = NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors(return_distance=False)
    fraction = float((modality[found] != modality[:, None]).mean())
    return fraction, 2 * len(x) * len(y) / (len(points) * (len(points) - 1))


#: Metrics by name; all are in the unit of the features but `mmd` and `probe`.
METRICS: dict[str, Callable[[Features, Features], float]] = {
    "wasserstein_1": partial(wasserstein, order=1),
    "wasserstein_2": partial(wasserstein, order=2),
    "sliced": sliced_wasserstein,
    "sinkhorn": sinkhorn,
    "mmd": maximum_mean_discrepancy,
    "bures": bures,
    "centroid": centroid_gap,
    "probe": probe_accuracy,
}


def discrepancy(
    x: Features,
    y: Features,
    metric: str = "wasserstein_1",
    repeats: int = 0,
    places: ArrayLike | None = None,
    seed: int = 0,
) -> Discrepancy:
    """How far two feature distributions are apart, and how many times as far as each of them is from itself.

    A subsample cuts the places into two disjoint halves, A and B. The metric between the modalities, ``d(x[A], y[B])``,
    stands beside its null, the mean of ``d(x[A], x[B])`` and ``d(y[A], y[B])``. The two differ in nothing but the
    modality: places and number of points are the same by construction. A modality that merely shrinks gains nothing.

    Parameters
    ----------
    x, y
        Features `(N, D)` and `(M, D)`. With a null ``N = M``, and row `i` of both is of one place.
    metric
        A key of `METRICS`: `wasserstein_1`, `wasserstein_2`, `sliced`, `sinkhorn`, `mmd`, `bures`, `centroid`, `probe`.
    repeats
        How many subsamples; each costs three values of half the points. Without any there is no null.
    places
        A label for each row `(N,)`: rows of one label, such as a block of ground, never lie in both halves. By default
        each row is a place of its own.
    seed
        Of the subsamples.

    Returns
    -------
    Discrepancy

    Raises
    ------
    ValueError
        For unknown names, features of different width, values that are not finite, an exact distance between too many
        points; with a null also for samples of unequal size, labels that do not fit, halves of fewer than two points
        and a null of zero.

    Notes
    -----
    The band is that of random halves of one sample, as in a delete-d jackknife with ``d = N / 2`` (Shao and Wu, Annals
    of Statistics 1989). Among pairs of new samples it held the ratio 97 to 100 times in 100: cautious, and no p-value.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + [3, 0]
    >>> round(discrepancy(x, y, "centroid").value)
    3
    >>> discrepancy(x, y, repeats=20).ratio > 5
    True
    """
    if metric not in METRICS:
        raise ValueError(f"no metric is called {metric!r}; there are {list(METRICS)}")
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"x and y must be (N, D) and (M, D) with two points or more, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("x and y must be finite")
    whole_number("repeats", repeats, 0)
    measure = METRICS[metric]
    value, between, null = measure(x, y), [], []
    if repeats:
        labels = _labels_of_places(x, y, places)
        rng = np.random.default_rng(seed)
        for _ in progress(range(repeats), desc=f"null of {metric}"):
            a, b = _disjoint_halves(labels, rng)
            between.append(measure(x[a], y[b]))
            null.append((measure(x[a], x[b]) + measure(y[a], y[b])) / 2)
        if min(null) <= 0:
            raise ValueError(f"the null of {metric} is zero: within each sample all points are alike")
    return Discrepancy(metric, value, np.array(between), np.array(null))


def _labels_of_places(x: Features, y: Features, places: ArrayLike | None) -> NDArray:
    """The place of each row; refused where there can be no null."""
    if len(x) != len(y):
        raise ValueError(
            f"a null needs samples of equal size, row i of both at one place, got {len(x)} and {len(y)} points: "
            "of fewer points any distance is larger"
        )
    labels = np.arange(len(x)) if places is None else np.asarray(places)
    if labels.shape != (len(x),):
        raise ValueError(f"places must be one label for each of {len(x)} rows, got {labels.shape}")
    return np.unique(labels, return_inverse=True)[1]


def _disjoint_halves(labels: NDArray, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Rows of two halves that share no label, equally many in both, in random order."""
    order = rng.permutation(labels.max() + 1)
    left = np.isin(labels, order[: len(order) // 2])
    a, b = rng.permutation(np.flatnonzero(left)), rng.permutation(np.flatnonzero(~left))
    count = min(len(a), len(b))
    if count < 2:
        raise ValueError(f"halves must have two points or more, got {count}: there are {len(order)} places")
    return a[:count], b[:count]


def _doubles(x: Features, y: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.asarray(x, np.float64), np.asarray(y, np.float64)
