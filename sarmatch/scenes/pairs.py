"""A plain folder of co-registered pairs: `opt/NAME.png` beside `sar/NAME.png`, no coordinates.

The pairs are laid out on a sheet with gaps between them, so that they are read, tiled and split by the same code as a
map. The sheet is a bookkeeping device: it has no metres, and whoever asks for them is refused.
"""

import math
import warnings
from functools import partial
from pathlib import Path

from sarmatch.scenes.images import SUFFIXES, image_size, read_image, verify_images
from sarmatch.scenes.scene import Area, Raster, Scene, Tile

GAP = 1  # pixels between neighbours on the sheet: enough that no window covers two pairs


def is_pairs(folder: Path) -> bool:
    """Whether the folder has an `opt` and a `sar` folder."""
    return (folder / "opt").is_dir() and (folder / "sar").is_dir()


def read_pairs(folder: Path) -> Scene:
    """A scene of one area whose map is a sheet of the optical images; every SAR image is a strip of its own."""
    opt, sar = (
        {p.stem: p for p in sorted((folder / m).iterdir()) if p.suffix.lower() in SUFFIXES} for m in ("opt", "sar")
    )
    names = sorted(opt.keys() & sar.keys())
    if not names:
        raise ValueError(
            f"{folder}: no pair found; opt/ has {len(opt)} images and sar/ has {len(sar)}, but no name stands in both"
        )
    alone = sorted(opt.keys() ^ sar.keys())
    if alone:
        warnings.warn(f"{folder}: {len(alone)} image(s) without a partner are left out: {alone[:5]}", stacklevel=2)
    sizes = {name: image_size(opt[name]) for name in names}
    for name in names:
        if image_size(sar[name]) != sizes[name]:
            raise ValueError(
                f"{sar[name]}: is {image_size(sar[name])} px (height, width), but its optical partner is {sizes[name]}"
            )
    verify_images([(opt[n], 3) for n in names])
    verify_images([(sar[n], 1) for n in names])

    columns = math.ceil(math.sqrt(len(names)))
    pitch_y = max(h for h, _ in sizes.values()) + GAP
    pitch_x = max(w for _, w in sizes.values()) + GAP
    place = {n: ((i // columns) * pitch_y, (i % columns) * pitch_x, *sizes[n]) for i, n in enumerate(names)}
    area = Area(
        name="pairs",
        map=Raster(
            "optical",
            tuple(Tile(*place[n], partial(read_image, opt[n], 3)) for n in names),
            3,
            "reflectance",
            joined=False,
        ),
        strips=tuple(Raster(n, (Tile(*place[n], partial(read_image, sar[n], 1)),), 1, "amplitude") for n in names),
        roles=tuple(("train", "train", "train", "val", "test")[i % 5] for i in range(len(names))),
    )
    return Scene(
        name=folder.name,
        areas=(area,),
        pixel_size=None,
        patch_size=min(min(size) for size in sizes.values()) // 2,
        credit=f"pairs of the folder {folder.name}",
    )
