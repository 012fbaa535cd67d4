"""What the published dense matchers have in common: grey images, and a network to feature maps of few channels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sarmatch.encoders.base import Encoder, Inputs, Modality
from sarmatch.encoders.cfog import averaged
from sarmatch.encoders.dual import OPTICAL_CHANNELS, Normalise


class Matcher(Encoder):
    """A network from grey images to feature maps, for each modality or one for both.

    Parameters
    ----------
    make
        To a network `(B, 1, h, w) -> (B, channels, h, w)`.
    sar_bands
        Number of SAR bands; their mean is taken.
    stride
        Pixels along the side of a cell: images are averaged to a pixel per cell first. The publications have 1.
    channels
        Of the features that are compared.
    cells
        Beyond a cell that it depends on.
    shared
        One network for both modalities.
    widest
        See `Encoder`.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        sar_bands: int,
        stride: int,
        channels: int,
        cells: int,
        shared: bool,
        widest: int = Encoder.widest,
    ) -> None:
        super().__init__()
        self.inputs = {
            "query": Inputs(sar_bands, None, "measured"),
            "reference": Inputs(OPTICAL_CHANNELS, None, "measured"),
        }
        self.stride, self.channels, self.reach, self.widest = stride, channels, stride * cells, widest
        self.normalise = nn.ModuleDict({name: Normalise(wants.channels) for name, wants in self.inputs.items()})
        query = make()
        self.network = nn.ModuleDict({"query": query, "reference": query if shared else make()})
        self.to(memory_format=torch.channels_last)

    def forward_features(self, images: Tensor, modality: Modality) -> Tensor:
        """Images `(B, C, H, W)` to `(B, channels, H / stride, W / stride)`."""
        images = self.normalise[modality](averaged(images, modality, self.stride))
        return self.network[modality](images.mean(1, keepdim=True))

    def fit_normalisation(self, images: Tensor, modality: Modality) -> None:
        self.normalise[modality].fit(averaged(images, modality, self.stride))
