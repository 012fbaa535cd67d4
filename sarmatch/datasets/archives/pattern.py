"""Any folder of pairs, described by a `sarmatch.json` in it: no code needed.

```
{
  "optical": "rgb/(?P<scene>[0-9]+)_(?P<n>[0-9]+)[.]jpg",
  "sar": "radar/(?P<scene>[0-9]+)_(?P<n>[0-9]+)[.]jpg",
  "group_by": ["scene"]
}
```

The keys are the arguments of `sarmatch.datasets.pairs.paired_folders` and of `pairs_scene`.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sarmatch.datasets.images import SUFFIXES
from sarmatch.datasets.pairs import paired_folders
from sarmatch.datasets.reader import Reader, read_options, said_of
from sarmatch.scenes.scene import Scene

FILE = "sarmatch.json"
PATIENCE = 3  # seconds for a regular expression on all names; a sound one takes one on a million


class Pattern(BaseModel):
    """What `sarmatch.json` may say."""

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    optical: str
    sar: str
    group_by: tuple[str, ...] = ()
    sar_scale: Literal["intensity", "amplitude", "decibel"] = "amplitude"
    sar_bands: tuple[str, ...] = Field(("SAR",), min_length=1)
    sar_window: tuple[float, float] | None = None
    patch_size: int | None = Field(None, ge=8, le=100_000, strict=True)
    credit: str = ""

    @field_validator("optical", "sar")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression ({error})") from error
        return pattern


def _reader(folder: Path) -> Reader:
    path = folder / FILE
    try:
        options = Pattern(**read_options(path)).model_dump()
        name = options.pop("name") or folder.name
        return paired_folders(name, "", options.pop("optical"), options.pop("sar"), **options)
    except ValidationError as error:
        raise ValueError(f"{path}: not usable as a description of pairs ({said_of(error)})") from error
    except ValueError as error:
        named = str(error) if str(path) in str(error) else f"{path}: not usable as a description of pairs ({error})"
        raise ValueError(named) from error


def _files(folder: Path) -> pd.DataFrame:
    reader = _reader(folder)
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES]
    options = Pattern(**read_options(folder / FILE))
    for field in ("optical", "sar"):
        _require_quick(folder / FILE, field, getattr(options, field), names)
    return reader.files(folder)


def _require_quick(path: Path, field: str, pattern: str, names: list[str]) -> None:
    """Refuse a regular expression that backtracks without end, which only another process can be stopped from."""
    code = "import json, re, sys; pattern, names = json.load(sys.stdin); [re.fullmatch(pattern, n) for n in names]"
    try:
        content = json.dumps([pattern, names])
        subprocess.run([sys.executable, "-I", "-c", code], input=content, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"{path}: {field} is {pattern!r}, which takes more than {PATIENCE} s on the names of {len(names)} files; "
            "expected an expression that does not try so many ways"
        ) from None


def _scene(folder: Path, files: pd.DataFrame) -> Scene:
    return _reader(folder).scene(folder, files)


PATTERN = Reader(
    name="pattern",
    about=f"any folders of pairs, described by two regular expressions in {FILE}",
    recognises=lambda folder: os.path.lexists(folder / FILE),
    files=_files,
    scene=_scene,
    has_coordinates=False,
)
