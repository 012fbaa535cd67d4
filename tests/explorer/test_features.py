"""The hover map, without a browser: well-formed, complete, and with the right patch at the right place."""

import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from sarmatch.explorer import explore_features, hover_map
from sarmatch.explorer.features import HEIGHT, WIDTH

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def parts():
    points = np.array([[0.0, 0.0], [1.0, 2.0], [4.0, 1.0], [0.5, 0.5], [1.0, 1.0], [4.0, 2.0]])
    sar = [np.full((20, 20), level) for level in (0.0, 0.5, 1.0)]
    optical = [np.tile(colour, (20, 20, 1)).astype(float) for colour in ([1, 0, 0], [0, 1, 0], [0, 0, 1])]
    return points, sar, optical, ["#123456", "red", "blue"], ["a & b", "<c>", "d"]


def drawing(parts) -> ET.Element:
    return ET.fromstring(hover_map(*parts).partition("</style>")[2])


def pixel(image: ET.Element) -> np.ndarray:
    data = base64.b64decode(image.attrib["href"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[10, 10] / 255


def test_every_pair_has_two_points_a_line_and_its_own_patches(parts):
    pairs = drawing(parts).findall(f"{SVG}g")
    assert len(pairs) == 3
    for i, pair in enumerate(pairs):
        circles, shown = pair.findall(f"{SVG}circle"), pair.find(f"{SVG}g")
        assert [c.attrib["cx"] for c in circles] == [shown.find(f"{SVG}line").attrib[k] for k in ("x1", "x2")]
        sar, optical = shown.findall(f"{SVG}image")
        np.testing.assert_allclose(pixel(sar), parts[1][i][0, 0], atol=0.05)
        np.testing.assert_allclose(pixel(optical), parts[2][i][0, 0], atol=0.05)
    assert [p.find(f".//{SVG}text").text for p in pairs] == parts[4], "text is escaped, not dropped"


def test_north_is_up_and_nothing_leaves_the_map(parts):
    circles = drawing(parts).findall(f".//{SVG}circle")
    x, y = (np.array([float(c.attrib[k]) for c in circles]) for k in ("cx", "cy"))
    assert x.min() >= 0
    assert x.max() <= WIDTH
    assert y.min() >= 0
    assert y.max() <= HEIGHT
    assert y[0] == y.max(), "the lowest point of all is drawn lowest"


def test_points_in_one_spot_are_drawn(parts):
    drawing((np.zeros((6, 2)), *parts[1:]))


def test_missing_parts_are_counted(parts):
    with pytest.raises(ValueError, match=r"caption \(3\), got .*'sar': 2"):
        hover_map(parts[0], parts[1][:2], *parts[2:])


def test_the_widget_shows_the_map(parts):
    assert explore_features(*parts).value == hover_map(*parts)
