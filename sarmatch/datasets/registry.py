"""Scenes by name or by folder."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sarmatch.datasets.archives.bright import BRIGHT
from sarmatch.datasets.archives.dfc2023 import DFC2023
from sarmatch.datasets.archives.osdataset import OSDATASET
from sarmatch.datasets.archives.pattern import PATTERN
from sarmatch.datasets.archives.qxs import QXS
from sarmatch.datasets.archives.sar2opt import SAR2OPT
from sarmatch.datasets.archives.sen12 import SEN12
from sarmatch.datasets.archives.sen12ms import SEN12MS
from sarmatch.datasets.archives.sn6cmpc import SN6CMPC
from sarmatch.datasets.archives.spacenet6 import SPACENET6
from sarmatch.datasets.geotiff import GEOTIFF
from sarmatch.datasets.pairs import PAIRS
from sarmatch.datasets.reader import Reader
from sarmatch.datasets.sentinel import SENTINEL
from sarmatch.scenes.scene import Scene
from sarmatch.simulation.simulate import PRESETS, simulate_preset

#: Simulated scenes by name: `profile, SAR bands -> Scene`.
SIMULATED: dict[str, Callable[[str, Sequence[str]], Scene]] = {n: partial(simulate_preset, n) for n in PRESETS}

#: Readers of real data, asked in this order: does the folder look like yours?
READERS: tuple[Reader, ...] = (
    *(PATTERN, SENTINEL, SN6CMPC, SPACENET6, SEN12MS, BRIGHT, DFC2023, GEOTIFF),
    *(OSDATASET, QXS, SEN12, SAR2OPT, PAIRS),
)

PROFILES = ("quick", "full")


def list_scenes() -> list[str]:
    """Names of the simulated scenes; `load_scene` takes the folder of a data set as well."""
    return sorted(SIMULATED)


def load_scene(name_or_path: str | Path, profile: str = "quick", bands: Sequence[str] | None = None) -> Scene:
    """A simulated scene by its name, or the scene of a data set's folder.

    Parameters
    ----------
    name_or_path
        One of `list_scenes()`, or a folder in a layout that `data/README.md` describes.
    profile
        `quick` or `full`: size of a simulated scene; data sets are read whole.
    bands
        SAR bands to keep, by name and in this order, for instance `("HH",)`; by default all that a data set
        has, and HH of a simulated scene, which can render `HH`, `VV` and `HV`.

    Raises
    ------
    FileNotFoundError
        Where it is neither a name nor a folder.
    ValueError
        Where no reader recognises the folder, or its content is unusable; the message names the file and the value.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}, expected one of {PROFILES}")
    if str(name_or_path) in SIMULATED:
        return SIMULATED[str(name_or_path)](profile, bands or ("HH",))  # a band costs its rendering
    folder = folder_of(name_or_path)
    reader = reader_of(folder)
    scene = reader.scene(folder, reader.files(folder))
    return scene if bands is None else scene.select(bands)


def folder_of(path: str | Path) -> Path:
    """A path as somebody gives it; an empty one, which would mean the current folder, is refused."""
    if not str(path).strip():
        raise ValueError(f"scene is {str(path)!r}, expected the name of a scene or a folder")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}") from error


def reader_of(folder: Path) -> Reader:
    """The first reader that recognises a folder."""
    if str(folder) in SIMULATED and not folder.exists():
        raise ValueError(f"{folder}: is a simulated scene and no folder; it can be loaded, and holds no files to check")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: neither a folder nor one of the simulated scenes {list_scenes()}")
    for reader in READERS:
        if reader.recognises(folder):
            return reader
    layouts = "; ".join(f"{r.name} ({r.about})" for r in READERS)
    raise ValueError(
        f"{folder}: no known layout; found {sorted(p.name for p in folder.iterdir())[:5]}. Known are: {layouts}"
    )
