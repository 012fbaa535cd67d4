"""Import torchvision beside a CPU build of torch.

The registry's torchvision is compiled for CUDA. Beside a CPU torch its C++ part stays unloaded, and Python code that
only wants to *describe* the operator `torchvision::nms` fails at import, and timm with it. Declaring the schemas of
the two operators is all the import needs; calling them still fails, and we never do. Beside a CUDA torch nothing
happens here.
"""

import sys
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def import_torchvision() -> ModuleType:
    """Import and return ``torchvision``, declaring its missing operator schemas where needed."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        import torchvision

        torchvision._schemas = library  # the declarations vanish with this object, so it lives as long as the module
    return torchvision
