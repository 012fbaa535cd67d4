"""CMPC: one ResNet-50 for both modalities, the direct ancestor of this work."""

from typing import Literal

from torch import Tensor, nn

from sarmatch.checks import Count, Size
from sarmatch.encoders.backbones import create_backbone
from sarmatch.encoders.base import Modality, height_and_width, register_encoder
from sarmatch.encoders.systems.branches import Branch, TwoBranches


class CMPCBranch(Branch):
    """A trunk under an aggregator, and a head to what is trained; retrieval may take what the head is given."""

    def __init__(self, trunk: nn.Module, channels: int, size: Size, aggregator: str, trained: int, pooled: bool):
        super().__init__(trunk, channels, size, aggregator)
        self.pooled, self.trained = pooled, trained
        self.project = nn.Sequential(nn.Linear(self.head.feature_dim, trained), nn.BatchNorm1d(trained))

    @property
    def feature_dim(self) -> int:
        """Numbers in a vector: while training, and while not."""
        return self.head.feature_dim if self.pooled and not self.training else self.trained

    def vectors(self, features: Tensor) -> Tensor:
        pooled = super().vectors(features)
        return pooled if self.pooled and not self.training else self.project(pooled)


@register_encoder("cmpc")
class CMPC(TwoBranches):
    """One ResNet-50 for both modalities, last stride 1, global maximum pooling, a head of 512 numbers for the losses.

    Parameters
    ----------
    image_size, sar_bands
        See `TwoBranches`.
    backbone, pretrained, options
        A ResNet of timm, and what it takes.
    aggregator
        See `create_aggregator`.
    feature_dim
        Numbers that the losses see.
    retrieves
        With `pooled` the vectors of evaluation are those before the head, 2048 numbers, as published: no loss has
        ever compared them. With `trained` they are what was trained.

    Notes
    -----
    SAR is matched with optical patches of the same size, so both may look alike after the first layers: one
    ResNet-50 reads both, and every weight is shared. Its last stage keeps its stride at 1, which leaves a map twice
    as fine, and the largest value of each channel over the map becomes one number: where a feature lies is
    forgotten, that it occurs is not. The losses see 512 numbers behind a linear layer with batch norm. Of every
    batch each query, its partner and its hardest negative make a triplet of margin 0.5. A critic of three layers
    learns to tell the modalities apart, its weights clipped so that it stays flat, and what it finds is taken from
    the encoder's loss at a weight of 0.01: the modalities' features are to have one distribution. At the end the
    query is compared by the 2048 numbers before the head, which no loss has compared. A graph network then puts the
    first ten in a new order: nodes are pairs of query and candidate, edges join each to the five nearest in the
    embedding. Mended, a penalty on gradients takes the clipping's place, and what was trained is what is compared.

    References
    ----------
    .. [1] "Learning to find the optimal correspondence between SAR and optical image patches", IEEE JSTARS 2023.
    """

    def __init__(
        self,
        image_size: Size = 200,
        sar_bands: Count = 1,
        backbone: str = "resnet50",
        aggregator: str = "max",
        feature_dim: Count = 512,
        retrieves: Literal["pooled", "trained"] = "pooled",
        pretrained: bool | str = False,
        **options,
    ) -> None:
        def make(modality: Modality, channels: int, size: Size) -> CMPCBranch:
            trunk = create_backbone(backbone, channels, max(height_and_width(size)), pretrained, **options)
            if not hasattr(trunk, "layer4"):
                raise ValueError(f"backbone is {backbone!r}, expected a ResNet, which has a last stride to take away")
            for layer in trunk.layer4.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.stride = (1, 1)
            trunk.feature_info[-1]["reduction"] //= 2
            return CMPCBranch(trunk, channels, size, aggregator, feature_dim, retrieves == "pooled")

        super().__init__(make, image_size, sar_bands, shared=True)
