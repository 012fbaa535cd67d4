"""The picture of systems says of each what its recipe does, and the frames are of the patches that are attended to."""

import matplotlib.patches
import numpy as np
import pytest

from sarmatch import figures
from sarmatch.encoders import create_encoder
from sarmatch.figures.systems import FLOWS
from sarmatch.training.config import recipe


@pytest.mark.parametrize("name", FLOWS)
def test_boxes_say_how_many_branches_the_encoder_has(name):
    config = recipe(name)
    encoder = create_encoder(config.encoder, config.image_size, **config.encoder_options)
    own, other = (
        {
            id(weights)
            for key, weights in encoder.named_parameters(remove_duplicate=False)
            if f".{modality}." in f".{key}"
        }
        for modality in ("query", "reference")
    )
    assert own or other or FLOWS[name].branches == 1
    assert (2 if own - other else 1) == FLOWS[name].branches


def test_a_row_per_system_and_unknown_ones_are_named():
    (axes,) = figures.systems_flow(["transgeo", "sample4geo"]).axes
    words = [text.get_text() for text in axes.texts]
    assert words.count(FLOWS["transgeo"].trunk) == 2
    assert words.count(FLOWS["sample4geo"].trunk) == 1
    with pytest.raises(ValueError, match="no system is called"):
        figures.systems_flow(["transgo"])


def test_frames_are_those_of_the_largest_attention():
    attention = np.zeros((2, 2))
    attention[1, 0] = 1.0
    figure = figures.attended([np.zeros((8, 8, 3))], {"TransGeo": [attention]}, 0.25, "simulated")
    (frame,) = (p for p in figure.axes[1].patches if isinstance(p, matplotlib.patches.Rectangle))
    assert frame.get_xy() == (0, 4)
    assert (frame.get_width(), frame.get_height()) == (4, 4)
