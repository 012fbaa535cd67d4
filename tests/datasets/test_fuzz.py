"""Data folders broken in generated ways: they load, or are refused by an error that names the file; never else.

Every example breaks one file of a small sound folder. Loading may answer with `ValueError` or `FileNotFoundError`,
whose message names that file, and the check of the folder agrees with it, names the file too, and raises nothing.
Neither writes.
"""

import json
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from sarmatch.datasets import load_scene
from sarmatch.datasets.geotiff import Options
from sarmatch.patches import DataCheck, check_data, require_splits
from tests import fake_data
from tests import fake_mosaics as fake

SIDE = 24  # px of the images of pairs

pytestmark = pytest.mark.slow  # hundreds of broken folders


def fuzz(examples: int):
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=quiet)


@pytest.fixture(scope="module")
def sound_pairs(tmp_path_factory) -> Path:
    """Five pairs in five formats."""
    folder, rng = tmp_path_factory.mktemp("sound"), np.random.default_rng(0)
    formats = ("a.png", "b.jpg", "c.tif", "d.bmp", "e.png")
    for name in formats:
        for modality, shape in (("opt", (SIDE, SIDE, 3)), ("sar", (SIDE, SIDE))):
            path = folder / modality / name
            path.parent.mkdir(exist_ok=True)
            pixels = rng.integers(0, 255, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(path, **({"compression": "tiff_deflate"} if path.suffix == ".tif" else {}))
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def load_and_check(folder: Path, touched: Path) -> DataCheck:
    """Load and check a folder of which one file was touched, and hold both to their word."""
    before, refused = snapshot(folder), ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            require_splits(load_scene(folder))
        except (ValueError, FileNotFoundError) as error:
            refused = str(error)
            # Of two partners of unlike sizes nobody knows which is the wrong one; they have one name.
            # What is too small for a run is a matter of the whole scene.
            named = (f"/{touched.name}", f"{folder}:", "too small", "large enough", "cannot be split", "no training")
            assert any(n in refused for n in named), refused
        report = check_data(folder)
    assert report.usable == (not refused), (refused, report.problems)
    if refused:
        assert any(str(touched) in p or f"{folder}:" in p or "a run refuses" in p for p in report.problems)
    assert str(report) and report._repr_html_()
    assert snapshot(folder) == before
    return report


def broken_copy(folder: Path, place: str, break_it: Callable[[Path], None], name: str) -> DataCheck:
    with TemporaryDirectory(dir=place) as other:
        copy = shutil.copytree(folder, Path(other) / "set")
        break_it(copy / name)
        return load_and_check(copy, copy / name)


# Bytes

IMAGES = st.sampled_from([f"{side}/{name}" for side in ("opt", "sar") for name in ("a.png", "b.jpg", "c.tif", "d.bmp")])


@fuzz(40)
@given(name=IMAGES, share=st.floats(0, 1))
def test_truncated_at_any_byte(sound_pairs, tmp_path, name, share):
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    broken_copy(sound_pairs, tmp_path, cut, name)


@fuzz(80)
@given(name=IMAGES, flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=8))
def test_any_bytes_flipped(sound_pairs, tmp_path, name, flips):
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for at, mask in flips:
            content[int(at * (len(content) - 1))] ^= mask
        path.write_bytes(content)

    broken_copy(sound_pairs, tmp_path, flip, name)


@fuzz(60)
@given(name=IMAGES, start=st.integers(0, 200), put=st.binary(min_size=1, max_size=8) | st.just(b"\xff" * 4))
@example(name="sar/d.bmp", start=41, put=b"\0\0\0\0\0\x01")  # these made Pillow raise errors without the file's name
@example(name="opt/a.png", start=8, put=b"\0\0\0\x05")
def test_any_bytes_of_the_header_replaced(sound_pairs, tmp_path, name, start, put):
    def spoil(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[:start] + put + content[start + len(put) :])

    broken_copy(sound_pairs, tmp_path, spoil, name)


@fuzz(25)
@given(name=IMAGES, content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode), keep=st.booleans())
def test_replaced_by_something_else(sound_pairs, tmp_path, name, content, keep):
    """With or without the first bytes, by which a format is known."""
    report = broken_copy(
        sound_pairs, tmp_path, lambda p: p.write_bytes((p.read_bytes()[:8] if keep else b"") + content), name
    )
    assert not report.usable
    assert (report.files["problem"] != "").sum() == 1


# Sizes that are claimed


