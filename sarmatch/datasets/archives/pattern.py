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
import re
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sarmatch.datasets.pairs import paired_folders
from sarmatch.datasets.reader import Reader
from sarmatch.scenes.scene import Scene

FILE = "sarmatch.json"


class Pattern(BaseModel):
    """What `sarmatch.json` may say."""

    model_config = ConfigDict(extra="forbid")

    name: str = "pairs by pattern"
    optical: str
    sar: str
    group_by: tuple[str, ...] = ()
    sar_scale: Literal["intensity", "amplitude", "decibel"] = "amplitude"
    sar_bands: tuple[str, ...] = Field(("SAR",), min_length=1)
    sar_window: tuple[float, float] | None = None
    patch_size: int | None = Field(None, ge=8)
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
        options = Pattern(**json.loads(path.read_text())).model_dump()
        return paired_folders(options.pop("name"), "", options.pop("optical"), options.pop("sar"), **options)
    except (ValueError, TypeError, ValidationError) as error:
        raise ValueError(f"{path}: not usable as a description of pairs ({error})") from error


def _files(folder: Path) -> pd.DataFrame:
    return _reader(folder).files(folder)


def _scene(folder: Path, files: pd.DataFrame) -> Scene:
    return _reader(folder).scene(folder, files)


PATTERN = Reader(
    name="pattern",
    about=f"any folders of pairs, described by two regular expressions in {FILE}",
    recognises=lambda folder: (folder / FILE).is_file(),
    files=_files,
    scene=_scene,
    has_coordinates=False,
)
