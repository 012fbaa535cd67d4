"""How a data set on disk becomes a scene: first a table of its files, then the scene.

A reader knows one layout. It says whether a folder looks like it, and lists the files. What is in the files is left to
the two families that build scenes from such a table: image pairs without coordinates (`sarmatch.datasets.pairs`) and
mosaics with positions (`sarmatch.datasets.mosaic`). A check of a folder reads the same table, so that it finds what is
wrong before a scene is built.
"""

import json
import os
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pydantic import ValidationError

from sarmatch.datasets.rasters import BadImageError, require_file, shown
from sarmatch.scenes.scene import Scene

MODALITIES = ("optical", "sar")

MOST_TEXT = 2**26  # bytes

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


def visible(path: Path, folder: Path) -> bool:
    """Whether a path in a folder is the data set's: macOS leaves `._x.tif` beside `x.tif`, and folders of them."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)


def read_text(path: Path) -> str:
    """A small text file, with or without the byte-order mark that spreadsheets write.

    Raises
    ------
    ValueError
        Where it is no file, is too large for what a person writes, or is not UTF-8.
    """
    require_file(path)
    if (size := path.stat().st_size) > MOST_TEXT:
        raise ValueError(f"{path}: has {size} bytes, expected at most {MOST_TEXT}")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text in UTF-8 ({error})") from error


def read_options(path: Path) -> dict:
    """Options that a JSON file holds.

    Raises
    ------
    ValueError
        Where it is no JSON, or no object with names.
    """
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not usable, it is no sound JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not usable, expected an object with names, got {type(content).__name__}")
    return content


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON whose names differ: of two with one name the last would win without a word."""
    doubled = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if doubled:
        raise ValueError(f"{doubled[0]!r} is given twice")
    return dict(pairs)


def said_of(error: ValidationError) -> str:
    """What pydantic refuses, field by field, without its links."""
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}, got {reprlib.repr(e['input'])}" for e in error.errors()
    )


def table_of(files: Iterable[File]) -> pd.DataFrame:
    """Files as a table, sorted by modality and key so that it does not depend on the file system.

    Raises
    ------
    BadImageError
        Where a name is not UTF-8: it could be trained on, and not be written into the results.
    """
    table = pd.DataFrame(list(files), columns=list(COLUMNS))
    for path in table["path"]:
        if shown(path) != os.fspath(path):
            raise BadImageError(f"{shown(path)}: its name is not UTF-8, expected a name that is")
    return table.sort_values(["modality", "area", "key", "path"], key=lambda c: c.map(natural), ignore_index=True)
