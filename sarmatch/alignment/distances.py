"""Alignments by a distance between distributions that can be written down and differentiated: no critic."""

from typing import Annotated

import ot
import torch
from pydantic import Field
from torch import Tensor

from sarmatch.alignment.base import Alignment
from sarmatch.alignment.registry import register_alignment
from sarmatch.checks import Count, Positive
from sarmatch.evaluation.discrepancy import sinkhorn_divergence


@register_alignment("sliced")
class SlicedWasserstein(Alignment):
    """Squared sliced Wasserstein-2 distance (Bonneel et al., 2015): the mean over random directions of that on a line.

    Times the number of dimensions, so that a shift of one set by a vector costs its squared length, as in the full
    distance.

    Parameters
    ----------
    feature_dim
        Numbers in an embedding.
    projections
        Directions, drawn anew at every call.
    """

    def __init__(self, feature_dim: int, projections: Count = 128) -> None:
        super().__init__(feature_dim)
        self.projections = projections

    def loss(self, query: Tensor, reference: Tensor) -> Tensor:
        directions = torch.randn(self.feature_dim, self.projections).to(query)
        directions = directions / directions.norm(dim=0)
        return self.feature_dim * ot.sliced_wasserstein_distance(query, reference, projections=directions, p=2).square()


@register_alignment("sinkhorn")
class SinkhornDivergence(Alignment):
    """Entropic optimal transport without its bias: ``OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2`` on squared distances.

    Parameters
    ----------
    feature_dim
        Numbers in an embedding.
    blur
        Length below which the transport blurs; the regularisation is its square.
    iterations
        Of Sinkhorn's algorithm, in the logarithmic domain.

    Notes
    -----
    Feydy et al., AISTATS 2019 (arXiv:1810.08278). By the envelope theorem the gradient flows through the cost alone,
    with the transport plan held fixed.
    """

    def __init__(self, feature_dim: int, blur: Positive = 0.1, iterations: Count = 50) -> None:
        super().__init__(feature_dim)
        self.blur, self.iterations = blur, iterations

    def loss(self, query: Tensor, reference: Tensor) -> Tensor:
        return sinkhorn_divergence(query, reference, self.blur, self.iterations)


@register_alignment("mmd")
class MaximumMeanDiscrepancy(Alignment):
    """Squared maximum mean discrepancy with Gaussian kernels of several widths (Gretton et al., JMLR 2012).

    The biased estimate, which is never below zero.

    Parameters
    ----------
    feature_dim
        Numbers in an embedding.
    widths
        Of the kernels, as multiples of the median distance within both sets together.
    """

    def __init__(
        self, feature_dim: int, widths: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    ) -> None:
        super().__init__(feature_dim)
        self.widths = widths

    def loss(self, query: Tensor, reference: Tensor) -> Tensor:
        both = torch.cat([query, reference])
        squared = ot.dist(both, both)
        median = squared.detach()[~torch.eye(len(both), dtype=torch.bool, device=both.device)].median()
        kernel = sum(torch.exp(-squared / (2 * w**2 * median.clamp(min=1e-12))) for w in self.widths)
        n = len(query)
        return (kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()) / len(self.widths)


@register_alignment("coral")
class Coral(Alignment):
    """Distance of means and covariances: ``|m1 - m2|^2 + |C1 - C2|_F^2``.

    Notes
    -----
    Deep CORAL (Sun and Saenko, ECCV 2016 workshops) has the second term, over ``4 D^2``, and leaves the means apart; an
    encoder's last bias could keep them so.
    """

    def loss(self, query: Tensor, reference: Tensor) -> Tensor:
        means = (query.mean(0) - reference.mean(0)).square().sum()
        spread = [torch.cov(z.T).reshape(self.feature_dim, self.feature_dim) for z in (query, reference)]
        return means + (spread[0] - spread[1]).square().sum()
