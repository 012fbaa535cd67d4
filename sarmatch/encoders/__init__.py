"""Encoders: SAR query and optical reference into one space, where a scalar product says how well they match.

Every one is an `Encoder`: `forward_features(images, modality)` gives a feature map `(B, C, h, w)`, and
`forward_head(features, modality)` an L2-normalised vector `(B, D)`; `encode_query` and `encode_reference` are the short
way. One of your own is a subclass with a name, `@register_encoder("mine")`, made as
`Mine(image_size=..., sar_bands=..., **options)`.
"""

from sarmatch.encoders import systems  # noqa: F401 # importing this room registers its encoders
from sarmatch.encoders.aggregators import create_aggregator, register_aggregator
from sarmatch.encoders.backbones import create_backbone, register_backbone
from sarmatch.encoders.base import Encoder, Inputs, device_of, image_sizes, in_use, register_encoder
from sarmatch.encoders.cfog import CFOGEncoder, cfog
from sarmatch.encoders.dense import DenseEncoder
from sarmatch.encoders.dense_timm import DenseTimm
from sarmatch.encoders.dual import DualEncoder
from sarmatch.encoders.encoder import create_encoder, embed, layer_features, list_encoders
from sarmatch.encoders.hog import HOGEncoder

__all__ = [
    "CFOGEncoder",
    "DenseEncoder",
    "DenseTimm",
    "DualEncoder",
    "Encoder",
    "HOGEncoder",
    "Inputs",
    "cfog",
    "create_aggregator",
    "create_backbone",
    "create_encoder",
    "device_of",
    "embed",
    "image_sizes",
    "in_use",
    "layer_features",
    "list_encoders",
    "register_aggregator",
    "register_backbone",
    "register_encoder",
]
