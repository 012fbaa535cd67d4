"""No training pixel on held-out ground or in its guard band; no held-out strip in training."""

import numpy as np
import pytest

from sarmatch.datasets import load_scene
from sarmatch.patches import TrainingPairs, guard_band, inside, queries, references, regions, training_regions
from tests import fake_data

SIZE = 32


@pytest.fixture(scope="module", params=["three areas", "one area", "tiles", "pairs"])
def scene(request, tiny_scene, sentinel_folder, pairs_folder):
    kinds = {
        "three areas": lambda: tiny_scene,
        "one area": lambda: fake_data.tiny_scene(size=640, test_areas=()),
        "tiles": lambda: load_scene(sentinel_folder),
        "pairs": lambda: load_scene(pairs_folder),
    }
    return kinds[request.param]()


def painted(scene, windows) -> dict[str, np.ndarray]:
    """Which pixels of each area some window covers."""
    masks = {area.name: np.zeros(area.map.bounds[2:], bool) for area in scene.areas}
    for w in windows.itertuples():
        masks[w.area][w.row : w.row + SIZE, w.col : w.col + SIZE] = True
    return masks


def trained(scene, protocols) -> tuple[dict[str, np.ndarray], set[tuple[str, str]]]:
    """Pixels that queries or jittered references of several epochs touch, and the strips they come from."""
    guard = guard_band(scene, SIZE)
    pairs = TrainingPairs(scene, training_regions(scene, protocols, guard), SIZE, 16, 400, 0.5, seed=0)
    masks, strips = {area.name: False for area in scene.areas}, set()
    for epoch in range(3):
        pairs.draw(epoch)
        for table in (pairs.query, pairs.reference):
            masks = {name: masks[name] | mask for name, mask in painted(scene, table).items()}
        strips |= set(zip(pairs.query.area, pairs.query.strip, strict=True))
    return masks, strips


@pytest.mark.parametrize("protocols", [("cross_area",), ("same_area", "cross_area")])
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_guard_band_lies_between_training_and_held_out_ground(scene, protocols, split):
    training, _ = trained(scene, protocols)
    held_out = painted(scene, queries(scene, "arbitrary", split=split, count=800))
    guard = guard_band(scene, SIZE)
    assert any(mask.any() for mask in held_out.values())
    for name, mask in held_out.items():
        rows, cols = np.nonzero(mask)
        if not len(rows):
            continue
        near = training[name][max(0, rows.min() - guard) : rows.max() + guard + 1, :]
        assert not near.any(), f"training pixels within {guard} px of {split} ground in {name}"


def test_the_test_above_can_fail(tiny_scene):
    guard = guard_band(tiny_scene, SIZE)
    pairs = TrainingPairs(tiny_scene, training_regions(tiny_scene, ("cross_area",), 0), SIZE, 16, 2000, 0.5, seed=0)
    training = painted(tiny_scene, pairs.reference)["one"]
    held_out = painted(tiny_scene, queries(tiny_scene, split="val", count=800))["one"]
    assert training[np.nonzero(held_out)[0].min() - guard :].any()


def test_held_out_strips_are_never_trained_on(tiny_scene):
    _, strips = trained(tiny_scene, ("same_area",))
    roles = {(a.name, s.name): role for a in tiny_scene.areas for s, role in zip(a.strips, a.roles, strict=True)}
    assert {roles[strip] for strip in strips} == {"train"}
    for split in ("val", "test"):
        asked = queries(tiny_scene, split=split, protocol="same_area", count=50)
        assert {roles[strip] for strip in zip(asked.area, asked.strip, strict=True)} == {split}


def test_several_protocols_train_on_what_all_allow(tiny_scene):
    both = training_regions(tiny_scene, ("same_area", "cross_area"), 64)
    for protocol in ("same_area", "cross_area"):
        alone = training_regions(tiny_scene, (protocol,), 64)
        windows = both.rename(columns={"row0": "row", "col0": "col"})
        assert inside(windows.assign(modality="sar"), alone, SIZE).all()
    assert "unseen" not in set(both.area)


def test_unseen_areas_are_for_the_test_alone(tiny_scene):
    table = regions(tiny_scene, "cross_area", 64)
    assert set(table[table.area == "unseen"].split) == {"test"}
    assert "test" not in set(table[table.area != "unseen"].split)


def test_the_whole_map_of_an_unseen_area_is_the_gallery(tiny_scene):
    tiles = references(tiny_scene)
    ground = regions(tiny_scene, "cross_area", 64).query("split == 'test'")
    assert inside(tiles, ground, SIZE).sum() == 100


@pytest.mark.parametrize("size", [48, 24])
def test_no_image_pair_is_both_trained_on_and_held_out(pairs_folder, size):
    scene = load_scene(pairs_folder)
    pairs = TrainingPairs(scene, training_regions(scene, ("cross_area",), 0), size, 16, 300, 0.5, seed=0)
    strips = {"train": set(pairs.query.strip)}
    for split in ("val", "test"):
        strips[split] = set(queries(scene, "arbitrary", size, split, count=300).strip)
    assert sum(map(len, strips.values())) == len(set.union(*strips.values())) == 10
    assert set(pairs.reference.area) == {"train"}
    map_of_training = scene.area("train").map  # the jittered reference stays in one image of it
    assert map_of_training.covers(pairs.reference.row, pairs.reference.col, size).all()
