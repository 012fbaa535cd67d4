"""Let torchvision be imported beside a CPU build of torch.

The registry's torchvision is compiled for CUDA. Beside a CPU torch its C++ part stays unloaded, and Python code that
only wants to *describe* the operator `torchvision::nms` fails at import, and timm with it. Declaring the schemas of
the two operators is all the import needs; calling them still fails, and we never do. Beside a CUDA torch nothing
happens here.

It happens when torchvision is first imported, by whom ever, so that `import sarmatch` need not import torch.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _Loader(SourceFileLoader):
    """Runs the module once more, with the schemas declared, where they were missing."""

    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in _SCHEMAS:
                library.define(schema)
            super().exec_module(module)
            module._schemas = library  # type: ignore[attr-defined]  # it lives as long as the module: so do they


class _Finder(MetaPathFinder):
    """Finds torchvision where it lies, and has `_Loader` load it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def mend_torchvision() -> None:
    """From now on in this process, `import torchvision` works beside a CPU torch as well."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
