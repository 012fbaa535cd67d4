"""Panels that teach: every value has its picture, and the pictures say what they should."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sarmatch.evaluation import METRICS
from sarmatch.explorer.state import Explorer
from sarmatch.explorer.teaching import Stills, blur_panel, overlap_panel, weight_panel
from sarmatch.figures import overlap_by_stride
from tests.explorer.test_explorer import DENSE, VECTOR, untrained_run


def is_picture(content: bytes) -> bool:
    low, high = Image.open(io.BytesIO(content)).convert("L").getextrema()
    return high - low > 100


def sliders_change_the_picture(panel: Stills) -> bool:
    values = [value for _, value in panel.slider.options]
    seen = set()
    for value in (values[0], values[-1]):
        panel.slider.value = value
        assert is_picture(panel.picture.value)
        seen.add(panel.picture.value)
    return len(seen) == 2


def test_a_picture_is_drawn_once():
    drawn = []

    def draw(value):
        drawn.append(value)
        return overlap_by_stride({32: np.array([0.25, 1.0])}, 32, "made up")

    panel = Stills("stride", [1, 2], draw)
    panel.slider.value = 2
    panel.slider.value = 1
    assert drawn == [1, 2]
    with pytest.raises(ValueError, match="no value"):
        Stills("stride", [], draw)


def test_blur_spreads_the_plan():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(12, 2)) + 2
    panel = blur_panel(x, y, "made up", (0, 0.5, 2.0))
    assert sliders_change_the_picture(panel)
    costs = [float(panel.still(b).get_suptitle().split("costs ")[1].split()[0]) for b in (0, 0.5, 2.0)]
    assert costs[0] == pytest.approx(METRICS["wasserstein_2"](x, y), abs=0.005)
    assert costs == sorted(costs), "what is blurred costs more than the cheapest"


def test_weights_are_added_one_by_one():
    rows = [
        {"weight": w, "network": n, "recall@10": r, "seed": 0} for w, r in ((0, 0.2), (1, 0.3), (10, 0.1)) for n in "ab"
    ]
    panel = weight_panel(pd.DataFrame(rows), {"recall@10": "recall@10 (fraction)"}, "network", "simulated")
    assert [value for _, value in panel.slider.options] == [1, 10]
    assert sliders_change_the_picture(panel)


def test_overlap_falls_from_all_to_nothing(tiny_scene, tmp_path, monkeypatch):
    monkeypatch.setenv("SARMATCH_CACHE", str(tmp_path / "cache"))
    panel = overlap_panel(Explorer(untrained_run(tmp_path, **VECTOR), tiny_scene, count=3), 1, steps=4)
    assert sliders_change_the_picture(panel)
    assert "100% overlap" in panel.still(0).axes[1].get_title()
    assert "0% overlap" in panel.still(4).axes[1].get_title()
    assert panel.still(0).get_suptitle().startswith("100% of the query lie in the window: cosine ")
    with pytest.raises(ValueError, match="needs a run of search by vectors"):
        overlap_panel(Explorer(untrained_run(tmp_path, **DENSE), tiny_scene, count=3))
