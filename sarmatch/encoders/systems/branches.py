"""What the published systems have in common: a branch for each modality, or one for both."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sarmatch.checks import Size
from sarmatch.encoders.aggregators import Cells, create_aggregator
from sarmatch.encoders.backbones import feature_map, stride_of
from sarmatch.encoders.base import Encoder, Inputs, Modality, height_and_width
from sarmatch.encoders.dual import OPTICAL_CHANNELS, Normalise


class Branch(nn.Module):
    """A trunk that makes feature maps of images, and an aggregator that makes vectors of those.

    Parameters
    ----------
    trunk
        With `forward_features`, as `create_backbone` gives it.
    channels, size
        Of the images.
    aggregator, options
        See `create_aggregator`.

    Attributes
    ----------
    stride : int or None
        Pixels per cell of the feature map.
    """

    def __init__(self, trunk: nn.Module, channels: int, size: Size, aggregator: str, **options) -> None:
        super().__init__()
        self.trunk, self.stride = trunk, stride_of(trunk)
        self.head = create_aggregator(aggregator, *shape_of_map(trunk, channels, size), **options)

    @property
    def feature_dim(self) -> int:
        """Numbers in a vector."""
        return self.head.feature_dim

    def features(self, images: Tensor) -> Tensor:
        """Images `(B, channels, H, W)` to feature maps `(B, C, h, w)`."""
        return feature_map(self.trunk, images)

    def vectors(self, features: Tensor) -> Tensor:
        """Feature maps `(B, C, h, w)` to vectors `(B, feature_dim)` of any length."""
        return self.head(features)


@torch.no_grad()
def shape_of_map(trunk: nn.Module, channels: int, size: Size) -> tuple[int, Cells]:
    """Channels and cells of a trunk's feature map; nothing is computed, only shapes."""
    empty = copy.deepcopy(trunk).to("meta").eval()
    count, *cells = feature_map(empty, torch.empty(1, channels, *height_and_width(size), device="meta")).shape[1:]
    return count, (cells[0], cells[1])


class TwoBranches(Encoder):
    """A branch for each modality, or one for both, behind a normalisation of each modality.

    Parameters
    ----------
    make
        `(modality, channels, size)` to a branch for images of so many channels and of that size; of both modalities it
        is asked for that of the reference.
    image_size
        Side of the images in pixels, or their height and width.
    sar_bands
        Number of SAR bands.
    query_size, reference_size
        Other sizes than `image_size` for one modality.
    shared
        One branch for both modalities, one SAR band then repeated to three; otherwise two without a common weight.

    Raises
    ------
    ValueError
        Where a shared branch is to take other than 1 or 3 SAR bands.
    """

    def __init__(
        self,
        make: Callable[[Modality, int, Size], nn.Module],
        image_size: Size,
        sar_bands: int = 1,
        query_size: Size | None = None,
        reference_size: Size | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if shared and sar_bands not in (1, OPTICAL_CHANNELS):
            raise ValueError(f"a shared branch takes 1 or {OPTICAL_CHANNELS} SAR bands, got sar_bands = {sar_bands}")
        self.shared = shared
        self.inputs = {
            "query": Inputs(sar_bands, query_size or image_size, "measured"),
            "reference": Inputs(OPTICAL_CHANNELS, reference_size or image_size, "measured"),
        }
        self.normalise = nn.ModuleDict({name: Normalise(wants.channels) for name, wants in self.inputs.items()})
        reference = make("reference", OPTICAL_CHANNELS, self.inputs["reference"].image_size)
        query = reference if shared else make("query", sar_bands, self.inputs["query"].image_size)
        self.branch = nn.ModuleDict({"query": query, "reference": reference})
        self.stride = reference.stride  # type: ignore[assignment] # an attribute of any branch
        self.to(memory_format=torch.channels_last)

    @property
    def feature_dim(self) -> int:  # type: ignore[override] # that of a branch
        """Numbers in an embedding."""
        return self.branch["reference"].feature_dim

    def seen(self, images: Tensor, modality: Modality) -> Tensor:
        """Images as their branch takes them."""
        images = self.normalise[modality](images)
        return images.expand(-1, OPTICAL_CHANNELS, -1, -1) if self.shared else images

    def forward_features(self, images: Tensor, modality: Modality) -> Tensor:
        return self.branch[modality].features(self.seen(images, modality))

    def attention(self, images: Tensor, modality: Modality) -> Tensor:
        branch = self.branch[modality]
        if not hasattr(branch, "attention"):
            return super().attention(images, modality)
        return branch.attention(self.seen(images, modality))

    def vectors(self, features: Tensor, modality: Modality) -> Tensor:
        return self.branch[modality].vectors(features)

    def forward_head(self, features: Tensor, modality: Modality) -> Tensor:
        return F.normalize(self.vectors(features, modality), dim=1)

    def fit_normalisation(self, images: Tensor, modality: Modality) -> None:
        self.normalise[modality].fit(images)
