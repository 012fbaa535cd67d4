"""Read an image file as an array, with errors that name the file and the value."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})


class BadImageError(ValueError):
    """An image file that cannot be used; the message names it."""


def image_size(path: Path) -> tuple[int, int]:
    """Height and width from the file's header, without decoding it."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise BadImageError(f"{path}: not readable as an image ({error})") from error


@lru_cache(maxsize=256)
def read_image(path: Path, channels: int) -> np.ndarray:
    """Pixels as `uint8 (channels, H, W)`.

    A grey file gives three equal channels where three are asked for, and a file with three equal channels gives its one
    channel where one is asked for: SAR is often stored so. Nothing else is converted silently.

    Raises
    ------
    BadImageError
        Where the file cannot be decoded, has other channels or another type than expected, or holds one constant value.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImageError(f"{path}: not readable as an image ({error})") from error
    if pixels.dtype != np.uint8:
        raise BadImageError(f"{path}: pixels are {pixels.dtype}, expected uint8")
    if pixels.min() == pixels.max():
        raise BadImageError(f"{path}: every pixel is {pixels.min()}, a constant image cannot be matched")
    stack = np.atleast_3d(pixels).transpose(2, 0, 1)
    found = len(stack)
    if found == channels:
        return np.ascontiguousarray(stack)
    if found == 1:
        return np.repeat(stack, channels, axis=0)
    if channels == 1 and found == 3 and (stack == stack[:1]).all():
        return np.ascontiguousarray(stack[:1])
    same = " that differ" if channels == 1 else ""
    raise BadImageError(f"{path}: has {found} channels{same}, expected {channels}")


def verify_images(files: Iterable[tuple[Path, int]]) -> None:
    """Decode every `(path, channels)` once, and report all the broken ones together, by name.

    Raises
    ------
    BadImageError
        One message with up to ten of the files and what is wrong with each.
    """
    problems = []
    for path, channels in tqdm(list(files), desc="checking images", unit="file", leave=False, delay=2):
        try:
            read_image(path, channels)
        except BadImageError as error:
            problems.append(str(error))
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise BadImageError(f"{len(problems)} unusable image(s):\n  " + "\n  ".join(problems[:10]) + more)
