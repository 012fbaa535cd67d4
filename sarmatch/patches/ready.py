"""Whether a scene can be trained and tested on, found out before hours are spent on it."""

from collections.abc import Sequence

import numpy as np

from sarmatch.patches.splits import protocols_of, training_regions
from sarmatch.patches.tables import KINDS, draw_windows, guard_band, search_task
from sarmatch.scenes.scene import Scene

TRIED = 100  # windows that are drawn: enough to see that there are any


def require_splits(
    scene: Scene,
    protocols: Sequence[str] = ("cross_area",),
    kinds: Sequence[str] = KINDS,
    size: int | None = None,
    stride: int | None = None,
) -> None:
    """Refuse a scene that a run with these settings could not be trained, validated and tested on.

    Parameters
    ----------
    scene
        Where from.
    protocols, kinds
        What is trained for and tested on; the first protocol validates.
    size, stride
        Of the patches in pixels, and of the grid; the scene's own patch size by default.

    Raises
    ------
    ValueError
        Where a protocol has no training, validation or test strips, or one of them holds no patch.
    """
    missing = set(protocols) - set(protocols_of(scene))
    if missing:
        raise ValueError(
            f"scene {scene.name!r} cannot be split by {sorted(missing)}; it has protocols {protocols_of(scene)}"
        )
    side = scene.patch_size if size is None else size
    for protocol in protocols:
        for kind in kinds:
            search_task(scene, kind, size, "test", protocol=protocol, stride=stride, count=TRIED)
    search_task(scene, "arbitrary", size, "val", protocol=protocols[0], stride=stride, count=TRIED)
    ground = training_regions(scene, protocols, guard_band(scene, side))
    if draw_windows(ground, scene, side, TRIED, np.random.default_rng(0)).empty:
        raise ValueError(f"scene {scene.name!r}: no training strip holds a patch of {side} x {side} px")
