"""sarmatch: where on this optical map was this SAR patch taken?

Everything a notebook needs is one name away: `import sarmatch as sm`. A name loads its room when it is first used
(SPEC 1), so that the import itself costs next to nothing; `__init__.pyi` lists the names.
"""

import lazy_loader

from sarmatch._torchvision import mend_torchvision

mend_torchvision()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
