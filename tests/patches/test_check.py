"""The check of a data folder, against folders in which it is known what is wrong."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image
from typer.testing import CliRunner

from sarmatch.cli import app
from sarmatch.datasets import load_scene
from sarmatch.datasets.pairs import PAIRS
from sarmatch.datasets.reader import File, table_of
from sarmatch.patches import check
from sarmatch.patches.check import check_data
from sarmatch.scenes import Scene
from tests import fake_data

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def pairs(pairs_folder, tmp_path):
    """A copy of ten pairs that a test may break."""
    return shutil.copytree(pairs_folder, tmp_path / "pairs")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def write_tiff(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **options) as image:
        image.write(pixels)
    return path


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def reads(files: list[File], scene: Scene | None = None, *, error: str = "", coordinates: bool = False):
    """A reader that lists the files given, whatever is in a folder, and makes that scene, or none."""

    def build(folder: Path, table: pd.DataFrame) -> Scene | None:
        if error:
            raise ValueError(error)
        return scene

    return PAIRS._replace(name="fixed", files=lambda f: table_of(files), scene=build, has_coordinates=coordinates)


def check_as(reader, folder: Path, monkeypatch) -> check.DataCheck:
    (folder / "opt").mkdir(exist_ok=True)
    (folder / "sar").mkdir(exist_ok=True)
    monkeypatch.setattr("sarmatch.datasets.registry.READERS", (reader,))
    return check_data(folder)


def of(report: check.DataCheck, path: Path) -> pd.Series:
    return report.files.set_index("path").loc[path]


# What a clean folder says


def test_a_clean_folder_has_no_problem_and_true_numbers(pairs):
    before = snapshot(pairs)
    report = check_data(pairs)
    assert (report.reader, report.about) == (PAIRS.name, PAIRS.about)
    assert report.usable and report.problems == ()
    assert (report.files["problem"] == "").all()
    assert len(report.files) == 20
    for file in report.files.itertuples():
        with Image.open(file.path) as image:
            pixels = np.asarray(image)
        assert (file.height, file.width) == pixels.shape[:2]
        assert file.bands == np.atleast_3d(pixels).shape[2]
        assert (file.dtype, file.nodata, file.crs) == ("uint8", 0, "")
        assert (file.low, file.high) == (pixels.min(), pixels.max())
        assert file.mean == pytest.approx(pixels.mean(), rel=1e-12)
        assert file.bytes == file.path.stat().st_size
        assert file.sha == hashlib.blake2b(file.path.read_bytes(), digest_size=16).hexdigest()
    assert snapshot(pairs) == before


def test_columns_and_summary(pairs):
    report = check_data(pairs)
    names = "path modality key split area group height width bands dtype low high mean nodata crs pixel_size bytes sha"
    assert " ".join(report.files.columns) == f"{names} problem"
    (optical, sar) = report.summary.itertuples()
    assert (optical.modality, optical.files, optical.height, optical.bands) == ("optical", 10, "96", "1 to 3")
    assert report.summary["MB"][0] == pytest.approx(sum(p.stat().st_size for p in (pairs / "opt").iterdir()) / 1e6)
    assert (sar.modality, sar.dtype, sar.values, sar.problems) == ("sar", "uint8", "0 to 255", 0)


@pytest.mark.parametrize("layout", ["sentinel_folder", "public_sentinel_folder"])
def test_clean_sentinel_folders(layout, request):
    report = check_data(request.getfixturevalue(layout))
    assert report.reader == "sentinel" and report.usable
    assert report.problems == ()
    assert set(report.summary["area"]) == {"A_los_angeles", "B_orange_inland"}
    assert (report.summary["height"] == "1024").all()


def test_grey_beside_colour_is_a_note(pairs):
    assert "optical images differ in bands: 3 (5 files), 1 (5 files)" in check_data(pairs).notes


# What is broken


def test_exactly_what_is_wrong_is_said(pairs):
    cut = pairs / "opt" / "001.png"
    cut.write_bytes(cut.read_bytes()[:-400])
    constant = pairs / "sar" / "002.png"
    Image.fromarray(np.full((96, 96), 7, np.uint8)).save(constant)
    for side in ("opt", "sar"):
        shutil.copy(pairs / side / "004.png", pairs / side / "009.png")
    (pairs / "sar" / "006.png").unlink()
    report = check_data(pairs)
    assert not report.usable
    load, *rest = report.problems
    assert load.startswith("the set cannot be loaded (without the 2 file(s) at fault it could): 2 unusable image(s)")
    expected = [
        (cut, "cannot be read (", "the set cannot be loaded"),
        (constant, "every pixel is 7, a constant image", "the set cannot be loaded"),
        (pairs / "opt" / "006.png", "there is no SAR file for '006'", "left out, for it has no partner"),
        *(
            (pairs / side / "009.png", f"has the same content as {pairs / side / '004.png'}", "a leak between 'train'")
            for side in ("opt", "sar")
        ),
    ]
    assert len(rest) == len(expected)
    for said, (path, what, then) in zip(rest, expected, strict=True):
        assert said.startswith(f"{path}: {what}") and then in said
    assert set(report.files.loc[report.files["problem"] != "", "path"]) == {path for path, *_ in expected}
    shares = report.summary.set_index("modality")["problems"]
    assert shares["optical"] == pytest.approx(3 / 10) and shares["sar"] == pytest.approx(2 / 9)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_truncated_file_of_any_format_is_found(pairs, suffix, share):
    """By its defaults GDAL gives what there is of a PNG, and stray memory, without an error."""
    (pairs / "opt" / "001.png").unlink()
    path = pairs / "opt" / f"001.{suffix}"
    Image.fromarray(noise(96, 96, 3)).save(path)
    assert of(check_data(pairs), path).problem == ""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert of(check_data(pairs), path).problem.startswith("cannot be read (")


def test_damage_within_a_jpeg_is_found_though_it_can_be_decoded(pairs):
    (pairs / "opt" / "001.png").unlink()
    path = pairs / "opt" / "001.jpg"
    Image.fromarray(noise(96, 96, 3)).save(path)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + content[middle + 500 :])  # a block was lost
    report = check_data(pairs)
    assert report.usable
    (said,) = report.problems
    assert said.startswith(f"{path}: cannot be read (") and said.endswith("what is read of it fails or is wrong")


def test_a_truncated_tiff_in_strips_is_found(pairs):
    (pairs / "sar" / "001.png").unlink()
    path = write_tiff(pairs / "sar" / "001.tif", noise(1, 96, 96), compress="deflate", blockysize=8)
    path.write_bytes(path.read_bytes()[:-1000])
    assert of(check_data(pairs), path).problem.startswith("cannot be read (")


WRONG = {
    "empty": (lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
    "text": (lambda p: p.write_text("no picture"), "is not an image of a known format: it begins with b'no picture'"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "is not a file"),
    "pipe": (lambda p: (p.unlink(), os.mkfifo(p)), "is not a file"),
    "dead link": (lambda p: (p.unlink(), p.symlink_to("nowhere.png")), "does not exist"),
    "constant": (lambda p: Image.fromarray(np.zeros((96, 96), np.uint8)).save(p), "every pixel is 0, a constant"),
}


@pytest.mark.parametrize("name", sorted(WRONG.keys() - {"pipe"}))
def test_an_unusable_file_is_named(pairs, name):
    path = pairs / "sar" / "003.png"
    spoil, what = WRONG[name]
    spoil(path)
    report = check_data(pairs)
    assert not report.usable
    assert of(report, path).problem.startswith(what)
    assert any(p.startswith(f"{path}: {what}") and p.endswith("; the set cannot be loaded") for p in report.problems)


def test_a_pipe_is_not_waited_for(tmp_path, monkeypatch):
    spoil, what = WRONG["pipe"]
    path = tmp_path / "a.png"
    path.touch()
    spoil(path)
    report = check_as(reads([File(path, "sar", "a")], error=f"{path}: bad"), tmp_path, monkeypatch)
    assert of(report, path).problem == what


def test_a_broken_file_without_partner_is_left_out(pairs):
    (pairs / "sar" / "003.png").unlink()
    (pairs / "opt" / "003.png").write_text("no picture")
    report = check_data(pairs)
    assert report.usable
    assert len(report.problems) == 2
    assert all(p.endswith("left out, for it has no partner") for p in report.problems)


def test_partners_of_unlike_sizes(pairs):
    path = pairs / "sar" / "004.png"
    Image.fromarray(noise(90, 96)).save(path)
    report = check_data(pairs)
    assert not report.usable
    what = f"{path}: is 90 x 96 px, but its optical partner {pairs / 'opt' / '004.png'} is 96 x 96 px"
    assert f"{what}; the set cannot be loaded" in report.problems
    assert "sar images differ in size: 96 x 96 px (9 files), 90 x 96 px (1 files)" in report.notes


def test_what_only_the_reader_knows_is_quoted_and_marked(pairs):
    path = pairs / "sar" / "005.png"
    Image.fromarray(noise(96, 96, 3)).save(path)
    report = check_data(pairs)
    assert "channels" in of(report, path).problem
    assert str(path) in report.problems[0]
    assert "without the 1 file(s) at fault it could" in report.problems[0]


def test_an_image_larger_than_its_file_can_hold_is_not_decoded(pairs, monkeypatch):
    monkeypatch.setattr(check.Image, "MAX_IMAGE_PIXELS", 4000)
    report = check_data(pairs)
    assert report.files["problem"].str.contains("its header claims 96 x 96 px in").all()
    assert report.files["low"].isna().all()


def test_a_large_tiff_is_decoded_and_a_hollow_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(check.Image, "MAX_IMAGE_PIXELS", 4000)
    map_ = write_tiff(tmp_path / "map.tif", noise(3, 500, 400))
    hollow = write_tiff(tmp_path / "hollow.tif", np.zeros((1, 3000, 3000), np.uint8), tiled=True, sparse_ok=True)
    report = check_as(reads([File(p, "optical", p.stem) for p in (map_, hollow)]), tmp_path, monkeypatch)
    assert of(report, map_).problem == ""
    assert of(report, hollow).problem.startswith("its header claims 3000 x 3000 px in")


@pytest.mark.parametrize("options", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 32}, {"blockysize": 300}])
@pytest.mark.parametrize("budget", [1, 1000, 7777, 2**22])
def test_windows_cover_an_image_once_and_keep_to_the_budget(tmp_path, monkeypatch, options, budget):
    pixels = noise(3, 300, 200)
    path = write_tiff(tmp_path / "a.tif", pixels, **options)
    monkeypatch.setattr(check, "WINDOW_PIXELS", budget)
    if budget > 1:
        facts = check._inspect(path)
        assert (facts["low"], facts["high"]) == (pixels.min(), pixels.max())
        assert facts["mean"] == pytest.approx(pixels.mean(), rel=1e-12)
    with rasterio.open(path) as image:
        seen = np.zeros((300, 200), int)
        for window in check._windows(image):
            assert 3 * window.width * window.height <= max(3, budget)
            seen[window.toslices()] += 1
    assert (seen == 1).all()


# What the numbers tell


def test_ranges_leave_out_what_is_no_data(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).normal(size=(2, 40, 50)).astype(np.float32)
    pixels[0, :10] = np.nan  # a pixel without data in one band
    pixels[:, :, 40:] = -9999  # and pixels that the file calls so
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 6e6)}
    path = write_tiff(tmp_path / "a.tif", pixels, nodata=-9999, **place)
    report = check_as(reads([File(path, "sar", "a")]), tmp_path, monkeypatch)
    file, data = of(report, path), pixels[:, 10:, :40]
    assert (file.low, file.high) == (data.min(), data.max())
    assert file["mean"] == pytest.approx(data.mean(dtype=np.float64), rel=1e-9)
    assert file.nodata == pytest.approx(1 - 30 * 40 / 2000)
    assert (file.crs, file.pixel_size, file.bands) == ("EPSG:32631", 0.5, 2)
    assert report.problems == ()
    assert report.notes[0].startswith("1 of 1 files have pixels without data, at most 40.0%")


def test_an_image_without_any_data(tmp_path, monkeypatch):
    nan = write_tiff(tmp_path / "nan.tif", np.full((1, 32, 32), np.nan, np.float32))
    zero = write_tiff(tmp_path / "zero.tif", np.zeros((1, 32, 32), np.float32), nodata=0)
    report = check_as(reads([File(p, "sar", p.stem) for p in (nan, zero)]), tmp_path, monkeypatch)
    assert list(report.files["problem"]) == ["no pixel holds data"] * 2
    assert list(report.files["nodata"]) == [1, 1]


def scene_of(scale: str, scene: Scene) -> Scene:
    """A scene whose SAR is said to be of that scale."""
    areas = [replace(a, strips=tuple(replace(s, scale=scale) for s in a.strips)) for a in scene.areas]
    return replace(scene, areas=tuple(areas))


@pytest.mark.parametrize(
    ("modality", "scale", "low", "high", "sound"),
    [
        ("sar", "amplitude", 0, 3, True),
        ("sar", "amplitude", -1, 3, False),
        ("sar", "intensity", -25, 5, False),
        ("sar", "decibel", -25, 5, True),
        ("sar", "decibel", 0, 9000, False),
        ("optical", "amplitude", 0, 1, True),
        ("optical", "amplitude", 0, 9000, False),
    ],
)
def test_values_that_a_scale_does_not_allow(tmp_path, monkeypatch, tiny_scene, modality, scale, low, high, sound):
    path = write_tiff(tmp_path / "a.tif", np.linspace(low, high, 900, dtype=np.float32).reshape(1, 30, 30))
    report = check_as(reads([File(path, modality, "a")], scene_of(scale, tiny_scene)), tmp_path, monkeypatch)
    assert (report.problems == ()) == sound
    if not sound:
        assert f"{path}: values lie in {low:g} to {high:g}, expected" in report.problems[0]


def test_mixed_types_and_complex_values(tmp_path, monkeypatch):
    flat = np.arange(900).reshape(1, 30, 30)
    paths = [write_tiff(tmp_path / f"{i}.tif", (flat + i).astype(np.uint16)) for i in range(3)]
    odd = write_tiff(tmp_path / "odd.tif", flat.astype(np.float32))
    slc = write_tiff(tmp_path / "slc.tif", (flat * 1j).astype(np.complex64))
    files = [File(p, "sar", p.stem) for p in (*paths, odd, slc)]
    report = check_as(reads(files), tmp_path, monkeypatch)
    assert of(report, odd).problem == "is float32, while 3 of 5 sar files are uint16"
    assert of(report, slc).problem == "is complex64, while 3 of 5 sar files are uint16"
    assert (of(report, slc).low, of(report, slc).high) == (0, 899)  # of the magnitude
    assert all(of(report, p).problem == "" for p in paths)
    assert of(report, slc).high == 899


# Leaks


def test_the_same_content_is_a_leak_across_splits_and_areas(tmp_path, monkeypatch):
    same = noise(32, 32)
    where = {"a": ("train", ""), "b": ("test", ""), "c": ("train", ""), "d": ("train", "city")}
    files = []
    for key, (split, area) in where.items():
        path = tmp_path / f"{key}.png"
        Image.fromarray(same).save(path)
        files.append(File(path, "sar", key, split, area))
    report = check_as(reads(files), tmp_path, monkeypatch)
    said = {p.split(":")[0]: p for p in report.problems}
    assert set(said) == {str(tmp_path / f"{k}.png") for k in "bcd"}
    assert "a leak between 'train' and 'test'" in said[str(tmp_path / "b.png")]
    assert "counted twice" in said[str(tmp_path / "c.png")]
    assert "a leak between two areas" in said[str(tmp_path / "d.png")]


def test_a_group_in_two_splits_is_a_leak(tmp_path, monkeypatch):
    files = []
    for i, (split, group) in enumerate([("train", "g"), ("test", "g"), ("train", "h"), ("train", "h"), ("test", "")]):
        path = tmp_path / f"{i}.png"
        Image.fromarray(noise(32, 32, seed=i)).save(path)
        files.append(File(path, "sar", str(i), split, "", group))
    report = check_as(reads(files), tmp_path, monkeypatch)
    (said,) = report.problems
    assert said.startswith(f"{tmp_path / '0.png'}: is in 'train', and {tmp_path / '1.png'} of its group 'g' in 'test'")


def test_one_picture_as_both_modalities(pairs):
    Image.fromarray(noise(96, 96)).save(pairs / "opt" / "000.png")
    shutil.copy(pairs / "opt" / "000.png", pairs / "sar" / "000.png")
    (said,) = check_data(pairs).problems
    assert said.startswith(f"{pairs / 'sar' / '000.png'}: has the same content as {pairs / 'opt' / '000.png'}")
    assert said.endswith("an optical and a SAR image cannot be the same")


def test_two_files_for_one_key(pairs):
    path = pairs / "opt" / "001.tif"
    Image.fromarray(noise(96, 96)).save(path)
    report = check_data(pairs)
    assert not report.usable
    what = f"is a second optical file for '001', beside {pairs / 'opt' / '001.png'}; the set cannot be loaded"
    assert f"{path}: {what}" in report.problems


def test_a_map_and_strips_of_other_names_need_no_partners(tmp_path, monkeypatch):
    files = []
    for i in range(4):
        path = tmp_path / f"{i}.png"
        Image.fromarray(noise(32, 32, seed=i)).save(path)
        files.append(File(path, "optical" if i < 2 else "sar", "map" if i < 2 else f"strip{i}"))
    assert check_as(reads(files, coordinates=True), tmp_path, monkeypatch).problems == ()


# The folder


def test_files_beside_and_links_that_lead_out(pairs, tmp_path):
    outside = tmp_path / "outside.png"
    (pairs / "sar" / "003.png").rename(outside)
    (pairs / "sar" / "003.png").symlink_to(outside)
    (pairs / "again.png").symlink_to(pairs / "opt" / "001.png")  # leads within
    (pairs / "README.TXT").touch()
    (pairs / "opt" / "004.webp").touch()
    report = check_data(pairs)
    assert report.usable
    (said,) = report.problems
    assert said.startswith(f"{pairs / 'sar' / '003.png'}: is a link to {outside}, outside of the folder")
    (note,) = (n for n in report.notes if n.startswith("beside"))
    assert all(part in note for part in ("1 .txt", "1 .webp", "1 .png"))


def test_no_folder_no_layout_and_the_parent_of_a_data_set(pairs, tmp_path):
    missing = check_data(tmp_path / "missing")
    assert "missing: neither a folder" in missing.problems[0]
    file = check_data(pairs / "opt" / "001.png")
    assert "001.png: neither a folder" in file.problems[0]
    parent = check_data(tmp_path)
    assert f"{tmp_path}: no known layout; found ['pairs']" in parent.problems[0]
    assert PAIRS.about in parent.problems[0]
    assert f"{tmp_path} holds 1 folders" in parent.notes
    assert f"{pairs} is recognised as pairs" in parent.notes
    (tmp_path / "empty" / "opt").mkdir(parents=True)
    (tmp_path / "empty" / "sar").mkdir()
    empty = check_data(tmp_path / "empty")
    assert empty.problems == (f"the set cannot be loaded: {tmp_path / 'empty'}: no image found",)
    for report in (missing, file, parent, empty):
        assert not report.usable and report.files.empty and report.summary.empty
        assert "usable   NO" in str(report) and report.problems[0].split("; ")[0] in str(report)


def test_a_broken_table_of_tiles_is_quoted(sentinel_folder, tmp_path):
    folder = shutil.copytree(sentinel_folder, tmp_path / "tiles")
    (folder / "tiles.json").write_text("[{")
    report = check_data(folder)
    assert not report.usable
    assert report.problems[0].startswith(f"the set cannot be loaded: {folder / 'tiles.json'}: not readable as JSON")
    assert report.notes == ("the folder holds 4 .jpg, 4 .png, 1 .json",)


def test_a_reader_that_fails_in_another_way_is_survived(pairs, monkeypatch):
    def broken(*_):
        raise KeyError("x")

    for reader in (PAIRS._replace(files=broken), PAIRS._replace(scene=broken)):
        report = check_as(reader, pairs, monkeypatch)
        assert not report.usable
        assert report.problems == ("the set cannot be loaded: KeyError: 'x'",)


def test_pages_name_everything_and_escape_it(pairs):
    bad = pairs / "opt" / "<b>.png"
    bad.write_text("no picture")
    report = check_data(pairs)
    page, table = str(report), report._repr_html_()
    for text in (page, table):
        text.encode("utf-8")
        assert "b&gt;.png: is not an image" in text or "<b>.png: is not an image" in text
        assert "optical" in text and "problems: 2" in text
    assert "<b>" in page and "<b>" not in table


def test_long_lists_are_cut_in_print_only(tmp_path):
    folder = fake_data.write_pairs(tmp_path, 40, 16)
    for path in (folder / "sar").iterdir():
        path.write_bytes(b"")
    report = check_data(folder)
    assert len(report.problems) == 41
    assert "and 11 more" in str(report) and str(report).count("is empty") < 35


# The command


def test_exit_codes(pairs, tmp_path):
    def run(folder):
        return CliRunner().invoke(app, ["check", str(folder)])

    answer = run(pairs)
    assert answer.exit_code == 0 and "problems: none" in answer.output
    (pairs / "sar" / "003.png").unlink()
    answer = run(pairs)
    assert answer.exit_code == 1 and "003.png: there is no SAR file" in answer.output
    (pairs / "sar" / "004.png").write_text("no picture")
    answer = run(pairs)
    assert answer.exit_code == 2 and "004.png: is not an image" in answer.output
    assert run(tmp_path / "missing").exit_code == 2


# Real data


@pytest.mark.real
@pytest.mark.parametrize(("name", "files"), [("sentinel", 100), ("gf3_pairs", 174)])
def test_real_folders_are_usable(real_data, name, files):
    report = check_data(real_data / name)
    assert report.usable and report.problems == ()
    assert len(report.files) == files
    assert (report.files["high"] > report.files["low"]).all()
    assert load_scene(real_data / name)
