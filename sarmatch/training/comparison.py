"""Several runs side by side, and whether an alignment has done what it is there for."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sarmatch.training.runs import Run

#: What a run's `discrepancy` adds to a table of runs.
APART = ("ratio", "ratio_low", "ratio_high")


def compare(runs: Sequence[Run]) -> pd.DataFrame:
    """Several runs as one table.

    Returns
    -------
    The metrics of each run behind the fields of the configs that differ. Where runs know how far the modalities are
    apart, also `wasserstein_1` on validation areas, its `ratio` to the null with `ratio_low` and `ratio_high` (see
    `Run.discrepancy`), and `effect`, what the alignment has done to the ratio in words: see `alignment_effects`.
    """
    if not runs:
        raise ValueError("runs is empty: give at least one run to compare")
    configs = pd.DataFrame([r.config.model_dump(mode="json") for r in runs])
    differ = [c for c in configs if configs[c].astype(str).nunique() > 1]
    rows = []
    for finished, effect in zip(runs, alignment_effects(runs), strict=True):
        said = {c: str(finished.config.model_dump(mode="json")[c]) for c in differ}
        apart = finished.discrepancy | {"effect": effect} if finished.discrepancy else {}
        rows.append(finished.metrics.assign(**said, **apart))
    table = pd.concat(rows, ignore_index=True)
    return table[[*differ, *(c for c in table if c not in differ)]]


def alignment_effects(runs: Sequence[Run]) -> list[str]:
    """What the alignment of each run has done to the distance between the modalities, in words.

    The control is the same config without an alignment or with a weight of 0, of whichever seeds are among the runs.
    An alignment is *effective* where the mean over seeds of its ratio to the null lies below the band of the control
    and below each of the control's seeds. Else it is *ineffective*, and what is found beside it says nothing of
    alignment. A ratio, and no distance: merely shrinking both modalities moves none.

    Returns
    -------
    A sentence per run, in their order; "no alignment" for a control.
    """
    groups = [seedless_key(r, aligned=False) for r in runs]
    arms = [seedless_key(r, aligned=True) for r in runs]
    words = []
    for number, finished in enumerate(runs):
        if not finished.config.aligned:
            words.append("no alignment")
            continue
        own = [r for r, arm in zip(runs, arms, strict=True) if arm == arms[number]]
        control = [r for r, g in zip(runs, groups, strict=True) if g == groups[number] and not r.config.aligned]
        words.append(_effect(own, control))
    return words


def seedless_key(finished: Run, aligned: bool) -> str:
    """Letters that stand for what was trained but for its seed, with its alignment or without."""
    config = finished.config if aligned else finished.config.unaligned
    return config.model_copy(update={"seed": 0}).training_key


def _effect(own: Sequence[Run], control: Sequence[Run]) -> str:
    if not control:
        return "unknown: no run without the alignment is beside it"
    if not all(r.discrepancy for r in (*own, *control)):
        return "unknown: not every run has recorded its distance"
    mean = {name: float(np.mean([r.discrepancy[name] for r in control])) for name in APART}
    ratio = float(np.mean([r.discrepancy["ratio"] for r in own]))
    least = min(mean["ratio_low"], *(r.discrepancy["ratio"] for r in control))
    verdict = "effective" if ratio < least else "ineffective"
    without = f"without it {mean['ratio']:.2f} ({mean['ratio_low']:.2f} to {mean['ratio_high']:.2f})"
    return f"{verdict}: {ratio:.2f} times the null, {without}"
