"""Feature maps of a scene's areas under a dense encoder: made once, in windows, kept on disk in few bytes."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from sarmatch.atomic_io import write
from sarmatch.encoders import Encoder, device_of, in_use
from sarmatch.patches import to_input
from sarmatch.progress import progress
from sarmatch.scenes import Raster, Scene
from sarmatch.search.correlate import TINY, FeatureMap
from sarmatch.search.gallery import hash_encoder, hash_raster, new_digest
from sarmatch.search.keeping import Part, kept_or_made, kept_part, on_own_device, processes, save_tensors, zeros

Bounds = tuple[int, int, int, int]  # first row and column, and those after the last, pixels

LAYOUT = b"feature maps 3"  # of a kept file; another number where it changes, and files of the old one are left alone
#: Along each side of what is encoded at once, its margin included, where the widest layer has so many channels: they
#: are just below 32 MiB then. From there on the C library asks the system for every layer's memory anew, which takes up
#: to half as long again. Of a narrower network more cells are.
CELLS, CHANNELS = 480, 32
ROWS = 256  # of a map's cells that are looked at together
INT8 = 127  # of the largest feature of a channel


class Stored(NamedTuple):
    """Features `(C, H, W)` as a gallery keeps them, and what they are multiplied by `(C,)` where they are int8."""

    features: Tensor
    scale: Tensor | None


def quantised(features: Tensor) -> Stored:
    """Features as int8, each channel in 255 even steps about zero: none is off by more than half a step.

    The cosine of a query with a window `f` is off by at most `2 |e| / |f|`, where `e` are the errors of its features.
    """
    low, high = features.flatten(1).aminmax(dim=1)
    scale = torch.maximum(-low, high).float().clamp(min=TINY) / INT8
    whole = (channel.float().div_(step).round_().to(torch.int8) for channel, step in zip(features, scale, strict=True))
    return Stored(torch.stack(list(whole)), scale)


class Precision(NamedTuple):
    """The type in which a map's windows are put together, and how the whole is kept."""

    dtype: torch.dtype
    keep: Callable[[Tensor], Stored]


#: In what numbers a gallery keeps its features, by name.
PRECISIONS: dict[str, Precision] = {
    "float32": Precision(torch.float32, lambda features: Stored(features, None)),
    "float16": Precision(torch.float16, lambda features: Stored(features, None)),
    "int8": Precision(torch.float16, quantised),
}
HALF = "float16"


@dataclass(frozen=True, eq=False)
class DenseGallery:
    """Feature maps by area.

    Attributes
    ----------
    maps : mapping of str to FeatureMap
        With their affine; a cell is `stride` pixels wide.
    stride : int
        Pixels along the side of a cell.
    coarse : DenseGallery or None
        The same areas at the coarse level of the encoder, where it has one.
    """

    maps: Mapping[str, FeatureMap]
    stride: int
    coarse: "DenseGallery | None" = None

    def __post_init__(self) -> None:
        if not self.maps:
            raise ValueError("maps: no area, expected at least one")
        channels = self.channels
        for name, (features, valid, *_, scale) in self.maps.items():
            whole = features.ndim == 3 and len(features) == channels and features.numel() > 0
            if not whole or (valid is not None and valid.shape != features[0].shape):
                masked = "" if valid is None else f" with valid {tuple(valid.shape)}"
                raise ValueError(
                    f"map of area {name!r}: features {tuple(features.shape)}{masked}, expected ({channels}, H, W)"
                )
            if not all(part.isfinite().all() for part in features.split(ROWS, dim=1)):
                raise ValueError(f"map of area {name!r}: its features are not finite")
            if features.is_floating_point() != (scale is None) or (scale is not None and scale.shape != (channels,)):
                scaled = "no scale" if scale is None else f"a scale {tuple(scale.shape)}"
                raise ValueError(
                    f"map of area {name!r}: {features.dtype} with {scaled}, expected floats, or int8 with one"
                )

    @property
    def areas(self) -> tuple[str, ...]:
        """Names of its areas."""
        return tuple(self.maps)

    @property
    def channels(self) -> int:
        """Of its features."""
        return len(next(iter(self.maps.values())).features)

    @property
    def cells(self) -> int:
        """Number of places of all maps together, a cell each."""
        return sum(m.features[0].numel() for m in self.maps.values())

    def save(self, path: Path) -> None:
        """Keep it as one safetensors file."""
        tensors: dict[str, Tensor] = {}
        levels: list[dict] = []
        level: DenseGallery | None = self
        while level is not None:
            for i, fmap in enumerate(level.maps.values()):
                parts = {"features": fmap.features, "valid": fmap.valid, "scale": fmap.scale}
                tensors |= {f"{len(levels)}/{i}/{k}": v.contiguous() for k, v in parts.items() if v is not None}
            places = [(name, m.corner, m.metres, m.centred) for name, m in level.maps.items()]
            levels.append({"stride": level.stride, "places": places})
            level = level.coarse
        write(path, lambda p: save_tensors(p, tensors, {"levels": json.dumps(levels)}))

    @classmethod
    def load(cls, path: Path) -> "DenseGallery":
        """A gallery that `save` has kept; a ValueError names a file that is none."""
        try:
            with safe_open(path, "pt") as file:
                kept, gallery = set(file.keys()), None
                for n, level in reversed(list(enumerate(json.loads(file.metadata()["levels"])))):
                    maps = {}
                    for i, (name, corner, metres, centred) in enumerate(level["places"]):
                        names = (f"{n}/{i}/{k}" for k in ("features", "valid", "scale"))
                        features, valid, scale = (file.get_tensor(k) if k in kept else None for k in names)
                        maps[name] = FeatureMap(features, valid, tuple(corner), metres, centred, scale)
                    gallery = cls(maps, level["stride"], gallery)
                return gallery
        except Exception as error:
            raise ValueError(
                f"{path}: not readable as feature maps ({error}); delete it, and they are built anew"
            ) from error


