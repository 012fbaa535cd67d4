"""Refiners without training: a new score for every candidate from what the search already knew, or from pixels.

Each has a few numbers to choose; `fit` tries a short list of choices on labelled candidate lists, as a learned
refiner would learn from them, so that none is compared at a setting it had no chance to improve.
"""

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from sarmatch.checks import Count, Fraction, NonNegative, Positive
from sarmatch.refinement.context import RefinementContext, unit
from sarmatch.refinement.correlation import peaks, surfaces
from sarmatch.refinement.refiners import Scored, register_refiner
from sarmatch.search import Candidates

VECTORS = ("tiles", "vectors")
PLACED = ("tiles", "vectors", "metres")


@register_refiner("coarse", ())
def coarse(candidates: Candidates, context: RefinementContext) -> Scored:
    """The search as it is."""
    return candidates.scores, None


@register_refiner("whitened", VECTORS)
def whitened(candidates: Candidates, context: RefinementContext) -> Scored:
    """The cosine in the gallery's own axes, each modality's mean taken out (see `RefinementContext.whitened`).

    It is what learned refiners are given to see, so that it is the baseline of what they make of it.
    """
    query, reference = context.whitened
    return np.take_along_axis(query @ reference.T, candidates.tile, 1), None


@register_refiner("query_expansion", VECTORS, alpha=(1.0, 3.0), best=(1, 3, 10))
def query_expansion(
    candidates: Candidates, context: RefinementContext, alpha: NonNegative = 3.0, best: Count = 5
) -> Scored:
    """Alpha query expansion (Radenovic et al., TPAMI 2019): the query moves towards its best candidates.

    `q' = q + sum over the best of s^alpha r`, then cosines anew. Across modalities it mixes optical features into a SAR
    query.
    """
    first, weight = candidates.tile[:, :best], candidates.scores[:, :best].clip(min=0) ** alpha
    moved = context.query + (weight[..., None] * context.reference[first]).sum(1)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return _cosines(moved, candidates, context), None


@register_refiner("super_global", VECTORS, best=(3, 9), beta=(0.15, 0.5))
def super_global(
    candidates: Candidates, context: RefinementContext, best: Count = 9, beta: NonNegative = 0.15
) -> Scored:
    """SuperGlobal's re-ranking (Shao et al., ICCV 2023).

    Every candidate becomes the mean of itself and its nearest in the list, those weighted by `beta`; the query becomes
    the maximum over itself and its best candidates, entry by entry. The new score is the mean of the two cosines, of
    the old query with new candidates and of the new query with old ones.
    """
    listed = context.reference[candidates.tile]
    count, k, _ = listed.shape
    alike = np.einsum("qid,qjd->qij", listed, listed)
    best = min(best, k)
    nearest = np.argpartition(-alike, best - 1, axis=2)[:, :, :best]
    weight = np.zeros_like(alike)
    np.put_along_axis(weight, nearest, beta, axis=2)
    weight[:, np.arange(k), np.arange(k)] = 1.0
    refined = np.einsum("qij,qjd->qid", weight, listed) / weight.sum(2, keepdims=True)
    refined /= np.linalg.norm(refined, axis=2, keepdims=True)
    moved = np.maximum(context.query, context.reference[candidates.tile[:, :best]].max(1))
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    first = np.einsum("qd,qkd->qk", context.query, refined)
    return (first + _cosines(moved, candidates, context)) / 2, None


