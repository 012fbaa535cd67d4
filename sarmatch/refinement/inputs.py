"""What a network sees of candidate lists: one function, in training and in use."""

from typing import NamedTuple

import torch
from torch import Tensor

from sarmatch.refinement.context import RefinementContext
from sarmatch.search import Candidates


class ListBatch(NamedTuple):
    """Lists as a network sees them.

    score `(Q, K)` is what the list came with; query `(Q, D)` and reference `(Q, K, D)` are embeddings in the gallery's
    own axes, see `RefinementContext.whitened`; xy `(Q, K, 2)` are float64 metres and area `(Q, K)` the number of the
    area they lie in; tile_m is a tile's side; surface `(Q, K, S, S)` is a correlation over all shifts, where required.
    """

    score: Tensor
    query: Tensor
    reference: Tensor
    xy: Tensor
    area: Tensor
    tile_m: float
    surface: Tensor | None = None


def network_inputs(candidates: Candidates, context: RefinementContext, surface: Tensor | None = None) -> ListBatch:
    """The inputs of a network, on the CPU.

    Parameters
    ----------
    candidates
        Lists of K, from tiles.
    context
        Embeddings of their queries and of the gallery.
    surface
        Correlation of every query with the map around its candidates `(Q, K, S, S)`, where the network looks at it.
    """
    query, reference = context.whitened
    arrays = candidates.scores, query, reference[candidates.tile], candidates.xy, candidates.area
    score, own, listed, xy, area = map(torch.from_numpy, arrays)
    return ListBatch(score, own, listed, xy, area, context.tile_m, surface)


def middle_of_list(batch: ListBatch, relative: Tensor) -> Tensor:
    """Score-weighted middle of the candidates of a list that lie in one area, for each of them `(Q, K, 2)` in metres.

    Weights are the softmax of `relative` `(Q, K)`. How far areas lie apart means nothing, so none counts for another.
    """
    # in double precision: weights that miss one by 1e-7 move a northing of 5.7e6 m by half a metre
    centre = batch.xy.mean(1, keepdim=True)
    together = batch.area[:, :, None] == batch.area[:, None, :]
    relative = relative[:, None].to(batch.xy.dtype).expand(together.shape)
    weight = relative.masked_fill(~together, -torch.inf).softmax(2)
    return weight @ (batch.xy - centre) + centre


def to_device(batch: ListBatch, device: torch.device | str) -> ListBatch:
    """The same inputs on a device."""
    return ListBatch(*(v.to(device) if isinstance(v, Tensor) else v for v in batch))


def rows_of(batch: ListBatch, rows: Tensor) -> ListBatch:
    """The inputs of some lists."""
    return ListBatch(*(v[rows] if isinstance(v, Tensor) else v for v in batch))


def concatenated(parts: list[ListBatch]) -> ListBatch:
    """Inputs of several galleries as one; all must have one length, one size of an embedding and one tile size."""
    shapes = {(p.reference.shape[1:], p.tile_m) for p in parts}
    if len(shapes) != 1:
        raise ValueError(f"lists must have one length, embedding and tile size, got {sorted(map(str, shapes))}")
    columns = zip(*parts, strict=True)
    return ListBatch(*(torch.cat(c) if isinstance(c[0], Tensor) else c[0] for c in columns))
