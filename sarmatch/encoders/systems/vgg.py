"""The convolutions of VGG16, which the earlier systems are built on."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from sarmatch.encoders.backbones import register_backbone

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, and how many convolutions have them

Scale = Annotated[float, Field(gt=0, le=4)]


@register_backbone("vgg16_features")
class VGG16(nn.Module):
    """Thirteen convolutions, and a halving after each of their five stages.

    The names of its weights are those of torchvision and timm, whose files fit; their dense layers are left out.

    Parameters
    ----------
    channels
        Input channels.
    scale
        Of all widths: 1 is VGG16 (14,714,688 parameters at three channels).
    batch_norm
        After each convolution. The published systems begin with ImageNet's weights and have none; untrained weights
        without it make all images alike, and nothing is learned from there.

    References
    ----------
    .. [1] Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015.
    """

    stride = 32

    def __init__(self, channels: int, scale: Scale = 1.0, batch_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, count in STAGES:
            for _ in range(count):
                after = max(1, round(scale * width))
                convolution = nn.Conv2d(channels, after, 3, padding=1)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(convolution.bias)
                layers += [convolution, *([nn.BatchNorm2d(after)] if batch_norm else []), nn.ReLU(inplace=True)]
                channels = after
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.num_features = channels

    def forward_features(self, images: Tensor) -> Tensor:
        """`(B, channels, H, W)` to `(B, num_features, H / 32, W / 32)`."""
        return self.features(images)

    def forward_head(self, features: Tensor) -> Tensor:
        """Mean over the cells: `(B, num_features)`."""
        return features.mean((2, 3))
