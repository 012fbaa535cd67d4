"""How a data set on disk becomes a scene: first a table of its files, then the scene.

A reader knows one layout. It says whether a folder looks like it, and lists the files. What is in the files is left to
the two families that build scenes from such a table: image pairs without coordinates (`sarmatch.datasets.pairs`) and
mosaics with positions (`sarmatch.datasets.mosaic`). A check of a folder reads the same table, so that it finds what is
wrong before a scene is built.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sarmatch.scenes.scene import Scene

MODALITIES = ("optical", "sar")

COLUMNS = ("path", "modality", "key", "split", "area", "group")
"""Columns of a table of files; a reader may add its own."""


class File(NamedTuple):
    """One image file of a data set: a row of the table."""

    path: Path
    modality: str  # one of MODALITIES
    key: str  # an optical and a SAR file of one key show the same area; of a strip, its name
    split: str = ""  # train, val, test; empty where the data set does not say
    area: str = ""  # a connected area, e.g. a city; empty where there is but one
    group: str = ""  # files of one group may overlap, and stay in one split


class Reader(NamedTuple):
    """A layout that can be read.

    Parameters
    ----------
    name
        Of the data set; lower case, as a title.
    about
        One line: what it is and where it comes from.
    recognises
        Whether a folder looks like this layout; looks at names, opens no image.
    files
        Folder to the table of its image files, one row each with the columns `COLUMNS`. Files that exist are listed
        even where their partner is missing. Raises `ValueError` with file and value where an annotation is unusable.
    scene
        Folder and table (some rows may be gone) to the scene.
    has_coordinates
        Whether positions in metres exist.
    """

    name: str
    about: str
    recognises: Callable[[Path], bool]
    files: Callable[[Path], pd.DataFrame]
    scene: Callable[[Path, pd.DataFrame], Scene]
    has_coordinates: bool


def natural(text: str) -> str:
    """A key for sorting in which 10 comes after 9."""
    return re.sub(r"\d+", lambda number: number[0].zfill(12), str(text))


def table_of(files: Iterable[File]) -> pd.DataFrame:
    """Files as a table, sorted by modality and key so that it does not depend on the file system."""
    table = pd.DataFrame(list(files), columns=list(COLUMNS))
    return table.sort_values(["modality", "area", "key", "path"], key=lambda c: c.map(natural), ignore_index=True)
