"""Contrastive losses."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.checks import Positive
from sarmatch.losses.batch import EmbeddedBatch
from sarmatch.losses.pairs import negatives, similarity
from sarmatch.losses.registry import register_loss


@register_loss("infonce")
class SymmetricInfoNCE(nn.Module):
    """InfoNCE in its symmetric two-way form: the mean of two B-way cross-entropies.

    Each query picks its reference among the ``B`` references of the batch, each reference its query among
    the ``B`` queries; scores are cosines over the temperature.

    "InfoNCE" means two things in this field. This is the one of CLIP and Sample4Geo. It is neither SAIG's
    single (2B-1)-way cross-entropy nor SimCLR's NT-Xent, in which queries repel queries as well; both give
    other values on the same data.

    Parameters
    ----------
    temperature : float
        Divides the cosine; the start value where it is learned.
    learnable_temperature : bool
        Learn the logarithm of its inverse, as CLIP does. Not clamped, as in Sample4Geo.
    label_smoothing : float in [0, 1)
        Fraction of the target spread evenly over the classes that are not masked, the truth included (the
        convention of ``torch.nn.functional.cross_entropy``). Sample4Geo uses 0.1.

    Notes
    -----
    The name: van den Oord et al., arXiv:1807.03748. This form: ConVIRT (Zhang et al., arXiv:2010.00747),
    CLIP (Radford et al., arXiv:2103.00020), Sample4Geo (Deuser et al., ICCV 2023, arXiv:2303.11851).

    Examples
    --------
    >>> import torch
    >>> z = torch.nn.functional.normalize(torch.ones(8, 4), dim=1)
    >>> SymmetricInfoNCE()(EmbeddedBatch(z, z))  # a collapsed encoder: log 8
    tensor(2.0794)
    """

    def __init__(
        self, temperature: Positive = 0.07, learnable_temperature: bool = False, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.temperature = temperature
        self.label_smoothing = label_smoothing
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature))) if learnable_temperature else None

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Loss of a batch.

        Off-diagonal pairs that share ground are false negatives: their score becomes minus infinity.

        Returns
        -------
        Tensor, scalar
            0, with a gradient path, where no negative is left.

        Raises
        ------
        ValueError
            On shapes that do not fit.
        """
        cosine = similarity(batch)
        keep = negatives(cosine, batch.overlap).fill_diagonal_(True)
        scale = 1 / self.temperature if self.log_scale is None else self.log_scale.exp()
        logits = (scale * cosine).masked_fill(~keep, -math.inf)
        return (self._cross_entropy(logits, keep) + self._cross_entropy(logits.T, keep.T)) / 2

    def _cross_entropy(self, logits: Tensor, keep: Tensor) -> Tensor:
        """Cross-entropy of each row with its diagonal; torch's own smoothing is infinite where masked."""
        log_p = logits.log_softmax(dim=1)
        hard = -log_p.diagonal()
        spread = -log_p.masked_fill(~keep, 0).sum(dim=1) / keep.sum(dim=1)
        return hard.lerp(spread, self.label_smoothing).mean()

    def extra_repr(self) -> str:
        learned = self.log_scale is not None
        return f"temperature={self.temperature}, learned={learned}, label_smoothing={self.label_smoothing}"


@register_loss("joint_infonce")
class JointInfoNCE(nn.Module):
    """InfoNCE in its joint form: one (2B-1)-way cross-entropy per pair.

    The pair competes with the other references of its query and with the other queries of its reference at once.

    Parameters
    ----------
    temperature : float
        Divides the cosine.

    Notes
    -----
    SAIG (Zhu et al., arXiv:2302.01572) with temperature 0.02. Not `SymmetricInfoNCE`: see there.

    Examples
    --------
    >>> import torch
    >>> z = torch.nn.functional.normalize(torch.ones(8, 4), dim=1)
    >>> f"{JointInfoNCE()(EmbeddedBatch(z, z)):.3f}"  # a collapsed encoder: log 15
    '2.708'
    """

    def __init__(self, temperature: Positive = 0.02) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Loss of a batch."""
        logits = similarity(batch) / self.temperature
        masked = logits.masked_fill(~negatives(logits, batch.overlap), -math.inf)
        positive = logits.diagonal()[:, None]
        return (torch.cat([positive, masked, masked.T], dim=1).logsumexp(1) - positive[:, 0]).mean()

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"


@register_loss("soft_label_infonce")
class SoftLabelInfoNCE(nn.Module):
    """Symmetric InfoNCE whose targets are overlaps: neighbours are neither pushed away nor ignored.

    Query ``i`` is to pick reference ``j`` with a probability proportional to their overlap; and the same the other way.

    Parameters
    ----------
    temperature : float
        Divides the cosine.

    Notes
    -----
    On a grid without overlap the fractions of an arbitrary query sum to 1 by themselves. Without `overlap` this is
    `SymmetricInfoNCE`.
    """

    def __init__(self, temperature: Positive = 0.07) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """Loss of a batch; a pair that shares no ground counts as 1."""
        logits = similarity(batch) / self.temperature
        overlap = torch.eye(len(logits)) if batch.overlap is None else batch.overlap
        target = overlap.to(logits).clamp(0, 1)
        alone = (target.diagonal() <= 0).to(target)
        target = target + torch.diag(alone)
        rows, columns = target / target.sum(1, keepdim=True), target / target.sum(0, keepdim=True)
        return (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, columns.T)) / 2

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
