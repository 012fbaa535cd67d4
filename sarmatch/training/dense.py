"""What is learned for dense search: maps of features."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sarmatch.encoders import Encoder, image_sizes
from sarmatch.evaluation import list_ranks, recall_at_k, tiles_of_places, wasserstein
from sarmatch.losses import LOSSES, EmbeddedBatch, create_loss
from sarmatch.losses.dense import DenseBatch
from sarmatch.patches import PatchImages, TrainingPairs, pair_overlap, positions, search_task
from sarmatch.patches.images import shown_fraction
from sarmatch.scenes import Scene
from sarmatch.search.candidates import Candidates
from sarmatch.search.correlate import TOGETHER
from sarmatch.search.dense import DenseSearch
from sarmatch.search.maps import Bounds, DenseGallery, build_maps
from sarmatch.search.windows import window_scores
from sarmatch.training import data
from sarmatch.training.config import Config
from sarmatch.training.distributed import gather

COARSE = 0.5  # weight of the loss of each coarser level beside that of the finest
SAMPLE = 8  # cells between those that an alignment is given
PEAKS = 16  # of a query that are looked at first for a false one
SHOWN = 0.5  # of a query on the window of another one, from which on that is no negative


def training_pairs(config: Config, scene: Scene, size: int, encoder: Encoder) -> TrainingPairs:
    """Queries of `size` pixels and the larger windows of the map that they lie in.

    Raises
    ------
    ValueError
        Where windows are no larger than queries, or no ground holds one.
    """
    cell = max(encoder.levels)
    window = round(config.window * size / cell) * cell  # whole cells of the widest level
    if window <= size:
        raise ValueError(
            f"window is {config.window}, in whole cells of {cell} px {window} px: no more than the {size} px of a query"
        )
    return TrainingPairs(
        scene,
        data.training_ground(config, scene, size),
        size,
        image_sizes(encoder),
        config.pairs_per_epoch,
        0.0,
        config.seed,
        shuffle_pairs=config.control == "shuffled_pairs",
        window=window,
    )


def draw_pairs(config: Config, pairs: TrainingPairs, encoder: Encoder, epoch: int) -> None:
    """Draw the pairs of an epoch, from the second on with windows around false peaks of some of their queries."""
    data.draw_pairs(config, pairs, encoder, epoch)
    if config.mined and epoch:
        pairs.join(false_windows(pairs, encoder, config.mined))


def false_windows(pairs: TrainingPairs, encoder: Encoder, count: int) -> pd.DataFrame:
    """Windows of the map around the highest false peak of each of the first `count` queries of an epoch.

    Queries are searched for on the whole training ground by the encoder as it stands. A peak is false where a window
    around it shows less than half of the place where the query is said to lie; at the edge of the training ground a
    window is moved inside. Pairs are drawn at random, so the first of them are a sample.

    Returns
    -------
    DataFrame with `area`, `row`, `col` of the windows and `score` of the peaks, indexed by the number of the pair;
    queries without a false peak are left out.

    Raises
    ------
    ValueError
        Where the training ground is too small to hold a false peak of any query.

    References
    ----------
    .. [1] Shrivastava et al., "Training region-based object detectors with online hard example mining", CVPR 2016.
    """
    bounds = {
        name: (rows.row0.min(), rows.col0.min(), rows.row1.max(), rows.col1.max())
        for name, rows in pairs.rectangles.groupby("area", sort=False)
    }
    search = DenseSearch(build_maps(encoder, pairs.scene, bounds), encoder)
    images = PatchImages(pairs.scene, pairs.query.iloc[:count], pairs.image_size)
    features = search.encode(torch.utils.data.DataLoader(images, TOGETHER))
    parts, left, k = [], np.arange(len(features)), PEAKS
    while len(left):
        found = search.search(features[left], k)
        corner, false = _windows_around(pairs, found, pairs.truth.iloc[left])
        has, best = false.any(1), false.argmax(1)  # the first is the highest
        row, col = corner[has, best[has]].T
        area = np.array(found.areas)[found.area[has, best[has]]]
        peaks = {"area": area, "row": row, "col": col, "score": found.scores[has, best[has]]}
        parts.append(pd.DataFrame(peaks, index=left[has]))
        left, k = left[~has & found.valid.all(1)], 4 * k  # there may be more peaks than were asked for
    windows = pd.concat(parts).sort_index()
    if windows.empty:
        raise ValueError(
            f"mined: the training ground of scene {pairs.scene.name!r} holds no window of {pairs.window} px around a "
            "false peak; lower window, or set mined=0"
        )
    return windows


def _windows_around(
    pairs: TrainingPairs, found: Candidates, truth: pd.DataFrame
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Corners `(Q, K, 2)` of windows on the training ground around candidates, and which show no truth `(Q, K)`."""
    size, side, scene = pairs.size, pairs.window, pairs.scene
    corner, fits = np.zeros((*found.scores.shape, 2), np.int64), np.zeros(found.scores.shape, bool)
    area_of = np.array(found.areas)[found.area]
    for area, *box in (
        pairs.rectangles[["area", "row0", "col0", "row1", "col1"]].drop_duplicates().itertuples(index=False)
    ):
        low, high = np.array(box[:2]), np.array(box[2:])
        middle = (scene.metres(area, [0], [0])[0] - found.xy) * (-1, 1) / scene.pixel_size  # columns and rows
        first = np.rint(middle[..., ::-1] - size / 2)
        here = found.valid & (area_of == area) & ~fits & (high - low >= side).all()
        here &= ((first >= low) & (first + size <= high)).all(-1)
        at = np.clip(np.rint(first + (size - side) / 2), low, high - side).astype(np.int64)
        row, col = at[here].T
        here[here] = scene.area(area).map.covers(row, col, side)
        corner[here], fits = at[here], fits | here
    place = torch.tensor(truth[["row", "col"]].to_numpy())[:, None]
    shown = shown_fraction(place, torch.from_numpy(corner), size, side).numpy()
    return corner, fits & ((shown < SHOWN) | (area_of != truth["area"].to_numpy()[:, None]))


