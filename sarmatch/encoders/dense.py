"""A learned map of features that starts from oriented gradients and stays small enough for one core."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sarmatch.checks import Count, Few, Hundreds, Positive
from sarmatch.encoders.aggregators import create_aggregator, unit
from sarmatch.encoders.base import Inputs, Modality, TwoLevels, register_encoder
from sarmatch.encoders.cfog import averaged
from sarmatch.encoders.dual import OPTICAL_CHANNELS, Normalise
from sarmatch.encoders.orientation import ORIENTATIONS, blurred, oriented
from sarmatch.encoders.unet import UNet

SIGMAS = (0.8, 1.6, 3.2, 6.4)  # pixels
PARTS = 8  # along each side of a map of any size, that vectors are pooled from
LOCAL = 8.0  # cells, of the neighbourhood whose contrast is taken off
FLOOR = 1e-3  # of a gradient, in spreads of the image: below it there is none


class Block(nn.Module):
    """Two dilated convolutions around a skip."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        convolution = dict(kernel_size=3, padding=dilation, dilation=dilation, bias=False)
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, **convolution),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, **convolution),
            nn.BatchNorm2d(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.layers(features))


def residual(width: int, dilations: Sequence[int]) -> nn.Sequential:
    """Residual blocks of these dilations."""
    return nn.Sequential(*(Block(width, dilation) for dilation in dilations))


