"""A gallery: what a map has become under one encoder. Built once, in windows, kept on disk, and reused."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn

from sarmatch.atomic_io import write
from sarmatch.encoders import embed
from sarmatch.patches import PatchImages, positions
from sarmatch.paths import cache_dir
from sarmatch.progress import progress
from sarmatch.scenes import NoCoordinatesError, Raster, Scene
from sarmatch.search.keeping import Part, kept_or_made, kept_part, on_own_device, processes, save_tensors

HASHED = 1024  # pixels of a map that are hashed at once along each side
PLAIN = (bool, int, float, str, tuple, list, dict)  # what an encoder's options are made of
TOGETHER = 4  # batches of tiles that are kept together while others are made
UNIT = 1e-3  # how far the length of a vector may be from one


@dataclass(frozen=True, eq=False)
class Gallery:
    """Tiles of a map with their vectors.

    Attributes
    ----------
    tiles : DataFrame
        As `sarmatch.patches.references` gives them: `area`, `row`, `col`, `size` and, where the map has coordinates,
        `x`, `y`.
    vectors : float32 (N, D)
        An L2-normalised embedding per tile.
    tile_m : float or None
        Side of a tile in metres; None where the map has no coordinates.

    Raises
    ------
    ValueError
        On an empty gallery, vectors that are not one per tile, finite and L2-normalised to 1e-3, or positions that are
        not finite.
    """

    tiles: pd.DataFrame
    vectors: NDArray[np.float32]
    tile_m: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", unit_rows("vectors", self.vectors))
        if not len(self.vectors):
            raise ValueError("the gallery is empty: vectors has 0 rows")
        if len(self.tiles) != len(self.vectors):
            raise ValueError(f"vectors must be one per tile, got {len(self.vectors)} for {len(self.tiles)} tiles")
        if self.has_coordinates and not np.isfinite(self.xy).all():
            row = np.flatnonzero(~np.isfinite(self.xy).all(axis=1))[0]
            raise ValueError(f"positions must be finite, tile {row} is not")
        if self.tile_m is not None and not 0 < self.tile_m < np.inf:
            raise ValueError(f"tile_m must be above 0 metres and finite, got {self.tile_m}")

    @classmethod
    def of_vectors(
        cls, vectors: NDArray | torch.Tensor, xy: NDArray | None = None, tile_m: float | None = None
    ) -> "Gallery":
        """A gallery of one area from vectors `(N, D)`, with positions `(N, 2)` in metres where there are any."""
        vectors = unit_rows("vectors", vectors)
        tiles = pd.DataFrame({"area": ["map"] * len(vectors)})
        if xy is not None:
            xy = np.asarray(xy, np.float64)
            if xy.shape != (len(vectors), 2):
                raise ValueError(f"positions must be ({len(vectors)}, 2), one row per vector, got {xy.shape}")
            tiles = tiles.assign(x=xy[:, 0], y=xy[:, 1])
        return cls(tiles, vectors, tile_m)

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.tiles)

    @property
    def has_coordinates(self) -> bool:
        """Whether its tiles lie somewhere in metres."""
        return positions(self.tiles) is not None

    @cached_property
    def xy(self) -> NDArray[np.float64]:
        """Centres of the tiles `(N, 2)` in metres; raises `NoCoordinatesError` where there are none."""
        xy = positions(self.tiles)
        if xy is None:
            raise NoCoordinatesError("this set has no coordinates: its tiles have no positions in metres")
        return xy.astype(np.float64)

    @cached_property
    def areas(self) -> tuple[str, ...]:
        """Names of its areas, in the order of the tiles."""
        return tuple(self.tiles["area"].unique())

    @cached_property
    def area(self) -> NDArray[np.int64]:
        """Which of `areas` each tile lies in `(N,)`."""
        return pd.Index(self.areas).get_indexer(self.tiles["area"]).astype(np.int64)

    def save(self, path: Path) -> None:
        """Keep it as one safetensors file; the table of tiles is JSON in its header."""
        about = {"tiles": self.tiles.to_json(orient="split", double_precision=15), "tile_m": json.dumps(self.tile_m)}
        write(path, lambda p: save_tensors(p, {"vectors": self.vectors}, about))

    @classmethod
    def load(cls, path: Path) -> "Gallery":
        """A gallery that `save` has kept.

        Raises
        ------
        ValueError
            Where the file is not readable as one; names it.
        """
        try:
            with safe_open(path, "np") as file:
                about, vectors = file.metadata(), file.get_tensor("vectors")
            split = json.loads(about["tiles"])
            tiles = pd.DataFrame(split["data"], columns=split["columns"])
            return cls(tiles, vectors, json.loads(about["tile_m"]))
        except Exception as error:
            raise ValueError(f"{path}: not readable as a gallery ({error}); delete it, and it is built anew") from error


def build_gallery(
    encoder: nn.Module,
    scene: Scene,
    tiles: pd.DataFrame,
    image_size: int,
    batch_size: int = 128,
    keep: Path | None = None,
) -> Gallery:
    """The gallery of some tiles under an encoder, tile by tile from the map's files.

    Parameters
    ----------
    encoder
        As `create_encoder` gives it.
    scene, tiles
        The map and its tiling, see `sarmatch.patches.references`.
    image_size
        Side in pixels of what the encoder sees.
    batch_size
        Tiles encoded at once.
    keep
        Folder in which it is kept under a hash of the map's pixels, the tiling and the encoder's weights, and found
        again by the next call; `galleries_dir()` is made for it. None builds it anew. The processes of an
        `accelerate launch` share the tiles of one that is kept, each on its own device.
    """
    step = TOGETHER * batch_size
    groups = {f"{start}-{step}.safetensors": tiles.iloc[start : start + step] for start in range(0, len(tiles), step)}

    def group(name: str) -> Part:
        images = torch.utils.data.DataLoader(PatchImages(scene, groups[name], image_size), batch_size)
        return {"vectors": torch.from_numpy(embed(encoder, images, "reference"))}

    def share(parts: Path) -> None:
        with on_own_device(encoder), processes().split_between_processes(list(groups)) as own:
            for name in progress(own, desc="gallery", unit="group"):
                kept_part(parts / name, partial(group, name))

    def make(parts: Path | None) -> Gallery:
        made = [group(n) if parts is None else kept_part(parts / n, partial(group, n)) for n in groups]
        side = int(tiles["size"].iloc[0]) * scene.pixel_size if scene.has_coordinates else None
        return Gallery(tiles.reset_index(drop=True), torch.cat([m["vectors"] for m in made]).numpy(), side)

    if keep is None:
        return make(None)
    path = keep / f"{gallery_key(encoder, scene, tiles, image_size)}.safetensors"
    return kept_or_made(path, Gallery.load, make, share)


def galleries_dir() -> Path:
    """Folder of kept galleries: ``galleries`` of the cache."""
    return cache_dir() / "galleries"


def gallery_key(encoder: nn.Module, scene: Scene, tiles: pd.DataFrame, image_size: int) -> str:
    """Sixteen letters that stand for a map's pixels, its tiling, and an encoder with its weights."""
    digest = new_digest()
    for area in tiles["area"].unique():
        hash_raster(digest, scene.area(area).map)
    digest.update(tiles.to_csv(index=False).encode())
    digest.update(str(image_size).encode())
    hash_encoder(digest, encoder)
    return digest.hexdigest()


