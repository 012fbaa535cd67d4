"""What the numbers of a SAR image mean: power, its root, or decibels, and between which values they lie."""

from collections.abc import Callable

import numpy as np

from sarmatch.scenes.scene import Raster

STANDARD_WINDOW = (-25.0, 5.0)
"""Decibels of calibrated X-band SAR over a town, from calm water to roofs; an uncalibrated image is brought to it."""

#: Values below which nothing but noise or the quantiser speaks: 8-bit amplitude comes in steps of 1/255.
FLOORS = {"intensity": 1e-3, "amplitude": 4 / 255, "decibel": -30.0}

#: Decibels of the intensity, by scale.
DECIBELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "intensity": lambda x: 10 * np.log10(x),
    "amplitude": lambda x: 20 * np.log10(x),
    "decibel": lambda x: x,
}


def to_decibels(pixels: np.ndarray, scale: str) -> np.ndarray:
    """SAR values to decibels of intensity; what is zero, negative or not finite has none and becomes NaN.

    Parameters
    ----------
    pixels
        Any shape.
    scale
        `intensity`, `amplitude` or `decibel`.
    """
    if scale not in DECIBELS:
        raise ValueError(f"scale is {scale!r}, expected one of {sorted(DECIBELS)}")
    with np.errstate(divide="ignore", invalid="ignore"):
        decibels = DECIBELS[scale](np.asarray(pixels, np.float32))
    return np.where(np.isfinite(decibels), decibels, np.nan)


def percentile_window(
    raster: Raster, low: float = 1.0, high: float = 99.0, samples: int = 64, side: int = 256
) -> tuple[float, float]:
    """Percentiles of a SAR raster in decibels, over valid pixels only.

    Parameters
    ----------
    raster
        Of any SAR scale.
    low, high
        Percentiles.
    samples, side
        About so many windows of `side` px, spread evenly over the tiles, are looked at: enough for a percentile, and
        a raster larger than memory is not read whole.

    Raises
    ------
    ValueError
        Where no pixel is valid, or all have one value.
    """
    values = []
    per_tile = max(1, samples // len(raster.tiles))
    for tile in raster.tiles[:: max(1, len(raster.tiles) // samples)]:
        steps = max(1, round(per_tile**0.5))
        for row in np.unique(np.linspace(0, max(0, tile.height - side), steps).astype(int)):
            for col in np.unique(np.linspace(0, max(0, tile.width - side), steps).astype(int)):
                part = tile.read(slice(row, min(row + side, tile.height)), slice(col, min(col + side, tile.width)))
                factor = 1 / 255 if part.dtype == np.uint8 else 1
                decibels = to_decibels(part * np.float32(factor), raster.scale)
                values.append(decibels[np.isfinite(decibels)])
    valid = np.concatenate(values)
    if not len(valid):
        raise ValueError(f"raster {raster.name!r}: no pixel holds data, so no window of values can be found")
    window = tuple(float(v) for v in np.percentile(valid, (low, high)))
    if window[1] - window[0] < 1e-3:
        raise ValueError(f"raster {raster.name!r}: all values are {window[0]:.3f} dB, a constant image matches nothing")
    return window
