"""One's own map and strips: whatever the coordinate system, a known piece of ground lies where it lies."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio import Affine
from rasterio.warp import transform as warp_points

from sarmatch.datasets import load_scene, mosaic
from sarmatch.datasets.mosaic import units_per_metre
from sarmatch.datasets.rasters import BadImageError
from sarmatch.patches import (
    PatchImages,
    check_data,
    positions,
    protocols_of,
    queries,
    read_patch,
    references,
    require_splits,
    search_task,
)
from sarmatch.paths import cache_dir
from tests import fake_mosaics as fake


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def truth(scene, area, row, col, height, width):
    """The fake ground under a window, by its own coordinates in UTM."""
    r, c = np.meshgrid(row + np.arange(height) + 0.5, col + np.arange(width) + 0.5, indexing="ij")
    xy = scene.to_crs(scene.metres(area.name, r.ravel(), c.ravel()))
    if not fake.same_crs(scene.crs, fake.UTM):
        xy = np.stack(warp_points(scene.crs, fake.UTM, *xy.T), axis=1)
    return fake.field(*xy.T).reshape(height, width)


def assert_right_ground(scene, tolerance=0.03):
    for area in scene.areas:
        row0, col0, row1, col1 = area.map.bounds
        for raster in (area.map, *area.strips):
            top, left, bottom, right = raster.bounds
            spots = [(r, c) for r in range(top, bottom - 24, 24) for c in range(left, right - 24, 24)]
            row, col = np.array(spots).T
            spots = [s for s, ok in zip(spots, raster.covers(row, col, 24), strict=True) if ok]
            assert spots
            for r, c in spots:
                found = raster.read(r, c, 24, 24)[0]
                expected = truth(scene, area, r, c, 24, 24)
                if raster.scale == "intensity":
                    found = (np.log10(found) + 2) / 2
                if raster.scale == "amplitude":
                    found = (2 * np.log10(np.maximum(found, 1e-3)) + 2) / 2
                assert np.abs(found - expected).mean() < tolerance


@pytest.mark.parametrize("crs", [fake.UTM, "EPSG:3857", "EPSG:4326", "EPSG:32631"])
def test_any_coordinate_system_gives_the_same_ground(tmp_path, crs):
    scene = load_scene(fake.write_own(tmp_path, crs=crs))
    assert scene.pixel_size == pytest.approx(1.0, rel=0.05)
    assert_right_ground(scene)


def test_a_map_of_the_same_grid_is_not_resampled(tmp_path):
    scene = load_scene(fake.write_own(tmp_path))
    place = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    whole = fake.optical(place, (240, 240)) / 255
    np.testing.assert_allclose(scene.areas[0].map.read(30, 50, 60, 70), whole[:, 30:90, 50:120], atol=1e-6)


@pytest.mark.parametrize("pixel_size", [0.5, 2.0])
def test_another_pixel_size_may_be_asked_for(tmp_path, pixel_size):
    fake.write_own(tmp_path)
    (tmp_path / "scene.json").write_text(json.dumps({"pixel_size": pixel_size, "patch_size": 32, "name": "mine"}))
    scene = load_scene(tmp_path)
    assert (scene.name, scene.pixel_size, scene.patch_size) == ("mine", pixel_size, 32)
    # UTM is 0.04 % short on its central meridian, so that the last pixel may be cut
    assert scene.areas[0].map.bounds[2:] == pytest.approx((240 / pixel_size, 240 / pixel_size), abs=1)
    assert_right_ground(scene, 0.05)


@settings(max_examples=12, deadline=None)
@given(st.floats(0, 360), st.floats(0.6, 1.6), st.floats(90, 150), st.floats(90, 150))
def test_a_turned_strip_lies_where_its_position_says(tmp_path_factory, heading, pixel, east, south):
    folder = fake.write_own(tmp_path_factory.mktemp("own"), strips=1)
    (folder / "strips" / "s0.tif").unlink()
    shape, centre = (80, 100), (fake.WEST + east, fake.NORTH - south)
    level = np.sqrt(fake.sar(fake.turned(centre, pixel, heading, shape), shape))[0]
    Image.fromarray(np.round(level * 255).astype(np.uint8)).save(folder / "strips" / "flight.png")
    row = {"file": "flight.png", "x": centre[0], "y": centre[1], "pixel_size": pixel, "heading_deg": heading}
    fake.write_positions(folder / "strips", [row])
    scene = load_scene(folder)
    assert scene.areas[0].strips[0].scale == "amplitude"
    assert_right_ground(scene, 0.04)


def test_a_world_file_is_enough(tmp_path):
    folder = fake.write_own(tmp_path, strips=1)
    (folder / "strips" / "s0.tif").unlink()
    place = Affine(1, 0, fake.WEST + 60, 0, -1, fake.NORTH - 40)
    level = np.sqrt(fake.sar(place, (100, 100)))[0]
    Image.fromarray(np.round(level * 255).astype(np.uint8)).save(folder / "strips" / "flight.png")
    (folder / "strips" / "flight.pgw").write_text(
        "\n".join(map(str, (1, 0, 0, -1, fake.WEST + 60.5, fake.NORTH - 40.5)))
    )
    assert_right_ground(load_scene(folder))


def test_values_of_any_type_are_scaled(tmp_path):
    images = {}
    for dtype in ("uint8", "uint16", "float32"):
        scene = load_scene(fake.write_own(tmp_path / dtype, dtype=dtype))
        images[dtype] = scene.areas[0].map.read(0, 0, 200, 200)
        assert images[dtype].min() >= 0
        assert images[dtype].max() <= 1
    # all but 8 bit are stretched from the 1st to the 99th percentile
    low, high = np.percentile(images["uint8"][0], (1, 99))
    expected = np.clip((images["uint8"][0] - low) / (high - low), 0, 1)
    assert np.abs(images["uint16"][0] - expected).mean() < 0.04
    np.testing.assert_allclose(images["uint16"], images["float32"], atol=0.02)


def test_no_query_touches_nodata(tmp_path):
    folder = fake.write_own(tmp_path, strips=1)
    place = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    image = fake.sar(place, (240, 240))
    image[:, 100:140, 60:90] = np.nan
    fake.write_tiff(folder / "strips" / "s0.tif", image, place, nodata=np.nan)
    scene = load_scene(folder)
    asked = queries(scene, "arbitrary", 32, count=300)
    assert all(np.isfinite(read_patch(scene, p)).all() for p in asked.itertuples(index=False))
    near = (asked.row < 180) & (asked.row > 60)
    assert near.any()


def test_declared_nodata_of_integers_is_honoured(tmp_path):
    folder = fake.write_own(tmp_path, strips=1)
    place = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    image = np.maximum(np.sqrt(fake.sar(place, (240, 240))) * 1000, 1).astype(np.uint16)
    image[:, :64] = 0
    fake.write_tiff(folder / "strips" / "s0.tif", image, place, nodata=0)
    strip = load_scene(folder).areas[0].strips[0]
    assert strip.scale == "amplitude"
    assert not strip.covers(np.array([40]), np.array([10]), 32)[0]
    assert strip.covers(np.array([72]), np.array([10]), 32)[0]


def test_metres_are_metres_on_the_ground(tmp_path):
    """At 45 degrees north a unit of web Mercator is 1.41 times too long."""
    fake.write_own(tmp_path, crs="EPSG:3857")
    scene = load_scene(tmp_path)
    a, b = np.array([[0.0, 0.0], [200.0, -150.0]])
    utm = np.stack(warp_points(scene.crs, fake.UTM, *scene.to_crs(np.stack([a, b])).T), axis=1)
    assert np.hypot(*(utm[1] - utm[0])) == pytest.approx(250.0, rel=2e-3)
    x, y = scene.to_crs(a[None])[0]
    from rasterio.crs import CRS

    assert units_per_metre(CRS.from_user_input("EPSG:3857"), x, y) == pytest.approx(1.41, abs=0.02)


def test_areas_of_one_scene_lie_apart_as_on_the_ground(tmp_path):
    fake.write_own(tmp_path / "a")
    fake.write_own(tmp_path / "b")
    place = Affine(1, 0, fake.WEST + 3000, 0, -1, fake.NORTH + 500)
    fake.write_tiff(tmp_path / "b" / "map.tif", fake.optical(place, (240, 240)), place)
    for strip in (tmp_path / "b" / "strips").iterdir():
        strip.unlink()
    fake.write_tiff(tmp_path / "b" / "strips" / "t.tif", fake.sar(place, (240, 240)), place)
    (tmp_path / "scene.json").write_text(json.dumps({"test_areas": ["b"], "patch_size": 24}))
    scene = load_scene(tmp_path)
    assert scene.area("b").origin == pytest.approx((3000.0, 500.0), rel=1e-3)
    asked, tiles = search_task(scene, "arbitrary", None, "test", protocol="cross_area", count=20)
    assert set(asked.area) == set(tiles.area) == {"b"}
    assert positions(asked)[:, 0].min() > 2900


def test_both_protocols_work_on_three_strips(tmp_path):
    fake.write_own(tmp_path, strips=3)
    (tmp_path / "scene.json").write_text(json.dumps({"patch_size": 20, "roles": {"s1": "val", "s2": "test"}}))
    scene = load_scene(tmp_path)
    assert protocols_of(scene) == ("same_area", "cross_area")
    for protocol in protocols_of(scene):
        asked, tiles = search_task(scene, "arbitrary", None, "test", protocol=protocol, count=30)
        assert len(asked) == 30
        assert (asked.positive < len(tiles)).all()
    batch = PatchImages(scene, asked, 16).__getitems__(range(5))
    assert all(np.isfinite(image.numpy()).all() for image in batch)


def test_a_map_is_never_read_whole_for_a_patch(tmp_path, monkeypatch):
    scene = load_scene(fake.write_own(tmp_path))
    seen = []
    original = mosaic.Warped.read

    def spy(self, rows, cols):
        seen.append((rows.stop - rows.start, cols.stop - cols.start))
        return original(self, rows, cols)

    monkeypatch.setattr(mosaic.Warped, "read", spy)
    again = load_scene(tmp_path)
    assert not seen  # what was surveyed once is remembered
    scene = again
    read_patch(scene, next(references(scene, 32).itertuples(index=False)))
    assert seen == [(32, 32)]


def test_a_survey_is_made_again_where_a_file_changed(tmp_path):
    folder = fake.write_own(tmp_path, strips=1)
    before = load_scene(folder).areas[0].strips[0].window
    place = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    fake.write_tiff(folder / "strips" / "s0.tif", 100 * fake.sar(place, (240, 239)), place)
    after = load_scene(folder).areas[0].strips[0].window
    assert np.subtract(after, before) == pytest.approx(20.0, abs=1.0)


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    """Under its old name, with the same size and place: an open handle would go on with the old pixels."""
    folder = fake.write_own(tmp_path, strips=1)
    patch = next(references(load_scene(folder), 32).itertuples(index=False))
    before = read_patch(load_scene(folder), patch)
    place = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    (path,) = folder.glob("map.*")
    with rasterio.open(path) as file:
        pixels = file.read()
    fake.write_tiff(path, pixels[::-1], place)
    assert (
        np.abs(read_patch(load_scene(folder), patch) - before[::-1]).max() < 1e-6 < np.abs(before - before[::-1]).max()
    )


def test_handles_are_not_shared_between_processes(tmp_path):
    import torch

    scene = load_scene(fake.write_own(tmp_path))
    tiles = references(scene, 32)
    data = PatchImages(scene, tiles, 16)
    alone = torch.stack([data[i] for i in range(len(data))])
    loader = torch.utils.data.DataLoader(data, batch_size=8, num_workers=2)
    torch.testing.assert_close(torch.cat(list(loader)), alone)


# ---------------------------------------------------------------------------------------------------- bad input
def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def test_a_truncated_tiff_is_named(tmp_path):
    folder = fake.write_own(tmp_path)
    truncate(folder / "strips" / "s1.tif")
    with pytest.raises(BadImageError, match=r"s1\.tif"):
        load_scene(folder)


def test_all_unusable_files_are_named_together(tmp_path):
    folder = fake.write_own(tmp_path)
    truncate(folder / "strips" / "s0.tif", 0.6)
    truncate(folder / "strips" / "s2.tif", 0.6)
    with pytest.raises(BadImageError, match=r"(?s)2 unusable.*s0\.tif.*s2\.tif"):
        load_scene(folder)


@pytest.mark.parametrize(("level", "said"), [(1.0, "every pixel is 1, a constant image"), (np.nan, "holds no data")])
def test_images_without_content_are_named(tmp_path, level, said):
    folder = fake.write_own(tmp_path)
    place = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    fake.write_tiff(folder / "strips" / "s0.tif", np.full((1, 99, 99), level, np.float32), place)
    with pytest.raises(BadImageError, match=rf"s0\.tif: {said}"):
        load_scene(folder)


def test_a_strip_beside_its_map_is_refused(tmp_path):
    folder = fake.write_own(tmp_path)
    place = Affine(1, 0, fake.WEST + 9000, 0, -1, fake.NORTH)
    fake.write_tiff(folder / "strips" / "s0.tif", fake.sar(place, (99, 99)), place)
    with pytest.raises(ValueError, match=r"strip 's0' .* they share no ground"):
        load_scene(folder)


def test_no_coordinate_system_is_named(tmp_path):
    folder = fake.write_own(tmp_path)
    place = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    fake.write_tiff(folder / "map.tif", fake.optical(place, (99, 99)), place, crs=None)
    with pytest.raises(BadImageError, match=r"map\.tif: has no coordinate reference system"):
        load_scene(folder)


def test_degrees_beyond_the_earth_are_named(tmp_path):
    folder = fake.write_own(tmp_path)
    place = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    fake.write_tiff(folder / "map.tif", fake.optical(place, (99, 99)), place, crs="EPSG:4326")
    with pytest.raises(BadImageError, match=r"map\.tif: .*expected degrees on land"):
        load_scene(folder)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"file": "../map.tif", "x": 0, "y": 0, "pixel_size": 1}, r"line 2: '\.\./map\.tif' lies outside"),
        ({"file": "no.png", "x": 0, "y": 0, "pixel_size": 1}, r"line 2: there is no file 'no\.png'"),
        ({"file": "s0.tif", "x": "east", "y": 0, "pixel_size": 1}, "line 2: expected numbers"),
        ({"file": "s0.tif", "x": 0, "y": 0, "pixel_size": 0}, "line 2: .*pixel_size above 0"),
        ({"file": "s0.tif", "x": 0, "y": 0}, r"misses \['pixel_size'\]"),
    ],
)
def test_a_wrong_row_of_positions_is_named(tmp_path, row, said):
    folder = fake.write_own(tmp_path)
    fake.write_positions(folder / "strips", [row])
    with pytest.raises(ValueError, match=rf"positions\.csv.*{said}"):
        load_scene(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "scene.json"), ('{"colour": 1}', "colour"), ('{"sar_scale": "counts"}', "counts"), ("[1]", "scene.json")],
)
def test_wrong_options_are_named(tmp_path, content, said):
    folder = fake.write_own(tmp_path)
    (folder / "scene.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        load_scene(folder)


def test_two_strips_of_one_name(tmp_path):
    folder = fake.write_own(tmp_path)
    (folder / "strips" / "s0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="two strips are called 's0'"):
        load_scene(folder)


def test_mixed_optical_files_are_named(tmp_path):
    folder = fake.write_own(tmp_path)
    (folder / "map").mkdir()
    (folder / "map.tif").rename(folder / "map" / "a.tif")
    place = Affine(1, 0, fake.WEST + 240, 0, -1, fake.NORTH)
    fake.write_tiff(folder / "map" / "b.tif", fake.optical(place, (99, 99))[:1], place)
    with pytest.raises(BadImageError, match="some optical files have three bands and some one"):
        load_scene(folder)


# -------------------------------------------------------------------------------------------------- what is nodata
def strip_of(dtype: str, gap: float, columns: int = 90) -> np.ndarray:
    """Amplitude of the ground whose first columns hold one value."""
    place = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    top = 255 if dtype == "uint8" else 4000
    values = np.maximum(np.round(np.sqrt(fake.sar(place, (240, 240))) * top), 1)
    values[:, :, :columns] = gap
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_zeros_of_integer_sar_are_refused_until_somebody_says_what_they_are(tmp_path, dtype):
    folder, place = fake.write_own(tmp_path, strips=1), Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    fake.write_tiff(folder / "strips" / "s0.tif", strip_of(dtype, 0), place)
    with pytest.raises(BadImageError, match=r"(?s)s0\.tif: 3\d\.\d% of its blocks .* are 0.*scene\.json, or null"):
        load_scene(folder)
    assert not check_data(folder).usable
    for value, covered in ((0, False), (None, True)):
        (folder / "scene.json").write_text(json.dumps({"nodata": {"sar": value}}))
        strip = load_scene(folder).areas[0].strips[0]
        assert strip.covers(np.array([40]), np.array([20]), 32)[0] == covered
        assert strip.covers(np.array([40]), np.array([120]), 32)[0]


def test_single_zeros_of_integer_sar_are_data(tmp_path):
    folder, place = fake.write_own(tmp_path, strips=1), Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    values = strip_of("uint8", 1)
    values[:, ::3, ::3] = 0
    fake.write_tiff(folder / "strips" / "s0.tif", values, place)
    assert load_scene(folder).areas[0].strips[0].covers(np.array([40]), np.array([120]), 32)[0]


@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", -9999), ("int16", -9999), ("int16", -32768), ("float32", -3e38)]
)
def test_a_sentinel_in_the_map_is_refused_or_hidden_and_never_stretched(tmp_path, dtype, value):
    folder, place = fake.write_own(tmp_path), Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    plain = fake.optical(place, (240, 240), "float32") * 1000
    holed = plain.copy()
    holed[:, :60, :60] = value
    fake.write_tiff(folder / "map.tif", holed.astype(dtype), place)
    with pytest.raises(BadImageError, match=r"map\.tif: 10800 values are .*looks like nodata"):
        load_scene(folder)
    (folder / "scene.json").write_text(json.dumps({"nodata": {"optical": value}}))
    chart = load_scene(folder).areas[0].map
    assert not chart.covers(np.array([10]), np.array([10]), 32)[0]
    shown = np.ones((240, 240), bool)
    shown[:60, :60] = False
    low, high = np.percentile(plain[0, shown], (1, 99))
    expected = np.clip((plain[0, 80:180, 80:180] - low) / (high - low), 0, 1)
    assert np.abs(chart.read(80, 80, 100, 100)[0] - expected).mean() < 0.04  # percentiles are of a sample


def test_a_colour_with_one_band_at_nodata_is_a_colour(tmp_path):
    folder, place = fake.write_own(tmp_path), Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    image = fake.optical(place, (240, 240))
    image[2] = np.where(image[2] % 2, image[2], 0)
    image[:, :60] = 0
    fake.write_tiff(folder / "map.tif", image, place)
    (folder / "scene.json").write_text(json.dumps({"nodata": {"optical": 0}}))
    chart = load_scene(folder).areas[0].map
    assert not chart.covers(np.array([10]), np.array([10]), 32)[0]
    np.testing.assert_allclose(chart.read(80, 80, 90, 90) * 255, image[:, 80:170, 80:170], atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_nothing_is_invented_beside_a_turned_map(tmp_path, dtype):
    folder = fake.write_own(tmp_path)
    place = fake.turned((fake.WEST + 120, fake.NORTH - 120), 1.0, 30.0, (240, 240))
    fake.write_tiff(folder / "map.tif", fake.optical(place, (240, 240), dtype), place)
    scene = load_scene(folder)
    row, col, _, _ = scene.areas[0].map.bounds
    assert not scene.areas[0].map.covers(np.array([row]), np.array([col]), 24)[0]


def test_bands_of_the_map_are_grey_or_colours(tmp_path):
    folder, place = fake.write_own(tmp_path), Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)
    fake.write_tiff(folder / "map.tif", fake.optical(place, (240, 240))[:2], place)
    with pytest.raises(BadImageError, match=r"map\.tif: has 2 bands, expected 1 \(grey\) or 3"):
        load_scene(folder)


# ------------------------------------------------------------------------------------------------ what people write
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"roles": {"s9": "test"}}, r"roles names 's9', which is none of \['s0', 's1', 's2'\]"),
        ({"test_areas": ["nowhere"]}, r"test_areas names 'nowhere', which is none of \['map'\]"),
        ({"val_areas": ["nowhere"]}, "val_areas names 'nowhere'"),
        ({"pixel_size": 1e-9}, r"pixel_size is 1e-09 m where the map's own pixels are 1.* m"),
        ({"pixel_size": 1e9}, r"pixel_size is 1e\+09 m"),
        ({"pixel_size": 0.002}, r"pixel_size is 0\.002 m"),
        ({"pixel_size": True}, r"scene\.json: .*pixel_size"),
        ({"patch_size": 10**30}, r"scene\.json: .*patch_size"),
        ({"nodata": {"radar": 0}}, r"scene\.json: .*nodata"),
        ({"sar_bands": []}, r"scene\.json: .*sar_bands"),
    ],
)
def test_a_strange_option_is_named_with_its_value(tmp_path, options, said):
    folder = fake.write_own(tmp_path)
    (folder / "scene.json").write_text(json.dumps(options))
    with pytest.raises(ValueError, match=said) as error:
        load_scene(folder)
    assert "pydantic" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "no sound JSON"),
        (b'{"patch_size": 20, "patch_size": 40}', "'patch_size' is given twice"),
        ("{}".encode("utf-16"), "not text in UTF-8"),
        (b"", "is empty"),
        (b"9" * 5000, "no sound JSON"),
    ],
)
def test_a_file_of_options_that_is_none_is_named(tmp_path, content, said):
    folder = fake.write_own(tmp_path)
    (folder / "scene.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"scene\.json: .*{said}"):
        load_scene(folder)


@pytest.mark.parametrize("name", ["scene.json", "strips/positions.csv", "strips/s1.tif", "map.tif"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    folder = fake.write_own(tmp_path)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ValueError, match=rf"{name}: is not a file"):
        load_scene(folder)


def test_tables_and_options_of_a_spreadsheet_are_read(tmp_path):
    """With a byte-order mark, as they are written there."""
    folder = fake.write_own(tmp_path, strips=1)
    Image.fromarray(strip_of("uint8", 1)[0]).save(folder / "strips" / "a.png")
    row = f"a.png,{fake.WEST + 120},{fake.NORTH - 120},1\r\n"
    (folder / "strips" / "positions.csv").write_text("\ufefffile,x,y,pixel_size\r\n" + row, newline="")
    (folder / "scene.json").write_text('\ufeff{"patch_size": 24}')
    scene = load_scene(folder)
    assert ([s.name for s in scene.areas[0].strips], scene.patch_size) == (["a", "s0"], 24)


def test_what_macos_leaves_beside_files_is_passed_over(tmp_path):
    folder = fake.write_own(tmp_path)
    for name in ("._map.tif", "strips/._s1.tif", "__MACOSX/strips/s1.tif", ".hidden/map.tif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0\x05\x16\x07")
    assert len(load_scene(folder).areas[0].strips) == 3


def test_a_name_that_is_no_text_is_refused_before_it_is_trained_on(tmp_path):
    folder = fake.write_own(tmp_path)
    os.rename(folder / "strips" / "s1.tif", os.fsencode(folder / "strips") + b"/\xff.tif")
    with pytest.raises(ValueError, match=r"\\udcff\.tif: its name is not UTF-8") as error:
        load_scene(folder)
    str(error.value).encode()


# ------------------------------------------------------------------------------------------------------- the cache
def surveys() -> list[Path]:
    return sorted(cache_dir().glob("survey-*.npz"))


def _pickled(path: Path) -> None:
    np.savez(path, valid=np.array([{}], object), sample=np.zeros((1, 9), np.float32))


DAMAGES = {
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_bytes(b"nothing"),
    "cut": truncate,
    "pickled": _pickled,
    "of another file": lambda p: np.savez(
        p, valid=np.ones((2, 2), bool), sample=np.zeros((1, 9), np.float32), digest="0" * 32
    ),
    "folder": lambda p: (p.unlink(), p.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_survey_is_named_and_made_anew(tmp_path, damage):
    folder = fake.write_own(tmp_path)
    before = load_scene(folder)
    for path in surveys():
        DAMAGES[damage](path)
    with pytest.warns(UserWarning, match=r"survey-\w+\.npz: damaged, and made anew") as caught:
        after = load_scene(folder)
    assert not any("allow_pickle" in str(w.message) or "pickle.load" in str(w.message) for w in caught)
    assert [s.window for s in after.areas[0].strips] == [s.window for s in before.areas[0].strips]
    if damage != "folder":  # which is in the way for good
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_scene(folder)


def test_a_full_disk_keeps_no_good_data_from_loading(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mosaic, "write", full)
    folder = fake.write_own(tmp_path)
    with pytest.warns(UserWarning, match=r"survey-\w+\.npz: the survey of map\.tif cannot be kept"):
        load_scene(folder)


def test_a_check_writes_nothing(tmp_path):
    folder = fake.write_own(tmp_path)
    check_data(folder)
    assert not surveys()
    load_scene(folder)
    assert len(surveys()) == 4


def test_check_and_run_have_one_judgement(tmp_path):
    """A map that is loaded, and is too small for training, validation and test side by side."""
    folder = fake.write_own(tmp_path)
    (folder / "scene.json").write_text('{"patch_size": 100}')
    with pytest.raises(ValueError, match="too small for one patch|no training strip"):
        require_splits(load_scene(folder))
    report = check_data(folder)
    assert not report.usable
    assert report.problems[0].startswith("the set can be loaded, but a run refuses it: ")
    (folder / "scene.json").write_text('{"patch_size": 16}')
    require_splits(load_scene(folder))
    assert check_data(folder).usable
