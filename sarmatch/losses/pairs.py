"""What every pair loss needs: the matrix of similarities, and which of its entries are negatives."""

import torch
from torch import Tensor

from sarmatch.losses.batch import EmbeddedBatch


def similarity(batch: EmbeddedBatch) -> Tensor:
    """Cosine of every query with every reference, in float32 or better even under autocast.

    Returns
    -------
    Tensor (B, B)
        ``[i, j]`` is the cosine of query ``i`` and reference ``j``.

    Raises
    ------
    ValueError
        If the embeddings are not matrices of one shape.
    """
    query, reference = batch.query, batch.reference
    if query.ndim != 2 or query.shape != reference.shape or len(query) == 0:
        raise ValueError(
            "query and reference must both be (B, D) with B >= 1, "
            f"got {tuple(query.shape)} and {tuple(reference.shape)}"
        )
    dtype = torch.promote_types(query.dtype, torch.float32)
    # Half precision resolves a cosine near 1 to 5e-4, which a temperature of 0.02 turns into 0.025.
    with torch.autocast(query.device.type, enabled=False):
        return query.to(dtype) @ reference.to(dtype).T


def negatives(pairs: Tensor, overlap: Tensor | None) -> Tensor:
    """Which pairs are true negatives: off the diagonal and, where known, without shared ground.

    Parameters
    ----------
    pairs : Tensor (B, B)
        Any matrix over the pairs; only its shape and device are read.
    overlap : Tensor (B, B) or None
        As in `EmbeddedBatch`. Where it is above zero, or unknown (NaN), an off-diagonal pair is no negative.

    Returns
    -------
    Tensor (B, B) of bool

    Raises
    ------
    ValueError
        If ``overlap`` has another shape than ``pairs``.
    """
    keep = ~torch.eye(len(pairs), dtype=torch.bool, device=pairs.device)
    if overlap is None:
        return keep
    if overlap.shape != pairs.shape:
        raise ValueError(f"overlap must be {tuple(pairs.shape)} for this batch, got {tuple(overlap.shape)}")
    return keep & (overlap.to(pairs.device) <= 0)
