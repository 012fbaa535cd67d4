"""Oriented gradients of images, as tensors: what SAR and optical images have in common before anything is learned."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ORIENTATIONS = 9


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Every channel of `(B, C, H, W)` smoothed by a Gaussian, cut off at 4 sigma; beyond the edge it is repeated."""
    radius = math.ceil(4 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(images)
    channels = images.shape[1]
    for pad, shape in (((radius, radius, 0, 0), (1, 1, 1, -1)), ((0, 0, radius, radius), (1, 1, -1, 1))):
        weight = kernel.reshape(shape).expand(channels, -1, -1, -1)
        images = F.conv2d(F.pad(images, pad, "replicate"), weight, groups=channels)
    return images


def oriented(grey: Tensor) -> Tensor:
    """Size of the gradient along nine directions: grey `(B, 1, H, W)` to `(B, 9, H, W)`.

    Of the gradient `(gx, gy)`, the channel at angle t is `|gx cos t + gy sin t|`: a bright edge and a dark one are
    alike, as they have to be between SAR and optical.
    """
    padded = F.pad(grey, (1, 1, 1, 1), "replicate")
    right = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    angle = torch.arange(ORIENTATIONS, dtype=torch.float64) * (math.pi / ORIENTATIONS)
    steer = torch.stack([angle.cos(), angle.sin()], 1)[:, :, None, None].to(grey)
    return F.conv2d(torch.cat([right, down], 1), steer).abs()
