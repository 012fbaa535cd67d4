"""What SAR values mean."""

import numpy as np
import pytest
import torch

from sarmatch.patches import to_input
from sarmatch.scenes import Raster
from sarmatch.scenes.radiometry import STANDARD_WINDOW, percentile_window, to_decibels

POWER = np.random.default_rng(0).gamma(4, 1 / 4, (1, 64, 64)).astype(np.float32)
SAME = {"intensity": POWER, "amplitude": np.sqrt(POWER), "decibel": 10 * np.log10(POWER)}


@pytest.mark.parametrize("scale", SAME)
def test_all_scales_say_the_same(scale):
    np.testing.assert_allclose(to_decibels(SAME[scale], scale), 10 * np.log10(POWER), atol=1e-4)
    raster = Raster.from_array("s", SAME[scale], scale)
    np.testing.assert_allclose(percentile_window(raster), np.percentile(10 * np.log10(POWER), (1, 99)), atol=1e-3)


def test_what_has_no_logarithm_is_no_data():
    values = to_decibels(np.array([0.0, -1.0, np.nan, np.inf, 10.0]), "intensity")
    np.testing.assert_array_equal(np.isfinite(values), [False, False, False, False, True])
    with pytest.raises(ValueError, match="'counts'"):
        to_decibels(POWER, "counts")


def test_the_window_ignores_nodata_and_refuses_what_holds_nothing():
    holes = POWER.copy()
    holes[:, :, :40] = 0
    expected = np.percentile(10 * np.log10(POWER[:, :, 40:]), (1, 99))
    np.testing.assert_allclose(percentile_window(Raster.from_array("s", holes, "intensity")), expected, atol=1e-3)
    with pytest.raises(ValueError, match="'s': no pixel holds data"):
        percentile_window(Raster.from_array("s", np.zeros_like(POWER), "intensity"))
    with pytest.raises(ValueError, match=r"'s': all values are 3\.010 dB"):
        percentile_window(Raster.from_array("s", np.full_like(POWER, 2.0), "intensity"))


def test_a_window_takes_the_place_of_calibration():
    """The same image in other units gives the encoder the same input."""
    first, second = (Raster.from_array("s", POWER * gain, "intensity") for gain in (1.0, 3.7e4))
    seen = [
        to_input(torch.from_numpy(r.read(0, 0, 64, 64))[None], r.scale, 32, percentile_window(r))
        for r in (first, second)
    ]
    torch.testing.assert_close(*seen, atol=1e-3, rtol=0)
    low, high = STANDARD_WINDOW
    assert low <= float(seen[0].min())
    full = to_input(torch.from_numpy(POWER)[None], "intensity", 64, percentile_window(first))
    assert (full > high).float().mean() == pytest.approx(0.01, abs=0.003)


def test_decibels_are_averaged_as_power():
    levels = torch.tensor([[[[10.0, 0.0], [0.0, 0.0]]]])
    expected = 10 * np.log10((10 + 1 + 1 + 1) / 4)
    assert to_input(levels, "decibel", 1).item() == pytest.approx(expected, abs=1e-5)
