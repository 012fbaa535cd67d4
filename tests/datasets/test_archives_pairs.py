"""Sets of pairs without coordinates, and SN6-CMPC, from tiny fakes of their layouts."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio import Affine

from sarmatch.datasets import load_scene
from sarmatch.datasets.archives import pattern
from sarmatch.datasets.pairs import FRACTIONS, paired_folders, split_groups
from sarmatch.datasets.registry import reader_of
from sarmatch.patches import TrainingPairs, check_data, references, search_task, training_regions
from sarmatch.scenes import NoCoordinatesError
from tests import fake_archives as fake
from tests import fake_data, fake_mosaics

LAYOUTS = {
    "osdataset": fake.write_osdataset,
    "qxs": fake.write_qxs,
    "sen12": fake.write_sen12,
    "sen12 by cover": lambda folder: fake.write_sen12(folder, by_cover=True),
    "sar2opt": fake.write_sar2opt,
}


def keys(scene) -> dict[str, list[str]]:
    return {a.name: sorted(s.name for s in a.strips) for a in scene.areas}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    return request.param.split()[0], LAYOUTS[request.param](tmp_path)


def test_the_layout_is_recognised_clean_and_without_metres(layout):
    name, folder = layout
    assert reader_of(folder).name == name
    assert check_data(folder).usable
    scene = load_scene(folder)
    assert {a.name for a in scene.areas} == {"train", "val", "test"}
    with pytest.raises(NoCoordinatesError, match="metres cannot"):
        scene.metres("train", 0, 0)
    assert "x" not in references(scene)


def test_both_images_of_a_pair_lie_at_one_place_and_are_drawn_together(layout):
    _, folder = layout
    scene = load_scene(folder)
    files = reader_of(folder).files(folder).set_index(["modality", "key"])["path"]
    for area in scene.areas:
        for strip in area.strips:
            (tile,) = strip.tiles
            expected = fake.Image.open(files["optical", strip.name]).convert("RGB")
            found = area.map.read(tile.row, tile.col, tile.height, tile.width) * 255
            np.testing.assert_allclose(found, np.asarray(expected).transpose(2, 0, 1), atol=1e-3)
    asked, tiles = search_task(scene, "arbitrary", None, "test", protocol="cross_area", count=10)
    assert set(asked.area) == set(tiles.area) == {"test"}
    pairs = TrainingPairs(scene, training_regions(scene, ("cross_area",), 0), scene.patch_size, 16, 8, 0.3, seed=0)
    assert set(pairs.query.area) == {"train"}


def test_official_splits_are_kept(tmp_path):
    counts = {k: len(v) for k, v in keys(load_scene(fake.write_osdataset(tmp_path))).items()}
    assert counts == {"train": 6, "val": 2, "test": 3}


def test_validation_is_taken_from_training_where_there_is_none(tmp_path):
    counts = {k: len(v) for k, v in keys(load_scene(fake.write_sar2opt(tmp_path))).items()}
    assert counts["test"] == 4
    assert counts["val"] >= 1
    assert counts["train"] + counts["val"] == 10


def test_neighbouring_crops_of_qxs_never_face_each_other_across_a_split(tmp_path):
    found = keys(load_scene(fake.write_qxs(tmp_path)))
    everything = sorted(int(k) for part in found.values() for k in part)
    assert everything == [1, 2, 474, 475, 501, 1001, 1002]  # the ends of blocks are left out
    blocks = {name: {(int(k) - 1) // 500 for k in part} for name, part in found.items()}
    assert not blocks["train"] & blocks["val"] | blocks["train"] & blocks["test"] | blocks["val"] & blocks["test"]


def test_scenes_of_sen12_stay_whole_and_its_grey_is_decibels(tmp_path):
    scene = load_scene(fake.write_sen12(tmp_path))
    scenes = {name: {k.rsplit("_", 1)[0] for k in part} for name, part in keys(scene).items()}
    assert sum(map(len, scenes.values())) == len(set.union(*scenes.values())) == 5
    strip = scene.areas[0].strips[0]
    assert (strip.scale, strip.window, strip.bands) == ("decibel", (0.0, 1.0), ("VV",))


@given(st.lists(st.integers(1, 5), min_size=3, max_size=30))
def test_no_group_stands_in_two_splits(sizes):
    group = pd.Series([f"g{i:03d}" for i, n in enumerate(sizes) for _ in range(n)])
    group.index = [f"k{i:04d}" for i in range(len(group))]
    split = split_groups(group)
    assert split.index.equals(group.index)
    assert (split.groupby(group).nunique() == 1).all()
    assert set(split) == set(FRACTIONS)
    order = split.groupby(group).first().map({"train": 0, "val": 1, "test": 2})
    assert order.is_monotonic_increasing  # blocks: neighbours stay together
    counts = order.value_counts(normalize=True)
    assert abs(counts[0] - FRACTIONS["train"]) < 0.5 / len(sizes) + 1 / 3


def test_a_pattern_reads_any_folders(tmp_path):
    for scene in range(4):
        for n in range(3):
            fake.pair(tmp_path / "rgb" / f"{scene}_{n}.jpg", tmp_path / "deep" / "radar" / f"{scene}_{n}.jpg", n)
    description = {
        "name": "mine",
        "optical": r"rgb/(?P<scene>\d+)_(?P<n>\d+)\.jpg",
        "sar": r"deep/radar/(?P<scene>\d+)_(?P<n>\d+)\.jpg",
        "group_by": ["scene"],
        "sar_scale": "intensity",
        "patch_size": 16,
    }
    (tmp_path / "sarmatch.json").write_text(json.dumps(description))
    scene = load_scene(tmp_path)
    assert (scene.name, scene.patch_size, scene.areas[0].strips[0].scale) == ("mine", 16, "intensity")
    groups = {name: {k.split("_")[0] for k in part} for name, part in keys(scene).items()}
    assert sum(map(len, groups.values())) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not usable"),
        ('{"optical": "(", "sar": "b(?P<n>x)"}', "no regular expression"),
        ('{"optical": "a", "sar": "b"}', "no named group"),
        ('{"optical": "a(?P<n>x)", "sar": "b(?P<n>x)", "colour": 1}', "colour"),
    ],
)
def test_a_wrong_pattern_is_named(tmp_path, content, said):
    (tmp_path / "sarmatch.json").write_text(content)
    with pytest.raises(ValueError, match=rf"(?s)sarmatch\.json.*{said}"):
        load_scene(tmp_path)


def test_a_reader_of_ones_own_is_one_call(tmp_path):
    fake.pair(tmp_path / "a" / "1.png", tmp_path / "b" / "1.png", 1)
    reader = paired_folders("mine", "my pairs", r"a/(?P<n>\d+)\.png", r"b/(?P<n>\d+)\.png")
    assert reader.recognises(tmp_path)
    assert not reader.recognises(tmp_path / "a")
    assert list(reader.files(tmp_path)["key"]) == ["1", "1"]


# --------------------------------------------------------------------------------------------------------- SN6-CMPC
def test_cmpc_has_the_positions_of_its_annotations(tmp_path):
    scene = load_scene(fake.write_cmpc(tmp_path))
    assert scene.test_areas == ("test",)
    tiles = references(scene)
    assert len(tiles) == 18
    test = scene.area("test")
    assert np.allclose(np.diff(np.unique(tiles[tiles.area == "test"].x)), 100)
    asked, _ = search_task(scene, "arbitrary", 200, "test", protocol="cross_area", count=50)
    assert asked.groupby("strip").size().index.tolist() == sorted(s.name for s in test.strips)
    # 60 m east and south of a tile's centre: the next tile in both directions holds 0.6 x 0.6 of it
    assert asked.overlap.to_numpy() == pytest.approx(0.36)
    assert all(len(s) == 3 for s in asked.semi)


def test_cmpc_on_one_ground_is_a_same_area_set(tmp_path):
    scene = load_scene(fake.write_cmpc(tmp_path, apart=False))
    (area,) = scene.areas
    assert set(area.roles) == {"train", "val", "test"}
    asked, tiles = search_task(scene, "arbitrary", 200, "test", protocol="same_area", count=8)
    assert set(asked.strip) == {f"test_q{n}" for n in range(4)}


def edit(folder: Path, name: str, **changes) -> Path:
    path = next(folder.rglob(name))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_cmpc_labels_that_contradict_the_positions_are_reported(tmp_path):
    fake.write_cmpc(tmp_path)
    edit(tmp_path / "test", "q0.json", near_id=["8", "7"])
    with pytest.warns(UserWarning, match="near_id of 1 of 8 queries"):
        load_scene(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pos": {"x": "east", "y": 0}}, r"q0\.json: expected JSON with id"),
        ({"pos": {"x": float("nan"), "y": 0}}, r"q0\.json: expected JSON with id"),
        ({"file_path": "../../../etc/x.png"}, r"q0\.json: file_path .* leads outside"),
        ({"file_path": "imgs/sar/none.png"}, r"q0\.json: there is no image"),
        ({"id": "q1"}, r"id 'q1' is also that of"),
        ({"near_id": ["99"]}, "near_id names '99'"),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path, changes, said):
    fake.write_cmpc(tmp_path)
    edit(tmp_path / "test", "q0.json", **changes)
    with pytest.raises(ValueError, match=said):
        load_scene(tmp_path)


# What people write
SLOW = r"opt/(?P<n>([0-9]+)+)x[.]png"


def described(folder, **changes):
    """Pairs with a `sarmatch.json`."""
    fake_data.write_pairs(folder)
    options = {"optical": r"opt/(?P<n>\d+)[.]png", "sar": r"sar/(?P<n>\d+)[.]png"} | changes
    (folder / "sarmatch.json").write_text(json.dumps(options))
    return folder


def test_an_expression_that_tries_too_many_ways_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(pattern, "PATIENCE", 1)
    folder = described(tmp_path, optical=SLOW)
    (folder / "opt" / ("1" * 60 + "y.png")).touch()
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"sarmatch\.json: optical is .* which takes more than 1 s on the names of 21"):
        load_scene(folder)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"group_by": ["town"]}, "'town' is in one of them only"),
        ({"sar": r"sar/(?P<m>\d+)[.]png"}, "'m' is in one of them only|'n' is in one of them only"),
        ({"optical": r"(?P<split>opt)/(?P<n>\d+)[.]png", "sar": r"(?P<split>sar)/(?P<n>\d+)[.]png"}, "split is 'opt'"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_description_that_pairs_nothing_rightly_is_refused(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said) as error:
        load_scene(described(tmp_path, **changes))
    assert "pydantic" not in str(error.value)


def test_groups_pair_by_name_and_not_by_order(tmp_path):
    """In the two names town and number stand in turn, so that by order 1_2 would meet 2_1."""
    rng = np.random.default_rng(0)
    for i in range(1, 4):
        for k in range(1, 4):
            fake_data.save_image(tmp_path / "opt" / f"{i}_{k}.png", fake_data._as_bytes(fake_data.smooth(rng, 48)))
            fake_data.save_image(tmp_path / "sar" / f"{k}_{i}.png", fake_data._as_bytes(fake_data.smooth(rng, 48)))
    options = {"optical": r"opt/(?P<a>\d)_(?P<b>\d)[.]png", "sar": r"sar/(?P<b>\d)_(?P<a>\d)[.]png"}
    (tmp_path / "sarmatch.json").write_text(json.dumps(options))
    files = reader_of(tmp_path).files(tmp_path).set_index(["modality", "key"])["path"]
    assert files["optical", "1_2"].name == "1_2.png" and files["sar", "1_2"].name == "2_1.png"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"", b'{"optical": "a", "optical": "b"}', b"\xff"])
def test_a_description_that_is_no_json_is_named(tmp_path, content):
    folder = described(tmp_path)
    (folder / "sarmatch.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"sarmatch\.json: "):
        load_scene(folder)


def test_a_pipe_in_place_of_the_description_is_named(tmp_path):
    folder = described(tmp_path)
    (folder / "sarmatch.json").unlink()
    os.mkfifo(folder / "sarmatch.json")
    with pytest.raises(ValueError, match=r"sarmatch\.json: is not a file"):
        load_scene(folder)


def test_pairs_are_called_as_their_folder(tmp_path):
    fake_data.write_pairs(tmp_path / "mine")
    assert load_scene(tmp_path / "mine").name == "mine"
    assert load_scene(described(tmp_path / "yours")).name == "yours"


def test_complex_pairs_are_read_as_their_magnitude(tmp_path):
    folder = fake_data.write_pairs(tmp_path)
    values = np.random.default_rng(0).random((1, 96, 96)) * np.exp(1j * np.arange(96))
    for side in ("opt", "sar"):
        (folder / side / "002.png").unlink()
        fake_mosaics.write_tiff(folder / side / "002.tif", values.astype(np.complex64), Affine.identity(), None)
    with pytest.raises(ValueError, match=r"opt/002\.tif: holds complex values, expected an optical image"):
        load_scene(folder)
    (folder / "opt" / "002.tif").unlink()
    fake_data.save_image(folder / "opt" / "002.png", np.full((96, 96), np.arange(96), np.uint8))
    with pytest.warns(UserWarning, match=r"sar/002\.tif: holds complex values; their magnitude is read, as amplitude"):
        scene = load_scene(folder)
    strip = next(s for a in scene.areas for s in a.strips if s.name == "002")
    tile = strip.tiles[0]
    np.testing.assert_allclose(strip.read(tile.row, tile.col, 96, 96), np.abs(values), atol=1e-6)
