"""What a refiner may look at beside the list itself: the gallery, the queries, and pixels."""

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sarmatch.encoders.base import Modality
from sarmatch.patches import GreyMap
from sarmatch.search import Candidates, Gallery

FLOOR = 0.01  # of the largest spread: no axis is raised by more than that of such a one

#: What a refiner may require of a context, and what it is there.
REQUIREMENTS = {
    "tiles": "candidates that come from tiles of the gallery",
    "vectors": "an embedding of every query",
    "metres": "a gallery with coordinates",
    "pixels": "pixels of queries and map",
}


def checked_requirements(requires: Collection[str]) -> tuple[str, ...]:
    """What a refiner requires; a ValueError for what nobody can give."""
    unknown = [what for what in requires if what not in REQUIREMENTS]
    if isinstance(requires, str) or unknown:
        raise ValueError(f"requires is {requires!r}, expected a sequence of {sorted(REQUIREMENTS)}")
    return tuple(requires)


class Pixels(Protocol):
    """Grey pixels of queries and map, see `sarmatch.patches.ScenePixels`."""

    def queries(self, resolution: int) -> Tensor:
        """Queries `(Q, resolution, resolution)` in decibels, in the order of the lists."""
        ...

    def map(self, area: str, resolution: int) -> GreyMap:
        """The map of an area at so many pixels per tile."""
        ...


class Whitening(NamedTuple):
    """The gallery's own axes, see `RefinementContext.whitened`."""

    query_mean: NDArray[np.float64]
    reference_mean: NDArray[np.float64]
    turn: NDArray[np.float64]  # (D, D)

    def whitened(self, vectors: NDArray, modality: Modality) -> NDArray[np.float32]:
        """Vectors `(N, D)` of `query` or `reference` in these axes, L2-normalised."""
        mean = self.query_mean if modality == "query" else self.reference_mean
        return _directions((vectors - mean) @ self.turn)


@dataclass(frozen=True, eq=False)
class RefinementContext:
    """What is known of the queries and of the whole gallery.

    Attributes
    ----------
    gallery : Gallery
        Tiles with their vectors, and a tile's side in metres: the unit in which a graph measures.
    query : float32 (Q, D) or None
        Embeddings of the queries, L2-normalised.
    query_mean : float32 (D,), optional
        Where the queries' modality has its centre, from training areas: it is not estimated from the queries, or a
        prediction would depend on the other queries. That of the gallery by default.
    pixels : optional
        Pixels of queries and map, for refiners that look at them.
    kept : dict
        What refiners make of the map and find again: it stays with the contexts that `dataclasses.replace` makes of
        this one for other queries.

    Raises
    ------
    ValueError
        Where queries and gallery differ in the size of an embedding.
    """

    gallery: Gallery
    query: NDArray[np.float32] | None = None
    query_mean: NDArray[np.float32] | None = None
    pixels: Pixels | None = None
    kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.query is None:
            return
        if self.query.ndim != 2 or self.query.shape[1] != self.gallery.vectors.shape[1]:
            raise ValueError(
                "query (Q, D) and the gallery's vectors (N, D) must be of one dimension, "
                f"got {self.query.shape} and {self.gallery.vectors.shape}"
            )

    @property
    def reference(self) -> NDArray[np.float32]:
        """Embeddings of all tiles `(N, D)`."""
        return self.gallery.vectors

    @property
    def tile_m(self) -> float:
        """Side of a tile in metres; a ValueError where the gallery does not know it."""
        if self.gallery.tile_m is None:
            raise ValueError("this gallery does not know how wide a tile is in metres (tile_m is None)")
        return self.gallery.tile_m

    @cached_property
    def whitening(self) -> Whitening:
        """The gallery's axes: its principal ones by falling spread, each to be divided by the root of its spread."""
        mean = self.reference.mean(0, dtype=np.float64)
        # the triangle has the same axes and spreads, and no side as long as the gallery
        triangle = np.linalg.qr(self.reference - mean, mode="r")
        _, spread, axes = np.linalg.svd(triangle, full_matrices=True)
        spread = np.pad(spread, (0, len(axes) - len(spread)))
        signs = np.where(axes @ mean < 0, -1.0, 1.0)
        # along axes with hardly any spread there is nothing but noise to raise
        turn = (axes * signs[:, None]).T / np.sqrt(np.maximum(spread / max(spread[0], 1e-12), FLOOR))
        return Whitening(mean if self.query_mean is None else self.query_mean, mean, turn)

    @cached_property
    def whitened(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Queries `(Q, D)` and references `(N, D)` in the gallery's own axes, float32, L2-normalised.

        Each modality's mean is taken out; the gallery's principal axes become the axes, each divided by the square root
        of the spread along it. What all tiles have in common then no longer counts, and axes mean the same for every
        encoder and map, however an encoder happens to be turned. The sign of an axis is that of the gallery's mean
        along it. One that is the mean of its modality has no direction left; all of those are given the same one.
        """
        axes = self.whitening
        return axes.whitened(self.query, "query"), axes.whitened(self.reference, "reference")

    def check(self, candidates: Candidates, requires: Collection[str], name: str) -> None:
        """Raise one ValueError that names what refiner `name` requires and does not find, or lists of other queries."""
        there = {
            "tiles": candidates.tile is not None,
            "vectors": self.query is not None,
            "metres": candidates.places is not None and self.gallery.has_coordinates,
            "pixels": self.pixels is not None,
        }
        missing = [f"{what} ({REQUIREMENTS[what]})" for what in REQUIREMENTS if what in requires and not there[what]]
        if missing:
            raise ValueError(f"refiner {name!r} requires {' and '.join(missing)}, and there is none")
        if self.query is not None and len(candidates) != len(self.query):
            raise ValueError(f"{len(candidates)} lists, but embeddings of {len(self.query)} queries")
        if candidates.tile is not None and candidates.tile.size and candidates.tile.max() >= len(self.gallery):
            raise ValueError(f"tile {candidates.tile.max()} lies outside a gallery of {len(self.gallery)} tiles")


def _directions(rows: NDArray) -> NDArray[np.float32]:
    """Rows brought to length one, those of zeros to the first axis."""
    rows = unit(rows).astype(np.float32)
    rows[~rows.any(1), 0] = 1
    return rows


def unit(rows: NDArray) -> NDArray:
    """Rows brought to length one; a row of zeros stays."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)
