"""OSMNet: a residual network at full resolution for each modality, every pixel's features of length one."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.checks import Count, Few, Hundreds
from sarmatch.encoders.base import register_encoder
from sarmatch.encoders.dense import Block
from sarmatch.encoders.systems.matchers import Matcher


class FullResolution(nn.Module):
    """Residual blocks that never halve their image, and features of length one in every pixel."""

    def __init__(self, channels: int, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *(Block(width, dilation) for dilation in dilations),
            nn.Conv2d(width, channels, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.layers(images), dim=1)


@register_encoder("osmnet")
class OSMNet(Matcher):
    """Two residual branches without a common weight, nine channels, least squared differences over all shifts.

    Of features of length one, the sum of squared differences over `n` cells is `2 n (1 - s)`, where `s` is their
    correlation without a mean taken off: what scores smallest there scores highest here.

    Parameters
    ----------
    image_size
        Not used: images of any size keep their pixels.
    sar_bands, stride, channels
        See `Matcher`.
    width, dilations
        Channels of the residual blocks, and the dilation of each; the publication's numbers are not known to us.

    Notes
    -----
    Where the U-Net shrinks its image this one never does: convolutions at full resolution, residual blocks whose
    dilation widens what a pixel sees. Nothing is lost by halving, and a feature is at home in its pixel. SAR and
    optical have a branch each, no weight in common: speckle and reflectance call for filters of their own. Nine
    channels come out, and the vector of each pixel is brought to length one, so that no bright roof outvotes a
    street. Shifts are compared by squared differences, again for all at once by Fourier transforms; of vectors of
    length one that is a correlation without a mean taken off. The loss is the circle loss over shifts: the right
    one and the wrong ones are weighted by how far each is from where it should be, so what is done already no
    longer pulls, and the hardest wrong shift pulls most. It has the fewest weights of all, and every one is used at
    every pixel: what it saves in weights it spends in operations.

    References
    ----------
    .. [1] Zhang et al., "Optical and SAR image matching using pixelwise deep dense features", IEEE TGRS 2021.
    """

    centred = False

    def __init__(
        self,
        image_size: Count | None = None,
        sar_bands: Count = 1,
        stride: Hundreds = 1,
        channels: Hundreds = 9,
        width: Hundreds = 32,
        dilations: Sequence[Few] = (1, 2, 4),
    ) -> None:
        cells = 1 + 2 * sum(dilations)
        super().__init__(
            lambda: FullResolution(channels, width, dilations), sar_bands, stride, channels, cells, shared=False
        )
