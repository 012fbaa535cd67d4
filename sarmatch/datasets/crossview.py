"""Cross-view sets: street-level panoramas against satellite tiles, for the systems that were published on them.

A query is a whole image and not a window of a strip, and which tiles are right is written in label files. So these sets
give tables, not scenes: the columns are those of patch tables where they mean the same, so that ranks, recall, hit rate
and metres are computed by the same functions.
"""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from sarmatch.datasets.images import read_image
from sarmatch.scenes.mercator import EARTH_M, pixel_size
from sarmatch.simulation.crossview import MARK

CITIES = {"train": ("NewYork", "Seattle"), "test": ("Chicago", "SanFrancisco")}
"""VIGOR's cross-area split; same-area takes all four."""
VIGOR_SPLITS = {"train": "same_area_balanced_train.txt", "test": "same_area_balanced_test.txt"}
PLACE = re.compile(r"satellite_(?P<lat>-?\d+(\.\d+)?)_(?P<lon>-?\d+(\.\d+)?)\.\w+")


class CrossView(NamedTuple):
    """Queries and references of one split.

    Attributes
    ----------
    name : str
    queries : DataFrame
        `path`, `area`, `positive` (row of `references`), `semi` (tuple of rows) and, with coordinates, `x`, `y` (m).
    references : DataFrame
        `path`, `area` and, with coordinates, `x`, `y` in metres.
    has_coordinates : bool
    credit : str
    simulated : bool
        Whether `simulate_crossview` made it.
    """

    name: str
    queries: pd.DataFrame
    references: pd.DataFrame
    has_coordinates: bool
    credit: str
    simulated: bool = False


def load_crossview(folder: Path | str, protocol: str = "cross_area", split: str = "train") -> CrossView:
    """Tables of a cross-view set.

    Parameters
    ----------
    folder
        VIGOR (`splits/{City}/satellite_list.txt`), CVUSA (`splits/*-19zl.csv`) or CVACT (`ACT_data.mat`).
    protocol
        `same_area` or `cross_area`; only VIGOR knows both, the others have one split of pairs and take `cross_area`.
    split
        `train` or `test`. These sets publish no validation split: take one from training ground.

    Raises
    ------
    FileNotFoundError
        Where a file is missing; it is named.
    ValueError
        Where the layout is unknown, or a label is unusable: file, line and value are named.
    """
    folder = Path(folder).expanduser()
    if protocol not in ("same_area", "cross_area") or split not in ("train", "test"):
        raise ValueError(
            f"protocol and split are {protocol!r}, {split!r}; expected same_area or cross_area, train or test"
        )
    for recognises, read in CROSSVIEW.values():
        if recognises(folder):
            view = read(folder, protocol, split)
            made = (folder / MARK).is_file()
            return view._replace(credit="simulated by sarmatch", simulated=True) if made else view
    raise ValueError(f"{folder}: no cross-view layout; expected one of {sorted(CROSSVIEW)}")


# -------------------------------------------------------------------------------------------------------- VIGOR
def _vigor(folder: Path, protocol: str, split: str) -> CrossView:
    """VIGOR (Zhu et al., CVPR 2021): each panorama has a positive tile, three semi-positives and offsets in pixels.

    Offsets count from the panorama to the centre of the tile, to the north and to the east. The images are given in
    pixels of a resolution that differs from city to city; metres come from the latitude, not from one constant.
    """
    cities = CITIES[split] if protocol == "cross_area" else tuple(c for pair in CITIES.values() for c in pair)
    references, queries = [], []
    start = 0
    for city in cities:
        tiles = _vigor_tiles(folder, city)
        rows = {Path(p).name: start + i for i, p in enumerate(tiles["path"])}
        labels = "pano_label_balanced.txt" if protocol == "cross_area" else VIGOR_SPLITS[split]
        queries.append(_vigor_queries(folder, city, _needed(folder / "splits" / city / labels), tiles, rows, start))
        references.append(tiles)
        start += len(tiles)
    return CrossView(
        f"vigor {protocol}", pd.concat(queries, ignore_index=True), pd.concat(references, ignore_index=True), True,
        "VIGOR, doi 10.1109/CVPR46437.2021.00364",
    )  # fmt: skip


def _vigor_tiles(folder: Path, city: str) -> pd.DataFrame:
    names = _needed(folder / "splits" / city / "satellite_list.txt").read_text().split()
    rows = []
    for line, name in enumerate(names, start=1):
        match = PLACE.fullmatch(name)
        if not match:
            raise ValueError(f"{folder / 'splits' / city / 'satellite_list.txt'}, line {line}: {name!r} holds no place")
        rows.append((_vigor_image(folder, city, "satellite", name), float(match["lat"]), float(match["lon"])))
    table = pd.DataFrame(rows, columns=["path", "latitude", "longitude"]).assign(area=city)
    first = table.iloc[0]
    x = np.radians(table["longitude"] - first.longitude) * EARTH_M * math.cos(math.radians(first.latitude))
    y = np.radians(table["latitude"] - first.latitude) * EARTH_M
    return table.assign(x=x, y=y)


