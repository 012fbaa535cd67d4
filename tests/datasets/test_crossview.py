"""Cross-view sets: labels, metres and splits from tiny fakes of their layouts."""

from pathlib import Path

import numpy as np
import pytest

import sarmatch as sm
from sarmatch.datasets.crossview import ViewImages, load_crossview
from sarmatch.scenes.mercator import EARTH_M, pixel_size
from tests import fake_archives as fake


@pytest.fixture
def vigor(tmp_path):
    return fake.write_vigor(tmp_path)


def metres(places: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Latitude and longitude to metres about an origin, small angles."""
    north, east = np.radians(places - origin).T * EARTH_M
    return np.stack([east * np.cos(np.radians(origin[0])), north], axis=1)


def test_true_resolution_differs_from_city_to_city():
    """0.114 m everywhere, as the published code has it, is wrong by up to 13 %."""
    expected = {"NewYork": 0.1132, "Seattle": 0.1007, "SanFrancisco": 0.1180, "Chicago": 0.1111}
    for city, value in expected.items():
        assert pixel_size(fake.CITIES[city][0]) == pytest.approx(value, abs=2e-4)


@pytest.mark.parametrize("split", ["train", "test"])
def test_vigor_places_panoramas_by_their_offsets(vigor, split):
    folder, truth = vigor
    view = load_crossview(folder, "cross_area", split)
    cities = {"train": ["NewYork", "Seattle"], "test": ["Chicago", "SanFrancisco"]}[split]
    assert list(view.references.groupby("area", sort=False).size().items()) == [(c, 9) for c in cities]
    for city in cities:
        asked = view.queries[view.queries.area == city]
        expected = metres(truth[city], np.array(fake.CITIES[city]))
        np.testing.assert_allclose(asked[["x", "y"]].to_numpy(), expected, atol=0.01)


def test_vigor_positives_are_nearest_and_semi_positives_next(vigor):
    folder, _ = vigor
    view = load_crossview(folder, "cross_area", "test")
    tiles = view.references[["x", "y"]].to_numpy()
    for q in view.queries.itertuples():
        same = np.flatnonzero(view.references.area == q.area)
        far = np.abs(tiles[same] - (q.x, q.y)).max(1)
        order = same[np.argsort(far)]
        assert order[0] == q.positive
        assert set(order[:4]) == {q.positive, *q.semi}


def test_vigor_metrics_are_the_usual_ones(vigor):
    folder, _ = vigor
    view = load_crossview(folder, "same_area", "test")
    assert set(view.queries.area) == set(fake.CITIES)
    scores = np.zeros((len(view.queries), len(view.references)))
    scores[np.arange(len(scores)), view.queries.positive] = 1
    assert sm.recall_at_k(sm.ranks(scores, view.queries.positive.to_numpy()), 1) == 1
    found = view.references[["x", "y"]].to_numpy()[view.queries.positive]
    errors = sm.localization_errors(found, view.queries[["x", "y"]].to_numpy())
    assert errors.max() < 160 * np.sqrt(2) * 0.12
    assert errors.min() > 0.5


def test_vigor_reads_the_second_layout_too(vigor):
    folder, _ = vigor
    for city in fake.CITIES:
        for old, new in (("panorama", "ground"), ("satellite", "satellite")):
            (folder / new).mkdir(exist_ok=True)
            (folder / city / old).rename(folder / new / city)
    view = load_crossview(folder, "cross_area", "train")
    assert all(Path(p).is_file() for p in [*view.queries.path, *view.references.path])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pano.jpg a.png 1 2", r"line 3: has 4 columns"),
        ("p.jpg " + " ".join(f"t{i}.png 0 0" for i in range(4)), r"line 3: 't0\.png' is not in"),
    ],
)
def test_a_wrong_label_is_named_by_file_and_line(vigor, line, said):
    folder, _ = vigor
    path = folder / "splits" / "Chicago" / "pano_label_balanced.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=rf"pano_label_balanced\.txt, {said}"):
        load_crossview(folder, "cross_area", "test")


def test_offsets_that_are_no_numbers_and_names_that_lead_outside(vigor):
    folder, _ = vigor
    path = folder / "splits" / "Chicago" / "pano_label_balanced.txt"
    words = path.read_text().splitlines()[0].split()
    path.write_text(" ".join([words[0], words[1], "north", *words[3:]]))
    with pytest.raises(ValueError, match=r"line 1: expected offsets in pixels"):
        load_crossview(folder, "cross_area", "test")
    path.write_text(" ".join(["../../x.jpg", *words[1:]]))
    with pytest.raises(ValueError, match="leads outside"):
        load_crossview(folder, "cross_area", "test")


def test_a_missing_city_is_named(vigor):
    folder, _ = vigor
    (folder / "splits" / "Seattle" / "satellite_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"Seattle/satellite_list\.txt"):
        load_crossview(folder, "cross_area", "train")


@pytest.mark.parametrize(("write", "counts"), [(fake.write_cvusa, (5, 3)), (fake.write_cvact, (4, 2))])
def test_pairs_of_panorama_and_satellite_image(tmp_path, write, counts):
    folder = write(tmp_path)
    for split, count in zip(("train", "test"), counts, strict=True):
        view = load_crossview(folder, split=split)
        assert len(view.queries) == len(view.references) == count
        assert not view.has_coordinates
        assert "x" not in view.queries
        images = ViewImages(view.references, (16, 24))
        assert images[0].shape == (3, 16, 24)
        assert 0 <= images[0].min() <= images[0].max() <= 1
        assert all(Path(p).is_file() for p in view.queries.path)


def test_wrong_files_are_named(tmp_path):
    fake.write_cvusa(tmp_path / "a")
    path = tmp_path / "a" / "splits" / "val-19zl.csv"
    path.write_text("only one column\n")
    with pytest.raises(ValueError, match=r"val-19zl\.csv, line 1: is 'only one column'"):
        load_crossview(tmp_path / "a", split="test")
    path.write_text("../../../x.jpg,b.jpg\n")
    with pytest.raises(ValueError, match="leads outside"):
        load_crossview(tmp_path / "a", split="test")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ACT_data.mat").write_bytes(b"no matlab")
    with pytest.raises(ValueError, match=r"ACT_data\.mat: expected panoIds"):
        load_crossview(tmp_path / "b")
    with pytest.raises(ValueError, match="no cross-view layout"):
        load_crossview(tmp_path)
    with pytest.raises(ValueError, match="'val'"):
        load_crossview(tmp_path / "a", split="val")
