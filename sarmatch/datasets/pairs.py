"""The family of co-registered image pairs without coordinates.

The pairs are laid out on a sheet with gaps between them, one sheet per split, so that they are read, tiled and split by
the same code as a map. The sheet is a bookkeeping device: it has no metres, and whoever asks for them is refused.
"""

import math
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from sarmatch.datasets.images import SUFFIXES, THROUGH_GDAL, image_size, read_image, read_part, verify_images
from sarmatch.datasets.rasters import BadImageError, open_raster, stored_type
from sarmatch.datasets.reader import File, Reader, natural, table_of, visible
from sarmatch.scenes.scene import Area, Raster, Scene, Tile, valid_blocks

GAP = 1  # pixels between neighbours on the sheet: enough that no window covers two pairs
FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def pairs_scene(
    folder: Path,
    files: pd.DataFrame,
    *,
    name: str | None = None,
    sar_scale: str = "amplitude",
    sar_bands: Sequence[str] = ("SAR",),
    sar_window: tuple[float, float] | None = None,
    patch_size: int | None = None,
    credit: str = "",
) -> Scene:
    """A scene of three areas `train`, `val`, `test`, each a sheet of its pairs; every SAR image is a strip of its own.

    Parameters
    ----------
    folder
        Named in errors.
    files
        See `sarmatch.datasets.reader.Reader`. Where no split is given, whole groups are assigned in blocks of
        neighbouring keys (see `split_groups`); where only training and test are, validation is taken from training so.
    name
        Of the scene; the folder's by default.
    sar_scale, sar_bands, sar_window
        What the SAR files hold; see `Raster`. 8-bit values count from 0 to 1.
    patch_size
        Pixels; half the smallest side by default, so that a pair holds a grid of tiles.
    credit
        Shown beside results.

    Raises
    ------
    ValueError
        Where no optical and SAR file have the same key, or a pair's sizes differ.
    BadImageError
        Where images cannot be used; all of them are named.
    """
    pairs = _paired(folder, files)
    split = _split(files.drop_duplicates("key").set_index("key").loc[pairs.index])
    sizes = _sizes(pairs)
    verify_images([*((p, 3) for p in pairs.optical), *((p, len(sar_bands)) for p in pairs.sar)])
    _say_complex(pairs.sar, sar_scale)
    areas = tuple(
        _sheet(part, pairs.loc[split.index[split == part]], sizes, sar_scale, tuple(sar_bands), sar_window)
        for part in FRACTIONS
        if (split == part).any()
    )
    return Scene(
        name=name or folder.name,
        areas=areas,
        pixel_size=None,
        patch_size=patch_size or min(min(size) for size in sizes.values()) // 2,
        test_areas=tuple(a.name for a in areas if a.name == "test"),
        val_areas=tuple(a.name for a in areas if a.name == "val"),
        credit=credit or f"pairs of the folder {folder.name}",
    )


def _paired(folder: Path, files: pd.DataFrame) -> pd.DataFrame:
    """Paths of the pairs: a row per key, columns `optical` and `sar`."""
    doubled = files[files.duplicated(["modality", "key"], keep=False)]
    if len(doubled):
        raise ValueError(f"{folder}: two files for one {doubled.modality.iloc[0]} image: {list(doubled.path[:2])}")
    pairs = files.pivot(index="key", columns="modality", values="path").reindex(columns=["optical", "sar"])
    pairs = pairs.loc[sorted(pairs.index, key=natural)]
    alone = pairs[pairs.isna().any(axis=1)].index
    pairs = pairs.dropna()
    if pairs.empty:
        counts = files.modality.value_counts()
        raise ValueError(
            f"{folder}: no pair found; {counts.get('optical', 0)} optical and {counts.get('sar', 0)} SAR images, but "
            "no name stands in both"
        )
    if len(alone):
        warnings.warn(
            f"{folder}: {len(alone)} image(s) without a partner are left out: {list(alone[:5])}", stacklevel=3
        )
    return pairs


def _say_complex(paths: pd.Series, sar_scale: str) -> None:
    """Warn of complex SAR, whose magnitude is read; refuse it where it is said to be anything but amplitude."""
    for path in (p for p in paths if p.suffix.lower() in THROUGH_GDAL):
        with open_raster(path) as file:
            if not stored_type(file).startswith("complex"):
                continue
        if sar_scale != "amplitude":
            raise BadImageError(f"{path}: its complex values are read as amplitude, but sar_scale is {sar_scale!r}")
        warnings.warn(f"{path}: holds complex values; their magnitude is read, as amplitude", stacklevel=3)


