"""Channel features of oriented gradients: a training-free map of features that SAR and optical images share."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from sarmatch.encoders.base import Encoder, Inputs, Modality, register_encoder

ORIENTATIONS = 9
SIGMA = 0.8  # pixels, of the smoothing of each channel, as published


def cfog(images: Tensor, sigma: float = SIGMA) -> Tensor:
    """Orientation channels of grey images `(B, H, W)`, float32 `(B, 9, H, W)`.

    Of the gradient `(gx, gy)`, the channel at angle t is `|gx cos t + gy sin t|`: a bright edge and a dark one are
    alike, as they have to be between SAR and optical. Channels are smoothed in space (Gaussian, 0.8 pixels) and over
    angles (1 2 1, around the circle), and scaled to length one at every pixel.

    References
    ----------
    .. [1] Ye, Bruzzone, Shan, Bovolo, Zhu, "Fast and robust matching for multimodal remote sensing image registration",
       IEEE TGRS 57, 2019.
    """
    grey = images.double().numpy()
    down, right = np.gradient(grey, axis=1), np.gradient(grey, axis=2)
    angle = np.arange(ORIENTATIONS)[:, None, None] * math.pi / ORIENTATIONS
    channels = np.abs(np.cos(angle) * right[:, None] + np.sin(angle) * down[:, None])
    channels = gaussian_filter(channels, (0, 0, sigma, sigma))
    channels = (np.roll(channels, 1, 1) + 2 * channels + np.roll(channels, -1, 1)) / 4
    # the floor keeps what has no gradient at all from being scaled up
    channels /= np.sqrt((channels**2).sum(1, keepdims=True)) + 1e-6 * channels.max() + 1e-12
    return torch.from_numpy(channels.astype(np.float32))


@register_encoder("cfog")
class CFOGEncoder(Encoder):
    """CFOG as a dense encoder: a map of features, and no vector. The training-free baseline of dense search.

    Parameters
    ----------
    image_size
        Side of a query in pixels; any size is taken.
    sar_bands
        Number of SAR bands; the mean of their decibels is taken.
    stride
        Pixels along the side of a cell. Images are averaged to it first: power for SAR, which is multi-looking, and
        reflectance for the optical map.
    sigma
        Smoothing of the channels, in cells.
    """

    trainable = False

    def __init__(self, image_size: int = 128, sar_bands: int = 1, stride: int = 2, sigma: float = SIGMA) -> None:
        super().__init__()
        if stride < 1 or not sigma > 0:
            raise ValueError(f"stride must be at least 1 and sigma above 0, got {stride} and {sigma}")
        self.inputs = {"query": Inputs(sar_bands, image_size), "reference": Inputs(3, image_size)}
        self.stride, self.sigma = stride, sigma
        self.reach = stride * (2 + math.ceil(4 * sigma))  # of the gradient, and of the filter, cut off at 4 sigma

    def forward_features(self, images: Tensor, modality: Modality) -> Tensor:
        """Images `(B, C, H, W)` to `(B, 9, H / stride, W / stride)`, on the CPU.

        Sides that are no multiple of the stride lose their rest.
        """
        if modality == "query":
            power = F.avg_pool2d(10 ** (images.cpu() / 10), self.stride)
            grey = (10 * torch.log10(power)).mean(1)
        else:
            grey = F.avg_pool2d(images.cpu(), self.stride).mean(1)
        return cfog(grey, self.sigma)
