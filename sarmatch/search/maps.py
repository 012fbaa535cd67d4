"""Feature maps of a scene's areas under a dense encoder: made once, in windows, kept on disk in half precision."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sarmatch.atomic_io import write
from sarmatch.encoders import Encoder, in_use
from sarmatch.patches import to_input
from sarmatch.progress import progress
from sarmatch.scenes import Raster, Scene
from sarmatch.search.correlate import FeatureMap
from sarmatch.search.gallery import hash_encoder, hash_raster, keep_if_possible, kept, new_digest

Bounds = tuple[int, int, int, int]  # first row and column, and those after the last, pixels

LAYOUT = b"feature maps 2"  # of a kept file; another number where it changes, and files of the old one are left alone
WINDOW = 1024  # pixels of a map that are encoded at once along each side, a margin left out


@dataclass(frozen=True, eq=False)
class DenseGallery:
    """Feature maps by area.

    Attributes
    ----------
    maps : mapping of str to FeatureMap
        With their affine; a cell is `stride` pixels wide.
    stride : int
        Pixels along the side of a cell.
    """

    maps: Mapping[str, FeatureMap]
    stride: int

    def __post_init__(self) -> None:
        if not self.maps:
            raise ValueError("maps: no area, expected at least one")
        channels = next(iter(self.maps.values())).features.shape[0]
        for name, (features, valid, *_) in self.maps.items():
            whole = features.ndim == 3 and len(features) == channels and features.numel() > 0
            if not whole or (valid is not None and valid.shape != features[0].shape):
                masked = "" if valid is None else f" with valid {tuple(valid.shape)}"
                raise ValueError(
                    f"map of area {name!r}: features {tuple(features.shape)}{masked}, expected ({channels}, H, W)"
                )
            if not features.isfinite().all():
                raise ValueError(f"map of area {name!r}: its features are not finite")

    @property
    def areas(self) -> tuple[str, ...]:
        """Names of its areas."""
        return tuple(self.maps)

    @property
    def cells(self) -> int:
        """Number of places of all maps together, a cell each."""
        return sum(m.features[0].numel() for m in self.maps.values())

    def save(self, path: Path) -> None:
        """Keep it as one safetensors file."""
        tensors: dict[str, Tensor] = {}
        for i, fmap in enumerate(self.maps.values()):
            tensors[f"{i}/features"] = fmap.features.contiguous()
            if fmap.valid is not None:
                tensors[f"{i}/valid"] = fmap.valid.contiguous()
        places = [(name, *m.corner, m.metres, m.centred) for name, m in self.maps.items()]
        about = {"places": json.dumps(places), "stride": json.dumps(self.stride)}
        write(path, lambda p: save_file(tensors, p, about))

    @classmethod
    def load(cls, path: Path) -> "DenseGallery":
        """A gallery that `save` has kept; a ValueError names a file that is none."""
        try:
            with safe_open(path, "pt") as file:
                about, names = file.metadata(), set(file.keys())
                maps = {}
                for i, (name, x, y, metres, centred) in enumerate(json.loads(about["places"])):
                    valid = file.get_tensor(f"{i}/valid") if f"{i}/valid" in names else None
                    maps[name] = FeatureMap(file.get_tensor(f"{i}/features"), valid, (x, y), metres, centred)
                return cls(maps, json.loads(about["stride"]))
        except Exception as error:
            raise ValueError(
                f"{path}: not readable as feature maps ({error}); delete it, and they are built anew"
            ) from error


def build_maps(
    encoder: Encoder,
    scene: Scene,
    areas: Sequence[str] | Mapping[str, Bounds] | None = None,
    keep: Path | None = None,
) -> DenseGallery:
    """Feature maps of the optical maps of some areas, all of them by default.

    Parameters
    ----------
    encoder
        With `forward_features`, `stride` and `reach`.
    scene
        Where from.
    areas
        Names of areas, or which pixels of each: first row, first column, and those after the last.
    keep
        Folder in which they are kept under a hash of the map's pixels and the encoder's weights, and found again.

    Raises
    ------
    ValueError
        For an area or pixels that the scene does not have, or an encoder whose maps cannot be made in windows.

    Notes
    -----
    Maps are read and encoded in windows that overlap by what a cell depends on, so that a map larger than memory needs
    no more than its features, `(C, H / stride, W / stride)` in half precision.
    """
    if encoder.stride is None or encoder.reach is None:
        raise ValueError(f"{type(encoder).__name__} has no stride and reach: its maps cannot be made in windows")
    names = [a.name for a in scene.areas] if areas is None else areas
    bounds = {n: _within(areas[n] if isinstance(areas, Mapping) else None, scene.area(n).map, n) for n in names}
    path = None
    if keep is not None:
        digest = new_digest()
        digest.update(LAYOUT)
        for name in names:
            digest.update(str(bounds[name]).encode())
            hash_raster(digest, scene.area(name).map)
        hash_encoder(digest, encoder)
        digest.update(b"" if encoder.centred else b"not centred")
        path = keep / f"{digest.hexdigest()}.safetensors"
        if (known := kept(path, partial(_known, bounds, encoder.stride))) is not None:
            return known
    maps = {}
    for name in progress(names, desc="feature maps", unit="area"):
        row, col = bounds[name][:2]
        with in_use(encoder):
            features, valid = encode_raster(encoder, scene.area(name).map, "reference", bounds=bounds[name])
        corner = scene.metres(name, np.array([row]), np.array([col]))[0]
        side = encoder.stride * scene.pixel_size
        maps[name] = FeatureMap(features, valid, (float(corner[0]), float(corner[1])), side, encoder.centred)
    gallery = DenseGallery(maps, encoder.stride)
    if path is not None:
        keep_if_possible(path, gallery.save)
    return gallery


def _known(bounds: Mapping[str, Bounds], stride: int, path: Path) -> DenseGallery:
    """Kept maps of these pixels; a ValueError names a file that holds others."""
    gallery = DenseGallery.load(path)
    cells = {
        n: ((bottom - top) // stride, (right - left) // stride) for n, (top, left, bottom, right) in bounds.items()
    }
    if (gallery.stride, {n: tuple(m.features.shape[1:]) for n, m in gallery.maps.items()}) != (stride, cells):
        raise ValueError(f"{path}: holds maps of {gallery.areas}, expected {cells} cells of {stride} px")
    return gallery


def _within(bounds: Bounds | None, raster: Raster, area: str) -> Bounds:
    """Bounds that lie within a raster, by default all of it; a ValueError names those that do not."""
    if bounds is None:
        return raster.bounds
    top, left, bottom, right = raster.bounds
    if len(bounds) != 4 or not (top <= bounds[0] < bounds[2] <= bottom and left <= bounds[1] < bounds[3] <= right):
        raise ValueError(f"area {area!r}: pixels {tuple(bounds)} do not lie within its map, {raster.bounds}")
    return bounds


@torch.no_grad()
def encode_raster(
    encoder: Encoder, raster: Raster, modality: str, window: int = WINDOW, bounds: Bounds | None = None
) -> tuple[Tensor, Tensor | None]:
    """Features `(C, H, W)` of a raster in half precision, and where they see nothing but data, if not all over.

    Of the whole of it, or of the part within `bounds`; what lies beyond them is seen by the cells at their edge.

    Nodata is filled with the mean of what a window has; cells that would see it are 0 and not valid.
    """
    row0, col0, row1, col1 = bounds or raster.bounds
    stride = encoder.stride
    high, wide = (row1 - row0) // stride, (col1 - col0) // stride
    features: Tensor | None = None
    valid = torch.ones(high, wide, dtype=torch.bool)
    for rows, cols in _windows(high, wide, max(1, window // stride)):
        part, sees = _encoded(encoder, raster, modality, (row0, col0), rows, cols)
        if features is None:
            features = torch.zeros(part.shape[0], high, wide, dtype=torch.float16)
        features[:, rows, cols] = (part * sees).half()
        valid[rows, cols] = sees
    if features is None:
        raise ValueError(f"raster {raster.name!r}: {row1 - row0} x {col1 - col0} px hold no cell of {stride} px")
    return features, None if valid.all() else valid


def _windows(high: int, wide: int, step: int) -> Iterator[tuple[slice, slice]]:
    for row in range(0, high, step):
        for col in range(0, wide, step):
            yield slice(row, min(row + step, high)), slice(col, min(col + step, wide))


def _encoded(
    encoder: Encoder, raster: Raster, modality: str, origin: tuple[int, int], rows: slice, cols: slice
) -> tuple[Tensor, Tensor]:
    """Features of a window of cells `(C, h, w)`, encoded with a margin of what they depend on, and which see no hole.

    Beyond the raster its edge is repeated.
    """
    stride, margin = encoder.stride, -(-encoder.reach // encoder.stride)
    row0, row1 = (origin[0] + stride * k for k in (rows.start - margin, rows.stop + margin))
    col0, col1 = (origin[1] + stride * k for k in (cols.start - margin, cols.stop + margin))
    top, left, bottom, right = raster.bounds
    inner = (max(row0, top), max(col0, left), min(row1, bottom), min(col1, right))
    around = [inner[1] - col0, col1 - inner[3], inner[0] - row0, row1 - inner[2]]
    pixels = raster.read(inner[0], inner[1], inner[2] - inner[0], inner[3] - inner[1], fill=np.nan)
    hole = ~np.isfinite(pixels).all(0)
    if hole.any():
        pixels = np.where(hole, 0.0 if hole.all() else pixels[:, ~hole].mean(), pixels).astype(np.float32)
    images = F.pad(to_input(torch.from_numpy(pixels)[None], raster.scale, None, raster.window), around, "replicate")
    device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    cut = slice(margin, -margin or None)
    part = encoder.forward_features(images.to(device), modality)[0, :, cut, cut].float().cpu()
    holes = F.max_pool2d(F.pad(torch.from_numpy(hole)[None, None].float(), around), stride)
    return part, F.max_pool2d(holes, 2 * margin + 1, 1)[0, 0] == 0
