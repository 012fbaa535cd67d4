"""Hard negatives of dense search: false peaks mined over the whole training ground, and what the loss makes of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sarmatch.encoders import create_encoder
from sarmatch.experiments import sweeps
from sarmatch.patches import PatchImages
from sarmatch.search import DenseSearch, build_maps
from sarmatch.training import data
from sarmatch.training.checkpoints import HISTORY
from sarmatch.training.config import Config
from sarmatch.training.dense import DenseLearner, draw_pairs, false_windows, training_pairs
from sarmatch.training.loop import train
from sarmatch.training.step import augmented
from tests import fake_data

SIZE, WINDOW = 32, 48
OPTIONS = {"width": 8, "channels": 8, "dilations": (1,), "coarse": 2}


def config(**changes) -> Config:
    fields = {
        "search": "dense",
        "encoder": "dense",
        "encoder_options": OPTIONS,
        "loss": "shift_cross_entropy",
        "pairs_per_epoch": 24,
        "batch_size": 8,
        "mined": 10,
    }
    return Config(**fields | changes)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return create_encoder("dense", **OPTIONS).eval()


def drawn(scene, encoder, epoch=1, **changes):
    pairs = training_pairs(config(**changes), scene, SIZE, encoder)
    pairs.draw(epoch)
    return pairs


def surfaces(pairs, encoder, count):
    """Scores of queries at every shift of the training ground of each area, and rows and columns of its top left."""
    boxes = {n: r[["row0", "col0", "row1", "col1"]].iloc[0] for n, r in pairs.rectangles.groupby("area", sort=False)}
    search = DenseSearch(build_maps(encoder, pairs.scene, {n: tuple(map(int, b)) for n, b in boxes.items()}), encoder)
    images = torch.stack(list(PatchImages(pairs.scene, pairs.query.iloc[:count], None)))
    scores = [s.numpy() for s in search.surfaces(search.encode([images]))]
    return dict(zip(boxes, zip(scores, boxes.values(), strict=True), strict=True)), search


def shown(truth, corner, side=WINDOW):
    """Fraction of a square of `SIZE` px that a window shows, along both axes."""
    return np.prod([max(0, min(t + SIZE, c + side) - max(t, c)) / SIZE for t, c in zip(truth, corner, strict=True)])


def highest_false_peak(areas, number, truth, reach, cell):
    """A plain loop over all shifts of all areas, best first: score, area and corner of the window."""
    places = [
        (scores[number, i, j], name, i, j)
        for name, (scores, _) in areas.items()
        for i, j in np.ndindex(scores.shape[1:])
    ]
    for score, name, i, j in sorted(places, key=lambda p: -p[0]):
        scores, (row0, col0, row1, col1) = areas[name]
        around = scores[number, max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
        if score < around.max():
            continue
        corner = [
            int(np.clip(low + k * cell - (WINDOW - SIZE) / 2, low, high - WINDOW))
            for k, low, high in ((i, row0, row1), (j, col0, col1))
        ]
        if name != truth.area or shown((truth.row, truth.col), corner) < 0.5:
            return score, name, corner
    return None


def test_mined_places_are_the_highest_peaks_that_do_not_show_the_truth(tiny_scene, encoder):
    pairs = drawn(tiny_scene, encoder)
    found = false_windows(pairs, encoder, 10)
    assert list(found.index) == list(range(10))
    areas, search = surfaces(pairs, encoder, 10)
    for number, peak in enumerate(found.itertuples()):
        truth = pairs.query.iloc[number]
        score, area, corner = highest_false_peak(areas, number, truth, search.radius, encoder.stride)
        assert peak.score == pytest.approx(score, abs=1e-4)
        assert peak.area == area
        np.testing.assert_allclose((peak.row, peak.col), corner, atol=2)  # a parabola moves it within the cell


def test_the_truth_is_never_among_them_although_it_is_the_highest_peak(tiny_scene, encoder):
    pairs = drawn(tiny_scene, encoder)
    found = false_windows(pairs, encoder, 24)
    areas, _ = surfaces(pairs, encoder, 24)
    best = {name: scores.reshape(len(scores), -1).max(1) for name, (scores, _) in areas.items()}
    assert (np.max(list(best.values()), 0) > found["score"] + 0.01).mean() > 0.5  # else this would be an easy test
    for peak, truth in zip(found.itertuples(), pairs.query.itertuples(), strict=True):
        if peak.area == truth.area:
            assert shown((truth.row, truth.col), (peak.row, peak.col)) < 0.5
        box = pairs.rectangles[pairs.rectangles["area"] == peak.area].iloc[0]
        assert box.row0 <= peak.row <= box.row1 - WINDOW
        assert box.col0 <= peak.col <= box.col1 - WINDOW


def test_in_the_control_the_truth_is_what_its_labels_say(tiny_scene, encoder):
    """Else the place that is never a negative would give away where a query lies."""
    pairs = drawn(tiny_scene, encoder, control="shuffled_pairs")
    assert not (pairs.truth[["row", "col"]].to_numpy() == pairs.query[["row", "col"]].to_numpy()).all(1).any()
    found = false_windows(pairs, encoder, 24)
    at_own = [
        peak.area == own.area and shown((own.row, own.col), (peak.row, peak.col)) == 1
        for peak, own in zip(found.itertuples(), pairs.query.itertuples(), strict=True)
    ]
    assert np.mean(at_own) > 0.5


def test_without_the_control_the_labels_say_where_a_query_lies(tiny_scene, encoder):
    pairs = drawn(tiny_scene, encoder)
    columns = ["area", "row", "col"]
    assert (pairs.truth[columns].to_numpy() == pairs.query[columns].to_numpy()).all()


def test_windows_join_from_the_second_epoch_on_and_every_pair_gets_one(tiny_scene, encoder):
    pairs = training_pairs(config(), tiny_scene, SIZE, encoder)
    draw_pairs(config(), pairs, encoder, 0)
    assert "mined" not in pairs[0]
    draw_pairs(config(), pairs, encoder, 1)
    found = false_windows(pairs, encoder, 10)
    batch = torch.utils.data.default_collate(pairs.__getitems__(range(24)))
    corners = found[["row", "col"]].to_numpy()
    np.testing.assert_array_equal(batch["mined_place"][:, 2:4], corners[np.arange(24) % 10])
    np.testing.assert_array_equal(batch["mined_place"][:, :2], pairs.query[["row", "col"]])
    peak = found.iloc[3]
    pixels = tiny_scene.area(peak.area).map.read(int(peak.row), int(peak.col), WINDOW, WINDOW)
    np.testing.assert_array_equal(batch["mined"][13], pixels)
    draw_pairs(config(), pairs, encoder, 0)
    assert "mined" not in pairs[0]


def test_the_loss_sees_them_where_they_show_no_query_of_the_batch(tiny_scene, encoder):
    pairs = drawn(tiny_scene, encoder)
    pairs.join(false_windows(pairs, encoder, 24))
    batch = torch.utils.data.default_collate(pairs.__getitems__(range(8)))
    batch["mined_place"][3, 2:4] = batch["place"][5, :2] - 8  # the fourth window shows the sixth query
    batch["mined_place"][3, 5] = batch["mined_place"][5, 4]
    learner = DenseLearner(encoder, config(), SIZE).eval()
    seen = []

    class Looks(nn.Module):
        def forward(self, given):
            seen.append(given)
            return given.scores.sum()

    names = ("query", "reference", "offset", "place", "sample")
    plain = [learner(*(batch[n] for n in names))[0], learner(*(batch[n] for n in (*names, "mined", "mined_place")))[0]]
    assert plain[1] > plain[0]  # more to tell it from
    learner.losses = nn.ModuleList([Looks() for _ in encoder.levels])
    learner(*(batch[n] for n in (*names, "mined", "mined_place")))
    for given in seen:
        assert given.scores.shape[:2] == given.allowed.shape == (8, 16)
        assert given.allowed.diagonal(8)[[0, 1, 2, 4, 5, 6, 7]].all()
        assert not given.allowed[5, 11]
        assert given.negatives(1.5)[2, 10].all()
    seen[0].scores[0, 8].max().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.parameters())


@pytest.mark.parametrize("arm", sweeps.DENSE_TRIED)
def test_every_method_of_the_sweep_learns_in_the_loop(tiny_scene, tmp_path, monkeypatch, arm):
    """Every field of the recipe but for what makes it large; towns are rendered too large for a test."""
    method = sweeps.SWEEPS["dense_losses"].arms("")[arm]
    small = {"scene": "tiny", "protocols": ("cross_area",), "encoder_options": OPTIONS, "epochs": 2, "batch_size": 6}
    small |= {"pairs_per_epoch": 12, "mined": min(method.mined, 6), "val_queries": 10, "window": 2.0}
    monkeypatch.setattr(data, "other_towns", lambda config, epoch: fake_data.tiny_scene(seed=1 + epoch))
    train(Config(**method.model_dump() | small), tiny_scene, tmp_path, report=lambda history: None)
    assert np.isfinite(pd.read_csv(tmp_path / HISTORY)["loss"]).all()


def test_they_are_augmented_by_the_same_chance_as_the_pair_itself():
    torch.manual_seed(0)
    batch = {"query": torch.randn(6, 1, 16, 16), "reference": torch.rand(6, 3, 24, 24), "offset": torch.rand(6, 2)}
    names = ("dihedral", "radiometry", "respeckle", "crop")
    plain = augmented(batch, names, torch.Generator().manual_seed(1))
    more = augmented(batch | {"mined": batch["reference"]}, names, torch.Generator().manual_seed(1))
    assert torch.equal(more["mined"], more["reference"])
    assert not torch.equal(more["mined"], batch["reference"])
    for name in batch:
        assert torch.equal(plain[name], more[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": "vector"}, "mined is 10, and search 'vector'"),
        ({"mined": 25}, "mined is 25, more than pairs_per_epoch = 24"),
        ({"mined": -1}, "mined is -1"),
    ],
)
def test_what_cannot_be_mined_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        config(**change)


def test_ground_that_holds_no_false_window_is_said(encoder):
    pairs = drawn(fake_data.tiny_scene(160), encoder, window=1.5)
    pairs.rectangles = pairs.rectangles.iloc[:1].assign(row0=0, row1=50, col0=0, col1=50)
    pairs.draw(1)
    with pytest.raises(ValueError, match=r"mined: the training ground .* holds no window of 48 px"):
        false_windows(pairs, encoder, 5)
