"""Sample4Geo: one ConvNeXt for both modalities, and nothing after its pooling."""

from torch import Tensor, nn

from sarmatch.checks import Count, Size
from sarmatch.encoders.backbones import create_backbone, feature_map, pooled, stride_of
from sarmatch.encoders.base import Modality, height_and_width, register_encoder
from sarmatch.encoders.systems.branches import TwoBranches


class WholeBackbone(nn.Module):
    """A backbone with its own pooling."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.stride, self.feature_dim = net, stride_of(net), net.num_features

    def features(self, images: Tensor) -> Tensor:
        return feature_map(self.net, images)

    def vectors(self, features: Tensor) -> Tensor:
        return pooled(self.net, features)


@register_encoder("sample4geo")
class Sample4Geo(TwoBranches):
    """One backbone for both modalities; its pooled and normalised features are the vector.

    Parameters
    ----------
    image_size, sar_bands, query_size, reference_size, shared
        See `TwoBranches`.
    backbone, pretrained, options
        See `create_backbone`. As published they are ConvNeXt-B and `convnext_base.fb_in22k_ft_in1k_384`.

    References
    ----------
    .. [1] Deuser et al., "Sample4Geo: hard negative sampling for cross-view geo-localisation", ICCV 2023.
    """

    def __init__(
        self,
        image_size: Size = 384,
        sar_bands: Count = 1,
        backbone: str = "convnext_base",
        query_size: Size | None = None,
        reference_size: Size | None = None,
        shared: bool = True,
        pretrained: bool | str = False,
        **options,
    ) -> None:
        def make(modality: Modality, channels: int, size: Size) -> WholeBackbone:
            return WholeBackbone(
                create_backbone(backbone, channels, max(height_and_width(size)), pretrained, **options)
            )

        super().__init__(make, image_size, sar_bands, query_size, reference_size, shared)