def _sizes(pairs: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Height and width of each pair."""
    sizes = {key: image_size(path) for key, path in pairs.optical.items()}
    for key, path in pairs.sar.items():
        if image_size(path) != sizes[key]:
            raise ValueError(
                f"{path}: is {image_size(path)} px (height, width), but its optical partner {pairs.optical[key]} is "
                f"{sizes[key]}"
            )
    return sizes


def _split(about: pd.DataFrame) -> pd.Series:
    """Split of each key: the set's own, completed by blocks of groups where it says nothing."""
    group, split = about["group"].where(about["group"] != "", None), about["split"].copy()
    if not split.any():
        return split_groups(group)
    if not (split == "val").any():
        train = split[split == "train"].index
        assigned = split_groups(group.loc[train]).replace({"test": "train"})
        split.loc[train] = assigned
    return split


def split_groups(group: pd.Series) -> pd.Series:
    """Assign groups to splits in blocks, in their order: neighbours by name are often neighbours on the ground.

    Parameters
    ----------
    group
        Group of each key, `None` for a key that overlaps no other; the index is the key.

    Returns
    -------
    Series of `train`, `val`, `test` with the same index, close to `FRACTIONS`, each split non-empty where
    there are three groups or more.
    """
    names = group.fillna(pd.Series(group.index, group.index))
    order = pd.unique(names)
    count = len(order)
    first = min(max(1, round(FRACTIONS["train"] * count)), max(1, count - 2))
    second = min(max(first + 1, round((FRACTIONS["train"] + FRACTIONS["val"]) * count)), max(2, count - 1))
    of = {g: "train" if i < first else "val" if i < second else "test" for i, g in enumerate(order)}
    return names.map(of)


def _sheet(
    name: str,
    pairs: pd.DataFrame,
    sizes: dict,
    sar_scale: str,
    sar_bands: tuple[str, ...],
    window: tuple[float, float] | None,
) -> Area:
    columns = math.ceil(math.sqrt(len(pairs)))
    pitch_y, pitch_x = (max(sizes[k][axis] for k in pairs.index) + GAP for axis in (0, 1))
    place = {k: ((i // columns) * pitch_y, (i % columns) * pitch_x, *sizes[k]) for i, k in enumerate(pairs.index)}
    optical = tuple(_pair_tile(place[k], path, 3) for k, path in pairs.optical.items())
    strips = tuple(
        Raster(k, (_pair_tile(place[k], path, len(sar_bands)),), sar_bands, sar_scale, window=window)
        for k, path in pairs.sar.items()
    )
    return Area(
        name=name,
        map=Raster("optical", optical, ("red", "green", "blue"), "reflectance", joined=False),
        strips=strips,
        roles=(name,) * len(strips),
    )


def _pair_tile(place: tuple[int, int, int, int], path: Path, channels: int) -> Tile:
    """An image as a tile; floats may hold NaN where there is no data."""
    valid = None
    if path.suffix.lower() in THROUGH_GDAL and (pixels := read_image(path, channels)).dtype == np.float32:
        valid = valid_blocks(np.isfinite(pixels).all(0))
    return Tile(*place, partial(read_part, path, channels), valid)


def paired_folders(
    name: str,
    about: str,
    optical: str,
    sar: str,
    group_by: Sequence[str] = (),
    keep: Callable[[str], bool] = lambda key: True,
    **options,
) -> Reader:
    """A reader for pairs that lie as two regular expressions say.

    Parameters
    ----------
    name, about
        See `Reader`.
    optical, sar
        Regular expressions for the path of an image relative to the folder. Their named groups make the key that pairs
        the images; a group `split` (train, val, test) is the set's own split.
    group_by
        Named groups whose images may overlap and stay in one split.
    keep
        Whether a key is used: where crops overlap, those between two groups are left out.
    options
        Of `pairs_scene`.

    Examples
    --------
    >>> reader = paired_folders("mine", "my pairs", r"rgb/(?P<n>\\d+)\\.png", r"radar/(?P<n>\\d+)\\.png")
    >>> reader.has_coordinates
    False
    """
    patterns = {"optical": re.compile(optical), "sar": re.compile(sar)}
    for modality, pattern in patterns.items():
        groups = set(pattern.groupindex)
        if not groups - {"split"}:
            raise ValueError(f"{name}: the pattern {pattern.pattern!r} has no named group that could pair the images")
        if unlike := (groups ^ set(patterns["optical"].groupindex)) | (set(group_by) - groups):
            raise ValueError(
                f"{name}: the {modality} pattern {pattern.pattern!r} has the groups {sorted(groups)}, expected those "
                f"of the optical pattern and of group_by; {sorted(unlike)[0]!r} is in one of them only"
            )

    files = partial(_matching_files, patterns, group_by, keep)
    recognises = partial(_recognises, patterns)
    scene = partial(pairs_scene, name=name, **options)
    return Reader(name, about, recognises, files, scene, has_coordinates=False)


Patterns = dict[str, re.Pattern]  # by modality


def _matching_files(
    patterns: Patterns, group_by: Sequence[str], keep: Callable[[str], bool], folder: Path
) -> pd.DataFrame:
    found, order = [], [g for g in patterns["optical"].groupindex if g != "split"]
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and visible(p, folder)):
        for modality, pattern in patterns.items():
            match = pattern.fullmatch(path.relative_to(folder).as_posix())
            if not match:
                continue
            parts = match.groupdict(default="")
            split = parts.pop("split", "")
            if split not in ("", *FRACTIONS):
                raise ValueError(f"{path}: its split is {split!r}, expected one of {list(FRACTIONS)}")
            key = "_".join([*([split] if split else []), *(parts[g] for g in order)])
            if keep(key):
                found.append(File(path, modality, key, split, group="_".join(parts[g] for g in group_by)))
    return table_of(found)


def _recognises(patterns: Patterns, folder: Path) -> bool:
    """Whether every pattern matches something in the folder."""
    missing = dict(patterns)
    for path in folder.rglob("*"):
        relative = path.relative_to(folder).as_posix()
        missing = {m: p for m, p in missing.items() if not p.fullmatch(relative)}
        if not missing:
            return True
    return False


PAIRS = paired_folders(
    "pairs",
    "your own pairs: opt/NAME.png beside sar/NAME.png",
    r"opt/(?P<name>.+)\.\w+",
    r"sar/(?P<name>.+)\.\w+",
)._replace(
    recognises=lambda folder: (folder / "opt").is_dir() and (folder / "sar").is_dir(),
    scene=pairs_scene,  # called as its folder, of which there may be many
)
