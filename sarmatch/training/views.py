"""Street panoramas against aerial tiles, trained and tested by the same loop as SAR against the map.

A cross-view set stands where a scene does: its tables have the columns of patch tables, its pairs those of
`TrainingPairs`, so that losses, samplers, search and evaluation are the same functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from sarmatch.checks import Size
from sarmatch.datasets import CrossView, load_crossview
from sarmatch.datasets.crossview import CROSSVIEW, ViewImages
from sarmatch.encoders import Encoder, embed, image_sizes
from sarmatch.encoders.base import height_and_width
from sarmatch.evaluation import ranks, recall_at_k, wasserstein
from sarmatch.patches.transforms import list_transforms
from sarmatch.patches.views import polar_transform
from sarmatch.scenes.mercator import pixel_size
from sarmatch.training.config import Config
from sarmatch.training.vectors import MEASURED

TILE_PX = 640  # pixels of zoom 20 across a tile of VIGOR, which offsets count in
GAP_M = 100_000.0  # towns lie this far apart: the set counts metres in each town of its own
VALIDATION = 0.2  # of each town from its eastern edge, or of pairs without places the last
UNPLACED_PX = 2 * TILE_PX  # between pairs without places, so that none overlaps another
NEUTRAL = (
    "patch_size",
    "stride",
    "fold",
    "train_fraction",
    "refiner",
    "search",
)  # fields that say nothing of such a set


@dataclass(frozen=True)
class Views:
    """A folder with a cross-view set as a run sees it, in the place of a scene.

    Attributes
    ----------
    folder : Path
    protocol : str
        `same_area` or `cross_area`.
    """

    folder: Path
    protocol: str

    patch_size = TILE_PX
    areas = ()

    @cached_property
    def _train(self) -> CrossView:
        return load_crossview(self.folder, self.protocol, "train")

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.folder.name

    @property
    def credit(self) -> str:
        """Shown beside results."""
        return self._train.credit

    @property
    def label(self) -> str:
        """`simulated` or `real`."""
        return "simulated" if self._train.simulated else "real"

    @property
    def has_coordinates(self) -> bool:
        """Whether positions in metres exist."""
        return self._train.has_coordinates

    @property
    def kind(self) -> str:
        """`aligned` where every panorama is in the centre of its tile, otherwise `arbitrary`."""
        return "arbitrary" if self.has_coordinates else "aligned"

    @cached_property
    def pixel_size(self) -> float | None:
        """Metres per pixel of a tile's 640, the mean over its towns; None without places."""
        if not self.has_coordinates:
            return None
        return float(np.mean(pixel_sizes(self._train.references)))

    def task(self, split: str, count: int | None = None, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Queries of `train`, `val` or `test` and the tiles they are searched among.

        None of these sets has a validation split: it is the eastern fifth of the training towns, the last fifth of
        pairs without places. Panoramas whose tile may overlap one of it are kept from training.

        Parameters
        ----------
        split
            Which queries. The gallery of each is all tiles of its towns.
        count
            Queries at most, drawn by the seed.
        seed
            Of that draw.
        """
        view = load_crossview(self.folder, self.protocol, "test") if split == "test" else self._train
        references, asked = (self._placed(t) for t in (view.references, view.queries))
        if split != "test":
            asked = asked[self._split(asked) == split].reset_index(drop=True)
        if asked.empty:
            raise ValueError(f"{self.folder}: {self.protocol} holds no panorama for {split}; it is too small")
        if not self.has_coordinates:  # each panorama has a tile of its own, and those of the split are the gallery
            chosen = asked["positive"].to_numpy()
            references, asked = references.iloc[chosen].reset_index(drop=True), asked.assign(positive=range(len(asked)))
        if count is not None and count < len(asked):
            rows = np.random.default_rng(seed).choice(len(asked), count, replace=False)
            asked = asked.iloc[np.sort(rows)].reset_index(drop=True)
        return asked, references

    def _placed(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of the set with the columns of a patch table, and its towns side by side."""
        table = table.assign(size=TILE_PX, strip=table["area"], path=[str(p) for p in table["path"]])
        if not self.has_coordinates:
            return table.assign(strip=[str(i) for i in range(len(table))])
        towns = {name: i for i, name in enumerate(sorted(table["area"].unique()))}
        return table.assign(x=table["x"] + GAP_M * table["area"].map(towns))

    def _split(self, asked: pd.DataFrame) -> pd.Series:
        """`train`, `val` or nothing for each panorama of the training split."""
        split = pd.Series("train", index=asked.index)
        if not self.has_coordinates:
            split.iloc[round((1 - VALIDATION) * len(asked)) :] = "val"
            return split
        for _, town in asked.groupby("area"):
            border = town["x"].max() - VALIDATION * (town["x"].max() - town["x"].min())
            split[town.index[town["x"] > border - TILE_PX * self.pixel_size]] = ""
            split[town.index[town["x"] > border]] = "val"
        return split

    def images(self, table: pd.DataFrame, sizes: Mapping[str, Size | None], polar: bool) -> ViewImages:
        """The images of a table of queries (`positive` is among its columns) or of tiles, as an encoder takes them."""
        query = "positive" in table
        size = sizes["sar" if query else "optical"]
        if size is None:
            raise ValueError("image_size: panoramas and tiles are brought to a size, and the encoder names none")
        change = polar_transform if polar and not query else None
        return ViewImages(table, height_and_width(size), change)


def pixel_sizes(tiles: pd.DataFrame) -> NDArray[np.float64]:
    """Metres per pixel of a tile's 640 `(N,)`, for each tile by its latitude."""
    return np.array([pixel_size(latitude) for latitude in tiles["latitude"]])


def views_of(config: Config) -> Views | None:
    """The cross-view set that a config names as its scene; None where it names another thing."""
    folder = Path(config.scene).expanduser()
    if not (folder.is_dir() and any(recognises(folder) for recognises, _ in CROSSVIEW.values())):
        return None
    return Views(folder, config.protocols[0])


def check_views(config: Config, views: Views) -> None:
    """Whether a config fits a cross-view set.

    Raises
    ------
    ValueError
        Names the field and what is expected.
    """
    if len(config.protocols) > 1:
        raise ValueError(f"protocols is {config.protocols}: each splits {views.name!r} anew, so a run takes one")
    if config.kinds != (views.kind,):
        raise ValueError(f"kinds is {config.kinds}, expected ({views.kind!r},) for {views.name!r}")
    defaults = Config()
    for field in NEUTRAL:
        if getattr(config, field) != getattr(defaults, field):
            raise ValueError(
                f"{field} is {getattr(config, field)!r}: it says nothing of a cross-view set; leave it out"
            )
    if config.sar_bands != 3:
        raise ValueError(f"bands is {config.bands!r}, expected ('red', 'green', 'blue'): panoramas have three")
    fitting = list_transforms(views=True)
    unfit = sorted(set(config.augment) - set(fitting))
    if unfit:
        raise ValueError(f"augment names {unfit}, made for SAR; panoramas and tiles take some of {fitting}")
    for split in ("train", "val", "test"):
        asked, _ = views.task(split)
        if split == "train" and len(asked) < config.batch_size:
            raise ValueError(f"batch_size is {config.batch_size}, more than the {len(asked)} panoramas to learn from")


def draw_pairs(config: Config, pairs: "ViewPairs", encoder: Encoder, epoch: int) -> None:
    """Draw the pairs of an epoch."""
    pairs.draw(epoch)


class ViewPairs(torch.utils.data.Dataset):
    """Panoramas with their positive tiles, in a new order for every epoch; the interface of `TrainingPairs`.

    Parameters
    ----------
    views
        The set.
    config
        `pairs_per_epoch` at most as many panoramas as there are, `seed`, `control`, `reference_view`.
    sizes
        Of images, as `image_sizes` gives them.
    """

    def __init__(self, views: Views, config: Config, sizes: Mapping[str, Size | None]) -> None:
        self.scene, self.size, self.config = views, TILE_PX, config
        self.queries, self.tiles = views.task("train")
        polar = config.reference_view == "polar"
        self._images = [views.images(table, sizes, polar) for table in (self.queries, self.tiles)]
        self._places, self._offsets = self._geometry()
        self.draw(0)

    def _geometry(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of a tile around each panorama and of its own tile, with the town `(N, 5)`, and their offset."""
        positive = self.queries["positive"].to_numpy()
        towns = self.queries["area"].astype("category").cat.codes.to_numpy()
        if not self.scene.has_coordinates:
            corner = np.stack([np.arange(len(positive)) * UNPLACED_PX, np.zeros(len(positive), int)], 1)
            return np.column_stack([corner, corner, towns]), np.zeros((len(positive), 2), np.float32)
        tile = self.tiles.iloc[positive]
        metres = pixel_sizes(tile)[:, None]
        query, reference = (np.stack([-t["y"], t["x"]], 1) / metres for t in (self.queries, tile))
        corners = np.round(np.concatenate([query, reference], 1) - TILE_PX / 2).astype(np.int64)
        return np.column_stack([corners, towns]), (reference - query).astype(np.float32)

    def draw(self, epoch: int) -> None:
        """Draw the pairs of that epoch."""
        rng = np.random.default_rng([self.config.seed, epoch])
        self._rows = rng.permutation(len(self.queries))[: self.config.pairs_per_epoch]
        shuffled = self.config.control == "shuffled_pairs"
        self._references = self.queries["positive"].to_numpy()[rng.permutation(self._rows) if shuffled else self._rows]

    @property
    def place(self) -> np.ndarray:
        """Where the pairs of this epoch lie `(N, 5)`: corners of query and reference, number of the town."""
        return self._places[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One pair, as `TrainingPairs` gives it."""
        row = self._rows[index]
        query, reference = self._images[0][row], self._images[1][self._references[index]]
        place, offset = torch.from_numpy(self._places[row]), torch.from_numpy(self._offsets[row])
        return {"query": query, "reference": reference, "place": place, "offset": offset, "sample": torch.tensor(index)}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Several pairs at once."""
        return [self[i] for i in indices]


def view_pairs(config: Config, views: Views, size: int, encoder: Encoder) -> ViewPairs:
    """The pairs that a config trains on, as the encoder wants them; `size` is that of a tile."""
    return ViewPairs(views, config, image_sizes(encoder))


class ViewValidation:
    """Panoramas of the validation split and their gallery, searched every epoch."""

    def __init__(self, config: Config, views: Views, encoder: Encoder) -> None:
        self.queries, self.tiles = views.task("val", config.val_queries, config.seed + 1)
        polar, sizes = config.reference_view == "polar", image_sizes(encoder)
        self.images = {
            modality: torch.stack(list(views.images(table, sizes, polar)))
            for modality, table in (("query", self.queries), ("reference", self.tiles))
        }

    def measure(self, encoder: Encoder, batch_size: int) -> dict[str, float]:
        """`recall@1`, `@5`, `@10` of the encoder as it stands, and the exact `wasserstein_1` of the modalities."""
        query, reference = (embed(encoder, self.images[m].split(batch_size), m) for m in ("query", "reference"))
        if not (np.isfinite(query).all() and np.isfinite(reference).all()):
            raise FloatingPointError("embeddings of the validation areas are not finite; lower learning_rate")
        positive = self.queries["positive"].to_numpy()
        found = ranks(query @ reference.T, positive)
        apart = wasserstein(query[:MEASURED], reference[positive][:MEASURED], 1)
        return {**{f"recall@{k}": recall_at_k(found, k) for k in (1, 5, 10)}, "wasserstein_1": apart}

    def features(self, encoder: Encoder, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings `(N, D)` of the panoramas and of their positive tiles."""
        positive = torch.tensor(self.queries["positive"].to_numpy())
        pairs = {"query": self.images["query"], "reference": self.images["reference"][positive]}
        query, reference = (embed(encoder, images.split(batch_size), name) for name, images in pairs.items())
        return query, reference
