"""Read an image file as an array, with errors that name the file and the value."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from sarmatch.datasets.rasters import (
    PILLOW_FORMATS,
    UNREADABLE,
    BadImageError,
    open_raster,
    orientation,
    reading,
    require_file,
    sidecar_of,
    stored_type,
)
from sarmatch.progress import progress

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
THROUGH_GDAL = frozenset({".tif", ".tiff"})  # any number of bands of any type

#: Bytes of pixels that one byte of a file can hold: deflate reaches 1032. More means a forged or an empty image.
DENSEST = 1100

#: Values that mean "no data" so often that they are not believed to be pixels where nobody says so.
SENTINELS = np.array([-9999, -99999, -32768, -32767], np.float32)
HUGE = 1e30  # beyond it lie the fill values of other conventions, not what a sensor measures


def image_size(path: Path) -> tuple[int, int]:
    """Height and width from the file's header, upright, without decoding it."""
    require_file(path)
    try:
        if path.suffix.lower() in THROUGH_GDAL:
            with open_raster(path) as file:
                size = file.height, file.width
            return size[::-1] if orientation(path) >= 5 else size
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            size = image.height, image.width
            itself = image.format == "TIFF"  # Pillow turns a TIFF itself
        return size if itself or orientation(path) < 5 else size[::-1]
    except BadImageError:
        raise
    except UNREADABLE as error:
        raise BadImageError(f"{path}: not readable as an image ({error})") from error


#: What an orientation of EXIF asks to do with pixels `(C, H, W)`.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x: x,
    2: lambda x: x[:, :, ::-1],
    3: lambda x: x[:, ::-1, ::-1],
    4: lambda x: x[:, ::-1],
    5: lambda x: x.swapaxes(1, 2),
    6: lambda x: np.rot90(x, -1, (1, 2)),
    7: lambda x: x.swapaxes(1, 2)[:, ::-1, ::-1],
    8: lambda x: np.rot90(x, 1, (1, 2)),
}


def undeclared_nodata(pixels: np.ndarray) -> np.ndarray:
    """Which values look like a nodata value that nobody declared: bool of the same shape; NaN is none of them."""
    size = np.abs(pixels)
    return np.isin(pixels, SENTINELS) | (size > HUGE) & (size < np.inf)


def read_image(path: Path, channels: int) -> np.ndarray:
    """Pixels as `(channels, H, W)`: `uint8`, or `float32` of a TIFF that holds anything else, NaN where it has no data.

    An image is turned as its EXIF says, a palette gives its colours, and complex SAR its magnitude. A grey file gives
    three equal channels where three are asked for, and a file with three equal channels gives its one channel where one
    is asked for: SAR is often stored so. Nothing else is converted silently.

    Raises
    ------
    BadImageError
        Where the file cannot be decoded, has other channels or another type than expected, holds one constant value, or
        values that look like an undeclared nodata value.
    """
    require_file(path)
    return _read_image(path, channels, version_of(path))


def version_of(path: Path) -> tuple[int, int, int]:
    """What differs where a file has been replaced by another of its name."""
    about = path.stat()
    return about.st_mtime_ns, about.st_size, about.st_ino


@lru_cache(maxsize=256)
def _read_image(path: Path, channels: int, version: tuple[int, int, int]) -> np.ndarray:
    """The same for a version of the file: one that has been replaced is read again."""
    try:
        stack = _read_gdal(path, channels) if path.suffix.lower() in THROUGH_GDAL else _read_pillow(path)
    except BadImageError:
        raise
    except UNREADABLE as error:
        raise BadImageError(f"{path}: not readable as an image ({error})") from error
    if stack.dtype not in (np.uint8, np.float32):
        raise BadImageError(f"{path}: pixels are {stack.dtype}, expected uint8")
    valid = stack[np.isfinite(stack)] if stack.dtype == np.float32 else stack
    if not valid.size:
        raise BadImageError(f"{path}: holds no data")
    if stack.dtype == np.float32 and (odd := undeclared_nodata(valid)).any():
        raise BadImageError(
            f"{path}: {odd.sum()} values are {valid[odd][0]:g}, which looks like nodata that nothing declares; "
            "expected a nodata value in it"
        )
    if valid.min() == valid.max():
        raise BadImageError(f"{path}: every pixel is {valid.min()}, a constant image cannot be matched")
    found = len(stack)
    if found == channels:
        return np.ascontiguousarray(stack)
    if found == 1:
        return np.repeat(stack, channels, axis=0)
    if channels == 1 and found == 3 and (stack == stack[:1]).all():
        return np.ascontiguousarray(stack[:1])
    same = " that differ" if channels == 1 else ""
    raise BadImageError(f"{path}: has {found} channels{same}, expected {channels}")


def _read_pillow(path: Path) -> np.ndarray:
    with Image.open(path, formats=PILLOW_FORMATS) as image:
        turn = TURNS[1] if image.format == "TIFF" else TURNS.get(orientation(path), TURNS[1])
        palette = image.mode == "P"  # whose indices are no pixels
        shown = image.convert("RGBA" if "transparency" in image.info else "RGB") if palette else image
        return turn(np.atleast_3d(np.asarray(shown)).transpose(2, 0, 1))


def _read_gdal(path: Path, channels: int) -> np.ndarray:
    with reading(), open_raster(path) as file:
        if file.height * file.width > Image.MAX_IMAGE_PIXELS:
            raise ValueError(
                f"claims {file.height} x {file.width} px, expected at most {Image.MAX_IMAGE_PIXELS} pixels"
            )
        values, beside = file.read(masked=True), sidecar_of(path).nodata
        if beside is not None:
            values = np.ma.masked_equal(values, beside)
        if stored_type(file).startswith("complex") and file.count < channels:
            raise BadImageError(f"{path}: holds complex values, expected an optical image of {channels} channels")
    hidden = np.ma.getmaskarray(values)
    if values.dtype != np.uint8 or hidden.any():
        pixels = values.data.astype(np.float32)
        if values.dtype == np.uint8:
            pixels /= 255
        pixels[hidden] = np.nan
    else:
        pixels = values.data
    return TURNS.get(orientation(path), TURNS[1])(pixels)


def read_part(path: Path, channels: int, rows: slice, cols: slice) -> np.ndarray:
    """A part of an image file: what a `Tile` reads with."""
    return read_image(path, channels)[:, rows, cols]


def verify_images(files: Iterable[tuple[Path, int]]) -> None:
    """Decode every `(path, channels)` once, and report all the broken ones together, by name.

    Raises
    ------
    BadImageError
        One message with up to ten of the files and what is wrong with each.
    """
    problems = []
    for path, channels in progress(list(files), desc="checking images", unit="file", delay=2):
        try:
            read_image(path, channels)
        except BadImageError as error:
            problems.append(str(error))
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise BadImageError(f"{len(problems)} unusable image(s):\n  " + "\n  ".join(problems[:10]) + more)
