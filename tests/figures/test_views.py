"""What is drawn of a panorama lies where the labels say."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

import sarmatch as sm
from sarmatch.figures import panorama_on_tiles
from sarmatch.scenes.mercator import pixel_size
from tests import fake_archives as fake


@pytest.mark.parametrize("heading", [0.0, 90.0])
def test_tiles_lie_about_the_panorama_and_the_middle_of_it_is_its_heading(tmp_path, heading):
    view = sm.load_crossview(fake.write_vigor(tmp_path)[0], "cross_area", "train")
    figure = panorama_on_tiles(view, 0, heading)
    panorama, tile, around = figure.axes[:3]
    names = dict(zip(panorama.get_xticks(), [t.get_text() for t in panorama.get_xticklabels()], strict=True))
    assert names[sum(panorama.get_xlim()) / 2] == {0.0: "N", 90.0: "E"}[heading]
    asked = view.queries.iloc[0]
    width = 640 * pixel_size(view.references.latitude[asked.positive])
    left, right, bottom, top = tile.images[0].get_extent()
    centre = view.references.loc[asked.positive, ["x", "y"]].to_numpy(float) - asked[["x", "y"]].to_numpy(float)
    np.testing.assert_allclose([(left + right) / 2, (bottom + top) / 2], centre, atol=1e-6)
    np.testing.assert_allclose([right - left, top - bottom], width)
    assert len(around.images) == 4 and len(tile.images) == 1
    assert sum(isinstance(p, Rectangle) for p in around.patches) == 5  # four tiles and the centre quarter
    quarter = [p for p in tile.patches if isinstance(p, Rectangle)][-1]
    assert quarter.get_x() <= 0 <= quarter.get_x() + quarter.get_width()  # which holds the place


def test_pairs_without_places_have_one_tile(tmp_path):
    view = sm.load_crossview(fake.write_cvusa(tmp_path))
    figure = panorama_on_tiles(view, 1)
    assert len(figure.axes[2].images) == 1
    assert "px" in figure.axes[1].get_xlabel()
