"""Labelled candidate lists, to learn from or to judge by, and lists made longer by their neighbours."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarmatch.evaluation import mean_reciprocal_rank
from sarmatch.patches import overlap
from sarmatch.refinement.context import RefinementContext
from sarmatch.scenes import NoCoordinatesError
from sarmatch.search import Candidates

LEAST = 0.25  # overlap of the best tile of a seamless grid with any query
NEAR = 0.1  # tile widths from a query within which a peak is its own


class LabelledLists(NamedTuple):
    """Candidate lists with what is true of each candidate.

    `overlap` is float32 `(Q, K)`: how much of the query each candidate holds. A row sums to 1 where the list holds all
    tiles that the query lies on, and to 0 where it holds none of them: what is missing belongs to the class "none of
    these". `shift` is float32 `(Q, K, 2)`: where the query lies as seen from each candidate, in tile widths east and
    north.
    """

    candidates: Candidates
    context: RefinementContext
    overlap: NDArray[np.float32]
    shift: NDArray[np.float32]


def label_lists(candidates: Candidates, context: RefinementContext, query_xy: NDArray) -> LabelledLists:
    """Lists with the overlap of every candidate, from where the queries lie `(Q, 2)` in metres.

    Raises
    ------
    NoCoordinatesError
        Where nobody knows where they lie.
    """
    if query_xy is None:
        raise NoCoordinatesError("this set has no coordinates: lists cannot be labelled by where queries lie")
    query_xy = np.asarray(query_xy)[:, None]
    fraction = np.where(candidates.valid, overlap(candidates.xy, query_xy, context.tile_m), 0)
    shift = (query_xy - candidates.xy) / context.tile_m
    return LabelledLists(candidates, context, fraction.astype(np.float32), shift.astype(np.float32))


def label_peaks(candidates: Candidates, context: RefinementContext, query_xy: NDArray) -> LabelledLists:
    """Lists of dense search: of each, the candidate nearest to the query holds all of it, if it is near at all.

    Near is within `NEAR` tile widths in both directions: what registration leaves open, and closer than peaks lie to
    one another. `query_xy` `(Q, 2)` are metres.
    """
    shift = (np.asarray(query_xy)[:, None] - candidates.xy) / context.tile_m
    apart = np.where(candidates.valid, np.abs(shift).max(-1), np.inf)
    nearest = apart.argmin(1)[:, None] == np.arange(apart.shape[1])
    return LabelledLists(candidates, context, (nearest & (apart <= NEAR)).astype(np.float32), shift.astype(np.float32))


def reorder_labels(lists: LabelledLists, refined: Candidates) -> LabelledLists:
    """The same lists in the order that a refiner has given them, with what is known of each candidate."""
    same = refined.tile[:, :, None] == lists.candidates.tile[:, None, :]
    if refined.tile.shape != lists.candidates.tile.shape or not same.any(2).all():
        raise ValueError("the refined lists do not hold the candidates of these lists")
    order = same.argmax(2)
    fraction = np.take_along_axis(lists.overlap, order, 1)
    return LabelledLists(refined, lists.context, fraction, np.take_along_axis(lists.shift, order[..., None], 1))


def rank_of_best(refined: Candidates, lists: LabelledLists) -> NDArray[np.float64]:
    """Place of the best tile in refined lists `(Q,)` from 0, infinite where a list does not hold it.

    The best tile is the candidate that holds most of the query, if that is a quarter or more: on a seamless grid the
    best of all tiles never holds less.
    """
    best = lists.candidates.tile[np.arange(len(lists.overlap)), lists.overlap.argmax(1)]
    found = (refined.tile == best[:, None]) & (lists.overlap.max(1) >= LEAST)[:, None]
    return np.where(found.any(1), found.argmax(1).astype(float), np.inf)


def reciprocal_rank(refined: Sequence[Candidates], parts: Sequence[LabelledLists]) -> float:
    """Mean reciprocal rank of the best tile over refined lists of several galleries."""
    ranks = [rank_of_best(order, lists) for order, lists in zip(refined, parts, strict=True)]
    return mean_reciprocal_rank(np.concatenate(ranks))


def expanded(candidates: Candidates, context: RefinementContext, best: int = 5, extra: int = 20) -> Candidates:
    """Lists made longer by the map neighbours of their best candidates.

    The ceiling of a refinement is then no longer that of the search: a tile whose neighbour was found can be found.

    Parameters
    ----------
    candidates
        Lists of K.
    context
        Scores the neighbours by their cosine, as the search would have.
    best
        How many candidates of each list bring their neighbours: the tiles whose centre is less than 1.5 tile widths
        away in both directions, eight on a seamless grid.
    extra
        How many are added to each list, those of the best candidates first. Where the neighbours do not suffice, the
        next best of the search fill up.

    Returns
    -------
    Lists of `min(K + extra, N)`, best cosine first.
    """
    context.check(candidates, ("tiles", "vectors", "metres"), "expanded")
    gallery, (count, k) = context.gallery, candidates.scores.shape
    length = min(k + extra, len(gallery))
    cosine = context.query @ context.reference.T
    rows = np.arange(count)[:, None]
    # 0: in the list; then by the place of who brings it; last, those that nobody brings
    turn = np.full(cosine.shape, best + 1)
    for place in reversed(range(min(best, k))):
        apart = np.abs(gallery.xy[None] - gallery.xy[candidates.tile[:, place], None]).max(-1)
        turn[apart < 1.5 * context.tile_m] = 1 + place
    turn[rows, candidates.tile] = 0
    chosen = np.lexsort((-cosine, turn), axis=-1)[:, :length].astype(np.int64)
    scores = cosine[rows, chosen].astype(np.float32)
    longer = Candidates(scores, gallery.xy[chosen], gallery.area[chosen], gallery.areas, tile=chosen)
    return longer.reorder(scores)