def new_digest() -> "hashlib._Hash":
    """What a key is made with: its hexdigest has sixteen letters."""
    return hashlib.blake2b(digest_size=8)


def hash_encoder(digest: "hashlib._Hash", encoder: nn.Module) -> None:
    """Everything that makes an encoder: what it says of itself, its plain options and its weights."""
    digest.update(str(encoder).encode())
    for name, module in encoder.named_modules():  # options that neither the printed form nor a weight tells
        plain = {k: v for k, v in sorted(vars(module).items()) if not k.startswith("_") and k != "training"}
        plain = {k: v for k, v in plain.items() if isinstance(v, PLAIN)}
        digest.update(f"{name} {type(module).__name__} {plain}".encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())


def hash_raster(digest: "hashlib._Hash", raster: Raster) -> None:
    """Everything that is read from a raster; what its tiles' digests stand for is not read again."""
    digest.update(f"{raster.bands} {raster.scale} {raster.window}".encode())
    for tile in raster.tiles:
        digest.update(f"{tile.row} {tile.col} {tile.height} {tile.width}".encode())
        if tile.digest is not None:
            digest.update(tile.digest.encode())
            continue
        for top, left in product(range(0, tile.height, HASHED), range(0, tile.width, HASHED)):
            rows, cols = slice(top, min(top + HASHED, tile.height)), slice(left, min(left + HASHED, tile.width))
            digest.update(np.ascontiguousarray(tile.read(rows, cols)).tobytes())


def unit_rows(name: str, value: NDArray | torch.Tensor) -> NDArray[np.float32]:
    """As a contiguous float32 matrix of finite, L2-normalised rows; a ValueError names the row that is not."""
    if isinstance(value, torch.Tensor):
        value = value.detach().float().cpu().numpy()
    value = np.ascontiguousarray(value, dtype=np.float32)
    if value.ndim != 2:
        raise ValueError(f"{name} must be a matrix of one row per patch, got shape {value.shape}")
    norms = np.linalg.norm(value, axis=1)
    if not np.isfinite(norms).all():
        raise ValueError(f"{name} must be finite, row {np.flatnonzero(~np.isfinite(norms))[0]} is not")
    if len(norms) and np.abs(norms - 1).max() > UNIT:
        row = np.abs(norms - 1).argmax()
        raise ValueError(f"{name} must be L2-normalised to {UNIT:g}, row {row} has norm {norms[row]:.6g}")
    return value
