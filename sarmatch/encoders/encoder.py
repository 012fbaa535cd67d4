"""Encoders by name, and what they make of many images."""

import inspect
from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from torch import nn

from sarmatch.checks import Count, build, checked_options
from sarmatch.encoders.backbones import BACKBONES
from sarmatch.encoders.base import ENCODERS, Encoder, Modality, device_of
from sarmatch.encoders.dual import DualEncoder
from sarmatch.encoders.pretrained import read_weights


def list_encoders() -> list[str]:
    """Names of our own encoders; `create_encoder` takes the name of any timm model as well."""
    return sorted([*ENCODERS, *BACKBONES])


def create_encoder(
    name: str, image_size: Count = 64, sar_bands: Count = 1, pretrained: bool | str = False, **options
) -> Encoder:
    """An encoder by name.

    Parameters
    ----------
    name
        One of `list_encoders()`, or a timm model.
    image_size
        Side of the input in pixels.
    sar_bands
        Number of SAR bands it is given.
    pretrained
        Weights to begin with: a safetensors file with those of the whole encoder, as a run keeps them; for encoders
        that are built on a backbone, those of the backbone, see `create_backbone`.
    options
        What the encoder takes; for a backbone `feature_dim`, `shared`, `head_norm` and its own.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        For a name nobody knows, an option that the encoder does not take, or weights of another network.
    FileNotFoundError
        Where a file with weights is missing.

    Examples
    --------
    >>> import torch
    >>> encoder = create_encoder("plain", image_size=32, feature_dim=16)
    >>> encoder.encode_query(torch.randn(2, 1, 32, 32)).shape
    torch.Size([2, 16])
    >>> encoder.forward_features(torch.randn(2, 1, 32, 32), "query").shape
    torch.Size([2, 256, 4, 4])
    """
    what = f"encoder {name!r}"
    given = {"image_size": image_size, "sar_bands": sar_bands, "pretrained": pretrained}
    given = checked_options(what, create_encoder, given) | options
    begin = given.pop("pretrained")
    factory = ENCODERS[name] if name in ENCODERS else partial(DualEncoder, name)
    if begin is True:
        return build(what, factory, pretrained=True, **given)
    encoder = build(what, factory, **given)
    if not begin:
        return encoder
    weights = read_weights(begin, name)
    on_backbone = "pretrained" in inspect.signature(factory).parameters
    if on_backbone and not weights.keys() & encoder.state_dict().keys():
        return build(what, factory, pretrained=begin, **given)
    encoder.begin_with(weights, begin)
    return encoder


@torch.no_grad()
def embed(encoder: Encoder, batches: Iterable[torch.Tensor], modality: Modality, normalised: bool = True) -> np.ndarray:
    """Embeddings of all images, in their order.

    Parameters
    ----------
    encoder
        As `create_encoder` gives it; it is put into evaluation mode and back.
    batches
        Images `(B, C, H, W)`.
    modality
        `query` (SAR) or `reference` (optical).
    normalised
        Otherwise they are of any length, see `Encoder.vectors`.

    Returns
    -------
    `float32 (N, feature_dim)`, L2-normalised unless told otherwise.
    """
    encode = {"query": encoder.encode_query, "reference": encoder.encode_reference}[modality]
    if not normalised:
        encode = lambda images: encoder.vectors(encoder.forward_features(images, modality), modality)  # noqa: E731
    device = device_of(encoder)
    was_training = encoder.training
    encoder.eval()
    features = [encode(images.to(device)).float().cpu() for images in batches]
    encoder.train(was_training)
    return torch.cat(features).numpy()


@torch.no_grad()
def layer_features(encoder: Encoder, batches: Iterable[torch.Tensor], modality: Modality) -> dict[str, np.ndarray]:
    """What every layer of an encoder makes of images, averaged over the picture.

    Parameters
    ----------
    encoder
        With a head; it is put into evaluation mode and back.
    batches
        Images `(B, C, H, W)`.
    modality
        `query` (SAR) or `reference` (optical).

    Returns
    -------
    `{layer: float32 (N, channels)}` from the first to the last: `input`, the activations of its layers (`layer 1`
    and so on), and `embedding`, the L2-normalised output.
    """
    encode = {"query": encoder.encode_query, "reference": encoder.encode_reference}[modality]
    activations = [m for m in encoder.modules() if isinstance(m, (nn.ReLU, nn.GELU, nn.SiLU))]
    kept: dict[str, list[torch.Tensor]] = {}

    def keep(name: str, values: torch.Tensor) -> None:
        kept.setdefault(name, []).append(
            values.float().flatten(2).mean(2).cpu() if values.ndim > 2 else values.float().cpu()
        )

    calls: list[torch.Tensor] = []
    hooks = [m.register_forward_hook(lambda _, __, out: calls.append(out.clone())) for m in activations]
    was_training = encoder.training
    encoder.eval()
    try:
        for images in batches:
            calls.clear()
            embedding = encode(images.to(next(encoder.parameters()).device))
            keep("input", images)
            for number, values in enumerate(calls, start=1):
                keep(f"layer {number}", values)
            keep("embedding", embedding)
    finally:
        for hook in hooks:
            hook.remove()
        encoder.train(was_training)
    return {name: torch.cat(parts).numpy() for name, parts in kept.items()}
