"""What a refiner may look at beside the list itself, and the lists it learns from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from sarmatch.patches import overlap
from sarmatch.search import Candidates

FLOOR = 0.01  # of the largest spread: no axis is raised by more than that of such a one

#: Resolution in pixels per tile to grey images: queries `(Q, r, r)`, and `(N, 2r, 2r)` of the map around every tile.
Images = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of the queries and of the whole gallery.

    Attributes
    ----------
    query : float32 (Q, D)
        Embeddings of the queries, L2-normalised.
    reference : float32 (N, D)
        Embeddings of all references.
    tile_m : float
        Side of a tile in metres; the unit in which a graph measures.
    images : callable, optional
        Pixels, for refiners that look at them: resolution to `(Q, r, r)` of the queries in decibels, and
        `(N, 2r, 2r)` of the map in a window of twice the width around each reference.
    query_mean : float32 (D,), optional
        Where the queries' modality has its centre, from ground that was trained on: it is not known from the queries
        asked, or an answer would depend on what else is asked. That of the references by default.
    parts : tuple of Evidence
        What was joined, where several galleries are one after the other.
    """

    query: np.ndarray
    reference: np.ndarray
    tile_m: float
    images: Images | None = None
    query_mean: np.ndarray | None = None
    parts: tuple["Evidence", ...] = ()

    def __post_init__(self) -> None:
        if self.query.ndim != 2 or self.reference.ndim != 2 or self.query.shape[1] != self.reference.shape[1]:
            raise ValueError(
                "query (Q, D) and reference (N, D) must be of one dimension, "
                f"got {self.query.shape} and {self.reference.shape}"
            )
        if not self.tile_m > 0:
            raise ValueError(f"tile_m must be above 0 metres, got {self.tile_m}")

    @cached_property
    def whitened(self) -> tuple[np.ndarray, np.ndarray]:
        """Queries `(Q, D)` and references `(N, D)` in the gallery's own axes, float32, L2-normalised.

        Each modality's mean is taken out; the gallery's principal axes, by falling spread, become the axes, each
        divided by the square root of the spread along it. What all tiles have in common then no longer counts, and axes
        mean the same for every encoder and map, however an encoder happens to be turned. The sign of an axis is that of
        the gallery's mean along it.
        """
        if self.parts:
            return tuple(np.concatenate(side) for side in zip(*(p.whitened for p in self.parts), strict=True))
        mean = self.reference.mean(0, dtype=np.float64)
        _, spread, axes = np.linalg.svd(self.reference - mean, full_matrices=True)
        spread = np.pad(spread, (0, len(axes) - len(spread)))
        signs = np.where(axes @ mean < 0, -1.0, 1.0)
        # along axes with hardly any spread there is nothing but noise to raise
        turn = (axes * signs[:, None]).T / np.sqrt(np.maximum(spread / max(spread[0], 1e-12), FLOOR))
        centre = mean if self.query_mean is None else self.query_mean
        return _unit((self.query - centre) @ turn), _unit((self.reference - mean) @ turn)

    def check(self, candidates: Candidates) -> None:
        """Raise a ValueError where a list does not belong to this evidence."""
        if len(candidates.indices) != len(self.query):
            raise ValueError(f"{len(candidates.indices)} lists, but embeddings of {len(self.query)} queries")
        if candidates.indices.size and candidates.indices.max() >= len(self.reference):
            raise ValueError(
                f"index {candidates.indices.max()} lies outside a gallery of {len(self.reference)} embeddings"
            )


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)).astype(np.float32)


class Lists(NamedTuple):
    """Candidate lists whose answer is known, to learn from or to judge by.

    `share` is float32 `(Q, K)`: how much of the query's ground each candidate holds. A row sums to 1 where the list
    holds all tiles that the query lies on, and to 0 where it holds none of them: what is missing belongs to the answer
    "none of these". `shift` is float32 `(Q, K, 2)`: where the query lies as seen from each candidate's centre, in tile
    widths east and north.
    """

    candidates: Candidates
    evidence: Evidence
    share: np.ndarray
    shift: np.ndarray


def lists_of(candidates: Candidates, evidence: Evidence, query_xy: np.ndarray) -> Lists:
    """Lists with the share of every candidate, from where the queries lie `(Q, 2)` in metres."""
    evidence.check(candidates)
    query_xy = np.asarray(query_xy)[:, None]
    share = overlap(candidates.xy, query_xy, evidence.tile_m)
    shift = (query_xy - candidates.xy) / evidence.tile_m
    return Lists(candidates, evidence, share.astype(np.float32), shift.astype(np.float32))


