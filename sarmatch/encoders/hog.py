"""Histograms of oriented gradients: the training-free baseline."""

import numpy as np
import torch
import torch.nn.functional as F
from skimage.feature import hog
from skimage.filters import gaussian

from sarmatch.checks import Count, NonNegative
from sarmatch.encoders.base import Encoder, Inputs, Modality, register_encoder

BLOCK = 2  # cells per side of a block, over which contrast is normalised


@register_encoder("hog")
class HOGEncoder(Encoder):
    """Histogram of oriented gradients (Dalal and Triggs, CVPR 2005), the training-free baseline.

    Orientation is unsigned, so that a bright edge in SAR may be a dark one in the optical image. SAR is smoothed first:
    without it speckle owns the gradients. Its feature map holds the normalised blocks of 2 x 2 cells, one a cell apart.

    Parameters
    ----------
    image_size
        Side of the input in pixels.
    sar_bands
        Number of SAR bands; their mean is taken.
    cells
        Cells per side.
    orientations
        Bins over 180 degrees.
    sigma
        Smoothing of both images in pixels of the input.
    """

    trainable = False

    def __init__(
        self, image_size: int, sar_bands: int = 1, cells: Count = 8, orientations: Count = 9, sigma: NonNegative = 1.0
    ) -> None:
        super().__init__()
        if cells < 1 or image_size < 2 * cells:
            raise ValueError(f"image_size is {image_size}, HOG with {cells} cells per side needs at least {2 * cells}")
        self.inputs = {"query": Inputs(sar_bands, image_size), "reference": Inputs(3, image_size)}
        self.stride, self.sigma, self.orientations = image_size // cells, sigma, orientations
        blocks = image_size // self.stride - BLOCK + 1  # more cells fit in where their number does not divide the side
        self.feature_dim = orientations * BLOCK**2 * blocks**2

    def forward_features(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        """Images `(B, C, H, W)` to blocks `(B, 4 orientations, H / stride - 1, W / stride - 1)`, on the CPU."""
        grey = images.mean(1).cpu().numpy()
        blocks = [
            hog(
                gaussian(image, self.sigma),
                orientations=self.orientations,
                pixels_per_cell=(self.stride, self.stride),
                cells_per_block=(BLOCK, BLOCK),
                feature_vector=False,
            )
            for image in grey
        ]
        return torch.from_numpy(np.stack(blocks)).float().flatten(3).permute(0, 3, 1, 2)

    def forward_head(self, features: torch.Tensor, modality: Modality) -> torch.Tensor:
        """All blocks of an image as one vector."""
        vectors = features.permute(0, 2, 3, 1).flatten(1)
        constant = ~vectors.any(dim=1, keepdim=True)  # no gradient anywhere, and still it needs a direction
        return F.normalize(vectors.masked_fill(constant, 1.0), dim=1)
