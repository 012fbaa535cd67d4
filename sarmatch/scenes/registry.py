"""Scenes by name or by folder."""

from collections.abc import Callable
from pathlib import Path

from sarmatch.scenes.pairs import is_pairs, read_pairs
from sarmatch.scenes.scene import Scene
from sarmatch.scenes.sentinel import is_sentinel, read_sentinel
from sarmatch.scenes.simulate import simulate_towns

#: Simulated scenes by name: `profile -> Scene`.
PRESETS: dict[str, Callable[[str], Scene]] = {"towns": simulate_towns}

#: Readers of real data, asked in this order: does the folder look like yours?
READERS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Scene]], ...] = (
    (is_sentinel, read_sentinel),
    (is_pairs, read_pairs),
)

PROFILES = ("quick", "full")


def list_scenes() -> list[str]:
    """Names of the simulated scenes; `load_scene` takes the folder of a data set as well."""
    return sorted(PRESETS)


def load_scene(name_or_path: str | Path, profile: str = "quick") -> Scene:
    """A simulated scene by its name, or the scene of a data set's folder.

    Parameters
    ----------
    name_or_path
        One of `list_scenes()`, or a folder in a layout that `data/README.md` describes.
    profile
        `quick` or `full`: size of a simulated scene; data sets are read whole.

    Raises
    ------
    FileNotFoundError
        Where it is neither a name nor a folder.
    ValueError
        Where no reader recognises the folder, or its content is unusable; the message names the file and the value.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}, expected one of {PROFILES}")
    if str(name_or_path) in PRESETS:
        return PRESETS[str(name_or_path)](profile)
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{name_or_path}: neither a folder nor one of the simulated scenes {list_scenes()}")
    for recognises, read in READERS:
        if recognises(folder):
            return read(folder)
    raise ValueError(
        f"{folder}: no known layout; expected opt/ and sar/ with images of the same names, or a metadata.json or "
        f"tiles.json beside them; found {sorted(p.name for p in folder.iterdir())[:5]}"
    )