@register_refiner("diffusion", VECTORS, k=(5, 10, 20), alpha=(0.5, 0.9))
def diffusion(candidates: Candidates, context: RefinementContext, k: Count = 10, alpha: Fraction = 0.9) -> Scored:
    """Diffusion over the graph of all references (Zhou et al., NIPS 2003; Iscen et al., CVPR 2017).

    `f = (1 - alpha) (I - alpha D^-1/2 A D^-1/2)^-1 y`, with `A` the cosines cubed between mutual k nearest references,
    and `y` those of the query with its k nearest. Solved exactly, once for all queries.
    """
    alike = _nearest_only((context.reference @ context.reference.T).astype(np.float64), k, own=False)
    alike = np.minimum(alike, alike.T)
    degree = alike.sum(1).clip(min=1e-12)
    walk = alike / np.sqrt(degree[:, None] * degree)
    start = _nearest_only((context.query @ context.reference.T).astype(np.float64), k, own=True)
    spread = (1 - alpha) * np.linalg.solve(np.eye(len(walk)) - alpha * walk, start.T).T
    # where diffusion does not reach, the search decides, far below
    spread = np.take_along_axis(spread, candidates.tile, 1)
    return spread + 1e-6 * candidates.scores, None


@register_refiner("k_reciprocal", VECTORS, k1=(10, 20), k2=(3, 6), weight=(0.3, 0.6))
def k_reciprocal(
    candidates: Candidates, context: RefinementContext, k1: Count = 20, k2: Count = 6, weight: NonNegative = 0.3
) -> Scored:
    """Re-ranking by k-reciprocal neighbours (Zhong et al., CVPR 2017) over queries and references together.

    Each patch is described by its k1-reciprocal nearest neighbours, those of which that share two thirds of theirs with
    it bring them along; descriptions are averaged over the k2 nearest. The score is minus
    `(1 - weight) Jaccard + weight d`, with `d` the squared Euclidean distance divided by the largest of each row.
    """
    both = np.concatenate([context.query, context.reference]).astype(np.float64)
    distance = (2 - 2 * both @ both.T).clip(min=0)
    distance = distance / distance.max(1, keepdims=True)
    total = len(both)
    order = np.argsort(distance, axis=1, kind="stable")

    def reciprocal(k: int) -> np.ndarray:
        near = np.zeros((total, total), bool)
        np.put_along_axis(near, order[:, : k + 1], True, axis=1)
        return near & near.T

    near, half = reciprocal(k1), reciprocal(int(np.around(k1 / 2)))
    shared = half.astype(np.float32) @ near.T.astype(np.float32)  # [j, i]: how many of j's are also i's
    brings = near & (2 / 3 * half.sum(1) < shared.T)
    members = near | (brings.astype(np.float32) @ half.astype(np.float32) > 0)
    described = np.where(members, np.exp(-distance), 0.0)
    described /= described.sum(1, keepdims=True)
    if k2 > 1:
        described = described[order[:, :k2]].mean(1)
    count = len(context.query)
    rows = np.arange(count)
    shared_mass = np.empty(candidates.scores.shape)
    for place, listed in enumerate(candidates.tile.T):
        shared_mass[:, place] = np.minimum(described[rows], described[count + listed]).sum(1)
    jaccard = 1 - shared_mass / (2 - shared_mass)
    own = distance[rows[:, None], count + candidates.tile]
    return -((1 - weight) * jaccard + weight * own), None


@register_refiner("graph_reranking", VECTORS, k1=(10, 26), k2=(3, 7))
def graph_reranking(
    candidates: Candidates, context: RefinementContext, k1: Count = 26, k2: Count = 7, rounds: Count = 2
) -> Scored:
    """Parameter-free graph re-ranking (Zhang et al., arXiv 2012.07620) over queries and references together.

    A patch is described by which patches are its k1 nearest, averaged with its mirror; twice, it becomes the sum over
    its k2 nearest weighted by their squared cosines. The score is the cosine of descriptions.
    """
    both = np.concatenate([context.query, context.reference]).astype(np.float64)
    cosine = both @ both.T
    total = len(both)
    order = np.argsort(-cosine, axis=1, kind="stable")
    adjacent = np.zeros((total, total))
    np.put_along_axis(adjacent, order[:, :k1], 1.0, axis=1)
    described = (adjacent + adjacent.T) / 2
    spread = np.zeros((total, total))
    first = order[:, :k2]
    np.put_along_axis(spread, first, np.take_along_axis(cosine, first, 1) ** 2, axis=1)
    for _ in range(rounds):
        described = spread @ described
        described /= np.linalg.norm(described, axis=1, keepdims=True)
    count = len(context.query)
    scores = described[:count] @ described[count:].T
    return np.take_along_axis(scores, candidates.tile, 1), None