class Branch(nn.Module):
    """What a modality learns: a linear mix of the orientation channels, and a small network, `blocks`, beside it."""

    def __init__(
        self,
        given: int,
        mixed: Tensor,
        width: int,
        make_blocks: Callable[[], nn.Module],
        pooled: int,
        confidence: bool,
    ) -> None:
        super().__init__()
        channels = len(mixed)
        self.mix = nn.Conv2d(mixed.shape[1], channels, 1, bias=False)
        self.mix.weight.data.copy_(mixed[:, :, None, None])
        self.stem = nn.Sequential(nn.Conv2d(given, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = make_blocks()
        self.out = nn.Conv2d(width, channels, 1)
        self.coarse = nn.Conv2d(channels + width, channels, 1)
        self.trust = nn.Conv2d(width, 1, 1) if confidence else None
        # features are the mix at first, as good as what is not learned, and all cells count alike
        for layer in (self.out, self.coarse, *([] if self.trust is None else [self.trust])):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.coarse.weight.data[:, :channels, 0, 0] = torch.eye(channels)
        self.pooled = pooled

    def forward(self, oriented: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Fine and coarse features of the orientation channels and of all that is seen; their weight is the last."""
        trunk = self.blocks(self.stem(torch.cat([oriented, seen], 1)))
        fine = self.mix(oriented) + self.out(trunk)
        coarse = self.coarse(F.avg_pool2d(torch.cat([fine, trunk], 1), self.pooled))
        if self.trust is None:
            return fine, coarse
        weight = self.trust(trunk).sigmoid()
        return torch.cat([fine, weight], 1), torch.cat([coarse, F.avg_pool2d(weight, self.pooled)], 1)


@register_encoder("dense")
class DenseEncoder(TwoLevels):
    """Orientation channels at several scales, and what each modality learns to add to them: for dense search.

    Before the first step its features are a mix of the channels, the same for both modalities, so that it begins where
    the training-free CFOG ends. A network without them had learned almost nothing after the time that this one needs to
    get far. There is no normalisation of the length of a feature: the longer it is, the more its pixel counts in the
    correlation, so that a network may say where to look and where not to (water, shadow, change).

    Parameters
    ----------
    image_size
        Not used: images of any size keep their pixels.
    sar_bands
        Number of SAR bands.
    stride
        Pixels along the side of a cell, even. Images are averaged to two pixels per cell first.
    channels
        Of the features that are compared.
    width, dilations
        Channels of the residual blocks, and the dilation of each.
    depth
        How often a U-Net of that width, in the place of the blocks, halves its cells; 0 keeps the blocks.
    scales
        Spreads, in pixels, of the Gaussians about which orientations are averaged, the finest first.
    shared
        Whether both modalities, as grey images, go through the same layers.
    coarse
        Cells along the side of a coarse cell, for a search from coarse to fine.
    confidence
        Whether it learns a weight from 0 to 1 of every cell of a query as well, which its cell has in the correlation:
        which pixels are to be trusted. It is the last channel of a query's features. Before the first step all weights
        are equal, and the scores are those without them.
    pooling
        Name of an aggregator, see `create_aggregator`, which makes one vector of the features of an image, averaged to
        8 x 8 parts and weighted by the confidence: the encoder then serves vector search as well. It is the same for
        both modalities. None makes an encoder without a head.
    """

    centred = False

    def __init__(
        self,
        image_size: Count | None = None,
        sar_bands: Count = 1,
        stride: Hundreds = 2,
        channels: Hundreds = 16,
        width: Hundreds = 32,
        dilations: Sequence[Few] = (1, 2, 4),
        depth: Annotated[int, Field(ge=0, le=6)] = 0,
        scales: Annotated[Sequence[Positive], Field(min_length=1)] = SIGMAS,
        shared: bool = False,
        coarse: Few = 4,
        confidence: bool = False,
        pooling: str | None = None,
    ) -> None:
        super().__init__()
        if stride < 2 or stride % 2:
            raise ValueError(f"stride must be even and at least 2, got {stride}")
        if coarse % 2**depth:
            raise ValueError(
                f"coarse must be a multiple of the {2**depth} cells of a U-Net of depth {depth}, got {coarse}"
            )
        if shared and confidence:
            raise ValueError("shared and confidence are both set: expected one, as only queries are weighted")
        self.inputs = {
            "query": Inputs(sar_bands, None, "measured"),
            "reference": Inputs(OPTICAL_CHANNELS, None, "measured"),
        }
        self.stride, self.channels, self.pooled = stride, channels, coarse
        self.scales, self.shared = tuple(scales), shared
        mixed = torch.empty(channels, ORIENTATIONS * len(scales))
        nn.init.orthogonal_(mixed)
        make_blocks = partial(UNet, width, width, width, depth) if depth else partial(residual, width, dilations)
        self.normalise, self.branch = nn.ModuleDict(), nn.ModuleDict()
        for modality, wants in self.inputs.items():
            self.normalise[modality] = Normalise(wants.channels)
            if shared and self.branch:
                self.branch[modality] = self.branch["query"]
                continue
            given = mixed.shape[1] + len(scales) + (1 if shared else wants.channels) + 2
            trusts = confidence and modality == "query"
            self.branch[modality] = Branch(given, mixed, width, make_blocks, coarse, trusts)
        filters = 1 + math.ceil(4 * scales[-1] / 2 * 0.8) + math.ceil(4 * scales[-1] / 2)
        seen = UNet(1, 1, 1, depth).reach() if depth else 2 * sum(dilations)
        self.reach = stride * (1 + seen + max(filters, math.ceil(4 * LOCAL) + 1))
        if pooling is not None:
            self.head = create_aggregator(pooling, channels, (PARTS, PARTS))
            self.feature_dim = self.head.feature_dim  # type: ignore[assignment] # an attribute of any aggregator
        self.to(memory_format=torch.channels_last)

    def forward_levels(self, images: Tensor, modality: Modality) -> tuple[Tensor, Tensor]:
        """Features at `stride` and at `coarse` times it, whatever the images' size, of queries with confidence."""
        images = self._seen(images, modality)
        with torch.no_grad():
            channels, seen = self._channels(images)
        return self.branch[modality](channels, seen)

    def forward_head(self, features: Tensor, modality: Modality) -> Tensor:
        """Features as `forward_features` makes them to L2-normalised vectors `(B, feature_dim)`, where it pools."""
        if not hasattr(self, "head"):
            return super().forward_head(features, modality)
        own, weights = features[:, : self.channels], features[:, self.channels :]
        return unit(self.head(F.adaptive_avg_pool2d(own * weights if weights.shape[1] else own, PARTS)))

    def fit_normalisation(self, images: Tensor, modality: Modality) -> None:
        self.normalise[modality].fit(self._root(images, modality))

    def _root(self, images: Tensor, modality: Modality) -> Tensor:
        """SAR as the root of its amplitude, which lies between amplitude and decibels; at two pixels per cell."""
        images = averaged(images, modality, self.stride // 2)
        return 10 ** (images / 40) if modality == "query" else images

    def _seen(self, images: Tensor, modality: Modality) -> Tensor:
        return self.normalise[modality](self._root(images, modality))

    def _channels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Orientation channels `(B, 9 per scale, h, w)`, and the rest: their strength, image and local contrast."""
        grey = images.mean(1, keepdim=True)
        images = grey if self.shared else images
        half, small = F.avg_pool2d(images, 2), F.avg_pool2d(grey, 2)
        scales = [blurred(F.avg_pool2d(oriented(grey), 2), self.scales[0] / 2)]
        for sigma in (s / 2 for s in self.scales[1:]):
            scales.append(blurred(oriented(blurred(small, 0.8 * sigma)), sigma))
        stacked = torch.stack(scales, 1)
        strength = stacked.square().sum(2, keepdim=True).sqrt()
        channels = (stacked / (strength + FLOOR) - 1 / 3).flatten(1, 2)
        mean = blurred(small, LOCAL)
        spread = (blurred(small.square(), LOCAL) - mean.square()).clamp(min=1e-6).sqrt()
        seen = [(strength[:, :, 0] + 1e-2).log() + 2, half, (small - mean) / (spread + 0.05), (spread + 0.01).log() + 1]
        return channels, torch.cat(seen, 1)
