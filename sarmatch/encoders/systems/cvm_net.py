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
