"""Triplet losses."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.checks import Positive
from sarmatch.losses.batch import EmbeddedBatch
from sarmatch.losses.pairs import negatives, similarity
from sarmatch.losses.registry import register_loss


@register_loss("soft_margin_triplet")
class SoftMarginTriplet(nn.Module):
    """Soft-margin triplet loss over all pairs of a batch, in both directions.

    The mean of ``log(1 + exp(alpha * (d2_pos - d2_neg)))`` with ``d2 = 2 - 2 cos``, over every (query, its
    reference, another reference) and every (reference, its query, another query).

    Parameters
    ----------
    alpha : float
        Steepness on the *squared distance*. TransGeo writes the same loss on the cosine, where its 20 is
        our 10.
    include_diagonal : bool
        Add the ``B`` terms in which the positive plays its own negative, as the code of SAFA and VIGOR does
        while dividing by the number of the others. Raises the value by ``log(2) / (B - 1)``, leaves the
        gradient alone.

    Notes
    -----
    CVM-Net (Hu et al., CVPR 2018) for the loss; SAFA (Shi et al., NeurIPS 2019) and VIGOR (Zhu et al., CVPR
    2021) for the exhaustive form with alpha 10; TransGeo (Zhu et al., CVPR 2022) for the cosine form.

    Examples
    --------
    >>> import torch
    >>> z = torch.nn.functional.normalize(torch.ones(2, 4), dim=1)
    >>> SoftMarginTriplet()(EmbeddedBatch(z, z))  # a collapsed encoder: every term is log 2
    tensor(0.6931)
    """

    def __init__(self, alpha: Positive = 10.0, include_diagonal: bool = False) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        self.alpha = alpha
        self.include_diagonal = include_diagonal

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Loss of a batch.

        Off-diagonal pairs that share ground are false negatives and leave the mean.

        Returns
        -------
        Tensor, scalar
            0, with a gradient path, where no negative is left.

        Raises
        ------
        ValueError
            On shapes that do not fit.
        """
        distance = 2 - 2 * similarity(batch)
        keep = negatives(distance, batch.overlap)
        count = keep.sum()
        if self.include_diagonal:
            keep.diagonal().copy_(count > 0)
        positive = distance.diagonal()
        of_query = F.softplus(self.alpha * (positive[:, None] - distance))
        of_reference = F.softplus(self.alpha * (positive[None, :] - distance))
        return ((of_query + of_reference) * keep).sum() / (2 * count.clamp(min=1))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, include_diagonal={self.include_diagonal}"


@register_loss("batch_hard_triplet")
class BatchHardTriplet(nn.Module):
    """Triplet loss with the hardest negative of the batch, in both directions.

    The mean of ``max(0, d2_pos - min d2_neg + margin)`` with ``d2 = 2 - 2 cos``, over every query with its nearest
    wrong reference and every reference with its nearest wrong query.

    Parameters
    ----------
    margin : float
        On the *squared* distance, as CMPC has it.

    Notes
    -----
    Hermans et al., arXiv:1703.07737; on squared distances with margin 0.5 in CMPC (IEEE JSTARS 2023).

    Examples
    --------
    >>> import torch
    >>> z = torch.nn.functional.normalize(torch.ones(2, 4), dim=1)
    >>> BatchHardTriplet()(EmbeddedBatch(z, z))  # a collapsed encoder: the margin
    tensor(0.5000)
    """

    def __init__(self, margin: Positive = 0.5) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f"margin must be above 0, got {margin}")
        self.margin = margin

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Loss of a batch; an anchor without any negative adds nothing."""
        distance = 2 - 2 * similarity(batch)
        nearest = distance.masked_fill(~negatives(distance, batch.overlap), math.inf)
        positive = distance.diagonal()
        terms = [F.relu(positive - nearest.amin(dim) + self.margin) for dim in (0, 1)]
        count = sum(nearest.isfinite().any(dim).sum() for dim in (0, 1))
        return (terms[0] + terms[1]).sum() / count.clamp(min=1) + 0 * positive.sum()

    def extra_repr(self) -> str:
        return f"margin={self.margin}"


@register_loss("semi_hard_triplet")
class SemiHardTriplet(nn.Module):
    """Soft-margin triplet loss on the closest negatives only: of each anchor as many as the root of the batch.

    Parameters
    ----------
    alpha : float
        Steepness on the squared distance.

    Notes
    -----
    The "semi-triplet" of SAIG (Zhu et al., arXiv:2302.01572). Not the semi-hard triplets of FaceNet, which are
    further than the positive.
    """

    def __init__(self, alpha: Positive = 10.0) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        self.alpha = alpha

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Loss of a batch."""
        distance = 2 - 2 * similarity(batch)
        masked = distance.masked_fill(~negatives(distance, batch.overlap), math.inf)
        positive, count = distance.diagonal(), max(1, math.isqrt(len(distance)))
        terms = []
        for near in (masked, masked.T):
            closest = near.topk(count, largest=False).values
            terms.append(F.softplus(self.alpha * (positive[:, None] - closest)))  # 0 where no negative is left
        found = sum((t > 0).sum() for t in terms)
        return (terms[0].sum() + terms[1].sum()) / found.clamp(min=1) + 0 * positive.sum()

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"
