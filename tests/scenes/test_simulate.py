"""Simulated scenes: rendered once, when first read, and kept under a name that follows from what shapes them."""

import numpy as np
import pytest

from sarmatch.scenes import load_scene
from sarmatch.scenes.simulate import Strip, Town, simulate

TOWNS = (
    Town("here", 1, (Strip("h1", "train", (0.0, 0.5), "east", 40.0), Strip("h2", "val", (0.5, 1.0), "west", 45.0))),
    Town("there", 2, (Strip("t1", "test", (0.0, 1.0), "north", 40.0),)),
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path))
    from sarmatch.scenes import simulate as module

    module._load.cache_clear()
    yield
    module._load.cache_clear()


def test_nothing_is_rendered_before_it_is_read_and_then_once(tmp_path, monkeypatch):
    scene = simulate("two", TOWNS, 256, ("there",))
    assert not list(tmp_path.iterdir())
    first = scene.area("here").map.read(0, 0, 64, 64)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("here-map-")
    monkeypatch.setattr("sarmatch.scenes.optical.render_map", None)
    again = simulate("two", TOWNS, 256, ("there",)).area("here").map.read(0, 0, 64, 64)
    assert np.array_equal(first, again)


def test_the_name_on_disk_follows_the_parameters(tmp_path):
    simulate("two", TOWNS, 256).area("there").strips[0].read(0, 0, 8, 8)
    steeper = (Town("there", 2, (Strip("t1", "test", (0.0, 1.0), "north", 35.0),)),)
    simulate("one", steeper, 256).area("there").strips[0].read(0, 0, 8, 8)
    assert len(list(tmp_path.iterdir())) == 2


def test_strips_lie_where_they_say():
    scene = simulate("two", TOWNS, 256)
    one, two = scene.area("here").strips
    assert (one.bounds, two.bounds) == ((0, 0, 256, 128), (0, 128, 256, 256))
    assert two.details == {"look": "west", "incidence_deg": 45.0}
    assert scene.area("here").origin != scene.area("there").origin
    assert two.read(0, 128, 256, 128).min() > 0


def test_both_images_show_the_same_ground():
    """Water is dark in SAR and bluish in the optical map, at the same place."""
    scene = simulate("two", (Town("river", 3, (Strip("r", "test", (0.0, 1.0), "east", 40.0),)),), 800)
    area = scene.area("river")
    red, _, blue = area.map.read(0, 0, 800, 800)
    decibels = 10 * np.log10(area.strips[0].read(0, 0, 800, 800)[0])
    water = (blue > red * 1.2) & (red < 0.35)
    assert 0.02 < water.mean() < 0.7
    assert np.median(decibels[water]) < np.median(decibels[~water]) - 6


def test_the_preset_has_what_its_protocols_need():
    scene = load_scene("towns")
    roles = {area.name: set(area.roles) for area in scene.areas}
    assert roles == {"north": {"train", "val", "test"}, "south": {"train"}, "unseen": {"test"}}
    assert scene.test_areas == ("unseen",)
    assert scene.simulated
    assert scene.area("unseen").map.bounds == (0, 0, 4000, 4000)
    assert load_scene("towns", "full").area("unseen").map.bounds == (0, 0, 8000, 8000)
