"""Triplet losses."""

import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.losses.pairs import negatives, similarity


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
    >>> SoftMarginTriplet()(z, z)  # a collapsed encoder: every term is log 2
    tensor(0.6931)
    """

    def __init__(self, alpha: float = 10.0, include_diagonal: bool = False) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        self.alpha = alpha
        self.include_diagonal = include_diagonal

    def forward(self, query: Tensor, reference: Tensor, *, overlap: Tensor | None = None) -> Tensor:
        """Loss of a batch.

        Parameters
        ----------
        query, reference : Tensor (B, D)
            L2-normalised; row ``i`` of the one belongs to row ``i`` of the other.
        overlap : Tensor (B, B), optional
            Share of ground that query ``i`` and reference ``j`` have in common. Off-diagonal pairs above
            zero are false negatives and leave the mean.

        Returns
        -------
        Tensor, scalar
            0, with a gradient path, where no negative is left.

        Raises
        ------
        ValueError
            On shapes that do not fit.
        """
        distance = 2 - 2 * similarity(query, reference)
        keep = negatives(distance, overlap)
        count = keep.sum()
        if self.include_diagonal:
            keep.diagonal().copy_(count > 0)
        positive = distance.diagonal()
        of_query = F.softplus(self.alpha * (positive[:, None] - distance))
        of_reference = F.softplus(self.alpha * (positive[None, :] - distance))
        return ((of_query + of_reference) * keep).sum() / (2 * count.clamp(min=1))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, include_diagonal={self.include_diagonal}"
