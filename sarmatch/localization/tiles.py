"""Tiles with one vector each as a map whose cells they are: what a strip is located on by a run of vector search."""

from collections.abc import Callable, Sequence
from functools import singledispatch

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarmatch.encoders import Encoder, image_sizes
from sarmatch.encoders.base import Inputs, Modality
from sarmatch.patches import references
from sarmatch.refinement import RefinementContext
from sarmatch.refinement.context import Whitening
from sarmatch.scenes import Scene
from sarmatch.search import DenseGallery, FeatureMap, Gallery, build_gallery, build_maps, galleries_dir
from sarmatch.training.config import Config
from sarmatch.training.prepare import searched_with
from sarmatch.training.runs import whitens

Centre = Callable[[], NDArray[np.floating]]
Whitens = Callable[[Scene, pd.DataFrame], bool]


class TileEncoder(Encoder):
    """An encoder of whole images, to which a window of a strip is one cell: its vector.

    Parameters
    ----------
    encoder
        Makes a vector of an image.
    size, stride
        Sides of a tile, and of the step from one to the next, in pixels.
    centre
        Mean vector of SAR patches of training areas, for whitening; see `sarmatch.training.runs.Run.query_mean`.
    batch_size
        Tiles encoded at once.
    axes
        Of the gallery in which vectors are compared whitened; as they are by default.
    whitened_where
        Whether vectors are compared whitened among some tiles; see `sarmatch.training.runs.Run.whitens`.
    """

    centred = False

    def __init__(
        self,
        encoder: Encoder,
        size: int,
        stride: int,
        centre: NDArray[np.floating],
        batch_size: int = 128,
        axes: Whitening | None = None,
        whitened_where: Whitens = whitens,
    ) -> None:
        super().__init__()
        self.encoder, self.size, self.stride, self.centre = encoder, size, stride, centre
        self.batch_size, self.axes, self.whitened_where = batch_size, axes, whitened_where
        self.inputs = {m: Inputs(own.channels, own.image_size or size) for m, own in encoder.inputs.items()}

    def forward_features(self, images: Tensor, modality: Modality) -> Tensor:
        """Images as the encoder takes them to their vectors `(B, D, 1, 1)`."""
        vectors = self.encoder.encode(images, modality)
        if self.axes is not None:
            whitened = self.axes.whitened(vectors.float().cpu().numpy(), modality)
            vectors = torch.from_numpy(whitened).to(vectors.device)
        return vectors[..., None, None]


#: What windows and map are compared by, of the encoder of a config, by the search that it is for.
COMPARED: dict[str, Callable[[Encoder, Config, int, Centre, Whitens], Encoder]] = {
    "dense": lambda encoder, config, size, centre, whitened_where: encoder,
    "vector": lambda encoder, config, size, centre, whitened_where: TileEncoder(
        encoder, size, config.stride or size, centre(), config.batch_size, whitened_where=whitened_where
    ),
}


def compared_by(
    encoder: Encoder, config: Config, size: int, centre: Centre, whitened_where: Whitens = whitens
) -> Encoder:
    """What windows of `size` px and a map are compared by under the encoder of a config, or under its baseline.

    `centre` gives the mean vector of SAR patches of training areas, and is asked for vectors alone; `whitened_where`
    says of tiles whether vectors are whitened among them.
    """
    return COMPARED[searched_with(config, encoder)](encoder, config, size, centre, whitened_where)


@singledispatch
def maps_on(encoder: Encoder, scene: Scene, areas: Sequence[str] | None = None) -> tuple[DenseGallery, Encoder]:
    """What the maps of some areas, of all by default, have become under an encoder, and what encodes windows for them.

    Made once and kept among the caches: maps of features, or, for an encoder of whole images, a cell per tile.
    """
    return build_maps(encoder, scene, areas, keep=galleries_dir()), encoder


@maps_on.register
def _(encoder: TileEncoder, scene: Scene, areas: Sequence[str] | None = None) -> tuple[DenseGallery, Encoder]:
    """A cell per tile; vectors are whitened where those of a run are by default, see `Run.find`."""
    own = encoder.encoder
    tiles = references(scene, encoder.size, encoder.stride)
    tiles = tiles[tiles["area"].isin([a.name for a in scene.areas] if areas is None else areas)].reset_index(drop=True)
    gallery = build_gallery(own, scene, tiles, image_sizes(own)["optical"], encoder.batch_size, galleries_dir())
    axes = (
        RefinementContext(gallery, query_mean=encoder.centre).whitening
        if encoder.whitened_where(scene, tiles)
        else None
    )
    ready = TileEncoder(own, encoder.size, encoder.stride, encoder.centre, encoder.batch_size, axes)
    vectors = gallery.vectors if axes is None else axes.whitened(gallery.vectors, "reference")
    return laid_out(gallery, vectors, scene, encoder.stride), ready


def laid_out(gallery: Gallery, vectors: NDArray[np.float32], scene: Scene, stride: int) -> DenseGallery:
    """Vectors `(N, D)` of tiles at a stride in pixels as maps; the middle of a cell is the centre of its tile.

    Raises
    ------
    ValueError
        Where the tiles of an area lie on no one grid, as those of a map of images that do not join.
    """
    corners, size, maps = gallery.tiles[["row", "col"]].to_numpy(), int(gallery.tiles["size"].iloc[0]), {}
    for number, name in enumerate(gallery.areas):
        here = gallery.area == number
        top, left = scene.area(name).map.bounds[:2]
        cells, beside = np.divmod(corners[here] - (top, left), stride)
        if beside.any():
            raise ValueError(f"area {name!r}: the images of its map do not join, so that its tiles lie on no one grid")
        features = np.zeros((vectors.shape[1], *cells.max(0) + 1), np.float32)
        features[:, *cells.T] = vectors[here].T
        valid = np.zeros(features.shape[1:], bool)
        valid[*cells.T] = True
        first = np.array([top, left]) + (size - stride) / 2
        x, y = scene.metres(name, first[:1], first[1:])[0].tolist()
        known = None if valid.all() else torch.from_numpy(valid)
        maps[name] = FeatureMap(torch.from_numpy(features), known, (x, y), stride * scene.pixel_size, centred=False)
    return DenseGallery(maps, stride)
