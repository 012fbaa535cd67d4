"""Losses of dense search: where in which window of the map does a query lie, among all shifts of all windows?"""

import math
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sarmatch.checks import Count, NonNegative, Positive, Radius
from sarmatch.losses.registry import register_loss

Margin = Annotated[float, Field(ge=0, le=2)]  # between scores, which differ by two at most


class DenseBatch(NamedTuple):
    """A batch as a loss of dense search sees it: window ``i`` holds the place of query ``i``.

    Attributes
    ----------
    scores : Tensor (B, N, n, m)
        Correlation, -1 to 1, of each query with each of ``N >= B`` windows of the map at every shift. Windows from the
        ``B``-th on hold the place of no query.
    shift : Tensor (B, 2)
        Row and column of the true shift of query ``i`` in window ``i``.
    allowed : Tensor (B, N) of bool or None
        False where a window that is not its own shows the place of a query as well: it is no negative.
    """

    scores: Tensor
    shift: Tensor
    allowed: Tensor | None = None

    @property
    def own(self) -> Tensor:
        """Scores of each query in its own window `(B, n, m)`."""
        rows = torch.arange(len(self.scores), device=self.scores.device)
        return self.scores[rows, rows]

    def distance(self) -> Tensor:
        """Cells from every shift of its own window to the true one `(B, n, m)`."""
        n, m = self.scores.shape[2:]
        rows = torch.arange(n, device=self.scores.device) - self.shift[:, :1]
        cols = torch.arange(m, device=self.scores.device) - self.shift[:, 1:]
        return (rows.square()[:, :, None] + cols.square()[:, None]).sqrt()

    def negatives(self, radius: float) -> Tensor:
        """Whether a shift is a negative `(B, N, n, m)`: in its own window, beyond `radius` cells from the truth."""
        count, windows = self.scores.shape[:2]
        negative = torch.ones_like(self.scores, dtype=torch.bool)
        if self.allowed is not None:
            negative &= self.allowed[:, :, None, None]
        rows = torch.arange(count, device=self.scores.device)
        negative[rows, rows] = self.distance() > radius
        return negative


@register_loss("shift_cross_entropy")
class ShiftCrossEntropy(nn.Module):
    """Cross-entropy over all shifts of all windows; right is whatever lies within a radius of the truth.

    The negative logarithm of the probability that falls into the disc: registration is good to one or two pixels, so
    the network may say for itself where in the disc the peak shall stand.

    Parameters
    ----------
    radius : float
        Cells within which a shift is right.
    temperature : float
        Divides the correlation; the start value, it is learned.
    queries : float
        Weight of a second cross-entropy, over the queries at the true shift of each window.

    Attributes
    ----------
    dense : bool
        It takes a `DenseBatch`.

    References
    ----------
    .. [1] Fang et al., "SAR-optical image matching by integrating Siamese U-Net with FFT correlation", IEEE GRSL 2021:
       cross-entropy over the shifts of one window.
    """

    dense = True

    def __init__(self, radius: Radius = 1.5, temperature: Positive = 0.05, queries: NonNegative = 0.5) -> None:
        super().__init__()
        _above("radius", radius)
        _above("temperature", temperature)
        self.radius, self.queries = radius, queries
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, batch: DenseBatch) -> Tensor:
        """Mean over the queries of a batch."""
        logits = batch.scores.float() * self.log_scale.exp()
        right = batch.distance() <= self.radius
        own = (batch.own.float() * self.log_scale.exp()).masked_fill(~right, -torch.inf).flatten(1).logsumexp(1)
        others = logits.masked_fill(~batch.negatives(self.radius), -torch.inf).flatten(1).logsumexp(1)
        loss = F.softplus(others - own).mean()  # -log of own / (own + others)
        if not self.queries or len(logits) < 2:
            return loss
        count = len(logits)
        row, col = batch.shift.round().long().T
        each = torch.arange(count, device=logits.device)
        at_truth = logits[:, each, row, col]  # (query, window), at the window's true shift
        if batch.allowed is not None:
            at_truth = at_truth.masked_fill(
                ~(batch.allowed[:, :count] | torch.eye(count, dtype=torch.bool).to(each.device)), -torch.inf
            )
        return loss + self.queries * F.cross_entropy(at_truth.T, each)


@register_loss("shift_circle")
class ShiftCircle(nn.Module):
    """Circle loss over shifts: what lies within a radius of the truth against all the rest.

    Parameters
    ----------
    radius : float
        Cells within which a shift is right; 1.5 takes in 3 x 3.
    margin, gamma : float
        Relaxation and scale.

    References
    ----------
    .. [1] Sun et al., "Circle loss", CVPR 2020.
    .. [2] Zhang et al., "Optical and SAR image matching using pixelwise deep dense features", IEEE TGRS 2021 (OSMNet):
       positives 3 x 3, margin 0.25, gamma 32.
    """

    dense = True

    def __init__(self, radius: Radius = 1.5, margin: Margin = 0.25, gamma: Positive = 32.0) -> None:
        super().__init__()
        _above("radius", radius)
        self.radius, self.margin, self.gamma = radius, margin, gamma

    def forward(self, batch: DenseBatch) -> Tensor:
        """Mean over the queries of a batch."""
        margin, own, scores = self.margin, batch.own.float(), batch.scores.float()
        pull = -self.gamma * (1 + margin - own).detach().clamp(min=0) * (own - (1 - margin))
        push = self.gamma * (scores + margin).detach().clamp(min=0) * (scores - margin)
        right, wrong = batch.distance() <= self.radius, batch.negatives(self.radius)
        pull = pull.masked_fill(~right, -torch.inf).flatten(1).logsumexp(1)
        push = push.masked_fill(~wrong, -torch.inf).flatten(1).logsumexp(1)
        return F.softplus(pull + push).mean()


@register_loss("disc_hinge")
class DiscHinge(nn.Module):
    """Hinge between the mean score in a soft disc around the truth and the mean of the hardest others.

    Parameters
    ----------
    radius : float
        Of the disc in cells; its weights fall from 1 in the middle to 0 at the edge.
    hardest : int
        How many of the highest scores outside of it count.
    margin : float
        By which the disc shall be above them.

    References
    ----------
    .. [1] Gazzea et al., "MARU-Net: multiscale attention gated residual U-Net with contrastive loss for SAR-optical
       image matching", IEEE JSTARS 2023: radius 2, the 16 hardest.
    """

    dense = True

    def __init__(self, radius: Radius = 2.0, hardest: Count = 16, margin: Margin = 0.2) -> None:
        super().__init__()
        _above("radius", radius)
        if hardest < 1:
            raise ValueError(f"hardest must be at least 1, got {hardest}")
        self.radius, self.hardest, self.margin = radius, hardest, margin

    def forward(self, batch: DenseBatch) -> Tensor:
        """Mean over the queries of a batch."""
        weight = (1 - batch.distance() / self.radius).clamp(min=0)
        inside = (weight * batch.own.float()).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)
        wrong = batch.scores.float().masked_fill(~batch.negatives(self.radius), -1.0).flatten(1)
        hardest = wrong.topk(min(self.hardest, wrong.shape[1]), dim=1).values.mean(1)
        return F.relu(self.margin + hardest - inside).mean()


def _above(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")