def png_of(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG with a sound header and sound checksums, whatever its pixels are."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of(width: int, height: int, content: bytes, rows_per_strip: int) -> bytes:
    """A grey TIFF of one strip in which every size is what is asked for."""
    tags = [
        *((256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1)),
        *((278, 4, rows_per_strip), (279, 4, len(content))),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(200, b"\0") + content


SIDES = st.sampled_from([0, 1, SIDE, 10_000, 10**5, 2**31 - 1, 2**32 - 1])


@fuzz(40)
@given(kind=st.sampled_from(["png", "tif"]), modality=st.sampled_from(["opt", "sar"]), width=SIDES, height=SIDES)
def test_a_header_that_claims_too_much(sound_pairs, tmp_path, kind, modality, width, height):
    content = bytes(range(SIDE)) * SIDE
    forged = {
        "png": png_of(width, height, b"".join(b"\0" + bytes(range(SIDE)) for _ in range(SIDE))),
        "tif": tiff_of(width, height, content, height),
    }[kind]
    name = f"{modality}/{'a.png' if kind == 'png' else 'c.tif'}"
    report = broken_copy(sound_pairs, tmp_path, lambda p: p.write_bytes(forged), name)
    assert report.usable == ((width, height) == (SIDE, SIDE))


# Images that are sound, and yet wrong


@fuzz(40)
@given(
    name=IMAGES,
    height=st.integers(1, 2 * SIDE),
    width=st.integers(1, 2 * SIDE),
    bands=st.integers(1, 4),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32", "float64", "complex64"]),
    fill=st.sampled_from(["noise", "constant", "nan", "inf", "half nan", "huge"]),
    seed=st.integers(0, 99),
)
def test_images_of_any_kind(sound_pairs, tmp_path, name, height, width, bands, dtype, fill, seed):
    """A TIFF, whatever the name says: what a file is shall be read from its content."""
    pixels = np.random.default_rng(seed).random((bands, height, width)) * 250
    if fill == "constant":
        pixels[:] = 7
    elif np.dtype(dtype).kind in "fc":
        pixels = pixels * 1e30 if fill == "huge" else pixels
        where = {"nan": slice(None), "inf": slice(None), "half nan": slice(height // 2)}.get(fill, slice(0))
        pixels[:, where] = np.inf if fill == "inf" else np.nan

    def write(path: Path) -> None:
        path.unlink()
        shape = {"count": bands, "height": height, "width": width, "dtype": dtype}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(path, "w", driver="GTiff", **shape) as image:
                image.write(pixels.astype(dtype))

    report = broken_copy(sound_pairs, tmp_path, write, name)
    if fill == "constant" or (height, width) != (SIDE, SIDE):
        assert not report.usable


@fuzz(30)
@given(name=IMAGES, other=IMAGES, what=st.sampled_from(["copy", "remove", "folder", "link", "dead link", "second"]))
def test_files_copied_removed_and_linked(sound_pairs, tmp_path, name, other, what):
    def change(path: Path) -> None:
        source = path.parents[1] / other
        content = source.read_bytes()
        if what == "second":
            return path.with_suffix(".jpeg").write_bytes(content)
        path.unlink()
        if what == "copy":
            path.write_bytes(content)
        elif what == "folder":
            path.mkdir()
        elif what == "link" and source != path:
            path.symlink_to(source)
        elif what == "dead link":
            path.symlink_to(path.with_name("nowhere"))

    with TemporaryDirectory(dir=tmp_path) as place:
        copy = shutil.copytree(sound_pairs, Path(place) / "set")
        change(copy / name)
        touched = (copy / name).with_suffix(".jpeg") if what == "second" else copy / name
        report = load_and_check(copy, touched)
    if what in ("folder", "dead link", "second"):
        assert not report.usable
    if what == "remove":
        assert report.usable and len(report.problems) == 1


# Tables of tiles


@pytest.fixture(scope="module")
def small_sentinel(tmp_path_factory) -> Path:
    """One tile of each region: decoding is what costs."""
    return fake_data.write_sentinel(tmp_path_factory.mktemp("tiles"), tiles=1)


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -(10**400)])
    | st.floats()
    | st.sampled_from([1e308, 2e7, -2e7, 0.0])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@fuzz(80)
@given(value=ODD, where=st.integers(0, 5), number=st.integers(0, 1), corner=st.integers(0, 3), axis=st.integers(0, 1))
def test_strange_values_in_a_table_of_tiles(small_sentinel, tmp_path, value, where, number, corner, axis):
    def change(path: Path) -> None:
        entries = json.loads(path.read_bytes())
        if where == 0:
            entries = value
        elif where == 1:
            entries[number] = value
        elif where == 2:
            entries[number]["id"] = value
        elif where == 3:
            entries[number]["corners_epsg3395"] = value
        elif where == 4:
            entries[number]["corners_epsg3395"][corner] = value
        else:
            entries[number]["corners_epsg3395"][corner][axis] = value
        path.write_text(json.dumps(entries))

    broken_copy(small_sentinel, tmp_path, change, "tiles.json")


@fuzz(25)
@given(key=st.sampled_from(["id", "corners_epsg3395", "region"]), number=st.integers(0, 1))
def test_keys_missing_in_a_table_of_tiles(small_sentinel, tmp_path, key, number):
    def change(path: Path) -> None:
        entries = json.loads(path.read_bytes())
        del entries[number][key]
        path.write_text(json.dumps(entries))

    assert broken_copy(small_sentinel, tmp_path, change, "tiles.json").usable == (key == "region")


@fuzz(40)
@given(share=st.floats(0, 0.999), put=st.sampled_from([b"", b"\xff", b"\0", b"[" * 20_000, b"9" * 5000, b"}"]))
def test_a_table_of_tiles_cut_and_spoilt(small_sentinel, tmp_path, share, put):
    def change(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))] + put)

    assert not broken_copy(small_sentinel, tmp_path, change, "tiles.json").usable


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"id": ' * 100_000, b"\xef\xbb\xbf[]", b"[1e999]", b"null"])
def test_tables_that_trip_a_parser(small_sentinel, tmp_path, content):
    assert not broken_copy(small_sentinel, tmp_path, lambda p: p.write_bytes(content), "tiles.json").usable