@register_refiner("geographic_vote", PLACED, weight=(0.1, 0.25, 0.5), temperature=(0.05, 0.1, 0.2))
def geographic_vote(
    candidates: Candidates, context: RefinementContext, weight: NonNegative = 0.25, temperature: Positive = 0.1
) -> Scored:
    """Every candidate is joined by its neighbours on the map.

    `e_k + weight sum_j e_j` with `e = exp(s / temperature)`, over all tiles of the gallery whose centre lies less than
    1.5 tile widths away in both directions: eight on a seamless grid.
    """
    around = Neighbourhood(context.gallery.xy, context.tile_m)
    near = around.matrix((np.abs(around.apart).max(1) > 0).astype(float))
    cosine = (context.query @ context.reference.T).astype(np.float64)
    voice = np.exp((cosine - cosine.max(1, keepdims=True)) / temperature)
    joined = np.log(voice + weight * (near @ voice.T).T)
    return np.take_along_axis(joined, candidates.tile, 1), None


@register_refiner("matched_filter", PLACED, power=(0.5, 1.0, 2.0), prior=(0.0, 0.5, 2.0))
def matched_filter(
    candidates: Candidates,
    context: RefinementContext,
    steps: Count = 8,
    power: Positive = 1.0,
    prior: NonNegative = 0.5,
) -> Scored:
    """Where would the query have to lie to explain its similarities, if these follow the overlap?

    For every place p within half a tile of a candidate, on a lattice of `steps` per tile: `sum_k o_k(p) t_k` divided by
    `sqrt(sum_k o_k(p)^2)`, with `o_k(p)` the overlap of tile k of the gallery with a query at p, raised to `power`, and
    `t_k` the cosine minus the query's mean over the gallery. A candidate scores its best place, plus `prior` times
    its own cosine; that is its place.
    """
    around = Neighbourhood(context.gallery.xy, context.tile_m)
    cosine = (context.query @ context.reference.T).astype(np.float64)
    raised = cosine - cosine.mean(1, keepdims=True)
    lattice = _lattice(steps)
    best = np.full(cosine.shape, -np.inf)
    where = np.zeros(best.shape, np.int64)
    for number, shift in enumerate(lattice):
        held = around.overlaps(shift).power(power)  # [place, tile]
        length = np.sqrt(held.power(2).sum(1)).clip(min=1e-12)
        fit = (held @ raised.T).T / np.asarray(length).ravel()
        better = fit > best
        best[better] = fit[better]
        where[better] = number
    rows = np.arange(len(cosine))[:, None]
    places = context.gallery.xy[candidates.tile] + lattice[where[rows, candidates.tile]] * context.tile_m
    return best[rows, candidates.tile] + prior * candidates.scores, places


@register_refiner("interpolated_map", PLACED, prior=(0.0, 0.5, 1.0), whitened=(True, False))
def interpolated_map(
    candidates: Candidates,
    context: RefinementContext,
    steps: Count = 8,
    prior: NonNegative = 0.5,
    whitened: bool = True,
) -> Scored:
    """The query against what the map's embedding would be between the tiles.

    At a place p it is taken for the mean of the tiles' embeddings, weighted by the overlap `o_k(p)` of each with a
    patch at p, brought back to length one. A candidate scores the highest cosine of the query with any place within
    half a tile of it, on a lattice of `steps` per tile, plus `prior` times its own; that is its place.

    With `whitened`, embeddings are those of `RefinementContext.whitened`.
    """
    pair = context.whitened if whitened else (context.query, context.reference)
    query, reference = (z.astype(np.float64) for z in pair)
    around, lattice = Neighbourhood(context.gallery.xy, context.tile_m), _lattice(steps)
    best = np.full((len(query), len(reference)), -np.inf)
    where = np.zeros(best.shape, np.int64)
    for number, shift in enumerate(lattice):
        cosine = query @ unit(around.overlaps(shift) @ reference).T
        better = cosine > best
        best[better], where[better] = cosine[better], number
    rows = np.arange(len(query))[:, None]
    own = (query @ reference.T)[rows, candidates.tile]
    places = context.gallery.xy[candidates.tile] + lattice[where[rows, candidates.tile]] * context.tile_m
    return best[rows, candidates.tile] + prior * own, places