def _vigor_queries(
    folder: Path, city: str, path: Path, tiles: pd.DataFrame, rows: dict[str, int], start: int
) -> pd.DataFrame:
    found = []
    for line, text in enumerate(path.read_text().splitlines(), start=1):
        words = text.split()
        if not words:
            continue
        if len(words) != 13:
            raise ValueError(
                f"{path}, line {line}: has {len(words)} columns, expected a panorama and 4 x (tile, 2 offsets)"
            )
        names = words[1::3]
        missing = [n for n in names if n not in rows]
        if missing:
            raise ValueError(f"{path}, line {line}: {missing[0]!r} is not in the city's list of tiles")
        try:
            north, east = float(words[2]), float(words[3])
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: expected offsets in pixels ({error})") from error
        positive = rows[names[0]]
        tile = tiles.iloc[positive - start]
        metres = pixel_size(tile.latitude)
        found.append(
            {
                "path": _vigor_image(folder, city, "panorama", words[0]),
                "area": city,
                "positive": positive,
                "semi": tuple(rows[n] for n in names[1:]),
                "x": tile.x - east * metres,
                "y": tile.y - north * metres,
            }
        )
    if not found:
        raise ValueError(f"{path}: holds no label")
    return pd.DataFrame(found)


def _vigor_image(folder: Path, city: str, kind: str, name: str) -> Path:
    """An image of a city; both published layouts, `{City}/panorama` and `ground/{City}`."""
    if Path(name).name != name:
        raise ValueError(f"{folder}: the name {name!r} leads outside of the folder")
    first = folder / city / kind / name
    second = folder / {"panorama": "ground", "satellite": "satellite"}[kind] / city / name
    return second if second.parent.is_dir() and not first.parent.is_dir() else first


# ------------------------------------------------------------------------------------------------- CVUSA, CVACT
def _cvusa(folder: Path, protocol: str, split: str) -> CrossView:
    """CVUSA (Workman et al. 2015; the crops of Zhai et al. 2017): one satellite image per panorama, no coordinates."""
    path = _needed(folder / "splits" / {"train": "train-19zl.csv", "test": "val-19zl.csv"}[split])
    pairs = []
    for line, text in enumerate(path.read_text().splitlines(), start=1):
        words = [w.strip() for w in text.split(",")]
        if len(words) < 2 or not all(words[:2]):
            raise ValueError(f"{path}, line {line}: is {text!r}, expected satellite, ground[, annotation]")
        pairs.append(
            (_inside(folder, words[1], f"{path}, line {line}"), _inside(folder, words[0], f"{path}, line {line}"))
        )
    return _pairs("cvusa", pairs, "CVUSA, for research on request")


def _cvact(folder: Path, protocol: str, split: str) -> CrossView:
    """CVACT (Liu and Li, CVPR 2019): panorama and satellite image of one id; its validation set is the test."""
    path = _needed(folder / "ACT_data.mat")
    try:
        data = loadmat(path, squeeze_me=True)
        names = np.atleast_1d(data["panoIds"])
        chosen = data["trainSet" if split == "train" else "valSet"]
        index = np.atleast_1d(chosen["trainInd" if split == "train" else "valInd"].item()).astype(int)
    except (MatReadError, ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path}: expected panoIds, trainSet.trainInd and valSet.valInd ({error})") from error
    if index.min(initial=1) < 1 or index.max(initial=0) > len(names):
        raise ValueError(f"{path}: {split} counts rows {index.min()} to {index.max()} of {len(names)}")
    images = folder / "ANU_data_small"
    pairs = [
        (
            _inside(images, f"streetview/{name}_grdView.jpg", str(path)),
            _inside(images, f"satview_polish/{name}_satView_polish.jpg", str(path)),
        )
        for name in names[index - 1]
    ]
    return _pairs("cvact", pairs, "CVACT, for research on request")


def _pairs(name: str, pairs: Sequence[tuple[Path, Path]], credit: str) -> CrossView:
    ground, satellite = (list(side) for side in zip(*pairs, strict=True))
    queries = pd.DataFrame({"path": ground, "area": name, "positive": np.arange(len(pairs)), "semi": [()] * len(pairs)})
    return CrossView(name, queries, pd.DataFrame({"path": satellite, "area": name}), False, credit)


def _inside(folder: Path, name: str, where: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: {name!r} leads outside of the folder")
    return path


def _needed(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: is missing, the set needs it")
    return path


#: Cross-view layouts: does the folder look like it, and how it is read.
CROSSVIEW: dict[str, tuple[Callable[[Path], bool], Callable[[Path, str, str], CrossView]]] = {
    "vigor": (lambda folder: any(folder.glob("splits/*/satellite_list.txt")), _vigor),
    "cvusa": (lambda folder: any(folder.glob("splits/*-19zl.csv")), _cvusa),
    "cvact": (lambda folder: (folder / "ACT_data.mat").is_file(), _cvact),
}


class ViewImages(torch.utils.data.Dataset):
    """The images of a cross-view table, whole, read when asked for.

    Parameters
    ----------
    table
        With a column `path`.
    size
        Height and width of what is given.
    change
        Another way to that size than shrinking: from images `(1, 3, H, W)` and the size, for instance
        `polar_transform`.

    Notes
    -----
    `dataset[i]` is `float32 (3, height, width)`, 0 to 1.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        size: tuple[int, int],
        change: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor] | None = None,
    ) -> None:
        self.paths, self.size, self.change = [Path(p) for p in table["path"]], size, change or _shrunk

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = torch.from_numpy(read_image(self.paths[index], 3)).float() / 255
        return self.change(pixels[None], self.size)[0]


def _shrunk(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)
