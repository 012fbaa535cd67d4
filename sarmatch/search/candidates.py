"""What a search gives and a refiner takes and gives back: places on the map, each with a score."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sarmatch.scenes import NoCoordinatesError


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best places of each query, best first.

    Attributes
    ----------
    scores : float32 (Q, K)
        Higher is better; cosines after a vector search, whatever the refiner says after a refinement.
    places : float64 (Q, K, 2) or None
        Where the query would be centred, local metres, x east and y north; None where the set has no coordinates. Read
        it as `xy`, which says so.
    area : int64 (Q, K)
        Which of `areas` each place lies in.
    areas : tuple of str
        Names of the areas.
    valid : bool (Q, K)
        Whether there is a candidate at all: lists may be filled up at their end.
    tile : int64 (Q, K) or None
        Rows of the gallery's tiles, where the candidates come from tiles.
    log_prob : float32 (Q, K + 1) or None
        Where someone is calibrated: log probability of each candidate, and at the end of "not on this map".
    heading, scale : float64 (Q, K) or None
        Where they were searched for: degrees clockwise from north, 0 to 360, at which the query's top points, and how
        much larger its pixels are than those of the map.

    Raises
    ------
    ValueError
        If a shape or dtype differs from the above, or a tile or an area is negative.
    """

    scores: NDArray[np.float32]
    places: NDArray[np.float64] | None = None
    area: NDArray[np.int64] = None  # type: ignore[assignment] # filled below: one area
    areas: tuple[str, ...] = ("map",)
    valid: NDArray[np.bool_] = None  # type: ignore[assignment] # filled below: all of them
    tile: NDArray[np.int64] | None = None
    log_prob: NDArray[np.float32] | None = None
    heading: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        _expect("scores", self.scores, np.float32, (None, None))
        shape = self.scores.shape
        for name, value in (("area", np.zeros(shape, np.int64)), ("valid", np.ones(shape, bool))):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        _expect("area", self.area, np.int64, shape)
        _expect("valid", self.valid, np.bool_, shape)
        if self.area.size and not 0 <= self.area.min() <= self.area.max() < len(self.areas):
            raise ValueError(f"area must count the {len(self.areas)} areas {self.areas}, got {self.area.max()}")
        if self.places is not None:
            _expect("places", self.places, np.float64, (*shape, 2))
        if self.tile is not None:
            _expect("tile", self.tile, np.int64, shape)
            if (self.tile[self.valid] < 0).any():
                raise ValueError(f"tile must be >= 0 where a candidate is valid, got {self.tile[self.valid].min()}")
        for name in ("heading", "scale"):
            if getattr(self, name) is not None:
                _expect(name, getattr(self, name), np.float64, shape)
        if self.log_prob is not None:
            _expect("log_prob", self.log_prob, np.float32, (shape[0], shape[1] + 1))

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.scores)

    @property
    def xy(self) -> NDArray[np.float64]:
        """Where the query would be centred, float64 (Q, K, 2), local metres.

        Raises
        ------
        NoCoordinatesError
            Where the set has no coordinates.
        """
        if self.places is None:
            raise NoCoordinatesError("this set has no coordinates: its candidates have no places in metres")
        return self.places

    def rows(self, rows: slice | Sequence[int] | NDArray) -> "Candidates":
        """The lists of some queries."""
        return self._each(lambda values: values[rows])

    def first(self, k: int | None) -> "Candidates":
        """The first `k` of every list, all of them for None; log probabilities are those of whole lists and go."""
        if k is None or k >= self.scores.shape[1]:
            return self
        return replace(self, log_prob=None)._each(lambda values: values[:, :k])

    def reorder(
        self,
        scores: NDArray,
        places: NDArray | None = None,
        log_prob: NDArray | None = None,
    ) -> "Candidates":
        """The same candidates by new scores `(Q, K)`, best first.

        Parameters
        ----------
        scores
            New scores in the order of the lists; candidates that are not valid stay behind.
        places
            Better places `(Q, K, 2)` in metres, in the order of the lists; those that are there by default.
        log_prob
            New log probabilities `(Q, K + 1)`; old ones are forgotten, as they belong to the old scores.
        """
        scores = np.asarray(scores, dtype=np.float32)
        if scores.shape != self.scores.shape:
            raise ValueError(f"scores must be {self.scores.shape}, one per candidate, got {scores.shape}")
        scores = np.where(self.valid, scores, -np.inf).astype(np.float32)
        order = np.lexsort((-scores, ~self.valid), axis=-1)  # stable; a score that is no number comes last of the valid
        places = self.places if places is None else np.asarray(places, np.float64)
        if log_prob is not None:
            here = np.take_along_axis(log_prob[:, :-1], order, 1)
            log_prob = np.concatenate([here, log_prob[:, -1:]], 1).astype(np.float32)
        changed = replace(self, scores=scores, places=places, log_prob=None)
        ordered = changed._each(lambda v: np.take_along_axis(v, order.reshape(*order.shape, *[1] * (v.ndim - 2)), 1))
        return replace(ordered, log_prob=log_prob)

    def _each(self, of) -> "Candidates":
        """The same with every array changed."""
        names = ("scores", "places", "area", "valid", "tile", "heading", "scale", "log_prob")
        arrays = {name: getattr(self, name) for name in names}
        return replace(self, **{name: of(value) for name, value in arrays.items() if value is not None})


def _expect(name: str, value: object, dtype: type, shape: tuple[int | None, ...]) -> None:
    """Refuse anything but an array of this dtype and shape; None is any length."""
    fits = (
        isinstance(value, np.ndarray)
        and value.dtype == dtype
        and value.ndim == len(shape)
        and all(n is None or n == m for n, m in zip(shape, value.shape, strict=True))
    )
    if not fits:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        wanted = "(Q, K)" if shape == (None, None) else shape
        raise ValueError(f"{name} must be a {np.dtype(dtype)} array {wanted}, got {got}")
