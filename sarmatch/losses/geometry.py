"""Losses that use where two patches lie, not only that they belong together."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.checks import Count, Positive
from sarmatch.losses.batch import EmbeddedBatch
from sarmatch.losses.pairs import similarity
from sarmatch.losses.registry import register_loss


@register_loss("iou_semi_positive")
class IoUSemiPositive(nn.Module):
    """Similarity in proportion to intersection over union: the semi-positive term of VIGOR.

    The mean over all pairs ``i != j`` of a batch that share ground of ``(s_ij / s_ii - IoU_ij / IoU_ii)^2``.

    Parameters
    ----------
    least : float
        Similarities of the positive below this are raised to it. VIGOR has no such bound, and the ratio then jumps
        where a positive is nearly orthogonal.

    Notes
    -----
    Zhu et al., CVPR 2021 (arXiv:2011.12172), equation 3, which takes one semi-positive per query; its code divides
    the term by 10, which is a weight here.
    """

    def __init__(self, least: Positive = 0.1) -> None:
        super().__init__()
        self.least = least

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Loss of a batch; 0, with a gradient path, where no semi-positive is in it.

        Raises
        ------
        ValueError
            Where the batch has no `overlap`.
        """
        if batch.overlap is None:
            raise ValueError("iou_semi_positive needs overlap (B, B), got None")
        cosine = similarity(batch)
        overlap = batch.overlap.to(cosine)
        iou = overlap / (2 - overlap)
        semi = (overlap > 0) & ~torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
        expected = iou / iou.diagonal()[:, None].clamp(min=1e-6)
        ratio = cosine / cosine.diagonal()[:, None].clamp(min=self.least)
        return ((ratio - expected).square() * semi).sum() / semi.sum().clamp(min=1)


@register_loss("offset_regression")
class OffsetRegression(nn.Module):
    """A small network reads from a pair how far apart its two patches were cut; squared error in patch widths.

    Parameters
    ----------
    feature_dim : int
        Numbers in an embedding.
    width : int
        Of the hidden layer.

    Attributes
    ----------
    head : nn.Module
        `(B, 2 feature_dim)` to `(B, 2)`: rows and columns from query to reference.

    Notes
    -----
    VIGOR (Zhu et al., CVPR 2021) regresses the offset from both features by two layers, before their normalisation. So
    does this where the batch has them.
    """

    def __init__(self, feature_dim: int, width: Count = 512) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(2 * feature_dim, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Loss of a batch.

        Raises
        ------
        ValueError
            Where the batch has no `offset`, or one of another shape.
        """
        (query, reference), offset = batch.vectors or (batch.query, batch.reference), batch.offset
        if offset is None or offset.shape != (len(query), 2):
            got = None if offset is None else tuple(offset.shape)
            raise ValueError(f"offset_regression needs offset ({len(query)}, 2), got {got}")
        return F.mse_loss(self.predict(query, reference), offset.to(query))

    def predict(self, query: Tensor, reference: Tensor) -> Tensor:
        """Rows and columns `(B, 2)` from query to reference, in patch widths, of embeddings before normalisation."""
        return self.head(torch.cat([query, reference], dim=1))
