"""A strip on a map, from two files to a GeoJSON: places, poses, what is refused, and what is said."""

import json
import math
import os
import re

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

import sarmatch as sm
from sarmatch.cli import app
from sarmatch.datasets.mosaic import Warped
from sarmatch.datasets.rasters import BadImageError
from sarmatch.localization import geojson, save, table
from sarmatch.localization.fusion import Likelihood
from sarmatch.localization.location import LocationWarning, _map_for, calibration_of, finder, keep_calibration
from sarmatch.localization.outputs import warped
from sarmatch.paths import ROOT
from sarmatch.search.turned import Pose, turned
from tests.launch import launched

WEST, NORTH, UTM = 500_000.0, 5_700_000.0, "EPSG:32631"
AT = (180, 60)  # row and column of the strip's corner on the map
HIGH, WIDE = 288, 96

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def field(seed, shape=(640, 560)):
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def write(path, bands, pixel=1.0, crs=UTM, west=WEST, north=NORTH):
    about = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    place = {} if crs is None else {"crs": crs, "transform": Affine(pixel, 0, west, 0, -pixel, north)}
    with rasterio.open(path, "w", dtype=bands.dtype, **about, **place) as file:
        file.write(bands)
    return path


def power_of(ground, seed=9):
    """SAR of the ground: upside down in contrast, with a little speckle."""
    return (10 ** (-2 * ground) * np.random.default_rng(seed).gamma(20, 1 / 20, ground.shape)).astype(np.float32)[None]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A map, the strip that lies on it, and one of another town; maps are kept in a folder of their own."""
    folder = tmp_path_factory.mktemp("locate")
    ground, other = field(0), field(1)
    write(folder / "map.tif", np.repeat((255 * ground)[None], 3, 0).astype(np.uint8))
    part = np.s_[AT[0] : AT[0] + HIGH, AT[1] : AT[1] + WIDE]
    elsewhere = {"west": 510_000.0, "north": 5_720_000.0}  # what it claims is wrong by far
    write(folder / "strip.tif", power_of(ground[part]), **elsewhere)
    write(folder / "bare.tif", power_of(ground[part]), crs=None)
    write(folder / "stranger.tif", power_of(other[part]), **elsewhere)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SARMATCH_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def found(files):
    return sm.locate(files / "strip.tif", files / "map.tif", method="cfog", window=96)


def true_corners():
    row, col = AT
    return np.array([(c, -r) for r, c in ((row, col), (row, col + WIDE), (row + HIGH, col + WIDE), (row + HIGH, col))])


def test_the_strip_is_found_where_it_lies_to_less_than_a_cell(found):
    assert found.on_map and found.probability > 0.9
    np.testing.assert_allclose(found.fix.place, (AT[1] + WIDE / 2, -AT[0] - HIGH / 2), atol=2.0)
    np.testing.assert_allclose(found.footprint, true_corners(), atol=1.5)
    assert found.fix.ties.agrees.sum() >= 6 and found.fix.ties_rms < 2
    (lon,), (lat,) = warp_points(UTM, "EPSG:4326", [WEST + AT[1] + WIDE / 2], [NORTH - AT[0] - HIGH / 2])
    assert math.hypot((found.lonlat[0] - lon) * 70_000, (found.lonlat[1] - lat) * 111_000) < 2.5
    assert "longitude" in str(found) and "probability" in str(found)


def test_feature_maps_are_built_once(files, found, monkeypatch):
    monkeypatch.setattr("sarmatch.search.maps.encode_raster", lambda *a, **k: pytest.fail("built anew"))
    again = sm.locate(files / "strip.tif", files / "map.tif", method="cfog", window=96)
    np.testing.assert_allclose(again.fix.place, found.fix.place)


def test_an_untouched_map_is_not_read_again_and_a_changed_one_is(files, found, monkeypatch, tmp_path):
    chart, read, pixels = tmp_path / "map.tif", [], Warped.read

    def spied(self, rows, cols):
        read.append(self.source.path.name)
        return pixels(self, rows, cols)

    def located():
        read.clear()
        return sm.locate(files / "strip.tif", chart, method="cfog", window=96)

    monkeypatch.setattr(Warped, "read", spied)
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path / "cache"))
    chart.write_bytes((files / "map.tif").read_bytes())
    assert (located().fix.posterior.log_prob == found.fix.posterior.log_prob).all() and "map.tif" in read
    assert (located().fix.posterior.log_prob == found.fix.posterior.log_prob).all() and "map.tif" not in read
    os.utime(chart, (0, 0))  # the same pixels at another time: looked at again, and its features are found
    with monkeypatch.context() as patch:
        patch.setattr("sarmatch.search.maps.encode_raster", lambda *a, **k: pytest.fail("built anew"))
        assert located().on_map and "map.tif" in read
    write(chart, np.repeat((255 * field(1))[None], 3, 0).astype(np.uint8))
    assert not located().on_map and "map.tif" in read


def test_a_map_searched_part_by_part_gives_the_same_place(files, found, monkeypatch, tmp_path):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path))
    monkeypatch.setattr("sarmatch.localization.fix.SCORES", 3 * 70**2)
    monkeypatch.setattr("sarmatch.localization.fusion.BAND", 5000)
    monkeypatch.setattr("sarmatch.search.keeping.LARGE", 1000)  # and its features and scores put together on disk
    again = sm.locate(files / "strip.tif", files / "map.tif", method="cfog", window=96)
    np.testing.assert_allclose(again.fix.posterior.log_prob, found.fix.posterior.log_prob, atol=1e-3)
    np.testing.assert_allclose(again.fix.track, found.fix.track)
    np.testing.assert_allclose(again.footprint, found.footprint, atol=1e-3)
    assert [p.suffix for p in (tmp_path / "galleries").iterdir()] == [".safetensors"]


def test_a_strip_of_another_town_is_not_on_this_map(files, tmp_path):
    answer = sm.locate(files / "stranger.tif", files / "map.tif", method="cfog", window=96)
    assert not answer.on_map and answer.absent > 0.5 and "not on this map" in str(answer)
    (feature,) = geojson(answer)["features"]
    assert feature["geometry"] is None and feature["properties"]["on_map"] is False
    assert [p.suffix for p in save(answer, tmp_path / "fix.geojson")] == [".geojson", ".csv"]
    assert list(table(answer)["role"]) == ["not on this map"]


def test_a_turned_strip_without_a_place_of_its_own(files, tmp_path):
    """Its top points to the south-east: told the heading, the place is found, and told a wrong one it is not."""
    image = torch.from_numpy(field(0))[None, None]
    upright, inside = turned(image, Pose(-130.0, 1.0))
    power = power_of(upright[0, 0].numpy())
    middle = np.array(power.shape[1:]) // 2
    part = power[:, middle[0] - 150 : middle[0] + 150, middle[1] - 50 : middle[1] + 50]
    assert inside[middle[0] - 150 : middle[0] + 150, middle[1] - 50 : middle[1] + 50].all()
    write(tmp_path / "turned.tif", part, crs=None)
    asked = {"method": "cfog", "window": 96, "pixel_size": 1.0}
    right = sm.locate(tmp_path / "turned.tif", files / "map.tif", heading=130, **asked)
    assert right.on_map
    centre = np.stack(right.fix.affine @ (50.0, 150.0))
    np.testing.assert_allclose(centre, (280, -320), atol=3)
    assert sm.locate(tmp_path / "turned.tif", files / "map.tif", heading=40, **asked).probability < 0.5


@pytest.mark.slow
def test_heading_and_scale_are_found_where_they_are_not_known(files):
    asked = {"method": "cfog", "window": 96, "pixel_size": 0.95}
    answer = sm.locate(files / "bare.tif", files / "map.tif", heading="unknown", scale=(1.0, 1.1), **asked)
    assert answer.on_map and answer.fix.pose == Pose(0.0, 1.05)
    np.testing.assert_allclose(answer.footprint, true_corners(), atol=3)


def test_a_prior_position_speaks_and_one_beside_the_map_is_refused(files, found):
    asked = {"method": "cfog", "window": 96}
    near = sm.locate(files / "strip.tif", files / "map.tif", near=tuple(found.lonlat), radius=50.0, **asked)
    assert near.absent < found.absent
    with pytest.raises(ValueError, match="beside the map"):
        sm.locate(files / "strip.tif", files / "map.tif", near=(12.0, 50.0), radius=50.0, **asked)
    with pytest.raises(ValueError, match="radius is None"):
        sm.locate(files / "strip.tif", files / "map.tif", near=tuple(found.lonlat), **asked)


class TestOutputs:
    def test_geojson_is_of_rfc_7946(self, found):
        content = json.loads(json.dumps(geojson(found), allow_nan=False))
        assert content["type"] == "FeatureCollection" and "crs" not in content
        by_role = {f["properties"]["role"]: f for f in content["features"]}
        assert set(by_role) >= {"fix", "footprint", "track", "window", "search area", "tie point"}
        rings = [by_role["footprint"]["geometry"]["coordinates"]]
        rings += by_role["search area"]["geometry"]["coordinates"]
        for polygon in rings:
            for i, ring in enumerate(polygon):
                x, y = np.array(ring).T
                assert ring[0] == ring[-1] and len(ring) >= 4
                assert (np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0) == (i == 0), "right-hand rule"
                assert (np.abs(x - 3) < 0.02).all() and (np.abs(y - 51.45) < 0.02).all(), "longitude comes first"
        about = by_role["fix"]["properties"]
        assert about["on_map"] and 0.9 < about["probability"] <= 1 and about["method"] == "cfog"
        assert len(by_role["track"]["geometry"]["coordinates"]) == 3

    def test_files_are_written_whole_and_opened_by_others(self, found, tmp_path):
        files = save(found, tmp_path / "fix.geojson")
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in files)
        with rasterio.open(tmp_path / "fix.tif") as file:
            assert file.crs.to_epsg() == 32631 and file.transform.a == pytest.approx(1.0)
            pixels, place = file.read(1), file.transform
        row, col = round(NORTH - place.f), round(place.c - WEST)
        truth = power_of(field(0)[AT[0] : AT[0] + HIGH, AT[1] : AT[1] + WIDE])[0]
        inner = pixels[AT[0] - row + 4 :, AT[1] - col + 4 :][: HIGH - 8, : WIDE - 8]
        smooth = [gaussian_filter(np.log(a), 2) for a in (inner, truth[4:-4, 4:-4])]
        assert np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1] > 0.95
        listed = table(found)
        assert (listed["role"] == "window").sum() == 3 and listed["longitude"].between(2.9, 3.1).all()

    def test_tie_points_are_read_by_a_georeferencer(self, files, tmp_path):
        """A strip of twice the pixels: what is fitted to them takes its own pixels to where it truly lies."""
        power = power_of(field(0)[AT[0] : AT[0] + HIGH, AT[1] : AT[1] + WIDE])
        write(tmp_path / "fine.tif", power.repeat(2, 1).repeat(2, 2), pixel=0.5, crs=None)
        asked = {"method": "cfog", "window": 96, "pixel_size": 0.5}
        answer = sm.locate(tmp_path / "fine.tif", files / "map.tif", **asked)
        *_, path = save(answer, tmp_path / "fix.geojson")
        assert path.name == "fix.points"
        first, listed = path.read_text().splitlines()[0], pd.read_csv(path, skiprows=1)
        assert first.startswith("#CRS: ") and CRS.from_user_input(first.removeprefix("#CRS: ")).to_epsg() == 32631
        assert list(listed) == ["mapX", "mapY", "sourceX", "sourceY", "enable", "dX", "dY", "residual"]
        assert len(listed) == len(answer.fix.ties.score) and listed["enable"].sum() == answer.fix.ties.agrees.sum() >= 6
        good = listed[listed["enable"] == 1]
        pixels = np.column_stack([good["sourceX"], -good["sourceY"], np.ones(len(good))])
        fitted = np.linalg.lstsq(pixels, good[["mapX", "mapY"]], rcond=None)[0]
        corners = np.array([(0, 0, 1), (2 * WIDE, 0, 1), (2 * WIDE, 2 * HIGH, 1), (0, 2 * HIGH, 1)])
        np.testing.assert_allclose(corners @ fitted, answer.scene.to_crs(answer.footprint), atol=0.5)
        np.testing.assert_allclose(corners @ fitted, answer.scene.to_crs(true_corners()), atol=2)

    def test_the_command_line_does_the_same(self, files, tmp_path):
        out = tmp_path / "out" / "fix.geojson"
        asked = ["locate", str(files / "bare.tif"), str(files / "map.tif"), "--method", "cfog", "-o", str(out)]
        told = CliRunner().invoke(app, [*asked, "--pixel-size", "1"])
        assert told.exit_code == 0, told.output
        assert {p.name for p in out.parent.iterdir()} == {
            f"fix.{s}" for s in ("geojson", "csv", "tif", "points", "png")
        }
        refused = CliRunner().invoke(app, asked)
        assert refused.exit_code == 2 and "pixel_size" in refused.output
        asked[1] = str(files / "stranger.tif")
        assert CliRunner().invoke(app, asked).exit_code == 1

    @pytest.mark.slow
    def test_several_processes_search_together_and_the_main_one_answers(self, files, tmp_path):
        asked = [
            "locate",
            files / "strip.tif",
            files / "map.tif",
            "--method",
            "cfog",
            "-o",
            tmp_path / "out/fix.geojson",
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SARMATCH_CACHE", str(tmp_path / "cache"))
            told = launched(2, "-m", "sarmatch.cli", *asked)
        assert told.count("longitude") == 1 and len(told.splitlines()) == 6
        alone = [*map(str, asked[:-1]), str(tmp_path / "alone/fix.geojson")]
        assert CliRunner().invoke(app, alone).exit_code == 0
        for end in ("geojson", "csv", "tif", "points"):
            assert (tmp_path / f"out/fix.{end}").read_bytes() == (tmp_path / f"alone/fix.{end}").read_bytes()
        assert {p.name for p in (tmp_path / "out").iterdir()} == {
            f"fix.{s}" for s in ("geojson", "csv", "tif", "points", "png")
        }
        assert [p.suffix for p in (tmp_path / "cache/galleries").iterdir()] == [".safetensors"]

    def test_the_warped_strip_covers_its_footprint(self, found):
        pixels, place = warped(found)
        assert np.isfinite(pixels[0]).sum() == pytest.approx(HIGH * WIDE, rel=0.05)
        assert (place.c - WEST) % 1 == 0


class TestRefused:
    def test_a_strip_larger_than_the_map(self, files, tmp_path):
        write(tmp_path / "large.tif", power_of(field(3, (900, 700))))
        with pytest.raises(ValueError, match=r"large.tif: shows 700 x 900 m, more than the map map.tif"):
            sm.locate(tmp_path / "large.tif", files / "map.tif", method="cfog")

    def test_a_map_of_one_tile(self, files, tmp_path):
        write(tmp_path / "tile.tif", np.repeat((255 * field(0, (320, 110)))[None], 3, 0).astype(np.uint8))
        with pytest.raises(ValueError, match="hardly more than one window"):
            sm.locate(files / "strip.tif", tmp_path / "tile.tif", method="cfog")

    def test_wrong_units(self, files, tmp_path):
        place = {"crs": "EPSG:4326", "pixel": 1.0, "west": 3.0, "north": 51.0}  # metres, said to be degrees
        write(tmp_path / "degrees.tif", power_of(field(0, (60, 80))), **place)
        with pytest.raises(ValueError, match="degrees.tif"):
            sm.locate(tmp_path / "degrees.tif", files / "map.tif", method="cfog")
        write(tmp_path / "nowhere.tif", np.repeat((255 * field(0))[None], 3, 0).astype(np.uint8), crs=None)
        with pytest.raises(BadImageError, match=r"nowhere.tif: has no coordinate reference system"):
            sm.locate(files / "strip.tif", tmp_path / "nowhere.tif", method="cfog")

    def test_corrupt_and_missing_files(self, files, tmp_path):
        half = tmp_path / "half.tif"
        half.write_bytes((files / "strip.tif").read_bytes()[:5000])
        for strip, chart in ((half, files / "map.tif"), (files / "strip.tif", half), (tmp_path / "no.tif", half)):
            with pytest.raises(ValueError, match=r"half.tif|no.tif"):
                sm.locate(strip, chart, method="cfog", pixel_size=1.0)

    def test_weights_of_another_recipe(self, files):
        with pytest.raises(ValueError, match=r"strip.tif: is 19. x 57. px at the map's 0.5 m, expected 200 px or more"):
            sm.locate(files / "strip.tif", files / "map.tif", ROOT / "data/demo")
        with pytest.raises(
            ValueError, match=r"map.tif: its pixels are 2.0\d* m and the encoder has learned from 0.5 m"
        ):
            write(files / "coarse.map.tif", np.repeat((255 * field(0))[None], 3, 0).astype(np.uint8), pixel=2.0)
            sm.locate(files / "strip.tif", files / "coarse.map.tif")

    def test_a_map_at_twice_the_pixels_of_the_encoder_is_taken(self, files):
        """A metre in UTM is 1.0004 on the ground here, which is no reason to refuse it."""
        scene = _map_for(files / "map.tif", finder(), {})
        assert scene.pixel_size == 0.5 and scene.areas[0].map.bounds[2] == pytest.approx(1280, abs=3)

    def test_what_was_given_is_not_replaced(self, files, tmp_path):
        for path in ("strip.tif", "map.tif"):
            (tmp_path / path).write_bytes((files / path).read_bytes())
        for name in ("strip", "map"):
            asked = ["locate", str(tmp_path / "strip.tif"), str(tmp_path / "map.tif"), "--method", "cfog"]
            told = CliRunner().invoke(app, [*asked, "-o", str(tmp_path / f"{name}.geojson")])
            assert told.exit_code == 2 and f"{name}.tif" in told.output
        assert {p.name for p in tmp_path.iterdir()} == {"strip.tif", "map.tif"}

    def test_a_calibration_is_kept_with_its_commit(self, tmp_path):
        models, path = {"cfog": Likelihood(spread=3.0), "dense": Likelihood()}, tmp_path / "calibration.json"
        commits = {"cfog": "abc", "dense": "def"}
        keep_calibration(models, commits, path)
        assert {name: calibration_of(name, path) for name in models} == models
        assert {name: fields["commit"] for name, fields in json.loads(path.read_text()).items()} == commits

    def test_a_calibration_that_is_none(self, tmp_path):
        (tmp_path / "calibration.json").write_text('{"cfog": {"temperature": -1}}')
        with pytest.raises(ValueError, match="calibration.json: not usable as a likelihood .temperature"):
            calibration_of("cfog", tmp_path / "calibration.json")

    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ({"method": "cfog", "window": -1}, "window must be a whole number of at least 32"),
            ({"method": "cfog", "scale": []}, "scale is"),
            ({"method": "cfog", "pixel_size": "1"}, "pixel_size is '1'"),
            ({"method": "cfog", "radius": 50.0}, "radius is 50.0 and near is None"),
            ({"method": "cfog", "radius": 50.0, "near": "9,45"}, "near is '9,45'"),
            ({"method": "hog"}, "method is 'hog'"),
            ({"method": "cfog", "run": "data/dense"}, "expected one of the two"),
            ({"method": "cfog", "heading": "north"}, "heading is 'north'"),
            ({"method": "cfog", "scale": (2.0, 1.0)}, "scale is"),
            ({"method": "cfog", "pixel_size": -1.0}, "pixel_size is -1"),
        ],
    )
    def test_options_that_do_not_fit(self, files, option, said):
        with pytest.raises(ValueError, match=said):
            sm.locate(files / "strip.tif", files / "map.tif", **option)


def test_water_is_warned_of(files, tmp_path):
    calm = power_of(field(0)[AT[0] : AT[0] + HIGH, AT[1] : AT[1] + WIDE])
    calm[:, :96] = 0.01 * np.random.default_rng(1).gamma(20, 1 / 20, (96, 96))
    write(tmp_path / "shore.tif", calm)
    with pytest.warns(UserWarning, match="1 of 3 windows show next to nothing: water"):
        answer = sm.locate(tmp_path / "shore.tif", files / "map.tif", method="cfog", window=96)
    assert answer.on_map and not answer.fix.agrees[0]


def test_an_ambiguous_map_is_warned_of(tmp_path):
    twice = np.hstack([field(0, (640, 280))] * 2)
    write(tmp_path / "map.tif", np.repeat((255 * twice)[None], 3, 0).astype(np.uint8))
    write(tmp_path / "strip.tif", power_of(twice[150 : 150 + HIGH, 90 : 90 + WIDE]), crs=None)
    with pytest.warns(LocationWarning, match="the map is ambiguous: 1 other places"):
        answer = sm.locate(tmp_path / "strip.tif", tmp_path / "map.tif", method="cfog", window=96, pixel_size=1.0)
    assert answer.probability < 0.6
    np.testing.assert_allclose(np.abs(answer.fix.runners_up[0, :2] - answer.fix.place), (280, 0), atol=2)


def test_bright_edges_are_warned_of(files, tmp_path):
    """As the walls of tall buildings are: every fourth line is 20 dB brighter."""
    bright = power_of(field(0)[AT[0] : AT[0] + HIGH, AT[1] : AT[1] + WIDE])
    bright[:, ::4] *= 100
    write(tmp_path / "bright.tif", bright)
    with pytest.warns(LocationWarning, match="tall buildings"):
        sm.locate(tmp_path / "bright.tif", files / "map.tif", method="cfog", window=96)


def test_the_shipped_run_is_found_without_a_word():
    wanted = finder()
    assert (wanted.name, wanted.pixel_size, wanted.window) == ("dense", 0.5, 200)


@pytest.mark.slow
def test_the_example_is_found_where_it_says_it_was_taken(tmp_path):
    told = CliRunner().invoke(app, ["example", str(tmp_path)]).stdout.splitlines()
    with rasterio.open(tmp_path / "strip.tif") as file:
        assert file.crs is None, "the strip says where it lies"
    answer = CliRunner().invoke(app, told[-1].split()[1:])
    assert answer.exit_code == 0
    assert (tmp_path / "fix.png").is_file()
    true, found = (
        np.array(re.findall(r"(?:longitude|latitude) ([\d.]+)", text)[:2], float) for text in (told[0], answer.stdout)
    )
    metres = np.radians(found - true) * 6_371_000.0 * (math.cos(math.radians(true[1])), 1)
    assert np.hypot(*metres) < 5
