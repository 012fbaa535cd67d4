"""Patch tables against brute force over all tiles."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sarmatch.patches import match, overlap, positions, queries, references, search_task
from sarmatch.scenes import Area, Raster, Scene


@pytest.fixture(scope="module")
def tiles(tiny_scene):
    return references(tiny_scene)


def test_the_grid_is_seamless_and_whole(tiny_scene, tiles):
    for area in tiny_scene.areas:
        own = tiles[tiles.area == area.name]
        covered = np.zeros(area.map.bounds[2:], int)
        for tile in own.itertuples():
            covered[tile.row : tile.row + 32, tile.col : tile.col + 32] += 1
        assert (covered == 1).all()


def test_stride_sets_the_step(tiny_scene):
    dense = references(tiny_scene, stride=16)
    assert np.unique(np.diff(np.unique(dense.row))).tolist() == [16]
    assert len(dense) == 3 * 19**2


def test_positions_are_centres_in_metres_of_the_scene(tiny_scene, tiles):
    tile = tiles[tiles.area == "two"].iloc[13]
    x0, y0 = tiny_scene.area("two").origin
    assert tile.x == pytest.approx(x0 + (tile.col + 16) * 0.5)
    assert tile.y == pytest.approx(y0 - (tile.row + 16) * 0.5)


@pytest.mark.parametrize("stride", [32, 16])
def test_positive_and_semi_positives_agree_with_brute_force(tiny_scene, stride):
    tiles = references(tiny_scene, stride=stride)
    asked = match(queries(tiny_scene, "arbitrary", count=60, seed=3), tiles, tiny_scene, stride)
    corners = tiles[["row", "col"]].to_numpy()
    for query in asked.itertuples():
        share = overlap(corners, np.array([query.row, query.col]), 32) * (tiles.area == query.area).to_numpy()
        assert share[query.positive] == share.max() == pytest.approx(query.overlap)
        others = set(np.flatnonzero(share)) - {query.positive}
        assert set(query.semi) == others
        assert list(query.semi_overlap) == pytest.approx([share[i] for i in query.semi])


def test_aligned_queries_are_tiles(tiny_scene, tiles):
    asked = match(queries(tiny_scene, "aligned"), tiles, tiny_scene)
    assert (asked.overlap == 1).all()
    assert asked.semi.map(len).eq(0).all()
    own = tiles.loc[asked.positive].reset_index(drop=True)
    assert (own[["row", "col", "x", "y"]] == asked[["row", "col", "x", "y"]]).all(axis=None)
    # every strip is half of its area: 5 of 10 columns of tiles, 10 rows
    assert asked.groupby(["area", "strip"]).size().eq(50).all()


@pytest.mark.parametrize("kind", ["aligned", "arbitrary"])
def test_no_query_leaves_its_strip(tiny_scene, kind):
    for query in queries(tiny_scene, kind, count=300).itertuples():
        row0, col0, row1, col1 = tiny_scene.area(query.area).strip(query.strip).bounds
        assert row0 <= query.row
        assert col0 <= query.col
        assert query.row + 32 <= row1
        assert query.col + 32 <= col1


def test_the_seed_decides(tiny_scene):
    first, again, other = (queries(tiny_scene, count=50, seed=seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first[["row", "col"]].equals(other[["row", "col"]])


def test_offsets_are_uniform_over_the_cell(tiny_scene, tiles):
    asked = match(queries(tiny_scene, count=4000, seed=0), tiles, tiny_scene)
    assert len(asked) == 4000
    for name in ("row", "col"):
        offsets = np.bincount(asked[name] % 32, minlength=32)
        assert offsets.min() > 0.5 * offsets.mean()
    assert asked.overlap.mean() == pytest.approx(0.5625, abs=0.03)


def test_a_window_over_the_grids_edge_is_dropped(tiny_scene, tiles):
    inner = tiles[(tiles.area == "one") & (tiles.row >= 64)]
    asked = queries(tiny_scene, "arbitrary", count=400)[["modality", "area", "strip", "row", "col", "size"]]
    asked = asked[asked.area == "one"]
    kept = match(asked, inner.reset_index(drop=True), tiny_scene)
    assert kept.overlap.min() >= 0.25
    assert kept.row.min() >= 64 - 0.75 * 32
    assert len(kept) < len(asked)


def test_a_task_numbers_its_own_gallery(tiny_scene):
    asked, gallery = search_task(tiny_scene, "arbitrary", None, "val", protocol="cross_area", count=80)
    whole = references(tiny_scene)
    assert len(gallery) < len(whole)
    share = overlap(asked[["row", "col"]].to_numpy(), gallery[["row", "col"]].to_numpy()[asked.positive], 32)
    assert share == pytest.approx(asked.overlap)
    assert (gallery.area.to_numpy()[asked.positive] == asked.area).all()
    for query in asked.itertuples():
        corners = gallery[["row", "col"]].to_numpy()[list(query.semi)]
        assert overlap(corners, np.array([query.row, query.col]), 32) == pytest.approx(query.semi_overlap)


def test_a_set_without_coordinates_has_none(pairs_folder):
    from sarmatch.datasets import load_scene

    tiles = references(load_scene(pairs_folder))
    assert positions(tiles) is None
    assert "x" not in tiles


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda scene: references(scene, 400), "400 x 400 px"),
        (lambda scene: references(scene, 4), "patch size must be a whole number of at least 8, got 4"),
        (lambda scene: queries(scene, "slanted"), "slanted"),
        (lambda scene: queries(scene, split="exam"), "exam"),
        (lambda scene: queries(scene, protocol="by_hand", split="val"), "by_hand"),
        (lambda scene: queries(scene, "arbitrary", 170), "170 x 170 px"),
    ],
)
def test_impossible_requests_are_named(tiny_scene, call, said):
    with pytest.raises(ValueError, match=said):
        call(tiny_scene)


@pytest.mark.parametrize("kind", ["aligned", "arbitrary"])
def test_a_strip_beside_its_map_has_no_query(kind):
    chart = Raster.from_array("map", np.ones((3, 64, 64), np.float32), "reflectance")
    strip = Raster.from_array("s", np.ones((1, 64, 64), np.float32), "intensity", row=100)
    scene = Scene("apart", (Area("a", chart, (strip,), ("train",)),), 1.0, 32)
    ground = pd.DataFrame({"area": ["a"], "strip": "s", "row0": 0, "col0": 0, "row1": 200, "col1": 64})
    with pytest.raises(ValueError, match=f"'apart': no {kind} query of 32 x 32 px"):
        search_task(scene, kind, None, ground, protocol="cross_area")
    if kind == "aligned":  # cut on the map's own grid
        with pytest.raises(ValueError, match="'apart': no aligned query of 32 x 32 px"):
            queries(scene, kind)
    else:
        assert match(queries(scene, kind), references(scene), scene).empty


def test_an_area_whose_map_holds_no_tile_has_no_query(tiny_scene):
    small = Raster.from_array("map", np.ones((3, 20, 64), np.float32), "reflectance")
    strip = Raster.from_array("s", np.ones((1, 64, 64), np.float32), "intensity")
    narrow, one = Area("narrow", small, (strip,), ("train",)), tiny_scene.areas[0]
    mixed = Scene("mixed", (narrow, one), 1.0, 32)
    asked = queries(mixed, count=200)
    assert set(match(asked, references(mixed), mixed).area) == {"one"}
    assert match(asked[asked.area == "narrow"], references(mixed), mixed).empty
    bare = Scene("mixed", (narrow, Area("bare", one.map, (), ())), 1.0, 32)
    ground = pd.DataFrame({"area": ["narrow"], "strip": "s", "row0": 0, "col0": 0, "row1": 64, "col1": 64})
    with pytest.raises(ValueError, match="'mixed': no arbitrary query of 32 x 32 px"):
        search_task(bare, "arbitrary", None, ground, protocol="cross_area")


def test_windows_have_a_modality_and_no_labels_until_they_are_matched(tiny_scene, tiles):
    asked = queries(tiny_scene, count=20)
    assert set(asked["modality"]) == {"sar"}
    assert set(tiles["modality"]) == {"optical"}
    labels = {"positive", "overlap", "semi", "semi_overlap"}
    assert not labels & set(asked)
    assert labels <= set(match(asked, tiles, tiny_scene))


@pytest.fixture(scope="module")
def lost(tiny_scene):
    """The tiny scene with two strips whose place nobody knows, one with a corner of nodata."""
    rng = np.random.default_rng(0)
    first, second = (rng.random((1, 100, width)).astype(np.float32) for width in (70, 40))
    second[0, 0, 0] = np.nan
    strips = (Raster.from_array("x", first, "intensity", row=7), Raster.from_array("y", second, "intensity"))
    return replace(tiny_scene, unplaced=strips)


def test_windows_of_a_strip_without_a_place(lost, tiles):
    asked = queries(lost, "unplaced")
    expected = [("x", r, c) for r in (7, 39, 71) for c in (0, 32) if r + 32 <= 107 and c + 32 <= 70]
    expected += [("y", r, 0) for r in (32, 64)]  # the first is on nodata
    assert list(asked[["strip", "row", "col"]].itertuples(index=False, name=None)) == expected
    assert set(asked["area"]) == {""}
    assert set(asked["size"]) == {32}
    assert set(asked["modality"]) == {"sar"}
    assert not {"x", "y"} & set(asked)
    assert positions(asked) is None
    assert len(queries(lost, "unplaced", stride=16)) > 2 * len(asked)
    with pytest.raises(ValueError, match=f"{len(asked)} windows have no known place"):
        match(asked, tiles, lost)
    assert "" not in set(queries(lost, "arbitrary", count=50)["area"])


def test_without_such_strips_or_within_a_split_there_is_no_such_window(tiny_scene, lost):
    for scene, split in ((tiny_scene, None), (lost, "test")):
        with pytest.raises(ValueError, match="'tiny': no unplaced query of 32 x 32 px"):
            queries(scene, "unplaced", split=split)


def test_strips_without_a_place_need_names_that_differ(lost):
    with pytest.raises(ValueError, match="names that differ"):
        replace(lost, unplaced=(lost.unplaced[0],) * 2)
    with pytest.raises(ValueError, match="'z'.*'x', 'y'"):
        lost.strip("", "z")


def test_a_task_builds_the_grid_once(tiny_scene, monkeypatch):
    from sarmatch.patches import tables

    built, build = [], tables.references
    monkeypatch.setattr(tables, "references", lambda *a, **o: built.append(a) or build(*a, **o))
    tables.search_task(tiny_scene, "arbitrary", None, "test", protocol="cross_area", count=20)
    assert len(built) == 1


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("protocol", ["cross_area", "same_area"])
@pytest.mark.parametrize("stride", [None, 16])
def test_labels_of_a_task_are_those_of_brute_force(tiny_scene, split, protocol, stride):
    asked, gallery = search_task(tiny_scene, "arbitrary", None, split, protocol=protocol, stride=stride, count=60)
    corners = gallery[["row", "col"]].to_numpy()
    for query in asked.itertuples():
        share = overlap(corners, np.array([query.row, query.col]), 32) * (gallery.area == query.area).to_numpy()
        assert share[query.positive] == share.max() == pytest.approx(query.overlap)
        assert set(query.semi) == set(np.flatnonzero(share)) - {query.positive}
        assert list(query.semi_overlap) == pytest.approx([share[i] for i in query.semi])
        assert query.overlap >= (1 - (stride or 32) / 64) ** 2 - 1e-9
