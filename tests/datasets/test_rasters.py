"""Opening images of others: nothing but the file itself is read, and its numbers mean what they say."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine

from sarmatch.datasets import load_scene
from sarmatch.datasets.images import image_size, read_image
from sarmatch.datasets.rasters import BadImageError, open_raster, orientation, reading, sidecar_of
from sarmatch.patches import check_data
from tests import fake_data
from tests import fake_mosaics as fake

PLACE = Affine(1, 0, fake.WEST, 0, -1, fake.NORTH)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def asked():
    """What a server on this machine was asked for, and its port."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield paths, server.server_port
    server.shutdown()


def vrt(source: str, size: int = 96) -> bytes:
    """A virtual raster of another file, with enough comment to be no suspiciously small image."""
    return (
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><SRS>{fake.UTM}</SRS>'
        f"<GeoTransform>{fake.WEST}, 1, 0, {fake.NORTH}, 0, -1</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        f"</VRTDataset><!--{'x' * 20_000}-->"
    ).encode()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, shape, dtype=np.uint8)


# Security
def test_a_virtual_raster_reaches_neither_the_network_nor_another_file(tmp_path, asked):
    paths, port = asked
    secret = fake.write_tiff(tmp_path / "secret.tif", noise(1, 96, 96), PLACE)
    for i, source in enumerate((f"/vsicurl/http://127.0.0.1:{port}/x.tif", str(secret))):
        own = fake.write_own(tmp_path / f"own{i}")
        pairs = fake_data.write_pairs(tmp_path / f"pairs{i}")
        (own / "strips" / "s0.tif").write_bytes(vrt(source))
        (pairs / "sar" / "001.png").unlink()
        (pairs / "sar" / "001.tif").write_bytes(vrt(source))
        for folder, name in ((own, "s0.tif"), (pairs, "001.tif")):
            with pytest.raises(BadImageError, match=rf"{name}: is not an image of a known format"):
                load_scene(folder)
            assert not check_data(folder).usable
    assert not paths


@pytest.mark.parametrize("suffix", [".ovr", ".aux.xml"])
def test_files_beside_an_image_are_not_followed(tmp_path, asked, suffix):
    paths, port = asked
    folder = fake.write_own(tmp_path)
    before = load_scene(folder).areas[0].map.read(0, 0, 240, 240)
    source = f"/vsicurl/http://127.0.0.1:{port}/x.tif"
    overviews = (
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{source}</MDI></Metadata></PAMDataset>'
    )
    for name in ("map.tif", "strips/s0.tif"):
        (folder / (name + suffix)).write_bytes(vrt(source, 240) if suffix == ".ovr" else overviews.encode())
    (folder / "scene.json").write_text('{"pixel_size": 4.0, "patch_size": 8}')  # coarse enough to ask for overviews
    load_scene(folder)
    (folder / "scene.json").unlink()
    np.testing.assert_array_equal(load_scene(folder).areas[0].map.read(0, 0, 240, 240), before)
    assert not paths


def test_overviews_that_an_image_itself_names_elsewhere_are_refused(tmp_path):
    path = fake.write_tiff(tmp_path / "a.tif", noise(1, 96, 96), PLACE)
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE="/etc/hostname")
    with pytest.raises(BadImageError, match=r"a\.tif: names a file of overviews outside of itself"):
        open_raster(path)


def test_a_mask_in_a_file_of_its_own_is_refused_and_not_forgotten(tmp_path):
    folder = fake.write_own(tmp_path)
    fake.write_tiff(folder / "map.tif.msk", noise(1, 240, 240), PLACE)
    with pytest.raises(BadImageError, match=r"map\.tif: its mask is a file of its own, map\.tif\.msk"):
        load_scene(folder)


@pytest.mark.parametrize("name", ["a?b#c!.tif", "zip:x!y.tif", "a b%20.tif", "ä.tif"])
def test_names_are_names_and_no_addresses(tmp_path, name):
    fake.write_tiff(tmp_path / name, noise(1, 96, 96), PLACE)
    assert read_image(tmp_path / name, 1).shape == (1, 96, 96)


def test_only_this_module_opens_rasters():
    package = Path(load_scene.__code__.co_filename).parents[1]
    opened = [p.name for p in package.rglob("*.py") if "rasterio.open(" in p.read_text()]
    assert opened == ["rasters.py"]


