"""Public georeferenced sets from tiny fakes of their layouts: right ground, right splits, right bands."""

import numpy as np
import pytest

from sarmatch.datasets import load_scene
from sarmatch.datasets.registry import reader_of
from sarmatch.patches import check_data, protocols_of, queries, search_task
from sarmatch.patches.check import CANNOT_LOAD, CANNOT_RUN
from tests import fake_mosaics as fake

LAYOUTS = {
    "spacenet6": fake.write_spacenet6,
    "spacenet6 strips": fake.write_spacenet6_strips,
    "sen12ms": fake.write_sen12ms,
    "bright": fake.write_bright,
    "dfc2023": fake.write_dfc2023,
    "dfc2023 by name": lambda folder: fake.write_dfc2023(folder, georeferenced=False),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    return request.param, LAYOUTS[request.param](tmp_path)


def test_the_layout_is_recognised_and_clean(layout):
    name, folder = layout
    assert reader_of(folder).name == name.split()[0]
    report = check_data(folder)
    assert not any(p.startswith(CANNOT_LOAD) for p in report.problems)
    assert report.usable or report.problems[0].startswith(CANNOT_RUN)  # these towns are smaller than a patch


def test_both_images_show_the_same_ground(layout):
    """Brightness of map and strip follow one field, so they are correlated at the same place and not elsewhere."""
    _, folder = layout
    scene = load_scene(folder)
    same, moved = [], []
    for area in scene.areas:
        for strip in area.strips:
            for tile in strip.tiles:
                side = min(tile.height, tile.width, 48)
                row, col = tile.row + (tile.height - side) // 2, tile.col + (tile.width - side) // 2
                if not (strip.covers(np.array([row]), np.array([col]), side)[0]):
                    continue
                radar = strip.read(row, col, side, side)[0]
                radar = radar if strip.scale == "decibel" else np.log10(radar)
                if area.map.covers(np.array([row]), np.array([col]), side)[0]:
                    chart = area.map.read(row, col, side, side)[0]
                    same.append(np.corrcoef(radar.ravel(), chart.ravel())[0, 1])
                    moved.append(np.corrcoef(np.roll(radar, side // 2, 0).ravel(), chart.ravel())[0, 1])
    assert len(same) >= 2
    assert min(same) > 0.85
    assert np.mean(moved) < 0.6


def test_queries_and_splits_work(layout):
    _, folder = layout
    scene = load_scene(folder)
    assert scene.has_coordinates
    assert "cross_area" in protocols_of(scene) or len(scene.areas) < 3
    asked = queries(scene, "arbitrary", 24, count=20)
    assert len(asked) == 20
    assert {"x", "y"} <= set(asked)
    if scene.test_areas:
        asked, tiles = search_task(scene, "arbitrary", 24, "test", protocol="cross_area", count=10)
        assert set(asked.area) <= set(scene.test_areas)
        assert (asked.positive < len(tiles)).all()


def test_spacenet6_knows_strips_sides_and_bands(tmp_path):
    scene = load_scene(fake.write_spacenet6(tmp_path))
    (area,) = scene.areas
    assert len(area.strips) == 3
    assert area.strips[0].bands == ("HH", "HV", "VH", "VV")
    assert [s.details["look"] for s in area.strips] == ["north", "south", "north"]
    assert scene.pixel_size == pytest.approx(0.5, rel=1e-3)
    assert "incidence_deg" not in area.strips[0].details  # not said in the tiles, and not invented
    assert not area.strips[0].covers(np.array([0]), np.array([0]), 24)[0]  # black corners hold no data
    powers = area.strips[0].read(20, 20, 8, 8).mean((1, 2))
    np.testing.assert_allclose(powers[:-1] / powers[1:], 2, rtol=1e-3)
    one = load_scene(tmp_path, bands=("VV",))
    np.testing.assert_allclose(one.areas[0].strips[0].read(20, 20, 8, 8).mean(), powers[3], rtol=1e-5)


def test_spacenet6_reads_the_incidence_from_the_image_description(tmp_path):
    scene = load_scene(fake.write_spacenet6_strips(tmp_path))
    assert [s.details["incidence_deg"] for s in scene.areas[0].strips] == [34.5, 36.0]
    assert scene.areas[0].strips[0].scale == "amplitude"


@pytest.mark.parametrize("line", ["20190804111224_20190804111453 2", "one two three", "20190804111224_20190804111453"])
def test_a_wrong_line_of_orientations_is_named(tmp_path, line):
    fake.write_spacenet6(tmp_path)
    path = next(tmp_path.rglob("SAR_orientations.txt"))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=rf"SAR_orientations\.txt, line 4: is '{line}'"):
        load_scene(tmp_path)


def test_sen12ms_puts_scenes_together_again(tmp_path):
    scene = load_scene(fake.write_sen12ms(tmp_path, scenes=3))
    assert [a.name for a in scene.areas] == [f"ROIs1158_spring_{i}" for i in (1, 2, 3)]
    assert scene.test_areas == ("ROIs1158_spring_3",)
    assert scene.pixel_size == pytest.approx(10, rel=1e-3)
    for area in scene.areas:
        assert area.map.bounds == area.strips[0].bounds == (0, 0, 96, 96)
        assert area.map.covers(np.array([0]), np.array([0]), 96)[0]
    assert scene.areas[0].strips[0].bands == ("VV", "VH")
    assert scene.areas[0].strips[0].scale == "decibel"


def test_sen12ms_follows_the_official_list(tmp_path):
    fake.write_sen12ms(tmp_path, scenes=3)
    (tmp_path / "test_list.txt").write_text("ROIs1158_spring_s1_1_p30.tif\nROIs1158_spring_s1_1_p31.tif\n")
    assert load_scene(tmp_path).test_areas == ("ROIs1158_spring_1",)
    (tmp_path / "test_list.txt").write_text("some_image.tif\n")
    with pytest.raises(ValueError, match=r"test_list\.txt, entry 1: 'some_image\.tif'"):
        load_scene(tmp_path)


def test_bright_tests_on_an_event_never_seen(tmp_path):
    scene = load_scene(fake.write_bright(tmp_path))
    assert scene.test_areas == ("haiti-earthquake",)
    (tmp_path / "pre-event" / "haiti-earthquake_00000000_pre_disaster.tif").unlink()
    (tmp_path / "pre-event" / "haiti-earthquake_00000001_pre_disaster.tif").unlink()
    assert [a.name for a in load_scene(tmp_path).areas] == ["bata-explosion"]  # its optical images were not fetched


def test_dfc2023_cities_are_areas(tmp_path):
    scene = load_scene(fake.write_dfc2023(tmp_path, georeferenced=False))
    assert {a.name for a in scene.areas} == {"Berlin", "Brasilia"}
    assert scene.test_areas == ("Brasilia",)
    assert scene.crs is None  # two zones of UTM
    assert scene.pixel_size == pytest.approx(0.5, rel=0.005)


def test_a_name_beyond_the_earth_is_refused(tmp_path):
    fake.write_dfc2023(tmp_path, georeferenced=False)
    path = next(tmp_path.rglob("rgb/*Berlin*.tif"))
    path.rename(path.with_name("GF2_Berlin_95.0_13.4.tif"))
    with pytest.raises(ValueError, match=r"latitude 95\.0"):
        load_scene(tmp_path)
