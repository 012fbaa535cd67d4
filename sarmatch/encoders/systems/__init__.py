"""Published systems as encoders, one file each; importing this room registers them.

Their losses, samplers and schedules are recipes, see `sarmatch.list_recipes`.
"""

from sarmatch.encoders.systems import (
    cmpc,
    cvm_net,
    fft_unet,
    l2ltr,
    osmnet,
    saig,
    sample4geo,
    transgeo,
    vgg,
    vigor,
    x_modality,
)
from sarmatch.encoders.systems.branches import Branch, TwoBranches

__all__ = [
    "Branch",
    "TwoBranches",
    "cmpc",
    "cvm_net",
    "fft_unet",
    "l2ltr",
    "osmnet",
    "saig",
    "sample4geo",
    "transgeo",
    "vgg",
    "vigor",
    "x_modality",
]
