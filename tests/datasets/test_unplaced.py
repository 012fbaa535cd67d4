"""A SAR strip without a known place, from a GeoTIFF through the search to candidates in metres."""

import numpy as np
import pytest
import rasterio
import torch
from rasterio import Affine
from scipy.ndimage import gaussian_filter

import sarmatch as sm
from sarmatch.datasets.rasters import BadImageError
from sarmatch.patches import PatchImages

WEST, NORTH, PIXEL = 500_000.0, 5_700_000.0, 2.0


def write(path, array, **profile):
    count, height, width = array.shape
    about = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": array.dtype, **profile}
    with rasterio.open(path, "w", **about) as file:
        file.write(array)


@pytest.fixture(scope="module")
def ground():
    """Smooth random ground, 320 x 400 px."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(size=(320, 400)), 3)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, ground):
    """A map with a strip that has a place, and beside it one that has none."""
    place = {"crs": "EPSG:32631", "transform": Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH)}
    (tmp_path / "city" / "strips").mkdir(parents=True)
    photo = np.repeat((255 * ground)[None], 3, 0).astype(np.uint8)
    write(tmp_path / "city" / "map.tif", photo, **place)
    power = (10 ** (2 * ground))[None]
    write(tmp_path / "city" / "strips" / "known.tif", power, **place)
    write(tmp_path / "lost.tif", power[:, 64:256, 96:288])  # no coordinate system, no transform
    return tmp_path


def test_a_query_without_a_known_place_comes_out_as_candidates_in_metres(folder, ground):
    scene = sm.load_scene(folder / "city")
    scene = sm.with_unplaced_strip(scene, folder / "lost.tif", scene.pixel_size)
    queries = sm.queries(scene, "unplaced", 64)
    assert len(queries) == 9
    assert set(queries["area"]) == {""} and "x" not in queries and "positive" not in queries
    pixels = sm.read_patch(scene, next(queries.itertuples()))
    np.testing.assert_allclose(pixels[0], 10 ** (2 * ground[64:128, 96:160]), rtol=1e-4)

    tiles = sm.references(scene, 64, stride=32)

    # an encoder that sees one image in both modalities: what it finds is where the windows lie
    class Same(torch.nn.Module):
        feature_dim = 576

        def encode_query(self, images):
            return self.encode_reference((images - 0.0) / 20)

        def encode_reference(self, images):
            small = torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 24).flatten(1)
            return torch.nn.functional.normalize(small - small.mean(1, keepdim=True), dim=1)

    same = Same()
    gallery = sm.build_gallery(same, scene, tiles, 64)
    images = torch.utils.data.DataLoader(PatchImages(scene, queries, 64), 4)
    found = sm.create_search("vector", gallery, same).search(images, 3)
    assert found.areas == ("map",) and found.scores.shape == (9, 3)
    pixel = np.stack([queries["col"] + 96 + 32, -(queries["row"] + 64 + 32)], 1)
    np.testing.assert_allclose(found.xy[:, 0], scene.pixel_size * pixel + scene.areas[0].origin, atol=1e-6)


def test_it_is_read_at_the_pixel_size_of_the_map(folder, ground):
    scene = sm.load_scene(folder / "city")
    coarse = (10 ** (2 * ground))[None].reshape(1, 160, 2, 200, 2).mean((2, 4))
    write(folder / "coarse.tif", coarse)
    strip = sm.with_unplaced_strip(scene, folder / "coarse.tif", 2 * scene.pixel_size).unplaced[0]
    assert strip.bounds == (0, 0, 320, 400)


def test_a_place_in_the_file_is_not_looked_at(folder, ground):
    scene = sm.load_scene(folder / "city")
    strip = sm.with_unplaced_strip(scene, folder / "city" / "strips" / "known.tif", scene.pixel_size).unplaced[0]
    assert strip.bounds == (0, 0, 320, 400)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan")])
def test_a_wrong_pixel_size_is_named(folder, size):
    with pytest.raises(ValueError, match="pixel sizes are 2.0008.* m of scene 'city' and"):
        sm.with_unplaced_strip(sm.load_scene(folder / "city"), folder / "lost.tif", size)


def test_a_file_that_is_no_image_and_a_name_given_twice_are_named(folder):
    scene = sm.load_scene(folder / "city")
    (folder / "text.tif").write_text("no image")
    with pytest.raises(BadImageError, match="text.tif"):
        sm.with_unplaced_strip(scene, folder / "text.tif", PIXEL)
    once = sm.with_unplaced_strip(scene, folder / "lost.tif", PIXEL)
    with pytest.raises(ValueError, match="must have names that differ"):
        sm.with_unplaced_strip(once, folder / "lost.tif", PIXEL)


@pytest.mark.parametrize("size", [1e-9, 1e5, 1e12])
def test_an_absurd_pixel_size_is_refused_at_once(folder, size):
    scene = sm.load_scene(folder / "city")
    with pytest.raises(BadImageError, match=r"lost\.tif: pixel_size is .* where that of the map is 2"):
        sm.with_unplaced_strip(scene, folder / "lost.tif", size)
