"""BRIGHT (Chen et al., ESSD 17:6217, 2025; arXiv:2501.06019): optical before, SAR after a disaster, 0.3 to 1 m.

Events are areas, so the cross-area protocol tests on events never seen. Both layouts are read: `pre-event/` and
`post-event/`, and the contest's `train/`, `val/` folders with the same two inside. What lies between the images is not
only a change of sensor: buildings are gone.
"""

import re
from pathlib import Path

import pandas as pd

from sarmatch.datasets.mosaic import mosaic_scene
from sarmatch.datasets.reader import File, Reader, table_of
from sarmatch.scenes.scene import Scene

TILE = re.compile(r"(?P<event>.+)_(?P<number>\d{8})_(?P<when>pre|post)_disaster\.tif")
VAL_EVENTS, TEST_EVENTS = 1, 3  # the last of the events in alphabetical order, where there are enough


def _tiles(folder: Path) -> list[tuple[re.Match, Path]]:
    found = ((TILE.fullmatch(p.name), p) for p in sorted(folder.rglob("*_disaster.tif")))
    return [(m, p) for m, p in found if m and p.parent.name in {"pre-event", "post-event"}]


def _files(folder: Path) -> pd.DataFrame:
    """Each SAR tile is a strip of its own: tiles of one event may come from several passes."""
    modality = {"pre": "optical", "post": "sar"}
    return table_of(File(p, modality[m["when"]], m["number"], area=m["event"]) for m, p in _tiles(folder))


def _scene(folder: Path, files: pd.DataFrame) -> Scene:
    complete = files.groupby("area")["modality"].transform("nunique") == 2
    files = files[complete].reset_index(drop=True)  # some optical tiles have to be fetched by the user
    events = sorted(files["area"].unique())
    test = events[-min(TEST_EVENTS, len(events) // 2) :] if len(events) > 1 else []
    rest = [e for e in events if e not in test]
    return mosaic_scene(
        folder,
        files,
        name="bright",
        sar_scale="amplitude",
        sar_bands=("SAR",),
        patch_size=256,
        test_areas=test,
        val_areas=rest[-VAL_EVENTS:] if len(rest) > 2 else [],
        zero_is_nodata=True,
        credit="BRIGHT, doi 10.5281/zenodo.14619797, mixed CC BY-NC terms",
    )


BRIGHT = Reader(
    name="bright",
    about="BRIGHT: pre-event/EVENT_NNNNNNNN_pre_disaster.tif, post-event/EVENT_NNNNNNNN_post_disaster.tif",
    recognises=lambda folder: bool(_tiles(folder)),
    files=_files,
    scene=_scene,
    has_coordinates=True,
)
