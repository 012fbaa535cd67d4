"""Pixels of patches, pairs for training, and transforms that keep pairs together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sarmatch.patches import (
    PatchImages,
    ScenePixels,
    TrainingPairs,
    grey_map,
    grey_queries,
    overlap,
    pair_overlap,
    queries,
    read_patch,
    references,
    to_input,
)
from sarmatch.patches import training_regions as ground_to_train
from sarmatch.patches.transforms import Pairs, augment, dihedral
from sarmatch.scenes import Area, Raster, Scene


def test_intensity_is_averaged_before_the_logarithm():
    pixels = torch.tensor([[1.0, 1.0, 4.0, 8.0], [1.0, 1.0, 4.0, 4.0]] * 2).reshape(1, 1, 4, 4)
    expected = np.empty((2, 2))
    for row in range(2):
        for col in range(2):
            block = pixels[0, 0, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].numpy()
            expected[row, col] = 10 * np.log10(block.mean())
    assert to_input(pixels, "intensity", 2)[0, 0].numpy() == pytest.approx(expected, rel=1e-5)


def test_amplitude_is_twenty_decibels_a_decade_and_dark_pixels_stay_finite():
    levels = to_input(torch.tensor([[[[1.0, 0.1], [0.0, 1.0]]]]), "amplitude", 2)[0, 0]
    assert levels[0].tolist() == pytest.approx([0, -20])
    assert torch.isfinite(levels).all()


def test_images_are_the_windows_of_their_table(tiny_scene):
    asked = queries(tiny_scene, count=7, seed=1)
    images = PatchImages(tiny_scene, asked, 32)
    for i, query in enumerate(asked.itertuples()):
        strip = tiny_scene.area(query.area).strip(query.strip)
        window = strip.read(query.row, query.col, 32, 32)
        assert images[i].numpy() == pytest.approx(10 * np.log10(np.maximum(window, 1e-3)), abs=1e-4)
    batch = images.__getitems__(range(7))
    assert all(torch.equal(a, images[i]) for i, a in enumerate(batch))


@pytest.fixture(scope="module")
def pairs(tiny_scene):
    return TrainingPairs(tiny_scene, ground_to_train(tiny_scene, ("cross_area",), 64), 32, 32, 60, 0.33, seed=4)


def test_an_epoch_is_fixed_by_seed_and_number(tiny_scene, pairs):
    first = [pairs[i]["place"] for i in range(5)]
    pairs.draw(1)
    second = [pairs[i]["place"] for i in range(5)]
    pairs.draw(0)
    assert all(torch.equal(a, pairs[i]["place"]) for i, a in enumerate(first))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_references_lie_within_the_offset(pairs):
    step = pairs.query[["row", "col"]].to_numpy() - pairs.reference[["row", "col"]].to_numpy()
    assert np.abs(step).max() <= 0.33 * 32
    assert np.abs(step).max() > 4


def test_overlap_within_a_batch_agrees_with_loops(pairs):
    place = torch.stack([pairs[i]["place"] for i in range(20)])
    found = pair_overlap(place, 32)
    query, reference = pairs.query.iloc[:20], pairs.reference.iloc[:20]
    for i in range(20):
        for j in range(20):
            a, b = query.iloc[i], reference.iloc[j]
            expected = overlap(np.array([a.row, a.col]), np.array([b.row, b.col]), 32) if a.area == b.area else 0
            assert found[i, j].item() == pytest.approx(float(expected), abs=1e-6)
    assert found.diagonal().min() >= 0.67**2 - 1e-6


def test_shuffled_pairs_show_other_ground(tiny_scene):
    ground = ground_to_train(tiny_scene, ("cross_area",), 64)
    control = TrainingPairs(tiny_scene, ground, 32, 32, 200, 0.0, seed=0, shuffle_pairs=True)
    place = torch.stack([control[i]["place"] for i in range(200)])
    assert pair_overlap(place, 32).diagonal().mean() < 0.1


def test_geometry_moves_both_images_of_a_pair():
    image = torch.rand(64, 1, 8, 8)
    pairs = Pairs(image, image.repeat(1, 3, 1, 1), torch.zeros(64, 2))
    query, reference, _ = dihedral(pairs, torch.Generator().manual_seed(0))
    assert torch.equal(query.repeat(1, 3, 1, 1), reference)
    kinds = set()
    for before, after in zip(image, query, strict=True):
        turned = [before.rot90(k, (1, 2)) for k in range(4)]
        turned += [t.flip(2) for t in turned]
        kinds.add(next(i for i, t in enumerate(turned) if torch.equal(t, after)))
    assert kinds == set(range(8))


def test_augmentation_is_seeded_and_unknown_names_are_refused():
    pairs = Pairs(torch.rand(4, 1, 8, 8), torch.rand(4, 3, 8, 8), torch.zeros(4, 2))
    names = ("dihedral", "radiometry")
    first, again = (augment(pairs, names, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.query, pairs.query)
    with pytest.raises(ValueError, match="'mixup'"):
        augment(pairs, ("mixup",), torch.Generator())


def test_a_patch_with_holes_is_reported_by_its_place():
    sar = np.ones((1, 64, 64), np.float32)
    sar[0, 5, 5] = np.nan
    area = Area(
        "hole",
        Raster.from_array("map", np.ones((3, 64, 64), np.float32), "reflectance"),
        (Raster.from_array("s", sar, "intensity"),),
        ("train",),
    )
    scene = Scene("holes", (area,), 1.0, 32)
    patch = pd.DataFrame({"modality": ["sar"], "area": ["hole"], "strip": ["s"], "row": [0], "col": [0], "size": [32]})
    with pytest.raises(ValueError, match=r"'hole'.*row 0, column 0 has 1 values"):
        read_patch(scene, next(patch.itertuples(index=False)))


def test_no_query_is_cut_where_there_is_no_data():
    sar = np.ones((1, 128, 128), np.float32)
    sar[0, 5, 5] = np.nan
    area = Area(
        "hole",
        Raster.from_array("map", np.ones((3, 128, 128), np.float32), "reflectance"),
        (Raster.from_array("s", sar, "intensity"),),
        ("train",),
    )
    scene = Scene("holes", (area,), 1.0, 32)
    assert len(queries(scene, "aligned")) == 15  # of 16 on the grid
    drawn = queries(scene, "arbitrary", count=500)
    assert len(drawn) == 500
    assert all(np.isfinite(read_patch(scene, p)).all() for p in drawn.itertuples(index=False))
    assert ((drawn.row < 12) & (drawn.col > 16)).any()  # the rest of the strip is still used


def chart(pixels: np.ndarray) -> Scene:
    area = Area("a", Raster.from_array("map", pixels, "reflectance", row=64, col=-32), (), (), (700.0, 900.0))
    return Scene("chart", (area,), 0.5, 32)


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_a_grey_map_is_the_average_of_its_pixels(resolution):
    pixels = np.random.default_rng(0).random((3, 96, 128)).astype(np.float32)
    grey = grey_map(chart(pixels), "a", resolution, 32)
    step = 32 // resolution
    expected = pixels.mean(0).reshape(96 // step, step, 128 // step, step).mean((1, 3))
    np.testing.assert_allclose(grey.image, expected, atol=1e-6)
    assert grey.valid is None
    assert grey.metres == 0.5 * step
    assert grey.corner == (700 - 32 * 0.5, 900 - 64 * 0.5)
    # its pixels lie where the scene says
    for row, column in ((0, 0), (3.5, 7.25)):
        xy = chart(pixels).metres("a", np.array([64 + row * step]), np.array([-32 + column * step]))
        np.testing.assert_allclose(grey.pixel_of(xy), [[row, column]], atol=1e-9)


def test_a_grey_map_says_where_it_has_no_data():
    """Beyond a map that is no whole number of tiles, and in its holes, stands the mean of what is known."""
    pixels = np.random.default_rng(0).random((3, 80, 96)).astype(np.float32)
    pixels[1, 10:20, 30:40] = np.nan  # one band is enough
    grey = grey_map(chart(pixels), "a", 16, 32)
    known = np.zeros((48, 48), bool)
    known[:40] = True
    known[5:10, 15:20] = False
    np.testing.assert_array_equal(grey.valid, known)
    plain = pixels.mean(0).reshape(40, 2, 48, 2).mean((1, 3))
    np.testing.assert_allclose(grey.image[:40][known[:40]], plain[known[:40]], atol=1e-6)
    np.testing.assert_allclose(grey.image[~known], plain[known[:40]].mean(), rtol=1e-5)
    assert grey.image.dtype == np.float32


def test_pixels_of_a_scene_are_read_when_asked_for_and_kept(tiny_scene):
    asked = queries(tiny_scene, "arbitrary", count=3)
    pixels = ScenePixels(tiny_scene, asked, 32)
    torch.testing.assert_close(pixels.queries(16), grey_queries(tiny_scene, asked, 16))
    np.testing.assert_array_equal(pixels.map("two", 16).image, grey_map(tiny_scene, "two", 16, 32).image)
    assert pixels.map("two", 16) is pixels.map("two", 16)
    assert pixels.queries(16) is pixels.queries(16)


def test_the_modality_says_what_is_read_not_the_columns(tiny_scene):
    asked = queries(tiny_scene, "arbitrary", count=4)
    below = asked.assign(modality="optical")  # the map at the queries' places, columns and all
    for sar, optical in zip(asked.itertuples(), below.itertuples(), strict=True):
        area = tiny_scene.area(sar.area)
        window = (sar.row, sar.col, 32, 32)
        np.testing.assert_array_equal(read_patch(tiny_scene, sar), area.strip(sar.strip).read(*window))
        np.testing.assert_array_equal(read_patch(tiny_scene, optical), area.map.read(*window))
    tile = next(references(tiny_scene).assign(strip="of no meaning").itertuples())
    assert read_patch(tiny_scene, tile).shape == (3, 32, 32)


def test_windows_without_a_place_are_read_from_their_own_strip(tiny_scene):
    strip = Raster.from_array("lost", np.random.default_rng(0).random((1, 70, 40)).astype(np.float32), "intensity")
    scene = replace(tiny_scene, unplaced=(strip,))
    asked = queries(scene, "unplaced")
    for patch in asked.itertuples():
        np.testing.assert_array_equal(read_patch(scene, patch), strip.read(patch.row, patch.col, 32, 32))
    assert PatchImages(scene, asked, 16)[0].shape == (1, 16, 16)


def test_grey_queries_are_the_mean_of_bands_in_decibels(tiny_scene):
    asked = queries(tiny_scene, "arbitrary", count=3)
    images = torch.stack(list(PatchImages(tiny_scene, asked, 16)))
    torch.testing.assert_close(grey_queries(tiny_scene, asked, 16), images.mean(1))


def test_a_window_holds_its_query_anywhere_inside(tiny_scene):
    ground = ground_to_train(tiny_scene, ("cross_area",), 64)
    pairs = TrainingPairs(tiny_scene, ground, 32, None, 200, 0.0, seed=0, window=48)
    inside = pairs.query[["row", "col"]].to_numpy() - pairs.reference[["row", "col"]].to_numpy()
    assert inside.min() == 0 and inside.max() == 16
    item = pairs[3]
    assert item["query"].shape[-2:] == (32, 32) and item["reference"].shape == (3, 48, 48)
    assert item["offset"].tolist() == (8 - inside[3]).tolist(), "from middle to middle"
    place = torch.stack([pairs[i]["place"] for i in range(50)])
    share = pair_overlap(place, 32, 48)
    assert (share.diagonal() == 1).all() and ((share >= 0) & (share <= 1)).all()
    with pytest.raises(ValueError, match="window is 31 px.*32 px"):
        TrainingPairs(tiny_scene, ground, 32, None, 200, 0.0, seed=0, window=31)