def relisted(lists: Lists, refined: Candidates) -> Lists:
    """The same lists in the order that a refiner has given them, with what is known of each candidate."""
    same = refined.indices[:, :, None] == lists.candidates.indices[:, None, :]
    if refined.indices.shape != lists.candidates.indices.shape or not same.any(2).all():
        raise ValueError("the refined lists do not hold the candidates of these lists")
    order = same.argmax(2)
    share = np.take_along_axis(lists.share, order, 1)
    return Lists(refined, lists.evidence, share, np.take_along_axis(lists.shift, order[..., None], 1))


def mean_reciprocal_rank(refined: Candidates, lists: Lists) -> float:
    """How high the best tile stands in refined lists: mean of 1 over its place, 0 where a list does not hold it.

    The best tile is the candidate that holds most of the query, if that is a quarter or more: on a seamless grid the
    best of all tiles never holds less.
    """
    best = lists.candidates.indices[np.arange(len(lists.share)), lists.share.argmax(1)]
    found = (refined.indices == best[:, None]) & (lists.share.max(1) >= 0.25)[:, None]
    return float(np.where(found.any(1), 1 / (found.argmax(1) + 1), 0).mean())


def joined(parts: Sequence[Lists]) -> Lists:
    """Lists of several galleries as one; each keeps to its own gallery. All must have one length and one tile size."""
    lengths, sizes = {p.share.shape[1] for p in parts}, {p.evidence.tile_m for p in parts}
    if len(lengths) != 1 or len(sizes) != 1:
        raise ValueError(f"lists must have one length and tile size, got lengths {lengths} and sizes {sizes} m")
    starts = np.cumsum([0, *(len(p.evidence.reference) for p in parts)])
    candidates = Candidates(
        np.concatenate([p.candidates.indices + start for p, start in zip(parts, starts, strict=False)]),
        np.concatenate([p.candidates.scores for p in parts]),
        np.concatenate([p.candidates.positions for p in parts]),
    )
    images = None
    if all(p.evidence.images is not None for p in parts):

        def images(resolution: int) -> tuple[torch.Tensor, torch.Tensor]:
            both = [p.evidence.images(resolution) for p in parts]
            return tuple(torch.cat(side) for side in zip(*both, strict=True))

    evidence = Evidence(
        np.concatenate([p.evidence.query for p in parts]),
        np.concatenate([p.evidence.reference for p in parts]),
        sizes.pop(),
        images,
        parts=tuple(p.evidence for p in parts),
    )
    share, shift = (np.concatenate([getattr(p, name) for p in parts]) for name in ("share", "shift"))
    return Lists(candidates, evidence, share, shift)


def reordered(candidates: Candidates, scores: np.ndarray, offsets: np.ndarray | None = None) -> Candidates:
    """The same candidates by new scores `(Q, K)`, best first; `offsets` `(Q, K, 2)` go with them."""
    scores = np.asarray(scores, dtype=np.float32)
    if scores.shape != candidates.scores.shape:
        raise ValueError(f"scores must be {candidates.scores.shape}, one per candidate, got {scores.shape}")
    order = np.argsort(-scores, axis=1, kind="stable")
    if offsets is None:
        offsets = candidates.offsets
    return Candidates(
        np.take_along_axis(candidates.indices, order, 1),
        np.take_along_axis(scores, order, 1),
        candidates.positions,
        None if offsets is None else np.take_along_axis(np.asarray(offsets, np.float64), order[..., None], 1),
    )


def expanded(candidates: Candidates, evidence: Evidence, best: int = 5, extra: int = 20) -> Candidates:
    """Lists made longer by the map neighbours of their best candidates.

    The ceiling of a refinement is then no longer that of the search: a tile whose neighbour was found can be found.

    Parameters
    ----------
    candidates
        Lists of K.
    evidence
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
    evidence.check(candidates)
    count, k = candidates.indices.shape
    positions = candidates.positions
    if positions is None:
        raise ValueError("this set has no coordinates: candidates have no neighbours on a map")
    length = min(k + extra, len(positions))
    cosine = evidence.query @ evidence.reference.T
    rows = np.arange(count)[:, None]
    # how welcome a tile is: those of the list, then neighbours by the place of who brings them, then the rest
    welcome = cosine.astype(np.float64)
    for place in range(min(best, k) - 1, -1, -1):
        apart = np.abs(positions[None] - candidates.xy[:, place, None]).max(-1)
        welcome[(apart < 1.5 * evidence.tile_m) & (apart > 0)] = 10 + 10 * (best - place)
    welcome += np.where(welcome >= 10, cosine, 0)
    welcome[rows, candidates.indices] = 1e6
    chosen = np.argpartition(-welcome, length - 1, axis=1)[:, :length]
    scores = cosine[rows, chosen]
    return reordered(Candidates(chosen.astype(np.int64), scores.astype(np.float32), positions), scores)