# What beside an image is read here
def test_place_and_nodata_of_a_sidecar(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(noise(96, 96)).save(path)
    assert sidecar_of(path) == (None, None, None)
    wkt = rasterio.crs.CRS.from_string(fake.UTM).to_wkt().replace('"', "&quot;")
    text = f"<SRS>{wkt}</SRS><GeoTransform>5, 2, 0, 9, 0, -2</GeoTransform>"
    text += '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand>'
    (tmp_path / "a.png.aux.xml").write_text(f"<PAMDataset>{text}</PAMDataset>")
    found = sidecar_of(path)
    assert fake.same_crs(found.crs.to_string(), fake.UTM)
    assert (found.transform, found.nodata) == (Affine(2, 0, 5, 0, -2, 9), 7)
    (tmp_path / "a.pgw").write_text("3\n0\n0\n-3\n100\n200\n")
    assert sidecar_of(path).transform == Affine(3, 0, 98.5, 0, -3, 201.5)  # it gives the centre of the first pixel


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.pgw", "1\n2\n"),
        ("a.pgw", "x y z u v w"),
        ("a.png.aux.xml", "<PAMDataset>"),
        ("a.png.aux.xml", '<!DOCTYPE a [<!ENTITY b "b">]><PAMDataset>&b;</PAMDataset>'),
        ("a.png.aux.xml", "<PAMDataset><SRS>nowhere</SRS></PAMDataset>"),
        ("a.png.aux.xml", "<PAMDataset><GeoTransform>1, 2</GeoTransform></PAMDataset>"),
    ],
)
def test_an_unreadable_sidecar_is_named(tmp_path, name, text):
    Image.fromarray(noise(96, 96)).save(tmp_path / "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(BadImageError, match=rf"{name}: "):
        sidecar_of(tmp_path / "a.png")


# What the numbers mean
@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_sar_is_read_as_its_magnitude(tmp_path, dtype):
    folder = fake.write_own(tmp_path, strips=1)
    amplitude = np.sqrt(fake.sar(PLACE, (240, 240))) * 1000
    values = amplitude * np.exp(2j * np.pi * np.random.default_rng(0).random(amplitude.shape))
    shape = {"count": 1, "height": 240, "width": 240, "dtype": dtype, "crs": fake.UTM, "transform": PLACE}
    with rasterio.open(folder / "strips" / "s0.tif", "w", driver="GTiff", **shape) as file:
        file.write(values.astype(np.complex128 if dtype == "complex128" else np.complex64))
    with pytest.warns(UserWarning, match=r"s0\.tif: holds complex values; their magnitude is read, as amplitude"):
        strip = load_scene(folder).areas[0].strips[0]
    assert strip.scale == "amplitude"
    np.testing.assert_allclose(strip.read(20, 30, 99, 99), amplitude[:, 20:119, 30:129], atol=1.5)
    (folder / "scene.json").write_text('{"sar_scale": "decibel"}')
    with pytest.raises(BadImageError, match=r"s0\.tif: .*read as amplitude, but sar_scale is 'decibel'"):
        load_scene(folder)


def test_a_complex_image_is_no_map(tmp_path):
    folder = fake.write_own(tmp_path)
    fake.write_tiff(folder / "map.tif", (fake.sar(PLACE, (240, 240)) * 1j).astype(np.complex64), PLACE)
    with pytest.raises(BadImageError, match=r"map\.tif: holds complex values, expected an optical image"):
        load_scene(folder)


def palette_tiff(path: Path, index: np.ndarray, colours: np.ndarray) -> Path:
    shape = {"count": 1, "height": index.shape[0], "width": index.shape[1], "dtype": "uint8"}
    with rasterio.open(
        path, "w", driver="GTiff", photometric="palette", crs=fake.UTM, transform=PLACE, **shape
    ) as file:
        file.write(index, 1)
        file.write_colormap(1, {i: (*map(int, c), 255) for i, c in enumerate(colours)})
    return path


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_palette_gives_its_colours(tmp_path, suffix):
    rng = np.random.default_rng(0)
    index, colours = noise(96, 80), rng.integers(0, 255, (256, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        palette_tiff(path, index, colours)
    else:
        image = Image.fromarray(index, "P")
        image.putpalette(colours.ravel().tolist())
        image.save(path)
    np.testing.assert_array_equal(read_image(path, 3), colours[index].transpose(2, 0, 1))


def test_a_palette_of_greys_is_one_band_and_of_colours_no_sar(tmp_path):
    folder = fake.write_own(tmp_path, strips=1)
    order = np.random.default_rng(0).permutation(256)
    level = np.round(np.sqrt(fake.sar(PLACE, (240, 240)))[0] * 255).astype(int)
    colours = np.zeros((256, 3), np.uint8)
    colours[order] = np.arange(256)[:, None]
    palette_tiff(folder / "strips" / "s0.tif", order[level].astype(np.uint8), colours)
    strip = load_scene(folder).areas[0].strips[0]
    np.testing.assert_allclose(strip.read(20, 30, 99, 99)[0] * 255, level[20:119, 30:129], atol=1e-3)
    palette_tiff(folder / "strips" / "s0.tif", order[level].astype(np.uint8), colours[:, ::-1] // [1, 2, 3])
    with pytest.raises(BadImageError, match=r"s0\.tif: has a palette of colours, expected SAR in grey"):
        load_scene(folder)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_an_image_is_turned_as_its_exif_says(tmp_path, suffix, turn):
    pixels = fake_data._blocks(np.random.default_rng(0), 96, 3)[:64]
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, 1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels, -1),
    }[turn]
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[274] = turn
    path = tmp_path / f"a.{suffix}"
    image.save(path, exif=exif, **({"quality": 100, "subsampling": 0} if suffix == "jpg" else {}))
    assert orientation(path) == turn
    assert image_size(path) == (64, 96)
    assert np.abs(read_image(path, 3).astype(int) - pixels.transpose(2, 0, 1)).max() <= 12


def test_a_placed_image_that_is_not_upright_is_refused(tmp_path):
    folder = fake.write_own(tmp_path)
    image = Image.fromarray(noise(96, 96))
    exif = image.getexif()
    exif[274] = 6
    image.save(folder / "strips" / "a.jpg", exif=exif)
    (folder / "strips" / "a.jgw").write_text(f"1\n0\n0\n-1\n{fake.WEST}\n{fake.NORTH}\n")
    with pytest.raises(BadImageError, match=r"a\.jpg: its EXIF orientation is 6, expected pixels stored upright"):
        load_scene(folder)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"photometric": "cmyk"}, r"its bands are"), ({"photometric": "miniswhite"}, r"is stored as a negative")],
)
def test_other_meanings_of_bands_are_refused(tmp_path, options, said):
    bands = 4 if options["photometric"] == "cmyk" else 1
    shape = {"count": bands, "height": 96, "width": 96, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape, **options) as file:
        file.write(noise(bands, 96, 96))
    with pytest.raises(BadImageError, match=rf"a\.tif: {said}"):
        open_raster(tmp_path / "a.tif")


