"""Simulated scenes: rendered once, when first read, and laid onto the map where they say they lie."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarmatch.datasets import load_scene
from sarmatch.patches import queries, read_patch
from sarmatch.simulation import simulate as rendering
from sarmatch.simulation.city import City, Grid
from sarmatch.simulation.optical import render_map
from sarmatch.simulation.sar import Acquisition, render_strip, strip_grid
from sarmatch.simulation.simulate import (
    EXTENT_PX,
    PIXEL_SIZE,
    PRESETS,
    RENDERERS,
    Pass,
    Town,
    acquisitions_of,
    affine_of,
    covered_blocks,
    footprint,
    geocode,
    map_grid,
    simulate,
    with_acquisition,
    with_other_towns,
)

LEFT, RIGHT, ALL = (0.0, 0.5), (0.5, 1.0), (0.0, 1.0)
TOWNS = (
    Town("here", 1, "mixed", (Pass("h1", "train", LEFT, 40.0), Pass("h2", "val", RIGHT, 45.0, 0.0, "left"))),
    Town("there", 2, "mixed", (Pass("t1", "test", ALL, 40.0, 30.0),)),
)
TWO = PRESETS["easy"]._replace(towns=TOWNS)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path))


def test_nothing_is_rendered_before_it_is_read_and_then_once(tmp_path, monkeypatch):
    scene = simulate("two", TWO, 256, test_areas=("there",))
    assert not list(tmp_path.iterdir())
    first = scene.area("here").map.read(0, 0, 64, 64)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("here-map-")
    again = simulate("two", TWO, 256, test_areas=("there",))
    monkeypatch.setattr("sarmatch.simulation.optical.render_map", None)
    assert np.array_equal(first, again.area("here").map.read(0, 0, 64, 64))


@pytest.mark.parametrize("change", [{"looks": 3.0}, {"offset_m": 4.0}, {"change": 0.1}, {"altitude_m": 9000.0}])
def test_the_name_on_disk_follows_the_parameters(tmp_path, change):
    simulate("two", TWO, 256).area("there").strips[0].read(100, 100, 8, 8)
    simulate("two", TWO._replace(**change), 256).area("there").strips[0].read(100, 100, 8, 8)
    assert len(list(tmp_path.iterdir())) == 2


def test_strips_lie_where_they_say():
    scene = simulate("two", TWO, 256)
    one, two = scene.area("here").strips
    assert (one.bounds, two.bounds) == ((0, 0, 256, 128), (0, 128, 256, 256))
    assert one.tiles[0].valid is None
    assert two.details == {"heading_deg": 0.0, "side": "left", "incidence_deg": 45.0}
    assert scene.area("here").origin != scene.area("there").origin
    assert two.read(0, 128, 256, 128).min() > 0


def test_a_turned_strip_has_data_where_it_says_and_nowhere_else():
    strip = simulate("two", TWO, 512).area("there").strips[0]
    row0, col0, row1, col1 = strip.bounds
    pixels = strip.tiles[0].read(slice(0, row1 - row0), slice(0, col1 - col0))[0]
    blocks = np.repeat(np.repeat(strip.tiles[0].valid, 8, 0), 8, 1)[: row1 - row0, : col1 - col0]
    assert 0.5 < blocks.mean() < 1
    assert np.isfinite(pixels[blocks]).all()
    assert not np.isfinite(pixels[~blocks]).all()


def test_queries_of_a_turned_strip_hold_data_only():
    scene = simulate("two", TWO._replace(towns=TOWNS[1:]), 1024)
    asked = queries(scene, "arbitrary", 100, count=40)
    assert all(np.isfinite(read_patch(scene, patch)).all() for patch in asked.itertuples(index=False))


@pytest.mark.parametrize("heading", [0.0, 30.0, 200.0])
def test_both_images_show_the_same_ground(heading):
    """Water is dark in SAR and bluish in the optical map, at the same place."""
    towns = (Town("river", 3, "mixed", (Pass("r", "test", ALL, 40.0, heading),)),)
    area = simulate("one", TWO._replace(towns=towns), 800).area("river")
    red, _, blue = area.map.read(0, 0, 800, 800)
    row0, col0, row1, col1 = area.strips[0].bounds
    with np.errstate(invalid="ignore", divide="ignore"):
        decibels = 10 * np.log10(area.strips[0].read(row0, col0, row1 - row0, col1 - col0)[0])
    water = ((blue > red * 1.2) & (red < 0.35))[row0:row1, col0:col1]
    known = np.isfinite(decibels)
    assert 0.02 < water.mean() < 0.7
    assert np.median(decibels[water & known]) < np.median(decibels[~water & known]) - 6
    moved = np.roll(water, 150, axis=1)  # the negative control: elsewhere it does not fit
    assert np.median(decibels[moved & ~water & known]) > np.median(decibels[water & known]) + 3


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 360), st.floats(-20, 20), st.floats(-20, 20), st.booleans())
def test_laying_a_strip_onto_the_map_keeps_positions(heading, east, north, left):
    """An image whose values are its own coordinates comes out as the coordinates of the map."""
    acquisition = Acquisition(
        100 + east, 100 + north, 150.0, 120.0, heading, "left" if left else "right", altitude_m=3000.0
    )
    strip, grid = strip_grid(acquisition, PIXEL_SIZE), map_grid(400)
    row0, row1, col0, col1 = footprint(strip, grid)
    window = grid.window(row0, col0, row1 - row0, col1 - col0)
    r, c = np.meshgrid(np.arange(strip.shape[0]) + 0.5, np.arange(strip.shape[1]) + 0.5, indexing="ij")
    image = np.stack(strip.xy(r, c)).astype(np.float32)
    found = geocode(image, strip, window)
    r, c = np.meshgrid(np.arange(window.shape[0]) + 0.5, np.arange(window.shape[1]) + 0.5, indexing="ij")
    expected = np.stack(window.xy(r, c))
    blocks = covered_blocks(strip, window)
    inside = np.ones(window.shape, bool)
    if blocks is not None:
        inside = blocks.repeat(8, 0).repeat(8, 1)[: window.shape[0], : window.shape[1]]
    assert inside.any()
    assert np.isfinite(found[:, inside]).all()
    edge = 2 * PIXEL_SIZE  # at the strip's rim there is nothing to interpolate with
    np.testing.assert_allclose(found[:, inside], expected[:, inside], atol=edge)
    assert np.abs(found[:, inside] - expected[:, inside]).mean() < 0.02


def test_grids_and_affines_say_the_same():
    grid = Grid(12.0, 34.0, (5, 7), 0.5, 33.0)
    assert affine_of(grid) @ (3.0, 2.0) == pytest.approx(np.array(grid.xy(2.0, 3.0)))


def test_a_wide_area_is_acquired_in_strips_that_overlap():
    acquisitions = acquisitions_of(TWO, Pass("w", "test", ALL, 45.0, 90.0), 8000)
    assert [name for name, _ in acquisitions] == ["w.1", "w.2", "w.3", "w.4"]
    south = [4000 - f.y for _, f in acquisitions]  # flying east, the right is south
    edges = [(s - f.swath_m / 2, s + f.swath_m / 2) for s, (_, f) in zip(south, acquisitions, strict=True)]
    assert edges[0][0] == pytest.approx(0)
    assert edges[-1][1] == pytest.approx(4000)
    for (_, end), (start, _) in zip(edges, edges[1:], strict=False):
        assert end - start == pytest.approx(100.0)


def test_errors_stay_within_what_the_preset_allows_and_differ_between_strips():
    preset = PRESETS["hard"]
    acquisitions = [f for town in preset.towns for p in town.passes for _, f in acquisitions_of(preset, p, 4000)]
    for acquisition in acquisitions:
        assert max(map(abs, acquisition.offset_m)) <= preset.offset_m
        assert abs(acquisition.heading_error_deg) <= preset.heading_error_deg
        assert abs(acquisition.gain_db) <= preset.gain_db
    assert len({f.offset_m for f in acquisitions}) == len(acquisitions)
    assert len({f.look_direction for f in acquisitions}) == 2
    easy = PRESETS["easy"]
    assert all(
        f.offset_m == (0, 0) and f.gain_db == 0
        for t in easy.towns
        for p in t.passes
        for _, f in acquisitions_of(easy, p, 4000)
    )


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_what_its_protocols_need(name):
    scene = load_scene(name)
    roles = {area.name: set(area.roles) for area in scene.areas}
    assert roles == {"north": {"train", "val", "test"}, "south": {"train"}, "unseen": {"test"}}
    assert scene.test_areas == ("unseen",)
    assert scene.simulated
    assert scene.area("unseen").map.bounds == (0, 0, 4000, 4000)
    assert scene.areas[0].strips[0].bands == ("HH",)
    full = load_scene(name, "full", ("HH", "HV"))
    assert full.area("unseen").map.bounds == (0, 0, 8000, 8000)
    assert full.areas[0].strips[0].bands == ("HH", "HV")


def test_presets_get_harder_in_every_respect():
    for name in ("change", "offset_m", "heading_error_deg", "lean_deg"):
        values = [getattr(PRESETS[p], name) for p in ("easy", "standard", "hard")]
        assert values == sorted(values)
        assert len(set(values)) == 3


def test_an_unknown_band_is_named():
    with pytest.raises(ValueError, match=r"no band is called \['RR'\]"):
        load_scene("easy", bands=("HH", "RR"))


@pytest.mark.parametrize(
    ("change", "field"),
    [({"looks": 1.0}, None), ({"incidence_shift": 4.0}, "incidence_deg"), ({"opposite_look": True}, "side")],
)
def test_other_acquisitions_over_the_same_towns(tmp_path, monkeypatch, change, field):
    monkeypatch.setitem(EXTENT_PX, "quick", 256)
    monkeypatch.setitem(PRESETS, "two", TWO._replace(towns=(TOWNS[0], TOWNS[1]._replace(name="unseen"))))
    scenes = [with_acquisition("two", "quick"), with_acquisition("two", "quick", **change)]
    maps, strips = (
        [getter(s).read(100, 100, 32, 32) for s in scenes]
        for getter in (lambda s: s.area("unseen").map, lambda s: s.area("unseen").strips[0])
    )
    assert np.array_equal(*maps)
    assert not np.array_equal(*strips)
    details = [[r.details for a in s.areas for r in a.strips] for s in scenes]
    for before, after in zip(*details, strict=True):
        assert {k for k in before if before[k] != after[k]} == ({field} if field else set())
    assert len([p for p in tmp_path.iterdir() if "map" in p.name]) == 1, "the photograph is rendered once for both"


def test_what_is_drawn_changes_only_with_the_version_of_the_renderers():
    """Images on disk are named by the version: where this fails on purpose, raise `RENDERERS` and renew the numbers."""
    city = City(seed=1, extent_m=400.0, change=0.3)
    photo = render_map(city, Grid(0.0, 400.0, (160, 160), 2.5), lean_deg=10.0, season="autumn")
    acquisition = Acquisition(200.0, 200.0, 400.0, 400.0, 30.0, altitude_m=3000.0)
    options = {"bands": ("HH", "HV"), "looks": 1.0, "texture_order": 4.0}
    strip = render_strip(city, acquisition, 2.5, seed=0, epoch=1, **options)
    assert RENDERERS == 1
    quarters = photo.reshape(3, 2, 80, 2, 80).mean((2, 4)).ravel()
    expected = (101.419, 98.411, 99.51, 107.589, 104.21, 100.809, 100.923, 104.692, 91.966, 88.571, 86.33, 90.478)
    np.testing.assert_allclose(quarters, expected, atol=0.02)
    decibels = 10 * np.log10(strip.reshape(2, 2, 80, 2, 80).mean((2, 4)).ravel())
    expected = (-11.2699, -9.0996, -10.3616, -10.7721, -18.6468, -16.4633, -16.9075, -18.1530)
    np.testing.assert_allclose(decibels, expected, atol=0.005)


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x93NUMPY"])
def test_a_damaged_rendering_is_named_and_made_anew(tmp_path, content):
    image = np.arange(12.0).reshape(1, 3, 4)
    job = rendering.Job("map", tmp_path / "map.npy", partial(np.copy, image))
    job.path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"map\.npy: damaged, and rendered anew"):
        np.testing.assert_array_equal(rendering._open.__wrapped__(job), image)
    np.testing.assert_array_equal(np.load(job.path), image)


def test_a_full_disk_keeps_no_rendering_from_being_read(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rendering, "write", full)
    image = np.arange(12.0).reshape(1, 3, 4)
    job = rendering.Job("map", tmp_path / "map.npy", partial(np.copy, image))
    with pytest.warns(UserWarning, match=r"map\.npy: the rendered image cannot be kept"):
        np.testing.assert_array_equal(rendering._open.__wrapped__(job), image)


def test_other_towns_are_other_ground_under_the_same_passes(monkeypatch):
    monkeypatch.setitem(PRESETS, "two", TWO)
    scenes = [simulate("two", preset, 256) for preset in (TWO, with_other_towns("two", 1), with_other_towns("two", 2))]
    for a, b, c in zip(*(scene.areas for scene in scenes), strict=True):
        read = [area.map.read(100, 100, 32, 32) for area in (a, b, c)]
        assert not np.array_equal(read[0], read[1]) and not np.array_equal(read[1], read[2])
        assert [s.details for s in a.strips] == [s.details for s in b.strips]
        assert not {s.name for s in a.strips} & {s.name for s in b.strips}, "errors are drawn by a strip's name"
    with pytest.raises(ValueError, match="seed is 0"):
        with_other_towns("two", 0)
