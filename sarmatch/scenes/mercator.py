"""Pixels of Web Mercator, in which the tiles of aerial maps are published."""

import math

EARTH_M = 6_378_137.0  # radius that Web Mercator counts with
ZOOM = 20  # of VIGOR's satellite tiles


def pixel_size(latitude: float, zoom: int = ZOOM) -> float:
    """Metres on the ground per pixel of a tile: at zoom 20 0.149 m on the equator, times the cosine of the latitude."""
    return 2 * math.pi * EARTH_M / (256 * 2**zoom) * math.cos(math.radians(latitude))