class DenseLearner(nn.Module):
    """Encoder and losses as one module, which is what distributed training needs to wrap.

    Raises
    ------
    ValueError
        Where the encoder makes no maps of features that can be learned, or a loss compares vectors. An auxiliary one
        may, where the encoder pools vectors from its features.
    """

    refining = offset_head = None

    def __init__(self, encoder: Encoder, config: Config, size: int) -> None:
        super().__init__()
        if not hasattr(encoder, "channels"):
            raise ValueError(f"encoder {config.encoder!r} learns no map of features; for search='dense' take 'dense'")
        if config.refiner != "none":
            raise ValueError(f"refiner {config.refiner!r} learns along with vectors only; search is 'dense'")
        pooling = hasattr(encoder, "feature_dim")
        vector = [name for name in (config.loss, *config.auxiliary) if not getattr(LOSSES[name], "dense", False)]
        if vector and not (pooling and config.loss not in vector):
            dense = [name for name in sorted(LOSSES) if getattr(LOSSES[name], "dense", False)]
            field = "loss" if vector[0] == config.loss else "auxiliary"
            raise ValueError(f"{field} {vector[0]!r} compares vectors; those for search='dense' are {dense}")
        self.encoder, self.size, self.masked = encoder, size, config.neighbours == "mask"
        self.feature_dim = encoder.channels
        self.losses = nn.ModuleList(create_loss(config.loss, **config.loss_options) for _ in encoder.levels)
        self.of_vectors = tuple(vector)
        self.auxiliary = nn.ModuleDict(
            {name: create_loss(name, encoder.feature_dim if name in vector else None) for name in config.auxiliary}
        )
        self.weights = config.auxiliary

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        offset: Tensor,
        place: Tensor,
        sample: Tensor,
        mined: Tensor | None = None,
        mined_place: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of the whole batch, and features of matching cells `(N, channels)` of length one, of either modality.

        Mined windows `(B, 3, H, W)` are further negatives, where they do not show the place of a query.
        """
        corner = (reference.shape[-1] - query.shape[-1]) / 2 - gather(offset)  # of the query in its window, pixels
        places = [gather(p) for p in (place, mined_place) if p is not None]
        overlap = torch.cat([pair_overlap(p, self.size, reference.shape[-1]) for p in places], 1)
        allowed = overlap < SHOWN if self.masked else None
        pairs = len(reference)
        windows = reference if mined is None else torch.cat([reference, mined])
        levels = [self.encoder.forward_levels(query, "query"), self.encoder.forward_levels(windows, "reference")]
        loss = corner.new_zeros(())
        for number, (q, r) in enumerate(zip(*levels, strict=True)):
            q, r = gather(q.float()), torch.cat([gather(part.float()) for part in r.split(pairs)])
            scores = window_scores(q, r, self.encoder.centred)
            batch = DenseBatch(scores, corner / self.encoder.levels[number], allowed)
            loss = loss + (COARSE if number else 1.0) * self.losses[number](batch)
            if not number:
                cells = matching_cells(q[:, : self.feature_dim], r, batch.shift)
                own = r[: len(q)], batch.shift, overlap[:, : len(q)]  # without those mined
                pooled = self._pooled(q, *own) if self.of_vectors else None
                for name, auxiliary in self.auxiliary.items():
                    value = auxiliary(pooled if name in self.of_vectors else batch)
                    loss = loss + self.weights[name] * value
        return loss, *cells

    def _pooled(self, query: Tensor, window: Tensor, shift: Tensor, overlap: Tensor) -> EmbeddedBatch:
        """Vectors of queries and of what lies under each in its window; windows that show another are no negatives."""
        high, wide = query.shape[2:]
        corners = shift.round().long().tolist()
        under = torch.stack([w[:, r : r + high, c : c + wide] for w, (r, c) in zip(window, corners, strict=True)])
        vectors = self.encoder.forward_head(query, "query"), self.encoder.forward_head(under, "reference")
        return EmbeddedBatch(*vectors, overlap if self.masked else None)


def matching_cells(query: Tensor, window: Tensor, shift: Tensor, step: int = SAMPLE) -> tuple[Tensor, Tensor]:
    """Features of every `step`-th cell of queries `(B, C, h, w)` and of what lies under them in their windows.

    Returns
    -------
    Two tensors `(N, C)`, of length one.
    """
    rows, cols = (torch.arange(step // 2, side, step, device=query.device) for side in query.shape[2:])
    down, right = shift.round().long().T[..., None]
    each = torch.arange(len(query), device=query.device)[:, None, None]
    own = query[:, :, rows[:, None], cols[None]].movedim(1, -1)
    under = window.movedim(1, -1)[each, (down + rows)[:, :, None], (right + cols)[:, None]]
    return F.normalize(own.flatten(0, 2), dim=1), F.normalize(under.flatten(0, 2), dim=1)


def tile_bounds(tiles: pd.DataFrame) -> dict[str, Bounds]:
    """The pixels of every area that its tiles lie on: what dense search looks at where vector search looks at tiles."""
    return {
        name: (rows.row.min(), rows.col.min(), (rows.row + rows["size"]).max(), (rows.col + rows["size"]).max())
        for name, rows in tiles.groupby("area", sort=False)
    }


class DenseValidation:
    """Arbitrary queries of the first protocol's validation split, searched for on its ground every epoch."""

    def __init__(self, config: Config, scene: Scene, encoder: Encoder) -> None:
        self.scene, self.side = scene, 0.0
        self.queries, self.tiles = search_task(
            scene,
            "arbitrary",
            config.patch_size,
            "val",
            protocol=config.protocols[0],
            stride=config.stride,
            count=config.val_queries,
            seed=config.seed + 1,
        )
        self.images = torch.stack(list(PatchImages(scene, self.queries, image_sizes(encoder))))

    def measure(self, encoder: Encoder, batch_size: int) -> dict[str, float]:
        """`recall@1`, `@5`, `@10` of the encoder as it stands, and the exact `wasserstein_1` of the modalities.

        The distance is that of the features in the middle of every query and of those of the map in the same places,
        scaled to length one.
        """
        gallery = build_maps(encoder, self.scene, tile_bounds(self.tiles))
        search = DenseSearch(gallery, encoder)
        features = search.encode(self.images.split(batch_size))
        if not features.isfinite().all():
            raise FloatingPointError("features of the validation areas are not finite; lower learning_rate")
        found = search.search(features, 10)
        tile_m = int(self.tiles["size"].iloc[0]) * self.scene.pixel_size
        tile = tiles_of_places(found, self.tiles, tile_m)
        scores = np.where(found.valid, found.scores, -np.inf)
        rank = list_ranks(tile, scores, self.queries["positive"].to_numpy(), len(self.tiles))
        apart = wasserstein(self._middle(features, gallery.channels), self._under(gallery), 1)
        return {**{f"recall@{k}": recall_at_k(rank, k) for k in (1, 5, 10)}, "wasserstein_1": apart}

    def features(self, encoder: Encoder, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Features `(N, C)` in the middle of every query and of the map in the same places, of length one."""
        gallery = build_maps(encoder, self.scene, tile_bounds(self.tiles))
        features = DenseSearch(gallery, encoder).encode(self.images.split(batch_size))
        return self._middle(features, gallery.channels), self._under(gallery)

    def _middle(self, features: Tensor, channels: int) -> np.ndarray:
        return self._unit(features[:, :channels, features.shape[2] // 2, features.shape[3] // 2])

    def _under(self, gallery: DenseGallery) -> np.ndarray:
        """The map's features in the middle of every query."""
        cells = []
        for area, xy in zip(self.queries["area"], positions(self.queries), strict=True):
            fmap = gallery.maps[area]
            col, row = ((xy - np.array(fmap.corner)) * (1, -1) / fmap.metres).astype(int)
            last_row, last_col = (side - 1 for side in fmap.features.shape[1:])  # a middle may lie on the map's edge
            cells.append(fmap.cut(min(row, last_row), min(col, last_col), 1, 1)[:, 0, 0].float())
        return self._unit(torch.stack(cells))

    @staticmethod
    def _unit(features: Tensor) -> np.ndarray:
        return F.normalize(features, dim=1).numpy()
