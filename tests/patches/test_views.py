"""The polar transform is its closed form, lies as panoramas do, and turns with them."""

import numpy as np
import torch

from sarmatch.patches import Pairs, augment, polar_transform
from sarmatch.simulation import City, Grid, Survey, render_panorama
from sarmatch.simulation.city import ASPHALT, Ground


def test_the_polar_transform_is_its_closed_form():
    side, (height, width) = 200, (40, 80)
    east, south = np.meshgrid(*(np.arange(side) + 0.5 - side / 2,) * 2)
    tile = torch.tensor(np.stack([east, south, np.hypot(east, south)]))[None].float()
    polar = polar_transform(tile, (height, width))[0].numpy()
    radius = (1 - (np.arange(height) + 0.5) / height)[:, None] * side / 2
    azimuth = np.deg2rad(360 * ((np.arange(width) + 0.5) / width - 0.5))
    places = radius * np.sin(azimuth), -radius * np.cos(azimuth), radius + 0 * azimuth
    for found, expected in zip(polar, places, strict=True):
        np.testing.assert_allclose(found, expected, atol=0.6)  # the border is half a pixel wide


def test_a_quarter_turn_of_the_tile_is_a_roll_of_its_polar_form():
    tile = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    straight = polar_transform(tile, (16, 64))
    for quarters in (1, 2, 3):
        turned = polar_transform(tile.rot90(quarters, (2, 3)), (16, 64))
        torch.testing.assert_close(turned, straight.roll(-16 * quarters, 3), atol=1e-4, rtol=0)


def test_turned_views_stay_together():
    """A panorama that is the polar form of its tile stays it, and the offset turns along."""
    generator = torch.Generator().manual_seed(1)
    tiles = torch.rand(32, 3, 32, 32, generator=generator)
    offset = torch.tensor([[3.0, 5.0]]).repeat(32, 1)
    turned = augment(Pairs(polar_transform(tiles, (8, 32)), tiles, offset), ("turn_views",), generator)
    torch.testing.assert_close(turned.query, polar_transform(turned.reference, (8, 32)), atol=1e-4, rtol=0)
    assert len(torch.unique(turned.offset, dim=0)) == 4
    assert (turned.offset.norm(dim=1) - offset.norm(dim=1)).abs().max() < 1e-5
    polar = polar_transform(tiles, (8, 32))
    both = augment(Pairs(polar, polar, offset), ("turn_views",), generator)
    torch.testing.assert_close(both.query, both.reference)
    assert (both.query != polar).any()


def test_a_place_on_the_ground_lies_in_one_column_of_the_panorama_and_of_the_polar_tile():
    side, pixel = 320, 0.25
    row, col = np.mgrid[:side, :side] + 0.5
    photo = np.full((3, side, side), 60, np.uint8)
    spot = np.hypot(row - 150, col - 172) < 5  # to the north-east of the middle
    photo[:, spot] = 255
    zeros = np.zeros((side, side), np.float32)
    plain = Ground(zeros, zeros, np.full((side, side), ASPHALT, np.uint8), zeros)
    scene = Survey(City(1, 80.0), 0, Grid(0.0, 80.0, (side, side), pixel), plain, photo, 150.0, 42.0)
    panorama = render_panorama(scene, 40.0, 40.0)[0, 180:].astype(float)
    polar = polar_transform(torch.tensor(photo[None]).float(), (160, 640))[0, 0].numpy()
    columns = [np.flatnonzero((image > 150).any(0)).mean() for image in (panorama, polar)]
    expected = (np.arctan2(12, 10) / (2 * np.pi) + 0.5) * 640 - 0.5
    np.testing.assert_allclose(columns, expected, atol=1.5)
