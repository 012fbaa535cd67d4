"""CVM-Net: NetVLAD on VGG16."""

from sarmatch.checks import Count, Size
from sarmatch.encoders.base import register_encoder
from sarmatch.encoders.systems.vigor import VIGOR


@register_encoder("cvm_net")
class CVMNet(VIGOR):
    """CVM-Net-I: two trunks without a common weight, NetVLAD, and a linear layer to what is compared.

    Parameters
    ----------
    image_size, sar_bands, query_size, reference_size, shared
        See `TwoBranches`.
    backbone, pretrained, options
        See `create_backbone`.
    clusters
        Centres of NetVLAD.
    feature_dim
        Numbers in an embedding.

    Notes
    -----
    The first of these with an aggregator that learns. VGG16 ends in a map of local features, and where in an image
    a house stands should not matter, since views differ so much: a *bag* of features, not a layout. NetVLAD learns
    64 centres among the local features; each feature is assigned softly to all of them, and what remains of it
    after its centre is taken off is added up, centre by centre. Normalised within each centre and as a whole, then
    a linear layer to 4096 numbers. Ground and aerial images have a trunk and centres each (CVM-Net-I); a second
    form shares a part of them. Its loss outlived it: the soft-margin triplet with a weight alpha in the exponent,
    so that pairs that are told apart already no longer pull, over all triplets of a batch. No position is used at
    all: turning the panorama changes little, which costs where north is known, and helps where it is not.

    References
    ----------
    .. [1] Hu et al., "CVM-Net: cross-view matching network for image-based ground-to-aerial geo-localization",
       CVPR 2018.
    """

    def __init__(
        self,
        image_size: Size = 224,
        sar_bands: Count = 1,
        backbone: str = "vgg16_features",
        clusters: Count = 64,
        feature_dim: Count = 4096,
        query_size: Size | None = None,
        reference_size: Size | None = None,
        shared: bool = False,
        pretrained: bool | str = False,
        **options,
    ) -> None:
        super().__init__(
            image_size,
            sar_bands,
            backbone,
            "netvlad",
            {"clusters": clusters, "projected": feature_dim},
            query_size,
            reference_size,
            shared,
            pretrained,
            **options,
        )
