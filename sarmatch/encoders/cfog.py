"""Channel features of oriented gradients: a training-free map of features that SAR and optical images share."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sarmatch.checks import Count, Hundreds, Positive
from sarmatch.encoders.base import Encoder, Inputs, Modality, register_encoder
from sarmatch.encoders.orientation import blurred, oriented

SIGMA = 0.8  # pixels, of the smoothing of each channel, as published


def cfog(images: Tensor, sigma: float = SIGMA) -> Tensor:
    """Orientation channels of grey images `(B, H, W)`, float32 `(B, 9, H, W)`.

    Channels of `oriented` are smoothed in space (Gaussian, 0.8 pixels) and over angles (1 2 1, around the circle), and
    scaled to length one at every pixel.

    References
    ----------
    .. [1] Ye, Bruzzone, Shan, Bovolo, Zhu, "Fast and robust matching for multimodal remote sensing image registration",
       IEEE TGRS 57, 2019.
    """
    channels = blurred(oriented(images[:, None].float()), sigma)
    channels = (channels.roll(1, 1) + 2 * channels + channels.roll(-1, 1)) / 4
    # the floor keeps what has no gradient at all from being scaled up
    return channels / (channels.square().sum(1, keepdim=True).sqrt() + 1e-6 * channels.max() + 1e-12)


@register_encoder("cfog")
class CFOGEncoder(Encoder):
    """CFOG as a dense encoder: a map of features, and no vector. The training-free baseline of dense search.

    Parameters
    ----------
    image_size
        Not used: images of any size keep their pixels.
    sar_bands
        Number of SAR bands; the mean of their decibels is taken.
    stride
        Pixels along the side of a cell. Images are averaged to it first: power for SAR, which is multi-looking, and
        reflectance for the optical map.
    sigma
        Smoothing of the channels, in cells.
    """

    trainable = False

    def __init__(
        self, image_size: Count | None = None, sar_bands: int = 1, stride: Hundreds = 2, sigma: Positive = SIGMA
    ) -> None:
        super().__init__()
        if stride < 1 or not sigma > 0:
            raise ValueError(f"stride must be at least 1 and sigma above 0, got {stride} and {sigma}")
        self.inputs = {"query": Inputs(sar_bands, None), "reference": Inputs(3, None)}
        self.stride, self.sigma = stride, sigma
        self.reach = stride * (2 + math.ceil(4 * sigma))  # of the gradient, and of the filter, cut off at 4 sigma

    def forward_features(self, images: Tensor, modality: Modality) -> Tensor:
        """Images `(B, C, H, W)` to `(B, 9, H / stride, W / stride)`.

        Sides that are no multiple of the stride lose their rest.
        """
        return cfog(averaged(images, modality, self.stride).mean(1), self.sigma)


def averaged(images: Tensor, modality: Modality, side: int) -> Tensor:
    """Images at fewer pixels: power is averaged for SAR, which is multi-looking, reflectance for the optical map."""
    if side == 1:
        return images
    if modality == "reference":
        return F.avg_pool2d(images, side)
    return 10 * torch.log10(F.avg_pool2d(10 ** (images / 10), side))