def test_a_nodata_value_of_bytes_is_honoured_in_pairs(tmp_path):
    folder = fake_data.write_pairs(tmp_path)
    for side, bands in (("opt", 3), ("sar", 1)):
        pixels = noise(bands, 96, 96)
        pixels[:, :30] = 0
        (folder / side / "002.png").unlink()
        fake.write_tiff(folder / side / "002.tif", pixels, Affine.identity(), None, nodata=0)
        found = read_image(folder / side / "002.tif", bands)
        assert np.isnan(found[:, :30]).all()
        np.testing.assert_allclose(found[:, 30:], pixels[:, 30:] / 255, rtol=1e-6)
    area, strip = next((a, s) for a in load_scene(folder).areas for s in a.strips if s.name == "002")
    at = np.array([strip.tiles[0].row]), np.array([strip.tiles[0].col])
    assert not area.map.covers(*at, 24)[0] and not strip.covers(*at, 24)[0]
    assert area.map.covers(at[0] + 40, at[1], 24)[0]


def test_a_view_is_read_under_the_options_it_was_opened_with(tmp_path):
    path = fake.write_tiff(tmp_path / "a.tif", (noise(1, 96, 96) * 1j).astype(np.complex64), PLACE)
    with reading(), open_raster(path) as file:
        assert (file.count, file.dtypes, file.crs, file.transform) == (1, ("float32",), fake.UTM, PLACE)
        np.testing.assert_array_equal(file.read(), noise(1, 96, 96))


@pytest.mark.parametrize("suffix", [".pgw", ".png.aux.xml"])
def test_a_sidecar_that_is_a_link_out_of_the_folder_is_refused(tmp_path, suffix):
    (tmp_path / "in").mkdir()
    Image.fromarray(noise(96, 96)).save(tmp_path / "in" / "a.png")
    (tmp_path / "outside").write_text("1\n0\n0\n-1\n5\n5\n" if suffix == ".pgw" else "<PAMDataset/>")
    (tmp_path / "in" / f"a{suffix}").symlink_to(tmp_path / "outside")
    with pytest.raises(BadImageError, match=rf"a{suffix}: is a link to .*outside, expected a file beside a\.png"):
        sidecar_of(tmp_path / "in" / "a.png")


def test_how_opaque_a_strip_is_is_no_band_of_it(tmp_path):
    folder = fake.write_own(tmp_path, strips=1)
    pixels = np.concatenate([noise(1, 240, 240), np.full((1, 240, 240), 255, np.uint8)])
    pixels[1, :80] = 0
    shape = {"count": 2, "height": 240, "width": 240, "dtype": "uint8", "crs": fake.UTM, "transform": PLACE}
    with rasterio.open(folder / "strips" / "s0.tif", "w", driver="GTiff", alpha="yes", **shape) as file:
        file.write(pixels)
    strip = load_scene(folder).areas[0].strips[0]
    assert strip.bands == ("band 1",)
    assert not strip.covers(np.array([20]), np.array([20]), 24)[0]


def test_a_file_of_a_map_with_pixels_far_too_large_is_named(tmp_path):
    folder = fake.write_own(tmp_path)
    (folder / "map").mkdir()
    (folder / "map.tif").rename(folder / "map" / "a.tif")
    coarse = Affine(1e4, 0, fake.WEST, 0, -1e4, fake.NORTH)
    fake.write_tiff(folder / "map" / "b.tif", noise(3, 99, 99), coarse)
    with pytest.raises(BadImageError, match=r"b\.tif: its 99 x 99 px cover 990000 x 990000 px of the map"):
        load_scene(folder)


def test_an_image_that_has_been_replaced_is_read_again(tmp_path):
    path = tmp_path / "a.png"
    for seed in (0, 1):
        pixels = np.random.default_rng(seed).integers(0, 255, (96, 96), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        np.testing.assert_array_equal(read_image(path, 1)[0], pixels)
