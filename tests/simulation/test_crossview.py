"""Simulated cross-view sets are read by the readers of the published ones, and their labels are true."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sarmatch as sm
from sarmatch.datasets.images import image_size, read_image
from sarmatch.scenes.mercator import pixel_size

SMALL = {"tiles": 4, "tile_px": 64, "panorama": (24, 48), "view_m": 12.0}


@pytest.fixture(scope="module")
def vigor(tmp_path_factory) -> Path:
    return sm.simulate_crossview(tmp_path_factory.mktemp("views") / "vigor", "vigor", seed=3, **SMALL)


@pytest.fixture(scope="module")
def everything(vigor):
    """All panoramas and tiles of all towns, with where the panoramas truly are."""
    views = [sm.load_crossview(vigor, "cross_area", split) for split in ("train", "test")]
    truth = pd.read_csv(vigor / "panoramas.csv")
    return views, {Path(row.path).name: row for row in truth.itertuples()}


def test_the_reader_of_vigor_reads_it(vigor, everything):
    views, truth = everything
    assert [sorted(v.references.area.unique()) for v in views] == [["NewYork", "Seattle"], ["Chicago", "SanFrancisco"]]
    assert all(len(v.references) == 2 * 16 and v.has_coordinates and v.simulated for v in views)
    assert all("simulated" in v.credit for v in views)
    assert sum(len(v.queries) for v in views) == len(truth) > 20
    for view in views:
        assert view.queries.positive.value_counts().max() <= 2  # balanced
        for path, size in ((view.queries.path[0], (24, 48)), (view.references.path[0], (64, 64))):
            assert image_size(path) == size
    same = [sm.load_crossview(vigor, "same_area", split) for split in ("train", "test")]
    assert sum(len(v.queries) for v in same) == len(truth)
    assert not set(same[0].queries.path) & set(same[1].queries.path)


def test_offsets_agree_with_where_panoramas_are(everything):
    views, truth = everything
    for view in views:
        for area in view.queries.area.unique():
            asked = view.queries[view.queries.area == area]
            found = asked[["x", "y"]].to_numpy()
            true = np.array([(truth[p.name].x, truth[p.name].y) for p in asked.path])
            # the reader counts from the first tile, the simulation from the corner of the town
            np.testing.assert_allclose(found - found[0], true - true[0], atol=0.02)


def test_the_positive_is_the_tile_whose_centre_quarter_holds_the_panorama(everything):
    for view in everything[0]:
        tiles = view.references[["x", "y"]].to_numpy()
        for q in view.queries.itertuples():
            width = 640 * pixel_size(view.references.latitude[q.positive])
            off = np.abs(tiles - (q.x, q.y)).max(1) / width
            off[view.references.area != q.area] = np.inf
            assert np.flatnonzero(off <= 0.25 + 1e-5).tolist() == [q.positive]
            assert set(np.flatnonzero(off < 0.5 - 1e-4)) <= {q.positive, *q.semi}
            assert len({q.positive, *q.semi}) == 4


def test_neighbouring_tiles_overlap_by_half(everything):
    references = everything[0][0].references
    first, right, below = (read_image(references.path[i], 3) for i in (0, 1, 4))
    np.testing.assert_array_equal(first[:, :, 32:], right[:, :, :32])
    np.testing.assert_array_equal(first[:, 32:], below[:, :32])


def test_a_panorama_stands_on_the_tile_that_its_label_names(vigor, tmp_path):
    """Rendered anew from the town at the place that the labels give: the ground agrees with the file."""
    again = sm.simulate_crossview(tmp_path / "again", "vigor", seed=3, **SMALL)
    other = sm.simulate_crossview(tmp_path / "other", "vigor", seed=4, **SMALL)
    for name in ("panoramas.csv", "splits/Seattle/pano_label_balanced.txt"):
        assert (again / name).read_text() == (vigor / name).read_text() != (other / name).read_text()
    one = pd.read_csv(vigor / "panoramas.csv").path[0]
    assert (again / one).read_bytes() == (vigor / one).read_bytes()


def test_an_unknown_heading_is_drawn_and_written_down(tmp_path):
    folder = sm.simulate_crossview(tmp_path / "turned", "vigor_unknown_heading", seed=3, **SMALL)
    headings = pd.read_csv(folder / "panoramas.csv").heading_deg
    assert headings.nunique() == len(headings)


@pytest.mark.parametrize("preset", ["cvusa", "cvact"])
def test_centre_aligned_sets_are_read_by_their_readers(preset, tmp_path):
    small = {"tiles": 4, "tile_px": 32, "zoom_px": 480, "panorama": (16, 64), "view_m": 5.0}
    folder = sm.simulate_crossview(tmp_path, preset, **small)
    counts = []
    for split in ("train", "test"):
        view = sm.load_crossview(folder, split=split)
        assert not view.has_coordinates and view.simulated
        assert list(view.queries.positive) == list(range(len(view.references)))
        assert all(Path(p).is_file() for p in (*view.queries.path, *view.references.path))
        counts.append(len(view.queries))
    places = pd.read_csv(folder / "panoramas.csv")
    assert sum(counts) == len(places) and min(counts) > 0
    for _, town in places.groupby("area"):
        apart = np.hypot(*(town[["x", "y"]].to_numpy()[:, None] - town[["x", "y"]].to_numpy()).transpose(2, 0, 1))
        assert apart[~np.eye(len(town), dtype=bool)].min(initial=99) >= 20


def test_a_folder_holds_one_set(vigor, tmp_path):
    assert sm.simulate_crossview(vigor, "vigor", seed=3, **SMALL) == vigor  # at once: it is there
    with pytest.raises(ValueError, match="differs in \\['seed'\\]"):
        sm.simulate_crossview(vigor, "vigor", seed=4, **SMALL)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        sm.simulate_crossview(tmp_path)
    with pytest.raises(ValueError, match="no cross-view set is called 'vigour'"):
        sm.simulate_crossview(tmp_path / "a", "vigour")
    with pytest.raises(ValueError, match="no field of a cross-view preset is called \\['tile'\\]"):
        sm.simulate_crossview(tmp_path / "a", tile=3)
