"""Localization: where a strip lies, by fusing what its windows say, and how sure that is."""

from sarmatch.localization.fix import Fix, find_strip
from sarmatch.localization.fusion import Likelihood, Posterior, fuse, posterior_of, track
from sarmatch.localization.location import Location, locate
from sarmatch.localization.outputs import geojson, picture, save, table
from sarmatch.localization.windows import Windows, cut_windows

__all__ = [
    "Fix",
    "Likelihood",
    "Location",
    "Posterior",
    "Windows",
    "cut_windows",
    "find_strip",
    "fuse",
    "geojson",
    "locate",
    "picture",
    "posterior_of",
    "save",
    "table",
    "track",
]
