"""From a feature map to one vector of an image, by name: those of the published systems, and a spatial pyramid."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.checks import Count, Positive
from sarmatch.registry import Registry

Cells = tuple[int, int]  # height and width of a feature map

#: Made as `(channels, cells, **options)`; from `(B, channels, h, w)` to `(B, feature_dim)`, of any length.
AGGREGATORS: Registry[Callable[..., nn.Module]] = Registry("aggregator")
register_aggregator = AGGREGATORS.register


def unit(vectors: Tensor) -> Tensor:
    """Vectors `(B, D)` L2-normalised; those of zeros become vectors of equal entries, as each has to have a length."""
    flat = ~vectors.any(1, keepdim=True)
    return F.normalize(torch.where(flat, torch.ones_like(vectors), vectors), dim=1)


def create_aggregator(name: str, channels: int, cells: Cells, **options) -> nn.Module:
    """An aggregator by name.

    Parameters
    ----------
    name
        `average`, `max`, `gem`, `pyramid`, `netvlad`, `safa`, `smd`, or one of one's own.
    channels, cells
        Of the feature maps. Only `safa` and `smd` hold weights per cell: they take maps of this size alone.
    options
        What the aggregator takes.

    Returns
    -------
    Module with a `feature_dim`.
    """
    return AGGREGATORS.create(name, channels, cells, **options)


@register_aggregator("average")
class Average(nn.Module):
    """Mean over the cells (global average pooling)."""

    def __init__(self, channels: int, cells: Cells) -> None:
        super().__init__()
        self.feature_dim = channels

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


@register_aggregator("max")
class Maximum(Average):
    """Largest value of each channel."""

    def forward(self, features: Tensor) -> Tensor:
        return features.amax((2, 3))


@register_aggregator("gem")
class GeM(Average):
    """Generalised mean, between average (power 1) and maximum (power without bound); the power is learned.

    References
    ----------
    .. [1] Radenovic et al., "Fine-tuning CNN image retrieval with no human annotation", IEEE TPAMI 2019.
    """

    def __init__(self, channels: int, cells: Cells, power: Positive = 3.0) -> None:
        super().__init__(channels, cells)
        self.power = nn.Parameter(torch.tensor(power))

    def forward(self, features: Tensor) -> Tensor:
        return features.clamp(min=1e-6).pow(self.power).mean((2, 3)).pow(1 / self.power)


@register_aggregator("pyramid")
class Pyramid(nn.Module):
    """Mean of each channel in `parts` x `parts` parts of the map, side by side; nothing is learned.

    References
    ----------
    .. [1] Lazebnik et al., "Beyond bags of features: spatial pyramid matching", CVPR 2006.
    """

    def __init__(self, channels: int, cells: Cells, parts: Count = 4) -> None:
        super().__init__()
        self.parts, self.feature_dim = parts, channels * parts**2

    def forward(self, features: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(features, self.parts).flatten(1)


@register_aggregator("netvlad")
class NetVLAD(nn.Module):
    """Residuals of the cells to learned centres, added up by soft assignment.

    Parameters
    ----------
    channels, cells
        See `create_aggregator`.
    clusters
        Number of centres.
    projected
        Numbers to which a linear layer brings the `clusters x channels` residuals; None leaves them.

    References
    ----------
    .. [1] Arandjelovic et al., "NetVLAD", CVPR 2016.
    .. [2] Hu et al., "CVM-Net", CVPR 2018: 64 centres and 4096 numbers.
    """

    def __init__(self, channels: int, cells: Cells, clusters: Count = 64, projected: Count | None = None) -> None:
        super().__init__()
        self.assign = nn.Conv2d(channels, clusters, 1)
        self.centres = nn.Parameter(torch.empty(clusters, channels))
        nn.init.normal_(self.centres, std=channels**-0.5)
        self.project = nn.Identity() if projected is None else nn.Linear(clusters * channels, projected)
        self.feature_dim = projected or clusters * channels

    def forward(self, features: Tensor) -> Tensor:
        weights = self.assign(features).flatten(2).softmax(1)  # (B, clusters, cells)
        weighted = weights @ features.flatten(2).mT
        residuals = weighted - weights.sum(2, keepdim=True) * self.centres
        residuals = F.normalize(residuals, dim=2).flatten(1)
        return self.project(F.normalize(residuals, dim=1))


class PerCell(nn.Module):
    """Base of what holds weights for every cell: maps of another size are refused."""

    def __init__(self, channels: int, cells: Cells, heads: int) -> None:
        super().__init__()
        self.cells, self.feature_dim = tuple(cells), heads * channels

    def forward(self, features: Tensor) -> Tensor:
        if tuple(features.shape[2:]) != self.cells:
            raise ValueError(f"{type(self).__name__} was made for maps of {self.cells} cells, got {features.shape[2:]}")
        return self.pooled(features.flatten(2)).flatten(1)

    def pooled(self, features: Tensor) -> Tensor:
        """Cells `(B, channels, cells)` to what stands for them."""
        raise NotImplementedError


@register_aggregator("safa")
class SAFA(PerCell):
    """Spatial-aware feature aggregation: every head weighs the cells by two dense layers on one map, and adds them up.

    There is no non-linearity between the layers and no softmax after them, as in the published code.

    Parameters
    ----------
    channels, cells
        See `create_aggregator`.
    heads
        Number of weightings; as many vectors of `channels` numbers stand side by side.
    over
        The map is the `max` of the channels (VIGOR) or their `mean` (SAIG).

    References
    ----------
    .. [1] Shi et al., "Spatial-aware feature aggregation for cross-view image based geo-localization", NeurIPS 2019.
    .. [2] Zhu et al., "VIGOR", CVPR 2021.
    """

    def __init__(self, channels: int, cells: Cells, heads: Count = 8, over: Literal["max", "mean"] = "max") -> None:
        super().__init__(channels, cells, heads)
        count, self.over = cells[0] * cells[1], over
        half = max(1, count // 2)
        self.inner = nn.Parameter(torch.empty(heads, count, half))
        self.outer = nn.Parameter(torch.empty(heads, half, count))
        self.inner_bias = nn.Parameter(torch.full((heads, half), 0.1))
        self.outer_bias = nn.Parameter(torch.full((heads, count), 0.1))
        for weight in (self.inner, self.outer):
            nn.init.trunc_normal_(weight, std=0.005)

    def pooled(self, features: Tensor) -> Tensor:
        seen = features.amax(1) if self.over == "max" else features.mean(1)
        hidden = torch.einsum("bn,hnm->bhm", seen, self.inner) + self.inner_bias
        weights = torch.einsum("bhm,hmn->bhn", hidden, self.outer) + self.outer_bias
        return weights @ features.mT


@register_aggregator("smd")
class SMD(PerCell):
    """Spatially mixed dimensions: an MLP mixes the cells of every channel into a few.

    Parameters
    ----------
    channels, cells
        See `create_aggregator`.
    heads
        Cells that are left.

    References
    ----------
    .. [1] Zhu et al., "Simple, effective and general: a new backbone for cross-view image geo-localization",
       arXiv:2302.01572.
    """

    def __init__(self, channels: int, cells: Cells, heads: Count = 8) -> None:
        super().__init__(channels, cells, heads)
        count = cells[0] * cells[1]
        self.mix = nn.Sequential(
            nn.Linear(count, 4 * count), nn.GELU(), nn.Linear(4 * count, count), nn.Linear(count, heads)
        )

    def pooled(self, features: Tensor) -> Tensor:
        return self.mix(features).mT