def build_maps(
    encoder: Encoder,
    scene: Scene,
    areas: Sequence[str] | Mapping[str, Bounds] | None = None,
    keep: Path | None = None,
    precision: str = HALF,
) -> DenseGallery:
    """Feature maps of the optical maps of some areas, all of them by default.

    Parameters
    ----------
    encoder
        With `forward_levels`, `levels` and `reach`.
    scene
        Where from.
    areas
        Names of areas, or which pixels of each: first row, first column, and those after the last.
    keep
        Folder in which they are kept under a hash of the map's pixels and the encoder's weights, and found again.
    precision
        In what numbers: `float32`, `float16`, or `int8` with a scale per channel, a quarter of the bytes of `float32`.
        Whichever it is, features are searched as float32, block by block.

    Raises
    ------
    ValueError
        For an area or pixels that the scene does not have, an encoder whose maps cannot be made in windows, or a
        precision that nobody knows.

    Notes
    -----
    Maps are read and encoded in windows that overlap by what a cell depends on. Features that are kept are put together
    on disk and read from there as they are needed, so that neither a map nor its features need to fit into memory;
    those that are not kept, `(C, H / stride, W / stride)` in half precision, do. All levels are made at once.

    Windows that are made are kept until all are, so that a call that was interrupted goes on; the processes of an
    `accelerate launch` share them, each on its own device.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, expected one of {sorted(PRECISIONS)}")
    if encoder.stride is None or encoder.reach is None:
        raise ValueError(f"{type(encoder).__name__} has no stride and reach: its maps cannot be made in windows")
    names = [a.name for a in scene.areas] if areas is None else areas
    bounds = {n: _within(areas[n] if isinstance(areas, Mapping) else None, scene.area(n).map, n) for n in names}
    make = partial(_built, encoder, scene, bounds, precision)
    if keep is None:
        return make(None)
    digest = new_digest()
    digest.update(LAYOUT)
    for name in names:
        digest.update(str(bounds[name]).encode())
        hash_raster(digest, scene.area(name).map)
    hash_encoder(digest, encoder)
    digest.update(b"" if encoder.centred else b"not centred")
    digest.update(b"" if precision == HALF else precision.encode())
    path = keep / f"{digest.hexdigest()}.safetensors"
    share = partial(_make_share, encoder, scene, bounds, PRECISIONS[precision].dtype)
    return kept_or_made(path, partial(_known, bounds, encoder.levels), make, share)


def _built(
    encoder: Encoder, scene: Scene, bounds: Mapping[str, Bounds], precision: str, parts: Path | None
) -> DenseGallery:
    """Maps put together from windows, those that are made kept in a folder where there is one."""
    levels: list[dict[str, FeatureMap]] = [{} for _ in encoder.levels]
    for number, name in enumerate(progress(bounds, desc="feature maps", unit="area")):
        row, col = bounds[name][:2]
        x, y = scene.metres(name, np.array([row]), np.array([col]))[0].tolist()
        with in_use(encoder):
            made = encode_raster(
                encoder,
                scene.area(name).map,
                "reference",
                bounds=bounds[name],
                dtype=PRECISIONS[precision].dtype,
                parts=None if parts is None else parts / str(number),
            )
        for maps, stride, (whole, valid) in zip(levels, encoder.levels, made, strict=True):
            features, scale = PRECISIONS[precision].keep(whole)
            maps[name] = FeatureMap(features, valid, (x, y), stride * scene.pixel_size, encoder.centred, scale)
    gallery = None
    for maps, stride in zip(reversed(levels), reversed(encoder.levels), strict=True):
        gallery = DenseGallery(maps, stride, gallery)
    return gallery


def _make_share(encoder: Encoder, scene: Scene, bounds: Mapping[str, Bounds], dtype: torch.dtype, parts: Path) -> None:
    """Make and keep this process's share of the windows of all maps."""
    charts = {name: scene.area(name).map for name in bounds}
    todo = [
        (charts[name], at, parts / str(number))
        for number, name in enumerate(bounds)
        for at in windows_of(encoder, charts[name], bounds[name])
    ]
    with in_use(encoder), on_own_device(encoder), processes().split_between_processes(todo) as own:
        for chart, at, folder in progress(own, desc="feature maps", unit="window"):
            _made(encoder, chart, "reference", at, dtype, folder)


