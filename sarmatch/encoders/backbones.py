"""Networks from an image to a feature map or vector: our own small one, and every timm model by name."""

from collections.abc import Callable

import timm
import torch
from torch import nn


class PlainCNN(nn.Module):
    """Five convolutions, each followed by a normalisation and ReLU, then an average over the grid that is left.

    Small enough to train on two CPU cores in minutes: it strides early, because full-size layers are what costs.
    Averaging over the grid makes the feature shift-tolerant: similarity falls smoothly as two patches share less.

    Parameters
    ----------
    channels
        Input channels.
    widths
        Channels after each convolution.
    strides
        Step of each convolution.
    groups
        Groups of a group norm (Wu and He, ECCV 2018), which ties no images of a batch together; 0 for batch norm.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...] = (32, 64, 128, 192, 256),
        strides: tuple[int, ...] = (2, 2, 2, 1, 1),
        groups: int = 0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, after, stride) in enumerate(zip((channels, *widths[:-1]), widths, strides, strict=True)):
            kernel = 5 if i == 0 else 3
            layers += [
                nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False),
                nn.GroupNorm(groups, after) if groups else nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.num_features = widths[-1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(B, channels, H, W)` to `(B, num_features)`."""
        return self.layers(images)


#: Our own backbones; any other name is timm's.
BACKBONES: dict[str, Callable[..., nn.Module]] = {"plain": PlainCNN}


def create_backbone(name: str, channels: int, image_size: int, pretrained: bool = False, **options) -> nn.Module:
    """A network `(B, channels, image_size, image_size) -> (B, num_features)`.

    Parameters
    ----------
    name
        `plain`, or the name of a timm model.
    channels, image_size
        Of the input.
    pretrained
        Fetch timm's weights, the one thing here that needs a network.
    options
        Passed on to the network.

    Raises
    ------
    ValueError
        For a name nobody knows.
    ConnectionError
        Where pretrained weights are neither on this machine nor to be fetched.
    """
    if name in BACKBONES:
        if pretrained:
            raise ValueError(f"backbone {name!r} has no pretrained weights; they exist for timm's models")
        return BACKBONES[name](channels, **options)
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5]
        raise ValueError(f"no backbone is called {name!r}; ours: {sorted(BACKBONES)}, timm has e.g. {close}")
    if "vit" in name or "deit" in name:  # these fix their input size unless told otherwise
        options = {"dynamic_img_size": True, "dynamic_img_pad": True, **options}
    try:
        return timm.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=0, **options)
    except Exception as error:
        if not pretrained or isinstance(error, (TypeError, ValueError)):
            raise
        raise ConnectionError(
            f"the pretrained weights of {name!r} are not on this machine and could not be fetched; "
            "connect to the internet once, or use pretrained=False"
        ) from error
