"""A gallery whose embeddings vary smoothly over the ground, and queries between its tiles."""

import numpy as np

from sarmatch.refinement import LabelledLists, RefinementContext, label_lists
from sarmatch.search import Candidates, Gallery, VectorSearch

TILE = 100.0


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def grid(side: int, origin: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    line = np.arange(side) * TILE
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2) + np.array(origin)


def context_of(query: np.ndarray, reference: np.ndarray, positions: np.ndarray, **more) -> RefinementContext:
    """Queries and a gallery of one area with tiles of `TILE` metres."""
    return RefinementContext(Gallery.of_vectors(reference, positions, TILE), query, **more)


def whole_gallery(context: RefinementContext) -> Candidates:
    """The queries of a context with all tiles in their lists, in gallery order."""
    gallery = context.gallery
    cosine = (context.query @ context.reference.T).astype(np.float32)
    every = np.tile(np.arange(len(gallery)), (len(cosine), 1))
    return Candidates(cosine, gallery.xy[every], gallery.area[every], gallery.areas, tile=every)


def world(
    side: int = 8, count: int = 40, k: int = 12, noise: float = 0.3, seed: int = 0, origin=(0.0, 0.0), dim: int = 16
) -> tuple[LabelledLists, np.ndarray]:
    """Lists over a grid, and where the queries lie; a query's embedding is the overlap-weighted mean of its tiles'."""
    rng = np.random.default_rng(seed)
    positions = grid(side, origin)
    reference = unit(rng.normal(size=(len(positions), dim)))
    place = rng.uniform(0, (side - 1) * TILE, (count, 2)) + np.array(origin)
    apart = np.abs(place[:, None] - positions[None]) / TILE
    share = np.clip(1 - apart, 0, None).prod(-1)
    query = unit(unit(share @ reference) + noise * rng.normal(size=(count, dim)) / np.sqrt(dim))
    context = context_of(query, reference, positions)
    return label_lists(VectorSearch(context.gallery).search(query, k), context, place), place