def _known(bounds: Mapping[str, Bounds], strides: Sequence[int], path: Path) -> DenseGallery:
    """Stored maps of these pixels at these levels; a ValueError names a file that holds others."""
    gallery = DenseGallery.load(path)
    level: DenseGallery | None = gallery
    for stride in strides:
        cells = {n: ((r1 - r0) // stride, (c1 - c0) // stride) for n, (r0, c0, r1, c1) in bounds.items()}
        held = None if level is None else {n: tuple(m.features.shape[1:]) for n, m in level.maps.items()}
        if level is None or (level.stride, held) != (stride, cells):
            raise ValueError(f"{path}: holds maps of {held} cells, expected {cells} of {stride} px")
        level = level.coarse
    return gallery


def _within(bounds: Bounds | None, raster: Raster, area: str) -> Bounds:
    """Bounds that lie within a raster, by default all of it; a ValueError names those that do not."""
    if bounds is None:
        return raster.bounds
    top, left, bottom, right = raster.bounds
    if len(bounds) != 4 or not (top <= bounds[0] < bounds[2] <= bottom and left <= bounds[1] < bounds[3] <= right):
        raise ValueError(f"area {area!r}: pixels {tuple(bounds)} do not lie within its map, {raster.bounds}")
    return bounds


Level = tuple[Tensor, Tensor | None]  # features, and where they see nothing but data, if not all over


@torch.no_grad()
def encode_raster(
    encoder: Encoder,
    raster: Raster,
    modality: str,
    window: int | None = None,
    bounds: Bounds | None = None,
    dtype: torch.dtype = torch.float16,
    parts: Path | None = None,
) -> list[Level]:
    """Features `(C, H, W)` of a raster, and where they see nothing but data: of every level.

    Of the whole of it, or of the part within `bounds`; what lies beyond them is seen by the cells at their edge.

    Nodata is filled with the mean of what a window has; cells that would see it are 0 and not valid. Windows are kept
    in the folder `parts`, where there is one, and taken from there; large features are put together on the same disk.
    """
    windows = windows_of(encoder, raster, bounds or raster.bounds, window)
    (row0, col0), (row1, col1) = windows[0][:2], windows[-1][2:]
    sides = [((row1 - row0) // stride, (col1 - col0) // stride) for stride in encoder.levels]
    features: list[Tensor] = []
    valid = [torch.ones(side, dtype=torch.bool) for side in sides]
    for at in progress(windows, desc="windows", unit="window"):
        made = _made(encoder, raster, modality, at, dtype, parts)
        if not features:
            room = None if parts is None else parts.parent
            features = [zeros((len(f), *side), dtype, room) for (f, _), side in zip(made, sides, strict=True)]
        for level, (stride, (part, sees)) in enumerate(zip(encoder.levels, made, strict=True)):
            top, left = (at[0] - row0) // stride, (at[1] - col0) // stride
            rows, cols = slice(top, top + sees.shape[0]), slice(left, left + sees.shape[1])
            features[level][:, rows, cols] = part
            valid[level][rows, cols] = sees
    return [(f, None if v.all() else v) for f, v in zip(features, valid, strict=True)]


def margin_of(encoder: Encoder) -> int:
    """Pixels around a window that its cells depend on, in whole steps."""
    return -(-encoder.reach // encoder.step) * encoder.step


def windows_of(encoder: Encoder, raster: Raster, bounds: Bounds, window: int | None = None) -> list[Bounds]:
    """Windows that cover bounds of a raster, but for what is no whole cell.

    Of about `window` pixels a side, by default so many that the widest layer of what is encoded at once has the size of
    `CELLS` by `CELLS` of `CHANNELS`; half of a side is margin at most.
    """
    row0, col0, row1, col1 = bounds
    if window is None:
        side = int(CELLS * math.sqrt(CHANNELS / encoder.widest)) * encoder.levels[0]
        window = max(side - 2 * margin_of(encoder), side // 2)
    finest, coarsest = encoder.levels[0], max(encoder.levels)
    if min(row1 - row0, col1 - col0) < coarsest:
        raise ValueError(f"raster {raster.name!r}: {row1 - row0} x {col1 - col0} px hold no cell of {coarsest} px")
    row1, col1 = row1 - (row1 - row0) % finest, col1 - (col1 - col0) % finest
    step = max(1, window // encoder.step) * encoder.step
    return [
        (row, col, min(row + step, row1), min(col + step, col1))
        for row in range(row0, row1, step)
        for col in range(col0, col1, step)
    ]


def _made(
    encoder: Encoder, raster: Raster, modality: str, window: Bounds, dtype: torch.dtype, folder: Path | None
) -> list[tuple[Tensor, Tensor]]:
    """Features of a window `(C, h, w)` of every level, 0 where they would see a hole, and which see none."""

    def make() -> Part:
        parts = _encoded(encoder, raster, modality, window)
        features = {
            f"features {level}": (part if sees.all() else part * sees).to(dtype).contiguous()
            for level, (part, sees) in enumerate(parts)
        }
        return features | {f"sees {level}": sees for level, (_, sees) in enumerate(parts)}

    name = "-".join(map(str, window))
    made = make() if folder is None else kept_part(folder / f"{name}.safetensors", make)
    return [(made[f"features {level}"], made[f"sees {level}"]) for level in range(len(encoder.levels))]


def _encoded(encoder: Encoder, raster: Raster, modality: str, window: Bounds) -> list[tuple[Tensor, Tensor]]:
    """Features of a window `(C, h, w)` of every level, and which see no hole.

    It is encoded with a margin of what its cells depend on. Beyond the raster its edge is repeated.
    """
    margin = margin_of(encoder)
    row0, col0, row1, col1 = window[0] - margin, window[1] - margin, window[2] + margin, window[3] + margin
    top, left, bottom, right = raster.bounds
    inner = (max(row0, top), max(col0, left), min(row1, bottom), min(col1, right))
    around = [inner[1] - col0, col1 - inner[3], inner[0] - row0, row1 - inner[2]]
    pixels = raster.read(inner[0], inner[1], inner[2] - inner[0], inner[3] - inner[1], fill=np.nan)
    hole = ~np.isfinite(pixels).all(0)
    holes = F.pad(torch.from_numpy(hole)[None, None].float(), around) if hole.any() else None
    if holes is not None:
        pixels = np.where(hole, 0.0 if hole.all() else pixels[:, ~hole].mean(), pixels).astype(np.float32)
    images = F.pad(to_input(torch.from_numpy(pixels)[None], raster.scale, None, raster.window), around, "replicate")
    device = device_of(encoder)
    parts = []
    for stride, features in zip(encoder.levels, encoder.forward_levels(images.to(device), modality), strict=True):
        first = margin // stride
        rows, cols = (slice(first, first + (b - a) // stride) for a, b in zip(window[:2], window[2:], strict=True))
        part = features[0, :, rows, cols].float().cpu()
        blind = torch.zeros_like(part[0]) if holes is None else _blind(holes, encoder, stride)[rows, cols]
        parts.append((part, blind == 0))
    return parts


def _blind(holes: Tensor, encoder: Encoder, stride: int) -> Tensor:
    """Cells `(h, w)` of a stride that see a hole, where holes are `(1, 1, H, W)`."""
    reach, blind = -(-encoder.reach // stride), F.max_pool2d(holes, stride)
    for axis in ((1, 0), (0, 1)):  # a square is its columns' rows: one axis after the other
        blind = F.max_pool2d(blind, [1 + 2 * reach * a for a in axis], 1, [reach * a for a in axis])
    return blind[0, 0]