def test_two_tiles_in_one_place_are_refused(sentinel_folder, tmp_path):
    def change(path: Path) -> None:
        entries = json.loads(path.read_bytes())
        entries[1]["corners_epsg3395"] = entries[0]["corners_epsg3395"]
        path.write_text(json.dumps(entries))

    report = broken_copy(sentinel_folder, tmp_path, change, "tiles.json")
    assert "'019' lies where '018' lies" in report.problems[0]


def test_a_table_in_either_of_its_places(public_sentinel_folder, tmp_path):
    """Beside an empty folder `dataset/`, the table above it is the one to be read."""
    shutil.copytree(public_sentinel_folder / "dataset", tmp_path / "tiles")
    (tmp_path / "tiles" / "dataset").mkdir()
    assert len(load_scene(tmp_path / "tiles").areas) == 2


@fuzz(12)
@given(name=st.sampled_from(["opt/018.jpg", "sar/127.png"]), share=st.floats(0, 1), mask=st.integers(0, 255))
def test_tiles_cut_and_flipped(small_sentinel, tmp_path, name, share, mask):
    """Cut where the mask is 0, else one byte flipped."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        at = int(share * (len(content) - 1))
        content[at] ^= mask
        path.write_bytes(content if mask else content[:at])

    broken_copy(small_sentinel, tmp_path, change, name)


# One's own map and strips
@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A map, a strip, a turned image with a row of positions, and options."""
    folder = fake.write_own(tmp_path_factory.mktemp("own"), size=192, strips=1)
    pixels = np.random.default_rng(0).integers(1, 255, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "strips" / "turned.png")
    row = {"file": "turned.png", "x": fake.WEST + 30, "y": fake.NORTH - 30, "pixel_size": 1.0, "heading_deg": 20.0}
    fake.write_positions(folder / "strips", [row])
    (folder / "scene.json").write_text(json.dumps({"name": "mine", "patch_size": 16, "roles": {"s0": "train"}}))
    return folder


@pytest.fixture
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path_factory.mktemp("cache")))


OWN = st.sampled_from(["map.tif", "strips/s0.tif", "strips/turned.png", "strips/positions.csv", "scene.json"])


@pytest.mark.usefixtures("_own_cache")
def test_the_sound_map_and_strips_load(own):
    report = load_and_check(own, own / "map.tif")
    assert report.usable


@pytest.mark.usefixtures("_own_cache")
@fuzz(40)
@given(name=OWN, share=st.floats(0, 0.999))
def test_own_files_truncated(own, tmp_path, name, share):
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    broken_copy(own, tmp_path, cut, name)


