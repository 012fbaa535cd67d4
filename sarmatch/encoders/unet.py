"""A U-Net, for encoders whose features are maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def twice(before: int, after: int) -> nn.Sequential:
    """Two convolutions, each normalised and rectified."""
    layers: list[nn.Module] = []
    for given in (before, after):
        layers += [nn.Conv2d(given, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A U-Net from `given` channels to `channels`; an image is filled up to whole cells of its coarsest level.

    Parameters
    ----------
    given
        Channels of its input.
    channels
        Of its output.
    width
        Channels of its finest level; they double with every level.
    depth
        How often the size is halved.

    References
    ----------
    .. [1] Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015.
    """

    def __init__(self, given: int, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.step = 2**depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(twice(a, b) for a, b in zip([given, *widths], widths, strict=False))
        widths.reverse()
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in zip(widths, widths[1:], strict=False))
        self.merge = nn.ModuleList(twice(2 * b, b) for b in widths[1:])
        self.out = nn.Conv2d(width, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        features = F.pad(images, (0, -width % self.step, 0, -height % self.step), "replicate")
        kept: list[Tensor] = []
        for layer in self.down:
            features = layer(F.max_pool2d(features, 2) if kept else features)
            kept.append(features)
        kept.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = merge(torch.cat([kept.pop(), up(features)], 1))
        return self.out(features)[:, :, :height, :width]

    def reach(self) -> int:
        """Pixels beyond one that it depends on at most, rounded up to whole cells of its coarsest level."""
        convolutions = 2 * (2 * self.step - 1) + 2 * (self.step - 1)
        within_a_cell = self.step - 1  # how far the pixel may lie from the edge of its coarsest cell
        return -(-(convolutions + within_a_cell) // self.step) * self.step
