"""Losses by name."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from sarmatch.registry import Registry

#: What makes a loss from its options: mostly the class itself.
LOSSES: Registry[Callable[..., nn.Module]] = Registry("loss")
register_loss = LOSSES.register


def list_losses() -> list[str]:
    """Names that `create_loss` knows, sorted."""
    return sorted(LOSSES)


def create_loss(name: str, feature_dim: int | None = None, **options: Any) -> nn.Module:
    """Build a loss by name.

    Parameters
    ----------
    name : str
        One of `list_losses`.
    feature_dim : int, optional
        Numbers in an embedding; handed to a loss that has a parameter of that name, and to no other.
    **options
        Handed to the loss; see the class for what it takes.

    Returns
    -------
    nn.Module
        Called as ``(batch: EmbeddedBatch) -> scalar``.

    Raises
    ------
    ValueError
        If the name is unknown, or the loss does not take an option or its value.

    Examples
    --------
    >>> create_loss("infonce", temperature=0.02)
    SymmetricInfoNCE(temperature=0.02, learned=False, label_smoothing=0.0)
    """
    factory = LOSSES[name]
    if feature_dim is not None and "feature_dim" in inspect.signature(factory).parameters:
        options = {"feature_dim": feature_dim, **options}
    return LOSSES.create(name, **options)