@pytest.mark.usefixtures("_own_cache")
@fuzz(150)
@given(name=OWN, flips=st.lists(st.tuples(st.integers(0, 700), st.integers(1, 255)), min_size=1, max_size=6))
def test_own_files_with_bytes_flipped(own, tmp_path, name, flips):
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for at, mask in flips:
            content[-1 - at % len(content) if at % 2 else at % len(content)] ^= mask
        path.write_bytes(bytes(content))

    broken_copy(own, tmp_path, flip, name)


@pytest.mark.usefixtures("_own_cache")
@fuzz(30)
@given(name=OWN, content=st.binary(max_size=80))
def test_own_files_replaced(own, tmp_path, name, content):
    broken_copy(own, tmp_path, lambda path: path.write_bytes(content), name)


@pytest.mark.usefixtures("_own_cache")
@fuzz(40)
@given(
    column=st.sampled_from(["x", "y", "pixel_size", "heading_deg", "file"]),
    value=st.sampled_from(["", "nan", "inf", "-1", "1e308", "1e-300", "0", "north", "../map.tif", "s0.tif", "\0"]),
)
def test_strange_positions(own, tmp_path, column, value):
    def change(path: Path) -> None:
        head, row = path.read_text().splitlines()
        words = row.split(",")
        words[head.split(",").index(column)] = value
        path.write_text("\n".join([head, ",".join(words)]) + "\n")

    broken_copy(own, tmp_path, change, "strips/positions.csv")


@pytest.mark.usefixtures("_own_cache")
@fuzz(80)
@given(field=st.sampled_from([*Options.model_fields, "colour"]), value=ODD)
@example(field="roles", value={"s9": "test"})
@example(field="nodata", value={"sar": 10**400})
def test_strange_options(own, tmp_path, field, value):
    def change(path: Path) -> None:
        path.write_text(json.dumps({"patch_size": 16, field: value}))

    broken_copy(own, tmp_path, change, "scene.json")


@pytest.mark.usefixtures("_own_cache")
@fuzz(60)
@given(
    name=st.sampled_from(["map.tif", "strips/s0.tif"]),
    bands=st.integers(1, 5),
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "int32", "float32", "float64", "complex64"]),
    fill=st.sampled_from(["noise", "constant", "sentinel", "zeros", "nan", "inf", "huge"]),
    nodata=st.sampled_from([None, 0, -9999]),
    turn=st.sampled_from([0.0, 30.0, 180.0]),
)
def test_own_images_of_any_kind(own, tmp_path, name, bands, dtype, fill, nodata, turn):
    pixels = np.random.default_rng(0).random((bands, 192, 192)) * 100 + 1
    if fill == "constant":
        pixels[:] = 7
    elif fill in ("sentinel", "zeros"):
        pixels[:, :80] = {"sentinel": -9999, "zeros": 0}[fill]
    elif np.dtype(dtype).kind in "fc":
        pixels[:, :80] = {"noise": 1, "nan": np.nan, "inf": np.inf, "huge": 1e33}[fill]
    place = fake.turned((fake.WEST + 96, fake.NORTH - 96), 1.0, turn, (192, 192))

    def write(path: Path) -> None:
        path.unlink()
        fits = nodata is not None and (np.dtype(dtype).kind in "fc" or np.iinfo(dtype).min <= nodata)
        with np.errstate(all="ignore"):
            fake.write_tiff(path, pixels.astype(dtype), place, nodata=nodata if fits else None)

    report = broken_copy(own, tmp_path, write, name)
    if fill == "constant" or (name == "map.tif" and (bands == 2 or dtype == "complex64")):
        assert not report.usable


@pytest.mark.usefixtures("_own_cache")
@fuzz(60)
@given(
    name=st.sampled_from(["map.tif", "strips/s0.tif", "strips/turned.png"]),
    suffix=st.sampled_from([".aux.xml", ".ovr", ".msk", ".aux", ".xml"]),
    content=st.binary(max_size=60) | st.sampled_from([b"<PAMDataset/>", b"II*\0\x08\0\0\0\0\0", b"<VRTDataset/>"]),
)
def test_anything_beside_an_image(own, tmp_path, name, suffix, content):
    """Whatever GDAL would have read there: it is refused by name, or changes nothing."""

    def put(path: Path) -> None:
        path.with_name(path.name + suffix).write_bytes(content)

    report = broken_copy(own, tmp_path, put, name)
    assert suffix == ".aux.xml" or report.usable == (suffix != ".msk")
