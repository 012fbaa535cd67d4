"""Feature maps of timm's backbones, at one of their strides, for dense search."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.checks import Count, Few, Hundreds
from sarmatch.encoders.backbones import create_network
from sarmatch.encoders.base import Inputs, Modality, TwoLevels, register_encoder
from sarmatch.encoders.dual import OPTICAL_CHANNELS, Normalise

SIDES = (256, 2048)  # pixels of images on which one looks how far a cell sees
WIDTH = 64  # of them


class Level(nn.Module):
    """A backbone up to one of its strides, and a linear projection of its features, fine and coarse."""

    def __init__(self, trunk: nn.Module, width: int, channels: int, pooled: int) -> None:
        super().__init__()
        self.trunk, self.pooled = trunk, pooled
        self.fine, self.coarse = (nn.Conv2d(width, channels, 1) for _ in range(2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        (features,) = self.trunk(images)
        return self.fine(features), self.coarse(F.avg_pool2d(features, self.pooled))


@register_encoder("dense_timm")
class DenseTimm(TwoLevels):
    """The feature maps of a timm backbone at one of its strides, projected to few channels: for dense search.

    Each modality has a backbone of its own; their projections are the same at first. The backbone has to be
    convolutional: a cell that sees the whole image (attention, squeeze and excitation) does not move with it.

    Parameters
    ----------
    image_size
        Not used: images of any size keep their pixels.
    sar_bands
        Number of SAR bands.
    backbone
        Name of a timm model.
    stride
        Pixels along the side of a cell, one of the backbone's; what follows it is left out.
    channels
        Of the features that are compared.
    coarse
        Cells along the side of a coarse cell, for a search from coarse to fine.
    pretrained
        See `create_backbone`.

    Raises
    ------
    ValueError
        For a backbone that nobody knows, that has no level of this stride, or whose cells see too far.
    """

    centred = False

    def __init__(
        self,
        image_size: Count | None = None,
        sar_bands: Count = 1,
        backbone: str = "resnet18",
        stride: Hundreds = 4,
        channels: Hundreds = 16,
        coarse: Few = 4,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        self.inputs = {
            "query": Inputs(sar_bands, None, "measured"),
            "reference": Inputs(OPTICAL_CHANNELS, None, "measured"),
        }
        self.stride, self.channels, self.pooled = stride, channels, coarse
        make = partial(create_network, backbone, features_only=True)
        with torch.device("meta"):
            strides = make(OPTICAL_CHANNELS, 0).feature_info.reduction()
        if strides.count(stride) != 1:
            raise ValueError(
                f"backbone {backbone!r} has levels of {strides} px, expected stride to be one of them, once"
            )
        index = strides.index(stride)
        self.normalise, self.branch = nn.ModuleDict(), nn.ModuleDict()
        for modality, wants in self.inputs.items():
            trunk = make(wants.channels, 0, pretrained, out_indices=(index,))
            self.normalise[modality] = Normalise(wants.channels)
            self.branch[modality] = Level(trunk, trunk.feature_info.channels()[0], channels, coarse)
        for name in ("fine", "coarse"):
            own, other = (getattr(self.branch[modality], name) for modality in ("query", "reference"))
            own.load_state_dict(other.state_dict())
        self.reach = stride * cells_seen(self.branch["reference"].trunk, stride, backbone)
        self.to(memory_format=torch.channels_last)

    def forward_levels(self, images: Tensor, modality: Modality) -> tuple[Tensor, Tensor]:
        """Features at `stride` and at `coarse` times it, whatever the images' size; what fills no cell is left out."""
        high, wide = (side - side % self.stride for side in images.shape[2:])
        return self.branch[modality](self.normalise[modality](images[:, :, :high, :wide]))

    def fit_normalisation(self, images: Tensor, modality: Modality) -> None:
        self.normalise[modality].fit(images)


@torch.no_grad()
def cells_seen(trunk: nn.Module, stride: int, name: str) -> int:
    """Cells to either side of one that it depends on: those that are not a number where the middle of an image is none.

    Raises
    ------
    ValueError
        Where cells see farther than can be told, or the backbone makes no map of an image of any size.
    """
    was_training = trunk.training
    trunk.eval()
    try:
        for side in SIDES:
            high, wide = max(side // stride, 4), max(WIDTH // stride, 1)
            image = torch.zeros(1, OPTICAL_CHANNELS, high * stride, wide * stride)
            image[:, :, high // 2 * stride : (high // 2 + 1) * stride] = torch.nan
            try:
                (features,) = trunk(image)
            except (AssertionError, RuntimeError) as error:
                raise ValueError(f"backbone {name!r} does not take images of any size: {error}") from error
            if tuple(features.shape[2:]) != (high, wide):
                raise ValueError(
                    f"backbone {name!r} gives {tuple(features.shape)}, expected a map of {high, wide} cells"
                )
            touched = features.isnan().any(1).any(2)[0].nonzero()[:, 0]
            if touched.min() > 0 and touched.max() < high - 1:
                return int((touched - high // 2).abs().max())
    finally:
        trunk.train(was_training)
    raise ValueError(
        f"backbone {name!r}: a cell of {stride} px sees {SIDES[-1] // 2} px and more, maybe all of the image; "
        "take a convolutional one without attention or squeeze and excitation, or a smaller stride"
    )
