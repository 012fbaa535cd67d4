"""Encoders: backbones by name, projection heads, and the training-free floor."""

from sarmatch.encoders.backbones import create_backbone
from sarmatch.encoders.encoder import DualEncoder, HOGEncoder, create_encoder, embed, layer_features, list_encoders

__all__ = ["DualEncoder", "HOGEncoder", "create_backbone", "create_encoder", "embed", "layer_features", "list_encoders"]
