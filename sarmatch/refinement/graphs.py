"""Graphs over candidate lists: which candidates are neighbours of which.

An arbitrary query overlaps up to four neighbouring tiles with fractions that sum to one, so the truth comes in
clusters on the map: an edge between candidates that are neighbours in metres is where it can be put together.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from sarmatch.checks import whole_number

TIE = 1e-6  # tile widths, or lengths of an embedding, within which two are equally near

#: `(place (Q, K, 2) in tile widths, features (Q, K, D), k, reach, generator)` to bool `(Q, K, K)`: i receives from j.
Adjacency = Callable[[Tensor, Tensor, int, float, torch.Generator], Tensor]


def _distance(points: Tensor) -> Tensor:
    """Between all nodes of a graph, infinite to oneself; by differences, as squares of products lose digits."""
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.masked_fill(_own(points), torch.inf)


def _own(points: Tensor) -> Tensor:
    return torch.eye(points.shape[1], dtype=torch.bool, device=points.device)


def _nearest(distance: Tensor, k: int) -> Tensor:
    """The `k` nearest others of every node, and all that are as near as the last: no order of nodes decides."""
    furthest = distance.kthvalue(min(k, distance.shape[-1] - 1), dim=-1, keepdim=True).values
    return distance <= furthest * (1 + 1e-9) + TIE


def _metres(place: Tensor, features: Tensor, k: int, reach: float, generator: torch.Generator) -> Tensor:
    distance = _distance(place)
    return _nearest(distance, k) & (distance <= reach + TIE)


def _features(place: Tensor, features: Tensor, k: int, reach: float, generator: torch.Generator) -> Tensor:
    return _nearest(_distance(features), k)


def _full(place: Tensor, features: Tensor, k: int, reach: float, generator: torch.Generator) -> Tensor:
    return ~_none(place, features, k, reach, generator)


def _none(place: Tensor, features: Tensor, k: int, reach: float, generator: torch.Generator) -> Tensor:
    return torch.zeros(len(place), place.shape[1], place.shape[1], dtype=torch.bool, device=place.device)


def _random(place: Tensor, features: Tensor, k: int, reach: float, generator: torch.Generator) -> Tensor:
    """As many as the graph of metres gives to every node, from anywhere."""
    wanted = _metres(place, features, k, reach, generator).sum(-1, keepdim=True)
    noise = torch.rand(len(place), place.shape[1], place.shape[1], generator=generator).to(place.device)
    rank = noise.masked_fill(_own(place), torch.inf).argsort(-1).argsort(-1)
    return rank < wanted


def _shuffled(place: Tensor, features: Tensor, k: int, reach: float, generator: torch.Generator) -> Tensor:
    """The graph of metres with its nodes randomly permuted: the same structure, between others."""
    adjacent = _metres(place, features, k, reach, generator)
    order = torch.rand(place.shape[:2], generator=generator).argsort(1).to(place.device)
    rows = order[:, :, None].expand_as(adjacent)
    return adjacent.gather(1, rows).gather(2, order[:, None, :].expand_as(adjacent))


def _angle(place: Tensor, features: Tensor, k: int, reach: float, generator: torch.Generator) -> Tensor:
    """As CMPC's published code has it (Li et al., 2023): every position divided by its own length, metres vanish."""
    return _nearest(_distance(F.normalize(place, dim=-1)), k)


EDGES: dict[str, Adjacency] = {
    "metres": _metres,
    "features": _features,
    "full": _full,
    "none": _none,
    "random": _random,
    "shuffled": _shuffled,
    "angle": _angle,
}


def candidate_graphs(
    xy: Tensor,
    features: Tensor,
    tile_m: float,
    edges: str = "metres",
    k: int = 8,
    reach: float = 2.0,
    seed: int = 0,
) -> Data:
    """One graph per query over its candidates.

    Every node is its own neighbour. With `edges="none"` it has no other, and a graph network is an MLP of exactly the
    same parameters.

    Parameters
    ----------
    xy : float64 (Q, K, 2)
        Positions in metres. They are taken relative to their list, in double precision, so that coordinates as large as
        UTM's lose nothing.
    features : (Q, K, D)
        What `edges="features"` measures distance by: one row per candidate.
    tile_m
        Side of a tile, metres.
    edges
        One of `EDGES`: `metres` (the k nearest on the map), `features` (the k nearest in the embedding, as CMPC's
        released configs have it), `full`, `none`, `random` (as many, from anywhere), `shuffled` (the graph of metres
        with its nodes exchanged), `angle` (CMPC's positions without their length).
    k
        Neighbours of a node.
    reach
        An edge of `metres` is no longer than so many tile widths: a node far from all others is its own alone.
    seed
        Of `random` and `shuffled`.

    Returns
    -------
    All graphs as one `torch_geometric.data.Data` of `Q K` nodes, list after list, as PyG batches them: `edge_index`
    `(2, E)` from source node to target node; `edge_attr` float32 `(E, 3)`, displacement of the source from the target
    in tile widths, east and north, and its length; `batch` `(Q K,)`, the query of each node.

    Raises
    ------
    ValueError
        For a name nobody knows, or shapes that do not fit.
    """
    if edges not in EDGES:
        raise ValueError(f"no edges are called {edges!r}; there are {sorted(EDGES)}")
    whole_number("k", k)
    if not reach > 0 or not 0 < tile_m < math.inf:
        raise ValueError(f"reach and tile_m must be positive numbers, got {reach} and {tile_m}")
    xy = torch.as_tensor(xy, dtype=torch.float64)
    if xy.ndim != 3 or xy.shape[-1] != 2 or features.shape[:2] != xy.shape[:2]:
        raise ValueError(f"xy must be (Q, K, 2) and features (Q, K, D), got {tuple(xy.shape)}, {tuple(features.shape)}")
    generator = torch.Generator().manual_seed(seed)
    count, size = xy.shape[:2]
    centred = (xy - xy.mean(1, keepdim=True)) / tile_m
    choose = EDGES[edges] if size > 1 else _none
    receives = choose(xy if edges == "angle" else centred, features, k, reach, generator)
    receives |= _own(xy)
    query, target, source = receives.nonzero(as_tuple=True)
    shift = (centred[query, source] - centred[query, target]).float()
    return Data(
        edge_index=torch.stack([source, target]) + query * size,
        edge_attr=torch.cat([shift, shift.norm(dim=1, keepdim=True)], dim=1),
        num_nodes=count * size,
        batch=torch.arange(count, device=xy.device).repeat_interleave(size),
    )
