"""How bright strips of tall buildings are: where the threshold of `locate`'s warning of layover comes from.

Usage: python benchmarks/layover.py [--scene standard] [--count 200]

Strips of five windows are cut from a simulated scene, whose roofs have known heights. A strip is displaced where the
90th percentile of its roofs lies more than 10 m nearer to the radar than its ground: height over the tangent of the
incidence angle. It is told by the fraction of pixels that are so many decibels brighter than the strip's median. The
decibels and the fraction with the best balanced accuracy on the training towns are taken, and are tried on the town
that nobody has seen.
"""

import argparse

import numpy as np
import pandas as pd

from sarmatch.datasets import load_scene
from sarmatch.evaluation.calibration import balanced_accuracy, best_cut
from sarmatch.experiments.localization import Cut, cut_strips
from sarmatch.localization.location import BRIGHT, BRIGHT_DB, bright_fraction
from sarmatch.patches import regions
from sarmatch.scenes import Scene
from sarmatch.simulation import roof_heights
from sarmatch.simulation.closeup import COARSE

WINDOWS, SIZE = 5, 200  # of a strip, and pixels
DISPLACED_M = 10.0
TALL = 90  # percentile of the roofs
DECIBELS = (6.0, 8.0, 10.0, 12.0, 15.0, 18.0)


def layover_of(scene: Scene, cut: Cut, heights: np.ndarray) -> float:
    """Metres towards the radar by which tall roofs of a strip are displaced; 0 where there are none."""
    row, col, (_, _, high, wide) = cut.row, cut.col, cut.raster.bounds
    part = heights[row // COARSE : (row + high) // COARSE, col // COARSE : (col + wide) // COARSE]
    roofs = part[np.isfinite(part)]
    incidence = np.deg2rad(scene.area(cut.area).strip(cut.raster.name).details["incidence_deg"])
    return float(np.percentile(roofs, TALL) / np.tan(incidence)) if len(roofs) else 0.0


def measured(scene: Scene, splits: tuple[str, ...], count: int) -> pd.DataFrame:
    """A row per strip: `layover_m`, and the bright fraction at each of the decibels."""
    ground = regions(scene, "cross_area", 2 * SIZE)
    ground = ground[ground["split"].isin(splits)]
    heights = {area: roof_heights(scene, area) for area in ground["area"].unique()}
    rows = []
    for cut in cut_strips(scene, ground, SIZE, WINDOWS, count):
        bright = {f"{db:g} dB": bright_fraction(cut.windows, db) for db in DECIBELS}
        rows.append({"layover_m": layover_of(scene, cut, heights[cut.area]), **bright})
    return pd.DataFrame(rows)


def main() -> None:
    """Print the thresholds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", default="standard")
    parser.add_argument("--count", type=int, default=200, help="strips of the training towns, and of the unseen one")
    options = parser.parse_args()
    scene = load_scene(options.scene)
    known, unseen = (measured(scene, s, options.count) for s in (("train", "val"), ("test",)))
    rows = []
    for column in (f"{db:g} dB" for db in DECIBELS):
        cut, accuracy = best_cut(known[column], known["layover_m"] > DISPLACED_M)
        tried = balanced_accuracy(unseen[column], unseen["layover_m"] > DISPLACED_M, cut)
        rows.append({"above": column, "fraction": cut, "training towns": accuracy, "unseen town": tried})
    print(pd.DataFrame(rows).round(4).to_string(index=False))
    for name, strips in (("training towns", known), ("unseen town", unseen)):
        displaced = strips["layover_m"] > DISPLACED_M
        right = balanced_accuracy(strips[f"{BRIGHT_DB:g} dB"], displaced, BRIGHT)
        told = f"balanced accuracy of {BRIGHT:g} above {BRIGHT_DB:g} dB: {right:.3f}"
        print(f"{name}: {len(strips)} strips, {displaced.sum()} displaced by more than {DISPLACED_M:g} m; {told}")


if __name__ == "__main__":
    main()
