"""Encoders: SAR query and optical reference into one space, where a scalar product says how well they match."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from skimage.feature import hog
from skimage.filters import gaussian
from torch import nn

from sarmatch.encoders.backbones import BACKBONES, create_backbone

OPTICAL_CHANNELS = 3


class Normalise(nn.Module):
    """Subtract a mean and divide by a spread per channel, measured on training ground and saved with the weights."""

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


class DualEncoder(nn.Module):
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
    pretrained, options
        Passed to `create_backbone`.

    Attributes
    ----------
    feature_dim : int
    trainable : bool
        Always true here; training-free encoders say false.
    """

    trainable = True

    def __init__(
        self,
        backbone: str,
        image_size: int,
        feature_dim: int = 128,
        shared: bool = False,
        sar_bands: int = 1,
        head_norm: bool = False,
        pretrained: bool = False,
        **options,
    ) -> None:
        super().__init__()
        if shared and sar_bands not in (1, OPTICAL_CHANNELS):
            raise ValueError(f"a shared branch takes 1 or {OPTICAL_CHANNELS} SAR bands, got sar_bands = {sar_bands}")
        self.feature_dim, self.shared = feature_dim, shared
        self.normalise_query, self.normalise_reference = Normalise(sar_bands), Normalise(OPTICAL_CHANNELS)

        def branch(channels: int) -> nn.Sequential:
            net = create_backbone(backbone, channels, image_size, pretrained, **options)
            head = [nn.Linear(net.num_features, feature_dim), *([nn.BatchNorm1d(feature_dim)] if head_norm else [])]
            return nn.Sequential(net, *head)

        self.reference_branch = branch(OPTICAL_CHANNELS)
        self.query_branch = self.reference_branch if shared else branch(sar_bands)
        self.to(memory_format=torch.channels_last)  # a third faster on CPU, and what tensor cores want

    def encode_query(self, images: torch.Tensor) -> torch.Tensor:
        """SAR in decibels `(B, sar_bands, H, W)` to L2-normalised `(B, feature_dim)`."""
        images = self.normalise_query(images)
        if self.shared:
            images = images.expand(-1, OPTICAL_CHANNELS, -1, -1)
        return F.normalize(self.query_branch(images), dim=1)

    def encode_reference(self, images: torch.Tensor) -> torch.Tensor:
        """Optical reflectance 0 to 1 `(B, 3, H, W)` to L2-normalised `(B, feature_dim)`."""
        return F.normalize(self.reference_branch(self.normalise_reference(images)), dim=1)

    def forward(self, query: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both at once, which is what distributed training wraps."""
        return self.encode_query(query), self.encode_reference(reference)


class HOGEncoder(nn.Module):
    """Histogram of oriented gradients (Dalal and Triggs, CVPR 2005), the training-free floor.

    Orientation is unsigned, so that a bright edge in SAR may be a dark one in the optical image. SAR is smoothed first:
    without it speckle owns the gradients.

    Parameters
    ----------
    image_size
        Side of the input in pixels.
    cells
        Cells per side.
    orientations
        Bins over 180 degrees.
    sigma
        Smoothing of both images in pixels of the input.
    """

    trainable = False

    def __init__(self, image_size: int, cells: int = 8, orientations: int = 9, sigma: float = 1.0) -> None:
        super().__init__()
        if image_size < 2 * cells:
            raise ValueError(f"image_size is {image_size}, HOG with {cells} cells per side needs at least {2 * cells}")
        self.sigma = sigma
        self.options = {
            "orientations": orientations,
            "pixels_per_cell": (image_size // cells,) * 2,
            "cells_per_block": (2, 2),
            "feature_vector": True,
        }
        self.feature_dim = orientations * 4 * (cells - 1) ** 2

    def _describe(self, images: torch.Tensor) -> torch.Tensor:
        grey = images.mean(1).cpu().numpy()
        features = np.stack([hog(gaussian(image, self.sigma), **self.options) for image in grey])
        features[~features.any(axis=1)] = 1.0  # a constant patch has no gradient, and still needs a direction
        return F.normalize(torch.from_numpy(features).float(), dim=1)

    def encode_query(self, images: torch.Tensor) -> torch.Tensor:
        """SAR `(B, C, H, W)` to L2-normalised `(B, feature_dim)`."""
        return self._describe(images)

    def encode_reference(self, images: torch.Tensor) -> torch.Tensor:
        """Optical `(B, 3, H, W)` to L2-normalised `(B, feature_dim)`."""
        return self._describe(images)


#: Encoders that are more than a backbone with a head.
ENCODERS: dict[str, Callable[..., nn.Module]] = {"hog": HOGEncoder}


def list_encoders() -> list[str]:
    """Names of our own encoders; `create_encoder` takes the name of any timm model as well."""
    return sorted([*ENCODERS, *BACKBONES])


def create_encoder(name: str, image_size: int = 64, sar_bands: int = 1, **options) -> nn.Module:
    """An encoder by name.

    Parameters
    ----------
    name
        One of `list_encoders()`, or a timm model.
    image_size
        Side of the input in pixels.
    sar_bands
        Number of SAR bands it is given; a training-free encoder takes any.
    options
        `feature_dim`, `shared`, `pretrained` and what the backbone takes.

    Returns
    -------
    Module with `encode_query(images)`, `encode_reference(images)` and `feature_dim`.

    Examples
    --------
    >>> import torch
    >>> encoder = create_encoder("plain", image_size=32, feature_dim=16)
    >>> encoder.encode_query(torch.randn(2, 1, 32, 32)).shape
    torch.Size([2, 16])
    """
    if name in ENCODERS:
        return ENCODERS[name](image_size, **options)
    return DualEncoder(name, image_size, sar_bands=sar_bands, **options)


@torch.no_grad()
def embed(encoder: nn.Module, batches: Iterable[torch.Tensor], modality: str) -> np.ndarray:
    """Embeddings of all images, in their order.

    Parameters
    ----------
    encoder
        As `create_encoder` gives it; it is put into evaluation mode and back.
    batches
        Images `(B, C, H, W)`.
    modality
        `query` (SAR) or `reference` (optical).

    Returns
    -------
    `float32 (N, feature_dim)`, L2-normalised.
    """
    encode = {"query": encoder.encode_query, "reference": encoder.encode_reference}[modality]
    device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    was_training = encoder.training
    encoder.eval()
    features = [encode(images.to(device)).float().cpu() for images in batches]
    encoder.train(was_training)
    return torch.cat(features).numpy()


@torch.no_grad()
def layer_features(encoder: nn.Module, batches: Iterable[torch.Tensor], modality: str) -> dict[str, np.ndarray]:
    """What every layer of an encoder makes of images, averaged over the picture.

    Parameters
    ----------
    encoder
        A `DualEncoder`; it is put into evaluation mode and back.
    batches
        Images `(B, C, H, W)`.
    modality
        `query` (SAR) or `reference` (optical).

    Returns
    -------
    `{layer: float32 (N, channels)}` from the first to the last: `input`, the activations of the backbone (`layer 1`
    and so on), and `embedding`, the L2-normalised output.
    """
    branch = {"query": encoder.query_branch, "reference": encoder.reference_branch}[modality]
    encode = {"query": encoder.encode_query, "reference": encoder.encode_reference}[modality]
    activations = [m for m in branch.modules() if isinstance(m, (nn.ReLU, nn.GELU, nn.SiLU))]
    kept: dict[str, list[torch.Tensor]] = {}

    def keep(name: str, values: torch.Tensor) -> None:
        kept.setdefault(name, []).append(
            values.float().flatten(2).mean(2).cpu() if values.ndim > 2 else values.float().cpu()
        )

    calls: list[torch.Tensor] = []
    hooks = [m.register_forward_hook(lambda _, __, out: calls.append(out.clone())) for m in dict.fromkeys(activations)]
    was_training = encoder.training
    encoder.eval()
    try:
        for images in batches:
            calls.clear()
            embedding = encode(images.to(next(encoder.parameters()).device))
            keep("input", images)
            for number, values in enumerate(calls, start=1):
                keep(f"layer {number}", values)
            keep("embedding", embedding)
    finally:
        for hook in hooks:
            hook.remove()
        encoder.train(was_training)
    return {name: torch.cat(parts).numpy() for name, parts in kept.items()}
