"""FFT U-Net: one U-Net for both modalities, its few channels compared by zero-mean correlation."""

from functools import partial

from sarmatch.checks import Count, Few, Hundreds
from sarmatch.encoders.base import register_encoder
from sarmatch.encoders.systems.matchers import Matcher
from sarmatch.encoders.unet import UNet


@register_encoder("fft_unet")
class FFTUNet(Matcher):
    """One U-Net for SAR and map, four channels, normalised cross-correlation over all shifts.

    Parameters
    ----------
    image_size
        Not used: images of any size keep their pixels.
    sar_bands, stride, channels
        See `Matcher`.
    width, depth
        Channels of the finest level, and how often the size is halved.

    Notes
    -----
    No vector: a map of features as large as the image, so that *where* survives. One U-Net with the same weights
    for SAR and optical halves an image some times, and leads it back to full size beside what it was at each scale;
    four channels come out. The query's map is laid over the reference's at every shift, and the correlation of the
    two, each less its mean and divided by its length, is computed for all shifts at once by Fourier transforms: a
    product there is a correlation here. Training looks at the scores of all shifts of a window as one question with
    one right answer, softmax and cross-entropy, and so uses every wrong shift as a negative. MARU-Net's loss asks
    for something else on top: within two cells of the right shift all scores should be high, the sixteen hardest
    elsewhere low, by a margin. Such networks learn from windows of one map and find a place in any other, since
    nothing in them knows the place. Halving has a price: features move with their image in steps of `2^depth` cells
    alone, and what lies between is left to training.

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
