"""Data set folders: what they become, and what is said of the ones that cannot be used."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from rasterio.warp import transform as warp_points

from sarmatch.datasets import list_scenes, load_scene
from sarmatch.datasets.images import read_image, verify_images
from sarmatch.datasets.rasters import BadImageError
from sarmatch.datasets.sentinel import mercator_scale
from sarmatch.patches import check_data, protocols_of, queries, references
from tests import fake_data


@pytest.fixture
def copy(tmp_path):
    """A copy of a data folder that a test may break."""
    return lambda folder: shutil.copytree(folder, tmp_path / "copy")


def test_both_sentinel_layouts_give_the_same_tables(sentinel_folder, public_sentinel_folder):
    local, public = load_scene(sentinel_folder), load_scene(public_sentinel_folder)
    pd.testing.assert_frame_equal(references(local), references(public))
    for kind in ("aligned", "arbitrary"):
        pd.testing.assert_frame_equal(queries(local, kind, count=50), queries(public, kind, count=50))
    for ours, theirs in zip(local.areas, public.areas, strict=True):
        assert (ours.name, ours.roles, ours.origin) == (theirs.name, theirs.roles, theirs.origin)
        for a, b in zip(ours.strips, theirs.strips, strict=True):
            np.testing.assert_array_equal(a.read(*a.bounds[:2], 64, 64), b.read(*b.bounds[:2], 64, 64))


def test_sentinel_is_georeferenced(sentinel_folder):
    scene = load_scene(sentinel_folder)
    assert (scene.label, scene.crs, scene.test_areas) == ("real", "EPSG:3395", ("B_orange_inland",))
    assert [a.map.bounds for a in scene.areas] == [(0, 0, 1024, 2048)] * 2  # the tiles stand side by side
    for region, (west, north) in fake_data.NORTH_WEST.items():
        corner = scene.to_crs(scene.metres(region, 0, 0))
        np.testing.assert_allclose(corner, (west, north), atol=1e-3)
        east_south = scene.to_crs(scene.metres(region, 1024, 1024))
        np.testing.assert_allclose(east_south, (west + 10240, north - 10240), atol=1e-3)


def test_mercator_metres_are_shorter_than_metres_on_the_ground(sentinel_folder):
    scene = load_scene(sentinel_folder)
    assert scene.pixel_size == pytest.approx(8.3, abs=0.05)
    # Against geodesy: a parallel's radius of curvature on WGS 84 at 34 degrees, per radian of longitude.
    a, e2, latitude = 6378137.0, 6.69437999014e-3, np.radians(34.0)
    parallel = a * np.cos(latitude) / np.sqrt(1 - e2 * np.sin(latitude) ** 2)
    (x,), (y,) = warp_points("EPSG:4326", "EPSG:3395", [-118.0], [34.0])
    assert mercator_scale(x, y) == pytest.approx(a / parallel, rel=1e-9)


def test_pairs_have_a_grid_and_no_metres(pairs_folder):
    scene = load_scene(pairs_folder)
    assert not scene.has_coordinates
    assert scene.patch_size == 48
    assert {a.name: len(a.strips) for a in scene.areas} == {"train": 7, "val": 1, "test": 2}
    assert protocols_of(scene) == ("cross_area",)
    tiles = references(scene)
    assert len(tiles) == 40  # four of each pair, none across two
    assert "x" not in tiles
    for area in scene.areas:
        for strip in area.strips:  # both images of a pair lie at one place
            assert area.map.covers(*strip.bounds[:2], 96)
            image = read_image(pairs_folder / "sar" / f"{strip.name}.png", 1)
            np.testing.assert_allclose(strip.read(*strip.bounds[:2], 96, 96), image / 255, atol=1e-6)


def test_pairs_of_unequal_sizes_do_not_touch(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in {"a": (40, 64), "b": (64, 40), "c": (50, 50)}.items():
        for modality in ("opt", "sar"):
            fake_data.save_image(tmp_path / modality / f"{name}.png", rng.integers(0, 255, shape, dtype=np.uint8))
    scene = load_scene(tmp_path)
    assert scene.patch_size == 20
    tiles = scene.areas[0].map.tiles
    for i, a in enumerate(tiles):
        for b in tiles[:i]:
            apart = max(a.row - b.row - b.height, b.row - a.row - a.height, a.col - b.col - b.width)
            assert max(apart, b.col - a.col - a.width) >= 1


def test_a_folder_without_pairs(tmp_path):
    pixels = np.arange(1024, dtype=np.uint8).reshape(32, 32)
    fake_data.save_image(tmp_path / "opt" / "a.png", pixels)
    fake_data.save_image(tmp_path / "sar" / "b.png", pixels)
    with pytest.raises(ValueError, match=r"no pair found; 1 optical and 1 SAR images, but no name stands in both"):
        load_scene(tmp_path)


def test_an_image_without_partner_is_left_out_with_a_warning(pairs_folder, copy):
    folder = copy(pairs_folder)
    (folder / "opt" / "003.png").unlink()
    with pytest.warns(UserWarning, match=r"1 image\(s\) without a partner are left out: \['003'\]"):
        scene = load_scene(folder)
    names = [s.name for a in scene.areas for s in a.strips]
    assert len(names) == 9
    assert "003" not in names


def test_a_partner_of_another_size(pairs_folder, copy):
    folder = copy(pairs_folder)
    fake_data.save_image(folder / "sar" / "004.png", np.arange(96 * 90, dtype=np.uint8).reshape(96, 90))
    with pytest.raises(ValueError, match=r"004\.png: is \(96, 90\) px.*partner .* is \(96, 96\)"):
        load_scene(folder)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


BAD_IMAGES = {
    "constant": (np.full((96, 96), 7, np.uint8), "every pixel is 7, a constant image"),
    "16 bit": (np.arange(96 * 96, dtype=np.uint16).reshape(96, 96), "pixels are uint16, expected uint8"),
    "four channels": (noise(96, 96, 4), "has 4 channels that differ, expected 1"),
    "colour as SAR": (noise(96, 96, 3), "has 3 channels that differ, expected 1"),
}


@pytest.mark.parametrize("pixels, message", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_an_unusable_image_is_named(pairs_folder, copy, pixels, message):
    folder = copy(pairs_folder)
    fake_data.save_image(folder / "sar" / "002.png", pixels)
    with pytest.raises(BadImageError, match=rf"002\.png: {message}"):
        load_scene(folder)


def test_a_map_with_transparency_is_refused(tmp_path):
    fake_data.save_image(tmp_path / "a.png", noise(32, 32, 4))
    with pytest.raises(BadImageError, match=r"a\.png: has 4 channels, expected 3"):
        read_image(tmp_path / "a.png", 3)


def test_an_unreadable_image_is_named(pairs_folder, copy):
    folder = copy(pairs_folder)
    (folder / "opt" / "005.png").write_text("no picture")
    with pytest.raises(BadImageError, match=r"005\.png: not readable as an image"):
        load_scene(folder)


def test_all_broken_files_are_reported_together(pairs_folder, copy):
    folder = copy(pairs_folder)
    fake_data.save_image(folder / "sar" / "001.png", np.full((96, 96), 3, np.uint8))
    whole = (folder / "sar" / "006.png").read_bytes()
    (folder / "sar" / "006.png").write_bytes(whole[: len(whole) // 2])  # a download that was cut off
    fake_data.save_image(folder / "sar" / "007.png", noise(96, 96, 3))
    with pytest.raises(BadImageError, match=r"3 unusable image\(s\)") as error:
        load_scene(folder)
    assert all(f"{name}.png" in str(error.value) for name in ("001", "006", "007"))


def test_a_long_list_of_broken_files_is_cut(tmp_path):
    with pytest.raises(BadImageError, match="12 unusable") as error:
        verify_images([(tmp_path / f"{i}.png", 1) for i in range(12)])
    assert str(error.value).count("does not exist") == 10
    assert "and 2 more" in str(error.value)


def test_a_sentinel_tile_of_another_size_is_named(sentinel_folder, copy):
    folder = copy(sentinel_folder)
    fake_data.save_image(folder / "sar" / "019.png", noise(512, 1024))
    with pytest.raises(ValueError, match=r"019\.png: is \(512, 1024\) px.*\(1024, 1024\)"):
        load_scene(folder)


def test_sentinel_tiles_off_the_grid_are_refused(sentinel_folder, copy):
    folder = copy(sentinel_folder)
    entries = json.loads((folder / "tiles.json").read_text())
    for corner in entries[1]["corners_epsg3395"]:
        corner[0] += 700
    (folder / "tiles.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"a tile lies 10940\.2 m from its region's edge"):
        load_scene(folder)


def test_a_sentinel_folder_without_images(sentinel_folder, tmp_path):
    shutil.copy(sentinel_folder / "tiles.json", tmp_path)
    with pytest.raises(ValueError, match="no tile of the known regions.*found 4 entries, 0 optical and 0 SAR files"):
        load_scene(tmp_path)


@pytest.mark.parametrize(
    "content, message", [("[{", r"tiles\.json: not readable as JSON"), ('[{"id": "018"}]', "corners_epsg3395")]
)
def test_a_broken_table_of_tiles_is_named(sentinel_folder, copy, content, message):
    folder = copy(sentinel_folder)
    (folder / "tiles.json").write_text(content)
    with pytest.raises(ValueError, match=rf"tiles\.json.*{message}|{message}"):
        load_scene(folder)


def test_unknown_names_folders_and_profiles(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"atlantis: neither a folder nor one of the simulated scenes \['easy'"):
        load_scene("atlantis")
    with pytest.raises(FileNotFoundError, match="missing"):
        load_scene(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"profile is 'huge', expected one of \('quick', 'full'\)"):
        load_scene("easy", "huge")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"no known layout; found \['notes\.txt'\]. Known are: .*opt/NAME"):
        load_scene(tmp_path)
    assert "easy" in list_scenes()


@pytest.mark.parametrize("size", [2000, 97])
def test_images_too_small_for_one_patch(pairs_folder, size):
    with pytest.raises(ValueError, match=f"no map is large enough for one patch of {size} x {size} px"):
        references(load_scene(pairs_folder), size)


@pytest.mark.real
def test_real_sentinel_regions(real_data):
    scene = load_scene(real_data / "sentinel")
    sizes = references(scene).groupby("area").size().to_dict()
    assert sizes == {"A_los_angeles": 28 * 64, "B_orange_inland": 1408}
    assert scene.pixel_size == pytest.approx(8.3, abs=0.05)
    tiles = {t["id"]: t for t in json.loads((real_data / "sentinel" / "tiles.json").read_text())}
    for area in scene.areas:
        for strip in area.strips:
            row, col = strip.bounds[:2]
            corner = tiles[strip.name]["corners_epsg3395"]
            expected = min(x for x, _ in corner), max(y for _, y in corner)
            # Tiles drift by centimetres each from the regular grid, well below one pixel of 10 m.
            np.testing.assert_allclose(scene.to_crs(scene.metres(area.name, row, col)), expected, atol=3)
            assert (row, col) == (tiles[strip.name]["mosaic_y"], tiles[strip.name]["mosaic_x"])


@pytest.mark.real
def test_real_pairs(real_data):
    scene = load_scene(real_data / "gf3_pairs")
    assert sum(len(a.strips) for a in scene.areas) == 87
    assert scene.patch_size == 90
    assert len(references(scene)) == 4 * 87


@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_an_empty_name_is_not_the_current_folder(name):
    with pytest.raises(ValueError, match="scene is .*, expected the name of a scene or a folder"):
        load_scene(name)
    assert "scene is" in check_data(name).problems[0]


def test_the_check_of_a_simulated_scene_says_that_it_has_no_files():
    assert "easy: is a simulated scene and no folder" in check_data("easy").problems[0]


def test_the_home_of_nobody_is_named():
    with pytest.raises(ValueError, match="~nouserhere/x: "):
        load_scene("~nouserhere/x")
