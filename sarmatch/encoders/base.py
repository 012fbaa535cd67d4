"""What every encoder is: images to feature maps, and feature maps to vectors."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from sarmatch.checks import Size
from sarmatch.encoders.pretrained import Weights, fill
from sarmatch.registry import Registry

Modality = Literal["query", "reference"]


@dataclass(frozen=True)
class Inputs:
    """What an encoder wants to be given of one modality.

    Attributes
    ----------
    channels
        SAR bands, or colours of the map.
    image_size
        Side of an image in pixels, or its height and width; None where images keep the pixels they have.
    normalisation
        What the encoder itself does to the numbers before it looks at them: `none`, or `measured` where it takes off
        a mean and divides by a spread per channel that `fit_normalisation` has measured.
    """

    channels: int
    image_size: Size | None
    normalisation: Literal["none", "measured"] = "none"


class Encoder(nn.Module):
    """Base of all encoders, in timm's two halves: `forward_features`, then `forward_head`.

    An encoder of one's own sets `inputs`, writes `forward_features` and, unless it is for dense search alone,
    `feature_dim` and `forward_head`. SAR comes in decibels, the optical map as reflectance from 0 to 1.

    Attributes
    ----------
    inputs : mapping of `query` and `reference` to Inputs
        What it wants of either modality; the two may differ.
    feature_dim : int
        Numbers in an embedding; only where there is a head.
    stride : int or None
        Pixels per cell of the feature map, where it is one number. Away from its border a feature map moves by one
        cell when the image moves by `stride` pixels, so that a map may be encoded in windows.
    reach : int or None
        Pixels to either side of a cell that it depends on, where its feature maps may be made in windows.
    widest : int
        Channels of its widest layer, at a pixel per cell, where its cells see far: the fewer, the larger are the
        windows in which maps are made, and the less of them is overlap.
    channels : int
        Of the feature map, where it is learned for dense search. That of a query may have one more at every level, from
        0 to 1: how much its cells count in the correlation.
    levels : tuple of int
        Strides of the feature maps that `forward_levels` makes.
    centred : bool
        Whether the scores of its feature maps take off the mean of each channel, that of the query and that of the
        map's window under it: zero-mean correlation. Otherwise they are plain cosines.
    step : int
        Pixels in whose multiples an image may move so that its feature maps move with it.
    trainable : bool
        Whether it has anything to learn.
    """

    inputs: Mapping[str, Inputs]
    feature_dim: int
    stride: int | None = None
    reach: int | None = None
    widest: int = 32
    channels: int
    centred: bool = True
    trainable: bool = True

    @property
    def levels(self) -> tuple[int, ...]:
        """Strides of its feature maps, the finest first."""
        return () if self.stride is None else (self.stride,)

    @property
    def step(self) -> int:
        return max(self.levels)

    def forward_levels(self, images: torch.Tensor, modality: Modality) -> tuple[torch.Tensor, ...]:
        """Feature maps of several strides at once, the finest first: the one of `forward_features` by default."""
        return (self.forward_features(images, modality),)

    def forward_features(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Images `(B, channels, H, W)` of a modality to their feature map `(B, C, h, w)`."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_features")

    def forward_head(self, features: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Feature maps `(B, C, h, w)` of a modality to L2-normalised embeddings `(B, feature_dim)`.

        Raises
        ------
        NotImplementedError
            Where the encoder has no head: it makes feature maps for dense search, and no vector of an image.
        """
        raise NotImplementedError(
            f"{type(self).__name__} makes feature maps and has no head, so an image has no vector; "
            "search densely with its forward_features, or take an encoder with a head"
        )

    def vectors(self, features: torch.Tensor, modality: Modality) -> torch.Tensor:
        """The embeddings `(B, feature_dim)` of `forward_head` before their normalisation; after it by default."""
        return self.forward_head(features, modality)

    def attention(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """How much attention of the last block each patch of images `(B, channels, H, W)` receives: `(B, h, w)`.

        It is the mean over heads, and over the tokens that attend: those that lie in no patch where there are any,
        otherwise all other patches.

        Raises
        ------
        NotImplementedError
            Where the encoder has no such maps.
        """
        raise NotImplementedError(f"{type(self).__name__} has no attention maps; those of transformers do")

    def fit_normalisation(self, images: torch.Tensor, modality: Modality) -> None:
        """Measure mean and spread on training images `(B, C, H, W)`; nothing where `inputs` says `none`."""

    def begin_with(self, weights: Weights, origin: str) -> None:
        """Take over all weights of such an encoder, as a run keeps them.

        Raises
        ------
        ValueError
            Names their origin, and a tensor that does not fit with the shape it should have.
        """
        if unknown := sorted(weights.keys() - self.state_dict().keys()):
            found = tuple(weights[unknown[0]].shape)
            raise ValueError(f"{origin}: weights of another network; {unknown[0]} is {found}, expected no such tensor")
        fill(self, weights, origin)

    def encode(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Images `(B, channels, H, W)` to L2-normalised embeddings `(B, feature_dim)`."""
        return self.forward_head(self.forward_features(images, modality), modality)

    def encode_query(self, images: torch.Tensor) -> torch.Tensor:
        """SAR in decibels `(B, channels, H, W)` to L2-normalised `(B, feature_dim)`."""
        return self.encode(images, "query")

    def encode_reference(self, images: torch.Tensor) -> torch.Tensor:
        """Optical reflectance 0 to 1 `(B, channels, H, W)` to L2-normalised `(B, feature_dim)`."""
        return self.encode(images, "reference")

    def forward(self, query: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both at once, which is what distributed training wraps."""
        return self.encode_query(query), self.encode_reference(reference)


class TwoLevels(Encoder):
    """Base of encoders whose feature maps come at two strides at once, for a search from coarse to fine.

    One of one's own writes `forward_levels`, which makes both.

    Attributes
    ----------
    pooled : int
        Cells along the side of a coarse cell.
    """

    stride: int
    pooled: int

    @property
    def levels(self) -> tuple[int, int]:
        return self.stride, self.stride * self.pooled

    def forward_features(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Images `(B, C, H, W)` to the finer features `(B, channels, H / stride, W / stride)`, whatever their size."""
        return self.forward_levels(images, modality)[0]


@contextmanager
def in_use(encoder: Encoder) -> Iterator[None]:
    """An encoder in evaluation mode and without gradients, and afterwards in the mode it was in."""
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        encoder.train(was_training)


def device_of(encoder: nn.Module | None) -> torch.device:
    """Where an encoder's weights are; the CPU where it has none."""
    return next((p.device for p in encoder.parameters()) if encoder is not None else iter(()), torch.device("cpu"))


def height_and_width(size: Size) -> tuple[int, int]:
    """Height and width of an image of that size."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def image_sizes(encoder: Encoder) -> dict[str, Size | None]:
    """Size in pixels of the images that an encoder wants, by the modality of a patch table: `sar` and `optical`."""
    return {table: encoder.inputs[side].image_size for table, side in (("sar", "query"), ("optical", "reference"))}


#: Encoders that are more than a backbone with a head, made as `(image_size=..., sar_bands=..., **options)`.
ENCODERS: Registry[Callable[..., Encoder]] = Registry("encoder")
register_encoder = ENCODERS.register
