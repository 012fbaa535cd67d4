"""An image between the modalities, made by a generator that learns along with any encoder."""

import torch
from torch import Tensor, nn

from sarmatch.checks import Count, Size
from sarmatch.encoders.base import Encoder, Modality, register_encoder
from sarmatch.encoders.encoder import create_encoder
from sarmatch.patches.transforms import LUMA

HALF = 0.5  # of the references of a batch come as the generator's images


class Generator(nn.Module):
    """Two 1 x 1 convolutions around a ReLU, from three channels to one and back: at first an image's grey."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.spread = nn.Conv2d(3, 1, 1), nn.Conv2d(1, 3, 1)
        self.mix.weight.data.copy_(torch.tensor(LUMA)[None, :, None, None])
        nn.init.ones_(self.spread.weight)
        for layer in (self.mix, self.spread):
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.spread(self.mix(images).relu())


@register_encoder("x_modality")
class XModality(Encoder):
    """Any encoder, which while training sees every second optical image, by chance, as a learned generator shows it.

    The generator gets its gradient from whatever loss the encoder has; it is left out when nothing is trained. The
    transform `intermediate` is the same with a random mixture in its place.

    Parameters
    ----------
    image_size, sar_bands
        See `create_encoder`.
    encoder, encoder_options
        Name of the encoder that is to learn, and what it takes.

    References
    ----------
    .. [1] Li et al., "Infrared-visible cross-modal person re-identification with an X modality", AAAI 2020.
    """

    def __init__(
        self,
        image_size: Size = 64,
        sar_bands: Count = 1,
        encoder: str = "plain",
        encoder_options: dict | None = None,
    ) -> None:
        super().__init__()
        self.encoder = create_encoder(encoder, image_size, sar_bands, **(encoder_options or {}))
        self.generator = Generator()
        for name in ("inputs", "stride", "reach", "channels", "centred", "trainable"):
            if hasattr(self.encoder, name):
                setattr(self, name, getattr(self.encoder, name))

    @property
    def feature_dim(self) -> int:  # type: ignore[override] # that of the encoder within
        """Numbers in an embedding."""
        return self.encoder.feature_dim

    @property
    def levels(self) -> tuple[int, ...]:
        return self.encoder.levels

    def forward_features(self, images: Tensor, modality: Modality) -> Tensor:
        return self.encoder.forward_features(self.seen(images, modality), modality)

    def forward_levels(self, images: Tensor, modality: Modality) -> tuple[Tensor, ...]:
        return self.encoder.forward_levels(self.seen(images, modality), modality)

    def vectors(self, features: Tensor, modality: Modality) -> Tensor:
        return self.encoder.vectors(features, modality)

    def forward_head(self, features: Tensor, modality: Modality) -> Tensor:
        return self.encoder.forward_head(features, modality)

    def seen(self, images: Tensor, modality: Modality) -> Tensor:
        """What the encoder sees of images."""
        if modality == "query" or not self.training:
            return images
        chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < HALF
        return torch.where(chosen, self.generator(images), images)

    def fit_normalisation(self, images: Tensor, modality: Modality) -> None:
        self.encoder.fit_normalisation(images, modality)
