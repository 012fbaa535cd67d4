"""VIGOR's retrieval network: spatial-aware aggregation on VGG16 or on a ResNet."""

from sarmatch.checks import Count, Size
from sarmatch.encoders.backbones import create_backbone
from sarmatch.encoders.base import Modality, height_and_width, register_encoder
from sarmatch.encoders.systems.branches import Branch, TwoBranches


@register_encoder("vigor")
class VIGOR(TwoBranches):
    """Two convolutional trunks without a common weight, each under an aggregator: SAFA of eight heads as published.

    With the loss `offset_regression`, an offset head reads from both vectors where in the tile the query lies, and a
    run answers with that place.

    Parameters
    ----------
    image_size, sar_bands, query_size, reference_size, shared
        See `TwoBranches`.
    backbone, pretrained, options
        See `create_backbone`.
    aggregator, aggregator_options
        See `create_aggregator`.

    Notes
    -----
    A panorama taken anywhere, and aerial tiles on a grid: four tiles overlap the place, one has it near its middle.
    Two VGG16 without a common weight end in maps of 512 channels. SAFA makes a vector of each: the largest channel
    of every cell goes through two dense layers to one weight per cell, the cells are added up with these weights,
    and eight such heads stand beside each other, 4096 numbers. The layers know how many cells there are, so a head
    can look at one corner of the image. Training pulls by soft-margin triplets over all pairs of a batch, half of
    which is mined: queries meet the tiles that they take for their own in a pool of earlier embeddings. Then the
    *hybrid* loss joins. Semi-positives, tiles that overlap less, are to be as similar as their intersection over
    union says, relative to the positive; and a small head reads from both vectors, before they are normalised,
    where in its tile the query stands. Right is an answer within some metres, not a tile of a certain number; a
    query whose semi-positive comes first has not been missed.

    References
    ----------
    .. [1] Zhu, Yang and Chen, "VIGOR: cross-view image geo-localization beyond one-to-one retrieval", CVPR 2021.
    """

    def __init__(
        self,
        image_size: Size = 320,
        sar_bands: Count = 1,
        backbone: str = "vgg16_features",
        aggregator: str = "safa",
        aggregator_options: dict | None = None,
        query_size: Size | None = None,
        reference_size: Size | None = None,
        shared: bool = False,
        pretrained: bool | str = False,
        **options,
    ) -> None:
        def make(modality: Modality, channels: int, size: Size) -> Branch:
            trunk = create_backbone(backbone, channels, max(height_and_width(size)), pretrained, **options)
            return Branch(trunk, channels, size, aggregator, **(aggregator_options or {}))

        super().__init__(make, image_size, sar_bands, query_size, reference_size, shared)
