"""SEN12MS (Schmitt et al. 2019, doi 10.14459/2019mp1474000): Sentinel-1 against Sentinel-2 at 10 m, georeferenced.

Patches of 256 px overlap by half; a scene's map is put together again from them, and so is its strip: both sensors were
cut on one grid, so that seams agree. Scenes are areas. The official list `test_list.txt`, where it lies in the folder,
decides which scenes are for the test.
"""

import re
from pathlib import Path

import pandas as pd

from sarmatch.datasets.mosaic import mosaic_scene
from sarmatch.datasets.reader import File, Reader, table_of
from sarmatch.scenes.scene import Scene

PATCH = re.compile(r"(?P<roi>ROIs\d+_\w+?)_(?P<kind>s1|s2)_(?P<scene>\d+)_p(?P<number>\d+)\.tif")
RGB = (4, 3, 2)  # of the 13 bands of Sentinel-2
VAL_FRACTION = 0.1
TEST_FRACTION = 0.2


def _patches(folder: Path) -> list[tuple[re.Match, Path]]:
    found = ((PATCH.fullmatch(p.name), p) for p in sorted(folder.glob("ROIs*/s[12]_*/*.tif")))
    return [(match, path) for match, path in found if match]


def _files(folder: Path) -> pd.DataFrame:
    """A scene is an area; its Sentinel-1 patches are one strip."""
    modality = {"s1": "sar", "s2": "optical"}
    return table_of(
        File(
            path, modality[m["kind"]], f"p{m['number']}" if m["kind"] == "s2" else "s1", area=f"{m['roi']}_{m['scene']}"
        )
        for m, path in _patches(folder)
    )


def _listed(path: Path) -> set[str]:
    """Scenes named in an official list of patches."""
    scenes = set()
    for line, name in enumerate(path.read_text().split(), start=1):
        match = PATCH.fullmatch(Path(name).name)
        if not match:
            raise ValueError(f"{path}, entry {line}: {name!r} is no name of a patch")
        scenes.add(f"{match['roi']}_{match['scene']}")
    return scenes


def _scene(folder: Path, files: pd.DataFrame) -> Scene:
    areas = sorted(files["area"].unique())
    if (folder / "test_list.txt").is_file():
        test = [a for a in areas if a in _listed(folder / "test_list.txt")]
    else:
        test = areas[round((1 - TEST_FRACTION) * len(areas)) :] if len(areas) > 2 else []
    rest = [a for a in areas if a not in test]
    val = rest[-max(1, round(VAL_FRACTION * len(areas))) :] if len(rest) > 1 and test else []
    return mosaic_scene(
        folder,
        files,
        name="sen12ms",
        sar_scale="decibel",
        sar_bands=("VV", "VH"),
        optical_bands=RGB,
        patch_size=128,
        test_areas=test,
        val_areas=val,
        credit="SEN12MS, CC BY 4.0; contains modified Copernicus Sentinel data",
    )


SEN12MS = Reader(
    name="sen12ms",
    about="SEN12MS: ROIs*/s1_N/*.tif and ROIs*/s2_N/*.tif",
    recognises=lambda folder: bool(_patches(folder)),
    files=_files,
    scene=_scene,
    has_coordinates=True,
)
