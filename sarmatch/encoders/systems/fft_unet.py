"""FFT U-Net: one U-Net for both modalities, its few channels compared by zero-mean correlation."""

from functools import partial

from sarmatch.checks import Count, Few, Hundreds
from sarmatch.encoders.base import register_encoder
from sarmatch.encoders.systems.matchers import Matcher
from sarmatch.encoders.unet import UNet


@register_encoder("fft_unet")
class FFTUNet(Matcher):
    """One U-Net for SAR and map, four channels, normalised cross-correlation over all shifts.

    A U-Net halves its images, so a feature map moves with its image in steps of `2^depth` cells alone. What lies in
    between is left to training, as published.

    Parameters
    ----------
    image_size
        Not used: images of any size keep their pixels.
    sar_bands, stride, channels
        See `Matcher`.
    width, depth
        Channels of the finest level, and how often the size is halved.

    References
    ----------
    .. [1] Fang et al., "SAR-optical image matching by integrating Siamese U-Net with FFT correlation", IEEE GRSL 2021.
    """

    def __init__(
        self,
        image_size: Count | None = None,
        sar_bands: Count = 1,
        stride: Hundreds = 1,
        channels: Hundreds = 4,
        width: Hundreds = 32,
        depth: Few = 4,
    ) -> None:
        cells = UNet(1, 1, 1, depth).reach()
        make = partial(UNet, 1, channels, width, depth)
        joined = 2 * width  # the finest level beside what comes up to it
        super().__init__(make, sar_bands, stride, channels, cells, shared=True, widest=joined)
        self.depth = depth

    @property
    def step(self) -> int:
        return self.levels[0] * 2**self.depth
