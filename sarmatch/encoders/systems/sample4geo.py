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

    Notes
    -----
    The simplest network of all and the strongest published recipe: one ConvNeXt-B reads both views, the mean over
    its map is the vector. No polar transform, no aggregator that learns, no second branch. The loss is InfoNCE in
    both directions, with labels smoothed by 0.1 and a temperature that is learned: each of the batch's other images
    is a negative, so the batch is large, 128, and what else is in it matters. That is where the work is done. In
    the first epochs a batch is filled with neighbours on the map, which look alike since they lie in one quarter;
    later with what the network itself takes for alike, computed anew every fourth epoch: of a seed's 128 nearest
    the closest 32, and 32 drawn from the rest. Nobody is in a batch twice, and here tiles that overlap are kept
    apart as well, for a negative that shows the same ground would teach the wrong thing. Weights of ImageNet at 384
    pixels are where it begins.

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
