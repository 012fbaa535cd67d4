"""Read an image file as an array, with errors that name the file and the value."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, UnidentifiedImageError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from sarmatch.progress import progress

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
THROUGH_GDAL = frozenset({".tif", ".tiff"})  # any number of bands of any type


#: What Pillow raises on forged files; the last two without a word about which file it was.
UNREADABLE = (
    UnidentifiedImageError,
    RasterioError,
    OSError,
    SyntaxError,
    Image.DecompressionBombError,
    ValueError,
    TypeError,
)

#: Without these GDAL reads a truncated PNG or a damaged JPEG without complaint, and the rest is stray memory or grey.
GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",  # else every opening lists the folder, quadratic in its files
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
}


#: Bytes of pixels that one byte of a file can hold: deflate reaches 1032. More means a forged or an empty image.
DENSEST = 1100


class BadImageError(ValueError):
    """An image file that cannot be used; the message names it."""


def image_size(path: Path) -> tuple[int, int]:
    """Height and width from the file's header, without decoding it."""
    try:
        if path.suffix.lower() in THROUGH_GDAL:
            with rasterio.Env(**GDAL_OPTIONS), _quiet(), rasterio.open(path) as file:
                return file.height, file.width
        with Image.open(path) as image:
            return image.height, image.width
    except UNREADABLE as error:
        raise BadImageError(f"{path}: not readable as an image ({error})") from error


@lru_cache(maxsize=256)
def read_image(path: Path, channels: int) -> np.ndarray:
    """Pixels as `(channels, H, W)`: `uint8`, or `float32` of a TIFF that holds anything else, NaN where it has no data.

    A grey file gives three equal channels where three are asked for, and a file with three equal channels gives its one
    channel where one is asked for: SAR is often stored so. Nothing else is converted silently.

    Raises
    ------
    BadImageError
        Where the file cannot be decoded, has other channels or another type than expected, or holds one constant value.
    """
    try:
        stack = _read_gdal(path) if path.suffix.lower() in THROUGH_GDAL else _read_pillow(path)
    except UNREADABLE as error:
        raise BadImageError(f"{path}: not readable as an image ({error})") from error
    if stack.dtype not in (np.uint8, np.float32):
        raise BadImageError(f"{path}: pixels are {stack.dtype}, expected uint8")
    valid = stack[np.isfinite(stack)] if stack.dtype == np.float32 else stack
    if not valid.size:
        raise BadImageError(f"{path}: holds no data")
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
    with Image.open(path) as image:
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def _read_gdal(path: Path) -> np.ndarray:
    with rasterio.Env(**GDAL_OPTIONS), _quiet(), rasterio.open(path) as file:
        if file.height * file.width > Image.MAX_IMAGE_PIXELS:
            raise ValueError(
                f"claims {file.height} x {file.width} px, expected at most {Image.MAX_IMAGE_PIXELS} pixels"
            )
        if file.dtypes[0] == "uint8":
            return file.read()
        values = file.read(masked=True)
        return np.ma.filled(values.astype(np.float32), np.nan)


@contextmanager
def _quiet() -> Iterator[None]:
    """A pair needs no place on the ground, so its absence is nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


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