@register_refiner("correlation", ("pixels", "metres"))  # choosing would mean to look at all pixels again
def correlation(
    candidates: Candidates,
    context: RefinementContext,
    best: Count | None = None,
    resolution: Count = 50,
    weight: NonNegative = 0.1,
) -> Scored:
    """Dense correlation of gradient channels in the first tiles (CFOG; Ye et al., 2019).

    A candidate scores the highest correlation of the query with the map around it, plus `weight` times its cosine;
    where the peak lies is its place. With `best`, candidates behind the first so many stay behind, in
    their order.
    """
    first = candidates.first(best)
    scores, places = candidates.scores.astype(np.float64) - 10, candidates.xy.copy()
    height, shift = [], []
    for surface, off in surfaces(first, context, resolution):
        value, place = peaks(surface, context.tile_m)
        height.append(value)
        shift.append(place - off)
    scores[:, :best] = np.concatenate(height) + weight * first.scores
    places[:, :best] += np.concatenate(shift)
    return scores, places


def _cosines(queries: np.ndarray, candidates: Candidates, context: RefinementContext) -> np.ndarray:
    return np.take_along_axis(queries @ context.reference.T, candidates.tile, 1)


def _nearest_only(cosine: np.ndarray, k: int, own: bool) -> np.ndarray:
    """Cosines cubed of the k nearest in each row, 0 elsewhere; without `own` the diagonal does not count."""
    if not own:
        np.fill_diagonal(cosine, -np.inf)
    k = min(k, cosine.shape[1] - (not own))
    chosen = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    kept = np.zeros_like(cosine)
    np.put_along_axis(kept, chosen, np.take_along_axis(cosine, chosen, 1).clip(min=0) ** 3, axis=1)
    return kept


def _lattice(steps: int) -> np.ndarray:
    """Places within half a tile of its centre, tile widths `((steps + 1)^2, 2)`."""
    line = np.arange(-steps // 2, steps // 2 + 1) / steps
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


class Neighbourhood:
    """Which tiles of a map lie less than 1.5 tile widths from which, on both axes: sparse, however large the map is.

    Attributes
    ----------
    apart : float64 (P, 2)
        Of every such pair, a tile and itself included: how far the second lies from the first, in tile widths.
    """

    def __init__(self, positions: np.ndarray, tile_m: float) -> None:
        self.count = len(positions)
        tree = cKDTree(positions / tile_m)
        pairs = tree.query_pairs(1.5 * (1 - 1e-9), p=np.inf, output_type="ndarray")
        own = np.arange(self.count)
        self.first = np.concatenate([pairs[:, 0], pairs[:, 1], own])
        self.second = np.concatenate([pairs[:, 1], pairs[:, 0], own])
        self.apart = (positions[self.second] - positions[self.first]) / tile_m

    def matrix(self, values: np.ndarray) -> csr_matrix:
        """Values of the pairs `(P,)` as `(N, N)`."""
        return csr_matrix((values, (self.first, self.second)), shape=(self.count, self.count))

    def overlaps(self, shift: np.ndarray) -> csr_matrix:
        """Fraction that each tile holds of a patch that lies `shift` tile widths from the centre of each `(N, N)`."""
        return self.matrix(np.clip(1 - np.abs(self.apart - shift), 0, None).prod(1))
