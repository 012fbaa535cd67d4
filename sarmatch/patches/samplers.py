"""Which pairs of an epoch meet in one batch.

A batch is where a pair finds its negatives. Drawn at random they are mostly easy; drawn from nearby ground or from
what looks alike they are hard. In all but `random` and `cluster`, no two pairs of a batch share ground, so that none is
a false negative.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sarmatch.progress import progress


class Drawn(NamedTuple):
    """The pairs of an epoch, as a sampler sees them."""

    place: np.ndarray  # int (N, 5): corner of the query, corner of the reference, number of the area; pixels
    size: int  # side of a patch in pixels
    pixel_size: float  # metres; 1 where there are none
    features: Callable[[], tuple[np.ndarray, np.ndarray]]  # embeddings of queries and references (N, D), made on demand


class Sampler(NamedTuple):
    """How a batch is filled: seeds at random, and with each seed some pairs from a pool of its nearest.

    A pool of none means random company.
    """

    about: str
    group: int = 1  # pairs per seed, the seed included
    pool: int = 0  # of how many nearest the company is drawn
    nearness: Callable[[Drawn], Callable[[int], np.ndarray]] | None = None  # of all pairs to one; small is near
    shares: bool = False  # whether pairs of a batch may share ground


def _in_metres(drawn: Drawn) -> Callable[[int], np.ndarray]:
    corner, area = drawn.place[:, :2] * drawn.pixel_size, drawn.place[:, 4]
    return lambda i: np.where(area == area[i], np.hypot(*(corner - corner[i]).T), np.inf)


def _in_features(drawn: Drawn) -> Callable[[int], np.ndarray]:
    query, reference = drawn.features()
    return lambda i: -(reference @ query[i])


SAMPLERS: dict[str, Sampler | None] = {
    "random": None,
    "distinct": Sampler("no two pairs of a batch share ground"),
    "neighbour": Sampler("sixteen at a time from the same quarter, nearest in metres", 16, 32, _in_metres),
    "cluster": Sampler("eight at a time from one spot, on shared ground: lists for a refiner", 8, 16, _in_metres, True),
    "similarity": Sampler("half of the 64 that look most alike to a seed, as Sample4Geo", 32, 64, _in_features),
    "mined": Sampler("half at random, and for each a hard one of its 100 nearest, as VIGOR", 2, 100, _in_features),
}


def arrange(name: str, drawn: Drawn, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Order in which the pairs of an epoch are taken, batch by batch.

    Parameters
    ----------
    name
        A key of `SAMPLERS`.
    drawn
        The pairs.
    batch_size
        Pairs in a batch.
    rng
        Chance.

    Returns
    -------
    `(M, batch_size)` of pair numbers; every pair once at most. Pairs are left over where the ground is too small for
    another whole batch.

    Raises
    ------
    ValueError
        For an unknown name, or where not even one batch can be filled with pairs that share no ground.
    """
    if name not in SAMPLERS:
        raise ValueError(f"no sampler is called {name!r}; there are {sorted(SAMPLERS)}")
    sampler, total = SAMPLERS[name], len(drawn.place)
    if sampler is None:
        whole = total // batch_size * batch_size
        return np.arange(whole).reshape(-1, batch_size)
    nearness = sampler.nearness(drawn) if sampler.nearness else None
    free = np.ones(total, bool)
    batches = []
    bar = progress(total=total // batch_size, desc=f"{name} batches", unit="batch")
    while free.sum() >= batch_size:
        batch = _fill(drawn, sampler, nearness, free, batch_size, rng)
        if batch is None:
            break
        free[batch] = False
        batches.append(batch)
        bar.update()
    bar.close()
    if not batches:
        raise ValueError(
            f"sampler {name!r}: the training ground has no {batch_size} places that share no ground; "
            "lower batch_size or take sampler 'random', whose neighbours are masked in the loss"
        )
    return np.array(batches)


def _fill(
    drawn: Drawn,
    sampler: Sampler,
    nearness: Callable[[int], np.ndarray] | None,
    free: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """One batch of free pairs that share no ground, or none where they do not suffice."""
    allowed, batch = free.copy(), []
    while len(batch) < batch_size:
        candidates = np.flatnonzero(allowed)
        if not len(candidates):
            return None
        seed = int(rng.choice(candidates))
        _take(seed, batch, allowed, drawn, sampler.shares)
        if nearness is None:
            continue
        company = np.flatnonzero(allowed)
        distance = nearness(seed)[company]
        near = company[np.argsort(distance, kind="stable")[: sampler.pool]]
        left = min(sampler.group - 1, batch_size - len(batch))
        for other in rng.permutation(near[np.isfinite(nearness(seed)[near])]):
            if left and allowed[other]:
                _take(int(other), batch, allowed, drawn, sampler.shares)
                left -= 1
    return np.array(batch)


def _take(pair: int, batch: list[int], allowed: np.ndarray, drawn: Drawn, shares: bool) -> None:
    """Put a pair into the batch; itself, and what may not share its ground, is no longer allowed."""
    batch.append(pair)
    allowed[pair] = False
    if shares:
        return
    corners, area = drawn.place[:, :4].reshape(-1, 2, 2), drawn.place[:, 4]
    apart = np.abs(corners[:, :, None] - corners[pair][None, None]).max(-1) >= drawn.size  # (N, 2, 2)
    allowed &= (area != area[pair]) | apart.all((1, 2))
