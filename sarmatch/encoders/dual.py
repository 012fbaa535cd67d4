"""A backbone and a head for each modality, or one for both."""

import torch
import torch.nn.functional as F
from torch import nn

from sarmatch.checks import Count
from sarmatch.encoders.backbones import create_backbone, feature_map, pooled, stride_of
from sarmatch.encoders.base import Encoder, Inputs, Modality

OPTICAL_CHANNELS = 3


class Normalise(nn.Module):
    """Subtract a mean and divide by a spread per channel, measured on training areas and saved with the weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    @torch.no_grad()
    def fit(self, images: torch.Tensor) -> None:
        """Measure on images `(B, C, H, W)`."""
        self.mean.copy_(images.mean((0, 2, 3))[:, None, None])
        self.std.copy_(images.std((0, 2, 3))[:, None, None].clamp(min=1e-6))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class DualEncoder(Encoder):
    """A backbone and a projection head for each modality.

    Parameters
    ----------
    backbone
        See `create_backbone`.
    image_size
        Side of the input in pixels.
    feature_dim
        Numbers in an embedding.
    shared
        One backbone and head for both modalities (one SAR band is then repeated to three) instead of two.
    sar_bands
        Number of SAR bands.
    head_norm
        Batch norm after the projection, as CMPC has it.
    query_size, reference_size
        Height and width of a modality's images where they are no squares of that side, as panoramas are none.
    pretrained, options
        Passed to `create_backbone`.
    """

    def __init__(
        self,
        backbone: str,
        image_size: int,
        feature_dim: Count = 128,
        shared: bool = False,
        sar_bands: int = 1,
        head_norm: bool = False,
        pretrained: bool | str = False,
        query_size: tuple[Count, Count] | None = None,
        reference_size: tuple[Count, Count] | None = None,
        **options,
    ) -> None:
        super().__init__()
        if shared and sar_bands not in (1, OPTICAL_CHANNELS):
            raise ValueError(f"a shared branch takes 1 or {OPTICAL_CHANNELS} SAR bands, got sar_bands = {sar_bands}")
        self.feature_dim, self.shared = feature_dim, shared
        channels = {"query": sar_bands, "reference": OPTICAL_CHANNELS}
        sizes = {"query": query_size or image_size, "reference": reference_size or image_size}
        self.inputs = {modality: Inputs(count, sizes[modality], "measured") for modality, count in channels.items()}
        self.normalise_query, self.normalise_reference = Normalise(sar_bands), Normalise(OPTICAL_CHANNELS)

        def branch(channels: int) -> nn.Sequential:
            net = create_backbone(backbone, channels, image_size, pretrained, **options)
            width = getattr(net, "head_hidden_size", net.num_features)  # some timm heads widen what they pool
            head = [nn.Linear(width, feature_dim), *([nn.BatchNorm1d(feature_dim)] if head_norm else [])]
            return nn.Sequential(net, *head)

        self.reference_branch = branch(OPTICAL_CHANNELS)
        self.query_branch = self.reference_branch if shared else branch(sar_bands)
        self.stride = stride_of(self.reference_branch[0])
        self.to(memory_format=torch.channels_last)  # a third faster on CPU, and what tensor cores want

    def forward_features(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        images = self._normalise(modality)(images)
        if modality == "query" and self.shared:
            images = images.expand(-1, OPTICAL_CHANNELS, -1, -1)
        return feature_map(self._branch(modality)[0], images)

    def vectors(self, features: torch.Tensor, modality: Modality) -> torch.Tensor:
        backbone, *head = self._branch(modality)
        embedding = pooled(backbone, features)
        for layer in head:
            embedding = layer(embedding)
        return embedding

    def forward_head(self, features: torch.Tensor, modality: Modality) -> torch.Tensor:
        return F.normalize(self.vectors(features, modality), dim=1)

    def fit_normalisation(self, images: torch.Tensor, modality: Modality) -> None:
        self._normalise(modality).fit(images)

    def _normalise(self, modality: Modality) -> Normalise:
        return {"query": self.normalise_query, "reference": self.normalise_reference}[modality]

    def _branch(self, modality: Modality) -> nn.Sequential:
        return {"query": self.query_branch, "reference": self.reference_branch}[modality]
